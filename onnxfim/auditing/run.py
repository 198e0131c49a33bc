"""The audit: from a model and its samples to one `Audit` object, stage by stage."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing import planning
from onnxfim.auditing.cache import Cache, Memory
from onnxfim.auditing.context import ENDS, Context, Found, Ground
from onnxfim.auditing.entry import entered
from onnxfim.auditing.found_batch import find_batch
from onnxfim.auditing.inputs import arranged, given_shape
from onnxfim.auditing.measuring import looked_over, measured, way_of
from onnxfim.auditing.meter import Forecast, Meter, Progress, Report
from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.served_answers import keep_answers
from onnxfim.auditing.served_model import as_model
from onnxfim.auditing.stages import batch_rows, bounding, choosing, clean, conclusion, input_scaling, tied
from onnxfim.auditing.subject import CallableModel, check_shape, hardware_of
from onnxfim.auditing.tied_samples import TiedSamples
from onnxfim.data import Samples, from_arrays, from_steps
from onnxfim.data.class_labels import in_order_of
from onnxfim.data.iterables import is_whole
from onnxfim.errors import InputError, SettingsError
from onnxfim.graph.choosing_inputs import batch_first, choose_input
from onnxfim.graph.load import ModelFile, load_model
from onnxfim.record.audit import Audit, GradientInfo
from onnxfim.record.dates import report_date
from onnxfim.record.running import UNMEASURED
from onnxfim.record.settings import Settings
from onnxfim.record.steps import StepChoice
from onnxfim.runtime.stopping import Stop, current_stop
from onnxfim.runtime.threads import one_blas_thread
from onnxfim.runtime.watching import current_watch

Array: TypeAlias = np.ndarray[Any, Any]
Model: TypeAlias = str | Path | ModelFile | CallableModel

#: Labelled samples read for accuracy and temperature beyond those audited: one forward pass each.
CALIBRATION_SAMPLES = 2000

_log = logging.getLogger(__name__)


def audit(
    model: Model,
    inputs: Array | Mapping[str, Array] | Samples | Iterable[Any],
    labels: Array | None = None,
    settings: Settings | None = None,
    *,
    progress: Report | None = None,
    cache_dir: str | Path | None = None,
    stop: Stop | None = None,
) -> Audit:
    """Estimate the sensitivity of a classifier's output distribution, lambda_max(F(x)), on samples.

    Args:
        model: Path of an ONNX file, address of a served model, or what `from_callable` or `from_url` returned.
        inputs: Samples (N, *shape) in the model's own units: an array, a tensor, a frame, or `data.Samples`; of a model with
            several inputs also such arrays by the inputs' names, those that are held among them. Or an iterable, such as a
            DataLoader, whose steps give x, (x, y) or a dict, of one sample or a batch; no more is taken of it than is audited.
        labels: Class indices (N,), or names of classes, for accuracy and calibrated values.
        settings: What to do; defaults as on the command line.
        progress: Called as the audit goes on, with a `Progress`: at every stage, and a few times a second in a long one.
        cache_dir: Folder to keep what was computed in, by the file's hash: spectral bounds, and the model's answers as they
            come, so that an interrupted audit goes on where it stopped. None computes all anew.
        stop: What asks it to end, from another thread or a signal's handler; no handler is installed here.

    Returns:
        The audit; ``run.partial`` is set where it was ended early, by ``stop``, an interrupt or, with ``run.stopped``, by a failing
        provider. Samples that were not measured by then are listed as skipped. ``run.failed_stages`` are the stages without which
        it went on.

    Raises:
        OnnxFimError: the model, the data or a setting cannot be used; nothing was measured then.

    Examples:
        >>> import numpy as np
        >>> import onnxfim
        >>> with np.load("digits.npz") as data:
        ...     audit = onnxfim.audit("digits_resnet.onnx", data["inputs"][:50], data["labels"][:50], onnxfim.Settings(replay=0))
        >>> audit.verdict, audit.run.method
        ('measured', 'gradient')
    """
    started = time.perf_counter()
    report_date()  # one that cannot be is refused before any work
    with (stop or current_stop() or Stop()).current() as heeded:
        context = opened(model, inputs, labels, settings or Settings(), progress, cache_dir)
        heeded.heeded = True
        info = context.subject.info
        _log.info("opened %s: %s (%s), %d samples", info.name, info.output_kind, info.read_from, len(context.samples))
        with one_blas_thread(), closing(context.memory):
            return _staged(context, started)


def planned_step(model: Model, inputs: Array | Samples, settings: Settings, progress: Report | None = None) -> StepChoice:
    """The step and scheme that `audit` would choose for this model on these samples, without measuring them.

    ``progress`` is called as the choice goes on.

    Raises:
        OnnxFimError: as `audit`.
    """
    context = opened(model, inputs, None, settings, progress, None)
    planning.step_alone(context)
    cleaned = clean.clean_pass(context)
    return choosing.choose(context, cleaned, tied.find(context, cleaned), brief=False).step


def _staged(context: Context, started: float) -> Audit:
    """All stages in order; what was finished is kept, whatever ends them early."""
    ground, ended = grounded(context)
    ground, found = (ground, _unmeasured(ended)) if ended is not None else _kept(ground)
    reading, scaling = None, None
    if not found.interrupted:
        try:
            scaling = input_scaling.check(ground)
            reading = bounding.read(ground)
        except ENDS as end:
            found = found.ended(end)
    return conclusion.conclude(ground, tied.told(ground, found), reading, started, scaling)


def grounded(context: Context) -> tuple[Ground, KeyboardInterrupt | None]:
    """What measuring begins from, and the interrupt that ended it before; what is missing then says so."""
    cleaned, rows, ties, calibration, chosen, ended = None, None, TiedSamples(), None, None, None
    try:
        tried = batch_rows.try_rows(context)
        cleaned = clean.clean_pass(context)
        rows = batch_rows.with_clean_pass(context, tried, cleaned)
        ties = tied.find(context, cleaned)
        calibration = choosing.fit_temperature(context, cleaned)
        chosen = choosing.choose(context, cleaned, ties)
    except KeyboardInterrupt as end:
        ended = end
    cleaned = cleaned or clean.not_run(context)
    calibration = calibration or choosing.unfitted(context, UNMEASURED)
    if chosen is None:
        chosen = choosing.Chosen(choosing.unchosen(context, UNMEASURED, cleaned))
    ground = Ground(**vars(context), clean=cleaned, calibration=calibration, step=chosen.step, rows=rows, ties=ties)
    return replace(ground, ladder=chosen.rows, brief=chosen.brief), ended


def _unmeasured(ended: KeyboardInterrupt) -> Found:
    """What is found where an interrupt came before any sample was finished."""
    return Found("sketch", GradientInfo(False, UNMEASURED, False, None, None, 0, None)).ended(ended)


def _kept(ground: Ground) -> tuple[Ground, Found]:
    """What was measured, whenever it is interrupted, and the ground that it was measured on."""
    try:
        return _measured(ground)
    except KeyboardInterrupt as end:
        return ground, _unmeasured(end)


def _measured(ground: Ground) -> tuple[Ground, Found]:
    """Every sample's result, and what all of them together tell, with the ground on which they were measured."""
    way, found = measured(way_of(ground))
    return way.ground, looked_over(way, found)


