"""The steps that a network is made of for its bounds: sums of linear maps, curves, largest entries, products.

Every step gives, for the intervals that its inputs lie in, straight lines of them below and above its outputs, and how far rounding
may lead away from these: of the file, whose numbers have few digits, and of ours in float64.

A sum of n products, in whatever order and with or without fused multiplications, is off by at most
``γ_n Σ|a_i b_i|, γ_n = n u / (1 − n u)``, u the unit of rounding (Higham 2002, Accuracy and Stability of Numerical Algorithms,
section 3.1). With ``G ≥ Σ|a_i| |b_i|`` over the intervals, that is a number for each output, its **slack**. Rows Λ of coefficients of
the outputs lose at most ``|Λ|·slack`` to it. The same vector covers what is lost in ``Λ A``: each entry of the product is off by at
most ``γ_n (|Λ||A|)_j``, times the largest ``|x_j|`` that is at most ``γ_n |Λ|·(|A||x|)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnxfim.relaxed.curves import ROUNDING, Curve, Lines
from onnxfim.relaxed.maps import Map

Array: TypeAlias = np.ndarray[Any, Any]

_FOLDED = 8  # roundings beside a sum's own: a runtime folds scales and shifts into weights beforehand
_TINY = 1e-290  # what products that are too small for float64 lose, many times over


@dataclass(frozen=True)
class Box:
    """Between what the entries of a value lie, (n,) each."""

    low: Array
    high: Array

    @property
    def size(self) -> Array:
        """The largest magnitude of each."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())


@dataclass(frozen=True)
class Rows:
    """The numbers that rows of coefficients are made of: their type, and its unit of rounding."""

    kind: type[np.floating[Any]]

    @property
    def unit(self) -> float:
        return float(np.finfo(self.kind).eps) / 2

    def above(self, x: Array) -> Array:
        """Numbers without negative ones, rounded up to the type."""
        return np.nextafter(x.astype(self.kind), np.asarray(np.inf, self.kind))

    def of(self, x: Array) -> Array:
        """Numbers rounded to the type."""
        return x.astype(self.kind)


@dataclass(frozen=True)
class Units:
    """Rounding of the file's numbers: ``value`` of what a node writes, ``sums`` of a sum inside it, ``most`` the largest number."""

    value: float
    sums: float
    most: float


class Local(Protocol):
    """A step as it is inside given intervals of its inputs: lines below and above it.

    Attributes:
        box: What its outputs lie in.
        slack: What rounding may take from coefficients of 1 of its outputs, (n,), of the type of rows.
    """

    @property
    def box(self) -> Box: ...

    @property
    def slack(self) -> Array: ...

    def pull(self, rows: Array) -> tuple[list[Array], Array]:
        """Coefficients of the inputs (R, n_in) each, and constants (R,), that make lower bounds of what ``rows`` make of outputs."""
        ...


class Step(Protocol):
    """What makes one value of others.

    Attributes:
        name: Of the value.
        sources: Values that it is made of.
        size: How many entries it has.
        cost: Multiplications that one row of coefficients takes.
    """

    @property
    def name(self) -> str: ...

    @property
    def sources(self) -> tuple[str, ...]: ...

    @property
    def size(self) -> int: ...

    @property
    def cost(self) -> int: ...

    def wants(self, boxes: Sequence[Box]) -> list[Array]:
        """Of each source, for which entries tighter intervals give better lines, (n,) of bool."""
        ...

    def inside(self, boxes: Sequence[Box], rows: Rows) -> Local:
        """The step where its sources lie in these boxes, for rows of coefficients of these numbers."""
        ...


def _rounded(low: Array, high: Array, lost: Array, units: Units) -> Box:
    """The box with what the file's rounding adds to it; endless where the file's numbers do not reach so far."""
    size = np.maximum(np.abs(low), np.abs(high))
    far = size > units.most
    return Box(np.where(far, -np.inf, low - lost), np.where(far, np.inf, high + lost))


