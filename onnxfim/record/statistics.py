"""Statistics over the samples with their intervals: means, quantiles, shares, rank correlations."""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record import streams
from onnxfim.record.decision import Aggregate, Aggregates
from onnxfim.record.sample import Kind, temperature_reach
from onnxfim.record.special import betainc, betaincinv, stdtrit

Array: TypeAlias = np.ndarray[Any, Any]

#: Half-width of a normal 95 % interval, in standard deviations.
Z95 = 1.96
_TAIL = 0.025  # of a 95 % interval, on either side
_REPLICATES = 200
_AT_ONCE = 2**20  # numbers of the replicates that are held at a time
_TINY = 1e-300
_LEAST_CARRIERS = 3.0  # samples that must carry a mean with an interval
_UNCERTAIN = 10.0  # over √n: by how much the squared spread is raised; ends are given where a draw happens to show little of it
_SKEWED = 3.0  # over n: by how much the squared width of the geometric mean's interval is raised
_ROUNDING = 1e-9  # of a rank
_SEEN = 0.01  # relative: what a reader sees at three digits


@dataclass(frozen=True)
class _Values:
    """One measure over n samples, and what is not known of it.

    Attributes:
        values: (n,).
        noise: Standard deviations of their logarithms where they are noisy estimates, else 0, (n,).
        lows, highs: Ends of their intervals, (n,) each.
        floor, ceiling: How far down and up they may be wrong in a way that does not average out, (n,) each: the ends of the
            intervals of what is no noisy estimate. Infinite where there is no such end.
        shifted: Values at the ends of the temperature's interval, (2, n), or None.
        unfound: Further samples whose values are known to be larger than all of these, and no more.
    """

    values: Array
    noise: Array
    lows: Array
    highs: Array
    floor: Array
    ceiling: Array
    shifted: Array | None
    unfound: int = 0

    @property
    def all_samples(self) -> int:
        """n, and the samples whose values are larger than all."""
        return len(self.values) + self.unfound

    @property
    def larger(self) -> str:
        """Words for the samples whose values are larger than all."""
        return f"nothing was found on {self.unfound} of {self.all_samples} samples, which count as larger than all"


def aggregate(
    values: Array, lows: Array, highs: Array, *, seed: int, units: str, noisy: Array | None = None, shifted: Array | None = None,
    kind: Kind = "estimate", unfound: int = 0,
) -> Aggregates:  # fmt: skip
    """Means, median, 95th percentile and maximum of a positive measure over the samples.

    Args:
        values: Estimates per sample, (n,).
        lows, highs: Their 95 % intervals, (n,) each; equal to the values where these are exact, infinite where there is no end.
        seed: Seed of the resampling.
        units: Units of the values.
        noisy: Whether an interval is that of independent noise, (n,), which averages out over the samples; all of them unless
            told. The others are what a value may be wrong by, and are carried through whole.
        shifted: Calibrated values at the two ends of the temperature's 95 % interval, (2, n): an error that all samples share. It
            adds to the intervals in quadrature, on the log scale.
        kind: What the values are.
        unfound: Further samples, on which a search found no value: they count as larger than all.

    Returns:
        The statistics. A mean has an interval only where the samples tell how heavy the tail is (`_mean`); the geometric mean's is
        Student's, of the logarithms. Quantiles use order statistics (no assumption on the distribution) after the bias that noise
        adds to the tails is taken out of all of them together, by simulation extrapolation, so that they stay in order. The
        maximum is that of the audited samples. Where values are larger than all, a statistic that they decide is None, with the
        lower end that the others give it.

    Source: Cook & Stefanski (1994), JASA 89, for simulation extrapolation.
    """
    n = len(values)
    if n == 0:
        empty = Aggregate(None, None, None, 0.0, f"nothing was found on {unfound} samples" if unfound else "no sample has a value")
        return Aggregates(empty, empty, empty, empty, 0, units, empty, kind, unfound)
    noisy = np.ones(n, bool) if noisy is None else noisy
    noise = np.where(noisy, log_sd(values, lows, highs), 0.0)
    floor, ceiling = np.where(noisy, values, lows), np.where(noisy, values, highs)
    v = _Values(values, noise, lows, highs, floor, ceiling, shifted, unfound)
    order = _without_noise(v, np.random.default_rng([seed, streams.AGGREGATES]))
    return Aggregates(
        mean=_widened(_mean(v), np.mean, v),
        geometric_mean=_widened(_geometric_mean(v), lambda x: np.exp(np.log(np.maximum(x, _TINY)).mean()), v),
        median=_widened(_quantile(0.5, v, order), np.median, v),
        p95=_widened(_quantile(0.95, v, order), lambda x: np.quantile(x, 0.95), v),
        max=_widened(_maximum(v, order), np.max, v),
        count=n,
        units=units,
        kind=kind,
        unfound=unfound,
    )


