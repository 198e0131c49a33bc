"""What charts are made of: lines, bars, paths and labels as coordinates, which the templates print as SVG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Series = str
Anchor = Literal["start", "middle", "end"]
WIDE, NARROW = 700, 360
LETTER = 7.0  # mean width of a 12 px letter


@dataclass(frozen=True)
class Segment:
    """A straight line: ``grid``, ``axis``, ``chosen`` or the name of a series."""

    x1: float
    y1: float
    x2: float
    y2: float
    role: str


@dataclass(frozen=True)
class Label:
    """A text; ``anchor`` is SVG's text-anchor and ``role`` one of ``tick``, ``title``, ``value`` or ``note``."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    role: str = "tick"
    turned: bool = False


@dataclass(frozen=True)
class Bar:
    """A rectangle with a tooltip."""

    x: float
    y: float
    width: float
    height: float
    series: Series
    tip: str


@dataclass(frozen=True)
class SvgPath:
    """A line or a marker as SVG path data; ``filled`` for markers, ``soft`` for bands, ``dash`` as SVG's stroke-dasharray."""

    data: str
    series: Series
    filled: bool = False
    dash: str = ""
    tip: str = ""
    soft: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart ready to print: ``title`` and ``description`` are its text alternative."""

    name: str
    title: str
    description: str
    width: int
    height: int
    segments: tuple[Segment, ...] = ()
    bars: tuple[Bar, ...] = ()
    paths: tuple[SvgPath, ...] = ()
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True)
class Figure:
    """The same chart at two widths, for a page and for a phone."""

    wide: Chart
    narrow: Chart


def marker(shape: str, x: float, y: float, *, radius: float = 4.0) -> str:
    """SVG path data of a marker, so that series differ by shape as well as by colour."""
    r = radius
    if shape == "square":
        return f"M{x - r:.1f} {y - r:.1f}h{2 * r:.1f}v{2 * r:.1f}h{-2 * r:.1f}z"
    if shape == "triangle":
        return f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:.1f} {2.1 * r:.1f}h{-2.4 * r:.1f}z"
    if shape == "diamond":
        return f"M{x:.1f} {y - 1.3 * r:.1f}l{1.3 * r:.1f} {1.3 * r:.1f}l{-1.3 * r:.1f} {1.3 * r:.1f}l{-1.3 * r:.1f} {-1.3 * r:.1f}z"
    return f"M{x - r:.1f} {y:.1f}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0z"


def at_both_widths(chart: Callable[[int], Chart | None], widths: tuple[int, int] = (WIDE, NARROW)) -> Figure | None:
    """The chart that is drawn for a width in pixels, at both widths; None where there is nothing to draw."""
    wide, narrow = map(chart, widths)
    return Figure(wide, narrow) if wide and narrow else None
