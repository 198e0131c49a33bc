"""What is guaranteed and found of an audit, as lines of a dossier: each with its kind, its interval and where the value stands."""

from __future__ import annotations

from collections.abc import Iterator

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.guarantee_summaries import BracketSummary
from onnxfim.report.dossier.one_line import Line, State
from onnxfim.report.guarantee_words import (
    brackets_in,
    contradiction_words,
    noise_words,
    plainly,
    shown_brackets,
    smoothing_words,
    verifier_name,
    verifier_words,
)
from onnxfim.report.numbers import count, known_ends, number_above, number_below, percent, percent_interval
from onnxfim.report.vocabulary import NORM_WORDS


def _shown(audit: Audit) -> list[tuple[int, BracketSummary]]:
    """The brackets that the page shows, with their place in the record."""
    shown = shown_brackets(audit)
    return [(at, b) for at, b in enumerate(audit.bracket) if b in shown]


def guaranteed_values(audit: Audit) -> Iterator[Line]:
    """Values of the property that are guaranteed, with what was found beside them."""
    for at, b in _shown(audit):
        topic = "Property, value (stability: guaranteed distance, and the one found)"
        state: State = "in part" if b.contradictions or not b.low.value else "measured"
        yield Line(topic, _both(audit, b), f"/bracket/{at}", f"bracket-{b.norm}", state)
        for k, d in enumerate(b.decided):
            of = b.samples or 1
            text = (
                f"Within {number_above(d.epsilon)} {b.units} ({NORM_WORDS[b.norm]}): {percent(d.kept / of)} of "
                f"{count(b.samples, 'sample')} keep their prediction (guaranteed), {percent(d.lost / of)} lose it (found), "
                f"{percent(d.open / of)} are not decided"
            )
            yield Line("Property, value (samples decided at a distance)", text, f"/bracket/{at}/decided/{k}", f"bracket-{b.norm}",
                       "measured")  # fmt: skip
    for at, n in enumerate(audit.noise):
        if n.samples:
            ends = percent_interval(n.population.low, n.population.high)
            more = f"; of the population {ends}" if ends else ""
            yield Line(
                "Property, value (stability under random noise)", f"{noise_words(n)}{more}", f"/noise/{at}", "noise", "measured"
            )


def _both(audit: Audit, b: BracketSummary) -> str:
    found = [x for _, x in brackets_in(audit, b.norm)]
    by, seen = plainly([x.low_from for x in found]), plainly([x.high_from for x in found])
    low = "nothing guaranteed on half of the samples"
    if b.low.value:
        low = f"guaranteed in exact arithmetic{f' by {by}' if by else ''}, {number_below(b.low.value)}{_ends(b.low)}"
    high = "none found on half of them"
    if b.high.value is not None:
        high = f"found{f' by {seen}' if seen else ''}, {number_above(b.high.value)}{_ends(b.high)}"
    loud = contradiction_words(b)
    where = f"{NORM_WORDS[b.norm]}, {b.units}"
    return f"Medians over {count(b.samples, 'sample')}: {low}; {high}; {where}{f'. {loud}' if loud else ''}"


def _ends(a: Aggregate) -> str:
    ends = known_ends(a.low, a.high)
    return f" ({a.confidence:.0%} interval: {ends})" if ends else ""


def formal_methods(audit: Audit) -> Iterator[Line]:
    """The formal methods beside the bound from the weights."""
    for at, b in _shown(audit):
        by = plainly([x.low_from for _, x in brackets_in(audit, b.norm)])
        if by:
            text = f"Distances ({NORM_WORDS[b.norm]}) within which the file's function keeps its prediction, exact arithmetic: {by}"
            yield Line("Method, formal", text, f"/bracket/{at}/low", f"bracket-{b.norm}", "measured")
    if audit.verifier is not None:
        v = audit.verifier
        text = f"A verifier, {verifier_name(v)}, on its own conversion: {verifier_words(v)}"
        doubted = v.not_followed or v.contradictions or v.disbelieved
        yield Line("Method, formal", text, "/verifier", "verifier", "in part" if doubted else "measured")
    for at, s in enumerate(audit.smoothing):
        yield Line("Method, statistical, of another classifier", smoothing_words(s), f"/smoothing/{at}", "smoothing", "measured")


def against_faults(audit: Audit) -> Iterator[Line]:
    """Article 15(4): random noise."""
    for at, n in enumerate(audit.noise):
        if n.samples:
            yield Line("15(4) Robustness against random noise", noise_words(n), f"/noise/{at}/population", "noise", "in part")


def against_examples(audit: Audit) -> Iterator[Line]:
    """Article 15(5): what no adversarial example is nearer than."""
    for at, b in _shown(audit):
        if b.low.value and not b.contradictions:
            text = (
                f"For half of {count(b.samples, 'sample')} there is none within {number_below(b.low.value)} {b.units} "
                f"({NORM_WORDS[b.norm]}): guaranteed, in exact arithmetic"
            )
            yield Line(
                "15(5) Adversarial examples, guaranteed distance", text, f"/bracket/{at}/low/value", f"bracket-{b.norm}", "in part"
            )


def robustness_metrics(audit: Audit) -> Iterator[Line]:
    """Annex IV, point 2(g): which of these values there are."""
    shown = shown_brackets(audit)
    parts = [
        ("guaranteed and found distances", "/bracket", f"bracket-{shown[0].norm}" if shown else "", shown),
        ("shares that stay under random noise", "/noise", "noise", audit.noise),
        ("certified accuracy of the smoothed classifier", "/smoothing", "smoothing", audit.smoothing),
        ("a verifier's answers", "/verifier", "verifier", audit.verifier),
    ]
    for what, pointer, anchor, there in parts:
        if there:
            yield Line("2(g) Metrics of robustness, with their kinds", f"{what[0].upper()}{what[1:]}", pointer, anchor, "measured")
