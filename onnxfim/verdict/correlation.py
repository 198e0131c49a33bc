"""Rank correlations of every measure with every other over the samples of an audit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import rankdata

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.measures import RANKED
from onnxfim.record.sample import estimate_of
from onnxfim.verdict.comparison import Correlation

Array: TypeAlias = np.ndarray[Any, Any]

_REPLICATES = 1000
_FEWEST = 5  # samples that a correlation is given for


def correlations(audit: Audit, entry: int, counts_of: Any) -> Iterator[Correlation]:
    """Spearman's correlation of each pair of measures, with its interval from a bootstrap of the ranks.

    Args:
        audit: Whose samples.
        entry: Its position in the comparison.
        counts_of: Number of samples to how often each resample holds each, (replicates, n).
    """
    columns = {m: _values(audit, m) for m in RANKED}
    columns = {m: v for m, v in columns.items() if np.isfinite(v).sum() >= _FEWEST}
    for first, second in combinations(columns, 2):
        both = np.isfinite(columns[first]) & np.isfinite(columns[second])
        n = int(both.sum())
        if n < _FEWEST:
            continue
        yield Correlation(
            entry, first, second, spearman(columns[first][both], columns[second][both], counts_of(n)[:_REPLICATES]), n
        )


def spearman(x: Array, y: Array, counts: Array) -> Aggregate:
    """Spearman's correlation of x and y, (n,) each, with its 95 % percentile interval; None where one of them is constant."""
    r, s = (_standard(rankdata(v)) for v in (x, y))
    if r is None or s is None:
        return Aggregate(None, None, None, 0.95, "all samples are equal")
    # In float32 throughout: four digits of an interval's end are enough, and ten thousand sums a table are many.
    sums = counts @ np.stack([r, s, r * r, s * s, r * s], axis=1).astype(np.float32)  # (replicates, 5)
    mr, ms, rr, ss, rs = (sums / len(r)).T
    spread = (rr - mr**2) * (ss - ms**2)
    good = spread > 1e-12
    draws = (rs - mr * ms)[good] / np.sqrt(spread[good])
    low, high = np.clip(np.quantile(draws, [0.025, 0.975]), -1.0, 1.0) if len(draws) else (-1.0, 1.0)
    value = float(np.clip((r * s).mean(), -1.0, 1.0))
    return Aggregate(value, min(float(low), value), max(float(high), value), 0.95, "bootstrap of the ranks")


def _standard(ranks: Array) -> Array | None:
    spread = float(ranks.std())
    return (ranks - ranks.mean()) / spread if spread > 0 else None


def _values(audit: Audit, measure: str) -> Array:
    """The measure of each sample, NaN where it has none, (n,)."""
    found = [estimate_of(s, measure) for s in audit.samples]
    return np.array([np.nan if e is None or e.value is None else e.value for e in found])