def opened(
    model: Model, inputs: Array | Mapping[str, Array] | Samples | Iterable[Any], labels: Array | None, settings: Settings,
    report: Report | None, cache_dir: str | Path | None, *, meter: Meter | None = None, batch: int | None = None,
) -> Context:  # fmt: skip
    """The context of an audit: model and samples opened and checked against each other; ``batch`` is one that was found before."""
    meter = Meter(report, current_stop()) if meter is None else meter
    meter.say("opening the model")
    file = as_model(model, settings)
    if settings.verifier is not None:
        _verifier_fits(file, settings)
    samples = inputs if isinstance(inputs, Samples) else samples_of(file, inputs, labels, settings)
    if len(samples) == 0:
        raise InputError("data: no sample is left to audit. Pass at least one sample.")
    if isinstance(file, ModelFile):
        file, samples = _arranged(file, samples, settings, meter)
    _step_fits(settings.step, samples.inputs.dtype)
    subject = open_subject(file, samples.inputs, settings, engines=None if cache_dir is None else Path(cache_dir))
    samples = in_order_of(samples, subject.classes)
    memory = Memory(None if cache_dir is None else Cache(Path(cache_dir)))
    context = Context(subject, samples, settings, meter, memory)
    keep_answers(context)
    if batch is None or not subject.forward.finder.remember(batch):
        find_batch(context)
    planning.begun(context)
    return context


