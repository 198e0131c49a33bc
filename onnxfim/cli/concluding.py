"""How a command ends that made an audit: its checks, its outputs, what it prints, its exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from onnxfim.cli.console import Console
from onnxfim.cli.gating import INCONCLUSIVE, Checks, exit_code, print_checks
from onnxfim.cli.outputs import Outputs
from onnxfim.cli.waiting import SILENT
from onnxfim.errors import InputError, ProviderError
from onnxfim.record.audit import Audit
from onnxfim.report.card import FINDINGS, audit_card
from onnxfim.report.whereabouts import placement_lines


def concluded(measured: Audit, checks: Checks, outputs: Outputs, console: Console, options: Mapping[str, Any]) -> int:
    """Check an audit, write it and print it; returns the exit code.

    Raises:
        OnnxFimError: an output could not be written, the baseline does not compare, or the provider failed; whatever outputs there
            are were written first.
    """
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


def _print(result: Audit, files: Sequence[str], console: Console) -> None:
    console.detail(f"model: {result.model.name}, {result.model.output_kind} ({result.model.read_from})")
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
    print_checks(result, console)
    told = len(result.findings) + FINDINGS if console.verbose else FINDINGS
    console.card(audit_card(result, files=tuple(files), findings=told), files)


def _print_cache(result: Audit, console: Console) -> None:
    times = result.run.times
    if times.get("cached_rows"):
        told = f"{times['cached_rows']:,} of {result.run.evaluations:,} forward passes came from the cache (--no-cache runs all)"
        console.detail(told)
    if times.get("cache_damaged"):
        console.say(f"warning: {times['cache_damaged']} cache entries were damaged; they were measured again", colour="yellow")


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"
