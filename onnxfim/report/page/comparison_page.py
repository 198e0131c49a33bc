"""The page that compares several audits: its tables and sentences, computed from a Comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from onnxfim.record.decision import Aggregate
from onnxfim.record.foreign_text import visible
from onnxfim.record.measures import RANKED
from onnxfim.report.charts.comparison_charts import against, means
from onnxfim.report.charts.marks import Figure, at_both_widths
from onnxfim.report.identity_words import identity_facts
from onnxfim.report.numbers import MISSING, count, measure_label, number, percent, short, spread, statistic_label, two_decimals
from onnxfim.report.page.delta_section import DeltaSection, build_delta_section
from onnxfim.report.page.quantities import Quantity, of_compared, of_share
from onnxfim.verdict.comparison import Comparison, Entry, Pair

MOST_SAMPLES = 25
MOST_CLASSES = 100
MOST_SCATTERS = 6


@dataclass(frozen=True)
class TableRow:
    """A table row: its head and its cells."""

    head: str
    cells: tuple[Quantity, ...]


@dataclass(frozen=True)
class Table:
    """A table of numbers."""

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class PairLine:
    """Two audits and whether they differ."""

    name: str
    ratio: Quantity
    here: str
    p: str
    worse: Quantity
    better: Quantity
    significant: bool
    pairing: str


@dataclass(frozen=True)
class ComparisonPage:
    """All that the page of a comparison prints, in its order."""

    title: str
    heading: str
    summary: str
    headline: str
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    lead: str
    units: str
    ranking: Table
    means: Figure | None
    pairs: tuple[PairLine, ...]
    pairs_note: str
    scatters: tuple[Figure, ...]
    classes: Table
    samples: Table
    samples_note: str
    correlations: tuple[tuple[str, Table], ...]
    differences: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]
    first: str
    schema_version: str
    delta: DeltaSection | None = None
    report: tuple[tuple[str, str], ...] = ()


def build_comparison_page(comparison: Comparison) -> ComparisonPage:
    """Compute the page of ``comparison``."""
    names = tuple(visible(e.name) for e in comparison.entries)
    heading = " against ".join(names) if len(names) == 2 else count(len(names), "model")
    title = visible(comparison.identity.title or "") if comparison.identity else ""
    return ComparisonPage(
        title=f"{title or heading}: robustness compared",
        heading=heading,
        summary=f"{count(len(names), 'audit')} on {count(comparison.count, 'sample')} of {visible(comparison.data)}",
        headline=_headline(comparison),
        sentences=_sentences(comparison),
        notes=tuple(visible(n) for n in comparison.notes),
        lead=measure_label(comparison.measure),
        units=visible(comparison.units),
        ranking=_ranking(comparison),
        means=at_both_widths(lambda width: means(comparison, width=width)),
        pairs=tuple(_pair(comparison, p) for p in comparison.pairs),
        pairs_note=(
            "Each ratio is the second mean over the first, over the samples that both measured. Its interval is about such samples "
            "in general; beside it stands the one about these samples alone. p-values are of equal means, by a paired bootstrap "
            f"over the samples, corrected for {count(len(comparison.pairs), 'pair')} (Holm); below 5 % counts as significant."
        ),
        scatters=_scatters(comparison),
        classes=_classes(comparison),
        samples=_samples(comparison),
        samples_note=(
            f"The {min(MOST_SAMPLES, comparison.count)} samples that moved most, relative to the means; the rest is in the JSON."
        ),
        correlations=tuple((name, _correlations(comparison, i)) for i, name in enumerate(names)),
        differences=tuple(
            (name, tuple((visible(d.name), visible(d.baseline), visible(d.current)) for d in found))
            for name, found in zip(names[1:], comparison.differences, strict=True)
        ),
        first=names[0],
        schema_version=visible(comparison.schema_version),
        delta=build_delta_section(comparison.deployment, comparison.gates),
        report=identity_facts(comparison.identity),
    )


def _headline(comparison: Comparison) -> str:
    """Which is the least sensitive, and how sure that is."""
    best, second = (comparison.entries[i] for i in comparison.order[:2])
    first, next_one = visible(best.name), visible(second.name)
    if best.mean.value is None:
        return "Nothing was measured, so nothing can be ranked."
    pair = next(p for p in comparison.pairs if {p.first, p.second} == set(comparison.order[:2]))
    if pair.ratio.value == 1 and pair.ratio.low == pair.ratio.high:
        return f"{first} and {next_one} are equal on every sample."
    factor = max(pair.ratio.value or 1.0, 1 / (pair.ratio.value or 1.0))
    if pair.significant:
        return f"{first} is the least sensitive: the next, {next_one}, is {number(factor)} times as sensitive."
    return f"{first} has the lowest mean, but the next, {next_one}, at {number(factor)} times it, does not differ significantly."


def _sentences(comparison: Comparison) -> tuple[str, ...]:
    """How many differences are significant, and what that rests on."""
    told = sum(p.significant for p in comparison.pairs)
    if len(comparison.pairs) == 1:
        p = number(comparison.pairs[0].p_holm, digits=2)
        found = [f"The difference is {'' if told else 'not '}significant (p = {p})."]
    else:
        found = [f"{told} of {count(len(comparison.pairs), 'difference')} {'is' if told == 1 else 'are'} significant."]
    if told < len(comparison.pairs):
        found.append("What is not significant may be chance: with other samples of the same kind the order may turn.")
    return tuple(found)


def _ranking(comparison: Comparison) -> Table:
    rows = []
    for i in comparison.order:
        e = comparison.entries[i]
        ranks = None if e.rank_low == e.rank == e.rank_high else f"{e.rank_low} to {e.rank_high}"
        cells = (
            Quantity(str(e.rank), ranks),
            of_compared(e.calibrated),
            of_compared(e.raw),
            of_compared(e.boundary_distance),
            _flip_cell(e),
            Quantity(f"{e.log10_fisher_bound:.2f}" if e.log10_fisher_bound is not None else "–"),
            Quantity(
                percent(e.accuracy) if e.accuracy is not None else "–",
                f"T = {number(e.temperature)}" if e.temperature is not None else None,
            ),
            Quantity(short(e.step), e.scheme),
            Quantity(visible(e.provider).removesuffix("ExecutionProvider"), e.method),
        )
        rows.append(TableRow(visible(e.name), cells))
    columns = (
        "Rank",
        statistic_label("lambda_max_calibrated", "mean"),
        statistic_label("lambda_max", "mean"),
        statistic_label("boundary_distance", "median"),
        statistic_label("flip_radius", "median"),
        "Bound by the weights, log₁₀",
        "Accuracy, temperature",
        "Step",
        "Provider",
    )
    return Table(columns, tuple(rows))


def _flip_cell(entry: Entry) -> Quantity:
    """The median flip radius; along a sketched direction it is longer than along the model's own, and says so."""
    found = of_compared(entry.flip_radius)
    return replace(found, kind="sketched direction") if entry.method == "sketch" and found.text != MISSING else found


