"""How many predictions are left at a distance: a step curve for each kind of distance, with pointwise intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxfim.record.foreign_text import visible
from onnxfim.record.robustness import Robustness, SurvivalCurve, SurvivalPoint
from onnxfim.report.charts.axes import LogScale, log_scale
from onnxfim.report.charts.marks import LETTER, NARROW, Chart, Label, Segment, SvgPath
from onnxfim.report.charts.share_frame import share_frame
from onnxfim.report.human import attacked_at
from onnxfim.report.numbers import number, percent
from onnxfim.report.vocabulary import NORM_WORDS

#: Colour class and dashes of each kind of distance.
LINES = {
    "flip_radius": ("flipped", ""), "attack": ("calibrated", "9 4"), "boundary_distance": ("share", "2 3"),
    "certified": ("holding", "12 3 2 3"),
}  # fmt: skip
#: What each is called.
NAMES = {
    "flip_radius": "moves tried", "attack": "attack", "boundary_distance": "boundary, first order", "certified": "guaranteed",
}  # fmt: skip
_BANDS = ("flip_radius", "attack")  # whose intervals are drawn; four bands over one another show none
_FEWEST = 3


def survival_chart(curves: Sequence[SurvivalCurve], told: Robustness, *, width: int, name: str = "survival") -> Chart | None:
    """The curves of one norm and unit over a common axis.

    Args:
        curves: What to draw.
        told: What they are part of.
        width: Pixels.
        name: Of the drawing, one on a page.

    Returns:
        The chart, or None where fewer than three distances are known.
    """
    steps = sorted({p.epsilon for c in curves for p in c.points if p.epsilon > 0})
    if len(steps) < _FEWEST:
        return None
    first = curves[0]
    left, right, top, height = 58, width - 16, 40, 300
    bottom = height - 48
    x = log_scale(steps, left, right)
    distance = f"ε, {NORM_WORDS[first.norm]}" + (f" in {visible(first.units)}" if width > NARROW else "")
    what = "right" if told.counts == "right" else "unchanged"
    y, segments, labels = share_frame(x, (left, right), (top, bottom), what, width=width, distance=distance)
    paths: list[SvgPath] = []
    for curve in curves:
        series, dash = LINES[curve.source]
        if curve.source in _BANDS:
            paths.append(SvgPath(_band(curve.points, x, y, left, right), series, soft=True))
        paths.append(SvgPath(_steps(curve.points, x, y, left, right), series, dash=dash, tip=NAMES[curve.source]))
    found = (r.epsilon for c in curves if c.kind == "upper bound" for r in c.reached if r.share == 0.5 and r.epsilon)
    half = min(found, default=None)
    if half is not None:
        segments.append(Segment(x(half), top - 8, x(half), bottom, "chosen"))
        text = f"half at {attacked_at(half, first, told)}"
        wide = LETTER * len(text) / 2
        labels.append(Label(min(max(x(half), left + wide), right - wide), top - 14, text, "middle", role="value"))
    return Chart(
        name,
        f"Share of the samples that is left {'right' if told.counts == 'right' else 'unchanged'} at a distance",
        " ".join(_words(c) for c in curves),
        width,
        height,
        tuple(segments),
        paths=tuple(paths),
        labels=tuple(labels),
    )


def _steps(points: Sequence[SurvivalPoint], x: LogScale, y: Callable[[float], float], left: float, right: float) -> str:
    data = f"M{left} {y(points[0].left)}"
    return data + "".join(f"H{x(p.epsilon)}V{y(p.left)}" for p in points[1:]) + f"H{right}"


def _band(points: Sequence[SurvivalPoint], x: LogScale, y: Callable[[float], float], left: float, right: float) -> str:
    """The area between the ends of the intervals, step by step, there and back."""
    there = f"M{left} {y(points[0].high)}" + "".join(f"H{x(p.epsilon)}V{y(p.high)}" for p in points[1:]) + f"H{right}"
    back = f"V{y(points[-1].low)}"
    for before, p in zip(points[-2::-1], points[:0:-1], strict=True):
        back += f"H{x(p.epsilon)}V{y(before.low)}"
    return there + back + f"H{left}z"


def _words(curve: SurvivalCurve) -> str:
    found = ", ".join(
        f"{100 * r.share:.0f} % have fallen at {number(r.epsilon)}"
        if r.epsilon is not None
        else f"{100 * r.share:.0f} % never fall"
        for r in curve.reached
    )
    standing = percent(curve.standing / curve.samples)
    return f"{NAMES[curve.source].capitalize()}, {curve.kind}: {standing} of {curve.samples:,} samples without a move; {found}."
