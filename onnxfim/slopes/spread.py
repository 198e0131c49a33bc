"""How far the inputs spread, feature by feature: the unit of steps where features differ in scale, and of standardised values."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.data.lazy_rows import lazy, rows_in_blocks
from onnxfim.record.special import gammaincinv

Array: TypeAlias = np.ndarray[Any, Any]

#: Largest over smallest scale of features up to which one step serves all of them.
EVEN = 10.0
_CHANNELS = 4  # at most, of an axis of channels
_CHANCE = 1e-3  # that a scale comes out so much too small
_DENSE = 0.1  # share of its values that differ from a feature's most usual one, from which on they tell its scale
_VALUES = 2**18  # looked at in one piece
_USUAL = 0.95  # share of the deviations that count in full: single far values are no scale


@dataclass(frozen=True)
class Spread:
    """The inputs' own scales over the audited samples.

    Attributes:
        pooled: Standard deviation over all coordinates together, 1 where nothing varies.
        deviation: Standard deviations, S, broadcastable to a sample: of each coordinate of a vector, of each channel of an image,
            of each feature where features differ in scale, else one for all. Zero where the data do not vary.
        steps: By how much each coordinate is moved for a step of 1, broadcastable to a sample and nowhere zero; None where features
            are even in scale, so that one step serves all.
        features: Axis of the sample along which the features lie, or None where they are not told apart.
        guessed: Of which coordinates, or features, the scale is a guess, because they vary rarely or never, broadcastable to a
            sample; None where none is told apart.
    """

    pooled: float
    deviation: Array
    steps: Array | None
    features: int | None
    guessed: Array | None = None

    @property
    def field(self) -> Array | None:
        """`steps` in units of the pooled deviation: what an amplitude of the ladder is multiplied by; None where even."""
        return None if self.steps is None else self.steps / self.pooled

    @property
    def random(self) -> Array | None:
        """What random directions of standardised inputs are multiplied by, in units of the pooled deviation; None where even.

        Coordinates that do not vary stay where they are, unless none varies.
        """
        if self.steps is None:
            return None
        return (self.deviation if self.deviation.any() else self.steps) / self.pooled

    def groups(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Groups of coordinates of like scale: the group of each, (d,), and one length for each group, (G,).

        Lengths within a group are within a factor of `EVEN`; one that is the middle of them serves all.
        """
        assert self.steps is not None
        logs = np.log10(self.steps.ravel())
        order, group, found = np.argsort(logs), np.zeros(logs.size, np.int64), -1
        first = -np.inf
        for k in order:
            if logs[k] > first + math.log10(EVEN):
                first, found = logs[k], found + 1
            group[k] = found
        lengths = np.array([10.0 ** np.median(logs[group == g]) for g in range(found + 1)])
        return np.broadcast_to(group.reshape(self.steps.shape), shape).ravel(), lengths

    def features_of(self, shape: tuple[int, ...]) -> Array | None:
        """The feature that each coordinate of a sample belongs to, (d,), where features differ in scale; else None."""
        if self.steps is None:
            return None
        return np.broadcast_to(np.arange(self.steps.size).reshape(self.steps.shape), shape).ravel()

    @property
    def identity(self) -> str:
        """The scales for the cache: values in other standard deviations, and outputs at steps of other scales, are not the same."""
        steps = b"" if self.steps is None else self.steps.tobytes()
        return hashlib.sha256(steps + self.deviation.tobytes()).hexdigest()[:16]


def pooled_deviation(X: Array, positions: Iterable[int]) -> float:
    """Standard deviation over the samples at ``positions``, in float64, a sample at a time: the data is not copied."""
    at, known = np.fromiter(positions, np.int64), {} if (rows := lazy(X)) is None else rows.figures
    if (key := at.tobytes()) in known:
        return known[key]
    mean = float(np.mean([x.mean(dtype=np.float64) for rows in rows_in_blocks(X, at) for x in rows]))
    squares = [np.square(x.astype(np.float64) - mean).mean() for rows in rows_in_blocks(X, at) for x in rows]
    known[key] = math.sqrt(float(np.mean(squares)))
    return known[key]


def deviation_of_all(X: Array) -> float:
    """Standard deviation of all values of X (N, *shape), in float64; of rows that are read at need by blocks."""
    if lazy(X) is None:
        return float(X.std(dtype=np.float64))
    mean = sum(float(rows.sum(dtype=np.float64)) for rows in rows_in_blocks(X)) / X.size
    return math.sqrt(sum(float(np.square(rows - np.float64(mean)).sum()) for rows in rows_in_blocks(X)) / X.size)


def root_mean_square(X: Array, positions: Sequence[int] | Array) -> Array:
    """Root mean square of each coordinate over the samples at ``positions``, (*shape), float64."""
    total = np.zeros(X.shape[1:])
    for rows in rows_in_blocks(X, positions):
        for x in rows:  # one after another, as NumPy sums along a first axis: the blocks do not matter
            total += x.astype(np.float64) ** 2
    return np.asarray(np.sqrt(total / len(positions)))


def largest_magnitude(X: Array, positions: Sequence[int] | Array) -> Array:
    """Largest magnitude of each coordinate over the samples at ``positions``, (*shape), float64."""
    found = np.zeros(X.shape[1:])
    for rows in rows_in_blocks(X, positions):
        np.maximum(found, np.abs(rows).max(axis=0), out=found)
    return found


