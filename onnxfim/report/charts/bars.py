"""Horizontal bars from a zero line, one row a name: coordinates of a direction, layers of a bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxfim.report.charts.axes import linear_ticks
from onnxfim.report.charts.marks import LETTER, NARROW, Anchor, Bar, Chart, Label, Segment

_ROW = 20
_TALL = 800  # with more rows than fit at full height, bars get thin and only the longest keep their names
_BETWEEN = 15  # pixels from one name to the next


@dataclass(frozen=True)
class NamedBar:
    """A bar: its name, its length, the number printed beside it, and the tooltip."""

    name: str
    value: float
    text: str
    tip: str


def signed_bars(rows: Sequence[NamedBar], *, name: str, title: str, description: str, axis: str, width: int) -> Chart | None:
    """Bars to the right for positive values and to the left for negative ones, in the order given; None without rows."""
    if not rows:
        return None
    letters = 15 if width <= NARROW else 27
    left, right, top = round(letters * LETTER) + 14, width - 12, 8
    room = LETTER * max(len(r.text) for r in rows) + 10  # beside the longest bar
    low, high = min(0.0, *(r.value for r in rows)), max(0.0, *(r.value for r in rows))
    high = high if high > low else low + 1.0
    start, end = left + (room if low < 0 else 0.0), right - room

    def x(value: float) -> float:
        return round(start + (value - low) / (high - low) * (end - start), 1)

    pitch = _ROW if _ROW * len(rows) <= _TALL else max(2.0, _TALL / len(rows))
    bottom = round(top + pitch * len(rows))
    named = _named(rows, pitch)
    segments: list[Segment] = []
    bars: list[Bar] = []
    labels: list[Label] = []
    reach = -1.0
    for tick in linear_ticks(low, high, most=5 if width > NARROW else 3):
        text = tick.text.replace("-", "−")
        half = LETTER * len(text) / 2
        if x(tick.value) - half > reach + 6:
            segments.append(Segment(x(tick.value), top, x(tick.value), bottom, "grid"))
            labels.append(Label(x(tick.value), bottom + 18, text, "middle"))
            reach = x(tick.value) + half
    for i, row in enumerate(rows):
        middle = round(top + pitch * (i + 0.5), 1)
        thick = round(0.6 * pitch, 1)
        ends = sorted((x(0.0), x(row.value)))
        series = "share" if row.value >= 0 else "loss"
        anchor: Anchor = "start" if row.value >= 0 else "end"
        bars.append(Bar(ends[0], round(middle - thick / 2, 1), max(0.8, round(ends[1] - ends[0], 1)), thick, series, row.tip))
        if i not in named:
            continue
        labels.append(Label(left - 8, middle + 4, shortened(row.name, letters), "end"))
        beside = ends[1] + 5 if row.value >= 0 else ends[0] - 5
        labels.append(Label(beside, middle + 4, row.text, anchor, role="value"))
    segments.append(Segment(x(0.0), top, x(0.0), bottom, "axis"))
    labels.append(Label((left + right) / 2, bottom + 38, axis, "middle", role="note"))
    return Chart(name, title, description, width, bottom + 48, tuple(segments), tuple(bars), labels=tuple(labels))


def _named(rows: Sequence[NamedBar], pitch: float) -> set[int]:
    """The rows whose names are printed: the longest bars first, as long as a name has room."""
    apart = math.ceil(_BETWEEN / pitch)
    taken: set[int] = set()
    for i in sorted(range(len(rows)), key=lambda i: -abs(rows[i].value)):
        if not any(abs(i - other) < apart for other in taken):
            taken.add(i)
    return taken


def shortened(text: str, letters: int) -> str:
    """At most so many letters, the middle left out: layer names differ at both ends."""
    if len(text) <= letters:
        return text
    head = (letters - 1) // 3
    return f"{text[:head]}…{text[len(text) - (letters - 1 - head) :]}"
