"""What a reader must know about an audit: the one table of checks, each a function of the finished record alone."""

from __future__ import annotations

from collections.abc import Iterator

from onnxfim.errors import in_one_line, issue_tracker
from onnxfim.record.audit import Audit
from onnxfim.record.decision import Finding, Level
from onnxfim.verdict.findings import (
    about_brackets,
    about_cross_checks,
    about_data,
    about_kinks,
    about_model,
    about_run,
    about_scale,
    about_step,
    about_values,
    about_verifier,
)
from onnxfim.verdict.findings.check import Check, never

_ORDER: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}
_ALL = (
    *about_data.CHECKS,
    *about_model.CHECKS,
    *about_step.CHECKS,
    *about_run.CHECKS,
    *about_values.CHECKS,
    *about_scale.CHECKS,
    *about_kinks.CHECKS,
    *about_cross_checks.CHECKS,
    *about_brackets.CHECKS,
    *about_verifier.CHECKS,
)
#: Every check that an audit makes by its id, most serious first.
CHECKS: dict[str, Check] = {c.id: c for c in sorted(_ALL, key=lambda c: _ORDER[c.level])}


def findings(audit: Audit) -> tuple[Finding, ...]:
    """All findings of an audit, most serious first; what its own ``findings`` are does not matter."""
    found = [f for check in CHECKS.values() if (f := _of(check, audit)) is not None]
    return tuple(sorted(found, key=lambda f: _ORDER[f.level]))


def _of(check: Check, audit: Audit) -> Finding | None:
    """What a check finds; one that fails itself is a finding too, and no audit is lost by it."""
    try:
        return check.of(audit)
    except Exception as error:  # noqa: BLE001 - whatever it stumbled over, the other checks are made
        message = f"The check {check.id!r} failed where nobody foresaw it ({type(error).__name__}: {in_one_line(error)}): what it would have found is"
        return Finding(
            "stage-failed", "error", f"{message} missing. This is a defect of onnxfim: please report it {issue_tracker()}."
        )


def check_of(finding: Finding) -> Check:
    """The check a finding belongs to; one that is not listed here (from a later version's file) speaks for itself."""
    title = finding.id.replace("-", " ").capitalize()
    return CHECKS.get(finding.id) or Check(finding.id, finding.level, title, never)


def checks(audit: Audit) -> Iterator[tuple[Check, tuple[Finding, ...]]]:
    """Every check with what it found in ``audit`` (nothing where it passed): listed ones in their order, then others."""
    found: dict[str, list[Finding]] = {}
    for finding in audit.findings:
        found.setdefault(finding.id, []).append(finding)
    for name, check in {**CHECKS, **{f.id: check_of(f) for f in audit.findings}}.items():
        yield check, tuple(found.get(name, ()))


__all__ = ["CHECKS", "Check", "check_of", "checks", "findings"]
