"""Bootstrap of two levels: models (all seeds of one configuration together) and, the same for all models, their samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .statistics import Array, mean, spearman
from .verdicts import Estimate

REPLICATES = 1000
CHUNK = 200  # replicates held at once


@dataclass(frozen=True)
class Quantity:
    """One number of each model, (M,), and what it is in each replicate, (R, M)."""

    value: Array
    draws: Array

    def __neg__(self) -> Quantity:
        return Quantity(-self.value, -self.draws)

    def map(self, function: Callable[[Array], Array]) -> Quantity:
        """The same function of both."""
        return Quantity(function(self.value), function(self.draws))


def interval(value: float, draws: Array) -> Estimate:
    """95 % interval of the replicates (percentiles)."""
    known = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(known) < max(len(draws) // 2, 1):
        return Estimate(float(value), None, None) if np.isfinite(value) else Estimate(None, None, None)
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


class Resampling:
    """Replicates of a set of M models of one data set that were audited and attacked on the same S samples.

    Args:
        clusters: Which configuration each model is of, M names. Models of one configuration are drawn together: they differ by
            their seed alone, and are no independent evidence on a correlation over models.
        samples: S.
        replicates: R.
        seed: Of the draws.
    """

    def __init__(self, clusters: Sequence[str], samples: int, *, replicates: int = REPLICATES, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, len(clusters), samples])
        self.rng = rng
        self.replicates = replicates
        self.samples = rng.integers(0, max(samples, 1), (replicates, max(samples, 1)))  # (R, S)
        names, index = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
        members = [np.flatnonzero(index == i) for i in range(len(names))]
        size = max((len(m) for m in members), default=1)
        table = np.full((len(names), size), -1)
        for row, group in zip(table, members, strict=True):
            row[: len(group)] = group
        picked = rng.integers(0, max(len(names), 1), (replicates, len(names)))
        self.models: NDArray[np.int64] = table[picked].reshape(replicates, -1)  # (R, L), -1 where a configuration has fewer seeds

    def quantity(self, values: Array, tell: Callable[[Array], Array]) -> Quantity:
        """A number of each model from its samples, values (M, S)."""
        draws = np.empty((self.replicates, len(values)))
        for start in range(0, self.replicates, CHUNK):
            rows = self.samples[start : start + CHUNK]
            draws[start : start + CHUNK] = tell(values[:, rows]).T  # (M, R, S) to (R, M)
        return Quantity(tell(values), draws)

    def fixed(self, values: Array) -> Quantity:
        """A number of each model that no sample is behind."""
        return Quantity(values, np.broadcast_to(values, (self.replicates, len(values))))

    def share(self, values: Array, count: int) -> Quantity:
        """A share of ``count`` samples that is known as a share alone: replicates are binomial."""
        known = np.clip(np.nan_to_num(values), 0, 1)
        drawn = self.rng.binomial(count, known, (self.replicates, len(values))) / count
        return Quantity(values, np.where(np.isfinite(values), drawn, np.nan))

    def drawn(self, x: Quantity) -> Array:
        """Replicates of the drawn models, (R, L), NaN where a configuration has fewer seeds."""
        picked = np.take_along_axis(x.draws, np.maximum(self.models, 0), axis=1)
        return np.where(self.models >= 0, picked, np.nan)

    def replicate(self, statistic: Callable[..., Array], *of: Quantity) -> tuple[float, Array]:
        """A statistic of the models, and its replicates (R,)."""
        return float(statistic(*(x.value for x in of))), statistic(*(self.drawn(x) for x in of))

    def estimate(self, statistic: Callable[..., Array], *of: Quantity) -> Estimate:
        """A statistic of the models with its interval."""
        return interval(*self.replicate(statistic, *of))

    def difference(self, a: tuple[Quantity, Quantity], b: tuple[Quantity, Quantity]) -> Estimate:
        """Of two rank correlations on the same replicates and the same models, the first less the second."""
        known = np.isfinite(np.array([q.value for q in (*a, *b)])).all(axis=0)  # (M,)

        def common(values: Array) -> Array:
            return np.where(known, values, np.nan)

        (first, first_draws), (second, second_draws) = (self.replicate(spearman, *(q.map(common) for q in pair)) for pair in (a, b))
        return interval(first - second, first_draws - second_draws)

    def within(self, a: Array, b: Array) -> Estimate:
        """Mean over models of the rank correlation over a model's samples, a and b (M, S)."""
        draws = np.empty((self.replicates, len(a)))
        for i, rows in enumerate(self.samples):
            draws[i] = spearman(a[:, rows], b[:, rows])
        each = Quantity(spearman(a, b), draws)
        return self.estimate(mean, each)

    def reliability(self, values: Array, tell: Callable[[Array], Array], *, splits: int = 200) -> float:
        """Rank correlation of a number told of one half of the samples and of the other, brought to the whole (Spearman-Brown)."""
        halves = []
        for _ in range(splits):
            order = self.rng.permutation(values.shape[1])
            middle = len(order) // 2
            halves.append(spearman(tell(values[:, order[:middle]]), tell(values[:, order[middle:]])))
        r = float(np.mean(halves))
        return 2 * r / (1 + r) if np.isfinite(r) and r > -1 else float("nan")

    def ordered(self, truth: Quantity, x: Quantity) -> tuple[int, int]:
        """How many pairs of models differ in truth beyond doubt (95 %, over samples), and how many of them x has in that order."""
        resolved = right = 0
        for i in range(len(truth.value)):
            gaps = truth.draws[:, i, None] - truth.draws[:, i + 1 :]
            if gaps.shape[1] == 0:
                continue
            known = np.isfinite(gaps).all(axis=0) & np.isfinite(x.value[i]) & np.isfinite(x.value[i + 1 :])
            low, high = np.quantile(np.where(known, gaps, 0.0), [0.025, 0.975], axis=0)
            sure = known & ((low > 0) | (high < 0))
            resolved += int(sure.sum())
            right += int((sure & (np.sign(x.value[i] - x.value[i + 1 :]) == np.sign(low + high))).sum())
        return resolved, right
