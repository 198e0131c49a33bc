"""What `--dry-run` prints: what would be done, and what it would take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.dry_run import DryRun
from onnxfim.auditing.jobs import DryRunJob
from onnxfim.auditing.served_cost import ExpectedTraffic
from onnxfim.cli.console import Console
from onnxfim.cli.isolating import Runs
from onnxfim.cli.waiting import Turn, expected_words, seconds_words, work_words
from onnxfim.record.plain import to_plain
from onnxfim.report.numbers import count, size

_WRITING = 1.0  # seconds for statistics and reports
_SHORT = 0.5  # seconds: stages below them, which make no passes, are not listed


def dry_run_command(
    subjects: Sequence[tuple[str, Candidate]], how: Runs, console: Console, options: dict[str, Any], *, as_json: bool
) -> int:
    """Try every model, print what the command would take, and write nothing; returns the exit code.

    Raises:
        OnnxFimError: the command itself could not run.
    """
    before, found = console.passed, []
    how = replace(how, isolation=replace(how.isolation, deadline=None))  # that of the run itself
    for number, (name, candidate) in enumerate(subjects, 1):
        turn = Turn(number, len(subjects), Path(name).name) if len(subjects) > 1 else None
        found.append(how.do(DryRunJob(candidate), turn=turn).result)
    besides = before + _WRITING
    if as_json:
        console.document(json.dumps({"runs": [to_plain(f) for f in found], "seconds_besides": besides}, indent=1, allow_nan=False))
        return 0
    for each in found:
        _print(each if len(found) > 1 else _with(each, besides), console, named=len(found) > 1)
    total = sum(f.seconds for f in found) + besides
    if len(found) > 1:
        about = expected_words(total, at_most=any(f.at_most for f in found))
        console.line(f"all {len(found)} models: {about}, and a common step to be chosen for them before")
    if options["timeout"] is not None and options["timeout"] < total:
        console.line(f"--timeout ends the run after {seconds_words(options['timeout'])}, before that")
    console.line("nothing was measured, and no report was written")
    return 0


def _with(run: DryRun, seconds: float) -> DryRun:
    """The run with what the command takes beside it."""
    return replace(
        run, seconds=run.seconds + seconds, seconds_low=run.seconds_low + (0.0 if run.at_most else seconds),
        seconds_high=run.seconds_high + seconds,
    )  # fmt: skip


def _print(run: DryRun, console: Console, *, named: bool) -> None:
    span = f"up to {seconds_words(run.seconds_high)}" if run.at_most else (
        f"{seconds_words(run.seconds_low)} to {seconds_words(run.seconds_high)}"
    )  # fmt: skip
    console.line(f"{run.model}: " * named + f"{expected_words(run.seconds, at_most=run.at_most)} ({span}): {work_words(run)}")
    if run.reason is not None:
        console.line(f"no gradients: {run.reason}" if run.method == "sketch" else f"no values: {run.reason}")
    told = [s for s in run.stages if s.passes or s.seconds >= _SHORT]
    console.table(
        ("stage", "passes", "seconds"), [(s.stage, f"{s.passes:,}" if s.passes else "", f"{s.seconds:.1f}") for s in told]
    )
    memory = "" if run.memory is None else f"peak memory about {size(run.memory)}; "
    if run.traffic is not None:
        _print_traffic(run.traffic, run.rows, console)
    outputs, disk = size(run.outputs), size(run.disk)
    console.line(f"{memory}{count(run.rows, 'row')} a call; all outputs {outputs}; in the cache about {disk} on disk")


def _print_traffic(t: ExpectedTraffic, rows: int, console: Console) -> None:
    """What asking a served model takes, and which limit ends it before."""
    rate = "" if t.max_qps is None else f", {t.max_qps:g} a second at most (--max-qps)"
    console.line(
        f"about {count(t.requests, 'request')} of up to {count(rows, 'row')}{rate}: {count(t.rows, 'row')}, {size(t.sent)} up, "
        f"{size(t.received)} down; {t.seconds:.2g} s a request"
    )
    if t.max_queries is not None and t.max_queries < t.requests:
        console.line(f"--max-queries ends the run after {count(t.max_queries, 'request')}, before that")


__all__ = ["dry_run_command"]