def _pair(comparison: Comparison, pair: Pair) -> PairLine:
    first, second = comparison.entries[pair.first], comparison.entries[pair.second]
    return PairLine(
        f"{visible(second.name)} / {visible(first.name)}",
        of_compared(pair.ratio),
        _here(pair.ratio_here),
        number(pair.p_holm, digits=2),
        of_share(pair.worse),
        of_share(pair.better),
        pair.significant,
        "paired" if pair.paired else "not paired",
    )


def _here(ratio: Aggregate) -> str:
    """The ratio on these samples alone: an interval, or the number itself where no noise is left."""
    if ratio.low is None or ratio.high is None:
        return "–"
    return spread(ratio.low, ratio.high) or number(ratio.low)


def _scatters(comparison: Comparison) -> tuple[Figure, ...]:
    """The first audit against each other one."""
    figures = [
        at_both_widths(lambda width, j=j: against(comparison, 0, j, width=width))  # type: ignore[misc]
        for j in range(1, min(len(comparison.entries), MOST_SCATTERS + 1))
    ]
    return tuple(f for f in figures if f is not None)


def _classes(comparison: Comparison) -> Table:
    names = tuple(visible(e.name) for e in comparison.entries)
    columns = ("Samples", *names, *(f"{name} / {names[0]}" for name in names[1:]))
    moved = sorted(comparison.classes, key=lambda c: -max(abs(math.log(r.value or 1.0)) for r in c.ratios))[:MOST_CLASSES]
    rows = [
        TableRow(
            visible(c.name),
            (Quantity(f"{c.count:,}"), *(Quantity(number(m)) for m in c.means), *(of_compared(r) for r in c.ratios)),
        )
        for c in moved
    ]
    return Table(columns, tuple(rows))


def _samples(comparison: Comparison) -> Table:
    """Samples by their largest movement, as a share of the means."""
    scales = [e.mean.value or 1.0 for e in comparison.entries]

    def movement(values: tuple[float, ...]) -> float:
        shares = [v / s for v, s in zip(values, scales, strict=True)]
        return max(abs(s - shares[0]) for s in shares)

    names = tuple(visible(e.name) for e in comparison.entries)
    moved = sorted(comparison.samples, key=lambda s: -movement(s.values))[:MOST_SAMPLES]
    rows = [
        TableRow(
            f"{s.index}" + (f" {visible(s.name)}" if s.name and s.name != str(s.index) else ""),
            (Quantity("–" if s.label is None else str(s.label)), *(Quantity(number(v)) for v in s.values)),
        )
        for s in moved
    ]
    return Table(("Label", *names), tuple(rows))


def _correlations(comparison: Comparison, entry: int) -> Table:
    """The lower triangle of one audit's rank correlations."""
    found = {(c.first, c.second): c for c in comparison.correlations if c.entry == entry}
    measures = [m for m in RANKED if any(m in key for key in found)]
    rows = []
    for row in measures[1:]:
        cells = [
            _correlation(found[column, row].rho) if (column, row) in found else Quantity("")
            for column in measures[: measures.index(row)]
        ]
        rows.append(TableRow(measure_label(row), (*cells, *[Quantity("")] * (len(measures) - 1 - len(cells)))))
    return Table(tuple(measure_label(m) for m in measures[:-1]), tuple(rows))


def _correlation(rho: Aggregate) -> Quantity:
    """A correlation with two decimals."""
    if rho.value is None or rho.low is None or rho.high is None:
        return Quantity("–")
    return Quantity(two_decimals(rho.value), f"{two_decimals(rho.low)} to {two_decimals(rho.high)}")
