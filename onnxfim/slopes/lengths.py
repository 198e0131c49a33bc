"""What the length of a move is: Euclidean, or the largest of its coordinates, each in a unit of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnxfim.record.guarantees import Norm

Array: TypeAlias = np.ndarray[Any, Any]

_SOLVED = 1e-6  # relative error of a step's length
_REACHED = 1 - 1e-12  # of a coordinate's room: what dividing by a unit and multiplying by it again may take


class Length(Protocol):
    """A length of moves, and moves of that length along rays that end where a coordinate has no more room."""

    @property
    def norm(self) -> Norm:
        """Its norm."""

    def of(self, moves: Array) -> Array:
        """Lengths of moves (n, d), (n,)."""

    def reach(self, v: Array, room: Array) -> Array:
        """The longest move along rays v, (n,), where each coordinate has so much ``room`` in its direction, (n, d) both."""

    def along(self, v: Array, room: Array, length: Array) -> Array:
        """The move along each ray v (n, d) that has the given length (n,), with no coordinate beyond its ``room`` (n, d)."""


@dataclass(frozen=True)
class Euclidean:
    """The L2 length, in model input units."""

    norm: Norm = "l2"

    def of(self, moves: Array) -> Array:
        """Lengths of moves (n, d), (n,)."""
        return np.asarray(np.linalg.norm(moves, axis=1))

    def reach(self, v: Array, room: Array) -> Array:
        """The longest move along rays v, (n,)."""
        return np.asarray(np.sqrt(np.square(np.where(v != 0, room, 0.0)).sum(axis=1)))

    def along(self, v: Array, room: Array, length: Array) -> Array:
        """``P(x + t·v) − x`` of the given length (B,), with P the projection on the range, (B, d).

        The coordinates that reach an end stay there while the others go on: t grows from ``length/‖v‖`` until the length fits.
        """
        size = np.abs(v)
        free = (size**2).sum(axis=1)
        t = length / np.maximum(np.sqrt(free), np.finfo(float).tiny)
        t = np.maximum(t, np.sqrt(length**2 / np.where(free > 0, free, 1.0)))
        cut = t[:, None] * size >= room
        if not cut.any():  # most moves reach no end
            return np.asarray(t[:, None] * v)
        for _ in range(100):
            spent = (np.where(cut, room, 0.0) ** 2 * (size > 0)).sum(axis=1)
            free = (np.where(cut, 0.0, size) ** 2).sum(axis=1)
            left = np.maximum(length**2 - spent, 0.0)
            longer = np.where(free > 0, np.sqrt(left / np.where(free > 0, free, 1.0)), 0.0)
            longer = np.where((free == 0) & (left > 0), np.finfo(float).max ** 0.5, longer)
            done = longer <= t * (1 + _SOLVED)
            t = np.maximum(t, longer)
            if done.all():
                break
            cut = t[:, None] * size >= room
        return np.asarray(np.sign(v) * np.minimum(t[:, None] * size, room))


@dataclass(frozen=True)
class LargestCoordinate:
    """The L∞ length: the largest coordinate, in units of how many model input units one raw unit is.

    Attributes:
        unit: Of each coordinate, (d,), not negative. One of 0 cannot be moved: rays have nothing there.
    """

    unit: Array
    norm: Norm = "linf"

    def _in_units(self, moves: Array) -> Array:
        return np.divide(np.abs(moves), self.unit, out=np.zeros(moves.shape), where=self.unit > 0)

    def of(self, moves: Array) -> Array:
        """Lengths of moves (n, d), (n,)."""
        return np.asarray(self._in_units(moves).max(axis=1, initial=0.0))

    def reach(self, v: Array, room: Array) -> Array:
        """The longest move along rays v, (n,): that of the coordinate with the most room."""
        return self.of(np.where(v != 0, room, 0.0))

    def along(self, v: Array, room: Array, length: Array) -> Array:
        """``P(x + t·v) − x`` of the given length (B,), with P the projection on the range, (B, d).

        A coordinate whose room is shorter never gets so far; of the others the first one that does ends the move.
        """
        size = np.abs(v)
        wanted = length[:, None] * self.unit
        able = (size > 0) & (room >= _REACHED * wanted) & (self.unit > 0)
        t = np.where(able, wanted / np.where(able, size, 1.0), np.inf).min(axis=1, initial=np.inf)
        far = np.where(np.isfinite(t), t, np.finfo(float).max ** 0.5)[:, None]
        return np.asarray(np.sign(v) * np.minimum(far * size, room))

    def ray(self, ways: Array) -> Array:
        """The ray of each way (…, d) along which a linear function changes most for its length: by its sign, a unit everywhere."""
        return np.asarray(np.sign(ways) * self.unit)
