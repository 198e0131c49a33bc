"""Statistics over the samples, with intervals that hold both the sampling of the data and the noise of the estimates."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import binom, t

from onnxfim.record.decision import Aggregate, Aggregates

Array: TypeAlias = np.ndarray[Any, Any]

_REPLICATES = 2000
_Z = 1.96
# The stream of the resampling, apart from those of the directions.
_STREAM = 0x61676772


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
    rng = np.random.default_rng([seed, _STREAM])
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
        sd = np.log(highs / values) / _Z
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
    below = int(binom.ppf(0.025, n, q))  # order statistics below - 1 and above (from 0) bracket the quantile
    above = int(binom.ppf(0.975, n, q))
    low = float(order[below - 1]) if below >= 1 else float(lows.min())
    high = float(order[above]) if above < n else float(highs.max())
    confidence = float(binom.cdf(min(above, n - 1), n, q) - (binom.cdf(below - 1, n, q) if below >= 1 else 0.0))
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
