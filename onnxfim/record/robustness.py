"""The number in human terms: how many predictions are left at a distance, and where a model stands among known ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from onnxfim.record.limits import AboveZero, Count, NotNegative, Part, Positive, closed
from onnxfim.record.sample import Kind

#: What a curve's distances are: the shortest move that flipped, the smallest attack, the first-order distance, what the weights
#: guarantee.
Source: TypeAlias = Literal["flip_radius", "attack", "boundary_distance", "certified"]
#: The raw input's units, the model input's, those of an inner value, or standard deviations of each input.
Unit: TypeAlias = Literal["raw", "model", "inner", "deviations"]
#: Measures that place a model among the references, and their statistics over the samples.
Ranked: TypeAlias = Literal["flip_radius", "lambda_max_calibrated"]
Training: TypeAlias = Literal["standard", "robust"]
#: Shares of the standing samples at which distances are told.
SHARES = (0.1, 0.5, 0.9)


@closed
@dataclass(frozen=True)
class SurvivalPoint:
    """The share of the samples that is left after moves of length ``epsilon``, with its 95 % interval (Clopper and Pearson)."""

    epsilon: NotNegative
    left: Part
    low: Part
    high: Part


@closed
@dataclass(frozen=True)
class Reached:
    """The distance at which a share of the samples that stand at 0 has fallen, with its 95 % interval by order statistics.

    ``epsilon`` is None where fewer fell at any distance; ``low`` and ``high`` are None where the samples set no such end.
    """

    share: Part
    epsilon: NotNegative | None
    low: NotNegative | None
    high: NotNegative | None


@dataclass(frozen=True)
class SurvivalCurve:
    """How many samples are left against the distance: right ones where there are labels, else those whose prediction is its own.

    A sample that is wrong without a move is lost at 0, as robust accuracy has it; so ``reached`` is of the ``standing`` ones, and
    its middle is where the accuracy halves. A sample that nothing changed is farther than all. Intervals are those of the sampling
    alone; what a value is on these samples tells ``kind``: of an upper bound, the true curve lies lower.

    Attributes:
        source: What the distances are.
        kind: What each distance is.
        norm: Their norm.
        units: What they are in, several of them.
        samples: Samples that were tried.
        standing: Those left at 0.
        unreached: Those left at any distance.
        reached: Distances at which 10, 50 and 90 % of the standing ones have fallen.
        points: The curve, a hundred steps at most.
        ladder: The curve at round distances.
    """

    source: Source
    kind: Kind
    norm: Literal["l2", "linf"]
    units: str
    samples: Count
    standing: Count
    unreached: Count
    reached: tuple[Reached, ...]
    points: tuple[SurvivalPoint, ...]
    ladder: tuple[SurvivalPoint, ...] = ()

    @property
    def half(self) -> Reached | None:
        """Where half of the standing samples have fallen; None where none stands."""
        return next((r for r in self.reached if r.share == 0.5), None)


@closed
@dataclass(frozen=True)
class Rank:
    """Where a measure places a model among the references.

    Attributes:
        measure: Which one.
        statistic: Of the samples.
        value: In pixel units: 0 is black, 1 is white.
        below: References that are less sensitive by it.
        least, most: The same at the two ends of the value's interval.
    """

    measure: Ranked
    statistic: Literal["median", "mean"]
    value: NotNegative
    below: Count
    least: Count
    most: Count


@dataclass(frozen=True)
class ReferencePlace:
    """Where a model stands among the reference classifiers whose inputs have the shape of its own.

    Attributes:
        task: What the references classify; that the audited model does so too is taken from the shape of its inputs alone.
        models: How many there are.
        ranks: By each measure; the first orders the references best as attacks do.
        accuracy: The lowest and the highest clean accuracy of the references.
        like: The training whose references alone lie around the values; None where there are fewer than three of one, or where both
            or none do by any of the ranks.
    """

    task: str
    models: Positive
    ranks: tuple[Rank, ...]
    accuracy: tuple[Part, Part]
    like: Training | None = None


@dataclass(frozen=True)
class Robustness:
    """What follows from the samples' distances, in units that people know.

    Attributes:
        units: What distances are in, several of them.
        unit: Which these are: the raw input's, the model input's, those of an inner value, or standard deviations of each input.
        dimension: Numbers in one input.
        level: How many units one of the 255 steps from black to white is; None where inputs are not known to be pictures.
        deviation: Standard deviation of the data in these units; None where there is none, or the units are deviations.
        counts: Whether samples count that are right, or, without labels, those whose prediction stays.
        curves: One for each kind of distance that was measured; the moves tried come first.
        certified: What is guaranteed, or why nothing is here.
        guaranteed_by: What the curve of guaranteed distances rests on, the most frequent first: ``weights``, ``local bounds``,
            ``verifier``. Empty without that curve, and in files that do not say: it is of the weights then.
        place: Where the model stands among the references.
        no_place: Why it is not told.
    """

    units: str
    unit: Unit
    dimension: Positive
    level: AboveZero | None
    deviation: NotNegative | None
    counts: Literal["right", "unchanged"]
    curves: tuple[SurvivalCurve, ...]
    certified: str | None = None
    guaranteed_by: tuple[str, ...] = ()
    place: ReferencePlace | None = None
    no_place: str | None = None

    def curve(self, source: Source) -> SurvivalCurve | None:
        """The curve of that source, or None."""
        return next((c for c in self.curves if c.source == source), None)
