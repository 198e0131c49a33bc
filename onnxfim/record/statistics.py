"""Statistics over the samples with their intervals: means, quantiles, shares, rank correlations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from scipy.special import betaincinv
from scipy.stats import binom, rankdata, t

from onnxfim.record import streams
from onnxfim.record.decision import Aggregate, Aggregates

Array: TypeAlias = np.ndarray[Any, Any]

#: Half-width of a normal 95 % interval, in standard deviations.
Z95 = 1.96
_TAIL = 0.025  # of a 95 % interval, on either side
_REPLICATES = 2000


def aggregate(values: Array, lows: Array, highs: Array, *, seed: int, units: str) -> Aggregates:
    """Mean, median, 95th percentile and maximum of a positive measure over the samples.

    Args:
        values: Estimates per sample, (n,).
        lows, highs: Their 95 % intervals, (n,) each; equal to the values where these are exact.
        seed: Seed of the resampling.
        units: Units of the values.

    Returns:
        The four statistics. The mean's interval is a bootstrap-t one over the samples: the spread of noisy estimates holds both
        sources of error. Quantiles use order statistics (no assumption on the distribution) after the bias that noise adds to
        the tails is taken out by simulation extrapolation. The maximum is that of the audited samples.

    Source: Hall (1988), Ann. Statist. 16(3), for bootstrap-t; Cook & Stefanski (1994), JASA 89, for simulation extrapolation.
    """
    rng = np.random.default_rng([seed, streams.AGGREGATES])
    noise = log_sd(values, lows, highs)
    if len(values) == 0:
        empty = Aggregate(None, None, None, 0.0, "no sample has a value")
        return Aggregates(empty, empty, empty, empty, 0, units)
    replicates = values * np.exp(noise * rng.standard_normal((200, len(values))) - noise**2 / 2)  # (200, n)
    return Aggregates(
        mean=_mean(values, lows, highs, rng),
        median=_quantile(0.5, values, lows, highs, replicates),
        p95=_quantile(0.95, values, lows, highs, replicates),
        max=_maximum(values, lows, highs, replicates),
        count=len(values),
        units=units,
    )


def log_sd(values: Array, lows: Array, highs: Array) -> Array:
    """Standard deviation of each estimate on the log scale, from its 95 % interval's upper half; 0 for exact values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.log(highs / values) / Z95
    return np.where(np.isfinite(sd), np.clip(sd, 0.0, 2.0), 0.0)


def _mean(values: Array, lows: Array, highs: Array, rng: np.random.Generator) -> Aggregate:
    n = len(values)
    mean = float(values.mean())
    if n < 2:
        return Aggregate(mean, float(lows[0]), float(highs[0]), 0.0, "one sample: interval of its estimate alone")
    scale = float(np.abs(values).max()) or 1.0
    x = values / scale
    error = x.std(ddof=1) / math.sqrt(n)
    if error == 0:
        return Aggregate(mean, mean, mean, 0.95, "all samples are equal")
    ratios = []
    for start in range(0, _REPLICATES, 200):  # in pieces: 200 x n numbers at a time
        draws = x[rng.integers(0, n, (min(200, _REPLICATES - start), n))]
        spread = draws.std(axis=1, ddof=1) / math.sqrt(n)
        good = spread > 1e-3 * error  # a resample without spread says nothing of the spread
        ratios.append((draws.mean(axis=1)[good] - x.mean()) / spread[good])
    lower, upper = np.quantile(np.concatenate(ratios), [0.025, 0.975])
    # Never narrower than Student's interval on the heavy side; on the other a mean of positive values stays positive.
    half = float(t.ppf(0.975, n - 1))
    high = (x.mean() - min(lower, -half) * error) * scale
    # Where one sample carries the mean, resamples without it have almost no spread and the upper end runs away: it is held to
    # twice the log-normal interval's width.
    high = min(high, mean * math.exp(2 * half * error / x.mean()))
    low = mean * math.exp(-max(upper, half / 2) * error / x.mean())
    return Aggregate(mean, float(low), float(high), 0.95, "bootstrap-t over the samples")


def _quantile(q: float, values: Array, lows: Array, highs: Array, replicates: Array) -> Aggregate:
    """A quantile, the noise's bias taken out, and its interval by order statistics."""
    n = len(values)
    raw = float(np.quantile(values, q))
    bias = float(np.quantile(replicates, q, axis=1).mean()) - raw
    order = np.sort(values)
    below, above = bracketing(n, q)
    low = float(lows.min()) if below is None else float(order[below])
    high = float(highs.max()) if above is None else float(order[above])
    confidence = float(binom.cdf(n - 1 if above is None else above, n, q) - (0.0 if below is None else binom.cdf(below, n, q)))
    value = max(raw - bias, 0.0) if raw > 0 else raw
    low, high = max(min(low - max(bias, 0.0), value), 0.0), max(high - min(bias, 0.0), value)
    return Aggregate(value, low, high, min(confidence, 0.95), "order statistics, noise's bias taken out")


