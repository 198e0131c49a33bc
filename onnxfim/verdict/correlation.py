"""Rank correlations of every measure with every other over the samples of an audit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.measures import RANKED
from onnxfim.record.sample import estimate_of
from onnxfim.record.statistics import percentiles, spearman, spearman_of_weights
from onnxfim.verdict.comparison import MeasureCorrelation

Array: TypeAlias = np.ndarray[Any, Any]

_REPLICATES = 1000
_FEWEST = 5  # samples that a correlation is given for


def correlations(audit: Audit, entry: int, counts_of: Any) -> Iterator[MeasureCorrelation]:
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
        rho = rank_correlation(columns[first][both], columns[second][both], counts_of(n)[:_REPLICATES])
        yield MeasureCorrelation(entry, first, second, rho, n)


def rank_correlation(x: Array, y: Array, counts: Array) -> Aggregate:
    """Spearman's correlation of x and y, (n,) each, with its 95 % percentile interval; None where one of them is constant."""
    value = spearman(x, y)
    if value is None:
        return Aggregate(None, None, None, 0.95, "all samples are equal")
    low, high = percentiles(spearman_of_weights(x, y, counts)) or (-1.0, 1.0)
    return Aggregate(value, min(max(low, -1.0), value), max(min(high, 1.0), value), 0.95, "bootstrap of the ranks")


def _values(audit: Audit, measure: str) -> Array:
    """The measure of each sample, NaN where it has none, (n,)."""
    found = [estimate_of(s, measure) for s in audit.samples]
    return np.array([np.nan if e is None or e.value is None else e.value for e in found])
