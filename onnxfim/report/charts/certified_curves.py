"""Certified accuracy of smoothed classifiers against the radius, beside the accuracy of the file itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxfim.record.foreign_text import visible
from onnxfim.record.guarantee_summaries import CertifiedShare, SmoothingSummary
from onnxfim.report.charts.marks import LETTER, NARROW, Chart, Label, Segment, SvgPath
from onnxfim.report.charts.share_frame import linear_share_frame
from onnxfim.report.numbers import percent, short

#: Colour class and dashes of the curves, one after another.
STROKES_OF = (("share", ""), ("calibrated", "9 4"), ("holding", "2 3"), ("flipped", "12 3 2 3"))


def certified_chart(found: Sequence[SmoothingSummary], *, width: int) -> Chart | None:
    """A step curve for each σ, with pointwise intervals: the share that is certified within a radius.

    Between two radii that are known, the lower share is drawn. None where nothing is certified at any radius.
    """
    drawn = [s for s in found if len(s.curve) > 1 and s.curve[-1].radius > 0]
    if not drawn:
        return None
    first = drawn[0]
    left, right, top, height = 58, width - 16, 34, 320 if width > NARROW else 280
    bottom = height - 48
    most = 1.04 * max(s.curve[-1].radius for s in drawn)
    distance = "L2 radius" + (f" in {visible(first.units)}" if width > NARROW else "")
    what = "certified right" if first.labelled else "certified"
    x, y, segments, labels = linear_share_frame(most, (left, right), (top, bottom), what, width=width, distance=distance)
    paths: list[SvgPath] = []
    for k, s in enumerate(drawn):
        series, dash = STROKES_OF[k % len(STROKES_OF)]
        points = [(p.radius, p.share) for p in s.curve]
        paths.append(SvgPath(_band(s.curve, x, y), series, soft=True))
        paths.append(SvgPath(_steps(points, x, y), series, dash=dash, tip=f"smoothed with σ = {short(s.sigma)}"))
    clean = first.clean_accuracy
    if clean is not None:
        segments.append(Segment(left, y(clean), right, y(clean), "chosen"))
        text = f"the file itself, no change: {percent(clean)}"
        labels.append(Label(max(right, left + LETTER * len(text)), y(clean) - 6, text, "end", role="value"))
    told = " ".join(
        f"σ = {short(s.sigma)}: "
        + ", ".join(f"{percent(p.share)} within {short(p.radius)}" for p in s.curve[:: max(1, len(s.curve) // 6)])
        + "."
        for s in drawn
    )
    beside = "" if clean is None else f" The file itself, without a change: {percent(clean)}."
    return Chart(
        "certified",
        "Share of the samples that the smoothed classifier is certified on, against the radius",
        f"{told}{beside} Of the smoothed classifier, not of the file itself.",
        width,
        height,
        tuple(segments),
        paths=tuple(paths),
        labels=tuple(labels),
    )


def _steps(points: Sequence[tuple[float, float]], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    data = f"M{x(points[0][0])} {y(points[0][1])}"
    return data + "".join(f"V{y(share)}H{x(radius)}" for radius, share in points[1:])


def _band(curve: Sequence[CertifiedShare], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    there = _steps([(p.radius, p.high) for p in curve], x, y)
    back = f"V{y(curve[-1].low)}"
    for before, p in zip(curve[-2::-1], curve[:0:-1], strict=True):
        back += f"V{y(p.low)}H{x(before.radius)}"
    return f"{there}{back}V{y(curve[0].low)}z"
