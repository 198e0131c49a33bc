"""What the `audit` command does, in library calls."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.inputs import given_shape
from onnxfim.auditing.isolation import OutOfTime
from onnxfim.auditing.run import CALIBRATION_SAMPLES
from onnxfim.auditing.subject import CallableModel
from onnxfim.cli.cache_folder import cache_folder
from onnxfim.cli.concluding import concluded
from onnxfim.cli.console import Console
from onnxfim.cli.dry_running import dry_run_command
from onnxfim.cli.gating import (
    NOTHING,
    as_baseline,
    read_checks,
    require_same_data,
    warn_of_gates,
)
from onnxfim.cli.identifying import told_by, with_data_files, words_given
from onnxfim.cli.isolating import Runs, runs
from onnxfim.cli.options import setting_value
from onnxfim.cli.outputs import Outputs
from onnxfim.cli.reaching import function_model, given_sizes, is_asked, read_model
from onnxfim.cli.without_report import reasons_written, write_reason
from onnxfim.data import Preprocessing, Samples, load, random_samples
from onnxfim.data.class_labels import class_order
from onnxfim.data.converting import Target
from onnxfim.data.feature_names import feature_names
from onnxfim.data.samples import Choice
from onnxfim.data.user_loader import names_code, read_from
from onnxfim.errors import InputError, SettingsError
from onnxfim.graph.choosing_inputs import choose_input
from onnxfim.graph.load import ModelFile
from onnxfim.record.audit import Audit
from onnxfim.record.dates import report_date
from onnxfim.record.identity import Identity
from onnxfim.record.redacting import without_secrets
from onnxfim.record.settings import SETTINGS, Settings
from onnxfim.verdict.foreseen import Planned

_SYNTHETIC = 32  # samples, where none are asked for


@dataclass(frozen=True)
class LoadedSubject:
    """A model, its samples and its settings, ready to be audited."""

    file: ModelFile | CallableModel
    samples: Samples
    settings: Settings

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read of a model, which no output may overwrite."""
        return self.file.files if isinstance(self.file, ModelFile) else ()


def audit_command(model: str, outputs: Outputs, console: Console, given: Collection[str] = (), **options: Any) -> int:
    """Run an audit from command line options and write its outputs; returns the exit code.

    Raises:
        OnnxFimError: it could not run, an output could not be written, or the baseline does not compare; whatever outputs there
            are were written first.
    """
    if options["fail_on_inconclusive"]:
        console.say("warning: --fail-on-inconclusive has no effect, it is the default now: leave it out", colour="yellow")
    asked = is_asked(model, options)
    if asked and options["isolate"] == "auto" and options["max_memory"] is None:
        options = {**options, "isolate": "off"}  # no ONNX Runtime runs that might die
    how, told = runs(options, console, started=time.monotonic(), several=False), told_by(options, words_given())
    outputs.check([None if asked else model, read_from(options["data"]), options["labels_path"], options["baseline"]])
    if options["verifier"] is not None:
        from onnxfim.verifiers.verifier_commands import verifier_command  # few audits ask one

        verifier_command(options["verifier"])
    if outputs.to_stdout:
        console.take_stdout()
    identity = told.of(Identity("", date=report_date()))
    called = without_secrets(model) if asked else model
    with reasons_written(outputs.targets, called, identity):
        checks = read_checks(options)
        with console.said_where_slow("reading the model and the samples"):
            prepared = prepare(model, as_baseline(options, given, checks.baseline))
        outputs.check_apart(prepared.files)
        warn_of_gates(checks.gates, planned(prepared), console, allow_inconclusive=options["allow_inconclusive"])
        if checks.baseline is not None:
            require_same_data(prepared.samples.sha256, checks.baseline, options["baseline"])
        if options["dry_run"]:
            subject = (model, Candidate(prepared.file, prepared.samples, prepared.settings))
            return dry_run_command([subject], how, console, options, as_json=outputs.json_to_stdout)
        try:
            candidate = Candidate(prepared.file, prepared.samples, prepared.settings)
            measured = _measured(candidate, options, how, console)
        except OutOfTime as error:
            write_reason(outputs.targets, called, str(error), NOTHING, identity)
            console.error(str(error))
            return NOTHING
    if not options["no_cache"] and cache_folder(options) is None:
        times = {**measured.run.times, "cache_trouble": "there is no home folder to keep it in (HOME)"}
        measured = replace(measured, run=replace(measured.run, times=times))
    measured = replace(measured, identity=with_data_files(told.of(measured.identity) or Identity(""), options))
    return concluded(measured, checks, outputs, console, options)


def _measured(candidate: Candidate, options: dict[str, Any], how: Runs, console: Console) -> Audit:
    """The audit: by one process, or divided among devices, or by a Ray cluster; few commands need what divides.

    Raises:
        OnnxFimError: as `Runs.audit`; or options do not go together.
    """
    many = [f"--{name}" for name in ("devices", "ray") if options[name] is not None]
    if not many:
        return how.audit(candidate, options)
    if options["verifier"] is not None:
        raise SettingsError(
            f"{many[0]}: a verifier is asked by one process, expected no --verifier beside it. Drop one of the two."
        )
    if len(many) > 1:
        raise SettingsError(f"{' and '.join(many)}: each divides the audit in its own way, expected one. Drop one of the two.")
    if not isinstance(candidate.model, ModelFile):
        raise SettingsError(f"{many[0]}: a served model is asked by one process, expected a file. Drop it, and see --concurrency.")
    if options["devices"] is not None:
        from onnxfim.cli.dividing import divided_audit

        return divided_audit(candidate, options, how, console)
    from onnxfim.cli.over_ray import over_ray

    return over_ray(how, candidate, options)


