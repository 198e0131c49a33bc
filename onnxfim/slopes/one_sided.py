"""One-sided slopes at a sample that stands on a kink: an interval that holds what the function does on each side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record import streams
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.slopes.differences import Sample
from onnxfim.slopes.exact import GradientRoute

Array: TypeAlias = np.ndarray[Any, Any]

_MOVE = 1e-4  # of the spread: off the tie, and no further
_RANDOM = 4  # random sides that are looked at
_ASCENTS = 2  # from a best direction to that of the piece it leads into
_SLACK = 0.005  # relative: what a move of `_MOVE` changes on a smooth function
_MARGIN = 0.15  # of the interval's width, in logarithms and at most 1: few sides of many were looked at


@dataclass(frozen=True)
class Surroundings:
    """What the data tell of a sample's surroundings.

    Attributes:
        spread: Standard deviation of each coordinate, (*shape).
        centre: Middle of each coordinate's range, (*shape).
        seed: Seed of the random sides.
    """

    spread: Array
    centre: Array
    seed: int


def one_sided(
    route: GradientRoute, x: Array, base: Array, sample: Sample, own: SampleResult, surroundings: Surroundings
) -> SampleResult:
    """The result of a sample at a kink: its own value, and an interval that holds its one-sided slopes.

    Sides are random ones, towards the middle of the data's range and away from it, and the two along the best direction of each
    piece found, followed into the piece that it leads to. The interval of lambda_max holds the pieces' values and ``vᵀFv`` on the
    side of ±v for the best directions v. Where no side differs, the ties do not matter, and the result stays as it is.

    Args:
        route: Measures by gradients.
        x: The sample, (*shape).
        base: Its outputs, (K, 1).
        sample: Whose it is.
        own: What was measured at x itself.
        surroundings: How far and where to look.
    """
    sides = _SidesOfAKink(route, x, base, sample)
    rng = np.random.default_rng([surroundings.seed, sample.index, streams.KINKS])
    spread = np.broadcast_to(surroundings.spread, x.shape)
    inward = spread * np.where(surroundings.centre >= x, 1.0, -1.0)
    moves = [*(spread * rng.standard_normal((_RANDOM, *x.shape))), inward, -inward]
    reach = float(np.sqrt(np.square(spread).sum()))
    sides.look([_MOVE * m for m in moves])
    directions = [sides.best_direction(0), sides.best_direction(sides.largest())]
    others = [k for k in range(1, min(1 + _RANDOM, len(sides.results))) if k != sides.largest()]
    sides.look_along([sides.best_direction(k) for k in others], _MOVE * reach)
    for _ in range(_ASCENTS):
        first = len(sides.results)
        sides.look([sign * _MOVE * reach * v for v in directions for sign in (1.0, -1.0)])
        sides.look_along(directions, _MOVE * reach)
        directions = [sides.best_direction(sides.largest(first))]
    return sides.joined(own)


class _SidesOfAKink:
    """What was found on the sides of one sample so far; the first is the sample itself."""

    def __init__(self, route: GradientRoute, x: Array, base: Array, sample: Sample) -> None:
        self.route, self.x, self.base, self.sample = route, x, base, sample
        self.points: list[Array] = []
        self.results: list[SampleResult] = []
        self.along: list[tuple[float, float | None]] = []  # vᵀFv, raw and calibrated
        self.look([np.zeros(x.shape)])

    def _block(self, points: Sequence[Array]) -> tuple[Array, Array, list[Sample]]:
        X = np.stack([(self.x + p).astype(self.x.dtype) for p in points])
        samples = [replace(self.sample, position=i) for i in range(len(X))]
        return X, np.repeat(self.base[None], len(X), axis=0), samples

    def look(self, moves: Sequence[Array]) -> None:
        """Measure at moved points."""
        X, base, samples = self._block(moves)
        route = self.route.apart(self.sample.position)
        for move, (_, result) in zip(moves, route.measure(X, base, samples), strict=True):
            if not self.points or math.isfinite(result.lambda_max.value or 0.0):  # the runtime may fail beside the sample
                self.points.append(move)
                self.results.append(result)

    def look_along(self, directions: Sequence[Array], reach: float) -> None:
        """``vᵀFv`` on the side of v and of -v for each direction."""
        X, _, _ = self._block([sign * reach * v for v in directions for sign in (1.0, -1.0)])
        V = np.repeat(np.stack(directions), 2, axis=0)  # (2 directions, *shape)
        of = np.full(len(X), self.sample.position)
        w = self.route.model.jvp(X, V[None], of)[1][0].astype(np.float64)  # (rows, K)
        reader, temperature = self.route.measurer.reader, self.route.measurer.temperature
        zeros = np.zeros((1, w.shape[1], 1))
        for row in w[np.isfinite(w).all(axis=1)]:
            energies = [
                float(np.square(reader.scores(self.base, row[None, :, None], zeros, 1.0, t)).sum())
                for t in (1.0, temperature)
                if t is not None
            ]
            self.along.append((energies[0], energies[1] if temperature is not None else None))

    def largest(self, start: int = 0) -> int:
        """Which side has the largest value, from ``start`` on."""
        first = min(start, len(self.results) - 1)
        return max(range(first, len(self.results)), key=lambda k: self.results[k].lambda_max.value or 0.0)

    def best_direction(self, k: int) -> Array:
        """Unit worst direction of a side's piece, (*shape)."""
        X, base, samples = self._block([self.points[k]])
        route = self.route.apart(self.sample.position)
        return np.asarray(route.worst_directions(X, base, samples)[0].reshape(self.x.shape))

    def joined(self, own: SampleResult) -> SampleResult:
        """The sample's own result, with intervals over all sides."""
        lam = self._interval(own, "lambda_max", [a for a, _ in self.along])
        if lam is None or lam.kind != "kinked":
            return own
        found: dict[str, Any] = {"lambda_max": lam}
        for f in fields(own):
            value = getattr(own, f.name)
            if f.name != "lambda_max" and isinstance(value, Estimate) and value.value is not None:
                extra = [c for _, c in self.along if c is not None] if f.name == "lambda_max_calibrated" else []
                found[f.name] = self._interval(own, f.name, extra) or value
        return replace(own, **found)

    def _interval(self, own: SampleResult, name: str, extra: Sequence[float]) -> Estimate | None:
        """One measure over all sides; the own estimate where they agree, None where the sample has none."""
        mine: Estimate = getattr(own, name)
        if mine.value is None:
            return None
        others = [getattr(r, name) for r in self.results]
        ends = [v for e in (mine, *others) for v in (e.low, e.value, e.high) if v is not None]
        ends += extra
        low, high = min(ends), max(ends)
        same = low >= mine.value / (1 + 2 * _SLACK) and high <= mine.value * (1 + 2 * _SLACK)
        if same or high <= 0 or not math.isfinite(high):
            return mine
        # On a log scale where all ends are positive.
        margin = math.exp(_MARGIN * min(math.log(high / low), 1.0)) if low > 0 else math.exp(_MARGIN)
        margin *= 1 + _SLACK
        return replace(
            mine, low=max(low, 0.0) / margin, high=high * margin, kind="kinked", method=f"{mine.method}; one-sided slopes"
        )
