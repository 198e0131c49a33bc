"""What a verifier said of all samples, from their results alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from onnxfim.record.guarantee_summaries import VerifierSummary
from onnxfim.record.guarantees import VerifiedBox
from onnxfim.record.sample import SampleResult
from onnxfim.record.settings import Settings

_ROUNDED = 1e-6  # relative: lengths are of float32 rows


def verifier_summary(
    samples: Sequence[SampleResult], settings: Settings, *, units: str, seconds: float, reason: str | None = None,
    model: str | None = None, model_sha256: str | None = None,
) -> VerifierSummary:  # fmt: skip
    """The answers over all samples.

    Args:
        samples: All of them; those without boxes were not asked about.
        settings: Which verifier, and how it was asked.
        units: What half-widths are in, several of them.
        seconds: What all took, by the clock.
        reason: Why nothing more was asked.
        model: Name of the model that was verified in the audited file's place, or None.
        model_sha256: Of what was verified in its place.
    """
    asked = [s for s in samples if s.verified]
    boxes = [b for s in asked for b in s.verified]
    said = Counter(b.answer for b in boxes)
    return VerifierSummary(
        command=settings.verifier or "",
        norm="linf",
        units=units,
        samples=len(asked),
        boxes=len(boxes),
        sat=said["sat"],
        unsat=said["unsat"],
        unknown=said["unknown"],
        timeout=said["timeout"],
        error=said["error"],
        not_followed=sum(b.replay is False for b in boxes),
        contradictions=sum(len(list(contradicted(s, settings, own=model is None))) for s in asked),
        timeout_seconds=settings.verifier_timeout,
        seconds=seconds,
        reason=reason,
        model=model,
        model_sha256=model_sha256,
        disbelieved=sum(b.answer == "unsat" and not b.believed for b in boxes),
        without_control=sum(lacks_control(s) for s in asked),
        control_open=sum(control_is_open(s) for s in asked),
    )


def contradicted(sample: SampleResult, settings: Settings, *, own: bool) -> Iterator[VerifiedBox]:
    """Boxes of a sample said to hold no other prediction in which one was found: a counterexample, a flip or an attack, or the
    move that a control question is about.

    A move is no longer in L∞ than in L2, so that lengths of both tell.

    Args:
        sample: The sample.
        settings: In which units lengths are.
        own: Whether the audited file itself was verified: what changes its prediction tells nothing of another.
    """
    least = min(changes(sample, settings), default=None) if own else None
    for b in sample.verified:
        seen = least is not None and b.epsilon > least * (1 + _ROUNDED)
        if b.answer == "unsat" and (seen or b.control is not None):
            yield b


def certified_of(sample: SampleResult) -> float | None:
    """The largest half-width that a verifier certified around a sample, and is believed; None where it certified none."""
    return max((b.epsilon for b in sample.verified if b.answer == "unsat" and b.believed), default=None)


def lacks_control(sample: SampleResult) -> bool:
    """Whether a verifier found no other prediction around a sample of which no control question could be asked."""
    controlled = any(b.control is not None or (b.answer == "sat" and b.distance is not None) for b in sample.verified)
    return not controlled and any(b.answer == "unsat" and not b.believed for b in sample.verified)


def control_is_open(sample: SampleResult) -> bool:
    """Whether a verifier certified something around a sample, but neither decided its control question nor refuted a box."""
    asked = [b for b in sample.verified if b.control is not None]
    refuted = any(b.answer == "sat" for b in sample.verified)
    return certified_of(sample) is not None and bool(asked) and not refuted


def changes(sample: SampleResult, settings: Settings, *, answers: bool = True) -> Iterator[float]:
    """Lengths, at most, in L∞ and in the units of boxes, of moves that changed a sample's prediction.

    Args:
        sample: The sample.
        settings: In which units lengths are.
        answers: Whether a verifier's counterexamples count.
    """
    raw = settings.input_scale is not None and any(s != 1 for s in settings.input_scale)
    flip = None if sample.flip_radius is None else sample.flip_radius.value
    if raw:
        flip = None if sample.flip_lengths is None else sample.flip_lengths.raw
    attacked = sample.attack_distance is not None and sample.label in (None, sample.prediction)
    attack = sample.attack_distance.value if attacked and sample.attack_distance is not None else None
    linf = None if sample.flip_radius_linf is None else sample.flip_radius_linf.value
    yield from (length for length in (flip, attack, linf) if length)
    if answers:
        yield from (b.distance for b in sample.verified if b.replay and b.distance)
