"""Puts gates and a baseline's comparison into an audit, and takes its overall verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxfim.record.audit import Audit
from onnxfim.record.decision import BaselineComparison, Finding, GateResult, Scope, Verdict
from onnxfim.verdict.baseline import compare_to_baseline
from onnxfim.verdict.gates import Gate, decide


def judge(
    audit: Audit,
    gates: Sequence[Gate] = (),
    *,
    baseline: Audit | None = None,
    max_regression: float = 0.1,
    scope: Scope = "samples",
) -> Audit:
    """The audit with its gates decided, compared with its baseline, and with the verdict that follows.

    Raises:
        InputError: audit and baseline do not compare.
    """
    results = decide(audit, gates)
    comparison = None if baseline is None else compare_to_baseline(audit, baseline, max_regression, scope=scope)
    return replace(audit, gates=results, comparison=comparison, verdict=overall(results, comparison, audit.findings))


def overall(gates: Sequence[GateResult], comparison: BaselineComparison | None, findings: Sequence[Finding]) -> Verdict:
    """``fail`` where anything failed, else ``inconclusive`` where anything is or a finding is an error, else ``pass``."""
    verdicts = [g.verdict for g in gates] + ([] if comparison is None else [comparison.verdict])
    if "fail" in verdicts:
        return "fail"
    return "inconclusive" if "inconclusive" in verdicts or any(f.level == "error" for f in findings) else "pass"
