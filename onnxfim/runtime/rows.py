"""Perturbed rows: where they start, along which directions, how far; and who answers them.

Samples and directions never depend on the batch size: direction j of sample i is the j-th draw of the stream ``[seed, i]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Signs:
    """Directions of ±1 as they were drawn, a bit for each coordinate; rows along one direction share it.

    Where bytes are wanted, NumPy makes them: ``np.asarray(signs)`` is int8 (B, d).

    Attributes:
        packed: The directions, uint8 (m, ⌈d/8⌉): a set bit is +1, the first coordinate the highest bit of the first byte.
        of: Which of them each row goes along, (B,).
        d: Coordinates.
    """

    packed: Array
    of: Array
    d: int

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, which: Any) -> Signs:
        """The directions of some rows."""
        return replace(self, of=self.of[which])

    def stretch(self, start: int, stop: int) -> Signs:
        """The directions ``start … stop`` of those that were drawn, a row for each."""
        return Signs(self.packed[start:stop], np.arange(stop - start), self.d)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The directions of the rows, int8 (B, d)."""
        signs = np.unpackbits(self.packed, axis=1, count=self.d).view(np.int8)
        signs <<= 1
        signs -= 1
        rows = signs if np.array_equal(self.of, np.arange(len(signs))) else signs[self.of]
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def bits(self) -> Array:
        """The packed bits of each row, uint8 (B, ⌈d/8⌉)."""
        return self.packed[self.of]


@dataclass(frozen=True)
class Moves:
    """Moves of any size as they were drawn; rows that share one, of one sample or of several, share its memory.

    Attributes:
        values: The moves, float32 (m, d).
        of: Which of them each row makes, (B,).
    """

    values: Array
    of: Array

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, which: Any) -> Moves:
        """The moves of some rows."""
        return replace(self, of=self.of[which])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The moves of the rows, float32 (B, d)."""
        moves = self.values[self.of]
        return moves if dtype is None else moves.astype(dtype, copy=False)


def joined_directions(parts: Sequence[Array | Signs]) -> Array | Signs:
    """Directions of several stretches of rows as those of one batch; packed where all of them are."""
    if len(parts) == 1:
        return parts[0]
    signs = [p for p in parts if isinstance(p, Signs)]
    if len(signs) < len(parts):
        return np.concatenate([np.asarray(p) for p in parts])
    firsts = np.cumsum([0, *(len(s.packed) for s in signs[:-1])])
    of = np.concatenate([s.of + first for s, first in zip(signs, firsts, strict=True)])
    return Signs(np.concatenate([s.packed for s in signs]), of, signs[0].d)


@dataclass(frozen=True)
class Rows:
    """A batch of perturbed rows ``X[sample] + field·(scale·v + dither·w/127)``.

    Attributes:
        sample: Position of each row's base point in X, (B,) int64.
        v: Directions, int8 in {-1, 0, 1}, (B, d), or packed; or moves of any size.
        scale: Signed step of each row, (B,).
        w: Dither noise, int8 in [-127, 127], (B, d), or None.
        dither: Amplitude of the dither.
        inside: Range into which the base points are moved first (of each coordinate, *shape, where there is a field), or None.
        field: By how much each coordinate is moved for a scale of 1, (*shape), or None where by 1.
        grid: Lowest and highest value and the distance of two, where moved rows are rounded to such values, or None.
    """

    sample: Array
    v: Array | Signs | Moves
    scale: Array
    w: Array | None = None
    dither: float = 0.0
    inside: tuple[Any, Any] | None = None
    field: Array | None = None
    grid: tuple[float, float, float] | None = None

    def bases(self, X: Array) -> Array:
        """Base points taken from X, moved inside where a range is set."""
        return X if self.inside is None else np.clip(X, *self.inside)

    @property
    def plain_moves(self) -> Moves | None:
        """The moves where the rows are ``X[sample] + v`` of moves as they were drawn; else None."""
        plain = isinstance(self.v, Moves) and self.w is None and self.field is None and bool((self.scale == 1).all())
        return self.v if plain and isinstance(self.v, Moves) else None


def taken(rows: Rows, which: Any) -> Rows:
    """Some rows of a batch."""
    w = None if rows.w is None else rows.w[which]
    return replace(rows, sample=rows.sample[which], v=rows.v[which], scale=rows.scale[which], w=w)


class Forward(Protocol):
    """A classifier that can be called; the model file, or any function.

    ``of`` names the sample that each row is, or stands beside, by its position among the samples, (N,) int64. A model with inputs
    that are held at each sample's own value (`graph.held`) needs it; others take no notice.
    """

    @property
    def batch(self) -> int:
        """Rows per call."""

    @property
    def stretch(self) -> int:
        """Rows of a batch of `stream`: those of one call, or of several that are made at once where a call is short."""

    def outputs(self, X: Array, of: Array | None = None) -> Array:
        """Outputs at the samples themselves: X (N, *shape) to (N, K, P) float64."""

    def stream(self, X: Array, batches: Iterable[Rows], of: Array | None = None) -> Iterator[Array]:
        """Outputs (B, K, P) float64 at each batch of perturbed rows of X (N, *shape), in order."""


class AroundForward:
    """What calls a model for another: rows and stretches are the model's own."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    @property
    def batch(self) -> int:
        return self._forward.batch

    @property
    def stretch(self) -> int:
        return self._forward.stretch


