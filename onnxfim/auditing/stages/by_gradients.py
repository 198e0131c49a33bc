"""Measuring by gradients: derive and test the graphs, then measure every sample through them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.cache import remembered_results
from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.instruments import measurer
from onnxfim.auditing.meter import MeteredModel
from onnxfim.auditing.stages import stage
from onnxfim.auditing.subject import Differentiable
from onnxfim.errors import ModelError, OnnxFimError
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.audit import GradientInfo
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.slopes.exact import GradientRoute
from onnxfim.slopes.logarithms import with_rounding

Array: TypeAlias = np.ndarray[Any, Any]

_TESTED = 4  # samples of the self-test
_MARGIN = 0.05  # of the range
_STEP_ERROR = 1e-4  # relative: float32 passes


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
    if source is None or ground.report is None:
        return Derivative(none)
    rows = ground.X[ground.clean.audited[:_TESTED]]
    surrogate = ground.settings.surrogate and _quantised(source)
    try:
        model = MeteredModel(
            source.proto, meter=ground.meter, input_name=source.input_name, output_name=source.logits, shape=ground.X.shape[1:],
            num_outputs=ground.base.shape[1], settings=ground.settings, base_dir=source.base_dir, provider=ground.provider,
        )  # fmt: skip
        test = model.self_test(
            _inside(rows, ground.subject.limits) if surrogate else rows, _original(ground, model, surrogate),
            seed=ground.settings.seed,
        )  # fmt: skip
    except OnnxFimError as error:
        return Derivative(replace(none, reason=" ".join(str(error).rstrip(".").split())))
    reason = None if test.passed else f"self-test failed: {test.reason}"
    adjoint, difference = (e if math.isfinite(e) else None for e in (test.adjoint_error, test.difference_error))
    info = GradientInfo(test.passed, reason, surrogate, adjoint, difference, 0, None)
    if not test.passed:
        return Derivative(info)
    exact = replace(measurer(ground, exact=True), gradient=True, step_error=_STEP_ERROR)
    return Derivative(info, GradientRoute(model, exact, ground.settings.seed))


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


def _quantised(source: Differentiable) -> bool:
    return any(n.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for n in source.proto.graph.node)


@stage("measuring by gradients")
def measure(ground: Ground, derivative: Derivative, route: GradientRoute) -> Found:
    """All audited samples; an interrupt keeps those that were finished.

    Raises:
        KeyboardInterrupt: nothing was finished yet.
    """
    settings, calibration = ground.settings, ground.calibration
    targets = [ground.sample(i) for i in ground.clean.audited]
    ground.meter.expect(len(targets), "samples")
    asked = (settings.sigma, settings.input_scale, settings.surrogate, settings.seed)
    read = (ground.reader.identity, calibration.temperature, calibration.reason)
    store = ground.store(gradients=(*read, *asked))
    results: dict[int, SampleResult] = {}
    skipped, interrupted = list(ground.clean.skipped), False
    try:
        for position, result in remembered_results(
            store, ground.X, targets, lambda some: route.measure(ground.X, ground.base, some), ground.meter
        ):
            ground.meter.advance(1)
            ground.say("measuring")
            if ground.subject.of_logarithm:
                result = with_rounding(result, float(np.finfo(ground.subject.info.input_dtype).eps))
            if math.isfinite(result.lambda_max.value or 0.0):
                results[position] = result
            else:
                skipped.append(Skipped(ground.index(position), "the derivative is not finite at this sample"))
    except KeyboardInterrupt:
        if not results:
            raise
        interrupted = True
    return Found("gradient", derivative.info, results, tuple(skipped), interrupted)
