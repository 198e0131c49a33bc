"""What an audit says in the terms of standards: lines of a topic, the words, and where in the record the value stands.

Terms are those of ISO/IEC 24029-2:2023 (assessment of the robustness of neural networks) and of Regulation (EU) 2024/1689, the AI Act,
Article 15 and Annex IV. Nothing here claims that either is met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.measures import BY_NAME
from onnxfim.record.robustness import Source
from onnxfim.record.running import Run
from onnxfim.report import words
from onnxfim.report.decisions import gates
from onnxfim.report.dossier.guarantee_lines import (
    against_examples,
    against_faults,
    formal_methods,
    guaranteed_values,
    robustness_metrics,
)
from onnxfim.report.dossier.one_line import Line, State
from onnxfim.report.human import attacked_at, guaranteed_by, who
from onnxfim.report.identity_words import command_text, date_text
from onnxfim.report.numbers import count, known_ends, number, percent, percent_interval
from onnxfim.report.page.bound_section import upper
from onnxfim.report.served_words import hash_name
from onnxfim.report.vocabulary import NORM_WORDS

#: How the samples of a curve fall.
_FALLEN: Mapping[Source, str] = {
    "flip_radius": "along the moves that were tried",
    "attack": "under attack",
    "boundary_distance": "to first order",
}


@dataclass(frozen=True)
class LineTable:
    """The lines of one standard, or of one part of it."""

    key: str
    title: str
    about: str
    lines: tuple[Line, ...]


def tables(audit: Audit) -> tuple[LineTable, ...]:
    """All tables, in their order."""
    return (
        LineTable(
            "robustness",
            "ISO/IEC 24029-2: property, domain, criterion, verdict, limits",
            "That standard is about formal methods. Measuring on samples is a statistical method, replaying attacks an empirical one "
            "(both in the terms of ISO/IEC TR 24029-1); the bound from the weights, bounds around samples and a verifier's proofs are formal "
            "ones. Each line says which.",
            tuple(_iso(audit)),
        ),
        LineTable(
            "article-15",
            "EU AI Act, Article 15: accuracy, robustness and cybersecurity",
            "What this audit can contribute. Whether a level is appropriate for the intended use is the provider's to say.",
            tuple(_article_15(audit)),
        ),
        LineTable(
            "annex-iv",
            "EU AI Act, Annex IV: technical documentation",
            "Points of the annex that an audit of one file touches, and those that it does not.",
            tuple(_annex_iv(audit)),
        ),
    )


def _iso(audit: Audit) -> Iterator[Line]:
    lead = words.lead_measure(audit)
    yield Line(
        "Neural network under assessment",
        f"{audit.model.name}, {hash_name(audit.model)} {audit.model.sha256}",
        "/model/sha256",
        "run",
    )
    what = f"Sensitivity: how fast the output distribution leaves the one at a sample, in the worst direction ({lead.label})"
    yield Line("Property", what, f"/measures/{lead.name}/label", "method")
    yield from _values(audit)
    yield from _domain(audit)
    yield from _criteria(audit)
    state: State = "decided" if _decided(audit) else "in part" if audit.verdict == "inconclusive" else "measured"
    yield Line("Verdict", words.headline(audit), "/verdict", "summary", state)
    yield from _methods(audit)
    yield from _limits(audit)


def _values(audit: Audit) -> Iterator[Line]:
    """The values of the properties, each with its kind and its interval."""
    shown = dict.fromkeys((words.lead_measure(audit).name, "boundary_distance", "flip_radius"))
    topics = {"boundary_distance": "Property, value (distance to the decision boundary, first order)",
              "flip_radius": "Property, value (stability: smallest change found that moved the decision)"}  # fmt: skip
    for name in shown:
        group = audit.aggregates.get(name)
        if group is None:
            continue
        statistic = "median" if name in topics else "mean"
        one = group.median if name in topics else group.mean
        topic = topics.get(name, "Property, value (sensitivity)")
        label = f"{statistic.capitalize()} of {BY_NAME[name].label} over {count(group.count, 'sample')}"
        if one.value is None:
            yield Line(topic, f"{label}: not measured", f"/aggregates/{name}", "numbers", "in part")
            continue
        ends = known_ends(one.low, one.high)
        told = "no interval" if ends is None else f"{one.confidence:.0%} interval: {ends}"
        text = f"{label}: {number(one.value)} ({group.kind}; {told}) {group.units}"
        yield Line(topic, text, f"/aggregates/{name}/{statistic}/value", "numbers", "measured")
    yield from _reached(audit)
    yield from guaranteed_values(audit)


def _reached(audit: Audit) -> Iterator[Line]:
    """At which distances the shares of the samples that stand have fallen, by each kind of distance that was measured."""
    told = audit.robustness
    for at, curve in enumerate(told.curves if told is not None else ()):
        if told is None or not curve.standing:
            continue
        parts = []
        for found in curve.reached:
            if found.epsilon is None:
                parts.append(f"{100 * found.share:.0f} % at no distance found")
                continue
            ends = known_ends(found.low, found.high) or "no interval"
            parts.append(f"{100 * found.share:.0f} % at {number(found.epsilon)} (95% interval: {ends})")
        samples = who(curve, told.counts)
        how = _FALLEN.get(curve.source) or f"at the earliest, by what {' '.join(guaranteed_by(told))}"
        text = f"Of {samples} have fallen {how}: {'; '.join(parts)}; {curve.kind}, {NORM_WORDS[curve.norm]}, {curve.units}"
        yield Line("Property, value (stability, in shares of the samples)", text, f"/robustness/curves/{at}/reached", "survival",
                   "measured")  # fmt: skip


def _domain(audit: Audit) -> Iterator[Line]:
    data = audit.data
    kind = "drawn at random, no real input" if data.synthetic else f"of {data.source}"
    yield Line("Domain, inputs", f"{count(len(audit.samples), 'sample')} {kind}", "/data/source", "samples")
    yield Line("Domain, inputs by their hash", f"SHA-256 of the selection: {data.sha256}", "/data/sha256", "run")
    values = f"{number(data.input_min)} to {number(data.input_max)}, standard deviation {number(data.input_std)}"
    yield Line("Domain, range of the inputs", values, "/data/input_min", "run")
    given_up = count(len(audit.skipped), "sample")
    yield Line("Domain, what was left out", f"{given_up} could not be audited", "/skipped", "skipped" if audit.skipped else "run")
    at = audit.model.at
    what = "the input" if at is None else f"the inner value {audit.model.input} (the file's own input is {at.input})"
    stability = ", those up to the first flip for the stability" if "flip_radius" in audit.aggregates else ""
    yield Line("Domain, perturbations", f"Changes in L2 of {what}: infinitesimal ones for the sensitivity{stability}",
               "/settings/flip", "method")  # fmt: skip
    if audit.attack is not None:
        a = audit.attack
        text = f"Attacks in {NORM_WORDS[a.norm]} within {number(a.epsilon)} {a.units}, values from {number(a.input_low)} to {number(a.input_high)}"
        yield Line("Domain, perturbations of the attack", text, "/attack/epsilon", "attack")


def _criteria(audit: Audit) -> Iterator[Line]:
    for at, gate in enumerate(gates(audit)):
        pointer = f"/gates/{at}/verdict" if at < len(audit.gates) else "/comparison/verdict"
        text = f"Fails where {gate.text}: {gate.verdict}. Found: {gate.message}"
        yield Line("Criterion", text, pointer, "gates", "decided")
    if not _decided(audit):
        yield Line("Criterion", "None was set, so that nothing was passed or failed", "/gates", "summary", "not in this dossier")


def _decided(audit: Audit) -> bool:
    return bool(audit.gates) or audit.comparison is not None


def _methods(audit: Audit) -> Iterator[Line]:
    run = audit.run
    lead = audit.aggregates.get(words.lead_measure(audit).name)
    valued = lead is not None and lead.count > 0
    text = f"{_how(run)}, on the file itself, at each sample{'' if valued else '; no sample has a value'}"
    yield Line("Method, statistical", text, "/run/method", "method", "measured" if valued else "in part")
    if audit.attack is not None:
        text = f"Attack replay of {count(audit.attack.samples, 'sample')}; on {audit.attack.failed:,} of them no attack succeeded"
        yield Line("Method, empirical", text, "/attack/failed", "attack", "measured")
    else:
        yield Line("Method, empirical", "No attack was replayed", "/attack", "", "not in this dossier")
    bound = audit.bound
    if bound is not None and bound.log10_fisher is not None:
        text = f"From the weights, at every input: the Fisher information is at most {upper(bound.log10_fisher)} {audit.units}"
        yield Line("Method, formal", f"{text}; its assumptions are listed", "/bound/log10_fisher", "bound", "measured")
    else:
        reason = f": {bound.reason}" if bound is not None and bound.reason else ""
        yield Line("Method, formal", f"There is no bound from the weights{reason}", "/bound", "", "not in this dossier")
    yield from formal_methods(audit)


def _how(run: Run) -> str:
    told = {"gradient": "Derivatives of the graph", "sketch": "Random directions", "exact": "All coordinates by differences"}
    return told.get(run.method, run.method)


def _limits(audit: Audit) -> Iterator[Line]:
    yield Line("Uncertainty", "Every statistic has an interval for the sampling of the data and the noise of the estimates",
               "/aggregates", "numbers", "measured")  # fmt: skip
    levels = [f.level for f in audit.findings]
    told = ", ".join(count(levels.count(level), level) for level in ("error", "warning", "note") if level in levels) or "none"
    yield Line("Limits, findings about this audit", told, "/findings", "findings", "measured")
    yield Line("Limits, in general", "What the numbers do not say is listed on the page, and below", "", "limits")


def _article_15(audit: Audit) -> Iterator[Line]:
    c = audit.calibration
    if c.accuracy is None:
        why = c.reason or "there are no labels"
        yield Line(
            "15(1), 15(3) Level of accuracy", f"Not measured: {why}", "/calibration/reason", "numbers", "not in this dossier"
        )
    else:
        ends = percent_interval(c.accuracy_low, c.accuracy_high)
        text = f"Accuracy {percent(c.accuracy)}{f' ({ends})' if ends else ''} on these data"
        yield Line("15(1), 15(3) Level of accuracy, and its metric", text, "/calibration/accuracy", "numbers", "measured")
    if audit.classes:
        text = f"Values for {count(len(audit.classes), 'class', 'classes')}"
        yield Line("15(3) Accuracy by class", text, "/classes", "classes", "measured")
    shown = {words.lead_measure(audit).name: "sensitivity", "boundary_distance": "boundary distance", "flip_radius": "flip radius"}
    told = ", ".join(what for name, what in shown.items() if name in audit.aggregates and audit.aggregates[name].count)
    text = f"Small changes of the input: {told}. No other fault" if told else "Nothing was measured"
    state: State = "in part" if told else "not in this dossier"
    yield Line("15(4) Robustness against errors and faults", text, "/aggregates", "numbers", state)
    yield from against_faults(audit)
    if audit.attack is not None:
        a = audit.attack
        ends = percent_interval(a.robust_accuracy_low, a.robust_accuracy_high)
        text = f"Accuracy under attack within {number(a.epsilon)} ({NORM_WORDS[a.norm]}): at most {percent(a.robust_accuracy)}"
        text += f" ({ends})" if ends else ""
        yield from _against_attacks(audit)
        yield Line("15(5) Adversarial examples, at the attack's own distance", text, "/attack/robust_accuracy", "attack", "in part")
    else:
        why = "No attack was replayed (--attack does)"
        if audit.settings.attack is not None:
            why = "The attack that was asked for is not in this audit: it ended before, or could not be made (see the findings)"
        yield Line("15(5) Adversarial examples", why, "/attack", "", "not in this dossier")
    yield from against_examples(audit)
    yield Line("15(4) Feedback loops of systems that go on learning", "The file is audited as it is", state="not in this dossier")
    yield Line("15(5) Data poisoning, model poisoning, confidentiality", "Not looked at", state="not in this dossier")


def _against_attacks(audit: Audit) -> Iterator[Line]:
    """What is left of the accuracy at each distance."""
    told = audit.robustness
    curve = told.curve("attack") if told is not None else None
    if told is None or curve is None or not curve.ladder:
        return
    what = "Accuracy" if told.counts == "right" else "Agreement with its own predictions"
    rungs = "; ".join(
        f"at most {percent(p.left)} ({percent_interval(p.low, p.high)}) at {attacked_at(p.epsilon, curve, told)}"
        for p in curve.ladder
    )
    text = f"{what} against the distance of the attack ({NORM_WORDS[curve.norm]}, {curve.units}): {rungs}"
    yield Line("15(5) Adversarial examples", text, f"/robustness/curves/{told.curves.index(curve)}/ladder", "attack", "in part")


def _annex_iv(audit: Audit) -> Iterator[Line]:
    identity = audit.identity
    outside: State = "not in this dossier"
    yield Line("1(a) Intended purpose, provider, version", "Title, note and facts that the author gave, where they did", "/identity",
               "run", "in part" if identity is not None and (identity.title or identity.note or identity.meta) else outside)  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in sorted(audit.run.versions.items()))
    yield Line(
        "1(c) Versions of relevant software",
        f"{versions}; other parts of the system are not known",
        "/run/versions",
        "run",
        "in part",
    )
    yield Line("1(e) Hardware", f"Audited on {audit.run.platform} with {audit.run.provider}", "/run/platform", "run", "in part")
    yield Line("2(a) Methods and third-party tools of the development", "Not looked at", state=outside)
    family = "not read" if audit.architecture is None else f"{audit.architecture.family}"
    yield Line("2(b), 2(c) Design and architecture", f"Class of the graph: {family}; {audit.model.producer or 'producer not stated'}",
               "/architecture" if audit.architecture is not None else "/model/producer",
               "bound" if audit.architecture is not None else "run", "in part")  # fmt: skip
    yield Line("2(d) Training data", "Not looked at: the data of this dossier are those of the audit", state=outside)
    yield Line("2(e) Human oversight", "Not looked at", state=outside)
    yield Line(
        "2(g) Validation data and their characteristics",
        f"{count(audit.data.count, 'sample')} of {audit.data.source}",
        "/data",
        "run",
        "measured",
    )
    yield Line(
        "2(g) Metrics of accuracy and robustness",
        "Listed above and in the ML-BOM, with intervals",
        "/aggregates",
        "numbers",
        "measured",
    )
    yield from robustness_metrics(audit)
    yield Line("2(g) Potentially discriminatory impacts", "Values by class alone; no protected group is known to the audit",
               "/classes", "classes" if audit.classes else "", "in part" if audit.classes else outside)  # fmt: skip
    dated = date_text(identity) if identity is not None else ""
    command = f", made by: {command_text(identity)}" if identity is not None and identity.command else ""
    yield Line("2(g) Test logs and reports, dated and signed", f"{dated or 'Not dated'}{command}; to be signed below",
               "/identity", "run", "in part")  # fmt: skip
    yield Line("2(h) Cybersecurity measures", "Not looked at", state=outside)
    yield Line(
        "3 Capabilities and limitations of performance",
        "Findings, and what the numbers do not say",
        "/findings",
        "findings",
        "in part",
    )
    yield Line("4 Appropriateness of the metrics", "Definition and sources of the measure; for the intended use it is the provider's to say",
               "/measures", "method", "in part")  # fmt: skip
    for point, what in (("5", "Risk management system"), ("6", "Changes through the lifecycle"), ("8", "EU declaration of conformity"),
                        ("9", "Post-market monitoring")):  # fmt: skip
        yield Line(f"{point} {what}", "Not looked at", state=outside)
    yield Line(
        "7 Standards applied", "The terms of ISO/IEC 24029-2 are used above; no harmonised standard is claimed", state="in part"
    )