def _arranged(file: ModelFile, samples: Samples, settings: Settings, meter: Meter) -> tuple[ModelFile, Samples]:
    """The model with one input, others held, and its samples; both at the value that is audited from where that is another."""
    moved = [choose_input(file, name, settings.output) for name in settings.inputs or (None,)]
    into, hardware = moved[0], hardware_of(settings)
    whole = next((i.name for i in moved if not i.dtype.startswith("float")), None)
    if len(moved) > 1 and (settings.at is not None or whole is not None):
        why = "--at names one value" if whole is None else f"{whole!r} takes whole numbers, behind which one value is perturbed"
        raise InputError(f"{file.path}: {why}, expected one --input. Name one, and hold the others by --feed.")
    batch_first(file, into.name)
    if file.at is not None or (whole is None and settings.at in (None, into.name)):
        found = arranged(file, samples, settings, hardware)
        return found.file, found.samples
    check_shape(into.name, samples.inputs.shape[1:], given_shape(file, into, settings.shape))
    inside, values = entered(file, samples, settings, hardware, meter)
    current_watch().knows(values.inputs, np.searchsorted(samples.indices, values.indices))
    return inside, values


def _verifier_fits(model: ModelFile | CallableModel, settings: Settings) -> None:
    """Refuse a verifier that cannot be called, or that there is no file for, before any work."""
    from onnxfim.verifiers.verifier_commands import verifier_command  # few audits ask one

    assert settings.verifier is not None
    verifier_command(settings.verifier)
    if settings.verifier_model is not None:
        load_model(settings.verifier_model)
    elif not isinstance(model, ModelFile):
        raise SettingsError(
            "--verifier: the model is no file, and a verifier reads files. Name a file of the same network by --verifier-model, or "
            "drop --verifier."
        )


def _step_fits(step: float | None, dtype: np.dtype[Any]) -> None:
    """Refuse a step that leads beyond the numbers of the model's input; several of it are taken at a time."""
    most = float(np.finfo(dtype).max) / 16 if dtype.kind == "f" else math.inf
    if step is not None and step > most:
        raise SettingsError(f"step: {step:.3g} leads beyond the numbers of {dtype}, expected at most {most:.3g}. Give less.")


def samples_of(
    model: ModelFile | CallableModel, inputs: Array | Mapping[str, Array] | Iterable[Any], labels: Array | None, settings: Settings
) -> Samples:
    """Arrays as samples that a model takes, those that are read for its calibration among them."""
    if isinstance(model, CallableModel):
        shape: tuple[int | None, ...] = model.input_shape
        dtype = np.dtype(model.dtype)
    else:
        into = choose_input(model, settings.inputs, settings.output)
        shape, dtype = given_shape(model, into, settings.shape), np.dtype(into.dtype)
    limit = None if settings.samples is None else max(settings.samples, CALIBRATION_SAMPLES)
    held: Mapping[str, Array] = {}
    name = "input" if isinstance(model, CallableModel) else into.name
    if isinstance(inputs, Mapping):
        inputs, held = _perturbed_of(inputs, name)
    elif isinstance(inputs, (str, Path)):
        raise InputError(f"inputs: {str(inputs)!r} is a path, expected samples. Read them with onnxfim.load_samples.")
    elif not is_whole(inputs):
        if labels is not None:
            raise InputError("labels: stand beside an iterable of samples, expected in its steps. Let each step give (x, y).")
        others = () if isinstance(model, CallableModel) else tuple(i.name for i in model.graph.inputs if i.name != name)
        return from_steps(
            inputs, shape=shape, dtype=dtype, limit=limit, input_name=name, held=others, moved=settings.inputs[1:],
        )  # fmt: skip
    return from_arrays(inputs, labels, shape=shape, dtype=dtype, limit=limit, held=held, moved=settings.inputs[1:])


def _perturbed_of(inputs: Mapping[str, Array], name: str) -> tuple[Array, Mapping[str, Array]]:
    """The values of the input that is perturbed, and those of the others."""
    if name not in inputs:
        found = ", ".join(map(repr, inputs)) or "none"
        raise InputError(f"inputs: hold no values of {name!r} (found {found}), expected those of the input that is perturbed.")
    return inputs[name], {key: values for key, values in inputs.items() if key != name}


__all__ = ["CALIBRATION_SAMPLES", "Forecast", "Progress", "audit", "planned_step"]
