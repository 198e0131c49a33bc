"""Axes of charts: scales from values to pixels, and ticks at round values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxfim.report.charts.marks import LETTER, Label, Segment
from onnxfim.report.numbers import short


@dataclass(frozen=True)
class LogScale:
    """A logarithmic map from ``low … high`` (both positive) to pixels ``start … end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        value = max(value, self.low)  # 0 and below have no logarithm: they stand at the end
        share = (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Tick:
    """A tick at ``value`` with its text."""

    value: float
    text: str


def log_scale(values: Sequence[float], start: float, end: float, *, margin: float = 0.04) -> LogScale:
    """The scale that holds all positive ``values`` with a margin at both ends; half a decade around a single one."""
    positive = [v for v in values if v > 0]
    low, high = (math.log10(min(positive)), math.log10(max(positive))) if positive else (-1.0, 0.0)
    room = max(margin * (high - low), 0.25 if high - low < 0.1 else 0.03)
    low, high = max(low - room, -307.0), min(high + room, 308.0)
    return LogScale(10**low, 10**high, start, end)


def log_ticks(scale: LogScale, *, most: int) -> tuple[Tick, ...]:
    """At most ``most`` ticks: every so many decades, or 1-2-5 within them, or evenly spaced round values in a narrow range."""
    low, high = math.log10(scale.low), math.log10(scale.high)
    if high - low >= 2:
        stride = max(1, math.ceil((high - low) / max(1, most - 1)))
        exponents = range(math.ceil(low / stride) * stride, math.floor(high) + 1, stride)
        return tuple(Tick(10.0**e, short(10.0**e)) for e in exponents)
    if high - low >= 0.6:
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [d * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for d in digits]
            found = [v for v in found if scale.low <= v <= scale.high]
            if 2 <= len(found) <= most:
                return tuple(Tick(v, short(v)) for v in found)
    return linear_ticks(scale.low, scale.high, most=most)


def linear_ticks(low: float, high: float, *, most: int) -> tuple[Tick, ...]:
    """At most ``most`` ticks at multiples of 1, 2 or 5 times a power of ten within ``low … high``."""
    if not high > low:
        return (Tick(low, short(low)),)
    base = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20, 50):
        unit = base * factor
        first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
        if last - first + 1 <= most:
            return tuple(Tick(i * unit, short(i * unit)) for i in range(first, last + 1))
    raise AssertionError("fifty tenths of a range never hold more than one tick")


def fitting(ticks: Sequence[Tick], scale: LogScale) -> tuple[Tick, ...]:
    """The ticks without those whose text would touch the one before."""
    kept: list[Tick] = []
    reach = -math.inf
    for tick in ticks:
        half = LETTER * len(tick.text) / 2
        if scale(tick.value) - half > reach + 6:
            kept.append(tick)
            reach = scale(tick.value) + half
    return tuple(kept)


def frame(
    x: Callable[[float], float], y: Callable[[float], float], ticks: tuple[Sequence[Tick], Sequence[Tick]],
    box: tuple[float, float, float, float],
) -> tuple[list[Segment], list[Label]]:  # fmt: skip
    """Grid, axes and the texts of the ticks of a chart; ``ticks`` of x and y, ``box`` is left, right, top, bottom."""
    left, right, top, bottom = box
    xticks, yticks = ticks
    segments = [Segment(x(t.value), top, x(t.value), bottom, "grid") for t in xticks]
    segments += [Segment(left, y(t.value), right, y(t.value), "grid") for t in yticks]
    segments += [Segment(left, bottom, right, bottom, "axis"), Segment(left, top, left, bottom, "axis")]
    labels = [Label(x(t.value), bottom + 18, t.text, "middle") for t in xticks]
    labels += [Label(left - 8, y(t.value) + 4, t.text, "end") for t in yticks]
    return segments, labels
