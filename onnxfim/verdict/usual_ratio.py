"""λ_max of a usual sample in two audits: the geometric mean of paired ratios, with all that it may be wrong by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.sample import estimate_of, own_interval
from onnxfim.record.statistics import Z95
from onnxfim.verdict.paired import geometric_mean_of_ratios, shared_error, standard_error
from onnxfim.verdict.pairs import is_paired
from onnxfim.verdict.ratio import Column, noise_of_log_ratio
from onnxfim.verdict.shared_temperature import temperature_error

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class UsualRatio:
    """The second audit against the first.

    Attributes:
        ratio: The geometric mean of the samples' ratios, with its interval.
        log: Its logarithm.
        error: Standard error of ``log`` over the samples, never smaller than the estimates' noise makes it.
        freedom: Degrees of freedom of ``error``.
        temperature: Standard error that all samples share, from the temperatures.
        down, up: How far ``log`` may be wrong in a way that does not average out.
    """

    ratio: Aggregate
    log: float
    error: float
    freedom: int
    temperature: float
    down: float
    up: float


def usual_ratio(
    audits: tuple[Audit, Audit], columns: tuple[Column, Column], logs: Array, measure: str, *,
    temperature: float | None = None, slack: float = 0.0,
) -> UsualRatio:  # fmt: skip
    """The mean of paired log-ratios.

    Args:
        audits: The first and the second.
        columns: Their values above 0 on the shared samples, in the same order.
        logs: Logarithms of the second's over the first's, (n,); samples that are 0 in one may be among them.
        measure: Its name.
        temperature: Standard error that the samples share; None takes each model's own temperature.
        slack: By how much the mean may be wrong for want of common units.
    """
    then, now = columns
    n = len(logs)
    u = np.full(len(now.values), 1 / n)
    noise = noise_of_log_ratio(now, then, u, u, paired=is_paired(*audits))
    if temperature is None:
        temperature = shared_error(temperature_error(now), temperature_error(then))
    down, up = (end + slack for end in _kinked_reach(audits, measure, now.indices))
    ratio = geometric_mean_of_ratios(logs, noise=noise, temperature=temperature, reach=(down, up))
    error = max(standard_error(logs) if n > 1 else 0.0, noise / Z95)
    return UsualRatio(ratio, float(logs.mean()), error, n - 1, temperature, down, up)


def _kinked_reach(audits: tuple[Audit, Audit], measure: str, indices: Array) -> tuple[float, float]:
    """How far down and up the mean log-ratio may be wrong because values have no one slope."""
    kept = {int(i) for i in indices}
    down = up = 0.0
    for audit, later in zip(audits, (False, True), strict=True):
        for s in audit.samples:
            estimate = estimate_of(s, measure)
            if s.index not in kept or estimate is None or estimate.kind != "kinked" or not estimate.value:
                continue
            low, high = own_interval(estimate)
            below = math.log(estimate.value / low) if low else 0.0
            above = math.log(high / estimate.value) if high else 0.0
            down, up = (down + below, up + above) if later else (down + above, up + below)
    return down / max(len(kept), 1), up / max(len(kept), 1)
