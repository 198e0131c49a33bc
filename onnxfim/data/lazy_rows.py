"""Samples that stay where they are, read at need: what stands in for an array where that would not fit beside everything else."""

from __future__ import annotations

import math
import operator
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Indices: TypeAlias = npt.NDArray[np.int64]

LAZY_BYTES = 256 * 2**20
"""Samples that take more than this are read at need; fewer are held in memory."""

BLOCK_BYTES = 8 * 2**20
"""Bytes of the rows that are gone through at a time."""

_KEPT_BYTES = 64 * 2**20  # of rows that cost much to read


class RowReader(Protocol):
    """Rows that can be read at their places, as often as they are asked for: any thread's and, after a fork, any process's."""

    @property
    def costly(self) -> bool:
        """Whether a row costs much more to make than to copy, so that the last ones are worth keeping."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def read(self, at: Indices) -> Array: ...


def is_large(count: int, row_bytes: int) -> bool:
    """Whether so many rows are left where they are."""
    return count * row_bytes > LAZY_BYTES


def blocks(count: int, row_bytes: int) -> Iterator[slice]:
    """Slices that go through so many rows, each of `BLOCK_BYTES` or a row."""
    rows = max(1, BLOCK_BYTES // max(row_bytes, 1))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def rows_in_blocks(X: Array, positions: Sequence[int] | Array | None = None) -> Iterator[Array]:
    """Rows of X (N, *shape), an array or rows read at need, block by block: all, or those at ``positions`` (n,)."""
    one = math.prod(X.shape[1:]) * X.dtype.itemsize
    if positions is None:
        yield from (X[part] for part in blocks(len(X), one))
        return
    at = np.asarray(positions, np.int64)
    yield from (X[at[part]] for part in blocks(len(at), one))


def part_of(X: Array, which: slice | Indices) -> Array:
    """Rows of X as X is: of an array an array, of rows read at need such rows."""
    rows = lazy(X)
    return X[which] if rows is None else rows.part(which).in_place


def lazy(X: object) -> LazyRows | None:
    """X where it is rows that are read at need, and None where it is an array."""
    return X if isinstance(X, LazyRows) else None


class LazyRows:
    """Rows (N, *shape) that are read at need; of an array it has what an audit asks of its samples.

    ``X[i]`` is a row, ``X[2:7]`` and ``X[[3, 5]]`` are rows, each a new array (do not write into it: it may be given again).
    It does not become an array by itself, for that would hold all of it: ``X[:]`` does.

    Args:
        reader: Where they come from.
        positions: Place there of each row, (N,); None takes all.

    Attributes:
        figures: What was computed of them, for who asks again: to go through them may take minutes.
    """

    def __init__(self, reader: RowReader, positions: Indices | None = None) -> None:
        self.reader = reader
        self.positions = np.arange(reader.shape[0], dtype=np.int64) if positions is None else np.asarray(positions, np.int64)
        self._kept: OrderedDict[int, Array] = OrderedDict()
        self._lock = threading.Lock()
        self._found: dict[np.ufunc, Array] = {}
        self.figures: dict[object, float] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyRows, (self.reader, self.positions)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def in_place(self) -> Array:
        """Itself in the place of an array, as those who use samples take it."""
        return cast(Array, self)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.positions), *self.reader.shape[1:])

    @property
    def ndim(self) -> int:
        return len(self.reader.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.reader.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that they would take in memory."""
        return self.size * self.dtype.itemsize

    def __iter__(self) -> Iterator[Array]:
        for rows in rows_in_blocks(self.in_place):
            yield from rows

    def __getitem__(self, key: Any) -> Array:
        """One row, or an array of some.

        Raises:
            IndexError: there is none at a place.
            TypeError: something else than a whole number, a slice, or places or truth values in one axis.
        """
        if isinstance(key, slice):
            return self._read(self.positions[key])
        if isinstance(key, (list, np.ndarray)) and not (isinstance(key, np.ndarray) and key.ndim == 0):
            at = np.asarray(key)
            if at.size == 0:
                at = at.astype(np.int64)
            if at.ndim != 1 or at.dtype.kind not in "biu":
                raise TypeError(f"rows read at need are taken along their first axis alone, not by {at.dtype} of {at.shape}")
            return self._read(self.positions[at])
        try:
            place = operator.index(key)
        except TypeError:
            raise TypeError(f"rows that are read at need are taken by places, not by {type(key).__name__}") from None
        return self._read(self.positions[[place]])[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        raise TypeError("rows that are read at need become an array where that is asked for, by X[:]")

    def part(self, which: slice | Indices) -> LazyRows:
        """Some of the rows, read at need as well."""
        return LazyRows(self.reader, self.positions[which])

    def min(self, axis: int | None = None) -> Any:
        """Smallest value, of all or along the first axis."""
        return self._ends(np.minimum, axis)

    def max(self, axis: int | None = None) -> Any:
        """Largest value, of all or along the first axis."""
        return self._ends(np.maximum, axis)

    def _ends(self, choose: np.ufunc, axis: int | None) -> Any:
        if axis not in (None, 0):
            raise TypeError("the ends of rows that are read at need are taken over all, or along the first axis")
        if not self._found:  # both at once: to read them may be most of the work
            for rows in rows_in_blocks(self.in_place):
                for one in (np.minimum, np.maximum):
                    here = one.reduce(rows, axis=0)
                    self._found[one] = one(self._found[one], here) if one in self._found else here
        return self._found[choose].copy() if axis == 0 else choose.reduce(self._found[choose], axis=None)

    def _read(self, at: Indices) -> Array:
        if not self.reader.costly or len(at) == 0:
            return self.reader.read(at)
        out = np.empty((len(at), *self.reader.shape[1:]), self.dtype)
        with self._lock:
            new = [k for k, place in enumerate(at.tolist()) if not self._taken(out, k, place)]
        for start in range(0, len(new), most := max(1, BLOCK_BYTES // max(out[0].nbytes, 1))):
            some = new[start : start + most]
            out[some] = self.reader.read(at[some])
        with self._lock:
            for k in new[-max(1, _KEPT_BYTES // max(out[0].nbytes, 1)) :]:
                self._kept[int(at[k])] = out[k].copy()
            while len(self._kept) > 1 and len(self._kept) * out[0].nbytes > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return out

    def _taken(self, out: Array, k: int, place: int) -> bool:
        row = self._kept.get(place)
        if row is None:
            return False
        self._kept.move_to_end(place)
        out[k] = row
        return True
