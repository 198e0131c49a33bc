"""Whether differences along random directions are those of a slope: odd in the direction, so that their mean is zero."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from onnxfim.slopes.differences import Ends
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.scored import Scored

Array: TypeAlias = np.ndarray[Any, Any]

_CHANCE = 4.5  # standard errors of the mean: of slopes, one sample in three hundred thousand
_EVEN = 0.25  # share of the even part in the odd one's energy, where both sides of each step are known
_FEWEST = 16  # directions that tell


def has_no_slope(scored: Scored) -> bool:
    """Whether the outputs jump or bend within a step of a sample, so that differences along random directions are no slopes.

    Forward differences of a smooth function change their sign with the direction; where a jump or a kink lies within the step their
    mean over random directions stays. It is tried along the mean of the other half of the directions, and must be found in both
    halves together. Central differences are odd whatever the function does; there the even part of the two sides tells.

    Args:
        scored: Of forward or central differences along all directions of the sample.
    """
    reader, base, ends = scored.reader, scored.base, scored.ends
    if ends.twin is not None or len(ends.plus) < _FEWEST:
        return False
    middle = np.broadcast_to(base, ends.plus.shape)
    if len(ends.minus) == len(ends.plus) and not np.array_equal(ends.minus, middle):
        return even_share(reader, base, ends) > _EVEN
    Y = scored.scores  # the other end of each step has the outputs of the sample
    scale = float(np.abs(Y).max(initial=0.0))
    if scale <= 0 or not math.isfinite(scale):
        return False
    halves = Y[0::2] / scale, Y[1::2] / scale
    return (_along(halves[0], halves[1].mean(axis=0)) + _along(halves[1], halves[0].mean(axis=0))) / math.sqrt(2) > _CHANCE


def even_share(reader: OutputReader, base: Array, ends: Ends) -> float:
    """Energy of the even part of the two one-sided differences over that of the odd one; 0 where there is neither.

    Args:
        reader: What the outputs are.
        base: Outputs at the sample, (K, P).
        ends: Of central differences.
    """
    middle = np.broadcast_to(base, ends.plus.shape)
    plus, minus = (reader.scores(base, end, middle, ends.h) for end in (ends.plus, ends.minus))
    odd, even = float(np.square(plus - minus).sum()), float(np.square(plus + minus).sum())
    return even / odd if odd else math.inf if even else 0.0


def _along(Y: Array, u: Array) -> float:
    """The mean of scores Y (m, K) along u (K,), in its standard errors."""
    along = Y @ u
    error = float(along.std(ddof=1)) / math.sqrt(len(along))
    return float(along.mean()) / error if error > 0 else 0.0
