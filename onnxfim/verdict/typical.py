"""What a usual sample says of a regression: the middle of paired ratios, where few samples carry the means."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate, TypicalChange
from onnxfim.verdict.measure_tests import distance_measure, distance_trial, student_p, tells_confidence
from onnxfim.verdict.ratio import Column
from onnxfim.verdict.signed_ranks import EQUAL, signed_ranks_of
from onnxfim.verdict.usual_ratio import usual_ratio

Array: TypeAlias = np.ndarray[Any, Any]

#: The chance, at most, that a usual sample is called beyond its limit where it is not; both tests have half of it (Bonferroni).
LEVEL = 0.005
_TESTS = 2


def typical_changes(
    now: Audit, then: Audit, columns: tuple[Column, Column], measure: str, limit: float
) -> tuple[TypicalChange, ...]:
    """What usual samples say, each tested one-sided against the limit, over such samples in general.

    Raw λ_max of a softmax tells confidence as well: where there are distances it is left out, as in a comparison.
    λ_max sample by sample has the geometric mean of its ratios, each model at its own temperature, whose errors are in the p-value:
    what the same labels do to both cancels. Distances have signed ranks. For a small change δ the divergence is at most
    λ_max·|δ|²/2, so that the same divergence is reached at 1/√ratio times the distance: that is the limit of the distances.

    Args:
        now, then: The audit and its baseline.
        columns: The lead measure on the shared samples, in the same order, as in ``now``, ``then``.
        measure: Its name.
        limit: Largest ratio of λ_max that is allowed, above 0.
    """
    return tuple(_changes(now, then, columns, measure, limit))


def _changes(
    now: Audit, then: Audit, columns: tuple[Column, Column], measure: str, limit: float
) -> Iterator[TypicalChange]:  # fmt: skip
    distance = _distance(now, then, measure, limit)
    if distance is not None:
        yield distance
    if distance is not None and tells_confidence((then, now), measure):
        return
    sensitivity = _sensitivity(now, then, columns, measure, limit)
    if sensitivity is not None:
        yield sensitivity


def _distance(now: Audit, then: Audit, measure: str, limit: float) -> TypicalChange | None:
    """How far predictions last: the flip radius, or the boundary distance; None where the two were not estimated by one method."""
    distance = distance_measure((now, then), measure)
    if distance is None or now.run.method != then.run.method:
        return None
    trial = distance_trial(then, now, distance)
    if trial is None:
        return None
    least = 1 / math.sqrt(limit)
    against = signed_ranks_of(np.array(trial.logs) - math.log(least))
    p = against.p / 2 if against.log < 0 else 1 - against.p / 2
    return TypicalChange(distance, trial.count, trial.ratio, least, p, p <= LEVEL / _TESTS)


def _sensitivity(now: Audit, then: Audit, columns: tuple[Column, Column], measure: str, limit: float) -> TypicalChange | None:
    """λ_max sample by sample; None where it is 0 in one of the two alone, for then no ratio of it has a size."""
    positive = (columns[0].values > 0) & (columns[1].values > 0)
    if ((columns[0].values > 0) != (columns[1].values > 0)).any() or positive.sum() < 2:
        return None
    a, b = (c.at(np.flatnonzero(positive)) for c in columns)
    logs = np.log(a.values) - np.log(b.values)
    n = len(logs)
    name = f"{measure}.geometric_mean"
    if np.abs(logs).max() <= EQUAL:
        return TypicalChange(name, n, Aggregate(1.0, 1.0, 1.0, 0.95, "all samples are equal"), limit, 1.0, False)
    u = usual_ratio((then, now), (b, a), logs, measure)
    size = u.log - math.log(limit) - u.down
    p = student_p(size, u.error, u.freedom, u.temperature) / 2 if size > 0 else 1.0
    return TypicalChange(name, n, u.ratio, limit, p, p <= LEVEL / _TESTS)
