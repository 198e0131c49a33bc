"""Sensitivity against the distance to the boundary, one marker a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxfim.record.sample import SampleResult
from onnxfim.report.charts.axes import fitting, frame, log_scale, log_ticks
from onnxfim.report.charts.marks import NARROW, Chart, Label, SvgPath, marker
from onnxfim.report.numbers import count, number
from onnxfim.report.words import predicted_wrongly


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
    left, right, top, height = 66, width - 16, 12, 330 if width > NARROW else 270
    bottom = height - 50
    x = log_scale([d for d, _, _ in points], left, right)
    y = log_scale([v for _, v, _ in points], bottom, top)
    xticks, yticks = fitting(log_ticks(x, most=8), x), log_ticks(y, most=8)
    segments, labels = frame(x, y, (xticks, yticks), (left, right, top, bottom))
    labels.append(Label((left + right) / 2, height - 10, "boundary distance, L2 in input units (log)", "middle", role="note"))
    labels.append(Label(13, (top + bottom) / 2, f"{series_title} (log)", "middle", role="note", turned=True))
    right_ones = [p for p in points if not predicted_wrongly(p[2])]
    wrong_ones = [p for p in points if predicted_wrongly(p[2])]
    # One path per kind keeps a thousand samples small; the wrong ones come last and lie on top.
    paths = [
        SvgPath("".join(marker(shape, x(d), y(v), radius=radius) for d, v, _ in chosen), series, filled=True)
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
        tuple(segments),
        paths=tuple(paths),
        labels=tuple(labels),
    )
