"""How many more samples or passes would settle an inconclusive verdict."""

from __future__ import annotations

import math

from onnxfim.record.special import stdtrit

_LEVEL = 0.975
_HOPELESS = 1000.0  # times the samples: more than anyone will audit


def more_samples(count: int, distance: float, error: float, if_words: str, *, freedom: float = math.inf) -> str:
    """Samples at which a 95 % interval shrinks to a half-width of ``distance``.

    Args:
        count: Samples there are.
        distance: From the value to the threshold.
        error: Standard error now; it falls with the root of the number of samples.
        if_words: What is assumed.
        freedom: Degrees of freedom of ``error`` now; they grow with the number of samples.
    """

    def reaches(factor: float) -> bool:
        return float(stdtrit(min(freedom * factor, 1e9), _LEVEL)) * error / math.sqrt(factor) <= distance

    if not reaches(_HOPELESS):
        return "The value is too close to the threshold for any number of samples to tell: move the threshold."
    low, high = 1.0, _HOPELESS
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if reaches(middle) else (middle, high)
    more = max(1, math.ceil(count * high) - count)
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