def spread_of(X: Array, positions: Sequence[int] | Array, *, apart: bool = False) -> Spread:
    """The spread of the samples at ``positions``.

    Features are told apart along the axis of a vector, or along the first or last axis of other samples where their scales differ
    there by more than `EVEN`. Whether they do is judged on values that differ from the feature's median, so that pixels which are
    rarely other than background count as what they are: even.

    Args:
        X: Inputs, (N, *shape).
        positions: The audited samples.
        apart: Features are told apart whatever their scales: they are of inputs that have nothing in common.
    """
    shape = X.shape[1:]
    varying = pooled_deviation(X, positions)
    pooled = varying if varying > 0 else 1.0
    long = [k for k, n in enumerate(shape) if n > 1]
    axes = sorted({0, len(shape) - 1} & set(long)) if len(long) > 1 else long or [0]
    scales = {axis: _scales(X, positions, axis) for axis in axes}
    uneven = {axis: s for axis, s in scales.items() if apart or s.ratio > EVEN}
    if uneven:
        axis = max(uneven, key=lambda k: uneven[k].ratio)
        deviation = _along(_deviation(X, positions, axis), axis, shape)
        lengths, dense = (_along(values, axis, shape) for values in (scales[axis].lengths(), scales[axis].dense))
        return Spread(pooled, deviation, lengths, axis, ~dense)
    channels = axes if len(long) > 2 else long if len(long) == 1 else []
    told = next((k for k in channels if len(long) == 1 or shape[k] <= _CHANNELS), None)
    if told is None:
        return Spread(pooled, np.full((1,) * len(shape), varying), None, None)
    guessed = _along(~scales[told].dense, told, shape) if len(long) == 1 else None
    return Spread(pooled, _along(_deviation(X, positions, told), told, shape), None, told, guessed)


@dataclass(frozen=True)
class _Scales:
    """Scales of the features along one axis, (n,) each.

    Attributes:
        bulk: Root-mean-square deviation from the median, the farthest drawn in; zero for a feature that is rarely other than that.
        apart: Root-mean-square deviation of the values that differ from the median.
        count: How many those are.
        dense: Whether they are enough to tell a scale.
        size: Largest magnitude of the values.
    """

    bulk: Array
    apart: Array
    count: Array
    dense: Array
    size: Array

    @property
    def ratio(self) -> float:
        """Largest scale of all features over the smallest of those that can be told; 1 where there are none.

        Of few values a small scale may be chance: it counts as the largest that is likely.
        """
        if not self.dense.any():  # one sample: the values themselves are all there is
            sizes = self.size[self.size > 0]
            return float(sizes.max() / sizes.min()) * math.sqrt(2 * gammaincinv(0.5, _CHANCE)) if len(sizes) else 1.0
        free = np.maximum(self.count[self.dense] - 1, 1)
        chance = np.sqrt(2 * gammaincinv(free / 2, _CHANCE) / free)  # of a chi-squared variable
        return float(self.bulk.max() / (self.apart[self.dense] / chance).min())

    def lengths(self) -> Array:
        """A scale for every feature: its own spread, else its own magnitude, else the middle one of the others."""
        own = np.where(self.bulk > 0, self.bulk, np.where(self.apart > 0, self.apart, self.size))
        known = own[(own > 0) & np.isfinite(own)]
        middle = float(np.exp(np.median(np.log(known)))) if len(known) else 1.0
        return np.where((own > 0) & np.isfinite(own), own, middle)


def _scales(X: Array, positions: Sequence[int] | Array, axis: int) -> _Scales:
    """Scales of the features along an axis of the samples, in float64, some samples at a time: the data is not copied whole."""
    positions = np.asarray(positions)
    some = positions[:: max(1, -(-len(positions) * math.prod(X.shape[1:]) // _VALUES))]  # robust figures need no more
    values = _values(X, some, axis)
    away = np.abs(values - np.median(values, axis=0))
    count = (away > 0).sum(axis=0)
    usual = np.quantile(away, _USUAL, axis=0)
    drawn_in = np.minimum(away, np.where(usual > 0, usual, np.inf))
    apart = np.sqrt((drawn_in**2).sum(axis=0) / np.maximum(count, 1))
    bulk = np.where(usual > 0, np.sqrt((drawn_in**2).mean(axis=0)), 0.0)
    dense = (count >= _DENSE * len(values)) & (bulk > 0)
    return _Scales(bulk, apart, count, dense, np.abs(values).max(axis=0))


def _values(X: Array, positions: Array, axis: int) -> Array:
    """Values by feature, (values, features) float64."""
    return np.moveaxis(X[positions], axis + 1, -1).reshape(-1, X.shape[axis + 1]).astype(np.float64)


def _deviation(X: Array, positions: Sequence[int] | Array, axis: int) -> Array:
    """Standard deviation of each feature over the samples; exactly zero where all values are equal."""
    positions = np.asarray(positions)
    one = math.prod(X.shape[1:])
    few = max(1, _VALUES // one)
    blocks = [positions[i : i + few] for i in range(0, len(positions), few)]
    count = len(positions) * one // X.shape[axis + 1]
    first = _values(X, positions[:1], axis)[0]
    total, square, varies = np.zeros(len(first)), np.zeros(len(first)), np.zeros(len(first), bool)
    for values in (_values(X, b, axis) for b in blocks):
        total += values.sum(axis=0)
        varies |= (values != first).any(axis=0)
    mean = total / count
    for values in (_values(X, b, axis) for b in blocks):
        square += ((values - mean) ** 2).sum(axis=0)
    return np.where(varies, np.sqrt(square / count), 0.0)


def _along(values: Array, axis: int, shape: tuple[int, ...]) -> Array:
    return values.reshape([-1 if k == axis else 1 for k in range(len(shape))])
