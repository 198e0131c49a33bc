"""What the templates print: frozen texts, numbers and coordinates."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.report.charts.marks import Figure
from onnxfim.report.page.quantities import Quantity


@dataclass(frozen=True)
class Tile:
    """A key number."""

    label: str
    quantity: Quantity
    note: str
    series: str = ""


@dataclass(frozen=True)
class StatisticRow:
    """One measure's statistics, in the order of `Page.statistic_columns`."""

    label: str
    units: str
    count: str
    cells: tuple[Quantity, ...]
    series: str = ""


@dataclass(frozen=True)
class FindingLine:
    """A finding as printed."""

    id: str
    level: str
    word: str
    message: str


@dataclass(frozen=True)
class ClassLine:
    """A class as printed: its cells are those of `Page.class_columns`, and ``share`` is its bar's length of 100."""

    name: str
    count: str
    accuracy: str
    confidence: str
    cells: tuple[str, ...]
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
    """One sample as a row of the table; its cells are those of `Page.sample_columns`, None for nothing to print."""

    index: int
    name: str
    label: str
    prediction: str
    wrong: bool
    confidence: str
    cells: tuple[Quantity | None, ...]
    kind: str
    evaluations: str


@dataclass(frozen=True)
class MeasureColumn:
    """A measure as a column of the table of samples; ``stacked`` where intervals stand below its numbers."""

    measure: str
    head: str
    stacked: bool


@dataclass(frozen=True)
class Fact:
    """A name and its value; ``level`` is ``error`` where it must stand out."""

    name: str
    value: str
    level: str = ""
    code: bool = False


@dataclass(frozen=True)
class FactGroup:
    """Facts under one heading; ``on_cover`` where the title page of a print has them already."""

    title: str
    facts: tuple[Fact, ...]
    on_cover: bool = False


@dataclass(frozen=True)
class LegendEntry:
    """An entry of a legend: the marker is SVG path data, and an entry without a series is words alone."""

    series: str
    dash: str
    marker: str
    text: str
    open: bool = False


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
class ReachLine:
    """How many replayed samples the quadratic form holds for up to one distance, and how many have flipped by then."""

    distance: str
    why: str
    holds: str
    flipped: str


@dataclass(frozen=True)
class CurvePanel:
    """The KL curve of one sample; ``figure`` is None where too few values can be drawn."""

    role: str
    index: int
    name: str
    facts: tuple[Fact, ...]
    figure: Figure | None


@dataclass(frozen=True)
class PointLine:
    """One distance of one sample's KL curve."""

    sample: int
    epsilon: str
    along: str
    against: str
    random: str
    quadratic: str
    ratio: str


@dataclass(frozen=True)
class Captioned:
    """A picture with the words under it."""

    caption: str
    picture: PictureView


@dataclass(frozen=True)
class DirectionCard:
    """The worst direction of one sample: pictures of images, else charts."""

    role: str
    index: int
    name: str
    epsilon: str
    before: str | None
    after: str | None
    flipped: bool
    pictures: tuple[Captioned, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class DirectionSummaryView:
    """The worst directions of all samples, by feature."""

    figure: Figure
    note: str


@dataclass(frozen=True)
class ReplayView:
    """Whether the measured KL follows the quadratic form, and the directions along which it was measured."""

    answer: str
    tiles: tuple[Tile, ...]
    reach: Figure | None
    reach_lines: tuple[ReachLine, ...]
    reach_note: str
    flips: bool
    panels: tuple[CurvePanel, ...]
    keys: tuple[LegendEntry, ...]
    points: tuple[PointLine, ...]
    directions: tuple[DirectionCard, ...]
    directions_note: str


@dataclass(frozen=True)
class CorrelationLine:
    """A rank correlation as printed; ``x`` and the ends of its interval on a bar from 0 (−1) to 100 (+1)."""

    measure: str
    coefficient: str
    interval: str
    count: str
    expected: str
    reading: str
    x: float | None
    low: float
    high: float


@dataclass(frozen=True)
class SurvivalLine:
    """One kind of distance: where 10, 50 and 90 % have fallen, and what it is; ``leads`` where the first chart has it."""

    name: str
    series: str
    dash: str
    kind: str
    units: str
    samples: str
    reached: tuple[Quantity, ...]
    leads: bool


@dataclass(frozen=True)
class SurvivalView:
    """How many predictions are left at a distance."""

    title: str
    charts: tuple[Figure, ...]
    lines: tuple[SurvivalLine, ...]
    shares: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LadderLine:
    """What an attack left at one distance."""

    epsilon: str
    left: Quantity


@dataclass(frozen=True)
class AttackView:
    """The attack replay."""

    answer: str
    tiles: tuple[Tile, ...]
    ladder: tuple[LadderLine, ...]
    ladder_units: str
    correlations: tuple[CorrelationLine, ...]
    correlations_answer: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class FormLine:
    """One family's closed form on the layers of this model."""

    family: str
    formula: str
    log10: str
    own: bool


@dataclass(frozen=True)
class FactorLine:
    """One layer's norm as printed."""

    node: str
    op: str
    shape: str
    norm: str
    log10: str
    method: str
    kind: str
    rigorous: bool
    note: str


@dataclass(frozen=True)
class BoundView:
    """What the graph and the weights alone say: the class of the architecture and its spectral bound."""

    family: str | None
    evidence: tuple[str, ...]
    reason: str | None
    answer: str
    tiles: tuple[Tile, ...]
    shares: Figure | None
    shares_note: str
    forms: tuple[FormLine, ...]
    factors: tuple[FactorLine, ...]
    factors_note: str
    assumptions: tuple[str, ...]
