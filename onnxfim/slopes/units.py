"""Values of outputs that were rounded to a few digits: what the rounding may have added to them, and what it hides."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.record.steps import StepBias, StepChoice
from onnxfim.slopes.differences import Ends
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

_MOST = 0.5  # of a value that rounding may make up, or hide
_SMALL, _PAID = 10.0, 0.05  # one over a small probability, and the share of a value that noise of coordinates may be


def with_units(
    result: SampleResult, reader: OutputReader, base: Array, ends: Ends, unit: float, bias: StepBias | None = None, *,
    summed: bool = False,
) -> SampleResult:  # fmt: skip
    """The result with the rounding of its outputs in the intervals; without values where it hides them.

    A difference of two rounded outputs is off by a variance of ``unit²/6``, independently along random directions; what that adds
    to λ, and what outputs that never move may hide, the kind tells (`OutputReader.lost`).

    Args:
        result: A sample's.
        reader: Of the outputs.
        base: The outputs at the sample, (K, P).
        ends: Of central differences along all its directions.
        unit: What the outputs are multiples of.
        bias: What curvature within the step may make of the values.
        summed: Whether λ is that of the sum over all directions, which are coordinates, and not of their mean.
    """
    value = result.lambda_max.value
    if value is None or not len(ends.plus):
        return result
    lost = reader.lost(base, ends.plus, ends.minus, float(np.median(np.abs(np.asarray(ends.h)))), unit)
    # Of noise in m rows the largest eigenvalue is (1 + √(K/m))² of its variance.
    spread = math.sqrt(min(1.0, lost.outputs / len(ends.plus)))
    times = len(ends.plus) if summed else 1
    added, short = times * lost.added * (1 + spread) ** 2 / max(value, 1e-300), lost.hidden / max(value, 1e-300)
    if bias is not None:
        added, short = added + 1 - bias.low, short + bias.high - 1
    if not max(added, short) <= _MOST:
        why = f"the outputs are multiples of {unit:g}: their rounding hides the slope"
        none = Estimate(None, reason=why, evaluations=result.evaluations)
        calibrated = result.lambda_max_calibrated if result.lambda_max_calibrated.value is None else none
        return replace(result, lambda_max=none, lambda_max_calibrated=calibrated, trace=none, effective_rank=none)
    return replace(
        result,
        lambda_max=_widened(result.lambda_max, added, short),
        lambda_max_calibrated=_widened(result.lambda_max_calibrated, added, short),
        trace=_widened(result.trace, added * max(1, lost.outputs), short),
    )


def coordinates_tell(step: StepChoice, unit: float, d: int) -> bool:
    """Whether d coordinates, each alone, move outputs that are multiples of ``unit`` by enough of it.

    The noise of d differences adds up in λ; a random direction moves as much as all of them.
    """
    value = next((g.central for g in step.curve if g.step == step.step), None)
    return bool(value) and _SMALL * d * unit**2 / (6.0 * (2 * step.step) ** 2) <= _PAID * (value or 0.0)


def _widened(estimate: Estimate, added: float, short: float) -> Estimate:
    """The estimate with an interval that holds what rounding added and what it hid; an exact one is none any more."""
    low, high = estimate.low, estimate.high
    if estimate.value is not None:
        low, high = estimate.value if low is None else low, estimate.value if high is None else high
    return replace(
        estimate, low=None if low is None else low * max(0.0, 1 - added), high=None if high is None else high * (1 + short),
        kind="estimate" if estimate.kind == "exact" else estimate.kind,
    )  # fmt: skip