def _maximum(values: Array, lows: Array, highs: Array, replicates: Array) -> Aggregate:
    """The maximum of the audited samples; noise inflates it, and each contender's interval is widened for their number."""
    raw = float(values.max())
    bias = float(replicates.max(axis=1).mean()) - raw
    contenders = highs >= lows.max()
    widen = float(t.ppf(1 - 0.025 / max(int(contenders.sum()), 1), 19) / t.ppf(0.975, 19))
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(values > 0, values * (highs / values) ** widen, highs)
        floor = np.where(values > 0, values * (lows / values) ** widen, lows)
    low, high = float(floor[contenders].max()), float(reach[contenders].max())
    value = min(max(raw - max(bias, 0.0), low), high)
    return Aggregate(value, low, high, 0.95, "of the audited samples; the interval holds the estimates' noise only")


def bracketing(n: int, q: float) -> tuple[int | None, int | None]:
    """Order statistics of n samples, counted from 0, between which the quantile q lies with 95 %.

    Returns:
        The lower and the upper one; None where n samples have none that low or that high.
    """
    below, above = int(binom.ppf(_TAIL, n, q)), int(binom.ppf(1 - _TAIL, n, q))
    return (below - 1 if below >= 1 else None), (above if above < n else None)


def fewest_bracketing(q: float) -> tuple[int, int]:
    """Samples from which on `bracketing` has a lower, and an upper, order statistic."""
    return math.ceil(math.log(_TAIL) / math.log(1 - q)), math.ceil(math.log(_TAIL) / math.log(q))


def wilson(count: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, ``count`` of n: close to its level on average (Wilson 1927, JASA 22)."""
    share = count / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def clopper_pearson(count: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, ``count`` of n: never below its level (Clopper & Pearson 1934, Biometrika 26)."""
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, _TAIL))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - _TAIL))
    return low, high


def binomial_at_least(count: int, n: int, p: float) -> float:
    """Probability of ``count`` or more out of ``n`` where each has the probability ``p``."""
    return float(binom.sf(count - 1, n, p))


def spearman(x: Array, y: Array) -> float | None:
    """Spearman's rank correlation of x and y, (n,) each; None where one of them is constant."""
    r, s = _standard_ranks(x), _standard_ranks(y)
    return None if r is None or s is None else float(np.clip((r * s).mean(), -1.0, 1.0))


def spearman_of_resamples(x: Array, y: Array, resamples: Iterable[Array]) -> Array:
    """The bootstrap of `spearman`: of each resample's own ranks.

    Args:
        x, y: Values, (n,) each.
        resamples: Positions drawn with replacement, (n,) each.

    Returns:
        One correlation for each resample in which neither is constant.
    """
    return np.array([rho for i in resamples if (rho := spearman(x[i], y[i])) is not None])


def spearman_of_weights(x: Array, y: Array, counts: Array) -> Array:
    """The bootstrap of `spearman` that keeps the ranks of the whole sample: many times faster, and alike but for ties.

    Args:
        x, y: Values, (n,) each; neither is constant.
        counts: How often each resample holds each sample, (replicates, n) float32.

    Returns:
        One correlation for each resample in which neither is constant.
    """
    r, s = _standard_ranks(x), _standard_ranks(y)
    assert r is not None, "x is constant"
    assert s is not None, "y is constant"
    # In float32 throughout: four digits of an interval's end are enough, and ten thousand sums a table are many.
    sums = counts @ np.stack([r, s, r * r, s * s, r * s], axis=1).astype(np.float32)  # (replicates, 5)
    mr, ms, rr, ss, rs = (sums / len(r)).T
    spread = (rr - mr**2) * (ss - ms**2)
    good = spread > 1e-12
    return np.asarray((rs - mr * ms)[good] / np.sqrt(spread[good]))


def percentiles(draws: Array) -> tuple[float, float] | None:
    """The 95 % percentile interval of bootstrap draws; None without draws."""
    if len(draws) == 0:
        return None
    low, high = np.quantile(draws, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def _standard_ranks(values: Array) -> Array | None:
    ranks = rankdata(values)
    spread = float(ranks.std())
    return (ranks - ranks.mean()) / spread if spread > 0 else None
