"""What the template prints: frozen texts, numbers and coordinates."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.report.charts import Figure
from onnxfim.report.words import Notice, Source, Statement


@dataclass(frozen=True)
class Quantity:
    """A printed number with its interval, its kind, and the reason where it is missing."""

    text: str
    interval: str | None = None
    kind: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Tile:
    """A key number."""

    label: str
    quantity: Quantity
    note: str
    series: str = ""


@dataclass(frozen=True)
class StatisticRow:
    """One measure's mean, median, 95th percentile and maximum."""

    label: str
    units: str
    count: str
    cells: tuple[Quantity, ...]
    series: str = ""


@dataclass(frozen=True)
class Item:
    """A finding as printed."""

    id: str
    level: str
    word: str
    message: str


@dataclass(frozen=True)
class ClassLine:
    """A class as printed; ``share`` is its bar's length of 100."""

    name: str
    count: str
    accuracy: str
    confidence: str
    raw: str
    calibrated: str
    distance: str
    share: float


@dataclass(frozen=True)
class PictureView:
    """A picture of an input: where it is, how large it is shown, and its text alternative."""

    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class SampleCard:
    """One of the most or least sensitive samples."""

    index: int
    name: str
    picture: PictureView | None
    label: str | None
    prediction: str | None
    wrong: bool
    confidence: str
    kind: str
    value: Quantity
    distance: Quantity


@dataclass(frozen=True)
class SampleLine:
    """One sample as a row of the table."""

    index: int
    name: str
    label: str
    prediction: str
    wrong: bool
    confidence: str
    raw: Quantity
    calibrated: Quantity
    trace: Quantity
    rank: str
    distance: Quantity
    sensitivity: Quantity
    kind: str
    evaluations: str


@dataclass(frozen=True)
class Fact:
    """A name and its value; ``level`` is ``error`` where it must stand out."""

    name: str
    value: str
    level: str = ""
    code: bool = False


@dataclass(frozen=True)
class FactGroup:
    """Facts under one heading."""

    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Key:
    """An entry of a legend: the marker is SVG path data, and an entry without a series is words alone."""

    series: str
    dash: str
    marker: str
    text: str


@dataclass(frozen=True)
class CurveLine:
    """One step of the ladder as printed."""

    step: str
    relative: str
    forward: str
    central: str
    cross: str
    error: str
    unchanged: str
    chosen: bool


@dataclass(frozen=True)
class SkippedLine:
    """A sample that was not audited."""

    index: int
    reason: str


@dataclass(frozen=True)
class Page:
    """All that the report prints, in its order."""

    title: str
    name: str
    summary: str
    notices: tuple[Notice, ...]
    verdict: str
    verdict_word: str
    headline: str
    answers: tuple[Statement, ...]
    tiles: tuple[Tile, ...]
    units: str
    statistics: tuple[StatisticRow, ...]
    statistics_note: str
    example: str | None
    findings: tuple[Item, ...]
    distribution: Figure | None
    distribution_note: str
    curve: Figure | None
    curve_note: str
    curve_keys: tuple[Key, ...]
    curve_lines: tuple[CurveLine, ...]
    scatter: Figure | None
    lead: str
    lead_series: str
    classes: tuple[ClassLine, ...]
    classes_by: str
    classes_note: str
    worst: tuple[SampleCard, ...]
    best: tuple[SampleCard, ...]
    samples: tuple[SampleLine, ...]
    samples_note: str
    named: bool
    labelled: bool
    skipped: tuple[SkippedLine, ...]
    skipped_note: str
    run: tuple[FactGroup, ...]
    limits: tuple[Statement, ...]
    sources: tuple[Source, ...]
    schema_version: str
