"""The `compare` command: several models, or saved audits, on the same samples."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxfim.cli.config import configured
from onnxfim.cli.console import Console, errors_in_one_line
from onnxfim.cli.options import assets_option, data_options, run_options
from onnxfim.cli.spelled import OutputFile

if TYPE_CHECKING:
    from onnxfim.record.audit import Audit
    from onnxfim.verdict import Comparison


def _optional_data(function: Callable[..., Any]) -> Callable[..., Any]:
    return data_options(function, required=False)


@click.command()
@click.argument("subjects", nargs=-1, required=True, metavar="A B …", type=click.Path())
@_optional_data
@run_options
@click.option(
    "-o",
    "--output-file",
    "outputs",
    type=OutputFile(("html", "json", "markdown")),
    multiple=True,
    metavar="FORMAT=PATH",
    help="Write html=PATH, json=PATH or markdown=PATH; repeatable.  [default: html=comparison.html]",
)
@assets_option
@click.option("-q", "--quiet", is_flag=True, help="Print errors and the ranking only.")
@click.option("-v", "--verbose", is_flag=True, help="Print how each model was measured.")
@configured
@errors_in_one_line
def compare(
    subjects: tuple[str, ...], outputs: tuple[tuple[str, str], ...], assets: str | None, quiet: bool, verbose: bool, **options: Any
) -> None:
    """Compare two or more models on the same samples.

    A B … are ONNX files, which need --data and are measured at one common step, or audits saved with -o json=PATH on the same
    data. Models are ranked by calibrated lambda_max where there are labels; a difference counts as significant where a paired test,
    corrected for the number of pairs, says so.

    Exit codes: 0 compared, 2 could not run, bad usage or audits that do not compare, 130 interrupted.
    """
    console = Console(quiet, verbose)
    sys.exit(compare_command(subjects, outputs or (("html", "comparison.html"),), console, options, assets=assets))


def compare_command(
    subjects: Sequence[str],
    outputs: Sequence[tuple[str, str]],
    console: Console,
    options: dict[str, Any],
    *,
    assets: str | None = None,
) -> int:
    """Read or measure the audits, compare them, write the outputs; returns the exit code."""
    from onnxfim.cli.files import check_writable, write
    from onnxfim.cli.outputs import check_assets
    from onnxfim.errors import ProviderError
    from onnxfim.verdict import compare as compared

    if len(subjects) < 2:
        raise click.UsageError("Give two models or saved audits at least.")
    for _, path in outputs:
        check_writable(path)
    check_assets(assets, outputs)
    render = _formats(assets)
    audits = _audits(subjects, console, options)
    if any(a.run.partial for a in audits):
        console.say("interrupted: the comparison holds the samples that were finished.", colour="yellow")
    result = compared(audits, seed=options["seed"])
    for kind, path in outputs:
        write(path, render[kind](result))
    _print(result, outputs, console)
    if (stopped := next((a.run.stopped for a in audits if a.run.stopped is not None), None)) is not None:
        raise ProviderError(stopped)
    return 130 if any(a.run.partial for a in audits) else 0


def _formats(assets: str | None) -> dict[str, Callable[[Comparison], str]]:
    from onnxfim.report.comparison_html import render_comparison_html
    from onnxfim.report.comparison_markdown import render_comparison_markdown
    from onnxfim.verdict import Comparison

    return {
        "html": partial(render_comparison_html, assets_dir=assets),
        "json": Comparison.to_json,
        "markdown": render_comparison_markdown,
    }


def _audits(subjects: Sequence[str], console: Console, options: dict[str, Any]) -> list[Audit]:
    """Saved audits are read; models are measured at the saved audits' step, or at one that suits all of them."""
    from onnxfim.record.audit import Audit

    saved = [Path(s).suffix.lower() == ".json" for s in subjects]
    read = {s: Audit.load(s) for s, is_saved in zip(subjects, saved, strict=True) if is_saved}
    models = [s for s in subjects if s not in read]
    if models and options["data"] is None:
        raise click.UsageError(f"--data is needed to measure {models[0]}. Give samples, or audits saved with -o json=PATH.")
    measured = _measured(models, list(read.values()), console, options) if models else {}
    return [read[s] if s in read else measured[s] for s in subjects]


def _measured(models: Sequence[str], read: Sequence[Audit], console: Console, options: dict[str, Any]) -> dict[str, Audit]:
    from onnxfim.auditing.common_step import Candidate, at_common_step
    from onnxfim.auditing.run import audit
    from onnxfim.cli.audit_command import prepare

    prepared = {m: prepare(m, options) for m in models}
    settings = at_common_step([Candidate(p.file, p.samples, p.settings) for p in prepared.values()], read)
    found = {}
    for (name, p), chosen in zip(prepared.items(), settings, strict=True):
        console.detail(f"measuring {name} at step {chosen.step:.3g}, {chosen.scheme} differences, seed {chosen.seed}")
        with console.progress() as progress:
            found[name] = audit(p.file, p.samples, settings=chosen, progress=progress)
    return found


def _print(result: Comparison, outputs: Sequence[tuple[str, str]], console: Console) -> None:
    for note in result.notes:
        console.say(f"note: {note}")
    for at in result.order:
        e = result.entries[at]
        ranks = f"{e.rank_low}" if e.rank_low == e.rank_high else f"{e.rank_low} to {e.rank_high}"
        console.result(f"{e.rank}. {e.name}: mean {result.measure} {_interval(e.mean)}; ranks {ranks}")
    pairs = f"{len(result.pairs)} pair{'' if len(result.pairs) == 1 else 's'}"
    for pair in result.pairs:
        first, second = result.entries[pair.first].name, result.entries[pair.second].name
        word = "significant" if pair.significant else "not significant"
        console.say(f"{second} / {first}: {_interval(pair.ratio)}, {word} (p = {pair.p_holm:.2g}, corrected for {pairs})")
    where = ", ".join(path for _, path in outputs if path != "-")
    console.result(f"compared {len(result.entries)} audits on {result.count} samples" + (f"; report: {where}" if where else ""))


def _interval(a: Any) -> str:
    if a.value is None:
        return "not measured"
    return f"{a.value:.3g}" if a.low is None or a.high is None else f"{a.value:.3g} [{a.low:.3g}, {a.high:.3g}]"


__all__ = ["compare", "compare_command"]
