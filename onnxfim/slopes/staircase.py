"""Tells a step function from the values along a ladder of steps: what changes jumps, however large the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxfim.record.steps import Rung

_CHANGED = 0.01  # of the directions must change something for a rung to tell anything
# Steps that are looked at, in standard deviations: rounding of int8 and float16 is behind, curvature still ahead. Where hardly
# anything changes there, the largest step is looked at too.
_WHERE = (0.029, 0.31)
_WIDER = (0.029, 1.1)
_RUNGS = 3
# Power of the step with which the square of a change grows: 0 for one jump, 1 for many (forests: .6 to 1.15), 2 for a slope
# (rounded to 8 bits: 1.8 to 2).
_GROWTH = 1.3


def only_jumps(curve: Sequence[Rung]) -> bool:
    """Whether the outputs of a function that resolves no small step change by jumps, whose size hardly depends on the step.

    With a slope the square of the change, of those directions that change anything, grows as the square of the step; where outputs
    jump it stays, or grows with the number of jumps that a step crosses. Only a ladder that was climbed beyond the plateau of
    smooth functions tells it.

    Args:
        curve: Plain values and shares of unchanged directions by step.
    """
    if not any(g.cross is not None for g in curve):
        return False
    for low, high in (_WHERE, _WIDER):
        told = [g for g in curve if low <= g.relative_step <= high and g.central and 1 - g.unchanged >= _CHANGED]
        if len(told) >= _RUNGS:
            step = np.log([g.step for g in told])
            square = np.log([(g.central or 0.0) * g.step**2 / (1 - g.unchanged) for g in told])
            return bool(np.polyfit(step, square, 1)[0] <= _GROWTH)
    return False
