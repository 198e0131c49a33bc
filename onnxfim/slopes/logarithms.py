"""Values that were differentiated at logarithms of probabilities: what the rounding of these leaves of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import Estimate, SampleResult

Array: TypeAlias = np.ndarray[Any, Any]

_MOST = 0.5  # of a value that rounding may make up
_FLOOR = math.log(1e-37)  # below which a logarithm is that of the least number, which stands for zero
_LOST = "the probabilities are saturated: what they round to hides the slope"


def with_rounding(result: SampleResult, base: Array, epsilon: float) -> SampleResult:
    """The result with the rounding of its probabilities in the intervals; without values where it hides them.

    A probability that was made by a subtraction, such as 1 − p, is off by ``epsilon / 2`` of 1, however small it is. With
    ``F = Σ p_k D_k D_kᵀ``, D the slopes of the logarithms, that moves λ by no more than ``½ epsilon ‖D‖²``.

    Args:
        result: A sample's, its logit sensitivity that of the logarithms.
        base: The logarithms at the sample, (K, 1).
        epsilon: Relative spacing of the numbers that the file computes with.
    """
    value, sensitivity = result.lambda_max.value, result.logit_sensitivity.value
    if value is None or sensitivity is None:
        return result
    share = 0.5 * epsilon * sensitivity**2 / value if value > 0 else 1.0
    if float(base.min()) < _FLOOR:  # of a probability of 0 there is no slope to tell what is lost
        share = 1.0
    if share > _MOST:
        none = Estimate(None, reason=_LOST, evaluations=result.evaluations)
        calibrated = result.lambda_max_calibrated if result.lambda_max_calibrated.value is None else none
        return replace(result, lambda_max=none, lambda_max_calibrated=calibrated, trace=none, effective_rank=none)
    return replace(
        result,
        lambda_max=_widened(result.lambda_max, share),
        lambda_max_calibrated=_widened(result.lambda_max_calibrated, share),
        trace=_widened(result.trace, share),
    )


def _widened(estimate: Estimate, share: float) -> Estimate:
    low, high = estimate.low, estimate.high
    return replace(estimate, low=None if low is None else low * (1 - share), high=None if high is None else high * (1 + share))