def log_sd(values: Array, lows: Array, highs: Array) -> Array:
    """Standard deviation of each estimate on the log scale, from its 95 % interval's upper half; 0 for exact values."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sd = np.log(highs / values) / Z95
    return np.where(np.isfinite(sd), np.clip(sd, 0.0, 2.0), 0.0)


def _widened(found: Aggregate, statistic: Callable[[Array], Any], v: _Values) -> Aggregate:
    """A statistic without the ends that its values do not have, and with the temperature's error in those that it has."""
    low = None if found.low is None or not np.isfinite(v.floor).all() else found.low
    high = None if found.high is None or not np.isfinite(v.ceiling).all() else found.high
    here = float(statistic(v.values))
    if v.shifted is not None and found.value and here > 0:
        down, up = temperature_reach(float(statistic(shifted)) / here for shifted in v.shifted)
        if low is not None and low > 0:
            low = found.value * math.exp(-math.hypot(math.log(found.value / low), down))
        if high is not None:
            high = found.value * math.exp(min(math.hypot(math.log(high / found.value), up), 700.0))
    return replace(found, low=low, high=high)


def _mean(v: _Values) -> Aggregate:
    """The mean, with an interval whose upper end is given where the samples tell how heavy the tail is.

    The interval is Student's on the log scale with as many degrees of freedom as samples carry the mean. On the upper side, where
    what is missing is the tail that was not sampled, its error is at least that of a log-normal distribution whose logarithms
    spread as those above the median do; where so heavy a distribution would leave the mean to fewer than three of the samples,
    there is no upper end. Over 22 trained models, raw, calibrated and flip radii, it covers .95 to .99 at 16 to 200 samples where
    it is given, and .87 on the worst model of those where it is given in a twentieth of the draws or more (bootstrap-t intervals
    given everywhere cover .84, and .21 on the worst); the lower end is above the mean in 2.6 % at most.
    """
    if v.unfound:
        return Aggregate(None, None, None, 0.0, f"{v.larger}: no mean")
    n, mean = len(v.values), float(v.values.mean())
    if n < 2:
        return Aggregate(mean, None, None, 0.0, "1 sample is too few: no population interval")
    x = v.values / (float(v.values.max()) or 1.0)
    relative = float(x.std(ddof=1)) / math.sqrt(n) / float(x.mean()) if mean > 0 else 0.0
    down = max(float((v.values - v.floor).mean()), 0.0)
    up = float((v.ceiling - v.values).mean())
    if relative == 0:
        return Aggregate(mean, max(mean - down, 0.0), mean + up, 0.95, "all samples are equal")
    quantile = float(stdtrit(max(x.sum() ** 2 / (x**2).sum() - 1, 1.0), 1 - _TAIL))
    low = max(mean * math.exp(-quantile * relative) - down, 0.0)
    heaviness = _upper_spread(x) ** 2 * (1 + _UNCERTAIN / math.sqrt(n))
    if n * math.exp(-heaviness) < _LEAST_CARRIERS:
        half = int(np.searchsorted(np.cumsum(np.sort(x)[::-1]), 0.5 * x.sum())) + 1
        why = f"carried by {half} of {n} samples" if half <= n / 8 else f"{n} samples do not tell how heavy the tail is"
        return Aggregate(mean, low, None, 0.95, f"{why}: no population interval but its lower end")
    half_width = min(quantile * max(relative, math.sqrt(math.expm1(heaviness) / n)), 700.0)
    method = "Student's interval of the logarithm, as heavy as the upper half's spread"
    return Aggregate(mean, low, mean * math.exp(half_width) + up, 0.95, method)


