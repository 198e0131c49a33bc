"""Values of outputs that were rounded to a few digits: what the rounding may have added to them, and what it hides."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.record.steps import StepBias
from onnxfim.slopes.differences import Ends
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

_MOST = 0.5  # of a value that rounding may make up, or hide
_ROUNDED = 6.0  # two roundings, each even over a unit: a variance of a sixth of its square


def with_units(result: SampleResult, reader: OutputReader, base: Array, ends: Ends, bias: StepBias | None = None) -> SampleResult:
    """The result with the rounding of its probabilities in the intervals; without values where it hides them.

    A difference of two rounded probabilities is off by a variance of ``unit²/6``, and so is ``∂p_k/√p_k`` by ``unit²/(6 h² p_k)``:
    the largest of these is what rounding adds to λ at most, where it is independent along random directions. Classes that are 0 in
    every row hold a mass ``q``: with slopes of their logarithms no larger than those of the others, ``‖D‖``, they add ``q ‖D‖²`` at
    most (`slopes.logarithms` has the same of rounding in float32).

    Args:
        result: A sample's.
        reader: Of the outputs.
        base: The outputs at the sample, (K, P).
        ends: Of central differences along all its directions.
        bias: What curvature within the step may make of the values.
    """
    value = result.lambda_max.value
    if value is None or not len(ends.plus):
        return result
    p = reader.around(base, ends.plus, ends.minus)  # (K, P)
    known = p > 0
    h = float(np.median(np.abs(np.asarray(ends.h))))
    noise = float(np.max(reader.unit**2 / (_ROUNDED * h**2 * p[known]), initial=0.0))
    spread = math.sqrt(
        min(1.0, known.sum() / len(ends.plus))
    )  # the largest eigenvalue of noise in m rows: (1 + √(K/m))² of its variance
    D = (ends.plus - ends.minus)[:, known] / h / p[known]
    slopes = np.square(D).mean(axis=0) - reader.unit**2 / (_ROUNDED * h**2 * p[known] ** 2)
    hidden = np.clip(1.0 - p.sum(axis=0), 0.0, reader.unit / 2 * (~known).sum(axis=0)) + reader.unit / 2 * (~known).any(axis=0)
    missing = float(hidden.sum()) * max(float(slopes.max(initial=0.0)), 0.0)
    added = noise * (1 + spread) ** 2 / max(value, 1e-300)
    short = missing / max(value, 1e-300)
    if bias is not None:
        added, short = added + 1 - bias.low, short + bias.high - 1
    if max(added, short) > _MOST:
        why = f"the outputs are multiples of {reader.unit:g}: their rounding hides the slope"
        none = Estimate(None, reason=why, evaluations=result.evaluations)
        calibrated = result.lambda_max_calibrated if result.lambda_max_calibrated.value is None else none
        return replace(result, lambda_max=none, lambda_max_calibrated=calibrated, trace=none, effective_rank=none)
    return replace(
        result,
        lambda_max=_widened(result.lambda_max, added, short),
        lambda_max_calibrated=_widened(result.lambda_max_calibrated, added, short),
        trace=_widened(result.trace, added * max(1, int(known.sum())), short),
    )


def _widened(estimate: Estimate, added: float, short: float) -> Estimate:
    """The estimate with an interval that holds what rounding added and what it hid; an exact one is none any more."""
    low, high = estimate.low, estimate.high
    if estimate.value is not None:
        low, high = estimate.value if low is None else low, estimate.value if high is None else high
    return replace(
        estimate, low=None if low is None else low * max(0.0, 1 - added), high=None if high is None else high * (1 + short),
        kind="estimate" if estimate.kind == "exact" else estimate.kind,
    )  # fmt: skip
