"""Checks of a verifier's answers: whether they hold against what was seen, and whether the file that runs is what was verified."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.guarantee_summaries import VerifierSummary
from onnxfim.verdict.findings.check import Check
from onnxfim.verdict.verifier_answers import contradicted, control_is_open, lacks_control

_SHOWN = 5  # samples in a message


def _unasked(audit: Audit) -> str | None:
    """Why these checks cannot be made."""
    return "no verifier was asked" if audit.verifier is None or not audit.verifier.boxes else None


def _said(audit: Audit) -> VerifierSummary | None:
    return None if _unasked(audit) else audit.verifier


def _list(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:_SHOWN]))
    return f"sample{'s' * (len(indices) != 1)} {shown}{', …' if len(indices) > _SHOWN else ''}"


def _contradiction(audit: Audit) -> str | None:
    found = _said(audit)
    if found is None or not found.contradictions:
        return None
    samples = [s.index for s in audit.samples if any(contradicted(s, audit.settings, own=found.model is None))]
    return (
        f"The verifier found no other prediction in {found.contradictions} of {found.boxes} boxes that hold one, as a shorter move showed "
        f"({_list(samples)}): one of its answers is wrong, or it read another network. Believe none of its certificates, and report it to "
        "its authors with the property (onnxfim export-vnnlib)."
    )


def _without_control(audit: Audit) -> str | None:
    found = _said(audit)
    samples = [] if found is None else [s.index for s in audit.samples if lacks_control(s)]
    if not samples:
        return None
    return (
        f"No control question could be asked ({_list(samples)}): no input was found that the verified network decides otherwise, so that a "
        "verifier that never finds one would not be noticed. Nothing is certified there by it. Give data of another class, or a wider "
        "--attack-range."
    )


def _control_open(audit: Audit) -> str | None:
    found = _said(audit)
    samples = [] if found is None else [s.index for s in audit.samples if control_is_open(s)]
    if not samples:
        return None
    return (
        f"The verifier did not decide the control question of {len(samples)} of the samples that it certified something of ({_list(samples)}), "
        "nor refuted any box there: that it sees another prediction where one is was not shown. Give it more time (--verifier-timeout)."
    )


def _not_followed(audit: Audit) -> str | None:
    found = _said(audit)
    if found is None or not found.not_followed:
        return None
    samples = [s.index for s in audit.samples if any(b.replay is False for b in s.verified)]
    tried = sum(b.replay is not None for s in audit.samples for b in s.verified)
    why = "rounding decides there" if found.model is None else f"{visible(found.model)} is what was verified"
    return (
        f"The audited file, as it ran, keeps its prediction at {found.not_followed} of {tried} counterexamples ({_list(samples)}): what "
        f"deploys differs from what was verified ({why}). Read certificates as the verified network's, and the flip radius as the file's."
    )


def _of_another(audit: Audit) -> str | None:
    found = _said(audit)
    if found is None or found.model is None:
        return None
    return (
        f"The verifier was given {visible(found.model)} in the audited file's place: what it certified is certified of that network, and "
        "nothing of the audited file. Its counterexamples were tried on the audited file."
    )


def _failed(audit: Audit) -> str | None:
    found = _said(audit)
    if found is None or not found.error:
        return None
    boxes = [(s.index, b) for s in audit.samples for b in s.verified if b.answer == "error"]
    first = boxes[0][1].note.rstrip(".") if boxes else ""
    told = f": {visible(first)}" if first else ""
    samples = sorted({index for index, _ in boxes})
    return (
        f"The verifier gave no answer that can be used for {found.error} of {found.boxes} boxes ({_list(samples)}){told}. Run its command "
        "by hand on a property (onnxfim export-vnnlib) to see why."
    )


def _stopped(audit: Audit) -> str | None:
    found = audit.verifier
    if found is None or found.reason is None:
        return None
    what = "no more boxes" if found.boxes else "nothing"
    return f"The verifier was asked about {what}: {visible(found.reason.rstrip('.'))}. Samples without a box have no certificate of it."


def _undecided(audit: Audit) -> str | None:
    found = _said(audit)
    if found is None or found.sat or found.unsat or found.error == found.boxes:
        return None
    notes = [b.note for s in audit.samples for b in s.verified if b.note]
    told = f" ({visible(notes[0].rstrip('.'))})" if notes else ""
    return (
        f"The verifier decided none of {found.boxes} boxes{told}. Give it more time (--verifier-timeout), a network that it reads "
        "(--verifier-model), or ask another."
    )


CHECKS = (
    Check("verifier-contradiction", "error", "The verifier's answers contradict what was seen", _contradiction, _unasked),
    Check("verifier-without-control", "warning", "The verifier could not be put to the test", _without_control, _unasked),
    Check("counterexamples-not-followed", "warning", "What deploys differs from what was verified", _not_followed, _unasked),
    Check("verifier-failed", "warning", "The verifier failed on some boxes", _failed, _unasked),
    Check("verifier-stopped", "warning", "The verifier was not asked about all", _stopped),
    Check("verifier-undecided", "note", "The verifier decided nothing", _undecided, _unasked),
    Check("verifier-control-open", "note", "A control question of the verifier was not decided", _control_open, _unasked),
    Check("verified-another", "note", "Another file was verified in the audited one's place", _of_another, _unasked),
)
