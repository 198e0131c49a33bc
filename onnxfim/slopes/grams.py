"""Gram matrices of Jacobians: all that measures over all coordinates need of them, from one pass over the coordinates.

Slopes are taken relative to one class before they are multiplied: what nearly equal slopes have in common would take half of the
digits of their difference in the Gram matrix of the slopes themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

_STRETCHES = 16  # of equal units, up to which coordinates are cut where units change
_WORK = 2**16  # numbers at a time: what a processor keeps near


@dataclass(frozen=True)
class Contest:
    """What decides the class of n samples.

    Attributes:
        values: The largest of which decides, (n, C).
        sums: Weights of the logits whose sums they are, (C, K); None where they are the logits themselves.
    """

    values: Array
    sums: Array | None = None

    @property
    def top(self) -> Array:
        """Which one decides, (n,)."""
        return np.asarray(self.values.argmax(axis=1))


@dataclass(frozen=True)
class Grams:
    """Products of the slopes of n samples' logits over all coordinates.

    Attributes:
        whole: ``J Jᵀ``, (n, K, K).
        slopes: What the scores are made of: the same, or ``E Eᵀ`` with ``E_j = J_j − J_c``, whose row and column c are zero.
        in_units: The same of slopes in other units, ``J S² Jᵀ`` or ``E S² Eᵀ``, for each S that was given.
        squares: ``‖J_j − J_c‖²`` of what decides the class, (n, C).
        movable: The same without the coordinates that cannot move further that way.
    """

    whole: Array
    slopes: Array
    in_units: tuple[Array, ...]
    squares: Array
    movable: Array


def grams(
    J: Array, contest: Contest, *, centre: bool, units: Sequence[Array] = (), limits: tuple[Array, Array] | None = None
) -> Grams:
    """Gram matrices of Jacobians J (n, K, d) in float64, whatever their own precision.

    Every sample's are the same in whatever company it is.

    Args:
        J: Slopes of the logits; their squares are numbers of float64.
        contest: Relative to what slopes and distances are taken: the class that is decided for.
        centre: The scores are made of slopes relative to that class (else of the slopes themselves).
        units: Units of the coordinates, (d,) each, for ``in_units``.
        limits: Whether each coordinate can move up, and down, (n, d) each; None where all can.
    """
    n, K, d = J.shape
    C = contest.values.shape[1]
    top = contest.top
    products, *scaled = (np.zeros((n, K, K)) for _ in range(1 + len(units)))
    squares, movable = np.zeros((n, C)), np.zeros((n, C))
    for rows, part in _pieces(n, K, d, units):
        X = J[rows, :, part].astype(np.float64)
        at, c = np.arange(len(X)), top[rows]
        if not centre:
            products[rows] += (own := _gram(X))
            for field, G in zip(units, scaled, strict=True):
                G[rows] += _in_units(X, own, field[part])
        E = X if contest.sums is None else np.matmul(contest.sums, X)
        chosen = E[at, c]  # (rows, w)
        E -= chosen[:, None]
        if limits is not None:
            movable[rows] += _movable(E, limits[0][rows, part], limits[1][rows, part])
        if centre:
            E[at, c] = chosen
            products[rows] += (own := _gram(E))
            for field, G in zip(units, scaled, strict=True):
                G[rows] += _in_units(E, own, field[part])
        else:
            squares[rows] += np.einsum("ncw,ncw->nc", E, E)
    at = np.arange(n)
    if centre:
        squares = np.einsum("nkk->nk", products).copy()
        squares[at, top] = 0.0
    movable = squares if limits is None else movable
    if not centre:
        return Grams(products, products, tuple(scaled), squares, movable)
    T = np.repeat(np.eye(K)[None], n, axis=0)
    T[at, :, top] = 1.0  # J_j = E_j + J_c
    whole = T @ products @ T.transpose(0, 2, 1)
    for G in (products, *scaled):
        G[at, top] = 0.0
        G[at, :, top] = 0.0
    return Grams(whole, products, tuple(scaled), squares, movable)


def _pieces(n: int, K: int, d: int, units: Sequence[Array]) -> Iterator[tuple[slice, slice]]:
    """Stretches of the samples and of their coordinates that are worked on together.

    The coordinates are cut alike whatever n is, so that their sums are too; and where a unit changes, if it seldom does.
    """
    changes = sorted({int(k) + 1 for field in units for k in np.flatnonzero(np.diff(field))})
    ends = [0, *(changes if len(changes) < _STRETCHES else []), d]
    width = max(1, _WORK // K)
    cuts = [slice(k, min(k + width, b)) for a, b in pairwise(ends) for k in range(a, b, width)]
    count = max(1, _WORK // (K * max(c.stop - c.start for c in cuts)))
    for first in range(0, n, count):
        for part in cuts:
            yield slice(first, first + count), part


def _gram(X: Array) -> Array:
    return np.asarray(X @ X.transpose(0, 2, 1))


def _in_units(X: Array, own: Array, field: Array) -> Array:
    """Gram matrices of slopes X (n, K, w) in units (w,) of the coordinates; ``own`` are those of X."""
    even = field.min() == field.max()
    return np.asarray(own * float(field[0]) ** 2 if even else _gram(X * field))


def _movable(E: Array, up: Array, down: Array) -> Array:
    """Squared lengths of slopes E (n, C, w), (n, C), without those along coordinates that cannot move further that way."""
    if not (up.all() and down.all()):
        E = np.minimum(E, np.where(up, np.inf, 0.0)[:, None])
        np.maximum(E, np.where(down, -np.inf, 0.0)[:, None], out=E)
    return np.asarray(np.einsum("ncw,ncw->nc", E, E))
