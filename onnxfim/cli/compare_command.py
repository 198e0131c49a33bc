"""The `compare` command: several models, or saved audits, on the same samples."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxfim.cli.config import configured
from onnxfim.cli.console import Console
from onnxfim.cli.ending import errors_in_one_line
from onnxfim.cli.helping import Example, ExplainedCommand
from onnxfim.cli.options import (
    assets_option,
    data_options,
    identity_options,
    isolation_options,
    option,
    run_options,
    script_option,
    served_options,
)
from onnxfim.cli.spelled import OutputFile

if TYPE_CHECKING:
    from onnxfim.auditing.common_step import Candidate
    from onnxfim.errors import OnnxFimError
    from onnxfim.record.audit import Audit
    from onnxfim.record.deployment import Attribution, Deployment, MovedOutput
    from onnxfim.verdict.comparison import Comparison


_COLOURS = {"fail": "red", "inconclusive": "yellow", "pass": "green"}
_WIDTH = 80  # columns of what is compared, where a terminal has them
_FIRST_NODES = 5  # of the ranking, on a terminal


def _optional_data(function: Callable[..., Any]) -> Callable[..., Any]:
    return data_options(function, required=False)


@click.command(
    cls=ExplainedCommand,
    short_help="Several models, or saved audits, on the same samples.",
    examples=(
        Example("Which of two models is more robust?", "onnxfim compare a.onnx b.onnx --data samples.npz"),
        Example("What did quantisation change, and which nodes carry it?",
                "onnxfim compare model.onnx model_int8.onnx --data samples.npz --attribute"),
        Example("Saved audits, without running a model", "onnxfim compare a.json b.json c.json -o html=comparison.html"),
    ),
    pages=("deployment.md",),
)  # fmt: skip
@click.argument("subjects", nargs=-1, required=True, metavar="A B …", type=click.Path())
@_optional_data
@run_options
@partial(served_options, predict=False)
@isolation_options
@option(
    "-o",
    "--output-file",
    "outputs",
    group="output",
    type=OutputFile(("html", "json", "markdown", "csv", "pairs")),
    multiple=True,
    metavar="FORMAT=PATH",
    help="Write html, json, markdown, csv (one line a model) or pairs (CSV, one line a test); `-` is stdout; repeatable.  "
    "[default: html=comparison.html]",
)
@option(
    "--baseline", group="measure", metavar="NAME", example="digits_resnet.onnx",
    help="Test each model against this one alone, named as a model, its file or its report: fewer corrections than every pair.",
)  # fmt: skip
@option(
    "--deployed-provider", "deployed_providers", group="run", multiple=True, metavar="TEXT", example=["openvino"],
    help="Where the models after the first run, if elsewhere than --provider says: the same file may be given twice; repeatable.",
)  # fmt: skip
@option(
    "--attribute",
    group="measure",
    is_flag=True,
    help="Rank the nodes of the second model by the part of the change of sensitivity that goes when one of them is restored.",
)
@option(
    "--attribute-samples", group="measure", type=click.IntRange(min=2), default=16, show_default=True, example=16,
    help="Samples that --attribute measures every node on, those that carry the change.",
)  # fmt: skip
@option(
    "--fail-on-change", group="gates", multiple=True, metavar="GATE", example=["accuracy_change < -1%", "sensitivity_ratio > 1.2"],
    help="Of two models, fail where this holds: accuracy_change, agreement, sensitivity_ratio or flip_radius_ratio; repeatable.",
)  # fmt: skip
@option("--allow-inconclusive", group="gates", is_flag=True, help="Exit with 0 instead of 4 where a gate is undecided.")
@assets_option
@script_option
@identity_options
@option("-q", "--quiet", group="output", is_flag=True, help="Print errors and the ranking only.")
@option("-v", "--verbose", group="output", is_flag=True, help="Print how each model was measured.")
@configured
@errors_in_one_line
def compare(
    subjects: tuple[str, ...], outputs: tuple[tuple[str, str], ...], assets: str | None, script: bool, quiet: bool, verbose: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Compare two or more models on the same samples.

    A B … are ONNX files, which need --data and are measured at one common step, or audits saved with -o json=PATH on the same
    data. Of exactly two, the second is taken as the first one deployed: what that changed of accuracy, predictions, sensitivity and
    flip radius comes first, each with a paired interval; --attribute ranks the nodes that carry it.

    Models are decided pair by pair: by the flip radius (the boundary distance where it was not looked for), lambda_max sample by
    sample, and its mean, corrected together for all pairs. Audits of the same samples in other scalings, each saved with --mean and
    --std of its own, compare in raw units.

    Exit codes: 0 compared, 1 a gate failed, 4 a gate is undecided, 2 could not run, bad usage or audits that do not compare, 130
    interrupted, 143 terminated.
    """
    console = Console(quiet, verbose)
    with console.said_where_slow("loading ONNX Runtime"):
        import onnxfim.cli.audit_command  # noqa: F401 - here, where it is said that it is slow
    sys.exit(compare_command(subjects, outputs or (("html", "comparison.html"),), console, options, assets, script=script))


