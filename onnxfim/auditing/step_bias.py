"""The step's bias in the statistics over the samples: it is common to all of them and does not average out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from onnxfim.record.decision import Aggregate, Aggregates
from onnxfim.record.steps import StepBias, StepChoice

#: Power of lambda_max in each measure that a step changes.
POWERS = {
    "lambda_max": 1.0, "lambda_max_calibrated": 1.0, "lambda_max_raw_units": 1.0, "lambda_max_standardised": 1.0, "trace": 1.0,
    "logit_sensitivity": 0.5, "boundary_distance": -0.5,
}  # fmt: skip


def with_step_bias(aggregates: Mapping[str, Aggregates], step: StepChoice, method: str) -> dict[str, Aggregates]:
    """Statistics whose intervals hold the range of the step's bias, where values carry its factor; others as they are."""
    bias = step.bias
    if bias is None or not bias.applied or method == "gradient":
        return dict(aggregates)
    return {name: _widened(found, bias, POWERS[name]) if name in POWERS else found for name, found in aggregates.items()}


def _widened(found: Aggregates, bias: StepBias, power: float) -> Aggregates:
    ends = sorted((end / bias.factor) ** power for end in (bias.low, bias.high))

    def wide(one: Aggregate) -> Aggregate:
        low = None if one.low is None else one.low * min(ends[0], 1.0)
        return replace(one, low=low, high=None if one.high is None else one.high * max(ends[1], 1.0))

    statistics = {f.name: getattr(found, f.name) for f in fields(found)}
    changed: dict[str, Any] = {name: wide(a) for name, a in statistics.items() if isinstance(a, Aggregate)}
    return replace(found, **changed)
