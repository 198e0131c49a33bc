"""All that is guaranteed and found of each sample, as a table: a column for each part that was run."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.guarantees import NoiseStability, Smoothed
from onnxfim.record.sample import SampleResult
from onnxfim.report import words
from onnxfim.report.guarantee_words import bracket_of, shown_brackets
from onnxfim.report.numbers import number, number_above, number_below, percent, short
from onnxfim.report.page.guarantees_view import KnownRow
from onnxfim.report.page.tables import class_name
from onnxfim.report.vocabulary import NORM_WORDS


def known_columns(audit: Audit) -> tuple[str, ...]:
    """Heads of the columns, each with the kind of its numbers."""
    heads: list[str] = []
    for b in shown_brackets(audit):
        norm = NORM_WORDS[b.norm]
        heads += [f"{norm} guaranteed", f"{norm} first order, estimate", f"{norm} from λ_max, estimate", f"{norm} found"]
    heads += [f"Kept under {visible(n.noise)}" for n in audit.noise]
    heads += [f"Smoothed, σ = {short(s.sigma)}: radius" for s in audit.smoothing]
    return tuple(heads)


def known_rows(audit: Audit, samples: Sequence[SampleResult]) -> tuple[KnownRow, ...]:
    """The samples as rows, in their order; none where there is no column."""
    if not known_columns(audit):
        return ()
    return tuple(
        KnownRow(
            index=s.index,
            name=visible(s.name),
            prediction=class_name(s.prediction, audit) or "–",
            wrong=words.predicted_wrongly(s),
            cells=tuple(_cells(s, audit)),
        )
        for s in samples
    )


def _cells(s: SampleResult, audit: Audit) -> list[str]:
    cells: list[str] = []
    for told in shown_brackets(audit):
        b = bracket_of(s, told.norm)
        if b is None:
            cells += ["–"] * 4
            continue
        cells.append(f"{number_below(b.low)} ({visible(b.low_from)})" if b.low else "nothing")
        cells += ["–" if v is None else number(v) for v in (b.first_order, b.fisher)]
        cells.append("none" if b.high is None else f"{number_above(b.high)} ({visible(b.high_from)})")
    cells += [_kept(next((x for x in s.noise if x.noise == n.noise), None)) for n in audit.noise]
    cells += [_radius(next((x for x in s.smoothed if x.sigma == t.sigma), None), audit) for t in audit.smoothing]
    return cells


def _kept(found: NoiseStability | None) -> str:
    if found is None:
        return "–"
    if not found.tries:
        return visible(found.reason or "not tried")
    return f"{found.decided}: at least {percent(found.low)}, {found.kept:,} of {found.tries:,}"


def _radius(found: Smoothed | None, audit: Audit) -> str:
    if found is None:
        return "–"
    if not found.tries:
        return visible(found.reason or "not tried")
    if found.prediction is None:
        return "abstains"
    return f"{number_below(found.radius)} for {class_name(found.prediction, audit)}"