def _upper_spread(x: Array) -> float:
    """Root mean square of ``ln(x / median)`` above the median; infinite where the median is 0."""
    median = float(np.median(x))
    if median <= 0:
        return math.inf
    above = np.log(np.maximum(x / median, 1.0))
    return math.sqrt(float((above**2).sum()) / (len(x) / 2))


def _geometric_mean(v: _Values) -> Aggregate:
    """The mean of the logarithms, less what noise takes from them, with Student's interval."""
    if v.unfound:
        return Aggregate(None, None, None, 0.0, f"{v.larger}: no geometric mean")
    n, zeros = len(v.values), int((v.values <= 0).sum())
    if zeros:
        return Aggregate(None, None, None, 0.0, f"{zeros} of {n} values are 0, which have no logarithm")
    logs = np.log(v.values) + v.noise**2 / 2
    centre = float(logs.mean())
    if n < 2:
        return Aggregate(math.exp(centre), None, None, 0.0, "1 sample is too few: no population interval")
    # The logarithms of real models are skewed: Student's interval alone covers .926 of them at 16 samples.
    half = float(stdtrit(n - 1, 1 - _TAIL)) * float(logs.std(ddof=1)) / math.sqrt(n) * math.sqrt(1 + _SKEWED / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        below, above = float(np.log(v.values / v.floor).mean()), float(np.log(v.ceiling / v.values).mean())
    ends = math.exp(centre - half - below), math.exp(min(centre + half + above, 700.0))
    return Aggregate(math.exp(centre), *ends, 0.95, "Student's interval of the logarithms")


def _without_noise(v: _Values, rng: np.random.Generator) -> Array:
    """The values in increasing order, each less what noise adds to the one of its rank, (n,)."""
    order = np.sort(v.values)
    if not v.noise.any():
        return order
    again = copy.deepcopy(rng)
    mean = _mean_of_parts(_noisy(v, rng))
    with np.errstate(invalid="ignore"):
        parts = (np.where(v.values > 0, part * (v.values / mean), v.values) for part in _noisy(v, again))
        ranked = _mean_of_parts(np.sort(part, axis=1) for part in parts)
    corrected = np.maximum(2 * order - ranked, 0.0)
    # The correction may pass one rank over another: half way between the two nearest sequences that are in order.
    return np.asarray((np.maximum.accumulate(corrected) + np.minimum.accumulate(corrected[::-1])[::-1]) / 2)


def _noisy(v: _Values, rng: np.random.Generator) -> Iterator[Array]:
    """The values with noise of their own size, so many replicates at a time, (few, n), `_REPLICATES` in all."""
    few = max(1, _AT_ONCE // len(v.values))
    for start in range(0, _REPLICATES, few):
        drawn = rng.standard_normal((min(few, _REPLICATES - start), len(v.values)))
        yield v.values * np.exp(v.noise * drawn - v.noise**2 / 2)


def _mean_of_parts(parts: Iterable[Array]) -> Array:
    """The mean over all replicates, (n,): one after another, as NumPy sums along a first axis, so that the parts do not matter."""
    total: Array | None = None
    for part in parts:
        total = part.sum(axis=0) if total is None else np.vstack([total, part]).sum(axis=0)
    assert total is not None
    return np.asarray(total / _REPLICATES)


def _quantile(q: float, v: _Values, corrected: Array) -> Aggregate:
    """A quantile of the corrected values, and its interval by order statistics."""
    n = v.all_samples
    below, above = bracketing(n, q)
    low = float(v.lows.min()) if below is None else _ranked(v.floor, below)
    high = None if above is None and v.unfound else float(v.highs.max()) if above is None else _ranked(v.ceiling, above)
    least, most = (-1 if below is None else below), (n - 1 if above is None else above)
    confidence = binomial_at_most(most, n, q) - binomial_at_most(least, n, q)
    method = "order statistics, noise's bias taken out" + (f"; {v.larger}" if v.unfound else "")
    found = Aggregate(None, max(float(v.floor.max()) if low is None else low, 0.0), high, min(confidence, 0.95), method)
    if math.ceil((n - 1) * q - _ROUNDING) >= len(v.values):
        return found
    value, raw = (float(np.quantile(_padded(x, v.unfound), q)) for x in (corrected, v.values))
    low = max(min((found.low or 0.0) - max(raw - value, 0.0), value), 0.0)
    return replace(found, value=value, low=low, high=None if high is None else max(high - min(raw - value, 0.0), value))


def _ranked(values: Array, rank: int) -> float | None:
    """The order statistic of that rank, from 0; None where it is larger than all values."""
    return float(np.sort(values)[rank]) if rank < len(values) else None


def _padded(values: Array, more: int) -> Array:
    """The values and as many more of the largest: quantiles below these are those with anything larger in their place."""
    return np.append(values, np.full(more, values.max()))


def _maximum(v: _Values, corrected: Array) -> Aggregate:
    """The maximum of the audited samples; noise inflates it, and each contender's interval is widened for their number.

    What noise adds is taken out, but the value is never below that of a sample without noise.
    """
    lows = np.maximum(v.lows, 0.0)
    contenders = v.highs >= lows.max()
    if not contenders.any():  # of results from outside, whose values lie beyond their own intervals
        contenders = np.ones(len(lows), bool)
    widen = float(stdtrit(19, 1 - _TAIL / max(int(contenders.sum()), 1)) / stdtrit(19, 1 - _TAIL))
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(v.values > 0, v.values * (v.highs / v.values) ** widen, v.highs)
        floor = np.where(v.values > 0, v.values * (lows / v.values) ** widen, lows)
    low, high, raw = float(floor[contenders].max()), float(reach[contenders].max()), float(v.values.max())
    value = min(max(float(corrected[-1]), float(v.values[v.noise == 0].max(initial=0.0)), low), high)
    method = "of the audited samples; the interval holds the estimates' noise only"
    if v.unfound:
        return Aggregate(None, float(v.floor.max()), None, 0.95, f"of the audited samples; {v.larger}")
    if value < raw * (1 - _SEEN):
        method += f"; the largest estimate is {raw:.3g}, of which noise makes up {raw - value:.2g}"
    return Aggregate(value, low, high, 0.95, method)


def bracketing(n: int, q: float) -> tuple[int | None, int | None]:
    """Order statistics of n samples, counted from 0, between which the quantile q lies with 95 %.

    Returns:
        The lower and the upper one; None where n samples have none that low or that high.
    """
    below, above = (bisect_left(range(n), tail, key=lambda count: binomial_at_most(count, n, q)) for tail in (_TAIL, 1 - _TAIL))
    return (below - 1 if below >= 1 else None), (above if above < n else None)


def fewest_bracketing(q: float) -> tuple[int, int]:
    """Samples from which on `bracketing` has a lower, and an upper, order statistic."""
    return math.ceil(math.log(_TAIL) / math.log(1 - q)), math.ceil(math.log(_TAIL) / math.log(q))


def temperature_interval(temperature: float, log_error: float | None) -> tuple[float, float]:
    """The 95 % interval of a fitted temperature, from the standard error of its logarithm."""
    factor = math.exp(Z95 * (log_error or 0.0))
    return temperature / factor, temperature * factor


def wilson(count: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, ``count`` of n: close to its level on average (Wilson 1927, JASA 22)."""
    share = count / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def clopper_pearson(count: int, n: int, below: float = _TAIL, above: float = _TAIL) -> tuple[float, float]:
    """Interval of a share, ``count`` of n: never below its level (Clopper & Pearson 1934, Biometrika 26).

    The share lies below it with a chance of ``below`` at most, and above it with ``above``; together 5 % where they are not given.
    """
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, below))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - above))
    return low, high


def binomial_at_least(count: int, n: int, p: float) -> float:
    """Probability of ``count`` or more out of ``n`` where each has the probability ``p``."""
    return 1.0 if count <= 0 else 0.0 if count > n else float(betainc(count, n - count + 1, p))


def binomial_at_most(count: int, n: int, p: float) -> float:
    """Probability of ``count`` or fewer out of ``n`` where each has the probability ``p``."""
    return 0.0 if count < 0 else 1.0 if count >= n else float(betainc(n - count, count + 1, 1 - p))


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
    """Ranks, equal values sharing their mean rank, centred and of unit spread; None where they have none."""
    if np.isnan(values).any():
        return None
    found = ranks(values)
    spread = float(found.std())
    return (found - found.mean()) / spread if spread > 0 else None


def ranks(values: Array) -> Array:
    """Ranks from 1 on, equal values sharing their mean rank, (n,)."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place], np.float64)
