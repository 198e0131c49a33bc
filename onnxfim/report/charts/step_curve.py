"""The measured value against the step of the differences."""

from __future__ import annotations

from onnxfim.record.audited_from import INPUT_UNIT
from onnxfim.record.steps import StepChoice
from onnxfim.report.charts.axes import fitting, frame, log_scale, log_ticks
from onnxfim.report.charts.marks import LETTER, Chart, Label, Segment, SvgPath, marker
from onnxfim.report.numbers import number, short

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
    segments, labels = frame(x, y, (xticks, yticks), (left, right, top, bottom))
    text = f"step r per coordinate{f', {INPUT_UNIT}s' if INPUT_UNIT in units else ''} (log)"
    labels.append(Label((left + right) / 2, height - 10, text, "middle", role="note"))
    labels.append(Label(13, (top + bottom) / 2, "mean λ_max (log)", "middle", role="note", turned=True))
    if lost:
        labels.append(Label(left - 8, bottom - 4, "none", "end"))
    here = x(step.step)
    segments.append(Segment(here, top - 8, here, bottom, "chosen"))
    text = f"chosen: r = {short(step.step)}, {step.scheme}"
    wide = LETTER * len(text) / 2
    labels.append(Label(min(max(here, left + wide), right - wide), top - 14, text, "middle", role="value"))
    paths: list[SvgPath] = []
    for name, shape, dash in SCHEMES:
        points = curves.get(name, [])
        path = "".join(f"{'L' if i else 'M'}{x(r)} {y(v)}" for i, (r, v) in enumerate(points))
        if path:
            paths.append(SvgPath(path, name, dash=dash))
        for r, v in points:
            tip = f"{name}, r = {short(r)}: {number(v)} {units}"
            paths.append(SvgPath(marker(shape, x(r), y(v)), name, filled=True, tip=tip))
    paths += [SvgPath(marker("circle", x(r), bottom - 8), "axis", tip=f"r = {short(r)}: no usable value") for r in lost]
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
        tuple(segments),
        paths=tuple(paths),
        labels=tuple(labels),
    )


def unusable(step: StepChoice) -> list[float]:
    """The steps of the ladder at which no scheme has a positive value."""
    return [r.step for r in step.curve if not any((getattr(r, name) or 0) > 0 for name, _, _ in SCHEMES)]
