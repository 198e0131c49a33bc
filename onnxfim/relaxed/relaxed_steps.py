"""What a network is made of for its bounds: steps, and what lies in which interval; the first of them, sums of linear maps.

Every step gives, for the intervals that its inputs lie in, straight lines of them below and above its outputs, and how far rounding
may lead away from these: of the file, whose numbers have few digits, and of ours in float64.

A sum of n products, in whatever order and with or without fused multiplications, is off by at most
``γ_n Σ|a_i b_i|, γ_n = n u / (1 − n u)``, u the unit of rounding (Higham 2002, Accuracy and Stability of Numerical Algorithms,
section 3.1). With ``G ≥ Σ|a_i| |b_i|`` over the intervals, that is a number for each output, its slack. Rows Λ of coefficients of
outputs lose at most ``|Λ|·slack`` to it. The same vector covers what is lost in ``Λ A``: each entry of the product is off by at
most ``γ_n (|Λ||A|)_j``, times the largest ``|x_j|`` that is at most ``γ_n |Λ|·(|A||x|)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnxfim.relaxed.curves import ROUNDING
from onnxfim.relaxed.maps import Map

Array: TypeAlias = np.ndarray[Any, Any]

_FOLDED = 8  # roundings beside a sum's own: a runtime folds scales and shifts into weights beforehand
#: What products that are too small for float64 lose, many times over.
TINY = 1e-290


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
class RowNumbers:
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


#: Rows in float32, which the runtime computes with.
SINGLE = RowNumbers(np.float32)


@dataclass(frozen=True)
class Units:
    """Rounding of the file's numbers: ``value`` of what a node writes, ``sums`` of a sum inside it, ``most`` the largest number.

    ``folded`` is set where a runtime may multiply weights by constants of the graph beforehand, and round what comes out.
    """

    value: float
    sums: float
    most: float
    folded: bool = True


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
        """Coefficients of the inputs, (R, n_in) each, and constants (R,): a lower bound of what ``rows`` make of the outputs."""
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

    def inside(self, boxes: Sequence[Box], rows: RowNumbers) -> Local:
        """The step where its sources lie in these boxes, for rows of coefficients of these numbers."""
        ...


def rounded(low: Array, high: Array, lost: Array, units: Units) -> Box:
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

    def inside(self, boxes: Sequence[Box], rows: RowNumbers) -> AffineInside:
        gross = np.abs(self.bias)
        middle, width = self.bias, np.zeros_like(self.bias)
        for (_, part), box in zip(self.parts, boxes, strict=True):
            gross = gross + part.push_abs(box.size)
            middle = middle + part.push(0.5 * (box.low + box.high))
            width = width + part.push_abs(0.5 * (box.high - box.low))
        lost = np.zeros_like(gross)
        if not self.exact:
            n = (self._terms + _FOLDED) * self.units.sums
            written = gross if self.units.folded else np.minimum(gross, np.abs(middle) + width)
            lost = gross * (n / (1 - n)) + 2 * self.units.value * written if n < 1 else np.full_like(gross, np.inf)
        ours = gross * ((2 * self._terms + 32) * 1.01 * ROUNDING) + TINY
        slack = lost + ours + gross * ((self._terms + 8) * 1.01 * rows.unit) + np.abs(self.bias) * (self.size * 1.01 * rows.unit)
        box = rounded(middle - width - ours, middle + width + ours, lost, self.units)
        return AffineInside(self, box, rows.above(slack), rows.of(self.bias), lost + ours)


@dataclass(frozen=True)
class AffineInside:
    """A sum of linear maps inside boxes; ``forwards`` is what rounding may take from its outputs on the way there, in float64."""

    step: Affine
    box: Box
    slack: Array
    bias: Array
    forwards: Array

    def pull(self, rows: Array) -> tuple[list[Array], Array]:
        return [part.pull(rows) for _, part in self.step.parts], np.asarray(rows @ self.bias)
