"""What the `audit` command does, in library calls."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.inputs import given_shape
from onnxfim.auditing.isolation import OutOfTime
from onnxfim.auditing.run import CALIBRATION_SAMPLES
from onnxfim.cli.cache_folder import cache_folder
from onnxfim.cli.console import Console
from onnxfim.cli.dry_running import dry_run_command
from onnxfim.cli.gating import INCONCLUSIVE, NOTHING, as_baseline, exit_code, print_checks, read_checks, require_same_data
from onnxfim.cli.isolating import runs
from onnxfim.cli.options import setting_value
from onnxfim.cli.outputs import Outputs
from onnxfim.cli.signals import words_of
from onnxfim.cli.waiting import SILENT
from onnxfim.data import Preprocessing, Samples, load, random_samples
from onnxfim.errors import InputError, ProviderError
from onnxfim.graph.choosing_inputs import choose_input
from onnxfim.graph.load import ModelFile, load_model
from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.sample import Estimate
from onnxfim.record.settings import SETTINGS, Settings
from onnxfim.report.whereabouts import placement_lines, where_it_ran

_TOKENS = 5  # of a sample, that are printed
_SYNTHETIC = 32  # samples, where none are asked for


@dataclass(frozen=True)
class LoadedSubject:
    """A model, its samples and its settings, ready to be audited."""

    file: ModelFile
    samples: Samples
    settings: Settings


def audit_command(model: str, outputs: Outputs, console: Console, given: Collection[str] = (), **options: Any) -> int:
    """Run an audit from command line options and write its outputs; returns the exit code.

    Raises:
        OnnxFimError: it could not run, an output could not be written, or the baseline does not compare; whatever outputs there
            are were written first.
    """
    if options["fail_on_inconclusive"]:
        console.say("warning: --fail-on-inconclusive has no effect, it is the default now: leave it out", colour="yellow")
    how = runs(options, console, started=time.monotonic(), several=False)
    outputs.check([model, options["data"], options["labels_path"], options["baseline"]])
    if outputs.to_stdout:
        console.take_stdout()
    checks = read_checks(options)
    with console.said_where_slow("reading the model and the samples"):
        prepared = prepare(model, as_baseline(options, given, checks.baseline))
    outputs.check_apart(prepared.file.files)
    if checks.baseline is not None:
        require_same_data(prepared.samples.sha256, checks.baseline, options["baseline"])
    if options["dry_run"]:
        subject = (model, Candidate(prepared.file, prepared.samples, prepared.settings))
        return dry_run_command([subject], how, console, options, as_json=outputs.json_to_stdout)
    try:
        measured = how.audit(Candidate(prepared.file, prepared.samples, prepared.settings), options)
    except OutOfTime as error:
        console.error(str(error))
        return NOTHING
    if not options["no_cache"] and cache_folder(options) is None:
        times = {**measured.run.times, "cache_trouble": "there is no home folder to keep it in (HOME)"}
        measured = replace(measured, run=replace(measured.run, times=times))
    problem: Exception | None = None
    try:
        result = checks.judge(measured)
    except InputError as error:
        result, problem = checks.judge_without_baseline(measured), error
    except Exception as error:  # noqa: BLE001 - what was measured is written, whatever its checks stumble over
        result, problem = replace(measured, verdict="inconclusive"), error
    with console.said_where_slow("writing the reports", after=console.passed + SILENT):
        written = outputs.write(result)
    code = exit_code(result, allow_inconclusive=options["allow_inconclusive"], exit_zero=options["exit_zero"])
    if code == INCONCLUSIVE and problem is None and written.problem is None:
        console.say("inconclusive counts as a failure (exit code 4); --allow-inconclusive makes it 0", colour="yellow")
    _print(result, written.files, console)
    if written.problem is not None:
        raise written.problem
    if result.run.stopped is not None:
        raise ProviderError(result.run.stopped)
    if problem is not None and not result.run.partial:
        raise problem
    return code


def prepare(model: str, options: dict[str, Any]) -> LoadedSubject:
    """Load the model and the data that the options name.

    Raises:
        OnnxFimError: what cannot be loaded.
    """
    file = load_model(model)
    preprocessing = _preprocessing(options)
    samples, scale = _samples(file, preprocessing, options)
    return LoadedSubject(file, samples, settings_from(options, input_scale=scale))


def settings_from(options: dict[str, Any], **others: Any) -> Settings:
    """The settings that the options give, with ``others`` that have no option.

    Raises:
        SettingsError: a value that cannot be.
    """
    given = {s.name: setting_value(s, options[s.name]) for s in SETTINGS if s.option is not None}
    given["max_budget"] = max(given["max_budget"], given["budget"])
    return Settings(**given, **others)


def _preprocessing(options: dict[str, Any]) -> Preprocessing:
    keys = ("input_range", "layout", "resize", "crop")
    given = {k: options[k] for k in keys if options[k] is not None}
    if not options["already_normalised"]:
        given |= {k: options[k] for k in ("mean", "std") if options[k] is not None}
    return Preprocessing(**given)


def _samples(file: ModelFile, preprocessing: Preprocessing, options: dict[str, Any]) -> tuple[Samples, tuple[float, ...] | None]:
    """The samples, and d(model input)/d(raw input) where it is known and not 1."""
    into = choose_input(file, options["input"], options["output"])
    several = len(options["input"] or ()) > 1 and not isinstance(options["input"], str)
    shape, dtype = given_shape(file, into, options["shape"]), np.dtype(into.dtype)
    count = options["samples"]
    if options["data"] == "random":
        return random_samples(shape, count or _SYNTHETIC, seed=options["seed"], dtype=dtype), None
    samples = load(
        options["data"], shape=shape, dtype=dtype, preprocessing=preprocessing, inputs_key=options["inputs_key"],
        labels_key=options["labels_key"], labels_path=options["labels_path"],
        limit=None if count is None else max(count, CALIBRATION_SAMPLES), input_name=into.name,
        held=[i.name for i in file.graph.inputs if i.name != into.name], moved=tuple(options["input"] or ())[1:] if several else (),
    )  # fmt: skip
    if several:  # a scale is that of one input
        return samples, None
    if options["already_normalised"] and options["std"]:
        return samples, tuple(1.0 / s for s in options["std"])
    scale = preprocessing.scale(samples.inputs.shape[1:]) if preprocessing.rescales else None
    return samples, None if scale is None else tuple(float(s) for s in np.ravel(scale))


def _print(result: Audit, files: Sequence[str], console: Console) -> None:
    console.detail(f"model: {result.model.name}, {result.model.output_kind} ({result.model.read_from})")
    if result.model.at is not None:
        console.say(f"audited from {result.model.at.tensor!r}; before it: {result.model.at.front}")
    for i in result.model.inputs:
        console.detail(f"input {i.name}: {i.role}" + ("" if i.at is None else f" at {i.at}"))
    if result.model.rewritten:
        console.detail(f"a copy that reproduced the file was needed for: {result.model.rewritten}")
    for name, text in placement_lines(result):
        console.detail(f"{name}: {text}")
    step = result.step
    if step.unchosen is None:
        console.detail(f"step: {step.step:.3g} per coordinate, {step.scheme} differences, noise floor {_number(step.noise_floor)}")
    else:
        console.detail(f"step: none ({step.unchosen})")
    _print_cache(result, console)
    if result.calibration.accuracy is not None:
        confidence = result.calibration.mean_confidence
        also = "" if confidence is None else f", mean confidence {confidence:.1%}"
        console.say(f"clean accuracy {result.calibration.accuracy:.1%}{also}")
    colours = {"error": "red", "warning": "yellow", "note": None}
    for finding in result.findings:
        red = finding.id in ("provider-fallback", "provider-mixed")
        console.say(f"{finding.level}: {finding.message}", colour="red" if red else colours[finding.level])
    _print_tokens(result, console)
    print_checks(result, console)
    raw, calibrated = result.aggregates["lambda_max"].mean, result.aggregates["lambda_max_calibrated"].mean
    where = ", ".join(files)
    ended = words_of(result.run.interrupted_by) if result.run.stopped is None else "stopped by the provider"
    head = f"{ended}, partial: " if result.run.partial else ""
    errors = [f.id for f in result.findings if f.level == "error"]
    why = f" ({', '.join(errors)})" if errors and result.verdict == "inconclusive" else ""
    text = f"{head}{result.verdict}{why}: mean lambda_max {_interval(raw)}"
    if calibrated.value is not None:
        text += f", calibrated {_interval(calibrated)}"
    text += f" {result.units}" if raw.value is not None else ""
    standardised = result.aggregates.get("lambda_max_standardised")
    if result.step.per_coordinate and standardised is not None:
        text += f"; {_interval(standardised.mean)} {standardised.units}"
    flips = result.aggregates.get("flip_radius")
    if flips is not None and flips.median.value is not None:
        text += f"; median flip radius {_interval(flips.median)}"
    text += f", {len(result.samples)} samples on {where_it_ran(result)}, {result.run.seconds:.1f} s"
    console.result(text + (f"; report: {where}" if where else ""))


def _print_tokens(result: Audit, console: Console) -> None:
    """Where in its sequence the most sensitive sample is moved by its worst direction."""
    worst = next((d for d in result.directions if d.role == "worst" and d.positions), None)
    if worst is None:
        return
    ranked = sorted(range(len(worst.positions)), key=lambda k: -worst.positions[k].share)[:_TOKENS]
    told = ", ".join(f"{worst.positions[k].token} at {k} ({worst.positions[k].share:.0%})" for k in ranked)
    console.say(f"worst direction of sample {worst.index}, by token: {told}")


def _print_cache(result: Audit, console: Console) -> None:
    times = result.run.times
    if times.get("cached_rows"):
        console.say(
            f"{times['cached_rows']:,} of {result.run.evaluations:,} forward passes came from the cache (--no-cache runs all)"
        )
    if times.get("cache_damaged"):
        console.say(f"warning: {times['cache_damaged']} cache entries were damaged; they were measured again", colour="yellow")


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"


def _interval(a: Aggregate | Estimate) -> str:
    if a.value is None or (a.low is None and a.high is None):
        return _number(a.value)
    low, high = ("not bounded" if end is None else _number(end) for end in (a.low, a.high))
    return f"{_number(a.value)} [{low}, {high}]"
