"""Charts as small SVG files, written by hand: the same numbers give the same bytes.

Each has a light ground of its own, so that it reads on light and dark pages; series differ by shape as well as by colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from .answer import number
from .verdicts import Estimate

INK, QUIET, GRID, GROUND = "#222222", "#666666", "#dddddd", "#fcfcfa"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00", "#555555")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "circle")
FONT = 'font-family="system-ui, sans-serif" font-size="12"'
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of one kind; ``line`` joins them, ``steps`` joins them as a staircase."""

    name: str
    points: Sequence[Point]
    style: int
    line: bool = False
    steps: bool = False
    marks: bool = True


@dataclass(frozen=True)
class Panel:
    """Axes with series; ``marks`` are labelled places on the horizontal axis, where it is no number."""

    title: str
    across: str
    up: str
    series: Sequence[Series]
    marks: Sequence[str] = ()


def mark(style: int, x: float, y: float) -> str:
    """One point."""
    colour, shape = COLOURS[style % len(COLOURS)], SHAPES[style % len(SHAPES)]
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    if shape == "square":
        return f'<rect x="{x - 2.7:.1f}" y="{y - 2.7:.1f}" width="5.4" height="5.4" fill="{colour}"/>'
    if shape == "cross":
        return f'<path d="M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6" stroke="{colour}" stroke-width="1.6"/>'
    corners = f"M{x:.1f} {y - 3.6:.1f}l3.4 6h-6.8z" if shape == "triangle" else f"M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z"
    return f'<path d="{corners}" fill="{colour}"/>'


def marks(style: int, points: Sequence[Point]) -> str:
    """All points of a series in one path; many points go to whole pixels."""
    digits = 0 if len(points) > 150 else 1
    colour, shape = COLOURS[style % len(COLOURS)], SHAPES[style % len(SHAPES)]
    stroke = f'fill="none" stroke="{colour}" stroke-opacity="0.8"'
    at = [f"M{x:.{digits}f} {y:.{digits}f}" for x, y in points]
    if shape in ("circle", "square"):
        return f'<path d="{"".join(f"{p}h0" for p in at)}" {stroke} stroke-width="5.4" stroke-linecap="{"round" if shape == "circle" else "square"}"/>'
    turn = {"triangle": "m0 -3l3 5h-6z", "diamond": "m0 -4l4 4l-4 4l-4 -4z"}.get(shape, "m-3 -3l6 6m0 -6l-6 6")
    return f'<path d="{"".join(p + turn for p in at)}" {stroke} stroke-width="1.5"/>'


def text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = INK, more: str = "") -> str:
    """A label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" {more}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = GRID, width: float = 1, more: str = "") -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}" {more}/>'


def document(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """The file."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" {FONT} role="img">'
    ground = f'<rect width="{width:.0f}" height="{height:.0f}" rx="6" fill="{GROUND}"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *parts, "</svg>", ""])


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within a range."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** np.floor(np.log10(raw))
    width = power * next(m for m in (1, 2, 5, 10) if m * power >= raw)
    return [round(float(t), 10) for t in np.arange(np.ceil(low / width) * width, high + width / 1e6, width)]


