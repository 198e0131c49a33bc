"""What `plan`, `merge` and `audit --plan` do, in library calls."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.isolation import OutOfTime
from onnxfim.cli.audit_command import prepare, read_samples
from onnxfim.cli.cache_folder import cache_folder
from onnxfim.cli.concluding import concluded
from onnxfim.cli.console import Console
from onnxfim.cli.dry_running import dry_run_command
from onnxfim.cli.files import is_stdout, write
from onnxfim.cli.gating import NOTHING, as_baseline, read_checks
from onnxfim.cli.identifying import told_by, with_data_files, words_given
from onnxfim.cli.isolating import Runs, runs
from onnxfim.cli.outputs import Outputs
from onnxfim.cli.reaching import is_asked
from onnxfim.cli.without_report import reasons_written, write_reason
from onnxfim.data import Samples
from onnxfim.data.user_loader import names_code, read_from
from onnxfim.errors import InputError, OnnxFimError, OutputError
from onnxfim.fleet.fleet_jobs import MergeJob, PlanJob, ShardJob
from onnxfim.fleet.merging import Missing, looked_at, merge, missing_words, united
from onnxfim.fleet.shard_of import shard_of
from onnxfim.graph.load import ModelFile, load_model
from onnxfim.record.audit import Audit
from onnxfim.record.dates import report_date
from onnxfim.record.identity import Identity
from onnxfim.record.json_text import read_text
from onnxfim.record.plain import to_plain
from onnxfim.record.plan import Plan
from onnxfim.record.reading_data import DataReading
from onnxfim.record.redacting import without_secrets
from onnxfim.record.running import Restart
from onnxfim.record.shard import Shard
from onnxfim.record.writing import write_text

#: Options that say how samples are read; a plan keeps them for those that measure.
_READING = tuple(f.name for f in fields(DataReading) if f.name != "model")
#: Options that a shard may have: the others are the plan's.
_OF_A_SHARD = frozenset((
    "plan", "shard", "model", "data", "batch", "outputs", "no_cache", "cache_dir", "isolate", "timeout", "call_timeout",
    "max_memory", "quiet", "verbose", "custom_op_libraries", "provider_libraries", "config",
))  # fmt: skip
_PLAN = "plan.json"


def plan_command(model: str, target: str, console: Console, given: Collection[str], **options: Any) -> None:
    """Plan an audit and write the plan.

    Raises:
        OnnxFimError: it cannot be planned, or the plan cannot be written.
    """
    if is_asked(model, options):
        called = without_secrets(model)
        what = f"{called} is a served model, which one process asks"
        raise InputError(f"plan: {what}, expected a file. Audit it: onnxfim audit {called}")
    if options["verifier"] is not None:
        raise InputError(
            "plan: --verifier asks one after another about a few samples, which shards do not share. Drop it, or audit with it."
        )
    how, told = runs(options, console, started=time.monotonic(), several=False), told_by(options, words_given())
    Outputs([("plan", target)]).check([model, read_from(options["data"]), options["labels_path"], options["baseline"]])
    if is_stdout(target):
        console.take_stdout()
    baseline = None if options["baseline"] is None else Audit.load(options["baseline"])
    with console.said_where_slow("reading the model and the samples"):
        prepared = prepare(model, as_baseline(options, given, baseline))
    subject = Candidate(prepared.file, prepared.samples, prepared.settings)
    if options["dry_run"]:
        dry_run_command([(model, subject)], how, console, options, as_json=False)
        return
    reading = DataReading(model, **{name: options[name] for name in _READING})
    outcome = how.do(PlanJob(subject, cache_folder(options), reading))
    found, draft = outcome.result, outcome.result.audit
    identity = with_data_files(told.of(draft.identity) or Identity(""), options)
    run = replace(draft.run, restarts=outcome.restarts)
    found = replace(found, draft={**found.draft, "identity": to_plain(identity), "run": to_plain(run)})
    write(target, found.to_json())
    n = len(found.audited)
    how_many = (
        f"{n:,} sample{'s' * (n != 1)} {_WAYS[found.way]}, about {max(found.foreseen, draft.run.evaluations):,} forward passes"
    )
    called, given_as = ("plan", "PLAN") if is_stdout(target) else (target, target)
    console.result(f"{called}: {how_many}, {draft.run.evaluations:,} of them done.")
    console.say(f"next: onnxfim audit --plan {given_as} --shard i/n, for i from 1 to n; then onnxfim merge shard-*.json")


_WAYS = {
    "none": "without a value",
    "gradient": "by gradients",
    "exact": "along all coordinates",
    "sketch": "along random directions",
}


def shard_command(
    plan_path: str, shard: str | None, model: str | None, outputs: Sequence[tuple[str, str]], console: Console,
    given: Collection[str], **options: Any,
) -> int:  # fmt: skip
    """Measure one shard of a plan and write it; returns the exit code.

    Raises:
        OnnxFimError: it cannot be measured as planned, or not be written.
        click.UsageError: options that are the plan's.
    """
    if shard is None:
        raise click.UsageError("--plan needs --shard i/n: which of how many shards is to be measured (auto: the scheduler's).")
    _refuse_others(given, outputs)
    how = runs(options, console, started=time.monotonic(), several=False)
    found = read_plan(plan_path)
    part = shard_of(shard, os.environ)
    target = _target(outputs, part.file_name)
    Outputs([("shard", target)]).check([plan_path])
    if _is_complete(target, found, (part.i, part.n)):
        console.result(f"{target}: shard {part} is there already, whole and of this plan.")
        return 0
    indices = found.lot(part.i, part.n)
    file, samples = _subject(found, plan_path, model, options, console)
    job = ShardJob(
        found, Candidate(file, samples, found.audit.settings), indices, (part.i, part.n), cache_folder(options), options["batch"]
    )  # fmt: skip
    try:
        outcome = how.do(job)
    except OutOfTime as error:
        console.error(f"{error} What was measured is in the cache: run this shard again.")
        return NOTHING
    measured = replace(outcome.result, restarts=outcome.restarts)
    write_text(target, measured.to_json())
    left = f", {len(measured.skipped):,} skipped" if measured.skipped else ""
    console.result(f"{target}: {len(measured.samples):,} samples{left}, {measured.evaluations:,} forward passes.")
    return 0


def merge_command(
    paths: Sequence[str], plan_path: str | None, model: str | None, outputs: Outputs, console: Console, *, partial: bool,
    **options: Any,
) -> int:  # fmt: skip
    """Make one audit of shards, check it and write it; returns the exit code.

    Raises:
        OnnxFimError: they do not make one, or an output could not be written.
    """
    how, told = runs(options, console, started=time.monotonic(), several=False), told_by(options, words_given())
    files = _shard_files(paths)
    outputs.check([*files, plan_path, options["baseline"]])
    if outputs.to_stdout:
        console.take_stdout()
    with reasons_written(outputs.targets, "merge", told.of(Identity("", date=report_date()))):
        checks = read_checks(options)
        where = plan_path or _plan_beside(files)
        found = read_plan(where)
        with console.said_where_slow("reading the shards"):
            shards = tuple(_read_shard(path) for path in files)
        if options["dry_run"]:
            return _told_only(found, shards, console)
        try:
            measured = _merged(found, where, shards, model, how, console, partial=partial, options=options)
        except Missing as error:
            write_reason(outputs.targets, found.audit.model.name, str(error), NOTHING, told.of(found.audit.identity))
            console.error(str(error))
            return NOTHING
    return concluded(replace(measured, identity=told.of(measured.identity)), checks, outputs, console, options)


def _told_only(plan: Plan, shards: Sequence[Shard], console: Console) -> int:
    """Say what would be merged, and what is missing; returns the exit code that it would have."""
    union = united(plan, shards)
    console.line(
        f"{len(plan.audited) - len(union.missing):,} of {len(plan.audited):,} samples are there, in {len(union.shards)} shards"
    )
    if union.missing:
        console.line(f"missing: {missing_words(plan, union)}")
    elif again := looked_at(plan.audit, union.results):
        console.line(f"the model is looked at again at {len(again):,} of them")
    console.line("nothing was merged, and no report was written")
    return NOTHING if union.missing else 0


def read_plan(path: str) -> Plan:
    """The plan of a file.

    Raises:
        OutputError: it cannot be read, or is none.
    """
    return Plan.from_json(read_text(path, "Give a file that onnxfim plan wrote."), where=path)


def _read_shard(path: str) -> Shard:
    return Shard.from_json(read_text(path, "Give files that onnxfim audit --plan PLAN --shard i/n wrote."), where=path)


def _merged(
    plan: Plan, where: str, shards: tuple[Shard, ...], model: str | None, how: Runs, console: Console, *, partial: bool,
    options: Mapping[str, Any],
) -> Audit:  # fmt: skip
    """The audit; the model is opened where something is to be looked at again, and its files are there."""
    union = united(plan, shards)
    if not looked_at(plan.audit, union.results) or (union.missing and not partial):
        return merge(plan, shards, partial=partial)
    try:
        file, samples = _subject(plan, where, model, options, console)
    except OnnxFimError as error:
        if model is not None or options["data"] is not None:
            raise
        console.say(f"warning: {error} KL curves, attacks and checks that look at the model again are left out.", colour="yellow")
        return merge(plan, shards, partial=partial)
    outcome = how.do(MergeJob(plan, Candidate(file, samples, plan.audit.settings), shards, partial))
    restarts: tuple[Restart, ...] = (*outcome.result.run.restarts, *outcome.restarts)
    return replace(outcome.result, run=replace(outcome.result.run, restarts=restarts))


def _refuse_others(given: Collection[str], outputs: Sequence[tuple[str, str]]) -> None:
    """Raise where options are given that the plan decides.

    Raises:
        click.UsageError: which.
    """
    if others := sorted(set(given) - _OF_A_SHARD):
        name = "--" + others[0].replace("_", "-")
        raise click.UsageError(f"{name}: is the plan's, expected with onnxfim plan. Leave it out here, or plan again with it.")
    if formats := [name for name, _ in outputs if name]:
        raise click.UsageError(f"-o {formats[0]}=…: a shard is no report, expected -o FOLDER or a file. Reports are made by merge.")


def _target(outputs: Sequence[tuple[str, str]], name: str) -> str:
    """Where a shard is written: into the working folder, a folder, or a file.

    Raises:
        click.UsageError: there are several.
    """
    if len(outputs) > 1:
        raise click.UsageError("-o: a shard is one file, expected once. Name one folder or file.")
    if not outputs:
        return name
    path = outputs[0][1]
    return os.path.join(path, name) if path.endswith(("/", os.sep)) or os.path.isdir(path) else path


def _is_complete(path: str, plan: Plan, part: tuple[int, int]) -> bool:
    """Whether this shard was measured already: its file is there, can be read, and is of this plan."""
    if not os.path.isfile(path):
        return False
    try:
        there = _read_shard(path)
    except OutputError:
        return False
    return there.plan == plan.id and there.part == part and there.indices == frozenset(plan.lot(*part))


def _subject(
    plan: Plan, where: str, model: str | None, options: Mapping[str, Any], console: Console
) -> tuple[ModelFile, Samples]:  # fmt: skip
    """The plan's model and samples, from the paths given or from those that it names.

    Raises:
        OnnxFimError: they cannot be read, or the plan alone names code.
    """
    reading = plan.reading
    if reading is None:
        raise InputError(f"{where}: does not tell how model and data are read. Make it with onnxfim plan.")
    _refuse_code(plan, where, reading, options)
    beside = Path(where).parent
    path = _found(reading.model, beside) if model is None else model
    data = _found(reading.data, beside) if options["data"] is None else options["data"]
    labels = None if reading.labels_path is None else _found(reading.labels_path, beside)
    told = vars(replace(reading, data=data, labels_path=labels))
    with console.said_where_slow("reading the model and the samples"):
        file = load_model(path)
        return file, read_samples(file, told)[0]


def _refuse_code(plan: Plan, where: str, reading: DataReading, options: Mapping[str, Any]) -> None:
    """A plan is a file as any other: what it names is not run, unless the command line names it too.

    Raises:
        InputError: it names code.
    """
    if options["data"] is None and names_code(reading.data):
        raise InputError(f"{where}: names a program to read the data with, which no file may. Name it with --data {reading.data}.")
    settings = plan.audit.settings
    if settings.verifier is not None:
        raise InputError(
            f"{where}: names a program to run as a verifier, which no plan may. Make the plan anew without --verifier."
        )
    for name, option, named in (
        ("custom_op_libraries", "--custom-op-library", settings.custom_op_libraries),
        ("provider_libraries", "--provider-library", settings.provider_libraries),
    ):
        if named and tuple(options.get(name) or ()) != tuple(named):
            raise InputError(f"{where}: names a library to load, which no file may. Name it with {option} {named[0]}.")


def _found(path: str, beside: Path) -> str:
    """A path that a plan names: as it is, or beside the plan where nothing is there."""
    return path if os.path.exists(path) or not (beside / path).exists() else str(beside / path)


def _shard_files(paths: Sequence[str]) -> list[str]:
    """The files of the shards; of a folder all that are called so.

    Raises:
        InputError: a folder holds none.
    """
    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            pattern = (
                sorted(glob.glob(path)) if glob.has_magic(path) and not os.path.lexists(path) else []
            )  # not every shell expands it
            found += pattern or [path]
            continue
        inside = sorted(str(p) for p in Path(path).glob("shard-*.json"))
        if not inside:
            raise InputError(f"{path}: holds no shard-*.json, expected shards. Name their files.")
        found += inside
    return list(dict.fromkeys(found))


def _plan_beside(files: Sequence[str]) -> str:
    """The plan where none is named: in the working folder, or beside the shards.

    Raises:
        InputError: there is none.
    """
    for folder in dict.fromkeys(("", *(str(Path(f).parent) for f in files))):
        if os.path.isfile(path := os.path.join(folder, _PLAN)):
            return path
    raise InputError(
        f"merge: no {_PLAN} in the working folder or beside the shards, expected their plan. Name it with --plan PATH."
    )