def compare_command(
    subjects: Sequence[str],
    outputs: Sequence[tuple[str, str]],
    console: Console,
    options: dict[str, Any],
    assets: str | None = None,
    *,
    script: bool = True,
) -> int:
    """Read or measure the audits, compare them, write the outputs; returns the exit code."""
    from onnxfim.cli.gating import INCONCLUSIVE, NOTHING
    from onnxfim.cli.identifying import told_by, words_given
    from onnxfim.cli.outputs import Outputs, write_each
    from onnxfim.data.user_loader import read_from
    from onnxfim.errors import OnnxFimError, ProviderError
    from onnxfim.record.ended import ended_words
    from onnxfim.verdict.compare import compare as compared
    from onnxfim.verdict.delta_gates import decide_delta, parse_delta_gate

    if len(subjects) < 2:
        raise click.UsageError("Give two models or saved audits at least.")
    gates = [parse_delta_gate(text) for text in options["fail_on_change"]]
    if gates and len(subjects) != 2:
        raise click.UsageError("--fail-on-change needs exactly two models: the trained one and the deployed one.")
    started, told = time.monotonic(), told_by(options, words_given())
    wanted = Outputs(outputs, assets)
    wanted.check([*subjects, read_from(options["data"]), options["labels_path"]])
    if wanted.to_stdout:
        console.take_stdout()
    if options["dry_run"]:
        return _tried(subjects, console, options, started, as_json=wanted.json_to_stdout)
    sides = _measured_subjects(subjects, console, options, started)
    audits = sides.audits
    if len(audits) < 2:
        return _code_of_missing(sides.missing, NOTHING)
    if any(a.run.partial for a in audits):
        console.say("interrupted: the comparison holds the samples that were finished.", colour="yellow")
    partial = next((a for a in audits if a.run.partial), None)
    baseline = _entry_of(options["baseline"], subjects, audits) if options["baseline"] else None
    try:
        result = compared(audits, seed=options["seed"], outputs=sides.outputs, evaluations=sides.evaluations, baseline=baseline)
    except OnnxFimError:
        if partial is None or partial.run.stopped is not None:
            raise
        console.result(f"{ended_words(partial.run.interrupted_by)} before the models could be compared")
        return _code_of_partial(partial)
    if sides.missing:  # of three, the two that are left are no trained and deployed one
        result = replace(result, deployment=None)
    if result.deployment is not None and sides.attribution is not None:
        result = replace(result, deployment=replace(result.deployment, attribution=sides.attribution))
    if result.deployment is not None:
        result = replace(result, gates=decide_delta(result.deployment, gates))
    result = replace(result, notes=(*result.notes, *(f"left out of the comparison: {why}" for why in sides.missing)))
    result = replace(result, identity=told.of(result.identity))
    written = write_each(outputs, _formats(assets, script=script), result)
    _print(result, written.files, console)
    if written.problem is not None:
        raise written.problem
    if (stopped := next((a for a in audits if a.run.stopped is not None), None)) is not None:
        raise ProviderError(f"{stopped.model.name}: its audit ended early, for its provider failed. {stopped.run.stopped}")
    if partial is not None:
        return _code_of_partial(partial)
    if sides.missing:
        return _code_of_missing(sides.missing, INCONCLUSIVE)
    outcomes = {g.verdict for g in result.gates}
    if "fail" in outcomes:
        return 1
    return INCONCLUSIVE if "inconclusive" in outcomes and not options["allow_inconclusive"] else 0


