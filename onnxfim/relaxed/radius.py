"""The radius around a sample in which a network's prediction is proved to stay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from onnxfim.relaxed.around import Around, NormBall
from onnxfim.relaxed.network import StepNetwork
from onnxfim.relaxed.relaxed_steps import SINGLE, RowNumbers

Array: TypeAlias = np.ndarray[Any, Any]

_TRIES = 10  # of a radius
_FIRST = 0.2  # of the distance by slopes: the first try
_FURTHER = 4.0  # times the last try that was proved: the most of the next
_CLOSE = 1.02  # how far apart the ends of the search are at its end, as a ratio
_FAR = 1e6  # times the sample's own length: where nothing changes a prediction, nothing does
_SMALL = 1e-3  # of the distance by slopes, where the search begins to shrink no further


@dataclass
class RadiusSearch:
    """Certified radii of samples of one network in one norm.

    Attributes:
        network: From the input to the scores.
        ball: Norm and scale.
        margin: By how much the scores of the two classes have to differ.
        lengths: What `Around` keeps between samples; it depends on network and ball alone.
    """

    network: StepNetwork
    ball: NormBall
    margin: float = 0.0
    lengths: dict[str, Array] = field(default_factory=dict)
    rows: RowNumbers = SINGLE

    def radius(self, x: Array, prediction: int, check: Callable[[], object] = lambda: None) -> float:
        """The largest radius found in which the prediction is proved to stay; 0 where it is proved at none.

        Args:
            x: The sample, any shape.
            prediction: Its class c. It stays where ``z_c − z_j > margin`` for all other j.
            check: Called between parts of the work; it may raise what ends it.

        Bounds made in a ball of radius ε hold in every smaller one, where the last step back to the input has less room: each try
        gives a radius ``r(ε) ≤ ε`` of its own, and the search is for the ε at which the two meet. It begins near the distance
        that slopes predict.
        """
        x = x.astype(np.float64).ravel()
        rows, constants = self._contest(prediction)

        def reached(radius: float) -> float:
            around = Around(self.network, self.ball, x, radius, self.lengths, check, self.rows)
            if not around.spread():
                return -math.inf
            return around.lowest({self.network.scores: self.rows.of(rows)}, constants).reaches()

        slope = reached(0.0)  # by slopes at the sample itself
        if not 0 < slope:
            return 0.0
        if math.isinf(slope):  # flat there: constant, or a step function, which any ball of some size tells
            return _flat_radius(reached, self.ball.length(x) or 1.0)
        low, high, tried = 0.0, slope, _FIRST * slope
        below, above = (0.0, slope), None  # the last tries from either side: ε and r(ε) − ε
        for _ in range(_TRIES):
            found = reached(tried)
            if found >= tried:
                before, below = below, (tried, found - tried)
                low, high = max(low, tried), min(high, found)
                above = None if above is None else (above[0], 0.5 * above[1])  # so that both ends move (Illinois)
            else:
                before, above = below, (tried, max(found, -tried) - tried)
                low, high = max(low, found), min(high, tried)
                below = (below[0], 0.5 * below[1])
            if high <= low * _CLOSE or tried < _SMALL * slope:
                break
            tried = _next(low, high, below, above or before)
        return low

    def _contest(self, prediction: int) -> tuple[Array, Array]:
        """Rows ``z_c − z_j`` of all other classes, and minus the margin."""
        count = next(s.size for s in self.network.steps if s.name == self.network.scores)
        rows = -np.eye(count)
        rows[:, prediction] += 1.0
        return np.delete(rows, prediction, axis=0), np.full(count - 1, -self.margin)


def _flat_radius(reached: Callable[[float], float], length: float) -> float:
    """The radius where bounds have no slope at the sample: found by tenths of the sample's own length, then between two of them."""
    if reached(_FAR * length) == math.inf:
        return math.inf
    low, high = 0.0, _FAR * length
    tried = 10 * length
    for _ in range(_TRIES):
        tried = math.sqrt(low * high) if low > 0 else tried / 10
        if reached(tried) >= tried:
            low = tried
        else:
            high = tried
        if high <= low * _CLOSE:
            break
    return low


def _next(low: float, high: float, first: tuple[float, float], second: tuple[float, float]) -> float:
    """Where to try next: where the straight line through two tries meets 0, inside the ends and not far beyond what was tried."""
    (a, f), (b, g) = first, second
    crossing = a + (b - a) * f / (f - g) if f != g else math.inf
    step = 0.25 * (_CLOSE - 1) * high  # off the end that it is near, which then ends the search
    if b < a:  # both lie below: it is not known how fast the bounds get worse
        crossing = min(crossing if crossing > a else math.inf, _FURTHER * a)
    return min(max(crossing, low + step), high - step)
