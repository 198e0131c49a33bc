"""What is known of one sample: every measure with its interval, kind and cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from onnxfim.record.limits import ALWAYS, Count, NotNegative, Part, closed, needed_where

#: ``kinked``: the function has no slope there but one-sided ones; the interval holds them.
Kind: TypeAlias = Literal["exact", "estimate", "lower bound", "upper bound", "kinked"]


@closed
@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, its kind and its cost.

    Attributes:
        value: None where it could not be measured; ``reason`` then says why.
        low, high: Ends of the interval, None where there are none.
        kind: What the value is.
        method: How it came about.
        evaluations: Forward passes spent on it.
        reason: Why there is no value.
        plain: Of a sketch, the estimate without bias correction, biased upwards.
        cross_fit: Of a sketch, the estimate biased downwards (directions of one half, values of the other).
        replicates: The jackknife's pseudo-values, one for each group of directions, as multiples of the value: two audits with the
            same directions share their noise, and these tell how much of it. Empty for exact values.
    """

    value: float | None
    low: float | None = field(default=None, metadata=ALWAYS)
    high: float | None = field(default=None, metadata=ALWAYS)
    kind: Kind = field(default="estimate", metadata=ALWAYS)
    method: str = ""
    evaluations: Count = 0
    reason: str | None = field(default=None, metadata=needed_where("value", None))
    plain: float | None = None
    cross_fit: float | None = None
    replicates: tuple[float, ...] = ()


@closed
@dataclass(frozen=True)
class KLPoint:
    """Measured KL divergences at one distance, in nats; ``quadratic`` is ``½ λ ε²``."""

    epsilon: NotNegative
    along: float
    against: float
    random: float
    quadratic: NotNegative


@closed
@dataclass(frozen=True)
class KLCurve:
    """Measured KL(p(x) ‖ p(x + εv)) along the worst direction ±v and a random one, over a ladder of ε.

    ``holds_to`` is the largest ε up to which the quadratic form is within 10 % on both sides, None if nowhere. ``flips_at`` is the
    smallest ε of the ladder at which the prediction changed, None if at none.
    """

    points: tuple[KLPoint, ...]
    holds_to: NotNegative | None
    flips_at: NotNegative | None


@dataclass(frozen=True)
class SampleResult:
    """All measures of one sample; what each is and its units stand in `measures.MEASURES`.

    ``index`` is the position in the data as given. ``evaluations`` counts forward passes spent on this sample; its flip
    radius has a count of its own, beside them.
    ``unchanged`` is the share of directions along which no output changed at all. ``log10_fisher_bound`` is log10 of the upper
    bound ``max_k 2p_k(1 − p_k) · L²``, with L from the weights.
    """

    index: Count
    name: str
    label: int | None
    prediction: int | None
    confidence: Part | None
    lambda_max: Estimate
    lambda_max_calibrated: Estimate
    trace: Estimate
    effective_rank: Estimate
    boundary_distance: Estimate
    logit_sensitivity: Estimate
    evaluations: Count
    directions: Count
    unchanged: Part = field(default=0.0, metadata=ALWAYS)
    lambda_max_raw_units: Estimate | None = None
    top_eigenvalues: tuple[float, ...] = ()
    kl_curve: KLCurve | None = None
    attack_distance: Estimate | None = None
    log10_fisher_bound: Estimate | None = None
    flip_radius: Estimate | None = None


@closed
@dataclass(frozen=True)
class Skipped:
    """A sample that was not audited, and why."""

    index: Count
    reason: str


def carries_noise(samples: Iterable[SampleResult], measure: str = "lambda_max") -> bool:
    """Whether any value of ``measure`` depends on the random directions it was taken along: all but exact ones do."""
    found = (estimate_of(s, measure) for s in samples)
    return any(e is not None and e.value is not None and e.kind != "exact" for e in found)


def estimate_of(sample: SampleResult, measure: str) -> Estimate | None:
    """A sample's estimate of ``measure``, or None where the audit has no such measure; confidence counts as an exact one."""
    value = getattr(sample, measure, None)
    return Estimate(value, value, value, "exact") if isinstance(value, float) else value if isinstance(value, Estimate) else None
