"""The first screen of a comparison of two models: what deployment changed, and which nodes carry it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxfim.record.decision import GateResult
from onnxfim.record.deployment import Attribution, Carrier, Change, Deployment
from onnxfim.record.foreign_text import visible
from onnxfim.report.charts.bars import NamedBar, signed_bars
from onnxfim.report.charts.marks import Chart, Figure, at_both_widths
from onnxfim.report.delta_words import (
    attribution_words,
    flip_words,
    headline,
    outcome_words,
    points,
    ratio,
    reading_words,
    rise,
    share,
    squared,
)
from onnxfim.report.gate_words import value_words
from onnxfim.report.numbers import MISSING, count, number, percent, short

_MOST_BARS = 20


@dataclass(frozen=True)
class DeltaRow:
    """One thing: in the first model, in the second, the change, what the interval says, and what must be known of it."""

    what: str
    first: str
    second: str
    change: str
    interval: str
    reading: str
    state: str
    note: str


@dataclass(frozen=True)
class MovedRow:
    """One sample whose outputs moved."""

    name: str
    label: str
    first: str
    second: str
    variation: str
    kl: str


@dataclass(frozen=True)
class CarrierRow:
    """One node of the ranking."""

    rank: int
    node: str
    operator: str
    restores: str
    alone: str
    sensitivity: str
    outputs: str
    restored: str
    weights: str


@dataclass(frozen=True)
class AttributionPart:
    """The ranking of the nodes as bars and as a table."""

    sentence: str
    how: str
    bars: Figure | None
    rows: tuple[CarrierRow, ...]
    left: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class DeltaSection:
    """All that the section prints."""

    headline: str
    first: str
    second: str
    rows: tuple[DeltaRow, ...]
    sentences: tuple[str, ...]
    moved: tuple[MovedRow, ...]
    attribution: AttributionPart | None


def build_delta_section(d: Deployment | None, gates: Sequence[GateResult] = ()) -> DeltaSection | None:
    """The section of a comparison of exactly two models; None of more."""
    if d is None:
        return None
    places = [p.removesuffix("ExecutionProvider") for p in d.providers]
    ran = f"Both ran on {places[0]}" if places[0] == places[1] else f"The first ran on {places[0]}, the second on {places[1]}"
    sentences = (outcome_words(d), flip_words(d), f"{ran}; sensitivity was measured {d.scale}.")
    decided = (f"Gate {g.text}: {g.verdict} ({value_words(g)})." for g in gates)
    return DeltaSection(
        headline(d),
        visible(d.first),
        visible(d.second),
        tuple(_rows(d)),
        tuple(visible(s) for s in (*decided, *sentences) if s),
        tuple(_moved(d)),
        None if d.attribution is None else _attribution(d.attribution),
    )


def _rows(d: Deployment) -> Iterator[DeltaRow]:
    yield _row("Accuracy", d.accuracy, percent, points(d.accuracy.change), better="rose")
    yield _row("Same prediction", d.agreement, percent, share(d.agreement.change), better="rose")
    yield _row("Sensitivity, λ_max, calibrated", d.sensitivity, number, f"× {ratio(d.sensitivity.change)}", better="fell")
    yield _row("Sensitivity, λ_max, raw", d.sensitivity_raw, number, f"× {ratio(d.sensitivity_raw.change)}", better="fell")
    yield _row("Flip radius", d.flip_radius, number, f"× {ratio(d.flip_radius.change)}", better="rose")
    yield _row("Outputs moved, total variation", d.divergence, percent, share(d.divergence.change), better="fell")
    yield _row("Outputs moved, KL, nats", d.kl, number, ratio(d.kl.change), better="fell")


def _row(what: str, c: Change, shown: object, change: str, *, better: str) -> DeltaRow:
    known = c.change.value is not None
    distance = what.startswith("Outputs")
    state = "still" if distance or c.reading not in ("rose", "fell") else "good" if c.reading == better else "bad"
    sides = [("–" if v is None or c.form == "share" or distance else shown(v)) for v in (c.first, c.second)]  # type: ignore[operator]
    notes = [c.note] if c.note else []
    if known and c.p is not None and c.test:
        notes.append(f"{c.test}, p = {number(c.p, digits=2)}")
    if known and c.rose is not None and c.rose.value is not None:
        notes.append(f"larger on {percent(c.rose.value)} of the samples")
    if known:
        notes.append(count(c.count, "sample"))
    told = ("moved" if c.reading == "rose" else "not moved") if distance and known else reading_words(c)
    value, _, ends = (change if known else MISSING).partition(" [")
    return DeltaRow(what, sides[0], sides[1], value, ends and f"[{ends}", told, state, visible("; ".join(notes)))


def _moved(d: Deployment) -> Iterator[MovedRow]:
    for m in d.moved:
        name = f"{m.index}" + (f" {visible(m.name)}" if m.name and m.name != str(m.index) else "")
        label, first, second = ("–" if c is None else str(c) for c in (m.label, m.first, m.second))
        variation = "–" if m.total_variation is None else percent(m.total_variation)
        yield MovedRow(name, label, first, second, variation, "–" if m.kl is None else number(m.kl))


def _attribution(a: Attribution) -> AttributionPart:
    around = f" around points dithered by {short(a.dither)}, where rounding averages out" if a.dither else ""
    how = (
        "Each node was put as deployed, alone, into the otherwise restored network, and measured along the same "
        f"{count(a.directions, 'direction')} at each of the same {count(a.samples, 'sample')}, by {a.scheme} differences at a step "
        f"of {short(a.step)} per coordinate{around}. {a.evaluations:,} forward passes in all; with every node restored the scores "
        f"differ by {squared(a.restored)}."
    )
    rows = tuple(_carrier(k, c) for k, c in enumerate(a.nodes, 1))
    return AttributionPart(
        attribution_words(a),
        how if a.nodes else "",
        at_both_widths(lambda width: _chart(a, width)),
        rows,
        tuple((visible(x.node), visible(x.operator), visible(x.reason)) for x in a.left),
    )


def _chart(a: Attribution, width: int) -> Chart | None:
    """The strongest nodes as bars."""
    bars = _bars(a)
    return signed_bars(
        bars, name="carriers", title="Change of the scores by each node alone", width=width,
        description="; ".join(f"{b.name} {b.text}" for b in bars), axis="change of the scores by the node alone, %",
    )  # fmt: skip


def _bars(a: Attribution) -> list[NamedBar]:
    found = []
    for c in a.nodes[:_MOST_BARS]:
        value = math.sqrt(max(c.alone.value or 0.0, 0.0))
        found.append(NamedBar(visible(c.node), 100 * value, percent(value), f"{visible(c.node)}: {squared(c.alone)}"))
    return found


def _carrier(rank: int, c: Carrier) -> CarrierRow:
    restored = "–" if c.restored is None or c.restored.value is None else _gone(c)
    return CarrierRow(
        rank, visible(c.node), visible(c.operator), c.restores, squared(c.alone), rise(c.logarithm), share(c.outputs), restored,
        "–" if c.weights is None else percent(c.weights),
    )  # fmt: skip


def _gone(c: Carrier) -> str:
    """What goes from the file's change when the node is restored, as a length again."""
    assert c.restored is not None
    return squared(c.restored)
