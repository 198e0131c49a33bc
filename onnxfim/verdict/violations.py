"""Whether measured values lie above an upper bound: one test of all samples, at a level that holds for the audit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxfim.record.sample import Estimate
from onnxfim.record.special import ndtri, stdtrit

# What float32 outputs and differences may add to a measurement: a violation beyond it is one.
_SLACK = 1e-3
_BIAS = 0.1  # of the logarithm: what the jackknife may leave of a sketch's bias, which no number of samples averages out
_GROUPS = 20  # of the jackknife, where an estimate does not tell


@dataclass(frozen=True)
class ViolationTest:
    """Values of one measure, and log10 of what none of them may exceed."""

    values: Sequence[Estimate]
    log10_bound: float


def violations(test: ViolationTest, *, level: float) -> tuple[int, ...]:
    """Positions of the values that violate the bound; none where noise explains them all.

    Values without noise (exact, kinked, lower bounds) violate it where their lower end lies above it. Estimates are noisy: half of
    the level goes to a test of each, at its share of it, half to a test of the mean excess of all of them over what the estimator's
    bias may be, so that the bound is
    called violated in at most ``level`` of the audits in which it holds. Both take each estimate's own standard deviation of the
    logarithm from its upper end, and Student's quantile for its few groups.
    """
    log_bound = test.log10_bound * math.log(10) + math.log1p(_SLACK)
    sure = [k for k, e in enumerate(test.values) if e.kind in ("exact", "kinked", "lower bound") and _above(e.low, log_bound)]
    noisy = [k for k, e in enumerate(test.values) if e.kind == "estimate" and e.value and e.high and e.high > e.value > 0]
    broken = set(sure)
    if noisy and log_bound < math.inf:
        excess = np.array([math.log(test.values[k].value or 1.0) - log_bound for k in noisy])
        freedom = np.array(
            [max(len(test.values[k].replicates), 2) - 1 if test.values[k].replicates else _GROUPS - 1 for k in noisy]
        )
        half = np.array([math.log((test.values[k].high or 1.0) / (test.values[k].value or 1.0)) for k in noisy])
        error = half / stdtrit(freedom, 0.975)
        limits = stdtrit(freedom, 1 - level / 2 / len(noisy))
        broken |= {noisy[i] for i in np.flatnonzero(excess > limits * error).tolist()}
        # Student's t of few groups has heavier tails than the sum of many: its variance is f / (f − 2).
        spread = math.sqrt(float(np.sum(error**2 * freedom / np.maximum(freedom - 2, 1))))
        if float((excess - _BIAS).sum()) > float(ndtri(1 - level / 2)) * spread:
            broken |= {noisy[i] for i in np.flatnonzero(excess > 0).tolist()}
    return tuple(sorted(broken))


def _above(value: float | None, log_bound: float) -> bool:
    return value is not None and value > 0 and math.log(value) > log_bound
