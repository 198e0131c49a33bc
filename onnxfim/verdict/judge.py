"""Puts what follows from an audit into it: brackets, findings, survival curves, gates, a baseline's comparison, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Finding, Scope, overall
from onnxfim.verdict.baseline import compare_to_baseline
from onnxfim.verdict.bracketing import brackets
from onnxfim.verdict.findings import findings
from onnxfim.verdict.gates import Gate, decide
from onnxfim.verdict.noise_shares import noise_summaries
from onnxfim.verdict.smoothed_shares import smoothing
from onnxfim.verdict.survival import robustness


def judge(
    audit: Audit,
    gates: Sequence[Gate] = (),
    *,
    baseline: Audit | None = None,
    max_regression: float = 0.1,
    scope: Scope = "samples",
    uncompared: bool = False,
) -> Audit:
    """The audit with its brackets, findings, curves and gates, compared with its baseline, and with the verdict that follows.

    Args:
        audit: What was measured.
        gates: What must not hold.
        baseline: An audit of the same samples, or None.
        max_regression, scope: As for `compare_to_baseline`.
        uncompared: A comparison was asked for and cannot be made: nothing passes then.

    Raises:
        InputError: audit and baseline do not compare.
    """
    audit = brackets(audit)
    audit = replace(audit, noise=noise_summaries(audit), smoothing=smoothing(audit))
    audit = replace(audit, findings=findings(audit), robustness=robustness(audit))
    results = decide(audit, gates)
    comparison = None if baseline is None else compare_to_baseline(audit, baseline, max_regression, scope=scope)
    verdict = overall(measured=audit.measured, gates=results, comparison=comparison, uncompared=uncompared, findings=audit.findings)
    return replace(audit, gates=results, comparison=comparison, verdict=verdict)


def first_run(audit: Audit, path: str) -> Audit:
    """A judged audit that tells that there was no baseline yet at ``path``, which was allowed: nothing was compared."""
    message = f"There is no baseline yet ({path} is not there), which --baseline-optional allows: nothing was compared."
    return replace(audit, findings=(*audit.findings, Finding("no-baseline", "note", message)))
