"""Wilcoxon's signed ranks of paired log-ratios of which some are only known to be larger than all others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.decision import Aggregate
from onnxfim.record.special import ndtr, ndtri
from onnxfim.record.statistics import ranks

Array: TypeAlias = np.ndarray[Any, Any]

#: Logarithms that differ by less are the same.
EQUAL = 1e-9
_EXACT = 100  # samples up to which the distribution is counted out
_HALVINGS = 60  # of a range of logarithms: to the last digits
_BEYOND = 1e3  # the logarithm that stands for a ratio which is only known to be larger than all others
_METHOD = "Hodges–Lehmann, by signed ranks"


@dataclass(frozen=True)
class SignedRanks:
    """Paired log-ratios on trial.

    Attributes:
        p: Two-sided p-value of log-ratios that are symmetric about 0.
        log: Their pseudomedian: the median of the means of any two; ±inf where most are beyond what was measured.
        low, high: Its 95 % interval; an infinite end is not bounded.
        count: How many log-ratios there are.
    """

    p: float
    log: float
    low: float
    high: float
    count: int

    def interval(self) -> Aggregate:
        """The pseudomedian as a ratio; None stands for what is not bounded."""
        if self.count == 0:
            return Aggregate(None, None, None, 0.0, "no sample has a value in both")
        if not math.isfinite(self.log):
            return Aggregate(None, _exp(self.low), _exp(self.high), 0.95, _METHOD)
        return Aggregate(math.exp(self.log), _exp(self.low), _exp(self.high), 0.95, _METHOD)


def signed_ranks_of(logs: Array, *, reach: float = 0.0) -> SignedRanks:
    """The test and the interval of paired log-ratios.

    Samples with equal values keep their ranks and count for neither side (Pratt). An infinite log-ratio, of a sample that one of
    the two was seen to change on and the other was not, has the largest rank whatever its size would be. Up to 100 samples the
    distribution is exact, ties included; above, it is the normal one with the ties' variance and a correction for continuity.

    Args:
        logs: Log-ratios, (n,); infinite ones are larger than all others.
        reach: By how much all log-ratios together may be wrong, either way; the p-value is the largest within it and the interval
            is wider by it.

    Source: Wilcoxon (1945), Biometrics Bulletin 1(6), 80-83; Pratt (1959), JASA 54, 655-667; Hodges & Lehmann (1963), Annals of
    Mathematical Statistics 34(2), 598-611.
    """
    d = np.clip(np.asarray(logs, np.float64), -_BEYOND, _BEYOND)
    if len(d) == 0:
        return SignedRanks(1.0, 0.0, 0.0, 0.0, 0)
    above, below = _one_sided(d - reach), _one_sided(-d - reach)
    low, centre, high = _pseudomedian(d)
    return SignedRanks(min(1.0, 2 * min(above, below)), _open(centre), _open(low - reach), _open(high + reach), len(d))


def _one_sided(d: Array) -> float:
    """Probability of a sum of positive ranks as large as this one, where all signs are as likely."""
    moved = np.abs(d) > EQUAL
    weights = ranks(np.where(moved, np.abs(d), 0.0))[moved]
    signs = d[moved] > 0
    if len(weights) == 0:
        return 1.0
    if len(weights) <= _EXACT:
        doubled = np.round(2 * weights).astype(int)  # ranks of ties are halves
        return float(min(_distribution(doubled)[int(doubled[signs].sum()) :].sum(), 1.0))
    observed, expected = weights[signs].sum(), weights.sum() / 2
    return float(ndtr(-(observed - expected - 0.5) / math.sqrt(float((weights**2).sum()) / 4)))


def _distribution(weights: Array) -> Array:
    """Probabilities of the sums of a subset, each weight being in it with probability one half, (Σ weights + 1,)."""
    found = np.zeros(int(weights.sum()) + 1)
    found[0] = 1.0
    for w in weights.tolist():
        moved = np.zeros_like(found)
        moved[w:] = found[: len(found) - w]
        found = (found + moved) / 2
    return found


def _pseudomedian(d: Array) -> tuple[float, float, float]:
    """The median of all means of two, and the two of them between which it lies with 95 %."""
    outside = _left_out(len(d))
    at = _mean_of_two(d)
    last = len(d) * (len(d) + 1) // 2 - 1
    centre = (at(last // 2) + at((last + 1) // 2)) / 2
    if outside < 0:  # too few samples for 95 %
        return -math.inf, centre, math.inf
    return at(outside), centre, at(last - outside)


def _mean_of_two(d: Array) -> Callable[[int], float]:
    """The k-th of the ordered means of two, k from 0 on; of many samples found by halving, without making all of them."""
    d = np.sort(d)
    if len(d) <= _EXACT:
        rows, columns = np.triu_indices(len(d))
        means = np.sort((d[rows] + d[columns]) / 2)
        return lambda k: float(means[k])

    def at(k: int) -> float:
        low, high = float(d[0]), float(d[-1])
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            pairs = int(np.searchsorted(d, 2 * middle - d, side="right").sum())  # ordered ones, and each with itself
            found = (pairs + int(np.searchsorted(d, middle, side="right"))) // 2
            low, high = (low, middle) if found > k else (middle, high)
        return high

    return at


@lru_cache(maxsize=64)
def _left_out(n: int) -> int:
    """How many of the ordered means lie outside at either end; below 0 where none may."""
    total = n * (n + 1) // 2
    if n <= _EXACT:
        at_most = np.cumsum(_distribution(np.arange(1, n + 1)))
        return int(np.searchsorted(at_most, 0.025 + 1e-12, side="right")) - 1
    return math.floor(total / 2 - 0.5 + float(ndtri(0.025)) * math.sqrt(n * (n + 1) * (2 * n + 1) / 24))


def _open(log: float) -> float:
    """A logarithm that stands for more than was measured is infinite; half of one too, the mean of it and a measured one."""
    return math.copysign(math.inf, log) if abs(log) >= _BEYOND / 4 else log


def _exp(log: float) -> float | None:
    return math.exp(log) if math.isfinite(log) and log < 700 else 0.0 if log < 0 else None
