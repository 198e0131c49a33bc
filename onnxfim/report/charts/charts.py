"""Charts as coordinates: what each is made of is computed here, and the template prints it as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxfim.record.audit import StepChoice
from onnxfim.record.decision import Aggregate, Aggregates
from onnxfim.record.sample import SampleResult
from onnxfim.report.charts.axes import Scale, Tick, linear_ticks, log_scale, log_ticks
from onnxfim.report.numbers import count, interval, number, short

Series = str
Anchor = Literal["start", "middle", "end"]
WIDE, NARROW = 700, 360
LETTER = 7.0  # mean width of a 12 px letter


@dataclass(frozen=True)
class Rule:
    """A straight line: ``grid``, ``axis``, ``chosen`` or the name of a series."""

    x1: float
    y1: float
    x2: float
    y2: float
    role: str


@dataclass(frozen=True)
class Label:
    """A text; ``anchor`` is SVG's text-anchor and ``role`` one of ``tick``, ``title``, ``value`` or ``note``."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    role: str = "tick"
    turned: bool = False


@dataclass(frozen=True)
class Bar:
    """A rectangle with a tooltip."""

    x: float
    y: float
    width: float
    height: float
    series: Series
    tip: str


@dataclass(frozen=True)
class Path:
    """A line or a marker as SVG path data; ``filled`` for markers, ``dash`` as SVG's stroke-dasharray."""

    data: str
    series: Series
    filled: bool = False
    dash: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart ready to print: ``title`` and ``description`` are its text alternative."""

    name: str
    title: str
    description: str
    width: int
    height: int
    rules: tuple[Rule, ...] = ()
    bars: tuple[Bar, ...] = ()
    paths: tuple[Path, ...] = ()
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True)
class Figure:
    """The same chart at two widths, for a page and for a phone."""

    wide: Chart
    narrow: Chart


def marker(shape: str, x: float, y: float, *, radius: float = 4.0) -> str:
    """SVG path data of a marker, so that series differ by shape as well as by colour."""
    r = radius
    if shape == "square":
        return f"M{x - r:.1f} {y - r:.1f}h{2 * r:.1f}v{2 * r:.1f}h{-2 * r:.1f}z"
    if shape == "triangle":
        return f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:.1f} {2.1 * r:.1f}h{-2.4 * r:.1f}z"
    if shape == "diamond":
        return f"M{x:.1f} {y - 1.3 * r:.1f}l{1.3 * r:.1f} {1.3 * r:.1f}l{-1.3 * r:.1f} {1.3 * r:.1f}l{-1.3 * r:.1f} {-1.3 * r:.1f}z"
    return f"M{x - r:.1f} {y:.1f}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0z"


STATISTICS = (("median", "diamond"), ("mean", "circle"), ("p95", "triangle"), ("max", "square"))
_PANEL, _ROW = 104, 19


@dataclass(frozen=True)
class Panel:
    """One histogram: the values of one measure and its statistics."""

    series: Series
    title: str
    values: tuple[float, ...]
    aggregates: Aggregates | None


def distribution(panels: Sequence[Panel], *, units: str, width: int) -> Chart | None:
    """Histograms of ``panels`` over one logarithmic axis, each with its statistics and their intervals below.

    Values of zero have no place on a logarithmic axis; the panel's title says how many there are.
    None where no value is positive.
    """
    ends = [v for p in panels for _, a, _ in _statistics(p) for v in (a.low, a.value, a.high) if v is not None and v > 0]
    values = [v for p in panels for v in p.values if v > 0]
    if not values:
        return None
    left, right = 46, width - 14
    # An interval that reaches towards zero would push the histogram aside: the axis stops two decades below the values.
    x = log_scale([*values, *[max(v, min(values) / 100) for v in ends]], left, right)
    edges = _edges(x, most=36 if width > NARROW else 22)
    rules: list[Rule] = []
    bars: list[Bar] = []
    paths: list[Path] = []
    labels: list[Label] = []
    ticks = fitting(log_ticks(x, most=9 if width > NARROW else 6), x)
    y = 0.0
    for panel in panels:
        top = y + 30
        bottom = top + _PANEL
        zeros = sum(v == 0 for v in panel.values)
        labels.append(Label(left, y + 14, panel.title + (f" · {zeros} at zero, not drawn" if zeros else ""), role="title"))
        heights, _ = np.histogram([v for v in panel.values if v > 0], bins=edges)
        highest = max(1, int(heights.max()))
        for tick in linear_ticks(0, highest, most=4):
            if tick.value == round(tick.value):
                level = round(bottom - tick.value / highest * _PANEL, 1)
                rules.append(Rule(left, level, right, level, "grid"))
                labels.append(Label(left - 6, level + 4, tick.text, "end"))
        labels.append(Label(12, (top + bottom) / 2, "samples", "middle", turned=True))
        for low, high, height in zip(edges[:-1], edges[1:], heights, strict=True):
            if height:
                tall = round(int(height) / highest * _PANEL, 1)
                tip = f"{number(low)} to {number(high)}: {count(int(height), 'sample')}"
                bars.append(Bar(x(low) + 0.5, round(bottom - tall, 1), round(x(high) - x(low) - 1, 1), tall, panel.series, tip))
        y = bottom + 14
        for name, statistic, shape in _statistics(panel):
            _statistic_row(name, statistic, shape, panel.series, x, y, (rules, paths, labels))
            y += _ROW
        y += 12
    for tick in ticks:
        rules.insert(0, Rule(x(tick.value), 24, x(tick.value), y - 8, "grid"))
        labels.append(Label(x(tick.value), y + 8, tick.text, "middle"))
    rules.append(Rule(left, y - 8, right, y - 8, "axis"))
    labels.append(Label((left + right) / 2, y + 30, f"λ_max, {units} (log)", "middle", role="note"))
    return Chart(
        "distribution",
        "Distribution of λ_max over the samples",
        " ".join(_panel_words(p) for p in panels),
        width,
        round(y + 40),
        tuple(rules),
        tuple(bars),
        tuple(paths),
        tuple(labels),
    )


def _statistics(panel: Panel) -> list[tuple[str, Aggregate, str]]:
    return [(name, getattr(panel.aggregates, name), shape) for name, shape in STATISTICS] if panel.aggregates else []


def _statistic_row(
    name: str,
    statistic: Aggregate,
    shape: str,
    series: Series,
    x: Scale,
    y: float,
    into: tuple[list[Rule], list[Path], list[Label]],
) -> None:
    """A marker with its interval and its name beside it, on whichever side has room."""
    rules, paths, labels = into
    if statistic.value is None or statistic.value <= 0:
        labels.append(Label(x.start + 4, y + 4, f"{name} {number(statistic.value)}", role="value"))
        return
    here = x(statistic.value)
    low = x(statistic.low) if statistic.low is not None and statistic.low > 0 else x.start if statistic.low is not None else here
    high = x(statistic.high) if statistic.high is not None and statistic.high > 0 else here
    if high > low:
        rules.append(Rule(low, y, high, y, series))
        rules.extend(Rule(end, y - 4, end, y + 4, series) for end in (low, high))
    paths.append(Path(marker(shape, here, y), series, filled=True, tip=_statistic_words(name, statistic)))
    text = f"{name} {number(statistic.value)}"
    room = LETTER * len(text) + 10
    if max(high, here) + room < x.end:
        labels.append(Label(max(high, here) + 9, y + 4, text, role="value"))
    else:
        labels.append(Label(min(low, here) - 9, y + 4, text, "end", role="value"))


def _statistic_words(name: str, statistic: Aggregate) -> str:
    ends = interval(statistic.low, statistic.high)
    return f"{name} {number(statistic.value)}" + (f" ({100 * statistic.confidence:.0f} % interval {ends})" if ends else "")


def _panel_words(panel: Panel) -> str:
    known = [v for v in panel.values if v > 0]
    span = f"{count(len(known), 'sample')} from {number(min(known))} to {number(max(known))}" if known else "no positive value"
    stats = ", ".join(_statistic_words(name, a) for name, a, _ in _statistics(panel))
    return f"{panel.title}: {span}{'; ' + stats if stats else ''}."


def _edges(x: Scale, *, most: int) -> list[float]:
    """Bin edges at round fractions of a decade (or whole decades), at most ``most`` bins."""
    low, high = math.log10(x.low), math.log10(x.high)
    wanted = max((high - low) / most, 1e-6)
    fractions = [1 / n for n in (100, 50, 20, 16, 10, 8, 5, 4, 3, 2, 1)] + [2.0, 5.0, 10.0, 20.0]
    step = next((f for f in fractions if f >= wanted), 20.0)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [10.0 ** max(-307.0, min(308.0, i * step)) for i in range(first, last + 1)]


SCHEMES = (("forward", "circle", ""), ("central", "square", "7 4"), ("cross", "triangle", "2 3"))


def step_curve(step: StepChoice, *, units: str, width: int) -> Chart | None:
    """lambda(r): the mean of lambda_max over the calibration samples against the step, with the chosen step marked.

    A step without a usable value (no direction changed any output, or noise left nothing positive) is an open marker on the
    floor of the chart, never a zero. None without a curve.
    """
    curves = {name: [(r.step, v) for r in step.curve if (v := getattr(r, name)) is not None and v > 0] for name, _, _ in SCHEMES}
    curves = {name: points for name, points in curves.items() if points}
    values = [v for points in curves.values() for _, v in points]
    lost = unusable(step)
    if not values:
        return None
    left, right, top, height = 66, width - 16, 44, 320
    bottom = height - 50
    x = log_scale([step.step, *(r.step for r in step.curve)], left, right)
    y = log_scale(values, bottom - (22 if lost else 6), top + 10, margin=0.06)
    xticks, yticks = fitting(log_ticks(x, most=8), x), log_ticks(y, most=7)
    rules = [Rule(x(t.value), top, x(t.value), bottom, "grid") for t in xticks]
    rules += [Rule(left, y(t.value), right, y(t.value), "grid") for t in yticks]
    rules += [Rule(left, bottom, right, bottom, "axis"), Rule(left, top, left, bottom, "axis")]
    labels = [Label(x(t.value), bottom + 18, t.text, "middle") for t in xticks]
    labels += [Label(left - 8, y(t.value) + 4, t.text, "end") for t in yticks]
    text = "step r per coordinate, model input units (log)"
    labels.append(Label((left + right) / 2, height - 10, text, "middle", role="note"))
    labels.append(Label(13, (top + bottom) / 2, "mean λ_max (log)", "middle", role="note", turned=True))
    if lost:
        labels.append(Label(left - 8, bottom - 4, "none", "end"))
    here = x(step.step)
    rules.append(Rule(here, top - 8, here, bottom, "chosen"))
    text = f"chosen: r = {short(step.step)}, {step.scheme}"
    wide = LETTER * len(text) / 2
    labels.append(Label(min(max(here, left + wide), right - wide), top - 14, text, "middle", role="value"))
    paths: list[Path] = []
    for name, shape, dash in SCHEMES:
        points = curves.get(name, [])
        path = "".join(f"{'L' if i else 'M'}{x(r)} {y(v)}" for i, (r, v) in enumerate(points))
        if path:
            paths.append(Path(path, name, dash=dash))
        for r, v in points:
            tip = f"{name}, r = {short(r)}: {number(v)} {units}"
            paths.append(Path(marker(shape, x(r), y(v)), name, filled=True, tip=tip))
    paths += [Path(marker("circle", x(r), bottom - 8), "axis", tip=f"r = {short(r)}: no usable value") for r in lost]
    words = "; ".join(
        f"{name} differences " + ", ".join(f"{number(v)} at r = {short(r)}" for r, v in points) for name, points in curves.items()
    )
    if lost:
        words += "; no usable value at r = " + ", ".join(short(r) for r in lost)
    return Chart(
        "curve",
        "λ(r): the measured λ_max against the step",
        f"Chosen step r = {short(step.step)} with the {step.scheme} scheme. {words}.",
        width,
        height,
        tuple(rules),
        paths=tuple(paths),
        labels=tuple(labels),
    )


def unusable(step: StepChoice) -> list[float]:
    """The steps of the ladder at which no scheme has a positive value."""
    return [r.step for r in step.curve if not any((getattr(r, name) or 0) > 0 for name, _, _ in SCHEMES)]


def scatter(samples: Sequence[SampleResult], values: Mapping[int, float], *, series_title: str, width: int) -> Chart | None:
    """lambda_max against the boundary distance, one marker a sample; those predicted wrongly are diamonds.

    Args:
        samples: The audited samples.
        values: lambda_max by sample index.
        series_title: What the vertical axis shows.
        width: Pixels.

    Returns:
        The chart, or None where fewer than three samples have both measures.
    """
    points = [
        (s.boundary_distance.value, values[s.index], s)
        for s in samples
        if values.get(s.index, 0.0) > 0 and s.boundary_distance.value is not None and s.boundary_distance.value > 0
    ]
    if len(points) < 3:
        return None
    left, right, top, height = 66, width - 16, 12, 330
    bottom = height - 50
    x = log_scale([d for d, _, _ in points], left, right)
    y = log_scale([v for _, v, _ in points], bottom, top)
    xticks, yticks = fitting(log_ticks(x, most=8), x), log_ticks(y, most=8)
    rules = [Rule(x(t.value), top, x(t.value), bottom, "grid") for t in xticks]
    rules += [Rule(left, y(t.value), right, y(t.value), "grid") for t in yticks]
    rules += [Rule(left, bottom, right, bottom, "axis"), Rule(left, top, left, bottom, "axis")]
    labels = [Label(x(t.value), bottom + 18, t.text, "middle") for t in xticks]
    labels += [Label(left - 8, y(t.value) + 4, t.text, "end") for t in yticks]
    labels.append(Label((left + right) / 2, height - 10, "boundary distance, L2 in input units (log)", "middle", role="note"))
    labels.append(Label(13, (top + bottom) / 2, f"{series_title} (log)", "middle", role="note", turned=True))
    right_ones = [p for p in points if not _wrong(p[2])]
    wrong_ones = [p for p in points if _wrong(p[2])]
    # One path per kind keeps a thousand samples small; the wrong ones come last and lie on top.
    paths = [
        Path("".join(marker(shape, x(d), y(v), radius=radius) for d, v, _ in chosen), series, filled=True)
        for chosen, shape, radius, series in ((right_ones, "circle", 2.5, "right"), (wrong_ones, "diamond", 4.0, "wrong"))
        if chosen
    ]
    return Chart(
        "scatter",
        f"{series_title} against boundary distance",
        f"{count(len(points), 'sample')}, of which {len(wrong_ones)} predicted wrongly; boundary distance from "
        f"{number(min(d for d, _, _ in points))} to {number(max(d for d, _, _ in points))}.",
        width,
        height,
        tuple(rules),
        paths=tuple(paths),
        labels=tuple(labels),
    )


def _wrong(sample: SampleResult) -> bool:
    return sample.label is not None and sample.label != sample.prediction


def fitting(ticks: Sequence[Tick], scale: Scale) -> tuple[Tick, ...]:
    """The ticks without those whose text would touch the one before."""
    kept: list[Tick] = []
    reach = -math.inf
    for tick in ticks:
        half = LETTER * len(tick.text) / 2
        if scale(tick.value) - half > reach + 6:
            kept.append(tick)
            reach = scale(tick.value) + half
    return tuple(kept)
