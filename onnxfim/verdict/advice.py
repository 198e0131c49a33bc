"""How many more samples or passes would settle an inconclusive verdict."""

from __future__ import annotations

import math

_HOPELESS = 1000.0  # times the samples: more than anyone will audit


def more_samples(count: int, distance: float, half: float, if_words: str) -> str:
    """Samples at which an interval of half-width ``half`` shrinks to ``distance``, by the square-root law.

    Args:
        count: Samples there are.
        distance: From the value to the threshold.
        half: Half-width of the interval on the threshold's side, in the same units as ``distance``.
        if_words: What is assumed.
    """
    factor = _factor(distance, half)
    if factor > _HOPELESS:
        return "The value is too close to the threshold for any number of samples to tell: move the threshold."
    more = max(1, math.ceil(count * factor) - count)
    return f"About {more:,} more samples ({count + more:,} in all) would settle it, if {if_words}."


def more_passes(budget: int, distance: float, half: float, noise: float, if_words: str) -> str | None:
    """Passes per sample at which the interval shrinks to ``distance``, where the estimates' noise is what is in the way.

    Args:
        budget: Passes per sample there were.
        distance: From the value to the threshold.
        half: Half-width of the interval on the threshold's side.
        noise: Half-width that the estimates' noise alone makes.
        if_words: What is assumed.

    Returns:
        The advice, or None where the spread between samples alone is wider than ``distance``.
    """
    room = distance**2 - max(half**2 - noise**2, 0.0)
    if room <= 0 or noise <= 0 or noise**2 / room > _HOPELESS:
        return None
    needed = max(math.ceil(budget * noise**2 / room), budget + 1)
    return f"About {needed:,} passes per sample (--budget) would settle it, if {if_words}."


def _factor(distance: float, half: float) -> float:
    """How many times the samples."""
    return math.inf if distance <= 0 else (half / distance) ** 2
