"""All measures of one sample from its outputs along directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import Estimate, LeadingFeature, SampleResult, with_temperature_error
from onnxfim.record.statistics import Z95
from onnxfim.record.steps import StepBias
from onnxfim.slopes.difference_error import DifferenceError
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, Ends, Sample, Scheme, unchanged_share
from onnxfim.slopes.estimators import (
    boundary_distance_estimate,
    effective_rank,
    lambda_max_cross,
    lambda_max_exact,
    plain_top,
    root_of,
    sensitivity_estimate,
    top_eigenvalues,
    trace_estimate,
    worst_direction,
)
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.rescaling import Rescaling, times
from onnxfim.slopes.scored import Scored, joined
from onnxfim.slopes.sketches import lambda_max_sketches, plain_tops

Array: TypeAlias = np.ndarray[Any, Any]

#: Why there is no boundary distance.
NO_CLASSES = "defined for a classifier with one decision per sample"
#: How values came about whose slopes along all coordinates are the derivative's.
GRADIENT = "all coordinates, derivative of the graph"
#: Why there is no value in standard deviations.
NO_DEVIATION = "no input varies over the audited samples: there is no standard deviation to measure in"
_ALTERNATING = 6.0  # two roundings, each even over one unit in the last place: a variance of a sixth of that squared


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
        temperature_error: Standard error of its logarithm.
        step_error: Relative error of the slopes along all coordinates where it is not measured at the sample itself.
        rounding: Relative rounding of one output by its type.
        grain: Relative rounding of the slopes by sums inside the model, as far as the inputs' own size tells it.
        raw: Units of the raw inputs, before a normalisation, or None.
        standardised: The inputs' standard deviations, or None where nothing varies.
        features: Of each coordinate the feature it belongs to, (d,), where features differ in scale; else None.
        unit: Where random directions are those of standardised inputs, what their slopes are multiplied by; else None. There are
            no values in the inputs' own units then, for the reason in ``without``.
        without: Why not.
        parts: How many directions in turn make up one, whose slope is the sum of theirs.
        bias: What lambda_max at the step is short of; None where nothing is to be made good.
    """

    reader: OutputReader
    scheme: Scheme
    exact: bool
    gradient: bool
    temperature: float | None
    temperature_reason: str | None
    step_error: float
    rounding: float = 0.0
    grain: float = 0.0
    raw: Rescaling | None = None
    standardised: Rescaling | None = None
    features: Array | None = None
    unit: float | None = None
    without: str = ""
    temperature_error: float = 0.0
    parts: int = 1
    bias: StepBias | None = None

    def __call__(self, sample: Sample, base: Array, parts: Sequence[Ends], scored: Scored | None = None) -> SampleResult:
        """The result of one sample.

        Args:
            sample: Whose it is.
            base: Its outputs, (K, P).
            parts: Ends along disjoint ranges of its directions.
            scored: Their slopes and scores, where others look at them too.
        """
        directions = sum(e.request.count for e in parts)
        # A cotangent counts as one pass; it costs about as much (tests/benchmarks/bench_gradients.py).
        passes = min(base.size, max(directions, base.shape[0])) if self.gradient else directions * ROWS_PER_DIRECTION[self.scheme]
        evaluations = 1 + passes
        scored = Scored(self.reader, base, joined(parts)) if scored is None else scored
        found, hot = self._lambdas(scored, evaluations)
        if self.unit is not None:
            return self._standardised_only(sample, base, found, parts, evaluations, directions)
        raw = found.estimate
        calibrated = None
        if hot is not None:
            calibrated = with_temperature_error(hot.estimate, self._at_ends(scored, hot))
        resolved = raw.value is not None
        error = 0.0 if found.error is None else found.error.frobenius()
        trace = trace_estimate(found.Y, found.twin, exact=self.exact, error=error, evaluations=evaluations)
        trace = self._widened(trace) if resolved else _without(raw.reason)
        distance, sensitivity = self._slopes(scored, evaluations, found)
        # What follows from lambda_max carries its factor; what is measured beside it takes its own.
        trace, distance, sensitivity = self._at_no_step(trace), self._at_no_step(distance, -0.5), self._at_no_step(sensitivity, 0.5)
        return self.result(
            sample,
            base,
            lambda_max=raw,
            calibrated=calibrated,
            raw_units=self._in_units(self.raw, found),
            standardised=self._in_units(self.standardised, found),
            trace=trace,
            boundary_distance=distance,
            logit_sensitivity=sensitivity,
            eigenvalues=top_eigenvalues(found.Y) if self.exact and resolved else (),
            feature=self._leading(found),
            evaluations=evaluations,
            directions=directions,
            unchanged=self._unchanged(parts),
        )

    def _standardised_only(
        self, sample: Sample, base: Array, found: _Found, parts: Sequence[Ends], evaluations: int, directions: int
    ) -> SampleResult:
        """The result along directions of standardised inputs: what is in the inputs' own units is left out, with the reason."""
        none = _without(self.without)
        assert self.unit is not None
        return self.result(
            sample,
            base,
            lambda_max=none,
            calibrated=None if self.temperature is None else none,
            raw_units=None if self.raw is None else none,
            standardised=None if self.standardised is None else times(found.estimate, self.unit**2),
            trace=none,
            boundary_distance=none,
            logit_sensitivity=none,
            eigenvalues=(),
            evaluations=evaluations,
            directions=directions,
            unchanged=self._unchanged(parts),
        )

    def result(self, sample: Sample, base: Array, **measures: Any) -> SampleResult:
        """One sample's result: what was measured of it by any route, and what follows from that and from its outputs (K, P).

        The measures are those of `row`.
        """
        return self.row(sample, self.decisions(base[None])[0], **measures)

    def decisions(self, outputs: Array) -> list[tuple[int | None, float | None]]:
        """Class and confidence of each sample from its outputs (n, K, P), None where there are no classes."""
        n, reader = len(outputs), self.reader
        if not reader.has_classes:
            return [(None, None)] * n
        classes = reader.predictions(outputs).tolist() if outputs.shape[2] == 1 else [None] * n
        return list(zip(classes, reader.confidences(outputs).tolist(), strict=True))

    def row(
        self, sample: Sample, decision: tuple[int | None, float | None], *, lambda_max: Estimate, calibrated: Estimate | None,
        raw_units: Estimate | None, standardised: Estimate | None, trace: Estimate, boundary_distance: Estimate,
        logit_sensitivity: Estimate, eigenvalues: tuple[float, ...], evaluations: int, directions: int, unchanged: float = 0.0,
        feature: LeadingFeature | None = None,
    ) -> SampleResult:  # fmt: skip
        """One sample's result.

        Args:
            sample: Whose it is.
            decision: Its class and confidence, see `decisions`.
            lambda_max, trace, boundary_distance, logit_sensitivity: As measured.
            calibrated: lambda_max at the fitted temperature; None where there is no temperature.
            raw_units: lambda_max per squared raw input unit; None where the scale is not known.
            standardised: lambda_max per squared standard deviation of each input; None where nothing varies.
            eigenvalues: The largest ones of F.
            evaluations: Forward passes spent.
            directions: Directions, or products, that were measured.
            unchanged: Share of random directions that changed nothing.
            feature: The feature that leads the worst direction, where features differ in scale.
        """
        prediction, confidence = decision
        return SampleResult(
            index=sample.index,
            name=sample.name,
            label=sample.label,
            prediction=prediction,
            confidence=confidence,
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
            lambda_max_standardised=Estimate(None, reason=NO_DEVIATION) if standardised is None else standardised,
            leading_feature=feature,
            top_eigenvalues=eigenvalues,
        )

    @property
    def temperature_ends(self) -> tuple[float, ...]:
        """The ends of the temperature's 95 % interval; none where it has no error."""
        if self.temperature is None or self.temperature_error == 0:
            return ()
        return tuple(self.temperature * math.exp(sign * Z95 * self.temperature_error) for sign in (-1, 1))

    def _at_ends(self, scored: Scored, hot: _Found) -> tuple[float, ...]:
        """lambda_max at the ends of the temperature's interval over that at the temperature, from the same slopes.

        Along the same directions: the noise of the estimate is nearly that of the fitted temperature's, and cancels in the ratio of
        plain values.
        """
        if not hot.estimate.value or not self.temperature_ends:
            return ()
        if scored.twin is None and not self.exact:
            tops = plain_tops(np.stack([hot.Y, *(self._wholes(scored.at(t)) for t in self.temperature_ends)])).tolist()
        else:  # one at a time, for those along all coordinates are long
            others = (plain_top(*(self._wholes(s.at(t)) for s in scored.pairs)) for t in self.temperature_ends)
            tops = [plain_top(hot.Y, hot.twin), *others]
        return tuple(top / tops[0] if tops[0] > 0 else 1.0 for top in tops[1:])

    def _unchanged(self, parts: Sequence[Ends]) -> float:
        """Share of random directions that changed nothing; a coordinate without influence is no sign of rounding."""
        if self.exact:
            return 0.0
        return float(np.average([unchanged_share(e) for e in parts], weights=[e.request.count for e in parts]))

    def _lambdas(self, scored: Scored, evaluations: int) -> tuple[_Found, _Found | None]:
        """lambda_max at the model's own temperature, and at the fitted one."""
        ends, T = scored.ends, self.temperature
        if ends.twin is not None or self.exact or not (ends.plus != ends.minus).any():
            return self._lambda(scored, 1.0, evaluations), None if T is None else self._lambda(scored, T, evaluations)
        Ys = [self._wholes(scored.scores), *([] if T is None else [self._wholes(scored.at(T))])]
        D = self._wholes(scored.slopes).reshape(len(Ys[0]), -1)
        if D.shape == Ys[0].shape and self.unit is None:
            Ys.append(D)
        methods = [f"Gram sketch, {self.scheme} differences"] * len(Ys)
        made = lambda_max_sketches(np.stack(Ys), methods, evaluations=evaluations)
        stretch = replace(made[-1], method="Gram sketch") if Ys[-1] is D else None
        return _Found(made[0], Ys[0], stretch=stretch), None if T is None else _Found(made[1], Ys[1])

    def _lambda(self, scored: Scored, temperature: float, evaluations: int) -> _Found:
        """lambda_max at a temperature, with the scores (and their dithered twins, or their errors) it came from."""
        ends = scored.ends
        scores, *twins = (s.scores if temperature == 1.0 else s.at(temperature) for s in scored.pairs)
        if twins:
            scores, twin = self._wholes(scores), self._wholes(twins[0])
            return _Found(self._at_no_step(lambda_max_cross(scores, twin, evaluations=evaluations)), scores, twin)
        if not (ends.plus != ends.minus).any():
            reason = "no direction changed any output at this step: the model's own rounding hides the slope"
            return _Found(Estimate(None, None, None, "estimate", "", evaluations, reason), scores)
        method = GRADIENT if self.gradient else f"all coordinates, {self.scheme} differences"
        error = self._error(scored.base, ends, partial(self.reader.scores, scored.base, temperature=temperature))
        size = 0.0 if error is None else error.norm()
        exact = lambda_max_exact(scores, error=size, evaluations=evaluations, method=method)
        return _Found(self._widened(exact), scores, error=error)

    def _wholes(self, slopes: Array) -> Array:
        """Slopes, or scores, along whole directions from those along their parts."""
        if self.parts == 1:
            return slopes
        return np.asarray(slopes.reshape(-1, self.parts, *slopes.shape[1:]).sum(axis=1))

    def _error(self, base: Array, ends: Ends, linear: Callable[[Array, Array, float | Array], Array]) -> DifferenceError | None:
        """What slopes by central differences along all coordinates may be off by; None where it was not measured at the sample.

        Args:
            base: Outputs at the sample, (K, P).
            ends: Of its steps.
            linear: Slopes or scores from outputs at two ends and their distance.
        """
        if ends.ahead is None:
            return None
        middle = np.broadcast_to(base, ends.plus.shape)
        forward = linear(ends.plus, middle, ends.ahead)
        backward = linear(middle, ends.minus, ends.h - ends.ahead)
        signs = np.where(np.arange(base.shape[0]) % 2, -1.0, 1.0)[:, None]  # outputs that round alike move no probability
        rounded = middle + self.rounding / math.sqrt(_ALTERNATING) * np.abs(base) * signs
        floor = linear(rounded, middle, ends.h)
        # Sums inside round on one grid at both ends, which leaves no trace in the half difference.
        inside = self.grain / 2 * linear(ends.plus, ends.minus, ends.h)
        lengths = [np.linalg.norm(a.reshape(len(a), -1), axis=1) for a in (floor, inside)]
        return DifferenceError((forward - backward).reshape(len(forward), -1) / 2, lengths[0] + lengths[1])

    def _slopes(self, scored: Scored, evaluations: int, found: _Found) -> tuple[Estimate, Estimate]:
        """Boundary distance and logit sensitivity, both independent of temperature."""
        if (reason := found.estimate.reason) is not None:
            return _without(reason), _without(reason)
        base, ends = scored.base, scored.ends
        D, *twins = (self._wholes(s.slopes) for s in scored.pairs)  # (m, K, P)
        twin = twins[0] if twins else None
        other = None if twin is None else twin.reshape(len(D), -1)
        error = self._error(base, ends, self.reader.slopes) if self.exact else None
        size = 0.0 if error is None else error.norm()
        if found.stretch is not None:
            stretch = root_of(found.stretch, evaluations)
        else:
            stretch = sensitivity_estimate(D.reshape(len(D), -1), other, exact=self.exact, error=size, evaluations=evaluations)
        sensitivity = self._widened(stretch)
        if not self.reader.has_classes or base.shape[1] != 1:
            return _without(NO_CLASSES), sensitivity
        z, slopes = self.reader.contest(base, D)
        other = None if twin is None else self.reader.contest(base, twin)[1]
        if error is not None:
            error = replace(error, half=self.reader.contest(base, error.half[:, :, None])[1])
        distance = boundary_distance_estimate(z, slopes, other, exact=self.exact, error=error, evaluations=evaluations)
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
        """A value over all coordinates with the relative error that its slopes have beside what was measured; others stay."""
        if not self.exact or estimate.value is None or not self.step_error:
            return estimate
        factor = 1 + self.step_error
        low, high = estimate.low, estimate.high
        return replace(estimate, low=None if low is None else low / factor, high=None if high is None else high * factor)

    def _in_units(self, units: Rescaling | None, found: _Found) -> Estimate | None:
        """lambda_max in other units of the inputs: exact over all coordinates, else between two bounds."""
        of = found.estimate
        if units is None or of.value is None:
            return None if units is None else _without(of.reason)
        if not self.exact:
            return self.in_units(units, of)
        size = 0.0 if found.error is None else found.error.norm(units.field)
        return self._widened(units.exact(of, found.Y, size))

    def in_units(self, units: Rescaling | None, estimate: Estimate) -> Estimate | None:
        """lambda_max in other units of the inputs from the one in the model's; None where there are no such units."""
        return None if units is None else units.bracketed(estimate)

    def _leading(self, found: _Found) -> LeadingFeature | None:
        """The feature that holds most of the worst direction, where features differ in scale."""
        if not self.exact or self.features is None or self.standardised is None or not found.estimate.value:
            return None
        raw, standardised = (
            np.bincount(self.features, worst_direction(Y) ** 2) for Y in (found.Y, found.Y * self.standardised.field[:, None])
        )
        leading = int(raw.argmax())
        return LeadingFeature(leading, min(float(raw[leading]), 1.0), min(float(standardised[leading]), 1.0))


@dataclass(frozen=True)
class _Found:
    """lambda_max with the scores it came from, their dithered twins, and what they may be off by.

    ``stretch`` is the sketch of the slopes' own Gram matrix, where it was made along with it.
    """

    estimate: Estimate
    Y: Array
    twin: Array | None = None
    error: DifferenceError | None = None
    stretch: Estimate | None = None


def _without(reason: str | None) -> Estimate:
    return Estimate(None, reason=reason)
