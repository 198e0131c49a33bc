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
        contradictions=sum(len(list(contradicted(s, settings))) for s in asked) if model is None else 0,
        timeout_seconds=settings.verifier_timeout,
        seconds=seconds,
        reason=reason,
        model=model,
        model_sha256=model_sha256,
    )


def contradicted(sample: SampleResult, settings: Settings) -> Iterator[VerifiedBox]:
    """Boxes of a sample said to hold no other prediction in which one was found: a counterexample, a flip or an attack.

    A move is no longer in L∞ than in L2, so that lengths of both tell.
    """
    least = min(changes(sample, settings), default=None)
    if least is not None:
        yield from (b for b in sample.verified if b.answer == "unsat" and b.epsilon > least * (1 + _ROUNDED))


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
