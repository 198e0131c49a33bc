"""Quantiles of distances of which some are beyond all, and the round distances at which samples are counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxfim.record.robustness import Reached
from onnxfim.record.statistics import bracketing

_ROUND = (1, 2, 5)  # digits of a ladder's distances
_LEVELS = (0.5, 1, 2, 4, 8, 16, 32)  # of 255, the same where each pixel moves as far


def reached(distances: Sequence[float], share: float) -> Reached:
    """The quantile of distances in increasing order, infinite beyond all, and its interval by order statistics.

    It is a distance at which that share of these samples has fallen: an order statistic, or, where any distance between two of them
    is one, the middle of these two, as the median of an even number has it.
    """
    n = len(distances)
    below, above = bracketing(n, share)
    fallen = max(math.ceil(share * n - 1e-9), 1)
    value = distances[fallen - 1]
    if fallen < n and math.isclose(share * n, fallen) and math.isfinite(distances[fallen]):
        value = (value + distances[fallen]) / 2
    ends = [math.inf if at is None else distances[at] for at in (below, above)]
    return Reached(share, *(x if math.isfinite(x) else None for x in (value, *ends)))


def ladder(finite: Sequence[float], level: float | None, also: float | None) -> list[float]:
    """Round distances over the curve: 1, 2, 5 in each decade, or steps of 255 where each pixel moves alike; and one asked for."""
    positive = [d for d in finite if d > 0]
    asked = {also} if also is not None else set()
    if not positive:
        return sorted(asked)
    if level is not None:
        last = next((k for k, m in enumerate(_LEVELS) if m * level >= positive[-1]), len(_LEVELS) - 1)
        return sorted({m * level for m in _LEVELS[: last + 1]} | asked)
    low, high = positive[len(positive) // 10], positive[-1]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rounds = [float(f"{d}e{e}") for e in decades for d in _ROUND]
    inside = [r for r in rounds if low / 2.5 <= r <= 2.5 * high]
    return sorted(set(inside[:12]) | asked)
