"""The frame of charts that show a share of the samples over a distance: grid, axes and their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxfim.report.charts.axes import LogScale, Tick, fitting, linear_ticks, log_ticks
from onnxfim.report.charts.marks import NARROW, Label, Segment

_BELOW = 40  # from the axis to the middle of its name, pixels


def share_frame(
    x: LogScale,
    across: tuple[float, float],
    down: tuple[float, float],
    name: str,
    *,
    width: int,
    distance: str = "ε, L2 in input units",
) -> tuple[Callable[[float], float], list[Segment], list[Label]]:
    """Where a share stands, the lines of the frame and its labels.

    Args:
        x: Distances to pixels.
        across: Left and right end of the frame.
        down: Its top and bottom.
        name: What the shares are of.
        width: Of the whole chart, pixels.
        distance: What the distances are.
    """
    ticks = fitting(log_ticks(x, most=8 if width > NARROW else 6), x)
    y, segments, labels = _framed(x, ticks, across, down, name)
    labels.append(_named(across, down, f"{distance} (log)"))
    return y, segments, labels


def linear_share_frame(
    most: float, across: tuple[float, float], down: tuple[float, float], name: str, *, width: int, distance: str
) -> tuple[Callable[[float], float], Callable[[float], float], list[Segment], list[Label]]:
    """The same over distances from 0 to ``most``, evenly spaced; where a distance stands comes first."""
    left, right = across

    def x(value: float) -> float:
        return round(left + min(max(value, 0.0), most) / most * (right - left), 1)

    ticks = linear_ticks(0.0, most, most=8 if width > NARROW else 5)
    y, segments, labels = _framed(x, ticks, across, down, name)
    labels.append(_named(across, down, distance))
    return x, y, segments, labels


def _framed(
    x: Callable[[float], float], ticks: Sequence[Tick], across: tuple[float, float], down: tuple[float, float], name: str
) -> tuple[Callable[[float], float], list[Segment], list[Label]]:
    (left, right), (top, bottom) = across, down

    def y(share: float) -> float:
        return round(bottom - share * (bottom - top), 1)

    segments = [Segment(x(t.value), top, x(t.value), bottom, "grid") for t in ticks]
    segments += [Segment(left, y(s), right, y(s), "grid") for s in (0.25, 0.5, 0.75, 1.0)]
    segments += [Segment(left, bottom, right, bottom, "axis"), Segment(left, top, left, bottom, "axis")]
    labels = [Label(x(t.value), bottom + 18, t.text, "middle") for t in ticks]
    labels += [Label(left - 8, y(s) + 4, f"{100 * s:.0f} %", "end") for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
    labels.append(Label(12, (top + bottom) / 2, name, "middle", role="note", turned=True))
    return y, segments, labels


def _named(across: tuple[float, float], down: tuple[float, float], distance: str) -> Label:
    return Label(sum(across) / 2, down[1] + _BELOW, distance, "middle", role="note")
