"""The property "the prediction stays the same in this box", as VNN-LIB 1.0 or 2.0 text.

VNN-LIB asks for what must not be: ``sat`` is a point of the box with another prediction. Where two classes are even the prediction
counts as changed, so that ``unsat`` says that one class leads everywhere in the box.

Source: the VNN-LIB standard (vnnlib.org), versions 1.0 and 2.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Version: TypeAlias = Literal[1, 2]

VERSIONS: tuple[Version, ...] = (1, 2)
#: What the network, its input and its output are called in a property of version 2.
NETWORK = "N"


def box_around(
    x: Array, epsilon: float, *, scale: Array | float = 1.0, low: Array | float, high: Array | float
) -> tuple[Array, Array]:
    """The ends of the box ``|x' − x| ≤ ε · scale`` inside the valid range, each a number that float32 holds.

    Ends that float32 does not hold are rounded outwards, so that the box holds all that was meant; float64 inputs are rounded in
    float64. The sample itself is always inside.

    Args:
        x: The sample, (*shape), in the type that the model takes.
        epsilon: Half-width, in raw input units where ``scale`` tells them.
        scale: d(model input)/d(raw input), broadcastable to the sample.
        low, high: Ends of the valid range, broadcastable to the sample.

    Returns:
        (low, high), float64 (*shape) each.
    """
    wide = np.float64 if x.dtype == np.float64 else np.float32
    middle = x.astype(np.float64)
    reach = np.broadcast_to(epsilon * np.asarray(scale, np.float64), middle.shape)
    if not np.all(np.asarray(scale) == 1):
        reach = np.nextafter(reach, np.inf)  # the product was rounded
    below = np.minimum(np.maximum(_sum_below(middle, -reach), low), middle)
    above = np.maximum(np.minimum(-_sum_below(-middle, -reach), high), middle)
    return _down(below, wide), -_down(-above, wide)


def _sum_below(a: Array, b: Array) -> Array:
    """``a + b``, or the next number below where the sum was rounded up.

    Source: Knuth, TAOCP 2, 4.2.2 theorem B: the rounding error of a sum, exactly.
    """
    s = a + b
    other = s - a
    error = (a - (s - other)) + (b - other)
    return np.asarray(np.where(error < 0, np.nextafter(s, -np.inf), s))


def _down(values: Array, kind: type[np.floating[Any]]) -> Array:
    """The largest numbers of a type that are not above ``values``, in float64."""
    with np.errstate(over="ignore"):
        near = values.astype(kind)
    near = np.where(near.astype(np.float64) > values, np.nextafter(near, kind(-np.inf)), near)
    return np.asarray(near.astype(np.float64))


@dataclass(frozen=True)
class StaysInBox:
    """The prediction is the same in a box.

    Attributes:
        low, high: Ends of the box, (*shape) of a sample.
        prediction: The class at the sample.
        outputs: How many numbers the network gives.
        threshold: Of a network that gives one number: the second of two classes is predicted where it is above this.
        output_shape: Shape of the output for one row, the batch among it.
        dtype: Type of the network's numbers, as VNN-LIB 2 names it.
        about: Lines for the reader; nothing that another's file holds may stand in them.
    """

    low: Array
    high: Array
    prediction: int
    outputs: int
    threshold: float = 0.0
    output_shape: tuple[int, ...] = ()
    dtype: str = "float32"
    about: tuple[str, ...] = ()

    @property
    def rivals(self) -> tuple[int, ...]:
        """The other classes, where each has an output of its own."""
        return tuple(j for j in range(self.outputs) if j != self.prediction) if self.outputs > 1 else ()

    def holds(self, point: Array) -> bool:
        """Whether a point (*shape) lies in the box."""
        return bool((point >= self.low).all() and (point <= self.high).all())

    def lead(self, outputs: Array) -> float:
        """By how much the prediction leads at outputs (K,): below 0 where another is predicted, 0 where two are even."""
        if self.outputs == 1:
            return float(outputs[0] - self.threshold) * (1 if self.prediction == 1 else -1)
        return float(outputs[self.prediction] - max(outputs[j] for j in self.rivals))

    def is_met(self, outputs: Array) -> bool:
        """Whether outputs (K,) are those of a point with another prediction, ties among them."""
        return self.lead(outputs) <= 0

    def lines(self, version: Version) -> Iterator[str]:
        """The property's text, line by line.

        Numbers are written with all of their digits and without exponents, which the grammar of version 2 does not have; whoever
        reads them in float32, in float64 or as fractions has the very numbers of the box.
        """
        x, y = _Letters("X", (1, *self.low.shape), version), _Letters("Y", self.output_shape or (1, self.outputs), version)
        if version == 2:
            yield "(vnnlib-version <2.0>)"
        yield from (f"; {line}" for line in self.about)
        if version == 2:
            yield f"(declare-network {NETWORK}"
            yield f"  (declare-input {x.letter} {self.dtype} {_sizes(x.shape)})"
            yield f"  (declare-output {y.letter} {self.dtype} {_sizes(y.shape)})"
            yield ")"
        else:
            yield from (f"(declare-const {name} Real)" for letter in (x, y) for name in letter)
        for name, low, high in zip(x, self.low.ravel().tolist(), self.high.ravel().tolist(), strict=True):
            yield f"(assert (>= {name} {number(low)}))"
            yield f"(assert (<= {name} {number(high)}))"
        of = list(y)
        if self.outputs == 1:
            yield f"(assert ({'<=' if self.prediction == 1 else '>='} {of[0]} {number(self.threshold)}))"
            return
        others = [f"(>= {of[j]} {of[self.prediction]})" for j in self.rivals]
        if len(others) == 1:
            yield f"(assert {others[0]})"
            return
        yield "(assert (or"
        yield from (f"  (and {other})" for other in others)
        yield "))"

    def text(self, version: Version = 1) -> str:
        """The property as text."""
        return "\n".join(self.lines(version)) + "\n"


def number(value: float) -> str:
    """A number in full, all of its digits: whatever reads it, in decimal fractions too, has that very number."""
    text = format(Decimal(value + 0.0), "f")
    return text if "." in text else f"{text}.0"


def _sizes(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


@dataclass(frozen=True)
class _Letters:
    """What the entries of an input or output are called, in order."""

    letter: str
    shape: tuple[int, ...]
    version: Version

    def __iter__(self) -> Iterator[str]:
        if self.version == 1:
            return (f"{self.letter}_{k}" for k in range(int(np.prod(self.shape))))
        return (f"{self.letter}[{','.join(map(str, at))}]" for at in np.ndindex(self.shape))
