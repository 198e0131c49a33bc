"""The one table of measures: what each is called, its units, which way it points, and where it may be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from onnxfim.record.audited_from import INPUT_UNIT
from onnxfim.record.sample import Estimate, Kind, SampleResult

Sign: TypeAlias = Literal[-1, 0, 1]


@dataclass(frozen=True)
class Measure:
    """One measure of a sample.

    Attributes:
        name: Field of `SampleResult`, and key in every format.
        label: What a report calls it.
        symbol: Its sign in formulas.
        units: What its values are in.
        sign: -1 where a larger value is more sensitive, +1 where it is less, 0 where it says neither.
        gated: A gate may name its statistics, so that every audit computes them.
        optional: Only some audits have it; the others leave it out.
        correlated: Its ranks are compared with those of the other measures and of attacks.
        series: Colour class of its marks in a report; empty for none.
        head: Head of its column in a report's table of samples; empty for the label.
        column: Its place among those columns, last unless told; None where the table leaves it out.
        interval: Its values have intervals; without one, a value is a number of its own.
        kind: What all of its values are; empty where each tells its own.
        of_what_was_found: Its values are the smallest lengths that a search found. Statistics are of these: their intervals hold
            the sampling alone, not what lies below each, and a sample where the search found nothing counts as larger than all.
        of_what_was_certified: Its values are lengths that were certified. Statistics are of these: their intervals hold the
            sampling alone, not what lies above each, and a sample on which nothing was certified counts as 0 beside others.
        raw: Its values are in raw input units where the scale of these is known.
    """

    name: str
    label: str
    symbol: str
    units: str
    sign: Sign
    gated: bool = True
    optional: bool = False
    correlated: bool = True
    series: str = ""
    head: str = ""
    column: int | None = 9
    interval: bool = True
    kind: Kind | Literal[""] = ""
    of_what_was_found: bool = False
    of_what_was_certified: bool = False
    raw: bool = False

    @property
    def own_bounds(self) -> bool:
        """Whether each value bounds another number, and statistics are of the values themselves."""
        return self.of_what_was_found or self.of_what_was_certified

    def of(self, sample: SampleResult) -> Estimate | None:
        """The sample's estimate; None where the audit has no such measure."""
        found: Estimate | None = getattr(sample, self.name)
        return found


_PER_MODEL_UNIT = f"nats per squared {INPUT_UNIT}"

#: Every measure, in the order of tables.
MEASURES: tuple[Measure, ...] = (
    Measure("lambda_max", "λ_max, raw", "λ", _PER_MODEL_UNIT, -1, series="raw", column=2),
    Measure(
        "lambda_max_calibrated", "λ_max, calibrated", "λ_T", f"{_PER_MODEL_UNIT}, at the fitted temperature", -1,
        series="calibrated", column=1,
    ),
    Measure(
        "lambda_max_raw_units", "λ_max, raw, in raw input units", "λ", "nats per squared raw input unit", -1, optional=True,
        correlated=False, column=None,
    ),
    Measure(
        "lambda_max_standardised", "λ_max, standardised", "λ", "nats per squared standard deviation of each input",
        -1, optional=True, correlated=False, series="raw", column=None,
    ),
    Measure("boundary_distance", "Boundary distance", "d", f"{INPUT_UNIT}s, L2", 1, column=3),
    Measure(
        "flip_radius", "Flip radius", "ρ", f"{INPUT_UNIT}s, L2", 1, optional=True, column=4, kind="upper bound",
        of_what_was_found=True,
    ),
    Measure(
        "flip_radius_linf", "Flip radius, L∞", "ρ_∞", f"{INPUT_UNIT}s, L∞", 1, optional=True, column=None, kind="upper bound",
        of_what_was_found=True, raw=True,
    ),
    Measure(
        "certified_radius", "Certified radius", "r", f"{INPUT_UNIT}s, L2", 1, optional=True, column=4, kind="lower bound",
        of_what_was_certified=True, raw=True,
    ),
    Measure(
        "certified_radius_linf", "Certified radius, L∞", "r_∞", f"{INPUT_UNIT}s, L∞", 1, optional=True, column=None,
        kind="lower bound", of_what_was_certified=True, raw=True,
    ),
    Measure("logit_sensitivity", "Logit sensitivity ‖J‖₂", "‖J‖₂", f"logits per {INPUT_UNIT}", -1, head="‖J‖₂", column=5),
    Measure("trace", "Trace of the Fisher information", "tr F", _PER_MODEL_UNIT, -1, head="Trace", column=6),
    Measure("effective_rank", "Effective rank", "tr F/λ", "directions", 0, gated=False, correlated=False, column=7, interval=False),
    Measure(
        "attack_distance", "Smallest attack", "δ", "input units of the attack", 1, gated=False, optional=True,
        head="Attack distance", column=4, kind="upper bound", of_what_was_found=True,
    ),
    Measure(
        "log10_fisher_bound", "Bound of λ_max, log₁₀", "log₁₀ ½L²", f"log10 of {_PER_MODEL_UNIT}", 0, gated=False, optional=True,
        correlated=False, column=None, interval=False, kind="upper bound",
    ),
)  # fmt: skip
#: Confidence has no interval and no units; it is ranked beside the measures.
CONFIDENCE = "confidence"
#: What is ranked against one another.
RANKED: tuple[str, ...] = (*(m.name for m in MEASURES if m.correlated), CONFIDENCE)
BY_NAME: dict[str, Measure] = {m.name: m for m in MEASURES}


@dataclass(frozen=True)
class Statistic:
    """One statistic over the samples; ``quantile`` where it is one."""

    name: str
    label: str
    quantile: float | None = None


#: Every statistic of a measure, in the order of tables; fields of `Aggregates`.
STATISTICS: tuple[Statistic, ...] = (
    Statistic("mean", "Mean"),
    Statistic("geometric_mean", "Geometric mean"),
    Statistic("median", "Median", 0.5),
    Statistic("p95", "95th percentile", 0.95),
    Statistic("max", "Maximum"),
)


#: The same by name; those that are quantiles.
STATISTIC_BY_NAME: dict[str, Statistic] = {s.name: s for s in STATISTICS}
QUANTILES: dict[str, float] = {s.name: s.quantile for s in STATISTICS if s.quantile is not None}


def columns() -> tuple[Measure, ...]:
    """The measures that a table of samples shows, in the order of its columns."""
    shown = [(m.column, m) for m in MEASURES if m.column is not None]
    return tuple(m for _, m in sorted(shown, key=lambda pair: pair[0]))


def gated() -> tuple[Measure, ...]:
    """The measures whose statistics every audit has and a gate may name."""
    return tuple(m for m in MEASURES if m.gated)