class LostPosition(RuntimeError):
    """Rows of a model with held inputs came without their samples' positions: a defect of this program, never a wrong value."""


def known_positions(of: Array | None, rows: int) -> Array:
    """The positions that go with so many rows, (rows,) int64.

    Raises:
        LostPosition: they are missing, or not as many.
    """
    if of is None or len(of) != rows:
        found = "no" if of is None else str(len(of))
        raise LostPosition(f"{rows} rows of a model with held inputs, but the positions of {found} samples")
    return np.ascontiguousarray(of, np.int64)


class PlacedForward(AroundForward):
    """A model whose rows are those of known samples, for who calls it without positions.

    Args:
        forward: The model.
        of: Position of the sample that each row of X is, (N,).
    """

    def __init__(self, forward: Forward, of: Array) -> None:
        super().__init__(forward)
        self._of = of

    def outputs(self, X: Array, of: Array | None = None) -> Array:
        return self._forward.outputs(X, known_positions(self._of if of is None else self._of[of], len(X)))

    def stream(self, X: Array, batches: Iterable[Rows], of: Array | None = None) -> Iterator[Array]:
        return self._forward.stream(X, batches, known_positions(self._of if of is None else self._of[of], len(X)))


def on_grid(rows: Array, grid: tuple[float, float, float]) -> None:
    """Round rows to the nearest values of a grid, in place; beyond its ends to these."""
    low, high, unit = (rows.dtype.type(g) for g in grid)
    rows -= low
    rows /= unit
    np.rint(rows, out=rows)
    rows *= unit
    rows += low
    np.clip(rows, low, high, out=rows)


class Directions(Protocol):
    """A family of directions with identity covariance (or, scaled, an orthonormal basis)."""

    def block(self, index: int, start: int, count: int, d: int) -> Array:
        """Directions ``start … start+count`` of sample ``index``, int8 (count, d)."""


@dataclass(frozen=True)
class Rademacher:
    """Independent directions of ±1, from packed random bits; any direction can be drawn without those before it."""

    seed: int

    def block(self, index: int, start: int, count: int, d: int) -> Array:
        return np.asarray(self.signs(index, start, count, d))

    def signs(self, index: int, start: int, count: int, d: int) -> Signs:
        """The same directions as `block` gives, packed."""
        words = -(-d // 64)
        generator = np.random.PCG64(np.random.SeedSequence([self.seed, index]))
        generator.advance(start * words)
        drawn = generator.random_raw(count * words).astype("<u8", copy=False).view(np.uint8).reshape(count, words * 8)
        return Signs(drawn[:, : -(-d // 8)], np.arange(count), d)


@dataclass(frozen=True)
class Coordinates:
    """The coordinate directions in order: the sketch over all d of them is exact."""

    def block(self, index: int, start: int, count: int, d: int) -> Array:
        v = np.zeros((count, d), np.int8)
        v[np.arange(count), np.arange(start, start + count)] = 1
        return v


@dataclass(frozen=True)
class GroupedRademacher:
    """Directions of ±1 in parts: G directions in turn each move one group of the coordinates, and together make one of ±1.

    Attributes:
        seed: As of `Rademacher`; the wholes are the same.
        groups: Group of each coordinate, 0 … G − 1, (d,).
    """

    seed: int
    groups: Array

    @property
    def count(self) -> int:
        """How many groups there are, G."""
        return int(self.groups.max()) + 1

    def block(self, index: int, start: int, count: int, d: int) -> Array:
        part = np.arange(start, start + count)
        whole = part // self.count
        signs = Rademacher(self.seed).block(index, int(whole[0]), int(whole[-1] - whole[0]) + 1, d)
        return np.where(self.groups == (part % self.count)[:, None], signs[whole - whole[0]], np.int8(0))


def dither_noise(stream: Sequence[int], start: int, count: int, d: int) -> Array:
    """Uniform noise of the dither, int8 (count, 2, d): two independent shifts per direction.

    Args:
        stream: Seed and words of the sample's stream, another than that of its directions.
        start, count: Which directions' shifts.
        d: Coordinates.
    """
    words = -(-2 * d // 8)
    generator = np.random.PCG64(np.random.SeedSequence(list(stream)))
    generator.advance(start * words)
    raw = generator.random_raw(count * words).astype("<u8", copy=False).view(np.uint8).reshape(count, words * 8)[:, : 2 * d]
    return np.maximum(raw.view(np.int8), np.int8(-127)).reshape(count, 2, d)
