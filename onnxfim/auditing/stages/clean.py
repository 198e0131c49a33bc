"""The clean pass: outputs at the samples themselves, and which samples can be audited."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Clean, Context
from onnxfim.auditing.stages import stage
from onnxfim.errors import InputError
from onnxfim.record.sample import Skipped
from onnxfim.runtime.forgiving import why_not
from onnxfim.slopes.spread import spread_of

Array: TypeAlias = np.ndarray[Any, Any]


@stage("clean pass")
def clean_pass(context: Context) -> Clean:
    """Outputs at all samples, and the positions of the usable and of the audited ones.

    Raises:
        InputError: labels that the model has no outputs for, or no finite output at all.
    """
    context.say("clean pass")
    base = context.forward.outputs(context.X, context.positions)
    _check_labels(context, base)
    finite = np.isfinite(base).all(axis=(1, 2))
    skipped = tuple(Skipped(context.index(i), _reason(context, i)) for i in np.flatnonzero(~finite).tolist())
    usable = np.flatnonzero(finite)
    if len(usable) == 0:
        raise InputError("model: no output is finite on any sample, expected numbers. Check the inputs' scale and the model.")
    audited = _audited(context, usable)
    return Clean(base, usable, audited, (*context.samples.skipped, *skipped), spread_of(context.X, audited, apart=context.joint))


def not_run(context: Context) -> Clean:
    """What is known of the samples where the pass was interrupted: which ones were to be audited, and no output."""
    planned = _audited(context, np.arange(len(context.X)))
    info = context.subject.info
    base = np.full((len(context.X), info.num_outputs, info.positions), np.nan)
    return Clean(base, planned[:0], planned, context.samples.skipped, spread_of(context.X, planned, apart=context.joint))


def _reason(context: Context, position: int) -> str:
    """Why a sample cannot be used."""
    here = slice(position, position + 1)
    said = why_not(lambda row: context.subject.forward.outputs(row, context.positions[here]), context.X[here])
    return "the model's output is not finite at this sample" if said is None else f"the runtime fails on it: {said}"


def _check_labels(context: Context, base: Array) -> None:
    labels = context.samples.labels
    if labels is None or not context.reader.has_classes:
        return
    classes = context.reader.classes(base.shape[1])
    bad = np.flatnonzero(labels >= classes)
    allowed = "0" if classes == 1 else f"0 to {classes - 1}"
    if len(bad):
        raise InputError(
            f"data: label {int(labels[bad[0]])} of sample {context.index(bad[0])}, expected {allowed} for "
            f"{base.shape[1]} output{'' if base.shape[1] == 1 else 's'}. Check the labels, or name the right output with --output."
        )


def _audited(context: Context, usable: Array) -> Array:
    """The samples to audit among the usable ones: the first ones, or a seeded draw where the order is by class (folders)."""
    count = context.settings.samples
    if count is None or count >= len(usable):
        return usable
    if not context.samples.by_class:
        return usable[:count]
    return np.sort(np.random.default_rng(context.settings.seed).permutation(usable)[:count])
