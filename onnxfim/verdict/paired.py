"""Paired intervals of two models on the same samples: differences of shares, geometric means of ratios, means of distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.decision import Aggregate
from onnxfim.record.deployment import Reading
from onnxfim.record.special import stdtrit
from onnxfim.record.statistics import Z95, binomial_at_most
from onnxfim.verdict.signed_ranks import EQUAL, signed_ranks_of

Array: TypeAlias = np.ndarray[Any, Any]

_LEVEL = 0.975
_SKEWED = 3.0  # over n: by how much the squared width of Student's interval is raised, for logarithms that are skewed
_EDGE = 1e-12


def difference_of_shares(only_first: int, only_second: int, n: int) -> Aggregate:
    """The second share less the first, of the same n samples, with Tango's score interval.

    Args:
        only_first, only_second: Samples that are right in one of the two alone.
        n: All samples.

    Returns:
        The difference. The interval is that of the differences that the score test does not reject; it is honest where no sample
        differs (± z²/(n + z²)), where Wald's is a point.

    Source: Tango (1998), Statistics in Medicine 17(8), 891-908, equations 7 to 9.
    """
    value = (only_second - only_first) / n

    from scipy.optimize import brentq

    def score(delta: float) -> float:
        """The test statistic of that difference, with the nuisance parameter at its restricted maximum likelihood."""
        b = -only_second - only_first + (2 * n - only_second + only_first) * delta
        c = -only_first * delta * (1 - delta)
        nuisance = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * nuisance + delta * (1 - delta))
        return (only_second - only_first - n * delta) / math.sqrt(max(variance, 1e-300))

    low = -1.0 if score(-1 + _EDGE) < Z95 else float(brentq(lambda d: score(d) - Z95, -1 + _EDGE, value))
    high = 1.0 if score(1 - _EDGE) > -Z95 else float(brentq(lambda d: score(d) + Z95, value, 1 - _EDGE))
    return Aggregate(value, min(low, value), max(high, value), 0.95, "Tango's score interval of paired shares")


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of equal shares: the exact test of McNemar (1947), Psychometrika 12."""
    differ = only_first + only_second
    return 1.0 if differ == 0 else min(2 * binomial_at_most(min(only_first, only_second), differ, 0.5), 1.0)


def geometric_mean_of_ratios(
    logs: Array, *, noise: float = 0.0, temperature: float = 0.0, reach: tuple[float, float] = (0.0, 0.0)
) -> Aggregate:
    """The geometric mean of paired ratios over a population of samples.

    Student's interval of the log-ratios, wider by ``√(1 + 3/n)`` for their skewness; what the estimates' noise adds is in their
    spread, and the interval is never narrower than that noise alone makes it.

    Args:
        logs: Logarithms of the ratios, (n,).
        noise: Half-width that the noise of the estimates alone makes.
        temperature: Standard error that the samples share, from fitted temperatures; added in quadrature.
        reach: How far down and up the mean may be wrong in a way that does not average out, as of values without a slope.
    """
    n, centre = len(logs), float(logs.mean())
    if n < 2:
        return Aggregate(math.exp(centre), None, None, 0.0, "1 sample is too few: no population interval")
    spread = float(stdtrit(n - 1, _LEVEL)) * standard_error(logs)
    half = math.hypot(max(spread, noise), Z95 * temperature)
    low, high = centre - half - reach[0], centre + half + reach[1]
    return Aggregate(math.exp(centre), math.exp(low), math.exp(min(high, 700.0)), 0.95, "Student's interval of paired log-ratios")


def standard_error(values: Array) -> float:
    """Standard error of the mean of values (n,), n of 2 or more: wider by ``√(1 + 3/n)`` for their skewness."""
    n = len(values)
    return float(values.std(ddof=1)) / math.sqrt(n) * math.sqrt(1 + _SKEWED / n)


def mean_difference(values: Array) -> Aggregate:
    """The mean of paired differences (n,), with Student's interval over a population of samples."""
    n, centre = len(values), float(values.mean())
    if n < 2:
        return Aggregate(centre, None, None, 0.0, "1 sample is too few: no population interval")
    half = float(stdtrit(n - 1, _LEVEL)) * standard_error(values)
    return Aggregate(centre, centre - half, centre + half, 0.95, "Student's interval of paired differences")


def signed_ranks(logs: Array) -> float:
    """Two-sided p-value of log-ratios (n,) that are symmetric about 0: Wilcoxon's signed ranks; equal samples are left out."""
    return signed_ranks_of(logs[np.abs(logs) > EQUAL]).p


def reading(change: Aggregate, still: float) -> Reading:
    """What an interval says of a change, ``still`` being the value of none."""
    if change.value is None or change.low is None or change.high is None:
        return "not known"
    if change.low > still:
        return "rose"
    return "fell" if change.high < still else "no change shown"


def shared_error(one: Sequence[float] | Array, other: Sequence[float] | Array) -> float:
    """Standard error of the difference of two sums of influences; what the same samples do to both cancels."""
    a, b = np.asarray(one, float), np.asarray(other, float)
    return float(np.linalg.norm(a - b)) if a.shape == b.shape else math.hypot(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