def extent(values: Sequence[float]) -> tuple[float, float]:
    """The range with a margin."""
    known = [v for v in values if np.isfinite(v)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    margin = 0.06 * (high - low) or max(abs(low), 1) * 0.1
    return low - margin, high + margin


def finite(points: Sequence[Point]) -> list[Point]:
    """Those that can be drawn."""
    return [p for p in points if np.isfinite(p).all()]


def drawn(panel: Panel, left: float, top: float, width: float, height: float) -> list[str]:
    """One panel as SVG."""
    points = [p for s in panel.series for p in finite(s.points)]
    x0, x1 = (-0.3, len(panel.marks) - 0.7) if panel.marks else extent([p[0] for p in points])
    y0, y1 = extent([p[1] for p in points])

    def at(p: Point) -> Point:
        return left + (p[0] - x0) / (x1 - x0) * width, top + height - (p[1] - y0) / (y1 - y0) * height

    parts = [text(left, top - 8, panel.title, more='font-weight="600"')]
    places = (
        list(enumerate(panel.marks))
        if panel.marks
        else [(t, number(t, 2).rstrip("0").rstrip(".") or "0") for t in ticks(x0, x1, 4)]
    )
    for x, words in places:
        px = at((x, y0))[0]
        parts += [line(px, top, px, top + height), text(px, top + height + 15, words, anchor="middle", colour=QUIET)]
    for y in ticks(y0, y1):
        py = at((0, y))[1]
        parts += [
            line(left, py, left + width, py),
            text(left - 5, py + 4, number(y, 2).rstrip("0").rstrip(".") or "0", anchor="end", colour=QUIET),
        ]
    parts += [
        text(left + width / 2, top + height + 32, panel.across, anchor="middle"),
        text(0, 0, panel.up, anchor="middle", more=f'transform="translate({left - 42:.1f} {top + height / 2:.1f}) rotate(-90)"'),
    ]
    for s in panel.series:
        places_of = [at(p) for p in finite(s.points)]
        if (s.line or s.steps) and places_of:
            path = f"M{places_of[0][0]:.1f} {places_of[0][1]:.1f}" + "".join(
                f"H{x:.1f}V{y:.1f}" if s.steps else f"L{x:.1f} {y:.1f}" for x, y in places_of[1:]
            )
            parts.append(
                f'<path d="{path}" fill="none" stroke="{COLOURS[s.style % len(COLOURS)]}" stroke-width="1.3" stroke-opacity="0.7"/>'
            )
        if s.marks and places_of:
            parts.append(marks(s.style, places_of))
    return parts


def panels(title: str, of: Sequence[Panel], *, columns: int = 3, width: float = 210, height: float = 170) -> str:
    """Panels in rows, with one legend of all their series."""
    rows = -(-len(of) // columns)
    columns = min(columns, max(len(of), 1))
    parts: list[str] = []
    for i, panel in enumerate(of):
        parts += drawn(panel, 62 + (i % columns) * (width + 72), 32 + (i // columns) * (height + 74), width, height)
    names = {s.name: s.style for panel in of for s in panel.series if s.name}
    x, bottom = 40.0, rows * (height + 74) + 14.0
    total = max(columns * (width + 72) + 10, 320)
    for name, style in names.items():
        length = 7.0 * len(name) + 34
        if x + length > total and x > 40:
            x, bottom = 40.0, bottom + 18
        parts += [mark(style, x, bottom - 4), text(x + 10, bottom, name)]
        x += length
    return document(total, bottom + 14, title, parts)


def forest(
    title: str, groups: Sequence[tuple[str, Sequence[tuple[str, Estimate, int]]]], *, across: str, at: Sequence[float] = (0.0,),
    names: dict[str, int] | None = None, label: float = 250,
) -> str:  # fmt: skip
    """Estimates with their intervals, one a line, in groups; ``at`` are the values with a vertical line."""
    values = [v for _, rows in groups for _, e, _ in rows for v in (e.value, e.low, e.high) if v is not None]
    x0, x1 = extent([*values, *at])
    left, width, row = label + 10, 430.0, 17.0
    parts: list[str] = []
    y = 26.0
    for words, rows in groups:
        parts.append(text(12, y, words, more='font-weight="600"'))
        y += row
        for name, e, style in rows:
            parts.append(text(24, y, name, colour=QUIET))
            if e.value is not None:
                px = left + (e.value - x0) / (x1 - x0) * width
                if e.low is not None and e.high is not None:
                    low, high = (left + (v - x0) / (x1 - x0) * width for v in (e.low, e.high))
                    parts.append(line(low, y - 4, high, y - 4, COLOURS[style % len(COLOURS)], 1.6))
                parts.append(mark(style, px, y - 4))
            y += row
        y += 5
    lines = [line(left + (t - x0) / (x1 - x0) * width, 14, left + (t - x0) / (x1 - x0) * width, y - 8) for t in ticks(x0, x1, 6)]
    lines += [
        line(
            left + (t - x0) / (x1 - x0) * width,
            14,
            left + (t - x0) / (x1 - x0) * width,
            y - 8,
            QUIET,
            1.2,
            'stroke-dasharray="4 3"',
        )
        for t in at
    ]
    labels = [
        text(left + (t - x0) / (x1 - x0) * width, y + 8, number(t, 2).rstrip("0").rstrip(".") or "0", anchor="middle", colour=QUIET)
        for t in ticks(x0, x1, 6)
    ]
    parts = [*lines, *parts, *labels, text(left + width / 2, y + 26, across, anchor="middle")]
    x = left
    for name, style in (names or {}).items():
        parts += [mark(style, x, y + 41), text(x + 10, y + 45, name)]
        x += 7.0 * len(name) + 34
    return document(left + width + 20, y + (58 if names else 38), title, parts)
