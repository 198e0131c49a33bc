"""What a bound is: its figures, the factors it is made of, and their JSON form."""

from __future__ import annotations

import math

from onnxfim.record.bound import LOG10_ZERO, Bound, Factor, Share

__all__ = ["LOG10_ZERO", "Bound", "Factor", "Share", "log10", "plus", "root_sum", "shown", "times", "up"]


def log10(value: float) -> float:
    """log10 rounded up; -inf for zero."""
    return -math.inf if value == 0 else up(math.log10(value))


def up(value: float) -> float:
    """A float above what ``value`` was rounded from."""
    return value if math.isinf(value) else value + 4 * math.ulp(max(1.0, abs(value)))


def times(*logs: float) -> float:
    """log10 of a product; a factor without a bound (inf) outweighs a factor of zero."""
    return math.inf if math.inf in logs else up(math.fsum(logs)) if -math.inf not in logs else -math.inf


def plus(*logs: float) -> float:
    """log10 of a sum."""
    top = max(logs, default=-math.inf)
    if math.isinf(top):
        return top
    return up(top + math.log10(math.fsum(10 ** max(v - top, -330) for v in logs)))


def root_sum(*logs: float) -> float:
    """log10 of the root of the sum of squares."""
    return up(plus(*(2 * v for v in logs)) / 2)


def shown(log: float) -> float:
    """A finite number for JSON, still an upper bound."""
    return max(log, LOG10_ZERO)