@dataclass(frozen=True)
class Affine:
    """``Σ A_k x_k + bias``.

    Attributes:
        parts: The values x_k and the maps A_k.
        bias: (n,).
        units: The file's rounding.
        exact: Whether the file only moves numbers here.
    """

    name: str
    parts: tuple[tuple[str, Map], ...]
    bias: Array
    units: Units
    exact: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.parts)

    @property
    def size(self) -> int:
        return len(self.bias)

    @property
    def cost(self) -> int:
        return sum(m.cost for _, m in self.parts)

    @property
    def work(self) -> int:
        """Numbers that one row of coefficients takes on its way back."""
        return max(m.work for _, m in self.parts)

    @property
    def _terms(self) -> int:
        return sum(m.terms for _, m in self.parts) + len(self.parts)

    def wants(self, boxes: Sequence[Box]) -> list[Array]:
        return [np.zeros(len(b.low), bool) for b in boxes]

    def inside(self, boxes: Sequence[Box], rows: Rows) -> Local:
        gross = np.abs(self.bias)
        middle, width = self.bias, np.zeros_like(self.bias)
        for (_, part), box in zip(self.parts, boxes, strict=True):
            gross = gross + part.push_abs(box.size)
            middle = middle + part.push(0.5 * (box.low + box.high))
            width = width + part.push_abs(0.5 * (box.high - box.low))
        lost = np.zeros_like(gross)
        if not self.exact:
            n = (self._terms + _FOLDED) * self.units.sums
            lost = gross * (n / (1 - n) + 2 * self.units.value) if n < 1 else np.full_like(gross, np.inf)
        ours = gross * ((2 * self._terms + 32) * 1.01 * ROUNDING) + _TINY
        slack = lost + ours + gross * ((self._terms + 8) * 1.01 * rows.unit) + np.abs(self.bias) * (self.size * 1.01 * rows.unit)
        box = _rounded(middle - width - ours, middle + width + ours, lost, self.units)
        return _AffineInside(self, box, rows.above(slack), rows.of(self.bias), lost + ours)


@dataclass(frozen=True)
class _AffineInside:
    step: Affine
    box: Box
    slack: Array
    bias: Array
    forwards: Array  # what rounding may take from the outputs on the way forwards, in float64

    def pull(self, rows: Array) -> tuple[list[Array], Array]:
        return [part.pull(rows) for _, part in self.step.parts], np.asarray(rows @ self.bias)


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
    curve: Curve
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

    def inside(self, boxes: Sequence[Box], rows: Rows) -> Local:
        box = boxes[0]
        lines = self.curve.lines(box.low, box.high)
        image = np.maximum(np.abs(lines.low), np.abs(lines.high))
        lost = self.curve.roundings * self.units.value * (1 + box.size + image)
        out = _rounded(lines.low, lines.high, lost, self.units)
        if self.grid is not None:
            lines, out = _on_grid(self.grid, box, lines, self.units)
        offset = np.maximum(np.abs(lines.lower), np.abs(lines.upper))
        slack = lost + _ours(lines, box.size, rows.unit) + offset * (self.size * 1.01 * rows.unit)
        kept = (lines.lower_slope, lines.lower, lines.upper_slope, lines.upper)
        return _LinesInside(out, rows.above(slack), *map(rows.of, kept))


def _ours(lines: Lines, size: Array, unit: float) -> Array:
    """What our rounding of products with these lines takes from coefficients of 1, (n,)."""
    steep = np.maximum(np.abs(lines.lower_slope), np.abs(lines.upper_slope))
    offset = np.maximum(np.abs(lines.lower), np.abs(lines.upper))
    return np.asarray((8 * steep * size + 16 * offset) * (1.01 * unit) + _TINY)


def _on_grid(grid: Grid, box: Box, lines: Lines, units: Units) -> tuple[Lines, Box]:
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
    made = Lines(
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

    def inside(self, boxes: Sequence[Box], rows: Rows) -> Local:
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
        slack = gross * ((4 * self.index.shape[1] + self.size + 32) * 1.01 * rows.unit) + _TINY
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

    def inside(self, boxes: Sequence[Box], rows: Rows) -> Local:
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
        slack = lost + gross * ((self.size + 32) * 1.01 * rows.unit) + _TINY
        box = _rounded(low, high, lost + 4 * ROUNDING * gross, self.units)
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
