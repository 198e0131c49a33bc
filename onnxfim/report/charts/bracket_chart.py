"""Both sides of every sample's distance: what is guaranteed from below, what was found from above, and the estimates between."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnxfim.record.foreign_text import visible
from onnxfim.record.guarantees import Bracket
from onnxfim.report.charts.axes import LogScale, log_scale, log_ticks
from onnxfim.report.charts.marks import LETTER, NARROW, Anchor, Chart, Label, Segment, SvgPath, marker
from onnxfim.report.numbers import count, number, number_above, number_below
from onnxfim.report.vocabulary import NORM_WORDS

#: Colour class, shape and whether it is open, of each mark.
MARKS = {
    "high": ("flipped", "upside", False), "first_order": ("raw", "circle", True), "fisher": ("calibrated", "diamond", True),
    "low": ("holding", "triangle", False),
}  # fmt: skip
#: Dashes of the same where samples are too many for marks.
DASHES = {"high": "", "first_order": "2 3", "fisher": "9 4", "low": "12 3 2 3"}
WORDS = {
    "high": "found: a move of this length changes the prediction",
    "first_order": "estimate, first order",
    "fisher": "estimate, from λ_max",
    "low": "guaranteed: no shorter move does",
}
_STEM = 8  # pixels that a sample with marks of its own needs
_BIN = 10  # pixels of a group of samples
_TAIL = 0.1  # of what is guaranteed in a group, on either side, that its band leaves out
_DECADES = 1e4  # below the shortest distance found; what is lower stands on the floor


@dataclass(frozen=True)
class Group:
    """Samples that stand side by side in the chart: medians of what they have, and the ends of the band of what is guaranteed."""

    first: int
    last: int
    middle: dict[str, float]
    least: float
    most: float


def many(samples: int, width: int) -> bool:
    """Whether so many samples share columns of a chart."""
    return samples > (width - 82) / _STEM


def bracket_chart(named: Sequence[tuple[int, Bracket]], *, units: str, width: int, wrong: Collection[int] = ()) -> Chart | None:
    """The brackets of one norm, sorted by what was found, then by what is guaranteed.

    Few samples have a stem each, from the guaranteed length up to the one that was found, with the estimates as open marks. Of
    many, neighbours share a column, which shows their medians, and the middle 80 % of what is guaranteed as a band.

    Args:
        named: A sample's index with its bracket.
        units: What the lengths are in.
        width: Pixels.
        wrong: Indices of samples whose two sides contradict one another.

    Returns:
        The chart, or None where nothing is known of fewer than two samples.
    """
    rows = sorted(named, key=lambda pair: (_high(pair[1]), pair[1].low, pair[0]))
    known = [v for _, b in rows for v in (b.low, b.high or 0.0) if v > 0]
    if len(rows) < 2 or not known:
        return None
    norm = NORM_WORDS[rows[0][1].norm]
    left, right, top, height = 66, width - 16, 14, 340 if width > NARROW else 300
    bottom = height - 50
    scale, floor = _scale([b for _, b in rows], bottom, top)
    segments, labels = _frame(scale, (left, right, top, bottom), floor=floor, missing=any(b.high is None for _, b in rows))
    labels.append(Label(13, (top + bottom) / 2, f"ε, {norm} (log)", "middle", role="note", turned=True))
    labels.append(Label((left + right) / 2, height - 10, _across(len(rows), width), "middle", role="note"))
    y = _placed(scale, top, bottom, floor=floor)
    drawn = _grouped if many(len(rows), width) else _stems
    paths = drawn(rows, y, segments, labels, (left, right, bottom), visible(units))
    crossed = [(k, i, b) for k, (i, b) in enumerate(rows) if i in wrong and b.high is not None]
    for k, i, b in crossed:
        x = _at(k, len(rows), left, right)
        tip = f"sample {i}: CONTRADICTION, guaranteed {number(b.low)}, yet changed at {number(b.high)}"
        paths.append(SvgPath(_cross(x, y(b.high)), "wrong", tip=tip))
    return Chart(
        f"bracket-{rows[0][1].norm}",
        f"From both sides: guaranteed and found distances, {norm}",
        _words([b for _, b in rows], visible(units), len(crossed)),
        width,
        height,
        tuple(segments),
        paths=tuple(paths),
        labels=tuple(labels),
    )


def _high(b: Bracket) -> float:
    return math.inf if b.high is None else b.high


def _scale(found: Sequence[Bracket], bottom: int, top: int) -> tuple[LogScale, bool]:
    """The scale, and whether something lies below it: then a row under it says so."""
    ends = [v for b in found for v in (b.low, b.high or 0.0) if v > 0]
    highs = [b.high for b in found if b.high]
    least = (min(highs) if highs else min(ends)) / _DECADES
    shown = [v for v in ends if v >= least]
    floor = any(b.low < least for b in found)
    missing = any(b.high is None for b in found)
    estimates = [v for b in found for v in (b.first_order, b.fisher) if v and least <= v <= 10 * max(shown)]
    return log_scale([*shown, *estimates], bottom - (24 if floor else 6), top + (28 if missing else 8), margin=0.05), floor


def _placed(scale: LogScale, top: int, bottom: int, *, floor: bool) -> Callable[[float | None], float]:
    def y(value: float | None) -> float:
        if value is None:
            return top + 10.0
        return bottom - 9.0 if floor and value < scale.low else scale(value)

    return y


def _frame(scale: LogScale, box: tuple[int, int, int, int], *, floor: bool, missing: bool) -> tuple[list[Segment], list[Label]]:
    left, right, top, bottom = box
    ticks = log_ticks(scale, most=7)
    segments = [Segment(left, scale(t.value), right, scale(t.value), "grid") for t in ticks]
    segments += [Segment(left, bottom, right, bottom, "axis"), Segment(left, top, left, bottom, "axis")]
    labels = [Label(left - 8, scale(t.value) + 4, t.text, "end") for t in ticks]
    if floor:
        labels.append(Label(left - 8, bottom - 5, "nothing", "end"))
    if missing:
        labels.append(Label(left - 8, top + 14, "none", "end"))
    return segments, labels


def _across(samples: int, width: int) -> str:
    how = "sorted by the distance found" if width > NARROW else "by distance found"
    return f"{count(samples, 'sample')}, {how}" + (", neighbours together" if many(samples, width) and width > NARROW else "")


def _at(k: int, n: int, left: float, right: float) -> float:
    return round(left + (k + 0.5) * (right - left) / n, 1)


def _shape(name: str, x: float, y: float, radius: float = 3.6) -> str:
    kind = MARKS[name][1]
    if kind == "upside":
        r = radius
        return f"M{x:.1f} {y + 1.2 * r:.1f}l{-1.2 * r:.1f} {-2.1 * r:.1f}h{2.4 * r:.1f}z"
    return marker(kind, x, y, radius=radius)


def key_marker(name: str) -> str:
    """The mark of a legend."""
    return _shape(name, 17, 6, 4.0)


def _cross(x: float, y: float, reach: float = 6.0) -> str:
    width = 2 * reach
    return f"M{x - reach:.1f} {y - reach:.1f}l{width:g} {width:g}M{x + reach:.1f} {y - reach:.1f}l{-width:g} {width:g}"


#: The mark of samples whose two sides contradict one another, in a legend.
CROSS = _cross(17, 6, 4.5)


def _stems(
    rows: Sequence[tuple[int, Bracket]], y: Callable[[float | None], float], segments: list[Segment], labels: list[Label],
    across: tuple[int, int, int], units: str,
) -> list[SvgPath]:  # fmt: skip
    left, right, bottom = across
    paths: list[SvgPath] = []
    roomy = (right - left) / len(rows) > 1.6 * LETTER * len(str(max(i for i, _ in rows)))
    for k, (i, b) in enumerate(rows):
        x = _at(k, len(rows), left, right)
        segments.append(Segment(x, y(b.low), x, y(b.high), "quiet"))
        if roomy:
            middle: Anchor = "middle"
            labels.append(Label(x, bottom + 17, str(i), middle))
        for name in ("low", "first_order", "fisher", "high"):
            value = getattr(b, name)
            if value is None and name != "high":
                continue
            series, _, hollow = MARKS[name]
            tip = f"sample {i}, {_said(name, b)}"
            nothing = (name == "low" and not value) or value is None
            paths.append(SvgPath(_shape(name, x, y(value)), series, filled=not (hollow or nothing), tip=f"{tip} {units}".strip()))
    return paths


def _said(name: str, b: Bracket) -> str:
    if name == "high":
        return "no move found that changes the prediction; in" if b.high is None else f"found {number_above(b.high)}"
    if name == "low":
        return f"guaranteed {number_below(b.low)}" if b.low else "nothing guaranteed; in"
    return f"{WORDS[name]}: {number(getattr(b, name))}"


def _grouped(
    rows: Sequence[tuple[int, Bracket]], y: Callable[[float | None], float], segments: list[Segment], labels: list[Label],
    across: tuple[int, int, int], units: str,
) -> list[SvgPath]:  # fmt: skip
    left, right, bottom = across
    columns = min(len(rows), int((right - left) / _BIN))
    edges = [round(k * len(rows) / columns) for k in range(columns + 1)]
    groups = [_group(a, b, [row for _, row in rows[a:b]]) for a, b in pairwise(edges) if b > a]

    def x(place: int) -> float:
        return round(left + place * (right - left) / len(rows), 1)

    for share in (0.25, 0.5, 0.75):
        place = x(round(share * len(rows)))
        segments.append(Segment(place, y(None) - 10, place, bottom, "grid"))
    labels += [Label(x(round(s * len(rows))), bottom + 17, f"{100 * s:.0f} %", "middle") for s in (0.25, 0.5, 0.75)]
    there = "".join(f"{'L' if k else 'M'}{x(g.first)} {y(g.most)}H{x(g.last)}" for k, g in enumerate(groups))
    back = "".join(f"L{x(g.last)} {y(g.least)}H{x(g.first)}" for g in reversed(groups))
    paths = [SvgPath(f"{there}{back}z", MARKS["low"][0], soft=True)]
    for name in ("low", "fisher", "first_order", "high"):
        paths.append(SvgPath(_line(name, groups, x, y), MARKS[name][0], dash=DASHES[name], tip=f"{WORDS[name]}, medians, {units}"))
    return paths


def _group(first: int, last: int, found: Sequence[Bracket]) -> Group:
    middle: dict[str, float] = {"high": float(np.quantile([_high(b) for b in found], 0.5, method="higher"))}
    middle["low"] = float(np.quantile([b.low for b in found], 0.5, method="lower"))
    for name in ("first_order", "fisher"):
        known = [v for b in found if (v := getattr(b, name)) is not None]
        if known:
            middle[name] = float(np.median(known))
    lows = [b.low for b in found]
    ends = (float(np.quantile(lows, q, method=m)) for q, m in ((_TAIL, "lower"), (1 - _TAIL, "higher")))  # type: ignore[call-overload]
    return Group(first, last, middle, *ends)


def _line(name: str, groups: Sequence[Group], x: Callable[[int], float], y: Callable[[float | None], float]) -> str:
    """A step for each group that has the value; the pen is lifted over the others."""
    data, down = "", False
    for g in groups:
        value = g.middle.get(name)
        if value is None:
            down = False
            continue
        data += f"{'L' if down else 'M'}{x(g.first)} {y(value if math.isfinite(value) else None)}H{x(g.last)}"
        down = True
    return data or "M0 0"


def _words(found: Sequence[Bracket], units: str, wrong: int) -> str:
    """The chart in words, for those who do not see it."""
    highs, lows = sorted(map(_high, found)), sorted(b.low for b in found)
    n = len(found)
    never, nothing = sum(b.high is None for b in found), sum(b.low == 0 for b in found)
    half = highs[(n - 1) // 2]
    parts = [
        f"{count(n, 'sample')}, lengths in {units}. Guaranteed, lower bounds: from {number_below(lows[0])} to "
        f"{number_below(lows[-1])}, median {number_below(lows[(n - 1) // 2])}; nothing on {nothing:,}.",
        f"Found, upper bounds: from {number_above(highs[0]) if math.isfinite(highs[0]) else 'none'}, median "
        f"{number_above(half) if math.isfinite(half) else 'none found'}; none found on {never:,}.",
    ]
    for name in ("first_order", "fisher"):
        known = [v for b in found if (v := getattr(b, name)) is not None]
        if known:
            parts.append(f"{WORDS[name].capitalize()}: median {number(float(np.median(known)))}.")
    if wrong:
        parts.append(f"The two sides contradict one another on {count(wrong, 'sample')}.")
    return " ".join(parts)