def _code_of_partial(partial: Audit) -> int:
    """The exit code where one of the audits ended early: that of the signal, or inconclusive at the time limit."""
    from onnxfim.cli.gating import INCONCLUSIVE
    from onnxfim.cli.signals import code_of
    from onnxfim.record.running import TIME_LIMIT

    by = partial.run.interrupted_by
    return INCONCLUSIVE if by == TIME_LIMIT else code_of(by)


def _code_of_missing(missing: Sequence[OnnxFimError], late: int) -> int:
    """The exit code where models have no audit, each of which was told already: 2, or ``late`` where their time was up."""
    from onnxfim.auditing.isolation import OutOfTime
    from onnxfim.cli.signals import code_of
    from onnxfim.record.running import TIME_LIMIT
    from onnxfim.runtime.stopping import current_stop

    stop = current_stop()
    if stop is not None and stop.asked and stop.by != TIME_LIMIT:
        return code_of(stop.by)
    return late if all(isinstance(why, OutOfTime) for why in missing) else 2


def _formats(assets: str | None, *, script: bool) -> dict[str, Callable[[Comparison], str]]:
    from onnxfim.report.comparison_csv import render_comparison_csv, render_pairs_csv
    from onnxfim.report.comparison_html import render_comparison_html
    from onnxfim.report.comparison_markdown import render_comparison_markdown
    from onnxfim.verdict.comparison import Comparison

    return {
        "html": partial(render_comparison_html, assets_dir=assets, script=script),
        "json": Comparison.to_json,
        "markdown": render_comparison_markdown,
        "csv": render_comparison_csv,
        "pairs": render_pairs_csv,
    }


def _entry_of(named: str, subjects: Sequence[str], audits: Sequence[Audit]) -> str:
    """The model that a name means: where it is a subject as it was given, such as a report's path, the model of that subject."""
    if len(audits) == len(subjects) and list(subjects).count(named) == 1:
        path = audits[list(subjects).index(named)].model.path
        if [a.model.path for a in audits].count(path) == 1:
            return path
    return named


@dataclass(frozen=True)
class _Subjects:
    """The audits to compare, and the outputs of both of exactly two models, with the passes that they took.

    ``missing`` says of each model that has no audit why.
    """

    audits: list[Audit]
    outputs: tuple[MovedOutput, ...] | None = None
    evaluations: int = 0
    attribution: Attribution | None = None
    missing: tuple[OnnxFimError, ...] = ()


def _measured_subjects(subjects: Sequence[str], console: Console, options: dict[str, Any], started: float) -> _Subjects:
    """Saved audits are read; models are measured at the saved audits' step, or at one that suits all of them."""
    from onnxfim.cli.field import Field
    from onnxfim.cli.isolating import runs

    saved, models = _prepared(subjects, console, options)
    how = runs(options, console, started=started, several=len(models) > 1)
    field = Field(how, console, more=bool(options["attribute"]))
    for place, candidate in models.items():
        field.enter(place, subjects[place], candidate)
    measured = field.measured(saved)
    audits = [(measured | saved)[place] for place in sorted(measured | saved)]
    whole = not any(a.run.partial for a in audits)
    attribution = field.attribution(options["attribute_samples"]) if options["attribute"] and whole else None
    return _Subjects(audits, field.outputs, field.evaluations, attribution, tuple(field.missing))


