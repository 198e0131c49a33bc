"""All measures of one sample from its outputs along directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.audit import StepBias
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, Ends, Sample, Scheme, unchanged_share
from onnxfim.slopes.estimators import (
    boundary_distance_estimate,
    effective_rank,
    lambda_max_cross,
    lambda_max_exact,
    lambda_max_sketch,
    sensitivity_estimate,
    top_eigenvalues,
    trace_estimate,
)
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

#: Why there is no boundary distance.
NO_CLASSES = "defined for a classifier with one decision per sample"


@dataclass(frozen=True)
class Measurer:
    """Turns the ends of one sample's steps into its result.

    Attributes:
        reader: What the outputs are.
        scheme: How the ends were made.
        exact: The directions are all coordinates.
        gradient: The slopes along the coordinates came from the derivative of the graph.
        temperature: Fitted temperature, or None.
        temperature_reason: Why there is none.
        step_error: Relative error of the differences, measured on the ladder; the interval of exact values.
        scales: Smallest, root-mean-square and largest d(model input)/d(raw input), or None.
        scale_field: The same per coordinate, (d,), where it is known.
        bias: What lambda_max at the step is short of; None where nothing is to be made good.
    """

    reader: OutputReader
    scheme: Scheme
    exact: bool
    gradient: bool
    temperature: float | None
    temperature_reason: str | None
    step_error: float
    scales: tuple[float, float, float] | None
    scale_field: Array | None = None
    bias: StepBias | None = None

    def __call__(self, sample: Sample, base: Array, parts: Sequence[Ends]) -> SampleResult:
        """The result of one sample.

        Args:
            sample: Whose it is.
            base: Its outputs, (K, P).
            parts: Ends along disjoint ranges of its directions.
        """
        directions = sum(e.request.count for e in parts)
        # A cotangent counts as one pass; it costs about as much (tests/benchmarks/bench_gradients.py).
        passes = base.shape[0] if self.gradient else directions * ROWS_PER_DIRECTION[self.scheme]
        evaluations = 1 + passes
        joined = _joined(parts)
        raw, Y, Y2 = self._lambda(base, joined, 1.0, evaluations)
        calibrated = None if self.temperature is None else self._lambda(base, joined, self.temperature, evaluations)[0]
        resolved = raw.value is not None
        trace = trace_estimate(Y, Y2, exact=self.exact, evaluations=evaluations)
        trace = self._widened(trace) if resolved else replace(trace, value=None, low=None, high=None, reason=raw.reason)
        distance, sensitivity = self._slopes(base, joined, evaluations, raw.reason)
        eigenvalues = top_eigenvalues(Y) if self.exact and resolved else ()
        raw, trace = self._at_no_step(raw), self._at_no_step(trace)
        calibrated = None if calibrated is None else self._at_no_step(calibrated)
        distance, sensitivity = self._at_no_step(distance, -0.5), self._at_no_step(sensitivity, 0.5)
        return self.result(
            sample,
            base,
            lambda_max=raw,
            calibrated=calibrated,
            raw_units=self._raw_units(raw, Y),
            trace=trace,
            boundary_distance=distance,
            logit_sensitivity=sensitivity,
            eigenvalues=eigenvalues,
            evaluations=evaluations,
            directions=directions,
            unchanged=self._unchanged(parts),
        )

    def result(
        self, sample: Sample, base: Array, *, lambda_max: Estimate, calibrated: Estimate | None, raw_units: Estimate | None,
        trace: Estimate, boundary_distance: Estimate, logit_sensitivity: Estimate, eigenvalues: tuple[float, ...],
        evaluations: int, directions: int, unchanged: float = 0.0,
    ) -> SampleResult:  # fmt: skip
        """One sample's result: what was measured of it by any route, and what follows from that and from its outputs.

        Args:
            sample: Whose it is.
            base: Its outputs, (K, P).
            lambda_max, trace, boundary_distance, logit_sensitivity: As measured.
            calibrated: lambda_max at the fitted temperature; None where there is no temperature.
            raw_units: lambda_max per squared raw input unit; None where the scale is not known.
            eigenvalues: The largest ones of F.
            evaluations: Forward passes spent.
            directions: Directions, or products, that were measured.
            unchanged: Share of random directions that changed nothing.
        """
        reader, outputs = self.reader, base[None]
        return SampleResult(
            index=sample.index,
            name=sample.name,
            label=sample.label,
            prediction=int(reader.predictions(outputs)[0]) if reader.has_classes and base.shape[1] == 1 else None,
            confidence=float(reader.confidences(outputs)[0]) if reader.has_classes else None,
            lambda_max=lambda_max,
            lambda_max_calibrated=Estimate(None, reason=self.temperature_reason) if calibrated is None else calibrated,
            trace=trace,
            effective_rank=effective_rank(trace, lambda_max),
            boundary_distance=boundary_distance,
            logit_sensitivity=logit_sensitivity,
            evaluations=evaluations,
            directions=directions,
            unchanged=unchanged,
            lambda_max_raw_units=raw_units,
            top_eigenvalues=eigenvalues,
        )

    def _unchanged(self, parts: Sequence[Ends]) -> float:
        """Share of random directions that changed nothing; a coordinate without influence is no sign of rounding."""
        if self.exact:
            return 0.0
        return float(np.average([unchanged_share(e) for e in parts], weights=[e.request.count for e in parts]))

    def _lambda(self, base: Array, ends: Ends, temperature: float, evaluations: int) -> tuple[Estimate, Array, Array | None]:
        """lambda_max at a temperature, with the scores (and their dithered twins) it came from."""
        scores = self.reader.scores(base, ends.plus, ends.minus, ends.h, temperature)
        if ends.twin is not None:
            twin = self.reader.scores(base, ends.twin.plus, ends.twin.minus, ends.h, temperature)
            return lambda_max_cross(scores, twin, evaluations=evaluations), scores, twin
        if not (ends.plus != ends.minus).any():
            reason = "no direction changed any output at this step: the model's own rounding hides the slope"
            return Estimate(None, None, None, "estimate", "", evaluations, reason), scores, None
        method = "derivative of the graph" if self.gradient else f"{self.scheme} differences"
        if self.exact:
            sketch = lambda_max_exact(scores, evaluations=evaluations, method=f"all coordinates, {method}")
            return self._widened(sketch), scores, None
        return lambda_max_sketch(scores, evaluations=evaluations, method=f"Gram sketch, {method}"), scores, None

    def _slopes(self, base: Array, ends: Ends, evaluations: int, reason: str | None) -> tuple[Estimate, Estimate]:
        """Boundary distance and logit sensitivity, both independent of temperature."""
        if reason is not None:
            return Estimate(None, reason=reason), Estimate(None, reason=reason)
        D = self.reader.slopes(ends.plus, ends.minus, ends.h)  # (m, K, P)
        twin = None if ends.twin is None else self.reader.slopes(ends.twin.plus, ends.twin.minus, ends.h)
        other = None if twin is None else twin.reshape(len(D), -1)
        sensitivity = sensitivity_estimate(D.reshape(len(D), -1), other, exact=self.exact, evaluations=evaluations)
        sensitivity = self._widened(sensitivity)
        if not self.reader.has_classes or base.shape[1] != 1:
            return Estimate(None, reason=NO_CLASSES), sensitivity
        z, slopes = self.reader.contest(base, D)
        twins = None if twin is None else self.reader.contest(base, twin)[1]
        distance = boundary_distance_estimate(z, slopes, twins, exact=self.exact, evaluations=evaluations)
        return self._widened(distance), sensitivity

    def _at_no_step(self, estimate: Estimate, power: float = 1.0) -> Estimate:
        """An estimate with what the step keeps from it made good; ``power`` is that of lambda_max in it.

        The interval holds the factor's range beside the estimate's own noise, as independent parts of its logarithm.
        """
        bias = self.bias
        if bias is None or not estimate.value:
            return estimate
        factor, *ends = (b**power for b in (bias.factor, bias.low, bias.high))
        value = estimate.value * factor

        def end(own: float | None, most: float, sign: int) -> float | None:
            if own is None or own <= 0 or estimate.value is None:
                return own
            return value * math.exp(sign * math.hypot(math.log(own / estimate.value), math.log(most / factor)))

        def scaled(v: float | None) -> float | None:
            return None if v is None else v * factor

        return replace(
            estimate, value=value, low=end(estimate.low, min(ends), -1), high=end(estimate.high, max(ends), 1),
            plain=scaled(estimate.plain), cross_fit=scaled(estimate.cross_fit),
        )  # fmt: skip

    def _widened(self, estimate: Estimate) -> Estimate:
        """An exact estimate with the differences' own error as its interval; others stay."""
        if estimate.kind != "exact" or estimate.value is None:
            return estimate
        factor = 1 + self.step_error
        return replace(estimate, low=estimate.value / factor, high=estimate.value * factor)

    def _raw_units(self, estimate: Estimate, Y: Array) -> Estimate | None:
        """lambda_max per squared raw input unit: between ``s²_min λ`` and ``s²_max λ`` where the channels' scales differ.

        Over all coordinates it is exact: ``F_raw = S F S``.
        """
        if self.scales is None or estimate.value is None:
            return None
        if self.exact and self.scale_field is not None:
            sketch = lambda_max_exact(Y * self.scale_field[:, None], evaluations=estimate.evaluations, method=estimate.method)
            return self._widened(sketch)
        return self.raw_units_by_bracket(estimate)

    def raw_units_by_bracket(self, estimate: Estimate) -> Estimate | None:
        """lambda_max per squared raw unit from that per squared model unit: exact for equal scales, else between two bounds."""
        if self.scales is None or estimate.value is None:
            return None
        least, mean, most = (s**2 for s in self.scales)
        low, high = estimate.low, estimate.high
        return replace(
            estimate,
            value=estimate.value * mean,
            low=None if low is None else low * least,
            high=None if high is None else high * most,
            kind=estimate.kind if least == most else "estimate",
        )


def _joined(parts: Sequence[Ends]) -> Ends:
    """Ends along all directions of a sample."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    minus = first.minus if len(first.minus) == 1 else np.concatenate([e.minus for e in parts])
    twins = [e.twin for e in parts if e.twin is not None]
    return Ends(first.request, np.concatenate([e.plus for e in parts]), minus, first.h, _joined(twins) if twins else None)
