"""A whole page of an audit, as the templates print it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.report.charts.marks import Figure
from onnxfim.report.page.gate_section import BaselineView, GateLine
from onnxfim.report.page.guarantees_view import GuaranteesView
from onnxfim.report.page.not_run import NotRun
from onnxfim.report.page.view import (
    AttackView,
    BoundView,
    ClassLine,
    CurveLine,
    DirectionSummaryView,
    Fact,
    FactGroup,
    FindingLine,
    LegendEntry,
    MeasureColumn,
    ReplayView,
    SampleCard,
    SampleLine,
    SkippedLine,
    StatisticRow,
    SurvivalView,
    Tile,
)
from onnxfim.report.vocabulary import Source, Statement
from onnxfim.report.words import Notice


@dataclass(frozen=True)
class Cover:
    """The head of the page and the title page of its print: ``running`` is what every printed sheet repeats."""

    heading: str
    line: str
    note: str
    facts: tuple[Fact, ...]
    running: str


@dataclass(frozen=True)
class Fold:
    """A question whose answer is folded: ``short`` in the list of contents, ``hint`` beside the question."""

    id: str
    question: str
    short: str
    hint: str
    template: str


@dataclass(frozen=True)
class Page:
    """All that the report prints, in its order."""

    title: str
    cover: Cover
    summary: str
    notices: tuple[Notice, ...]
    verdict: str
    verdict_word: str
    headline: str
    human: tuple[str, ...]
    answers: tuple[Statement, ...]
    gates: tuple[GateLine, ...]
    baseline: BaselineView | None
    tiles: tuple[Tile, ...]
    units: str
    statistic_columns: tuple[str, ...]
    statistics: tuple[StatisticRow, ...]
    statistics_note: str
    meaning: str | None
    findings: tuple[FindingLine, ...]
    not_run: tuple[NotRun, ...]
    folds: tuple[Fold, ...]
    spread: Figure | None
    distribution: Figure | None
    distribution_note: str
    curve: Figure | None
    curve_note: str
    curve_keys: tuple[LegendEntry, ...]
    curve_lines: tuple[CurveLine, ...]
    replay: ReplayView | None
    attack: AttackView | None
    bound: BoundView | None
    scatter: Figure | None
    survival: SurvivalView | None
    guarantees: GuaranteesView | None
    features: DirectionSummaryView | None
    lead: str
    lead_series: str
    class_columns: tuple[str, ...]
    classes: tuple[ClassLine, ...]
    classes_by: str
    classes_note: str
    worst: tuple[SampleCard, ...]
    best: tuple[SampleCard, ...]
    sample_columns: tuple[MeasureColumn, ...]
    samples: tuple[SampleLine, ...]
    samples_note: str
    missing: tuple[Statement, ...]
    print_samples: int
    named: bool
    labelled: bool
    skipped: tuple[SkippedLine, ...]
    skipped_note: str
    run: tuple[FactGroup, ...]
    method: tuple[str, ...]
    limits: tuple[Statement, ...]
    sources: tuple[Source, ...]
    schema_version: str
