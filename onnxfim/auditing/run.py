"""The audit: from a model and its samples to one `Audit` object, stage by stage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.cache import Cache, Memory
from onnxfim.auditing.context import ENDS, Context, Found, Ground
from onnxfim.auditing.meter import Meter, Progress, Report
from onnxfim.auditing.stages import (
    against_surrogate,
    attack,
    batch_rows,
    bounding,
    by_differences,
    by_gradients,
    choosing,
    clean,
    conclusion,
    crosscheck,
    flipping,
    input_scaling,
    refining,
    replay,
    tied,
    unmeasurable,
)
from onnxfim.auditing.subject import CallableModel, open_subject
from onnxfim.data import Samples, from_arrays
from onnxfim.errors import InputError
from onnxfim.graph.load import ModelFile, choose_input, load_model, sample_shape
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from onnxfim.record.steps import StepChoice
from onnxfim.runtime.failures import OutOfMemory
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.threads import one_blas_thread

Array: TypeAlias = np.ndarray[Any, Any]
Model: TypeAlias = str | Path | ModelFile | CallableModel

#: Labelled samples read for accuracy and temperature beyond those audited: one forward pass each.
CALIBRATION_SAMPLES = 2000

_log = logging.getLogger(__name__)


def audit(
    model: Model,
    inputs: Array | Samples,
    labels: Array | None = None,
    settings: Settings | None = None,
    *,
    progress: Report | None = None,
    cache_dir: str | Path | None = None,
) -> Audit:
    """Estimate the sensitivity of a classifier's output distribution, lambda_max(F(x)), on samples.

    Args:
        model: Path of an ONNX file, or what `from_callable` returned.
        inputs: Samples (N, *shape) in the model's own units, or `data.Samples`.
        labels: Class indices (N,), for accuracy and calibrated values.
        settings: What to do; defaults as on the command line.
        progress: Called as the audit goes on.
        cache_dir: Folder to keep what was computed in, by the file's hash: spectral bounds, and the model's answers as they
            come, so that an interrupted audit goes on where it stopped. None computes all anew.

    Returns:
        The audit; ``run.partial`` is set where it was ended early, by an interrupt or, with ``run.stopped``, by a failing provider.

    Raises:
        OnnxFimError: the model, the data or a setting cannot be used; nothing was measured then.

    Example:
        >>> import numpy as np
        >>> import onnxfim
        >>> with np.load("digits.npz") as data:
        ...     audit = onnxfim.audit("digits_resnet.onnx", data["inputs"][:50], data["labels"][:50], onnxfim.Settings(replay=0))
        >>> audit.verdict, audit.run.method
        ('measured', 'gradient')
    """
    started = time.perf_counter()
    context = opened(model, inputs, labels, settings or Settings(), progress, cache_dir)
    with one_blas_thread(), closing(context.memory):
        return _staged(context, started)


def planned_step(model: Model, inputs: Array | Samples, settings: Settings) -> StepChoice:
    """The step and scheme that `audit` would choose for this model on these samples, without measuring them.

    Raises:
        OnnxFimError: as `audit`.
    """
    context = opened(model, inputs, None, settings, None, None)
    cleaned = clean.clean_pass(context)
    return choosing.choose(context, cleaned, tied.find(context, cleaned))


def _staged(context: Context, started: float) -> Audit:
    """All stages in order; an interrupt after the clean pass keeps what was finished."""
    tried = batch_rows.try_rows(context)
    cleaned = clean.clean_pass(context)
    rows = batch_rows.with_clean_pass(context, tried, cleaned)
    ties = tied.find(context, cleaned)
    calibration = choosing.fit_temperature(context, cleaned)
    chosen = choosing.choose(context, cleaned, ties)
    ground = Ground(**vars(context), clean=cleaned, calibration=calibration, step=chosen, rows=rows, ties=ties)
    found = _measured(ground)
    reading, scaling = None, None
    try:
        scaling = input_scaling.check(ground)
        reading = bounding.read(ground)
    except ENDS as end:
        found = found.ended(end)
    return conclusion.conclude(ground, tied.told(ground, found), reading, started, scaling)


def _measured(ground: Ground) -> Found:
    """Every sample's result, by gradients with their checks where there is a derivative to trust, else by differences."""
    if (reason := unmeasurable.why_unmeasurable(ground)) is not None:
        found = unmeasurable.without_values(ground, reason)
        decides = ground.settings.flip and not (ground.rows is not None and ground.rows.dependent)
        blind: list[Callable[[Found], Found]] = [lambda found: flipping.flip(ground, found, flipping.blind_ways(ground))]
        return _unless_interrupted(found, blind if decides else [])
    derivative = by_gradients.differentiate(ground)
    route, measured = derivative.route, None
    if route is not None:
        try:
            measured = by_gradients.measure(ground, derivative, route)
        except OutOfMemory as error:  # nothing was measured: one sample with one seed is too much
            derivative, route = by_gradients.without_memory(ground, derivative, error), None
    if route is None or measured is None:
        plan = by_differences.plan(ground)
        first = by_differences.first_round(ground, plan, derivative.info)
        found = refining.refine(ground, plan, first) if plan.refines and not first.found.interrupted else first.found
        after: list[Callable[[Found], Found]] = []
        if against_surrogate.has_surrogate(ground):
            after.append(lambda found: against_surrogate.check_surrogate(ground, found))
        if ground.settings.flip:
            after.append(lambda found: flipping.flip(ground, found, by_differences.ways(ground, plan, found)))
        return _unless_interrupted(found, after)
    later: list[Callable[[Found], Found]] = [lambda found: crosscheck.cross_check(ground, found)]
    if ground.settings.flip:
        later.append(lambda found: flipping.flip(ground, found, by_gradients.ways(ground, route)))
    if ground.settings.replay:
        later.append(lambda found: replay.replay(ground, route, found))
    if ground.settings.attack is not None:
        later.append(lambda found: attack.attack(ground, route, found))
    return _unless_interrupted(measured, later)


