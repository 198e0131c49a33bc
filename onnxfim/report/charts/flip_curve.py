"""How many decisions are left at a distance: an upper bound of robust accuracy, from the flip radii."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfim.record.sample import SampleResult
from onnxfim.report.charts.axes import log_scale
from onnxfim.report.charts.marks import Chart, SvgPath
from onnxfim.report.charts.share_frame import share_frame
from onnxfim.report.numbers import count, number, percent


def flip_curve(samples: Sequence[SampleResult], *, labelled: bool, width: int) -> Chart | None:
    """The share of samples that are right, or without labels just unchanged, after any of the moves tried up to ε.

    Args:
        samples: The audited samples; those whose flip radius was not looked for are left out.
        labelled: Whether a wrong prediction counts as lost at any distance.
        width: Pixels.

    Returns:
        The chart, or None where fewer than three samples have a flip radius.
    """
    tried = [s for s in samples if s.flip_radius is not None and (s.flip_radius.value is not None or s.flip_radius.evaluations)]
    standing = [s for s in tried if not (labelled and s.label != s.prediction)]
    radii = sorted(s.flip_radius.value for s in standing if s.flip_radius is not None and s.flip_radius.value)
    if len(radii) < 3 or radii[0] == radii[-1]:
        return None
    left, right, top, height = 58, width - 16, 14, 290
    bottom = height - 48
    x = log_scale(radii, left, right)
    y, segments, labels = share_frame(x, (left, right), (top, bottom), "right" if labelled else "unchanged", width=width)
    share = len(standing) / len(tried)
    data = f"M{left} {y(share)}"
    for k, radius in enumerate(radii, start=1):
        lost = (len(standing) - k) / len(tried)
        data += f"H{x(radius)}V{y(lost)}"
    half = radii[len(radii) // 2]
    return Chart(
        "flip-curve",
        "Decisions left at a distance",
        f"{count(len(tried), 'sample')}: {percent(share)} are {'right' if labelled else 'unchanged'} without a move, and "
        f"{percent((len(standing) - len(radii)) / len(tried))} after the longest one, {number(radii[-1])}; "
        f"the first changes at {number(radii[0])}, half of those that change by {number(half)}.",
        width,
        height,
        tuple(segments),
        paths=(SvgPath(data, "flipped"),),
        labels=tuple(labels),
    )
