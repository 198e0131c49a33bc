"""A verifier's answers as printed: counted, by sample, and which of its counterexamples the audited file does not follow."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.guarantee_summaries import VerifierSummary
from onnxfim.record.guarantees import VerifiedBox
from onnxfim.record.sample import SampleResult
from onnxfim.report.guarantee_words import verifier_name, verifier_words
from onnxfim.report.numbers import count, number_above, number_below, seconds
from onnxfim.report.page.guarantees_view import AskedRow, VerifierView
from onnxfim.report.page.quantities import Quantity
from onnxfim.report.page.view import Tile
from onnxfim.report.vocabulary import NORM_WORDS
from onnxfim.report.words import Notice
from onnxfim.verdict.verifier_answers import certified_of, lacks_control

_MOST = 50  # samples of the table


def verifier_view(audit: Audit) -> VerifierView | None:
    """The section, or None where no verifier was asked."""
    found = audit.verifier
    if found is None:
        return None
    asked = [s for s in audit.samples if s.verified]
    notes = [
        f"The guarantee is the verifier's own, of its own conversion of the file; onnxfim ran {visible(found.command)} and "
        "read its answers. Every counterexample was tried on the audited file and its provider.",
        f"A box is every input that lies within ε of the sample in {NORM_WORDS[found.norm]} and in the valid range. "
        f"No answer within {seconds(found.timeout_seconds)} counts as none. Where an input with another prediction is known, "
        "the first box of a sample holds it: a verifier that finds none there is not believed.",
    ]
    if len(asked) > _MOST:
        notes.append(f"The first {_MOST} samples of {len(asked):,}; all are in the JSON.")
    return VerifierView(
        answer=f"{verifier_name(found)}: {verifier_words(found)}.",
        wrong=tuple(_wrong(found)),
        tiles=_tiles(found),
        rows=tuple(_row(s) for s in asked[:_MOST]),
        units=f"{NORM_WORDS[found.norm]}, {visible(found.units)}",
        notes=tuple(notes),
    )


def _wrong(found: VerifierSummary) -> list[Notice]:
    told = []
    if found.contradictions:
        whose = "the audited file" if found.model is None else visible(found.model)
        text = (
            f"{count(found.contradictions, 'box', 'boxes')} that the verifier calls safe hold a move that changes the "
            f"prediction of {whose}. Its guarantees are not to be relied on for this file."
        )
        told.append(Notice("error", "Contradiction", text))
    if found.without_control:
        text = (
            f"Around {count(found.without_control, 'sample')} no control question could be asked: no input was found with another "
            "prediction, so that a verifier that never finds one would not be noticed. Nothing is guaranteed there by it."
        )
        told.append(Notice("warning", "No control", text))
    if found.not_followed:
        text = (
            f"At {count(found.not_followed, 'counterexample')} of the verifier the audited file keeps its prediction: the "
            "verifier decided about another function than the one that runs here (rounding, int8, an operator that it reads "
            "otherwise)."
        )
        told.append(Notice("warning", "Another function", text))
    return told


def _tiles(found: VerifierSummary) -> tuple[Tile, ...]:
    followed = found.sat - found.not_followed
    tiles = [
        Tile(
            "No other prediction",
            Quantity(f"{found.unsat - found.disbelieved:,}", None, "guaranteed"),
            "boxes, in the verifier's arithmetic" + (f"; {found.disbelieved:,} more are not believed" if found.disbelieved else ""),
            "holding",
        ),
        Tile(
            "Another prediction",
            Quantity(f"{found.sat:,}", None, "found"),
            f"boxes; the file follows {followed:,} of them",
            "flipped",
        ),
        Tile("No answer", Quantity(f"{found.unknown + found.timeout:,}"), f"{found.timeout:,} for want of time"),
    ]
    if found.error:
        tiles.append(Tile("Errors", Quantity(f"{found.error:,}"), "the command failed; the notes say how"))
    tiles.append(Tile("Cost", Quantity(seconds(found.seconds)), f"{count(found.boxes, 'box', 'boxes')}, by the clock"))
    return tuple(tiles)


def _row(s: SampleResult) -> AskedRow:
    safe = certified_of(s)
    counter = min((b for b in s.verified if b.answer == "sat"), key=lambda b: b.epsilon, default=None)
    others = [f"{b.answer}{f': {visible(b.note)}' if b.note else ''}" for b in s.verified if b.answer not in ("sat", "unsat")]
    if any(not b.believed for b in s.verified):
        why = "no control question could be asked" if lacks_control(s) else "it finds nothing where something is"
        others.insert(0, f"not believed: {why}")
    return AskedRow(
        index=s.index,
        name=visible(s.name),
        safe="nothing" if safe is None else number_below(safe),
        counter="none" if counter is None else number_above(counter.epsilon if counter.distance is None else counter.distance),
        replay=_replayed(counter),
        bad=counter is not None and counter.replay is False,
        boxes=f"{len(s.verified):,}",
        seconds=seconds(sum(b.seconds for b in s.verified)),
        note="; ".join(dict.fromkeys(others)),
    )


def _replayed(counter: VerifiedBox | None) -> str:
    if counter is None:
        return "–"
    return "not tried" if counter.replay is None else "followed" if counter.replay else "not followed"
