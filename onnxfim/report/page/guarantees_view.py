"""What the section of guarantees prints: frozen texts, numbers and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.report.charts.marks import Figure
from onnxfim.report.page.quantities import Quantity
from onnxfim.report.page.view import LegendEntry, Tile
from onnxfim.report.words import Notice


@dataclass(frozen=True)
class DecidedLine:
    """What is known at one length: shares of the samples in words, and of a bar of 100."""

    epsilon: str
    kept: str
    open: str
    lost: str
    kept_width: float
    open_width: float
    lost_width: float


@dataclass(frozen=True)
class BracketView:
    """The brackets of one norm; ``wrong`` where they contradict themselves."""

    id: str
    title: str
    answer: str
    wrong: str
    tiles: tuple[Tile, ...]
    figure: Figure | None
    keys: tuple[LegendEntry, ...]
    notes: tuple[str, ...]
    units: str
    decided: tuple[DecidedLine, ...]


@dataclass(frozen=True)
class NoiseRow:
    """One noise as a row."""

    noise: str
    units: str
    stable: str
    here: Quantity
    population: Quantity
    unstable: str
    open: str
    tries: str


@dataclass(frozen=True)
class UnsteadyRow:
    """One of the samples that keep their prediction least under a noise."""

    index: int
    name: str
    prediction: str
    noise: str
    kept: Quantity
    tries: str
    word: str


@dataclass(frozen=True)
class NoiseView:
    """What noise does to predictions."""

    answer: str
    rows: tuple[NoiseRow, ...]
    least: tuple[UnsteadyRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SmoothingRow:
    """One smoothed classifier as a row; ``at`` its certified shares at the radii of the head."""

    sigma: str
    series: str
    dash: str
    agrees: str
    abstained: str
    at: tuple[Quantity, ...]
    median: Quantity
    average: str


@dataclass(frozen=True)
class SmoothingView:
    """Certificates of smoothed classifiers."""

    answer: str
    figure: Figure | None
    clean: str
    radii: tuple[str, ...]
    units: str
    labelled: bool
    rows: tuple[SmoothingRow, ...]
    caveats: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AskedRow:
    """What a verifier said of one sample: up to where there is no other prediction, and from where there is one."""

    index: int
    name: str
    safe: str
    counter: str
    replay: str
    bad: bool
    boxes: str
    seconds: str
    note: str


@dataclass(frozen=True)
class VerifierView:
    """A verifier's answers; ``wrong`` where they contradict the file."""

    answer: str
    wrong: tuple[Notice, ...]
    tiles: tuple[Tile, ...]
    rows: tuple[AskedRow, ...]
    units: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class KnownRow:
    """All that is known of one sample; the cells are those of `GuaranteesView.columns`."""

    index: int
    name: str
    prediction: str
    wrong: bool
    cells: tuple[str, ...]


@dataclass(frozen=True)
class GuaranteesView:
    """What is guaranteed, what is estimated."""

    parts: tuple[str, ...]
    brackets: tuple[BracketView, ...]
    noise: NoiseView | None
    smoothing: SmoothingView | None
    verifier: VerifierView | None
    columns: tuple[str, ...]
    rows: tuple[KnownRow, ...]
    rows_note: str
    named: bool