def planned(subject: LoadedSubject) -> Planned:
    """What the audit will be made of, as far as it is known before."""
    held, settings = len(subject.samples.inputs), subject.settings
    return Planned(
        samples=held if settings.samples is None else min(settings.samples, held),
        labelled=0 if subject.samples.labels is None else held,
        temperature=settings.temperature is not None,
        flips=settings.flip,
        raw_units=settings.input_scale is not None,
        bracket=settings.bracket or settings.verifier is not None,
        smoothing=settings.smoothing,
        certify_budget=settings.certify_budget,
        noises=settings.noise,
        noise_stable=settings.noise_stable,
        noise_budget=settings.noise_budget,
    )


def prepare(model: str, options: dict[str, Any]) -> LoadedSubject:
    """Load the model and the data that the options name.

    Raises:
        OnnxFimError: what cannot be loaded.
    """
    file = read_model(model, options)
    samples, scale = read_samples(file, options)
    file = function_model(options, samples.inputs.shape[1:]) if file is None else file
    return LoadedSubject(file, samples, settings_from(options, input_scale=scale))


def read_samples(file: ModelFile | CallableModel | None, options: Mapping[str, Any]) -> tuple[Samples, tuple[float, ...] | None]:
    """The samples that the options name, and d(model input)/d(raw input) where it is known and not 1; None is a user's function.

    Raises:
        OnnxFimError: what cannot be loaded.
    """
    samples, scale = _samples(file, _preprocessing(options), options)
    if options["feature_names"] is not None:
        samples = replace(samples, feature_names=feature_names(options["feature_names"], samples.inputs.shape[1:]))
    return samples, scale


def _fetched(path: str) -> tuple[str, str | None]:
    """Where data lie on this machine, and what they are called where they came from elsewhere."""
    from onnxfim.data.fetched import called, fetched, is_elsewhere

    return (str(fetched(path)), called(path)) if is_elsewhere(path) else (path, None)


def settings_from(options: dict[str, Any], **others: Any) -> Settings:
    """The settings that the options give, with ``others`` that have no option.

    Raises:
        SettingsError: a value that cannot be.
    """
    given = {s.name: setting_value(s, options[s.name]) for s in SETTINGS if s.option is not None}
    given["max_budget"] = max(given["max_budget"], given["budget"])
    return Settings(**given, **others)


def _preprocessing(options: Mapping[str, Any]) -> Preprocessing:
    keys = ("input_range", "layout", "resize", "crop")
    given = {k: options[k] for k in keys if options[k] is not None}
    if not options["already_normalised"]:
        given |= {k: options[k] for k in ("mean", "std") if options[k] is not None}
    return Preprocessing(**given)


@dataclass(frozen=True)
class _Taken:
    """What a model takes: its input, a sample's shape (None where any will do), and the names of its other inputs."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: np.dtype[Any]
    held: tuple[str, ...] = ()


def _taken(file: ModelFile | CallableModel | None, options: Mapping[str, Any]) -> _Taken:
    """What the model takes; None is a function of the user's."""
    if isinstance(file, ModelFile):
        into = choose_input(file, options["input"], options["output"])
        held = tuple(i.name for i in file.graph.inputs if i.name != into.name)
        return _Taken(into.name, given_shape(file, into, options["shape"]), np.dtype(into.dtype), held)
    if file is None:
        return _Taken("input", given_sizes(options), np.dtype(np.float32))
    return _Taken("input" if file.endpoint is None else file.endpoint.input, file.input_shape, np.dtype(file.dtype))


def _samples(
    file: ModelFile | CallableModel | None, preprocessing: Preprocessing, options: Mapping[str, Any]
) -> tuple[Samples, tuple[float, ...] | None]:
    into = _taken(file, options)
    several = len(options["input"] or ()) > 1 and not isinstance(options["input"], str)
    shape, dtype, held = into.shape, into.dtype, into.held
    count = options["samples"]
    if options["data"] == "random":
        if shape is None:
            raise InputError("data: random samples of a function need a shape, expected one. Say --shape 'input:[N,SIZE,…]'.")
        return random_samples(shape, count or _SYNTHETIC, seed=options["seed"], dtype=dtype), None
    limit = None if count is None else max(count, CALIBRATION_SAMPLES)
    moved = tuple(options["input"] or ())[1:] if several else ()
    if names_code(options["data"]):
        from onnxfim.data.user_loader import load_by

        names = options["class_names"]
        samples = load_by(
            options["data"], Target(shape, dtype, preprocessing), Choice(limit), input_name=into.name, held=held, moved=moved,
            order=None if names is None else class_order(names),
        )  # fmt: skip
    else:
        data, labels, source = options["data"], options["labels_path"], None
        if "://" in f"{data}{labels or ''}":
            data, source = _fetched(data)
            labels, _ = (labels, None) if labels is None else _fetched(labels)
        samples = load(
            data, shape=shape, dtype=dtype, preprocessing=preprocessing, inputs_key=options["inputs_key"],
            labels_key=options["labels_key"], labels_path=labels, limit=limit, input_name=into.name, held=held, moved=moved,
            label_column=options["label_column"], feature_columns=options["feature_columns"] or (),
            class_names=options["class_names"],
        )  # fmt: skip
        samples = samples if source is None else replace(samples, source=source)
    if several:  # a scale is that of one input
        return samples, None
    if options["already_normalised"] and options["std"]:
        return samples, tuple(1.0 / s for s in options["std"])
    scale = preprocessing.scale(samples.inputs.shape[1:]) if preprocessing.rescales else None
    return samples, None if scale is None else tuple(float(s) for s in np.ravel(scale))
