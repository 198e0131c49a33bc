"""What is known of one sample: every measure with its interval, kind and cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from onnxfim.record.guarantees import Bracket, NoiseStability, PredictedDistance, Smoothed, VerifiedBox
from onnxfim.record.limits import ALWAYS, Count, NotNegative, Part, closed, needed_where

#: ``kinked``: the function has no slope there but one-sided ones; the interval holds them.
Kind: TypeAlias = Literal["exact", "estimate", "lower bound", "upper bound", "kinked"]


@closed
@dataclass(frozen=True, slots=True)
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
        at_temperatures: Of a calibrated value, what it is at the two ends of the fitted temperature's 95 % interval, as multiples
            of the value. ``low`` and ``high`` hold that error, which all samples share. Empty where the temperature has none.
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
    at_temperatures: tuple[float, ...] = ()


@closed
@dataclass(frozen=True, slots=True)
class KLPoint:
    """Measured KL divergences at one distance, in nats; ``quadratic`` is ``½ λ ε²``."""

    epsilon: NotNegative
    along: float
    against: float
    random: float
    quadratic: NotNegative


@closed
@dataclass(frozen=True, slots=True)
class KLCurve:
    """Measured KL(p(x) ‖ p(x + εv)) along the worst direction ±v and a random one, over a ladder of ε.

    ``holds_to`` is the largest ε up to which the quadratic form is within 10 % on both sides, None if nowhere. ``flips_at`` is the
    smallest ε of the ladder at which the prediction changed, None if at none.
    """

    points: tuple[KLPoint, ...]
    holds_to: NotNegative | None
    flips_at: NotNegative | None


@closed
@dataclass(frozen=True, slots=True)
class LeadingFeature:
    """The feature that holds most of the worst direction in the inputs' own units, where features differ in scale.

    ``share`` is its part of that direction's squared length, ``share_standardised`` its part where every input is in units of its
    standard deviation.
    """

    index: Count
    share: Part
    share_standardised: Part


@closed
@dataclass(frozen=True, slots=True)
class FlipLengths:
    """The length of the move that `SampleResult.flip_radius` is of, in other units: upper bounds as it is, L2.

    ``raw`` is in raw input units, None where these are the model's own or not known; ``standardised`` in standard deviations of
    the data, of each feature where features differ in scale; None where the move goes along an input that does not vary.
    """

    raw: NotNegative | None = None
    standardised: NotNegative | None = None


@dataclass(frozen=True, slots=True)
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
    lambda_max_standardised: Estimate | None = None
    leading_feature: LeadingFeature | None = None
    top_eigenvalues: tuple[float, ...] = ()
    kl_curve: KLCurve | None = None
    attack_distance: Estimate | None = None
    log10_fisher_bound: Estimate | None = None
    flip_radius: Estimate | None = None
    flip_lengths: FlipLengths | None = None
    flip_radius_linf: Estimate | None = None
    certified_radius: Estimate | None = None
    certified_radius_linf: Estimate | None = None
    predicted: tuple[PredictedDistance, ...] = ()
    bracket: tuple[Bracket, ...] = ()
    noise: tuple[NoiseStability, ...] = ()
    smoothed: tuple[Smoothed, ...] = ()
    verified: tuple[VerifiedBox, ...] = ()


@closed
@dataclass(frozen=True)
class Skipped:
    """A sample that was not audited, and why."""

    index: Count
    reason: str


def with_temperature_error(estimate: Estimate, ends: tuple[float, ...]) -> Estimate:
    """The estimate with the temperature's error in its interval; ``ends`` are its multiples at the temperature's ends.

    The two errors are independent and add in quadrature on the log scale, on either side.
    """
    value = estimate.value
    if not value or not ends:
        return estimate
    ends = tuple(float(f"{end:.6g}") for end in ends)
    down, up = temperature_reach(ends)
    low, high = estimate.low, estimate.high
    return replace(
        estimate,
        low=low if low is None or low <= 0 else min(value * math.exp(-math.hypot(math.log(value / low), down)), low),
        high=None if high is None else max(value * math.exp(min(math.hypot(math.log(high / value), up), 700.0)), high),
        at_temperatures=ends,
    )


def own_interval(estimate: Estimate) -> tuple[float | None, float | None]:
    """The ends of an estimate's interval at the temperature as fitted: without the error that all samples share."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if not value or not estimate.at_temperatures:
        return low, high
    down, up = temperature_reach(estimate.at_temperatures)
    if low is not None and low > 0:
        low = value * math.exp(-math.sqrt(max(math.log(value / low) ** 2 - down**2, 0.0)))
    if high is not None:
        high = value * math.exp(math.sqrt(max(math.log(high / value) ** 2 - up**2, 0.0)))
    return low, high


def temperature_reach(ends: Iterable[float]) -> tuple[float, float]:
    """How far below and above a value its multiples lie over the temperature's interval, on the log scale.

    Args:
        ends: The multiples at its two ends. Where the parabola through them and 1 turns in between, its top or bottom counts too.
    """
    first, last = (math.log(max(end, 1e-300)) for end in ends)
    slope, bend = (last - first) / 2, (last + first) / 2  # ln value = slope·x + bend·x² for x from -1 to 1
    turn = -(slope**2) / (4 * bend) if abs(slope) < 2 * abs(bend) else 0.0
    return max(-first, -last, -turn, 0.0), max(first, last, turn, 0.0)


def carries_noise(samples: Iterable[SampleResult], measure: str = "lambda_max") -> bool:
    """Whether any value of ``measure`` depends on the random directions it was taken along: all but exact ones do."""
    found = (estimate_of(s, measure) for s in samples)
    return any(e is not None and e.value is not None and e.kind != "exact" for e in found)


def estimate_of(sample: SampleResult, measure: str) -> Estimate | None:
    """A sample's estimate of ``measure``, or None where the audit has no such measure; confidence counts as an exact one."""
    value = getattr(sample, measure, None)
    return Estimate(value, value, value, "exact") if isinstance(value, float) else value if isinstance(value, Estimate) else None
