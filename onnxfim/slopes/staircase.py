"""Tells a step function from the values along a ladder of steps: small ones change nothing, and what changes jumps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxfim.record.audit import Rung

_STILL = 0.5  # of the directions change nothing at the smallest step
_CHANGED = 0.01  # of the directions must change something for a rung to tell anything
_WHERE = (0.9e-3, 0.11)  # steps that are looked at, in standard deviations: below all float16 files are still, above all is curved
_RUNGS = 3
_GROWTH = 1.2  # power of the step with which the square of a change grows: 2 where there is a slope, 0 for jumps, 1 for many


def only_jumps(curve: Sequence[Rung]) -> bool:
    """Whether the outputs stay for small steps, and change by jumps whose size hardly depends on the step.

    With a slope the square of the change of those directions that change at all grows as the square of the step; where outputs
    jump it stays, or grows with the number of jumps that a step crosses.

    Args:
        curve: Plain values and shares of unchanged directions by step.
    """
    if not curve or min(curve, key=lambda g: g.step).unchanged < _STILL:
        return False
    told = [
        g for g in curve
        if _WHERE[0] <= g.relative_step <= _WHERE[1] and g.central and 1 - g.unchanged >= _CHANGED
    ]  # fmt: skip
    if len(told) < _RUNGS or told[-1].step < 5 * told[0].step:
        return False
    step = np.log([g.step for g in told])
    square = np.log([(g.central or 0.0) * g.step**2 / (1 - g.unchanged) for g in told])
    late = step >= step[-1] - np.log(11)  # the last decade: rounding below it looks like jumps too
    if late.sum() >= _RUNGS:
        step, square = step[late], square[late]
    return bool(np.polyfit(step, square, 1)[0] <= _GROWTH)
