"""What a comparison of several audits found; rendered by every format and written as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from onnxfim.record.decision import Aggregate, Difference, GateResult
from onnxfim.record.deployment import Deployment
from onnxfim.record.foreign_text import visible
from onnxfim.record.identity import Identity
from onnxfim.record.json_writing import as_json
from onnxfim.record.shown import Shown
from onnxfim.verdict.decided import LEVEL, Decision

COMPARISON_VERSION = "1.1"


@dataclass(frozen=True)
class Entry:
    """One audit in the ranking.

    Attributes:
        name: Model name, made distinct where two are the same.
        path, sha256: Its file.
        rank: 1 for the most robust, by what the comparison ranks by.
        rank_low, rank_high: Ranks that the decided pairs leave open: the chance that any entry's true rank is outside is at most
            the comparison's level, where every pair was tested.
        mean: Mean of the measure over all of its samples.
        raw, calibrated: Means of raw and calibrated lambda_max.
        boundary_distance: Median distance to the decision boundary, of the rightly classified samples or, without labels, of all.
        flip_radius: The same of the distance at which a prediction was seen to change, an upper bound.
        accuracy, temperature: Clean accuracy and fitted temperature.
        step, scheme, method, seed, provider: How it was measured.
        evaluations: Forward passes.
        log10_fisher_bound: log10 of the spectral upper bound of the Fisher information, from the weights; None without one.
        accuracy_low, accuracy_high: Ends of the accuracy's 95 % interval.
        certified_radius, certified_radius_linf: Medians of the distances within which no prediction can change, in L2 and L∞, of
            the same samples; None unless all audits asked for them.
        relative: How many times as far as the entries' geometric mean its predictions last, by the shared samples pair by pair;
            where λ_max ranks, how many times as low that is. What the entries are ordered by.
    """

    name: str
    path: str
    sha256: str
    rank: int
    rank_low: int
    rank_high: int
    mean: Aggregate
    raw: Aggregate | None
    calibrated: Aggregate | None
    boundary_distance: Aggregate | None
    accuracy: float | None
    temperature: float | None
    step: float
    scheme: str
    method: str
    seed: int
    provider: str
    evaluations: int
    log10_fisher_bound: float | None = None
    flip_radius: Aggregate | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    relative: float | None = None
    certified_radius: Aggregate | None = None
    certified_radius_linf: Aggregate | None = None


@dataclass(frozen=True)
class Pair:
    """Two entries over the samples that both measured: ``first`` and ``second`` are their positions.

    ``ratio`` is the second's mean over the first's. ``p`` is the p-value of equal means, ``p_holm`` the one corrected for the
    number of pairs; ``significant`` tells whether that is below 5 %. These are about the means of the measure alone;
    ``decided`` is what all measures say together.
    ``worse`` and ``better`` are shares of the samples that rose and fell.
    """

    first: int
    second: int
    count: int
    paired: bool
    ratio: Aggregate
    ratio_here: Aggregate
    p: float
    p_holm: float
    significant: bool
    worse: Aggregate
    better: Aggregate
    decided: Decision | None = None

    @property
    def told(self) -> bool:
        """Whether it is decided which of the two is the more robust."""
        return self.decided is not None and self.decided.better is not None


@dataclass(frozen=True)
class ClassMovement:
    """One class: the means of all entries over its shared samples, and the ratio of each later entry to the first."""

    index: int
    name: str
    count: int
    means: tuple[float, ...]
    ratios: tuple[Aggregate, ...]


@dataclass(frozen=True)
class SampleValues:
    """One sample that every entry measured, and its values in their order."""

    index: int
    name: str
    label: int | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class MeasureCorrelation:
    """Spearman's rank correlation of two measures over the samples of one entry, with its bootstrap interval."""

    entry: int
    first: str
    second: str
    rho: Aggregate
    count: int


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Several audits of the same samples side by side, in the order they were given.

    ``order`` lists positions in ``entries`` from the most robust on, by the measure ``ranked_by`` and what is decided.
    ``differences[i]`` tells in what entry i + 1 differs from entry 0. ``notes`` are sentences that a reader must know.
    ``deployment`` is what the second of exactly two did against the first; ``gates`` are decided on it. ``baseline`` is the
    position of the entry that all others were tested against; None where every pair was. ``level`` is the chance, at most, that
    anything decided is wrong. ``identity`` tells one comparison from another;
    its id is made of those of the audits. ``distance_units`` are those of the entries' medians, several of them; empty where these
    are the units that the measure is per square of.
    """

    measure: str
    units: str
    data: str
    data_sha256: str
    count: int
    entries: tuple[Entry, ...]
    order: tuple[int, ...]
    pairs: tuple[Pair, ...]
    classes: tuple[ClassMovement, ...]
    samples: tuple[SampleValues, ...]
    correlations: tuple[MeasureCorrelation, ...]
    differences: tuple[tuple[Difference, ...], ...]
    notes: tuple[str, ...]
    deployment: Deployment | None = None
    gates: tuple[GateResult, ...] = ()
    identity: Identity | None = None
    schema_version: str = COMPARISON_VERSION
    ranked_by: str = ""
    baseline: int | None = None
    level: float = LEVEL
    distance_units: str = ""

    def __repr__(self) -> str:
        """Two lines for an interactive session: a comparison has thousands of values."""
        names = ", ".join(visible(self.entries[i].name) for i in self.order)
        return (
            f"<Comparison of {len(self.entries)} models on {self.count} samples; the most robust first: {names}\n"
            f"  {self.told} of {len(self.pairs)} pairs decided; .entries, .pairs, .order, .to_frame(), .figures, .to_json()>"
        )

    @property
    def told(self) -> int:
        """How many of the pairs are decided."""
        return sum(p.told for p in self.pairs)

    def pair(self, one: int, other: int) -> Pair | None:
        """The pair of two entries by their positions, whichever is first; None where it was not tested."""
        return self._by_places.get((min(one, other), max(one, other)))

    @cached_property
    def _by_places(self) -> dict[tuple[int, int], Pair]:
        return {(min(p.first, p.second), max(p.first, p.second)): p for p in self.pairs}

    def to_json(self, *, indent: int | None = 1) -> str:
        """This comparison as JSON text; never holds NaN or infinities."""
        return as_json(self, indent=indent)
