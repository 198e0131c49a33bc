"""What the `audit` command does with its gates and its baseline: read them first, decide them last, take the exit code."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import click

from onnxfim.cli.console import Console
from onnxfim.cli.signals import code_of
from onnxfim.errors import InputError, SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate, BaselineComparison, Scope
from onnxfim.record.running import OWN_LIMITS
from onnxfim.record.settings import SETTINGS
from onnxfim.report.gate_words import baseline_words, gate_words, units_of
from onnxfim.report.numbers import percent, percent_interval
from onnxfim.verdict import Gate, judge, parse_gate
from onnxfim.verdict.foreseen import Planned, obstacle, too_few_rows
from onnxfim.verdict.judge import first_run

#: The exit code of an inconclusive audit.
INCONCLUSIVE = 4
#: That of one that measured nothing.
NOTHING = 3
_DEFAULT_REGRESSION = 0.1
_COLOURS = {"fail": "red", "inconclusive": "yellow", "pass": "green"}


@dataclass(frozen=True)
class Checks:
    """What an audit is checked against."""

    gates: tuple[Gate, ...]
    baseline: Audit | None
    max_regression: float
    scope: Scope
    absent: str | None = None  # the baseline's path, where there is none yet and that is allowed

    def judge(self, audit: Audit) -> Audit:
        """The audit with its verdict."""
        result = judge(audit, self.gates, baseline=self.baseline, max_regression=self.max_regression, scope=self.scope)
        return result if self.absent is None else first_run(result, self.absent)

    def judge_without_baseline(self, audit: Audit) -> Audit:
        """The audit with the verdict of its gates alone, since it does not compare with the baseline."""
        return judge(audit, self.gates, uncompared=True)


def read_checks(options: dict[str, Any]) -> Checks:
    """Gates and baseline from the options, before anything is measured.

    Raises:
        OnnxFimError: a gate that cannot be read, a baseline that cannot be read.
        click.UsageError: --max-regression or --baseline-optional without --baseline.
    """
    path, regression = options["baseline"], options["max_regression"]
    if path is None and regression is not None:
        raise click.UsageError("--max-regression needs a --baseline to compare with.")
    if path is None and options["baseline_optional"]:
        raise click.UsageError("--baseline-optional needs a --baseline that may be missing.")
    gates = tuple(parse_gate(text) for text in options["fail_on"])
    absent = path if options["baseline_optional"] and not os.path.lexists(path) else None
    baseline = None if path is None or absent is not None else Audit.load(path)
    return Checks(gates, baseline, _DEFAULT_REGRESSION if regression is None else regression, options["regression_over"], absent)


def warn_of_gates(gates: Sequence[Gate], planned: Planned, console: Console, *, allow_inconclusive: bool) -> None:
    """Say at once, before anything is measured, which gates so many samples or such data cannot decide.

    Raises:
        SettingsError: a gate that can neither pass nor fail, unless inconclusive is allowed.
    """
    if (few := too_few_rows(planned)) is not None and not any(g.name.startswith("noise") for g in gates):
        console.say(f"warning: noise: {few}", colour="yellow")
    for gate in gates:
        found = obstacle(gate, planned)
        if found is None:
            continue
        if found.never and not allow_inconclusive:
            raise SettingsError(found.message)
        console.say(f"warning: {found.message}", colour="yellow")


def as_baseline(options: dict[str, Any], given: Collection[str], baseline: Audit | None) -> dict[str, Any]:
    """The options with what a paired comparison needs taken from the baseline, where the command line does not say otherwise."""
    if baseline is None:
        return options
    taken = {
        s.name: getattr(getattr(baseline, s.facts.paired), s.name)
        for s in SETTINGS
        if s.facts.paired and not {s.name, s.facts.with_setting} & set(given)
    }
    return {**options, **taken}


def require_same_data(sha256: str, baseline: Audit, path: str) -> None:
    """Refuse other data than the baseline's before anything is measured.

    Raises:
        InputError: the hashes differ.
    """
    if sha256 != baseline.data.sha256:
        raise InputError(
            f"{path}: measured on {baseline.data.source} (sha256 {baseline.data.sha256[:12]}), but the data given have "
            f"sha256 {sha256[:12]}. Give the baseline's --data, --samples and labels, or make a new baseline."
        )


def print_checks(audit: Audit, console: Console) -> None:
    """One line for each gate, as it was typed, and for the baseline, with what it was decided on."""
    for gate in audit.gates:
        console.say(f"gate {gate.verdict}: {gate_words(gate, units_of(audit, gate.name))}", colour=_COLOURS[gate.verdict])
    if audit.comparison is not None:
        for text in _baseline_lines(audit.comparison):
            console.say(text, colour=_COLOURS[audit.comparison.verdict])
        for d in audit.comparison.differences:
            console.detail(f"differs from the baseline: {d.name}: {d.baseline} then, {d.current} now")


def exit_code(audit: Audit, *, allow_inconclusive: bool, exit_zero: bool) -> int:
    """What the audit says, as a number: 2 the provider failed, 130 interrupted (143 by SIGTERM, else 128 and the signal), 3 nothing
    measured, 1 fail (0 with ``exit_zero``), 4 inconclusive (0 with ``allow_inconclusive``), else 0: passed, or measured where
    nothing was to be passed."""
    if audit.run.partial and audit.run.interrupted_by not in OWN_LIMITS:
        return code_of(audit.run.interrupted_by) if audit.run.stopped is None else 2
    if not audit.measured:
        return NOTHING
    if audit.verdict == "fail":
        return 0 if exit_zero else 1
    return INCONCLUSIVE if audit.verdict == "inconclusive" and not allow_inconclusive else 0


def _baseline_lines(c: BaselineComparison) -> tuple[str, str]:
    how = "paired" if c.paired else "not paired"
    ratio, where = (c.ratio, "over such samples in general") if c.scope == "samples" else (c.ratio_here, "on these samples alone")
    low, high = ("not bounded" if end is None else f"{end:.3g}" for end in (ratio.low, ratio.high))
    other = f"{where} the ratio is {low} to {high}"
    return (
        f"baseline {c.verdict} ({c.count} samples, {how}): {baseline_words(c)}",
        f"baseline {c.baseline}: {other}; {_share(c.worse)} of the samples got worse, {_share(c.better)} better",
    )


def _share(a: Aggregate) -> str:
    if a.value is None:
        return "an unknown share"
    ends = percent_interval(a.low, a.high)
    return f"{percent(a.value)} ({ends})" if ends else percent(a.value)
