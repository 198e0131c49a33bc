"""The check of a file that rounds: its dithered values against the derivative of its clip surrogate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.derivatives import derive
from onnxfim.auditing.instruments import measurer
from onnxfim.auditing.meter import MeteredModel
from onnxfim.auditing.stages import stage
from onnxfim.errors import OnnxFimError
from onnxfim.gradients.selftest import SelfTest
from onnxfim.graph.quantised import rounding_operators
from onnxfim.record import streams
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.record.statistics import Z95
from onnxfim.record.steps import StepChoice, SurrogateCheck
from onnxfim.slopes.exact import FEW_CLASSES, GradientRoute

Array: TypeAlias = np.ndarray[Any, Any]

_TESTED = 4  # samples of the self-test
_JITTER = 0.05  # standard deviations: a surrogate's clips have kinks where many inputs lie
_MARGIN = 0.05  # of the range that the file tells apart
_STEP_ERROR = 1e-4  # relative: float32 passes
_FEW, _MANY = 64, 12  # samples: whole Jacobians cost some 10 passes each, Lanczos iterations 100 and more
#: Samples that are compared at most.
MOST = _FEW
_PART = 0.5  # of the passes of measuring that the check may take
_ITERATED = 120  # passes of a sample by Lanczos iterations (94 to 130 at 1,001 classes)


def has_surrogate(ground: Ground) -> bool:
    """Whether the file is quantised and was measured as such, so that a surrogate may be held against it."""
    source = ground.subject.differentiable
    rounds = source is not None and ground.hardware is not None and bool(rounding_operators(source.proto))
    return rounds and ground.step.scheme == "dithered"


@stage("checking against the surrogate", instead=lambda ground, reason, found: _without(found, reason))
def check_surrogate(ground: Ground, found: Found) -> Found:
    """Measure the clip surrogate on audited samples beside the file's own values."""
    outputs = ground.base[0].size
    cost = 2 + outputs if outputs <= FEW_CLASSES else _ITERATED
    samples = len(ground.clean.audited) if ground.coupling is None else ground.coupling.samples
    paid = int(_PART * ground.settings.budget * samples // cost)
    if paid == 0:
        reason = f"the surrogate's derivative takes about {cost:,} passes a sample: too much beside an audit of so few passes"
        return _without(found, reason)
    ground.say("checking against the surrogate")
    settings = replace(ground.settings, surrogate=True)
    at = ground.clean.audited[:_TESTED]
    rows = _jittered(ground.X[at], ground)

    def tested(model: MeteredModel) -> SelfTest:
        # The surrogate differs from the file by design: its derivative is tested against itself.
        def own(x: Array) -> Array:
            return model.vjp(x, np.zeros((1, len(x), model.num_outputs)), at)[0]

        return model.self_test(rows, own, seed=settings.seed, of=at)

    derived = derive(ground, settings, tested)
    if derived.model is None:
        return _without(found, derived.reason if derived.test is None else f"the surrogate's {derived.reason}")
    model = derived.model
    try:
        exact = replace(measurer(ground, exact=True), gradient=True, step_error=_STEP_ERROR, bias=None)
        route = GradientRoute(model, exact, settings.seed, positions=ground.base.shape[2])
        places = {ground.index(p): p for p in found.results}
        wanted = [places[i] for i in order_of(places, ground.step) if found.results[places[i]].lambda_max.value is not None]
        chosen = wanted[: min(paid, _FEW if route.few else _MANY)]
        values = dict(route.measure(ground.X, ground.base, [ground.sample(p) for p in chosen]))
    except OnnxFimError as error:
        return _without(found, " ".join(str(error).rstrip(".").split()))
    pairs = [(found.results[p].lambda_max, values[p]) for p in chosen]
    checked = compared(pairs, (1.0, 1.0) if ground.step.bias is None else (ground.step.bias.low, ground.step.bias.high))
    return found if checked is None else replace(found, gradient=replace(found.gradient, check=checked))


def compared(pairs: Sequence[tuple[Estimate, SampleResult]], ends: tuple[float, float]) -> SurrogateCheck | None:
    """The file's mean over the surrogate's; None where neither has a value.

    Args:
        pairs: The file's estimate and the surrogate's result, per sample.
        ends: Range of the step's bias.
    """
    known = [(e, s.lambda_max.value) for e, s in pairs if e.value is not None and s.lambda_max.value is not None]
    surrogate = sum(s for _, s in known)
    if not known or surrogate <= 0:
        return None
    file = sum(e.value or 0.0 for e, _ in known)
    # Noise is independent between samples; the bias, common to all, was already part of each interval.
    errors = [((e.high or e.value or 0.0) - (e.value or 0.0)) / Z95 for e, _ in known]
    relative = math.sqrt(sum(v * v for v in errors)) / file if file > 0 else 0.0
    half = math.exp(Z95 * min(relative, 5.0))
    n = len(known)
    return SurrogateCheck(n, file / n, surrogate / n, file / surrogate, file / surrogate / half, file / surrogate * half)


def order_of(indices: Iterable[int], step: StepChoice) -> list[int]:
    """Measured samples in the order in which they are compared: first those that the step was chosen on, which carry the mean."""
    return sorted(indices, key=lambda i: (i not in step.samples, i))


def _jittered(rows: Array, ground: Ground) -> Array:
    """Rows moved off the ends of the range that the file tells apart, and off ties."""
    rng = np.random.default_rng([ground.settings.seed, streams.SELF_TEST])
    moved = rows + _JITTER * ground.step.input_std * rng.standard_normal(rows.shape)
    if ground.subject.limits is not None:
        low, high = ground.subject.limits
        margin = _MARGIN * (high - low)
        moved = np.clip(moved, low + margin, high - margin)
    return np.asarray(moved, rows.dtype)


def _without(found: Found, reason: str | None) -> Found:
    return replace(found, gradient=replace(found.gradient, no_check=reason))
