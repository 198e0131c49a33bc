"""What was decided: statistics over the samples, findings, gates, the comparison with a baseline, and the one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from onnxfim.record.limits import ALWAYS, AboveZero, Count, NotNegative, Part, Positive, closed
from onnxfim.record.sample import Kind

Level: TypeAlias = Literal["error", "warning", "note"]
#: What became of a gate, or of the comparison with a baseline.
Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
#: What an audit says: ``measured`` where nothing was to be passed.
Verdict: TypeAlias = Literal["measured", "pass", "fail", "inconclusive"]
Operator: TypeAlias = Literal[">", ">=", "<", "<="]
Scope: TypeAlias = Literal["samples", "population"]


@closed
@dataclass(frozen=True)
class Aggregate:
    """One statistic over the samples, with an interval that holds both the sampling of the data and the estimates' noise.

    ``confidence`` is the level that the interval attains: 0.95, or less where so few samples cannot give it; 0 where there is none.
    An end that is None is not bounded, and ``method`` says why.
    """

    value: float | None
    low: float | None
    high: float | None
    confidence: Part = field(default=0.95, metadata=ALWAYS)
    method: str = field(default="", metadata=ALWAYS)


@closed
@dataclass(frozen=True)
class Aggregates:
    """The statistics of one measure over the samples that have it (``count`` of them).

    Attributes:
        mean: Without an interval where few samples carry it: ``method`` says so.
        count: How many samples have the measure.
        kind: What the values are; a statistic of lower bounds has no upper end, one of upper bounds no lower end, unless they are
            the smallest lengths that a search found: then its interval is that of the statistic of these.
        geometric_mean: Of values that are all above 0; what few samples do not carry.
        unfound: Further samples, on which a search found nothing. They count as larger than all: a quantile among them is None and
            bounded from below alone, and there is no mean.
    """

    mean: Aggregate
    median: Aggregate
    p95: Aggregate
    max: Aggregate
    count: Count
    units: str
    geometric_mean: Aggregate = field(default=Aggregate(None, None, None, 0.0, "not computed"), metadata=ALWAYS)
    kind: Kind = field(default="estimate", metadata=ALWAYS)
    unfound: Count = field(default=0, metadata=ALWAYS)


@closed
@dataclass(frozen=True)
class Finding:
    """Something a reader must know; ``id`` is stable, ``message`` says what was seen, what it means and what to do."""

    id: str
    level: Level
    message: str


@closed
@dataclass(frozen=True)
class GateResult:
    """What became of one gate, such as ``lambda_max.p95 > 12.5``; the gate fails where the relation holds.

    ``low`` and ``high`` are the ends that the verdict was taken on: None where few samples do not bound that side.
    ``comparison`` is the whole comparison in unrounded numbers; ``advice`` says what would settle an inconclusive one.
    """

    text: str
    name: str
    operator: Operator
    threshold: float
    value: float | None
    low: float | None
    high: float | None
    verdict: Outcome
    comparison: str
    advice: str | None = field(default=None, metadata=ALWAYS)


@closed
@dataclass(frozen=True)
class Difference:
    """Something in which two audits differ, beside the model's values."""

    name: str
    baseline: str
    current: str


@closed
@dataclass(frozen=True)
class Movement:
    """One sample's value in the baseline and now."""

    index: Count
    name: str
    baseline: float
    current: float


@closed
@dataclass(frozen=True)
class TypicalChange:
    """One measure of a usual sample, in a baseline and now: what few samples that carry a mean do not decide.

    Attributes:
        name: ``MEASURE.geometric_mean`` of lambda_max, or ``flip_radius`` or ``boundary_distance``.
        count: Samples that both have it on.
        ratio: Now over then, sample by sample in the middle, over such samples in general.
        limit: What the ratio is tested against: ``1 + max_regression`` of lambda_max, its inverse root of a distance.
        p: One-sided p-value of a ratio at the limit, against one beyond it.
        beyond: Whether the ratio is decidedly beyond the limit, after correction for the number of these tests.
    """

    name: str
    count: Positive
    ratio: Aggregate
    limit: AboveZero
    p: Part
    beyond: bool

    @property
    def side(self) -> str:
        """Where the ratio may lie: ``at most`` the limit of lambda_max, ``at least`` that of a distance, whatever the limit is."""
        return "at most" if self.name.startswith("lambda_max") else "at least"


@closed
@dataclass(frozen=True)
class BaselineComparison:
    """The same samples measured in a baseline and now.

    Attributes:
        baseline: Name of the baseline's model.
        baseline_sha256: Hash of its file.
        measure: What was compared: ``lambda_max_calibrated`` where both have it, else ``lambda_max``.
        units: Units of the means.
        count: Samples that both measured.
        paired: Whether the estimates' noise is that of the baseline (the same directions, step and scheme), or there is none.
        scope: Whether the verdict is about these very samples (``ratio_here``) or about the population they come from (``ratio``).
        max_regression: Largest rise of the mean, and of a usual sample, that is allowed, as a share of the baseline's.
        mean_baseline, mean_current: Means over the shared samples.
        ratio: Mean now over mean then; its interval holds the sampling of the data and the estimates' noise.
        ratio_here: The same on these very samples: its interval holds the estimates' noise alone.
        worse, better: Shares of the samples whose value rose or fell.
        differences: What else differs between the two audits.
        movements: The samples that moved the mean most.
        verdict: ``fail`` where the whole interval is above ``1 + max_regression`` or a usual sample is decidedly beyond its limit;
            else ``pass`` where none of the interval is.
        comparison: The comparison in unrounded numbers.
        advice: What would settle an inconclusive one.
        typical: What a usual sample says beside the mean; empty in files of versions before this.
        decided_by: What decided: ``MEASURE.mean``, else the names in ``typical``; empty where nothing did, and in older files.
    """

    baseline: str
    baseline_sha256: str
    measure: str
    units: str
    count: Positive
    paired: bool
    scope: Scope
    max_regression: NotNegative
    mean_baseline: float
    mean_current: float
    ratio: Aggregate
    ratio_here: Aggregate
    worse: Aggregate
    better: Aggregate
    differences: tuple[Difference, ...]
    movements: tuple[Movement, ...]
    verdict: Outcome
    comparison: str
    advice: str | None = field(default=None, metadata=ALWAYS)
    typical: tuple[TypicalChange, ...] = ()
    decided_by: tuple[str, ...] = ()


def overall(
    *,
    measured: int,
    gates: Sequence[GateResult] = (),
    comparison: BaselineComparison | None = None,
    uncompared: bool = False,
    findings: Sequence[Finding] = (),
) -> Verdict:
    """The verdict of an audit: the only place where it is decided.

    ``inconclusive`` where nothing was measured, whatever else is known; else ``fail`` where a gate or the baseline failed; else
    ``inconclusive`` where one of them is, a comparison could not be made or a finding is an error, which makes the audit unsound;
    else ``pass`` where there was something to pass; else ``measured``.

    Args:
        measured: Samples that have a value of lambda_max, or that noise alone tells of.
        gates: What became of the gates.
        comparison: The comparison with a baseline, where there is one.
        uncompared: A comparison was asked for and could not be made.
        findings: What a reader must know.
    """
    outcomes = [g.verdict for g in gates] + ([] if comparison is None else [comparison.verdict])
    if measured == 0:
        return "inconclusive"
    if "fail" in outcomes:
        return "fail"
    if uncompared or "inconclusive" in outcomes or any(f.level == "error" for f in findings):
        return "inconclusive"
    return "pass" if outcomes else "measured"
