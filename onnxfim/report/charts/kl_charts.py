"""Charts of the replay: measured KL against the quadratic form, and how far the form holds over the samples."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfim.record.sample import KLCurve, KLPoint
from onnxfim.report.charts.axes import fitting, frame, log_scale, log_ticks
from onnxfim.report.charts.marks import LETTER, Bar, Chart, Label, Segment, SvgPath, marker
from onnxfim.report.charts.share_frame import share_frame
from onnxfim.report.numbers import number, percent, short

PANEL, PANEL_NARROW = 332, 360
#: Field of the point, shape, filled, dash.
SIDES = (("along", "circle", True, ""), ("against", "square", False, "7 4"), ("random", "triangle", True, "2 3"))
SIDE_WORDS = {"along": "along +v", "against": "along −v", "random": "along a random direction"}
FORM_DASH = "1 4"
_DEPTH = 1e-12  # of the largest value: below it a KL of float32 outputs is rounding


def kl_panel(
    curve: KLCurve, *, name: str, title: str, span: tuple[float, float] | None, flips: bool = True, width: int
) -> Chart | None:  # fmt: skip
    """Measured KL of one sample over the ladder, the quadratic form, the range where it holds, and the flip.

    Values of zero or below have no place on a logarithmic axis and are left out; the description counts them.

    Args:
        curve: The sample's curve.
        name: Unique name of the chart on the page.
        title: Its accessible name.
        span: Smallest and largest distance of the axis, or None for those of the curve.
        flips: Whether there is a prediction that may flip.
        width: Pixels.

    Returns:
        The chart, or None where fewer than two points can be drawn.
    """
    points = sorted((p for p in curve.points if p.epsilon > 0), key=lambda p: p.epsilon)
    fields = ("quadratic", *(side for side, *_ in SIDES))
    every = [v for p in points for f in fields if (v := getattr(p, f)) > 0]
    floor = max(every, default=0.0) * _DEPTH
    drawn = [v for v in every if v >= floor]
    if len(points) < 2 or len(drawn) < 2:
        return None
    left, right, top, height = 58, width - 12, 26, 300
    bottom = height - 48
    x = log_scale([*(span or ()), *(p.epsilon for p in points)], left, right, margin=0.05)
    y = log_scale(drawn, bottom, top, margin=0.05)
    ticks = (fitting(log_ticks(x, most=6), x), log_ticks(y, most=7))
    segments, labels = frame(x, y, ticks, (left, right, top, bottom))
    labels.append(Label((left + right) / 2, height - 8, "ε, L2 in input units (log)", "middle", role="note"))
    labels.append(Label(12, (top + bottom) / 2, "KL, nats (log)", "middle", role="note", turned=True))
    bars = []
    if curve.holds_to is not None:
        tip = f"within 10 % up to ε = {short(curve.holds_to)}"
        bars.append(Bar(left, top, round(x(curve.holds_to) - left, 1), bottom - top, "holds", tip))
    if curve.flips_at is not None:
        here = x(curve.flips_at)
        segments.append(Segment(here, top - 6, here, bottom, "flips"))
        half = LETTER * len("flips") / 2
        labels.append(Label(min(max(here, left + half), right - half), top - 11, "flips", "middle", role="value"))
    paths = [
        SvgPath(_line([(x(p.epsilon), y(p.quadratic)) for p in points if p.quadratic >= floor > 0]), "quadratic", dash=FORM_DASH)
    ]
    for side, shape, filled, dash in SIDES:
        shown = [(p.epsilon, v) for p in points if (v := getattr(p, side)) >= floor]
        if shown:
            paths.append(SvgPath(_line([(x(e), y(v)) for e, v in shown]), side, dash=dash))
        for e, v in shown:
            tip = f"{SIDE_WORDS[side]}, ε = {short(e)}: {number(v)} nats"
            paths.append(SvgPath(marker(shape, x(e), y(v), radius=3.2 if filled else 4.2), side, filled=filled, tip=tip))
    return Chart(
        name,
        title,
        _panel_words(curve, points, len(fields) * len(points) - len(drawn), flips=flips),
        width,
        height,
        tuple(segments),
        tuple(bars),
        tuple(p for p in paths if p.data),
        tuple(labels),
    )


def reach(curves: Sequence[KLCurve], *, boundary: float | None, flips: bool = True, width: int) -> Chart | None:
    """The share of samples for which the form holds up to ε, and the share whose prediction has flipped by ε.

    Args:
        curves: The replayed samples' curves.
        boundary: The median boundary distance, to be marked; None for no mark.
        flips: Whether there are predictions that may flip.
        width: Pixels.

    Returns:
        The chart, or None with fewer than three curves or two distances.
    """
    ladder = sorted({p.epsilon for c in curves for p in c.points if p.epsilon > 0})
    if len(curves) < 3 or len(ladder) < 2:
        return None
    left, right, top, height = 58, width - 16, 40, 290
    bottom = height - 48
    mark = boundary if boundary is not None and ladder[0] / 10 <= boundary <= ladder[-1] * 10 else None
    x = log_scale([*ladder, *([mark] if mark is not None else [])], left, right)
    y, segments, labels = share_frame(x, (left, right), (top, bottom), "samples", width=width)
    if mark is not None:
        segments.append(Segment(x(mark), top - 8, x(mark), bottom, "chosen"))
        text = f"median boundary distance {number(mark)}"
        half = LETTER * len(text) / 2
        labels.append(Label(min(max(x(mark), left + half), right - half), top - 14, text, "middle", role="value"))
    series = [("holding", "circle", "", [(e, share_holding(curves, e)) for e in ladder])]
    if flips:
        series.append(("flipped", "diamond", "7 4", [(e, share_flipped(curves, e)) for e in ladder]))
    paths = []
    for role, shape, dash, points in series:
        paths.append(SvgPath(_line([(x(e), y(s)) for e, s in points]), role, dash=dash))
        word = "holds up to" if role == "holding" else "flipped by"
        paths += [
            SvgPath(marker(shape, x(e), y(s), radius=3.2), role, filled=True, tip=f"{word} ε = {short(e)}: {percent(s)}")
            for e, s in points
        ]
    words = "; ".join(
        f"{'the form holds' if role == 'holding' else 'the prediction has flipped'}: "
        + ", ".join(f"{percent(s)} at ε = {short(e)}" for e, s in points)
        for role, _, _, points in series
    )
    return Chart(
        "reach",
        "How far the quadratic form holds" + (", and where predictions flip" if flips else ""),
        f"Shares of {len(curves)} replayed samples. {words}.",
        width,
        height,
        tuple(segments),
        paths=tuple(paths),
        labels=tuple(labels),
    )


def share_holding(curves: Sequence[KLCurve], epsilon: float) -> float:
    """The share of curves on which the form holds at least up to ``epsilon``."""
    return sum(c.holds_to is not None and c.holds_to >= epsilon * (1 - 1e-9) for c in curves) / len(curves)


def share_flipped(curves: Sequence[KLCurve], epsilon: float) -> float:
    """The share of curves on which the prediction changed at ``epsilon`` or before."""
    return sum(c.flips_at is not None and c.flips_at <= epsilon * (1 + 1e-9) for c in curves) / len(curves)


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if i else 'M'}{x} {y}" for i, (x, y) in enumerate(points)) if len(points) > 1 else ""


def _panel_words(curve: KLCurve, points: Sequence[KLPoint], lost: int, *, flips: bool) -> str:
    ends = [points[0], points[-1]]
    parts = [
        "; ".join(
            f"at ε = {short(p.epsilon)} the form says {number(p.quadratic)} nats, measured are {number(p.along)} along +v, "
            f"{number(p.against)} along −v and {number(p.random)} along a random direction"
            for p in ends
        ),
        "the form is within 10 % nowhere on the ladder"
        if curve.holds_to is None
        else f"the form is within 10 % up to ε = {short(curve.holds_to)}",
    ]
    if flips:
        told = "the prediction does not flip" if curve.flips_at is None else f"the prediction flips at ε = {short(curve.flips_at)}"
        parts.append(told)
    if lost:
        parts.append(
            f"{lost} values are too close to zero to be drawn" if lost > 1 else "one value is too close to zero to be drawn"
        )
    words = "; ".join(parts)
    return words[0].upper() + words[1:] + "."
