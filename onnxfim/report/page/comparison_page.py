"""The page that compares several audits: its tables and sentences, computed from a Comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxfim.record.decision import Aggregate
from onnxfim.record.foreign_text import visible
from onnxfim.record.measures import RANKED
from onnxfim.report.charts.comparison_charts import against, means
from onnxfim.report.charts.decision_charts import accuracy_scatter, decision_matrix, forest
from onnxfim.report.charts.marks import Figure, at_both_widths
from onnxfim.report.comparison_words import (
    by_distances,
    distance_units,
    headline,
    names_of,
    pair_words,
    ranking_label,
    sentences,
    standings,
    test_label,
)
from onnxfim.report.identity_words import identity_facts, running_line
from onnxfim.report.numbers import (
    MISSING,
    count,
    measure_label,
    number,
    p_words,
    percent,
    percent_interval,
    short,
    statistic_label,
    two_decimals,
)
from onnxfim.report.page.delta_section import DeltaSection, build_delta_section
from onnxfim.report.page.quantities import Quantity, of_compared, of_share
from onnxfim.verdict.comparison import Comparison, Entry, Pair
from onnxfim.verdict.decided import Question
from onnxfim.verdict.measure_tests import WEIGHTS

MOST_SAMPLES = 25
MOST_CLASSES = 100
MOST_SCATTERS = 6
MOST_UNFOLDED = 4
_MOST_FOREST = 4
_MOST_CLASS_RATIOS = 6


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
class TestCell:
    """One measure of a pair: the ratio, and its corrected p-value."""

    ratio: Quantity
    p: str
    significant: bool


@dataclass(frozen=True)
class PairLine:
    """Two audits, what is decided about them, and each measure; ``cells`` has None where a measure was not tested."""

    name: str
    decision: str
    decided: bool
    cells: tuple[TestCell | None, ...]
    worse: Quantity
    better: Quantity


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
    standing: Table
    standing_note: str
    matrix: Figure | None
    accuracy: Figure | None
    forest: Figure | None
    forest_title: str
    ranking: Table
    means: Figure | None
    pair_columns: tuple[str, ...]
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
    running: str = ""

    @property
    def many(self) -> bool:
        """Whether there are so many models that what is told of each pair is folded."""
        return len(self.standing.rows) > MOST_UNFOLDED


def build_comparison_page(comparison: Comparison) -> ComparisonPage:
    """Compute the page of ``comparison``."""
    names = names_of(comparison)
    heading = " against ".join(names) if len(names) == 2 else count(len(names), "model")
    title = visible(comparison.identity.title or "") if comparison.identity else ""
    center = comparison.baseline if comparison.baseline is not None else 0 if len(names) <= _MOST_FOREST else None
    return ComparisonPage(
        title=f"{title or heading}: robustness compared",
        heading=title or heading,
        summary=f"{count(len(names), 'audit')} on {count(comparison.count, 'sample')} of {visible(comparison.data)}",
        headline=headline(comparison),
        sentences=sentences(comparison),
        notes=tuple(visible(n) for n in comparison.notes),
        lead=measure_label(comparison.measure),
        units=visible(comparison.units),
        standing=_standing(comparison),
        standing_note=_standing_note(comparison),
        matrix=at_both_widths(lambda width: decision_matrix(comparison, width=width))
        if len(names) > 2 and comparison.baseline is None
        else None,
        accuracy=at_both_widths(lambda width: accuracy_scatter(comparison, width=width)),
        forest=None if center is None else at_both_widths(lambda width: forest(comparison, center, width=width)),
        forest_title="" if center is None else f"How each compares with {names[center]}",
        ranking=_ranking(comparison),
        means=at_both_widths(lambda width: means(comparison, width=width)),
        pair_columns=tuple(_question_label(comparison, q) for q in _questions(comparison)),
        pairs=tuple(_pair(comparison, p, names) for p in comparison.pairs),
        pairs_note=_PAIRS_NOTE.format(level=percent(comparison.level)),
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
        running=running_line(f"{title or heading}: robustness compared", comparison.identity),
    )


_PAIRS_NOTE = (
    "Each ratio is the second model’s over the first’s, over the samples that both measured: above 1 is more robust for a "
    "distance, less robust for λ_max. Distances, of the samples that both predict rightly: Hodges–Lehmann’s median ratio and "
    "Wilcoxon’s signed ranks; a sample that does not flip counts as farther than all. λ_max of each sample: geometric mean ratio "
    "and Student’s test; mean λ_max: a paired bootstrap. p-values are corrected together for all measures and pairs by a closed "
    "test (weighted Holm); below {level} a measure is significant."
)


def _standing(comparison: Comparison) -> Table:
    """One line a model, from the most robust on."""
    rows = []
    for s in standings(comparison):
        e = comparison.entries[s.position]
        cells = (
            Quantity(s.ranks),
            of_compared(s.distance),
            Quantity(s.relative),
            Quantity(s.accuracy, percent_interval(e.accuracy_low, e.accuracy_high)),
            of_compared(e.calibrated if e.calibrated is not None and e.calibrated.value is not None else e.raw),
            Quantity(f"{s.over}"),
            Quantity(f"{s.under}"),
        )
        rows.append(TableRow(s.name, cells))
    head = ranking_label(comparison)
    lead = "calibrated" if any(e.calibrated is not None and e.calibrated.value is not None for e in comparison.entries) else "raw"
    columns = ("Ranks", head[0].upper() + head[1:], "Relative", "Accuracy", f"Mean λ_max, {lead}", "Decided over", "Decided under")
    return Table(columns, tuple(rows))


def _standing_note(comparison: Comparison) -> str:
    distances = by_distances(comparison)
    what = f"distances of each model’s rightly classified samples in {distance_units(comparison)}; " if distances else ""
    relative = "how many times as far as the geometric mean of all models" if distances else "how many times as low as that of all"
    return (
        f"The most robust first; {what}λ_max in {visible(comparison.units)}. Ranks are those that the decided pairs leave open. "
        f"Relative: {relative}, from the pairs’ shared samples. Over and under: models that it is decided to be more "
        "or less robust than."
    )


def _questions(comparison: Comparison) -> tuple[Question, ...]:
    """The questions that any pair was asked, in their order."""
    asked = {t.question for p in comparison.pairs if p.decided is not None for t in p.decided.measures}
    return tuple(q for q in WEIGHTS if q in asked)


def _question_label(comparison: Comparison, question: Question) -> str:
    found = (p.decided.of(question) for p in comparison.pairs if p.decided is not None)
    label = next(test_label(t) for t in found if t is not None)
    return label[0].upper() + label[1:]


def _ranking(comparison: Comparison) -> Table:
    rows = []
    certified = any(e.certified_radius or e.certified_radius_linf for e in comparison.entries)
    names = names_of(comparison)
    for i in comparison.order:
        e = comparison.entries[i]
        ranks = None if e.rank_low == e.rank == e.rank_high else f"{e.rank_low} to {e.rank_high}"
        cells = (
            Quantity(str(e.rank), ranks),
            of_compared(e.calibrated),
            of_compared(e.raw),
            of_compared(e.boundary_distance),
            _flip_cell(e),
            *([of_compared(e.certified_radius), of_compared(e.certified_radius_linf)] if certified else []),
            Quantity(f"{e.log10_fisher_bound:.2f}" if e.log10_fisher_bound is not None else "–"),
            Quantity(
                percent(e.accuracy) if e.accuracy is not None else "–",
                f"T = {number(e.temperature)}" if e.temperature is not None else None,
            ),
            Quantity(short(e.step), e.scheme),
            Quantity(visible(e.provider).removesuffix("ExecutionProvider"), e.method),
        )
        rows.append(TableRow(names[i], cells))
    columns = (
        "Rank",
        statistic_label("lambda_max_calibrated", "mean"),
        statistic_label("lambda_max", "mean"),
        statistic_label("boundary_distance", "median"),
        statistic_label("flip_radius", "median"),
        *([statistic_label(name, "median") for name in ("certified_radius", "certified_radius_linf")] if certified else []),
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


def _pair(comparison: Comparison, pair: Pair, names: Sequence[str]) -> PairLine:
    tests = [None if pair.decided is None else pair.decided.of(q) for q in _questions(comparison)]
    return PairLine(
        f"{names[pair.second]} / {names[pair.first]}",
        pair_words(pair, names),
        pair.told,
        tuple(None if t is None else TestCell(of_compared(t.ratio), p_words(t.p_adjusted), t.significant) for t in tests),
        of_share(pair.worse),
        of_share(pair.better),
    )


def _scatters(comparison: Comparison) -> tuple[Figure, ...]:
    """The first audit against each other one."""
    figures = [
        at_both_widths(lambda width, j=j: against(comparison, 0, j, width=width))  # type: ignore[misc]
        for j in range(1, min(len(comparison.entries), MOST_SCATTERS + 1))
    ]
    return tuple(f for f in figures if f is not None)


def _classes(comparison: Comparison) -> Table:
    names = names_of(comparison)
    told = len(names) <= _MOST_CLASS_RATIOS
    columns = ("Samples", *names, *(f"{name} / {names[0]}" for name in names[1:] if told))
    moved = sorted(comparison.classes, key=lambda c: -max(abs(math.log(r.value or 1.0)) for r in c.ratios))[:MOST_CLASSES]
    rows = [
        TableRow(
            visible(c.name),
            (Quantity(f"{c.count:,}"), *(Quantity(number(m)) for m in c.means), *(of_compared(r) for r in c.ratios if told)),
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

    names = names_of(comparison)
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