def _unless_interrupted(found: Found, stages: Sequence[Callable[[Found], Found]]) -> Found:
    """What was found after these stages; an interrupt or a provider's failure ends them and keeps what was found before."""
    for stage in stages:
        if found.interrupted:
            break
        try:
            found = stage(found)
        except ENDS as end:
            found = found.ended(end)
    return found


def opened(
    model: Model, inputs: Array | Samples, labels: Array | None, settings: Settings, report: Report | None,
    cache_dir: str | Path | None,
) -> Context:  # fmt: skip
    """The context of an audit: model and samples opened and checked against each other."""
    file = model if isinstance(model, (CallableModel, ModelFile)) else load_model(model)
    samples = inputs if isinstance(inputs, Samples) else _samples(file, inputs, labels, settings)
    if len(samples) == 0:
        raise InputError("data: no sample is left to audit. Pass at least one sample.")
    subject = open_subject(file, samples.inputs, settings, engines=None if cache_dir is None else Path(cache_dir))
    subject.forward.find_batch(rows_that_run(subject.forward.outputs, samples.inputs, 1))
    context = Context(subject, samples, settings, Meter(report), Memory(None if cache_dir is None else Cache(Path(cache_dir))))
    _log.info("opened %s: %s (%s), %d samples", subject.info.name, subject.info.output_kind, subject.info.read_from, len(samples))
    return context


def _samples(model: ModelFile | CallableModel, inputs: Array, labels: Array | None, settings: Settings) -> Samples:
    if isinstance(model, CallableModel):
        shape: tuple[int | None, ...] = model.input_shape
        dtype = np.dtype(model.dtype)
    else:
        into = choose_input(model, settings.input)
        shape, dtype = sample_shape(into), np.dtype(into.dtype)
    limit = None if settings.samples is None else max(settings.samples, CALIBRATION_SAMPLES)
    return from_arrays(inputs, labels, shape=shape, dtype=dtype, limit=limit)


__all__ = ["CALIBRATION_SAMPLES", "Progress", "audit", "planned_step"]
