"""Every check that an audit makes, found or not: its stable id, what it looks for, and when it cannot be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Finding, Level

Obstacle = Callable[[Audit], "str | None"]


@dataclass(frozen=True)
class Rule:
    """One check.

    Attributes:
        id: The finding's id; it never changes.
        level: Its usual level.
        title: What is found, in a few words.
        obstacle: Why this check could not be made on an audit, or None where it was.
    """

    id: str
    level: Level
    title: str
    obstacle: Obstacle


def _never(_: Audit) -> str | None:
    return None


def _no_labels(audit: Audit) -> str | None:
    return None if audit.calibration.accuracy is not None else "it needs labels"


def _no_samples(audit: Audit) -> str | None:
    return None if audit.samples else "no sample was measured"


def _no_precision(audit: Audit) -> str | None:
    return None if audit.settings.precision is not None else "no precision was asked for"


def _no_gradients(audit: Audit) -> str | None:
    return None if audit.gradient is not None and audit.gradient.used else "the graph was not differentiated"


def _no_attack(audit: Audit) -> str | None:
    return None if audit.attack is not None else "no attack was asked for"


def _no_bound(audit: Audit) -> str | None:
    if audit.bound is None:
        return "no bound was asked for"
    return None if audit.bound.available else "there is no upper bound to compare with"


_RULES = (
    Rule("accuracy-near-chance", "error", "Clean accuracy is near chance", _no_labels),
    Rule("bound-violated", "error", "Values lie above the upper bound from the weights", _no_bound),
    Rule("unresolved", "error", "Samples without a value", _no_samples),
    Rule("attack-failed", "warning", "No attack succeeded on some samples", _no_attack),
    Rule("confidence-gap", "warning", "Confidence does not fit accuracy", _no_labels),
    Rule("gradient-sketch-disagree", "warning", "Gradients and the sketch of the file disagree", _no_gradients),
    Rule("no-plateau", "warning", "The value depends on the step", _never),
    Rule("not-deterministic", "warning", "Repeated calls differ", _never),
    Rule("output-kind", "warning", "The outputs may have been read wrongly", _never),
    Rule("partial", "warning", "The audit was interrupted", _never),
    Rule("precision-not-reached", "warning", "The precision asked for was not reached", _no_precision),
    Rule("provider-fallback", "warning", "The provider asked for was not obtained", _never),
    Rule("skipped-samples", "warning", "Samples were skipped", _never),
    Rule("surrogate", "warning", "Values are those of a surrogate of the file", _no_gradients),
    Rule("synthetic-data", "warning", "The inputs are random numbers", _never),
    Rule("temperature", "warning", "The fitted temperature is far from 1", _no_labels),
    Rule("temperature-unfitted", "warning", "No temperature could be fitted", _no_labels),
    Rule("unchanged-directions", "warning", "Rounding hides part of the slope", _no_samples),
    Rule("attack-far-from-boundary", "note", "Attacks went far beyond the first-order boundary", _no_attack),
    Rule("clipped-input", "note", "The file clips its input near the samples", _never),
    Rule("few-samples-carry-the-mean", "note", "Few samples carry the mean", _no_samples),
    Rule("no-gradient", "note", "The graph was not differentiated", _never),
    Rule("no-labels", "note", "No labels were given", _never),
    Rule("provider-auto", "note", "A faster provider did not load", _never),
    Rule("rounded-model", "note", "The file rounds its values", _never),
    Rule("saturated", "note", "The softmax is saturated on many samples", _no_samples),
    Rule("wide-bracket", "note", "The bias correction is uncertain", _no_samples),
)

#: All checks by id.
RULES = {rule.id: rule for rule in _RULES}


def rule_of(finding: Finding) -> Rule:
    """The rule a finding belongs to; one that is not listed here (from a later version's file) speaks for itself."""
    title = finding.id.replace("-", " ").capitalize()
    return RULES.get(finding.id) or Rule(finding.id, finding.level, title, _never)


def checks(audit: Audit) -> Iterator[tuple[Rule, tuple[Finding, ...]]]:
    """Every check with what it found in ``audit`` (nothing where it passed): listed ones in their order, then others."""
    found: dict[str, list[Finding]] = {}
    for finding in audit.findings:
        found.setdefault(finding.id, []).append(finding)
    rules = {**RULES, **{f.id: rule_of(f) for f in audit.findings}}
    for name, rule in rules.items():
        yield rule, tuple(found.get(name, ()))
