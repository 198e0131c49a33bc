"""Statistics of the answers: rank correlations along an axis, isotonic regression, components of variance, permutation tests.

Arrays may have leading axes of replicates; NaN marks what was not measured and is left out in pairs.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
FLOOR = 1e-40  # what a logarithm takes for zero: float64 slopes of saturated nets reach 1e-35


def paired(a: Array, b: Array) -> tuple[Array, Array]:
    """Both with NaN wherever either has one, of one shape."""
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    missing = ~(np.isfinite(a) & np.isfinite(b))
    return np.where(missing, np.nan, a), np.where(missing, np.nan, b)


def ranks(a: Array) -> Array:
    """Mid-ranks from 1 along the last axis; NaN where NaN."""
    known = np.isfinite(a)
    if a.shape[-1] == 0:
        return np.array(a)
    return np.where(known, stats.rankdata(np.where(known, a, np.inf), axis=-1), np.nan)


def pearson(a: Array, b: Array) -> Array:
    """Correlation along the last axis, of the pairs that are known; NaN under three pairs or where one side does not vary."""
    a, b = paired(a, b)
    known = np.isfinite(a)
    count = known.sum(axis=-1)
    a0, b0 = (np.where(known, v, 0.0) for v in (a, b))
    divisor = np.maximum(count, 1)
    da, db = (np.where(known, v - (v.sum(axis=-1) / divisor)[..., None], 0.0) for v in (a0, b0))
    scale = np.sqrt((da**2).sum(axis=-1) * (db**2).sum(axis=-1))
    fit = (count >= 3) & (scale > 1e-12)
    return np.where(fit, (da * db).sum(axis=-1) / np.where(fit, scale, 1.0), np.nan)


def spearman(a: Array, b: Array) -> Array:
    """Spearman's rho along the last axis."""
    a, b = paired(a, b)
    return pearson(ranks(a), ranks(b))


def kendall(a: Array, b: Array) -> Array:
    """Kendall's tau-b along the last axis."""
    a, b = paired(a, b)
    signs = [np.nan_to_num(np.sign(v[..., :, None] - v[..., None, :])) for v in (a, b)]
    scale = np.sqrt((signs[0] ** 2).sum(axis=(-1, -2)) * (signs[1] ** 2).sum(axis=(-1, -2)))
    fit = scale > 0
    return np.where(fit, (signs[0] * signs[1]).sum(axis=(-1, -2)) / np.where(fit, scale, 1.0), np.nan)


def partial_spearman(a: Array, b: Array, given: Array) -> Array:
    """Rank correlation of a and b with the ranks of ``given`` held fixed, by the recursion of partial correlations."""
    missing = ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(given))
    a, b, given = (np.where(missing, np.nan, v) for v in (a, b, given))
    ab, ac, bc = spearman(a, b), np.nan_to_num(spearman(a, given)), np.nan_to_num(spearman(b, given))
    scale = np.sqrt(np.maximum((1 - ac**2) * (1 - bc**2), 0))
    fit = scale > 1e-9
    return np.where(fit, np.clip((ab - ac * bc) / np.where(fit, scale, 1.0), -1, 1), np.nan)


# What is told of one model's samples, along the last axis.


def mean(a: Array) -> Array:
    """Mean of the known."""
    known = np.isfinite(a)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, a, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def median(a: Array) -> Array:
    """Median of the known."""
    ordered = np.sort(np.where(np.isfinite(a), a, np.nan), axis=-1)  # NaN last
    count = np.isfinite(ordered).sum(axis=-1)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    pick = [np.take_along_axis(ordered, np.minimum(i, a.shape[-1] - 1)[..., None], axis=-1)[..., 0] for i in (low, high)]
    return np.where(count > 0, (pick[0] + pick[1]) / 2, np.nan)


def geometric_mean(a: Array) -> Array:
    """Geometric mean of the known, zeros read as 1e-40."""
    logs = np.log(np.maximum(np.where(np.isfinite(a), a, 1.0), FLOOR))
    return np.exp(mean(np.where(np.isfinite(a), logs, np.nan)))


# Conversions.


