"""Linear maps between values of a network at one sample, as bounds go through them forwards and backwards.

A value is a flat vector (n,); rows of coefficients of a value are a matrix (R, n).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Kind: TypeAlias = "type[np.floating[Any]] | np.dtype[Any]"


class Map(Protocol):
    """A matrix A (n_out, n_in) that is not written out.

    Attributes:
        terms: The most products that one sum of `push` or `pull` has: what their rounding errors are counted by.
        cost: Multiplications of one row of `pull`.
        work: Numbers that `pull` takes for one row.
    """

    @property
    def work(self) -> int: ...

    @property
    def terms(self) -> int: ...

    @property
    def cost(self) -> int: ...

    def push(self, x: Array) -> Array:
        """``A x`` of a vector (n_in,)."""
        ...

    def push_abs(self, x: Array) -> Array:
        """``|A| x`` of a vector (n_in,) without negative entries."""
        ...

    def pull(self, rows: Array) -> Array:
        """``Λ A`` of rows Λ (R, n_out), (R, n_in); the rows are not changed."""
        ...

    def rows(self, which: Array, kind: Kind) -> Array:
        """These rows of A, (len(which), n_in), in numbers of a kind."""
        ...


def unit_rows(which: Array, n: int, kind: Kind) -> Array:
    """Rows that pick one entry of n each, (len(which), n)."""
    rows = np.zeros((len(which), n), kind)
    rows[np.arange(len(which)), which] = 1.0
    return rows


@dataclass(frozen=True)
class SameMap:
    """The identity of n entries: a reshape."""

    n: int
    terms: int = 1
    cost: int = 0

    @property
    def work(self) -> int:
        return self.n

    def push(self, x: Array) -> Array:
        return x

    push_abs = push
    pull = push

    def rows(self, which: Array, kind: Kind) -> Array:
        return unit_rows(which, self.n, kind)


@dataclass(frozen=True)
class MatrixMap:
    """``x W`` along the last axis of a value with ``count`` vectors; W is (n, m)."""

    W: Array
    count: int

    @property
    def terms(self) -> int:
        return max(self.W.shape)

    @property
    def cost(self) -> int:
        return self.count * int(self.W.size)

    @property
    def work(self) -> int:
        return self.count * sum(self.W.shape)

    def _times(self, x: Array, W: Array) -> Array:
        lead = x.shape[:-1]
        return np.asarray(np.matmul(x.reshape(*lead, self.count, -1), W).reshape(*lead, -1))

    def push(self, x: Array) -> Array:
        return self._times(x, self.W)

    def push_abs(self, x: Array) -> Array:
        return self._times(x, self._absolute)

    @cached_property
    def _absolute(self) -> Array:
        return np.abs(self.W)

    @cached_property
    def _single(self) -> Array:
        return self.W.astype(np.float32)

    def pull(self, rows: Array) -> Array:
        return self._times(rows, (self._single if rows.dtype == np.float32 else self.W).T)

    def rows(self, which: Array, kind: Kind) -> Array:
        n, m = self.W.shape
        made = np.zeros((len(which), self.count, n), kind)
        made[np.arange(len(which)), which // m] = self.W.T[which % m]
        return made.reshape(len(which), -1)


@dataclass(frozen=True)
class Before:
    """``W x`` along the last axis but one of a value (count, n, m); W is (k, n)."""

    W: Array
    count: int
    m: int

    @property
    def terms(self) -> int:
        return max(self.W.shape)

    @property
    def cost(self) -> int:
        return self.count * self.m * int(self.W.size)

    @property
    def work(self) -> int:
        return self.count * self.m * sum(self.W.shape)

    def _times(self, x: Array, W: Array) -> Array:
        lead = x.shape[:-1]
        return np.asarray(np.matmul(W, x.reshape(*lead, self.count, -1, self.m)).reshape(*lead, -1))

    def push(self, x: Array) -> Array:
        return self._times(x, self.W)

    def push_abs(self, x: Array) -> Array:
        return self._times(x, np.abs(self.W))

    def pull(self, rows: Array) -> Array:
        return self._times(rows, self.W.T.astype(rows.dtype))

    def rows(self, which: Array, kind: Kind) -> Array:
        return self.pull(unit_rows(which, self.count * len(self.W) * self.m, kind))


@dataclass(frozen=True)
class Pick:
    """``y_i = w_i x_{index_i}``, 0 where the index is negative; w is 1 where ``weights`` is None."""

    n: int
    index: Array
    weights: Array | None = None

    @property
    def terms(self) -> int:
        return 2 + self.copies

    @property
    def cost(self) -> int:
        return len(self.index)

    @property
    def work(self) -> int:
        return len(self.index) + self.n

    @cached_property
    def copies(self) -> int:
        """How often an entry is picked at most."""
        return int(np.bincount(self._from, minlength=1).max(initial=1))

    @cached_property
    def _ok(self) -> Array:
        return np.flatnonzero(self.index >= 0)

    @cached_property
    def _from(self) -> Array:
        return self.index[self._ok]

    @cached_property
    def _runs(self) -> tuple[slice, slice] | None:
        """Which entries are picked, and by which outputs, where both are without a gap and in order; None where they are not."""
        ok, picked = self._ok, self._from
        if len(ok) == 0 or ok[-1] - ok[0] + 1 != len(ok) or (np.diff(picked) != 1).any():
            return None
        return slice(int(picked[0]), int(picked[-1]) + 1), slice(int(ok[0]), int(ok[-1]) + 1)

    @cached_property
    def _weights(self) -> Array:
        return np.ones(0, np.float32) if self.weights is None else self.weights.astype(np.float32)

    @cached_property
    def _order(self) -> tuple[Array, Array, Array]:
        """Places of `_ok` in the order of what they pick, where each run of one entry starts, and which entry that is."""
        order = np.argsort(self._from, kind="stable")
        entries, starts = np.unique(self._from[order], return_index=True)
        return self._ok[order], starts, entries

    def push(self, x: Array) -> Array:
        y = np.zeros(len(self.index))
        y[self._ok] = x[self._from]
        return y if self.weights is None else y * self.weights

    def push_abs(self, x: Array) -> Array:
        y = np.zeros(len(self.index))
        y[self._ok] = x[self._from]
        return y if self.weights is None else y * np.abs(self.weights)

    def pull(self, rows: Array) -> Array:
        if self.weights is not None:
            rows = rows * (self._weights if rows.dtype == np.float32 else self.weights)
        if self._runs is not None and len(self._ok) == self.n == len(self.index):
            return rows
        made = np.zeros((len(rows), self.n), rows.dtype)
        if self._runs is not None:
            made[:, self._runs[0]] = rows[:, self._runs[1]]
        elif self.copies == 1:
            made[:, self._from] = rows[:, self._ok]
        else:
            order, starts, entries = self._order
            made[:, entries] = np.add.reduceat(rows[:, order], starts, axis=1)
        return made

    def rows(self, which: Array, kind: Kind) -> Array:
        made, index = np.zeros((len(which), self.n), kind), self.index[which]
        ok = index >= 0
        made[np.flatnonzero(ok), index[ok]] = 1.0 if self.weights is None else self.weights[which[ok]]
        return made


@dataclass(frozen=True)
class Windows:
    """``y_i = Σ_k w_ik x_{index_ik}``: averages of windows; index (n_out, k), negative for none.

    For each k no two outputs pick one entry.
    """

    n: int
    index: Array
    weights: Array

    @property
    def terms(self) -> int:
        return 2 * self.index.shape[1] + 2

    @property
    def cost(self) -> int:
        return int(self.index.size)

    @property
    def work(self) -> int:
        return int(self.index.size) + self.n

    @cached_property
    def _each(self) -> list[tuple[Array, Array, Array]]:
        """For each k: the outputs that pick an entry, which, and its weight."""
        found = []
        for k in range(self.index.shape[1]):
            ok = np.flatnonzero(self.index[:, k] >= 0)
            found.append((ok, self.index[ok, k], self.weights[ok, k]))
        return found

    @cached_property
    def _apart(self) -> bool:
        """Whether no entry is picked twice."""
        picked = self.index[self.index >= 0]
        return len(np.unique(picked)) == len(picked)

    def push(self, x: Array) -> Array:
        return np.asarray((np.where(self.index >= 0, x[self.index], 0.0) * self.weights).sum(axis=1))

    def push_abs(self, x: Array) -> Array:
        return np.asarray((np.where(self.index >= 0, x[self.index], 0.0) * np.abs(self.weights)).sum(axis=1))

    def pull(self, rows: Array) -> Array:
        made = np.zeros((len(rows), self.n), rows.dtype)
        if self._apart and (self.index >= 0).all():
            made[:, self.index.ravel()] = (rows[:, :, None] * self.weights.astype(rows.dtype)).reshape(len(rows), -1)
            return made
        for ok, entries, weights in self._each:
            made[:, entries] += rows[:, ok] * weights.astype(rows.dtype)
        return made

    def rows(self, which: Array, kind: Kind) -> Array:
        return self.pull(unit_rows(which, len(self.index), kind))


def windows(
    size: tuple[int, ...], out: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...],
    dilations: tuple[int, ...], channels: int,
) -> Array:  # fmt: skip
    """Which entries each output of a pool reads, (channels · outputs, taps), negative for padding; ``pads`` in front."""
    rank = len(size)
    flat = np.zeros((*out, *kernel), np.int64)
    inside = np.ones((*out, *kernel), bool)
    for axis in range(rank):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = out[axis], kernel[axis]
        spot = strides[axis] * np.arange(out[axis])[:, None] - pads[axis] + dilations[axis] * np.arange(kernel[axis])
        spot = spot.reshape(shape)
        inside &= (spot >= 0) & (spot < size[axis])
        flat = flat * size[axis] + spot
    flat, inside = flat.reshape(math.prod(out), -1), inside.reshape(math.prod(out), -1)
    whole = np.arange(channels)[:, None, None] * math.prod(size) + flat
    return np.where(inside, whole, -1).reshape(channels * math.prod(out), -1)
