"""Steps that are not linear: curves, levels of quantisers, largest entries, products, with lines below and above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.relaxed.curves import ROUNDING, LinePair, ScalarCurve
from onnxfim.relaxed.relaxed_steps import TINY, Box, Local, RowNumbers, Units, rounded

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Grid:
    """The levels ``scale·k`` for whole k from ``least`` to ``most`` that a quantiser rounds to, ties to even."""

    scale: float
    least: int
    most: int

    def at(self, x: Array) -> Array:
        return self.scale * np.clip(np.rint(x / self.scale), self.least, self.most)


@dataclass(frozen=True)
class Bent:
    """A curve of each entry; with ``grid``, rounded to its levels afterwards."""

    name: str
    source: str
    size: int
    curve: ScalarCurve
    units: Units
    grid: Grid | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def cost(self) -> int:
        return self.size

    def wants(self, boxes: Sequence[Box]) -> list[Array]:
        low, high = boxes[0].low, boxes[0].high
        return [self.curve.bent(low, high) if self.grid is None else self.grid.at(low) != self.grid.at(high)]

    def inside(self, boxes: Sequence[Box], rows: RowNumbers) -> Local:
        box = boxes[0]
        lines = self.curve.lines(box.low, box.high)
        image = np.maximum(np.abs(lines.low), np.abs(lines.high))
        lost = self.curve.roundings * self.units.value * (1 + box.size + image)
        out = rounded(lines.low, lines.high, lost, self.units)
        if self.grid is not None:
            lines, out = _on_grid(self.grid, box, lines, self.units)
        offset = np.maximum(np.abs(lines.lower), np.abs(lines.upper))
        slack = lost + _ours(lines, box.size, rows.unit) + offset * (self.size * 1.01 * rows.unit)
        kept = (lines.lower_slope, lines.lower, lines.upper_slope, lines.upper)
        return _LinesInside(out, rows.above(slack), *map(rows.of, kept))


def _ours(lines: LinePair, size: Array, unit: float) -> Array:
    """What our rounding of products with these lines takes from coefficients of 1, (n,)."""
    steep = np.maximum(np.abs(lines.lower_slope), np.abs(lines.upper_slope))
    offset = np.maximum(np.abs(lines.lower), np.abs(lines.upper))
    return np.asarray((8 * steep * size + 16 * offset) * (1.01 * unit) + TINY)


def _on_grid(grid: Grid, box: Box, lines: LinePair, units: Units) -> tuple[LinePair, Box]:
    """Lines below and above a value that is clipped to a grid's range and rounded to its levels, and the levels that it takes.

    It lies within half a level of the clipped value: a little more, for the file divides by the scale in its own numbers. It rises
    with its input, so that its levels lie between those of the ends; where these lie closer, they are the lines.
    """
    near = 4 * units.value * (box.size + grid.scale)  # where the file may take the neighbouring level
    half = 0.5 * grid.scale * (1 + 1e-9) + near
    low, high = grid.at(box.low - near), grid.at(box.high + near)
    more = 2 * units.value * np.maximum(np.abs(low), np.abs(high))  # the level itself is a product in the file's numbers
    low, high = low - more, high + more
    middle = 0.5 * (box.low + box.high)
    lower, upper = lines.lower - half - more, lines.upper + half + more
    level_below = low >= lines.lower_slope * middle + lower
    level_above = high <= lines.upper_slope * middle + upper
    made = LinePair(
        np.where(level_below, 0.0, lines.lower_slope), np.where(level_below, low, lower),
        np.where(level_above, 0.0, lines.upper_slope), np.where(level_above, high, upper), low, high,
    )  # fmt: skip
    return made, Box(low, high)


@dataclass(frozen=True)
class _LinesInside:
    box: Box
    slack: Array
    lower_slope: Array
    lower: Array
    upper_slope: Array
    upper: Array

    def pull(self, rows: Array) -> tuple[list[Array], Array]:
        up, down = np.maximum(rows, 0), np.minimum(rows, 0)
        constant = up @ self.lower + down @ self.upper
        up *= self.lower_slope
        down *= self.upper_slope
        up += down
        return [up], np.asarray(constant)


@dataclass(frozen=True)
class Largest:
    """The largest entry of windows of a value: index (n, k), negative for none; each window has one at least."""

    name: str
    source: str
    index: Array
    entries: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def size(self) -> int:
        return len(self.index)

    @property
    def cost(self) -> int:
        return int(self.index.size)

    def _windows(self, box: Box) -> tuple[Array, Array]:
        """Low and high ends of the entries of each window, (n, k); minus infinity where there is none."""
        none = self.index < 0
        return np.where(none, -np.inf, box.low[self.index]), np.where(none, -np.inf, box.high[self.index])

    def wants(self, boxes: Sequence[Box]) -> list[Array]:
        low, high = self._windows(boxes[0])
        floor = low.max(axis=1, keepdims=True)
        contested = (high > floor).sum(axis=1) > 1
        wanted = np.zeros(self.entries, bool)
        wanted[self.index[contested][(high > floor)[contested]]] = True
        return [wanted]

    def inside(self, boxes: Sequence[Box], rows: RowNumbers) -> Local:
        """Lines of a window: below, the entry whose lowest value is highest; above, the lower in the middle of two.

        With m the largest of the lowest values, ``max x_i ≤ m + Σ max(x_i − m, 0)``, and each term lies below its chord,
        ``s_i (x_i − low_i)`` with ``s_i = max(high_i − m, 0) / (high_i − low_i)``. The other is the largest of the highest.
        """
        low, high = self._windows(boxes[0])
        best, floor, top = low.argmax(axis=1), low.max(axis=1), high.max(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            slopes = np.where(high > floor[:, None], (high - floor[:, None]) / (high - low), 0.0)
        slopes = np.clip(np.nan_to_num(slopes), 0.0, 1.0) * (1 + 4 * ROUNDING)
        ends = np.where(self.index < 0, 0.0, low)
        offset = floor - (slopes * ends).sum(axis=1)
        room = (64 + self.index.shape[1]) * ROUNDING * ((slopes * np.abs(ends)).sum(axis=1) + np.abs(floor) + np.abs(top))
        middle = offset + (slopes * np.where(self.index < 0, 0.0, 0.5 * (low + high))).sum(axis=1)
        flat = top < middle
        slopes[flat] = 0.0
        upper = np.where(flat, top, offset + room)
        size = np.where(self.index < 0, 0.0, np.maximum(np.abs(low), np.abs(high)))
        gross = ((1 + slopes) * size).sum(axis=1) + np.abs(upper)
        slack = gross * ((4 * self.index.shape[1] + self.size + 32) * 1.01 * rows.unit) + TINY
        return _LargestInside(self, Box(floor, top), rows.above(slack), best, rows.of(slopes), rows.of(upper))


@dataclass(frozen=True)
class _LargestInside:
    step: Largest
    box: Box
    slack: Array
    best: Array
    slopes: Array
    upper: Array

    def pull(self, rows: Array) -> tuple[list[Array], Array]:
        up, down = np.maximum(rows, 0), np.minimum(rows, 0)
        made = np.zeros((len(rows), self.step.entries), rows.dtype)
        for k in range(self.step.index.shape[1]):
            for part, weights in ((up, (self.best == k).astype(rows.dtype)), (down, self.slopes[:, k])):
                used = np.flatnonzero(weights)
                made[:, self.step.index[used, k]] += part[:, used] * weights[used]
        return [made], np.asarray(down @ self.upper)


@dataclass(frozen=True)
class Product:
    """``x·y`` entry by entry of two values."""

    name: str
    sources: tuple[str, str]
    size: int
    units: Units

    @property
    def cost(self) -> int:
        return 2 * self.size

    def wants(self, boxes: Sequence[Box]) -> list[Array]:
        return [boxes[1].high > boxes[1].low, boxes[0].high > boxes[0].low]

    def inside(self, boxes: Sequence[Box], rows: RowNumbers) -> Local:
        """Planes of McCormick (1976), the nearer in the middle: ``(x − a)(y − b)`` has one sign where a and b are ends."""
        x, y = boxes
        corners = np.stack([x.low * y.low, x.low * y.high, x.high * y.low, x.high * y.high])
        low, high = corners.min(axis=0), corners.max(axis=0)
        mx, my = 0.5 * (x.low + x.high), 0.5 * (y.low + y.high)

        def plane(pairs: Sequence[tuple[Array, Array]], sign: float) -> tuple[Array, Array, Array]:
            value = np.stack([b * mx + a * my - a * b for a, b in pairs])  # of b·x + a·y − a·b
            which = np.argmax(sign * value, axis=0)
            at = np.arange(self.size)
            a, b = (np.stack([pair[k] for pair in pairs])[which, at] for k in (0, 1))
            return b, a, -a * b

        below = plane(((x.low, y.low), (x.high, y.high)), 1.0)
        above = plane(((x.low, y.high), (x.high, y.low)), -1.0)
        gross = 3 * x.size * y.size
        lost = 2 * self.units.value * x.size * y.size
        slack = lost + gross * ((self.size + 32) * 1.01 * rows.unit) + TINY
        box = rounded(low, high, lost + 4 * ROUNDING * gross, self.units)
        kept = [tuple(rows.of(a) for a in plane) for plane in (below, above)]
        return _ProductInside(box, rows.above(slack), *kept)


@dataclass(frozen=True)
class _ProductInside:
    box: Box
    slack: Array
    below: tuple[Array, ...]
    above: tuple[Array, ...]

    def pull(self, rows: Array) -> tuple[list[Array], Array]:
        up, down = np.maximum(rows, 0), np.minimum(rows, 0)
        made = [up * b + down * a for b, a in zip(self.below[:2], self.above[:2], strict=True)]
        return made, np.asarray(up @ self.below[2] + down @ self.above[2])
