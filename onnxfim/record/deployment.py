"""What deployment changed: two models on the same samples, pair by pair, and which nodes of the second carry the change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from onnxfim.record.decision import Aggregate
from onnxfim.record.limits import ALWAYS, Count, NotNegative, Part, closed

#: What an interval says: it lies above or below no change, holds it, or there is none.
Reading: TypeAlias = Literal["identical", "rose", "fell", "no change shown", "not known"]
#: What ``Change.change`` is: second minus first, second over first, or a share of the samples.
Form: TypeAlias = Literal["difference", "ratio", "share"]


@closed
@dataclass(frozen=True)
class Change:
    """One thing in the first model, in the second, and what changed, over the same samples.

    Attributes:
        first, second: The thing in each: a share, or a geometric mean over the shared samples. None for a share of both.
        change: The difference, ratio or share with its paired 95 % interval; ``method`` names it.
        form: Which of these it is.
        reading: What the interval says.
        count: Samples that it is over.
        p: Two-sided p-value of no change, and ``test`` what it is of.
        rose: Share of the samples whose value is larger in the second, where samples have values.
        note: What is not in it, or how far it may be believed; empty where nothing is to be said.
        reason: Why there is no value, where there is none.
    """

    first: float | None
    second: float | None
    change: Aggregate
    form: Form
    reading: Reading
    count: Count
    p: Part | None = field(default=None, metadata=ALWAYS)
    test: str = field(default="", metadata=ALWAYS)
    rose: Aggregate | None = field(default=None, metadata=ALWAYS)
    note: str = field(default="", metadata=ALWAYS)
    reason: str | None = field(default=None, metadata=ALWAYS)


@closed
@dataclass(frozen=True)
class Outcomes:
    """Labelled samples by which of the two models is right."""

    both_right: Count
    only_first: Count
    only_second: Count
    both_wrong: Count


@closed
@dataclass(frozen=True)
class MovedOutput:
    """One sample's outputs in both models.

    ``total_variation`` is ``½ Σ|p − q|``, ``kl`` is ``KL(p ‖ q)`` in nats, p of the first model and q of the second: None where the
    outputs are no class probabilities, are not at hand, or (KL) q is 0 where p is not.
    """

    index: Count
    name: str
    label: int | None
    first: int | None
    second: int | None
    total_variation: Part | None = None
    kl: NotNegative | None = None


@closed
@dataclass(frozen=True)
class ClassFlip:
    """Samples that the first model puts into class ``first`` and the second into ``second``; ``of`` the first puts there in all."""

    first: Count
    second: Count
    first_name: str
    second_name: str
    count: Count
    of: Count


@closed
@dataclass(frozen=True)
class Carrier:
    """What one node of the deployed file changes.

    Attributes:
        node: Its name in the deployed file, and ``operator`` its type there.
        twin: The node of the trained file that it was made from; None where it has no weights, or the same ones.
        restores: What deployment did to it, in words.
        alone: Relative squared change of the scores, ``‖A − A′‖² / ‖A′‖²`` with ``F = AᵀA``, along the same directions, where this
            node alone is as deployed and all others are as trained; on average over the samples.
        logarithm: Mean change of ``ln λ_max`` in the same. Positive where the node raises the sensitivity.
        outputs: Mean total variation by which the outputs move in the same.
        restored: By how much the relative squared change of the whole deployed file falls where this node alone is restored; None
            where that was not measured.
        weights: Relative distance of its weights from its twin's, ``‖W − W′‖ / ‖W′‖``; None where it has none.
        evaluations: Forward passes spent.
    """

    node: str
    operator: str
    twin: str | None
    restores: str
    alone: Aggregate
    logarithm: Aggregate
    outputs: Aggregate
    restored: Aggregate | None
    weights: NotNegative | None
    evaluations: Count


@closed
@dataclass(frozen=True)
class NotRestored:
    """A node of the deployed file that could not be restored, and why."""

    node: str
    operator: str
    reason: str


@closed
@dataclass(frozen=True)
class Attribution:
    """Which nodes of the deployed file carry the change of sensitivity, the strongest first.

    Attributes:
        nodes: One for each node that could be restored, by ``alone``.
        left: What could not be restored.
        total: Mean of ``ln λ_max(deployed) − ln λ_max(trained)`` along the same directions.
        change: Relative squared change of the scores from the trained to the deployed file: what is to be explained.
        restored: The same for the deployed file with all of these nodes restored: what is in none of them.
        samples, directions: How many samples, and directions of each, every one was measured on.
        step, dither, scheme: The scale, the same for all: amplitudes per coordinate in input units, of the step and of the noise
            around the sample.
        evaluations: Forward passes of all together.
        reason: Why there is no attribution, where there is none.
    """

    nodes: tuple[Carrier, ...]
    left: tuple[NotRestored, ...]
    total: Aggregate
    change: Aggregate
    restored: Aggregate
    samples: Count
    directions: Count
    step: NotNegative
    dither: NotNegative
    scheme: str
    evaluations: Count
    reason: str | None = field(default=None, metadata=ALWAYS)


@closed
@dataclass(frozen=True)
class Deployment:
    """What deployment did: the second of two models against the first.

    Attributes:
        first, second: Names of the two; ``providers`` where each ran.
        identical: The same file on the same provider gave the same outputs on every sample.
        scale: At which scale both were measured, in words.
        accuracy: Share of right predictions; ``outcomes`` are its counts.
        agreement: Share of the samples with the same prediction; ``flips`` are those without, most frequent first.
        divergence: Mean total variation between the outputs, its largest in ``moved``, the samples that moved most.
        kl: Mean ``KL(first ‖ second)`` in nats.
        sensitivity: Geometric mean of the ratios of calibrated lambda_max, ``sensitivity_raw`` of the raw one.
        flip_radius: Geometric mean of the ratios of flip radii.
        evaluations: Forward passes beside the two audits.
        attribution: Which nodes carry the change; None where that was not asked for.
    """

    first: str
    second: str
    providers: tuple[str, str]
    identical: bool
    scale: str
    accuracy: Change
    agreement: Change
    divergence: Change
    kl: Change
    sensitivity: Change
    sensitivity_raw: Change
    flip_radius: Change
    outcomes: Outcomes | None
    flips: tuple[ClassFlip, ...]
    moved: tuple[MovedOutput, ...]
    evaluations: Count
    attribution: Attribution | None = field(default=None, metadata=ALWAYS)
