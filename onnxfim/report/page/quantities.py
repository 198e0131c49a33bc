"""Estimates and statistics as a page prints them: the number, its interval, its kind, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from onnxfim.record.decision import Aggregate
from onnxfim.record.foreign_text import visible
from onnxfim.record.sample import Estimate
from onnxfim.report.numbers import MISSING, interval, known_ends, number, number_below, percent, percent_interval, spread

Name = TypeVar("Name")
_OPEN = 1e4  # an interval whose ends are further apart says nothing: too few samples carry the value
UNBOUNDED = "not bounded"


@dataclass(frozen=True)
class Quantity:
    """A printed number with its interval, its kind, and the reason where it is missing."""

    text: str
    interval: str | None = None
    kind: str | None = None
    reason: str | None = None

    @property
    def line(self) -> str:
        """Number and interval as one text."""
        return f"{self.text} ({self.interval})" if self.interval else self.text


def of_estimate(estimate: Estimate) -> Quantity:
    """One sample's estimate; an exact one has no interval but for what the temperature may be wrong by."""
    if estimate.value is None:
        return Quantity(MISSING, reason=visible(estimate.reason) if estimate.reason else None)
    told = None if estimate.kind == "exact" and not estimate.at_temperatures else interval(estimate.low, estimate.high)
    shown = number_below if estimate.kind == "lower bound" else number  # it must not grow in print
    return Quantity(shown(estimate.value), told, estimate.kind)


def with_common_kind(estimates: Mapping[Name, Estimate]) -> tuple[str, dict[Name, Quantity]]:
    """The kind that all share, taken off each; or ``mixed``, and each keeps its own; or a dash where there is no value."""
    kinds = sorted({e.kind for e in estimates.values() if e.value is not None})
    quantities = {name: of_estimate(e) for name, e in estimates.items()}
    if len(kinds) != 1:
        return ("mixed" if kinds else "–"), quantities
    return kinds[0], {name: replace(q, kind=None) for name, q in quantities.items()}


def of_statistic(statistic: Aggregate) -> Quantity:
    """A statistic of one audit, with the level of its interval where that is not 95 %."""
    if statistic.value is None:
        return Quantity(known_ends(statistic.low, None) or MISSING)
    if statistic.low is None or statistic.high is None:
        return Quantity(number(statistic.value), known_ends(statistic.low, statistic.high) or "no interval")
    kind = None if statistic.confidence == 0.95 else f"{100 * statistic.confidence:.0f} % interval"
    return Quantity(number(statistic.value), spread(statistic.low, statistic.high), kind)


def of_compared(statistic: Aggregate | None) -> Quantity:
    """A statistic among those of several audits; one whose interval spans decades upon decades is not bounded."""
    if statistic is None or statistic.value is None:
        return Quantity(known_ends(None if statistic is None else statistic.low, None) or MISSING)
    low, high = statistic.low, statistic.high
    open_ended = low is not None and high is not None and high > _OPEN * max(low, 0.0)
    if (low is None) != (high is None):
        return Quantity(number(statistic.value), known_ends(low, high))
    return Quantity(number(statistic.value), UNBOUNDED if open_ended else spread(low, high))


def of_share(share: Aggregate) -> Quantity:
    """A share of the samples in percent."""
    return Quantity(percent(share.value), percent_interval(share.low, share.high))