def _tried(subjects: Sequence[str], console: Console, options: dict[str, Any], started: float, *, as_json: bool) -> int:
    """What the measuring of the models would take; saved audits are there already."""
    from onnxfim.cli.dry_running import dry_run_command
    from onnxfim.cli.isolating import runs

    _, models = _prepared(subjects, console, options)
    how = runs(options, console, started=started, several=len(models) > 1)
    return dry_run_command([(subjects[place], c) for place, c in models.items()], how, console, options, as_json=as_json)


def _prepared(
    subjects: Sequence[str], console: Console, options: dict[str, Any]
) -> tuple[dict[int, Audit], dict[int, Candidate]]:  # fmt: skip
    """Saved audits, and models with their samples, by their places: the same file may be given twice.

    Raises:
        click.UsageError: no data for a model, or --attribute of others than two models.
    """
    from onnxfim.auditing.common_step import Candidate
    from onnxfim.cli.audit_command import prepare
    from onnxfim.record.audit import Audit
    from onnxfim.served.address import names_address

    saved = {place: Audit.load(s) for place, s in enumerate(subjects) if Path(s).suffix.lower() == ".json" and not names_address(s)}
    models = {place: s for place, s in enumerate(subjects) if place not in saved}
    if models and options["data"] is None:
        first = next(iter(models.values()))
        raise click.UsageError(f"--data is needed to measure {first}. Give samples, or audits saved with -o json=PATH.")
    if options["attribute"] and (not len(models) == len(subjects) == 2 or any(map(names_address, subjects))):
        raise click.UsageError("--attribute needs exactly two model files: the trained one and the deployed one.")
    with console.said_where_slow("reading the models and the samples"):
        found = {place: prepare(s, _placed(options, place)) for place, s in models.items()}
    return saved, {place: Candidate(p.file, p.samples, p.settings) for place, p in found.items()}


def _placed(options: dict[str, Any], place: int) -> dict[str, Any]:
    """The options of the model at that place: those after the first run where deployment runs them."""
    deployed = options["deployed_providers"]
    return {**options, "providers": deployed} if place and deployed else options


def _print(result: Comparison, files: Sequence[str], console: Console) -> None:
    from onnxfim.report.comparison_words import names_of, pair_words, terminal_lines
    from onnxfim.report.gate_words import gate_words
    from onnxfim.report.numbers import count

    for note in result.notes:
        console.say(f"note: {note}")
    for gate in result.gates:
        console.say(f"gate {gate.verdict}: {gate_words(gate)}", colour=_COLOURS[gate.verdict])
    for line in terminal_lines(result, width=min(_WIDTH, console.width or _WIDTH)):
        console.result(line)
    if result.deployment is not None:
        _print_deployment(result.deployment, console)
    if len(result.pairs) > 3:
        names = names_of(result)
        for pair in result.pairs:
            console.detail(f"{names[pair.second]} / {names[pair.first]}: {pair_words(pair, names)}")
    where = ", ".join(files)
    compared = f"compared {len(result.entries)} audits on {count(result.count, 'sample')}"
    console.result(compared + (f"; report: {where}" if where else ""))


def _print_deployment(d: Deployment, console: Console) -> None:
    """The change, its counts, and the first nodes that carry it."""
    from onnxfim.record.foreign_text import visible
    from onnxfim.report.delta_words import attribution_words, flip_words, headline, node_line, outcome_words

    console.result(headline(d))
    for words in (outcome_words(d), flip_words(d)):
        if words:
            console.say(words)
    console.say(f"sensitivity was measured {visible(d.scale)}")
    if d.attribution is not None:
        console.result(attribution_words(d.attribution))
        for k, carrier in enumerate(d.attribution.nodes[:_FIRST_NODES], 1):
            console.result(node_line(k, carrier))
        for left in d.attribution.left:
            console.say(visible(f"not restored: {left.node} ({left.operator}): {left.reason}"))


__all__ = ["compare", "compare_command"]
