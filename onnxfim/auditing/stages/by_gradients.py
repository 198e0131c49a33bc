"""Measuring by gradients: derive and test the graphs, then measure every sample through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.cache import remembered_results
from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.instruments import allowed_inputs, measurer
from onnxfim.auditing.meter import MeteredModel
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.flipping import Ways
from onnxfim.auditing.stages.tied import surrounding
from onnxfim.errors import ModelError, OnnxFimError
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.gradients.selftest import deviations
from onnxfim.graph.quantised import rounding_operators
from onnxfim.record.audit import GradientInfo
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.slopes.differences import Sample
from onnxfim.slopes.exact import GradientRoute
from onnxfim.slopes.logarithms import with_rounding
from onnxfim.slopes.one_sided import Surroundings, one_sided

Array: TypeAlias = np.ndarray[Any, Any]

_TESTED = 4  # samples of the self-test
_MARGIN = 0.05  # of the range
_STEP_ERROR = 1e-4  # relative, at least: what float32 passes leave


@dataclass(frozen=True)
class Derivative:
    """How far the derivative came and why not further; ``route`` is None where there is none to trust."""

    info: GradientInfo
    route: GradientRoute | None = None


def differentiate(ground: Ground) -> Derivative:
    """The derivative graphs with their self-test, where gradients were asked for or may be used.

    Raises:
        ModelError: gradients were asked for and there are none.
    """
    method = ground.settings.method
    if method not in ("auto", "gradient"):
        return Derivative(GradientInfo(False, ground.subject.no_gradient, False, None, None, 0, None))
    derivative = open_derivative(ground)
    if derivative.route is None and method == "gradient":
        raise ModelError(f"{ground.subject.info.name}: no gradients ({derivative.info.reason}). Use --method sketch.")
    return derivative


@stage("differentiating")
def open_derivative(ground: Ground) -> Derivative:
    """Derive and test the graphs."""
    ground.say("differentiating")
    source = ground.subject.differentiable
    none = GradientInfo(False, ground.subject.no_gradient, False, None, None, 0, None)
    if source is None or ground.hardware is None:
        return Derivative(none)
    rows = ground.X[ground.clean.audited[:_TESTED]]
    surrogate = ground.settings.surrogate and bool(rounding_operators(source.proto))
    try:
        model = MeteredModel(
            source.proto, meter=ground.meter, input_name=source.input_name, output_name=source.logits, shape=ground.X.shape[1:],
            num_outputs=ground.base.shape[1], settings=ground.settings, base_dir=source.base_dir, hardware=ground.hardware,
        )  # fmt: skip
        test = model.self_test(
            _inside(rows, ground.subject.limits) if surrogate else rows, _original(ground, model, surrogate),
            seed=ground.settings.seed, spread=deviations(surrounding(ground, ground.clean)),
        )  # fmt: skip
    except OnnxFimError as error:
        return Derivative(replace(none, reason=" ".join(str(error).rstrip(".").split())))
    reason = None if test.passed else f"self-test failed: {test.reason}"
    adjoint, difference = (e if math.isfinite(e) else None for e in (test.adjoint_error, test.difference_error))
    info = GradientInfo(test.passed, reason, surrogate, adjoint, difference, 0, None)
    if not test.passed:
        return Derivative(info)
    smooth = ground.ties.untied(ground.clean.audited)
    rows = ground.X[smooth[:_TESTED] if len(smooth) else ground.clean.audited[:_TESTED]]
    rounding = max(_STEP_ERROR, min(model.rounding(rows, seed=ground.settings.seed), 1.0))
    exact = replace(measurer(ground, exact=True), gradient=True, step_error=rounding)
    return Derivative(info, GradientRoute(model, exact, ground.settings.seed, allowed_inputs(ground)))


def ways(ground: Ground, route: GradientRoute) -> Ways:
    """Where to look for flips of samples that were measured by gradients."""
    names = ("the Fisher direction", "the slope of the nearest boundary")
    return Ways(lambda some: route.directions(ground.X, ground.base, some), names, lambda r: 1.0, others=False)


def _original(ground: Ground, model: DifferentiableModel, surrogate: bool) -> Callable[[Array], Array]:
    """What the derivative is tested against; a surrogate differs from the file by design: it is tested against itself."""
    if surrogate:
        return lambda rows: model.vjp(rows, np.zeros((1, len(rows), model.num_outputs)))[0]
    return lambda rows: ground.forward.outputs(rows)[:, :, 0]


def _inside(rows: Array, limits: tuple[float, float] | None) -> Array:
    """Rows moved off the ends of the range that the file tells apart: a surrogate's clip has a kink there."""
    if limits is None:
        return rows
    low, high = limits
    margin = _MARGIN * (high - low)
    return np.clip(rows, low + margin, high - margin).astype(rows.dtype)


@stage("measuring by gradients")
def measure(ground: Ground, derivative: Derivative, route: GradientRoute) -> Found:
    """All audited samples; one of `ENDS` keeps those that were finished.

    Raises:
        KeyboardInterrupt, ProviderFailed, OutOfMemory: nothing was finished yet.
    """
    settings, calibration = ground.settings, ground.calibration
    targets = [ground.sample(i) for i in ground.clean.audited]
    ground.meter.expect(len(targets), "samples")
    asked = (settings.sigma, settings.input_scale, settings.surrogate, settings.seed)
    read = (ground.reader.identity, calibration.temperature, calibration.log_error, calibration.reason)
    store = ground.store(gradients=(*read, *asked, ground.scales.identity, "one-sided at ties", route.measurer.step_error))
    measured = partial(_measured, ground, route)
    box = allowed_inputs(ground)
    results: dict[int, SampleResult] = {}
    skipped, ended = list(ground.clean.skipped), None
    try:
        for position, result in remembered_results(
            store, ground.X, targets, measured, ground.meter, route.leads, (box.low, box.high)
        ):
            ground.meter.advance(1)
            ground.say("measuring")
            if ground.subject.of_logarithm:
                result = with_rounding(result, float(np.finfo(ground.subject.info.input_dtype).eps))
            if math.isfinite(result.lambda_max.value or 0.0):
                results[position] = result
            else:
                skipped.append(Skipped(ground.index(position), "the derivative is not finite at this sample"))
    except ENDS as end:
        if not results:
            raise
        ended = end
    return Found("gradient", derivative.info, results, tuple(skipped)).ended(ended)


def _measured(ground: Ground, route: GradientRoute, samples: Sequence[Sample]) -> Iterator[tuple[int, SampleResult]]:
    """Results of the samples with their positions; at ties with their one-sided slopes."""
    around: Surroundings | None = None
    for sample, (position, result) in zip(samples, route.measure(ground.X, ground.base, samples), strict=True):
        if position in ground.ties and math.isfinite(result.lambda_max.value or 0.0):
            around = around or _surroundings(ground)
            before = ground.meter.passes
            result = one_sided(route, ground.X[position], ground.base[position], sample, result, around)
            result = replace(result, evaluations=result.evaluations + ground.meter.passes - before)
        yield position, result


def _surroundings(ground: Ground) -> Surroundings:
    rows = surrounding(ground, ground.clean)
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    middle = (float(low.min()) + float(high.max())) / 2  # of all coordinates, for those that do not vary
    return Surroundings(deviations(rows), np.where(high > low, (low + high) / 2, middle), ground.settings.seed)
