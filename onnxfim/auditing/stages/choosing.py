"""Accuracy and temperature from the clean outputs, and the choice of the step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Clean, Context, Ground
from onnxfim.auditing.stages import stage
from onnxfim.auditing.tied_samples import TiedSamples
from onnxfim.errors import OnnxFimError
from onnxfim.graph.quantised import computes_in_half, rounding_operators, rounds_inside_products
from onnxfim.record.audit import Calibration
from onnxfim.record.steps import StepChoice
from onnxfim.runtime.rows import AroundForward, PlacedForward, Rows
from onnxfim.slopes.calibration import calibrate
from onnxfim.slopes.differences import ROWS_PER_DIRECTION
from onnxfim.slopes.dithering import LEAST_DIRECTIONS, LEAST_PASSES, LEAST_QUANTISED, Means, Probe
from onnxfim.slopes.exact import FEW_CLASSES
from onnxfim.slopes.ladder_rows import LadderRows
from onnxfim.slopes.step import LARGE_STEPS, MOST_SAMPLES, QUANTISERS, calibration_positions, choose_step, is_quantised

Array: TypeAlias = np.ndarray[Any, Any]

_ENOUGH = 6  # samples that the ladder climbs at
_OUTPUTS, _REPEATED = 40, 0.5  # outputs that say something, and the share of different ones of outputs on a grid


def unfitted(context: Context, reason: str, *_: object) -> Calibration:
    """No calibration, and why; a temperature that was given is one all the same."""
    given = context.settings.temperature
    return Calibration(
        None, None, None, None, given, None, None, reason=None if given is not None else f"no temperature: {reason}",
        log_error=None if given is None else 0.0, method="" if given is None else "given",
    )  # fmt: skip


def unchosen(context: Context, reason: str, clean: Clean, *_: object) -> StepChoice:
    """No step, and why."""
    given = context.settings.step
    return StepChoice(
        step=given or 0.0, scheme="central", plateau=False, given=given is not None, input_std=clean.scales.pooled,
        noise_floor=None, repeat_noise=0.0, error=None, smallest_usable=None, dither=None, curve=(), samples=(), directions=0,
        evaluations=0, unchosen=reason,
    )  # fmt: skip


@stage("calibration", instead=unfitted, told=(OnnxFimError,))
def fit_temperature(context: Context, clean: Clean) -> Calibration:
    """Accuracy, confidence and temperature on all usable samples."""
    labels = None if context.samples.labels is None else context.samples.labels[clean.usable]
    return calibrate(context.reader, clean.base[clean.usable], labels, context.settings.temperature)


@dataclass(frozen=True)
class Chosen:
    """The step, and what was measured to choose it.

    Attributes:
        step: The choice.
        rows: Outputs along the ladder, which serve as measurements where step and scheme are the chosen ones.
        brief: Whether the ladder was cut short, for gradients were to be had, which do not depend on the step.
    """

    step: StepChoice
    rows: LadderRows = field(default_factory=LadderRows)
    brief: bool = False


def choose(context: Context, clean: Clean, ties: TiedSamples, *, brief: bool | None = None) -> Chosen:
    """Step and scheme, by the ladder on a few of the audited samples; in brief where a derivative is to be expected."""
    rows = LadderRows()
    brief = derivable(context) if brief is None else brief
    step = _choose(context, clean, ties, rows, brief)
    if not brief:  # else another choice may follow
        rows.only(step.step, step.dither)
    return Chosen(step, rows, brief)


def with_care(ground: Ground) -> Ground:
    """The ground with the step that differences need, where it was chosen in brief; what the ladder measured by then stays."""
    before, rows = ground.step, ground.ladder
    if not ground.brief or before.unchosen is not None:
        return ground
    step = _choose(ground, ground.clean, ground.ties, rows, False)
    rows.only(step.step, step.dither)
    return replace(ground, step=replace(step, evaluations=step.evaluations + before.evaluations), brief=False)


@stage("choosing the step", instead=unchosen, told=(OnnxFimError,))
def _choose(context: Context, clean: Clean, ties: TiedSamples, rows: LadderRows, brief: bool) -> StepChoice:
    settings = context.settings
    smooth = ties.untied(clean.audited)
    good = smooth if len(smooth) >= _ENOUGH else clean.audited  # at a tie no step has a plateau
    if context.reader.has_classes:
        p = context.reader.probabilities(clean.base[good])
        undecided = (p * (1 - p)).sum(axis=(1, 2))
    else:
        undecided = np.zeros(len(good))
    passes = len(clean.audited) * (_by_gradients(clean) if brief else settings.budget)
    rounding = _rounding(context, clean)
    dithered = is_quantised(context.subject.level, rounding) and settings.scheme in ("auto", "dithered")
    means = Means(
        max(LEAST_DIRECTIONS, (settings.budget - 1) // ROWS_PER_DIRECTION["dithered"]), len(good), passes,
        LEAST_QUANTISED if dithered else LEAST_PASSES,
    )  # fmt: skip
    chosen = good[calibration_positions(undecided, means.climbers(MOST_SAMPLES) if dithered else MOST_SAMPLES)]
    probe = Probe(context.X[chosen], clean.base[chosen], tuple(context.index(i) for i in chosen))
    after = 0 if brief else passes
    context.meter.further(int(means.ladder) + after)
    context.say("choosing the step")
    shown = PlacedForward(_Shown(context, after), chosen)
    rounded = context.subject.unit > 0
    # Of outputs rounded to digits the sample's own are off by as much in all directions, and the directions are dither enough.
    scheme = "central" if rounded and settings.scheme == "auto" else settings.scheme
    found = choose_step(
        shown, context.reader, probe, input_std=clean.scales.pooled, seed=settings.seed, step=settings.step, scheme=scheme,
        level=context.subject.level, limits=context.subject.limits, rounding=rounding, means=means, field=clean.scales.random,
        brief=brief, rows=rows, further=LARGE_STEPS if rounded else (),
    )  # fmt: skip
    context.meter.further(after)
    return found


class _Shown(AroundForward):
    """The audited model, whose rows show in the progress: before so many passes of measuring."""

    def __init__(self, context: Context, after: int) -> None:
        super().__init__(context.forward)
        self._context, self._after = context, after

    def outputs(self, X: Array, of: Array | None = None) -> Array:
        return self._told(self._forward.outputs(X, of))

    def stream(self, X: Array, batches: Iterable[Rows], of: Array | None = None) -> Iterator[Array]:
        with closing(self._forward.stream(X, batches, of)) as answers:  # type: ignore[type-var]  # generators all
            yield from map(self._told, answers)

    def _told(self, z: Array) -> Array:
        meter = self._context.meter
        meter.advance(len(z))
        if meter.done + self._after > meter.total:  # no plateau: more steps than a quarter pays for
            meter.further(self._after)
        self._context.say("choosing the step")
        return z


def derivable(context: Context) -> bool:
    """Whether the samples will be measured by gradients, as far as that can be told before the derivative is made."""
    settings, source = context.settings, context.subject.differentiable
    if settings.method not in ("auto", "gradient") or source is None or context.hardware is None:
        return False
    return settings.surrogate or not rounding_operators(source.proto)


def _by_gradients(clean: Clean) -> int:
    """Passes of a sample by gradients: its Jacobian, or about as many products as many classes take."""
    return 1 + min(clean.base[0].size, FEW_CLASSES)


def _rounding(context: Context, clean: Clean) -> str | None:
    """What shows that the file rounds its values, in words; None where nothing does."""
    file = context.subject.file
    if context.subject.unit:
        return f"its outputs are multiples of {context.subject.unit:g}"
    if file is not None:
        if operators := rounding_operators(file.proto):
            return f"{QUANTISERS} ({', '.join(operators)})"
        if (inside := rounds_inside_products(file.proto)) is not None:
            return inside
        if computes_in_half(file.proto):
            return "the graph computes with 16-bit floats"
    outputs = clean.base[clean.audited]
    different = len(np.unique(outputs))
    if outputs.size >= _OUTPUTS and 1 < different <= outputs.size * _REPEATED:
        return f"its {outputs.size:,} outputs take {different:,} values only"
    return None
