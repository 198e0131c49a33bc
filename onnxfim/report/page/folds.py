"""The questions of a page whose answers are folded; only those that this audit can answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.report.numbers import count
from onnxfim.report.page.whole import Fold
from onnxfim.report.vocabulary import FAMILY_WORDS
from onnxfim.report.whereabouts import where_it_ran


def folds(audit: Audit, *, survival: bool, replay: bool, bound: bool, guarantees: Sequence[str] = ()) -> tuple[Fold, ...]:
    """The folds in their order.

    ``survival``, ``replay`` and ``bound`` tell whether there is such a section, ``guarantees`` the parts of that section.
    """
    found = [
        Fold("sure", "How sure is that?", "How sure", _listed(("statistics with intervals", "the step")), "sure.html.j2"),
        Fold("which", "Which samples, and why?", "Which samples", _samples(audit), "which.html.j2"),
    ]
    if survival:
        hint = "distances with intervals, moves tried, guarantees"
        found.append(Fold("survival", "At which distance do predictions flip?", "Distances", hint, "human.html.j2"))
    if guarantees:
        question = "What is guaranteed, what is estimated?"
        found.append(Fold("guarantees", question, "Guarantees", _listed(guarantees), "guarantees.html.j2"))
    checks = [
        name
        for name, there in (("in measured quantities", audit.measured), ("replay", replay), ("attack", audit.attack is not None))
        if there
    ]
    if checks:
        found.append(Fold("meaning", "Does the number mean what it says?", "What it means", _listed(checks), "meaning.html.j2"))
    found.append(Fold("measured", "How was it measured?", "Method", "method, limits, sources", "measured.html.j2"))
    if bound:
        found.append(Fold("bound", "What do the weights allow?", "Bound", _bound(audit), "weights.html.j2"))
    where = f"{visible(where_it_ran(audit))}; settings and versions"
    found.append(Fold("where", "Where and with what was it run?", "Run", where, "where.html.j2"))
    return tuple(found)


def _samples(audit: Audit) -> str:
    parts = [count(len(audit.samples), "sample")]
    if audit.classes:
        parts.append(count(len(audit.classes), "class", "classes"))
    if audit.skipped:
        parts.append(f"{len(audit.skipped):,} skipped")
    return _listed(parts)


def _bound(audit: Audit) -> str:
    family = audit.architecture.family if audit.architecture else None
    parts = [] if family is None else [FAMILY_WORDS.get(family, visible(family))]
    if audit.bound is not None:
        parts.append("spectral bound" if audit.bound.available else "no bound available")
    return _listed(parts)


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)
