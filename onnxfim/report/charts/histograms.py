"""How the values of measures are distributed: histograms over one axis, each with its statistics below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxfim.record.decision import Aggregate, Aggregates
from onnxfim.report.charts.axes import LogScale, fitting, linear_ticks, log_scale, log_ticks
from onnxfim.report.charts.marks import LETTER, NARROW, Bar, Chart, Label, Segment, Series, SvgPath, marker
from onnxfim.report.numbers import count, interval, number

STATISTIC_MARKERS = (("median", "diamond"), ("mean", "circle"), ("p95", "triangle"), ("max", "square"))
_PANEL, _ROW = 104, 19


@dataclass(frozen=True)
class Histogram:
    """One histogram: the values of one measure and its statistics."""

    series: Series
    title: str
    values: tuple[float, ...]
    aggregates: Aggregates | None


def distribution(panels: Sequence[Histogram], *, units: str, width: int) -> Chart | None:
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
    segments: list[Segment] = []
    bars: list[Bar] = []
    paths: list[SvgPath] = []
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
                segments.append(Segment(left, level, right, level, "grid"))
                labels.append(Label(left - 6, level + 4, tick.text, "end"))
        labels.append(Label(12, (top + bottom) / 2, "samples", "middle", turned=True))
        for low, high, height in zip(edges[:-1], edges[1:], heights, strict=True):
            if height:
                tall = round(int(height) / highest * _PANEL, 1)
                tip = f"{number(low)} to {number(high)}: {count(int(height), 'sample')}"
                bars.append(Bar(x(low) + 0.5, round(bottom - tall, 1), round(x(high) - x(low) - 1, 1), tall, panel.series, tip))
        y = bottom + 14
        for name, statistic, shape in _statistics(panel):
            _statistic_row(name, statistic, shape, panel.series, x, y, (segments, paths, labels))
            y += _ROW
        y += 12
    for tick in ticks:
        segments.insert(0, Segment(x(tick.value), 24, x(tick.value), y - 8, "grid"))
        labels.append(Label(x(tick.value), y + 8, tick.text, "middle"))
    segments.append(Segment(left, y - 8, right, y - 8, "axis"))
    axis = f"λ_max, {units} (log)"
    labels.append(Label((left + right) / 2, y + 30, axis if LETTER * len(axis) <= width else units, "middle", role="note"))
    return Chart(
        "distribution",
        "Distribution of λ_max over the samples",
        " ".join(_panel_words(p) for p in panels),
        width,
        round(y + 40),
        tuple(segments),
        tuple(bars),
        tuple(paths),
        tuple(labels),
    )


def _statistics(panel: Histogram) -> list[tuple[str, Aggregate, str]]:
    return [(name, getattr(panel.aggregates, name), shape) for name, shape in STATISTIC_MARKERS] if panel.aggregates else []


def _statistic_row(
    name: str,
    statistic: Aggregate,
    shape: str,
    series: Series,
    x: LogScale,
    y: float,
    into: tuple[list[Segment], list[SvgPath], list[Label]],
) -> None:
    """A marker with its interval and its name beside it, on whichever side has room; beside the marker where neither has."""
    segments, paths, labels = into
    if statistic.value is None or statistic.value <= 0:
        labels.append(Label(x.start + 4, y + 4, f"{name} {number(statistic.value)}", role="value"))
        return
    here = x(statistic.value)
    low = x(statistic.low) if statistic.low is not None and statistic.low > 0 else x.start if statistic.low is not None else here
    high = x(statistic.high) if statistic.high is not None and statistic.high > 0 else here
    if high > low:
        segments.append(Segment(low, y, high, y, series))
        segments.extend(Segment(end, y - 4, end, y + 4, series) for end in (low, high))
    paths.append(SvgPath(marker(shape, here, y), series, filled=True, tip=_statistic_words(name, statistic)))
    text = f"{name} {number(statistic.value)}"
    room = LETTER * len(text) + 10
    if max(high, here) + room < x.end:
        labels.append(Label(max(high, here) + 9, y + 4, text, role="value"))
    elif min(low, here) - room > x.start - LETTER * 5:
        labels.append(Label(min(low, here) - 9, y + 4, text, "end", role="value"))
    elif here + room < x.end:
        labels.append(Label(here + 9, y + 4, text, role="value"))
    else:
        labels.append(Label(here - 9, y + 4, text, "end", role="value"))


def _statistic_words(name: str, statistic: Aggregate) -> str:
    ends = interval(statistic.low, statistic.high)
    return f"{name} {number(statistic.value)}" + (f" ({100 * statistic.confidence:.0f} % interval {ends})" if ends else "")


def _panel_words(panel: Histogram) -> str:
    known = [v for v in panel.values if v > 0]
    span = f"{count(len(known), 'sample')} from {number(min(known))} to {number(max(known))}" if known else "no positive value"
    stats = ", ".join(_statistic_words(name, a) for name, a, _ in _statistics(panel))
    return f"{panel.title}: {span}{'; ' + stats if stats else ''}."


def _edges(x: LogScale, *, most: int) -> list[float]:
    """Bin edges at round fractions of a decade (or whole decades), at most ``most`` bins."""
    low, high = math.log10(x.low), math.log10(x.high)
    wanted = max((high - low) / most, 1e-6)
    fractions = [1 / n for n in (100, 50, 20, 16, 10, 8, 5, 4, 3, 2, 1)] + [2.0, 5.0, 10.0, 20.0]
    step = next((f for f in fractions if f >= wanted), 20.0)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [10.0 ** max(-307.0, min(308.0, i * step)) for i in range(first, last + 1)]
