"""What an audit could have told and was not asked, or could not: one line in place of empty sections."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.report.guarantee_words import shown_brackets


@dataclass(frozen=True)
class NotRun:
    """A part that is not there: the option that asks for it, or why it could not be."""

    what: str
    option: str = ""
    why: str = ""


def not_run(audit: Audit) -> tuple[NotRun, ...]:
    """The parts of a report that this audit has none of."""
    settings, found = audit.settings, []
    slopes = audit.gradient is not None and audit.gradient.used
    needs = "" if slopes or audit.gradient is None else "needs gradients"
    if not audit.gates:
        found.append(NotRun("gates", "--fail-on"))
    if audit.comparison is None:
        found.append(NotRun("comparison with a baseline", "--baseline"))
    if not any(s.kl_curve is not None for s in audit.samples):
        found.append(NotRun("replay", why=needs) if needs else NotRun("replay", f"--replay {max(settings.replay, 64)}"))
    if audit.attack is None:
        found.append(NotRun("attack", why=needs) if needs else NotRun("attack", "--attack l2"))
    if audit.decides and not any(s.flip_radius is not None for s in audit.samples) and not settings.flip:
        found.append(NotRun("flip radius", "--flip"))
    found += _guarantees(audit)
    if audit.bound is None and audit.architecture is None and not settings.bounds:
        found.append(NotRun("bound from the weights", why="switched off by --no-bounds"))
    if not audit.data.labels and audit.reads_labels:
        found.append(NotRun("accuracy and temperature", "--labels"))
    return tuple(found)


def _guarantees(audit: Audit) -> list[NotRun]:
    """What would be guaranteed, not estimated."""
    if not audit.decides:
        return []
    asked = (
        (shown_brackets(audit), "guaranteed distances", "--bracket", ""),
        (audit.noise, "noise", "--noise gaussian:0.1", _why_no_noise(audit)),
        (any(s.samples for s in audit.smoothing), "smoothed classifier", "--certify smoothing:0.25", _why_not_smoothed(audit)),
        (audit.verifier, "verifier", "--verifier vibecheck", ""),
    )
    return [NotRun(what, why=why) if why else NotRun(what, option) for there, what, option, why in asked if not there]


def _why_no_noise(audit: Audit) -> str:
    """Why the noise that was asked for was not tried; empty where none was."""
    reasons = (n.reason for s in audit.samples for n in s.noise if n.reason)
    return visible(next(reasons, "it was not come to")) if audit.settings.noise else ""


def _why_not_smoothed(audit: Audit) -> str:
    return visible(next((s.reason for s in audit.smoothing if s.reason), "it was not come to")) if audit.smoothing else ""
