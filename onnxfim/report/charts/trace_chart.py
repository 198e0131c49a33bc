"""A channel of a series above the worst direction at it, over one axis of places."""

from __future__ import annotations

from onnxfim.record.input_pictures import Curve, SeriesTrace
from onnxfim.report.charts.axes import linear_ticks
from onnxfim.report.charts.marks import LETTER, NARROW, Chart, Label, Segment, SvgPath
from onnxfim.report.numbers import number, percent

_PANEL, _GAP = 92, 30


def trace_chart(trace: SeriesTrace, *, name: str, title: str, width: int) -> Chart | None:
    """The input in the upper panel, the direction in the lower one, with its zero line; None where there is nothing to draw."""
    if len(trace.input.at) < 2 or len(trace.direction.at) < 2:
        return None
    left, right = 58, width - 14
    last = max(trace.length - 1, 1)

    def x(place: float) -> float:
        return round(left + place / last * (right - left), 1)

    segments: list[Segment] = []
    labels: list[Label] = []
    paths: list[SvgPath] = []
    top = 24
    for curve, heading, series in ((trace.input, "input", "raw"), (trace.direction, "worst direction", "calibrated")):
        low, high = min(curve.values), max(curve.values)
        if series == "calibrated":  # about zero, whose line tells the signs apart
            high = max(abs(low), abs(high))
            low = -high
        if not high > low:
            low, high = low - 0.5, high + 0.5
        labels.append(Label(left, top - 8, heading, role="title"))
        for tick in linear_ticks(low, high, most=3):
            level = _level(tick.value, low, high, top)
            segments.append(Segment(left, level, right, level, "axis" if tick.value == 0 else "grid"))
            labels.append(Label(left - 6, level + 4, tick.text.replace("-", "−"), "end"))
        points = "L".join(f"{x(at)} {_level(v, low, high, top)}" for at, v in zip(curve.at, curve.values, strict=True))
        paths.append(SvgPath(f"M{points}", series))
        top += _PANEL + _GAP
    bottom = top - _GAP + 6
    reach = -1.0
    for tick in linear_ticks(0, last, most=8 if width > NARROW else 5):
        half = LETTER * len(tick.text) / 2
        if tick.value == round(tick.value) and x(tick.value) - half > reach + 6 and x(tick.value) + half <= width:
            labels.append(Label(x(tick.value), bottom + 12, tick.text, "middle"))
            reach = x(tick.value) + half
    labels.append(Label((left + right) / 2, bottom + 32, "place in the series", "middle", role="note"))
    description = (
        f"Channel {trace.channel}, {trace.length:,} places; {percent(trace.share)} of the direction's squared length. "
        f"{_told('Input', trace.input)} {_told('Direction', trace.direction)} Largest entry at place {_largest(trace.direction):,}."
    )
    return Chart(name, title, description, width, bottom + 42, tuple(segments), paths=tuple(paths), labels=tuple(labels))


def _level(value: float, low: float, high: float, top: float) -> float:
    return round(top + _PANEL - (value - low) / (high - low) * _PANEL, 1)


def _told(what: str, curve: Curve) -> str:
    return f"{what} from {number(min(curve.values))} to {number(max(curve.values))}."


def _largest(curve: Curve) -> int:
    return max(zip(curve.at, curve.values, strict=True), key=lambda pair: abs(pair[1]))[0]