def isotonic(x: Array, y: Array) -> tuple[Array, Array]:
    """Least-squares decreasing step function of y on x: the sorted x of each level's first point, and the levels.

    Pool adjacent violators (Ayer et al. 1955); equal x are pooled first.
    """
    at, where = np.unique(x, return_inverse=True)
    weights = np.bincount(where).astype(float)
    levels = np.bincount(where, weights=y) / weights
    blocks: list[tuple[float, float, float]] = []  # first x, level, weight
    for block in zip(at, levels, weights, strict=True):
        blocks.append(block)
        while len(blocks) > 1 and blocks[-1][1] > blocks[-2][1]:
            _, high, n = blocks.pop()
            start, low, m = blocks.pop()
            blocks.append((start, (low * m + high * n) / (m + n), m + n))
    return np.array([b[0] for b in blocks]), np.array([b[1] for b in blocks])


def step(curve: tuple[Array, Array], x: Array) -> Array:
    """The value of a step function at x; its first and last levels go on outside."""
    at, levels = curve
    return levels[np.maximum(np.searchsorted(at, x, side="right") - 1, 0)]


# Variance.


def intraclass(values: Array, groups: Array) -> tuple[float, float, float, float]:
    """Share of the variance that lies between groups, its 95 % interval, and the standard deviation within groups.

    One-way random effects; the interval from the F distribution (Searle 1971), with the mean group size where sizes differ.
    """
    kept = np.isfinite(values)
    values, groups = values[kept], groups[kept]
    names, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    k, n = len(names), len(values)
    if k < 2 or n <= k:
        return (np.nan,) * 4
    means = np.bincount(index, weights=values) / counts
    within = float(((values - means[index]) ** 2).sum() / (n - k))
    between = float((counts * (means - values.mean()) ** 2).sum() / (k - 1))
    size = (n - (counts**2).sum() / n) / (k - 1)
    if within == 0:
        return (1.0, 1.0, 1.0, 0.0) if between > 0 else (np.nan,) * 4

    def share(f: float) -> float:
        return float(max((f - 1) / (f + size - 1), 0.0))

    f = between / within
    low, high = f / stats.f.ppf(0.975, k - 1, n - k), f / stats.f.ppf(0.025, k - 1, n - k)
    return share(f), share(low), share(high), float(np.sqrt(within))


def shares_of_variance(values: Array, first: Array, second: Array) -> dict[str, float]:
    """Shares of the sum of squares: the first factor, the second, both together beyond that, and the rest (replicates).

    Each factor's own sum of squares; they add up to one where the design is balanced.
    """
    kept = np.isfinite(values)
    values, first, second = values[kept], first[kept], second[kept]
    both = np.array([f"{a}|{b}" for a, b in zip(first, second, strict=True)])
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    if total == 0:
        return dict.fromkeys(("first", "second", "together", "rest"), float("nan"))

    def explained(factor: Array) -> float:
        _, index, counts = np.unique(factor, return_inverse=True, return_counts=True)
        means = np.bincount(index, weights=values) / counts
        return float((counts * (means - values.mean()) ** 2).sum()) / total

    a, b, ab = explained(first), explained(second), explained(both)
    return {"first": a, "second": b, "together": ab - a - b, "rest": 1 - ab}


def t_interval(differences: Array) -> tuple[float, float, float]:
    """Mean and 95 % interval of Student's t; no ends under two values."""
    kept = differences[np.isfinite(differences)]
    if len(kept) == 0:
        return (np.nan,) * 3
    value = float(kept.mean())
    if len(kept) < 2:
        return value, np.nan, np.nan
    half = float(stats.t.ppf(0.975, len(kept) - 1) * kept.std(ddof=1) / np.sqrt(len(kept)))
    return value, value - half, value + half


def monotone(values: Array) -> bool:
    """Whether a sequence never falls."""
    return all(a <= b for a, b in pairwise(values))


# Tests by permutation.


def concordance(table: Array) -> Array:
    """Kendall's W of (…, judges, items): 1 where every judge has the same order, 0 where they share none. No ties expected."""
    judges, items = table.shape[-2:]
    if judges < 2 or items < 2:
        return np.full(table.shape[:-2], np.nan)
    totals = ranks(table).sum(axis=-2)
    spread = ((totals - totals.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    return np.asarray(12 * spread / (judges**2 * (items**3 - items)))


def concordance_p(table: Array, *, times: int, rng: np.random.Generator) -> float:
    """Chance of a concordance as large where every judge's order is random."""
    seen = concordance(table)
    if not np.isfinite(seen):
        return float("nan")
    shuffled = rng.permuted(np.broadcast_to(table, (times, *table.shape)), axis=-1)
    return float((1 + (concordance(shuffled) >= seen - 1e-12).sum()) / (1 + times))
