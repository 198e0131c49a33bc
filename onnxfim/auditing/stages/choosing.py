"""Accuracy and temperature from the clean outputs, and the choice of the step."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Clean, Context
from onnxfim.auditing.stages import stage
from onnxfim.auditing.tied_samples import TiedSamples
from onnxfim.errors import OnnxFimError
from onnxfim.graph.quantised import computes_in_half, rounding_operators, rounds_inside_products
from onnxfim.record.audit import Calibration
from onnxfim.record.steps import StepChoice
from onnxfim.slopes.calibration import calibrate
from onnxfim.slopes.differences import ROWS_PER_DIRECTION
from onnxfim.slopes.dithering import Means, Probe
from onnxfim.slopes.step import QUANTISERS, calibration_positions, choose_step

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


@stage("choosing the step", instead=unchosen, told=(OnnxFimError,))
def choose(context: Context, clean: Clean, ties: TiedSamples) -> StepChoice:
    """Step and scheme, by the ladder on a few of the audited samples."""
    context.say("choosing the step")
    settings = context.settings
    smooth = ties.untied(clean.audited)
    good = smooth if len(smooth) >= _ENOUGH else clean.audited  # at a tie no step has a plateau
    if context.reader.has_classes:
        p = context.reader.probabilities(clean.base[good])
        undecided = (p * (1 - p)).sum(axis=(1, 2))
    else:
        undecided = np.zeros(len(good))
    chosen = good[calibration_positions(undecided)]
    probe = Probe(context.X[chosen], clean.base[chosen], tuple(context.index(i) for i in chosen))
    return choose_step(
        context.forward, context.reader, probe, input_std=clean.scales.pooled, seed=settings.seed, step=settings.step,
        scheme=settings.scheme, level=context.subject.level, limits=context.subject.limits, rounding=_rounding(context, clean),
        means=Means(max(8, (settings.budget - 1) // ROWS_PER_DIRECTION["dithered"]), len(good)), field=clean.scales.random,
    )  # fmt: skip


def _rounding(context: Context, clean: Clean) -> str | None:
    """What shows that the file rounds its values, in words; None where nothing does."""
    file = context.subject.file
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
