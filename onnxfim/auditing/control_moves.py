"""A move that surely changes the prediction of the network that is verified: what a verifier is asked about first, as a control.

It is looked for where the audit knows none: on the way to the nearest other sample that the network decides otherwise, else to a
random valid input, else to one beyond the valid range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.verified_network import VerifiedNetwork
from onnxfim.record import streams
from onnxfim.verifiers.properties import StaysInBox

Array: TypeAlias = np.ndarray[Any, Any]

#: A point is decided otherwise where another class leads by this share of the scores' size: rounding does not decide there.
EVEN = 1e-4
_SAMPLES = 16  # nearest samples of another class that are tried
_INSIDE, _BEYOND = 128, 16  # random points of the valid range, and of each of the widths beyond it
_WIDTHS = tuple(2.0**k for k in range(11))  # of the range, that points beyond it are away
_HALVINGS = 10  # of the way to a point, towards the sample


@dataclass(frozen=True)
class ControlMove:
    """A move whose end is decided otherwise.

    Attributes:
        length: L∞ length in the units of boxes.
        point: Its end, (*shape); None where its length alone is known.
        valid: Whether the end lies in the valid range.
    """

    length: float
    point: Array | None = None
    valid: bool = True


@dataclass(frozen=True)
class ControlSearch:
    """Looks for control moves, by forward passes of the network that is verified.

    Attributes:
        network: The network.
        X: All samples, (N, *shape).
        predictions: Of the audited file, by position: samples of another class are tried first.
        low, high: Ends of the valid range, (*shape).
        scale: d(model input)/d(raw input), broadcastable to a sample.
        check: Called between passes; raises where all is to end.
    """

    network: VerifiedNetwork
    X: Array
    predictions: Mapping[int, int]
    low: Array
    high: Array
    scale: Array | float
    check: Callable[[], None]

    def near(self, position: int, about: StaysInBox, seed: tuple[int, int]) -> ControlMove | None:
        """A move from a sample that changes the network's prediction clearly, or None: the same one for the same seed.

        The way to the point is halved towards the sample as long as its end is decided otherwise: the nearer it is, the more the
        control is like the boxes that are asked about afterwards.

        Args:
            position: Of the sample.
            about: Its prediction, and how it is read from scores.
            seed: The audit's, and the sample's index.
        """
        x = self.X[position]
        if not about.lead(self._scores(x)) > 0:
            return None
        low, high = np.minimum(self.low, x), np.maximum(self.high, x)
        for point, valid in self._points(position, about.prediction, low, high, seed):
            self.check()
            if self._changes(point, about):
                end = self._halved(x, point, about)
                return ControlMove(float(np.max(np.abs(end.astype(np.float64) - x) / self.scale)), end, valid)
        return None

    def _points(
        self, position: int, prediction: int, low: Array, high: Array, seed: tuple[int, int]
    ) -> Iterator[tuple[Array, bool]]:
        """Points to be tried, and whether each lies in the valid range."""
        x = self.X[position]
        others = {p: np.clip(self.X[p], low, high) for p, c in self.predictions.items() if c != prediction}
        away = {p: float(np.max(np.abs(other.astype(np.float64) - x) / self.scale)) for p, other in others.items()}
        for p in sorted(away, key=lambda p: (away[p], p))[:_SAMPLES]:
            yield others[p].astype(x.dtype), True
        rng = np.random.default_rng([*seed, streams.CONTROLS])
        wide = high - low
        if np.isfinite(wide).all():
            for k in range(_INSIDE):
                part = rng.random(x.shape)
                yield np.clip(low + wide * (part.round() if k % 2 else part), low, high).astype(x.dtype), True
        finite = wide[np.isfinite(wide)]
        unit = float(finite.max(initial=0.0)) or float(np.abs(x).max()) or 1.0
        for width in _WIDTHS:
            for k in range(_BEYOND):
                way = rng.standard_normal(x.shape)
                yield (x + unit * width * (np.sign(way) if k % 2 else way)).astype(x.dtype), False

    def _halved(self, x: Array, point: Array, about: StaysInBox) -> Array:
        """A point near the sample on the way to one that is decided otherwise, decided otherwise itself."""
        near, far, end = 0.0, 1.0, point
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            tried = (x + middle * (point.astype(np.float64) - x)).astype(x.dtype)
            if self._changes(tried, about):
                far, end = middle, tried
            else:
                near = middle
        return end

    def _changes(self, point: Array, about: StaysInBox) -> bool:
        """Whether another class leads at a point, and not by rounding alone."""
        scores = self._scores(point)
        return bool(np.isfinite(scores).all()) and about.lead(scores) < -EVEN * float(np.abs(scores).max(initial=1e-30))

    def _scores(self, point: Array) -> Array:
        return np.asarray(self.network.scores(point[None])[0])
