"""Measuring by gradients: derive and test the graphs, then measure every sample through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.cache import remembered_results
from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.derivatives import derive
from onnxfim.auditing.instruments import allowed_inputs, measurer
from onnxfim.auditing.meter import MeteredModel
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.flipping import Ways
from onnxfim.auditing.stages.replay import replayed
from onnxfim.auditing.stages.tied import surrounding
from onnxfim.errors import ModelError
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.gradients.selftest import SelfTest, deviations
from onnxfim.graph.quantised import rounding_operators
from onnxfim.record.audit import GradientInfo
from onnxfim.record.packed import layout_of
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.runtime.available_memory import available_memory
from onnxfim.runtime.call_memory import SHARE
from onnxfim.runtime.failures import OutOfMemory
from onnxfim.slopes.differences import Sample
from onnxfim.slopes.exact import FEW_CLASSES, GradientRoute, bytes_of_bases
from onnxfim.slopes.logarithms import with_rounding
from onnxfim.slopes.one_sided import Surroundings, one_sided

Array: TypeAlias = np.ndarray[Any, Any]

_TESTED = 4  # samples of the self-test
_TRIED = 64  # samples among which those of the self-test are sought where the runtime fails on the first
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


def without_memory(ground: Ground, derivative: Derivative, error: OutOfMemory) -> Derivative:
    """No derivative, for there is no memory to take it.

    Raises:
        ModelError: gradients were asked for.
    """
    reason = str(error).rstrip(".")
    if ground.settings.method == "gradient":
        raise ModelError(f"{ground.subject.info.name}: no gradients ({reason}). Use --method sketch.") from error
    return Derivative(replace(derivative.info, used=False, reason=reason))


@stage("differentiating", instead=lambda ground, reason: Derivative(GradientInfo(False, reason, False, None, None, 0, None)))
def open_derivative(ground: Ground) -> Derivative:
    """Derive and test the graphs."""
    ground.say("differentiating")
    source = ground.subject.differentiable
    if source is None or ground.hardware is None:
        return Derivative(GradientInfo(False, ground.subject.no_gradient, False, None, None, 0, None))
    if (short := _short(ground)) is not None:
        return Derivative(GradientInfo(False, short, False, None, None, 0, None))
    surrogate = ground.settings.surrogate and bool(rounding_operators(source.proto))

    audited, failing = ground.clean.audited, False

    def test_on(model: MeteredModel, at: Array) -> SelfTest:
        rows = ground.X[at]
        return model.self_test(
            _inside(rows, ground.subject.limits) if surrogate else rows, _original(ground, model, surrogate, rows, at),
            seed=ground.settings.seed, spread=deviations(surrounding(ground, ground.clean)),
            products=ground.base[0].size > FEW_CLASSES, of=at,
        )  # fmt: skip

    def tested(model: MeteredModel) -> SelfTest:
        nonlocal failing
        first = audited[:_TESTED]
        test = test_on(model, first)
        if test.passed:
            return test
        others = _that_run(ground, model, audited)
        failing = not np.array_equal(others, first)
        return test_on(model, others) if failing else test

    derived = derive(ground, ground.settings, tested)
    test, model = derived.test, derived.model
    adjoint, difference = (
        None if test is None or not math.isfinite(e) else e
        for e in ((test.adjoint_error, test.difference_error) if test is not None else (math.nan, math.nan))
    )
    info = GradientInfo(
        model is not None, derived.reason, surrogate and test is not None, adjoint, difference, 0, None,
        provider=derived.elsewhere, provider_reason=derived.why_elsewhere,
    )  # fmt: skip
    if model is None:
        return Derivative(info)
    rounding = None if ground.coupling is None else ground.coupling.step_error
    if rounding is None:
        smooth = ground.ties.untied(audited)
        smooth = smooth if len(smooth) else audited
        rows = _that_run(ground, model, smooth) if failing else smooth[:_TESTED]
        rounding = max(_STEP_ERROR, min(model.rounding(ground.X[rows], seed=ground.settings.seed, of=rows), 1.0))
    exact = replace(measurer(ground, exact=True), gradient=True, step_error=rounding)
    route = GradientRoute(model, exact, ground.settings.seed, allowed_inputs(ground), positions=ground.base.shape[2])
    return Derivative(info, route)


def _short(ground: Ground) -> str | None:
    """Why the vectors of an iteration over all outputs at all positions have no memory; None where they have."""
    _, classes, positions = ground.base.shape
    needed, left = bytes_of_bases(classes * positions), available_memory()
    if positions == 1 or left is None or needed <= SHARE * left:
        return None
    return (
        f"{classes:,} outputs at {positions:,} positions: the vectors of their slopes need about {needed / 1e6:,.0f} MB, and "
        f"{left / 1e6:,.0f} MB are available to the process"
    )


def _that_run(ground: Ground, model: MeteredModel, positions: Array) -> Array:
    """The first few of these positions whose derivative the runtime does not fail on; the first of all where there are none."""
    some = positions[:_TRIED]
    good = np.flatnonzero(model.that_run(ground.X[some], some))
    return some[good[:_TESTED]] if len(good) else positions[:_TESTED]


def ways(ground: Ground, route: GradientRoute) -> Ways:
    """Where to look for flips of samples that were measured by gradients."""
    names = ("the Fisher direction", "the slope of the nearest boundary")
    directions = partial(route.directions, ground.X, ground.base)

    def replayed_later(results: Mapping[int, SampleResult]) -> Collection[int]:
        if ground.coupling is not None:  # where shards are merged
            return ()
        chosen = {r.index for r in replayed(list(results.values()), ground.settings.replay)} if ground.settings.replay else ()
        return [p for p, r in results.items() if r.index in chosen]

    return Ways(directions, names, lambda r: 1.0, others=False, again=replayed_later)


def _original(
    ground: Ground, model: DifferentiableModel, surrogate: bool, tested: Array, of: Array
) -> Callable[[Array], Array]:  # fmt: skip
    """What the derivative is tested against, at or beside the samples of these positions; a surrogate differs from the file by
    design: it is tested against itself."""
    if surrogate:
        return lambda rows: model.vjp(rows, np.zeros((1, len(rows), model.num_outputs)), of)[0]
    if ground.subject.turns is None:
        return lambda rows: ground.forward.outputs(rows, of).reshape(len(rows), -1)
    known = ground.forward.outputs(tested, of).reshape(len(tested), -1)  # first, while the model's own session is open

    def original(rows: Array) -> Array:
        return known if rows is tested else ground.forward.outputs(rows, of).reshape(len(rows), -1)

    return original


def _inside(rows: Array, limits: tuple[float, float] | None) -> Array:
    """Rows moved off the ends of the range that the file tells apart: a surrogate's clip has a kink there."""
    if limits is None:
        return rows
    low, high = limits
    margin = _MARGIN * (high - low)
    return np.clip(rows, low + margin, high - margin).astype(rows.dtype)


@stage("measuring by gradients", instead=lambda ground, reason, derivative, route: None)
def measure(ground: Ground, derivative: Derivative, route: GradientRoute) -> Found | None:
    """All audited samples; one of `ENDS` keeps those that were finished; None where it fails unexpectedly.

    Raises:
        KeyboardInterrupt, ProviderFailed, OutOfMemory: nothing was finished yet.
    """
    settings, calibration = ground.settings, ground.calibration
    targets = [ground.sample(i) for i in ground.clean.audited]
    ground.meter.expect(len(targets), "samples")
    ground.say("measuring by gradients")
    asked = (settings.sigma, settings.input_scale, settings.surrogate, settings.seed, *filter(None, [derivative.info.provider]))
    read = (ground.reader.identity, calibration.temperature, calibration.log_error, calibration.reason)
    known = (ground.scales.identity, "one-sided at ties", route.measurer.step_error, layout_of(SampleResult))
    store = ground.store(gradients=(*read, *asked, *known))
    measured = partial(_measured, ground, route)
    box = allowed_inputs(ground)
    results: dict[int, SampleResult] = {}
    skipped, ended = list(ground.clean.skipped), None
    kept = remembered_results(
        store, ground.X, targets, measured, ground.meter, route.leads, route.held, (box.low, box.high),
        block=route.samples_per_call, beside=ground.samples.held,
    )  # fmt: skip
    try:
        for position, result in kept:
            ground.meter.advance(1)
            ground.meter.measured(len(targets), route.samples_per_call)
            ground.say("measuring")
            if ground.subject.of_logarithm:
                result = with_rounding(result, ground.base[position], float(np.finfo(ground.subject.info.input_dtype).eps))
            if math.isfinite(result.lambda_max.value or 0.0):
                results[position] = result
            else:
                skipped.append(Skipped(ground.index(position), _why_lost(ground, route, position)))
    except ENDS as end:
        if not results:
            raise
        ended = end
    finally:
        kept.close()
    return Found("gradient", derivative.info, results, tuple(skipped)).ended(ended)


def _why_lost(ground: Ground, route: GradientRoute, position: int) -> str:
    """Why a sample has no derivative."""
    said = route.model.why_not(ground.X[position : position + 1], np.array([position]))
    return "the derivative is not finite at this sample" if said is None else f"the runtime fails on its derivative: {said}"


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
