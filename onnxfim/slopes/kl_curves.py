"""Does the number mean what it says: measured KL divergences along the worst direction against the quadratic form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import KLCurve, KLPoint
from onnxfim.slopes.flips import margins
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

#: Distances of a curve at most, and points of each: along the worst direction, against it, and along a random one.
DISTANCES, POINTS = 4, 3
# Distances are steps of a grid, twelve to a decade, so that they do not depend on how outputs are rounded; 0 is the boundary's.
_DECADE = 12
_FIXED = (-_DECADE, 0)  # a tenth of the boundary distance, and that distance: measured on every sample
_LEAST, _MOST = -2 * _DECADE, _DECADE // 2
_SURE = 1  # steps by which a guess is missed on the safe side
_UNEVEN = 2  # the same where it is guessed from farther points alone: kinks let the deviation fall in steps
_HOLDS = 0.10


def rows_along(x: Array, worst: Array, other: Array, epsilons: Array) -> Array:
    """The points of a sample's KL curve: x + εv, x − εv and x + εw for each ε, (3·E, *shape), in the type of x."""
    moves = np.stack([worst, -worst, other])  # (3, d)
    points = x.ravel()[None, None] + epsilons[:, None, None] * moves[None]  # (E, 3, d)
    return points.reshape(-1, *x.shape).astype(x.dtype)


class KLSearch:
    """The KL curve of one sample while it is measured: `DISTANCES` distances, chosen one after another.

    A tenth of the boundary distance and that distance come first. The next is where the deviation from the form, by interpolation
    in log ε, is just less than what still counts as holding; the last where the secant of the margin says that the prediction has
    just flipped, or another of the first kind where that is known already.

    Args:
        reader: What the outputs are.
        base: Outputs at x, (K, P); with several positions there is no one prediction to flip.
        lam: lambda_max at x, above 0.
        distance: First-order boundary distance, or a length that takes its place.
    """

    def __init__(self, reader: OutputReader, base: Array, lam: float, distance: float) -> None:
        self._reader, self._base, self._lam, self._distance = reader, base, lam, distance
        self._class = reader.predictions(base[None]) if _decides(reader, base) else None
        self._outputs: dict[int, Array] = {}
        self._places: Sequence[int] = _FIXED
        self._finite = True

    def next(self) -> Array:
        """Distances to measure at next, ascending, (E,); none when the curve is complete, or not measurable."""
        return np.array([self._epsilon(k) for k in self._places])

    def learn(self, outputs: Array) -> None:
        """Take in the outputs (3·E, K, P) at the points (`rows_along`) of the distances that `next` told."""
        self._finite = self._finite and bool(np.isfinite(outputs).all())
        held = dict(zip(self._places, outputs.reshape(-1, POINTS, *outputs.shape[1:]), strict=True))
        self._outputs |= held
        self._places = self._chosen()

    def curve(self) -> KLCurve | None:
        """The curve; None where an output is not a number."""
        if not self._finite or not self._outputs:
            return None
        places = sorted(self._outputs)
        outputs = np.concatenate([self._outputs[k] for k in places])
        return kl_curve(self._reader, self._base, outputs, np.array([self._epsilon(k) for k in places]), self._lam)

    def _epsilon(self, place: int) -> float:
        return float(self._distance * 10.0 ** (place / _DECADE))

    def _chosen(self) -> Sequence[int]:
        """The next place on the grid, if there is another."""
        if not self._finite or len(self._outputs) >= DISTANCES:
            return ()
        last = len(self._outputs) == DISTANCES - 1
        place = self._flipping() if last else None
        if place is None:
            place = self._holding({k: self._deviation(k) / _HOLDS for k in sorted(self._outputs)})
        if place is None and not last:
            place = self._flipping()
        return () if place is None else (place,)

    def _deviation(self, place: int) -> float:
        """The larger relative deviation from the form, of the two sides."""
        form = 0.5 * self._lam * self._epsilon(place) ** 2
        measured = self._reader.divergence(self._base, self._outputs[place][:2])
        return float(np.abs(measured / form - 1).max()) if form > 0 else math.inf

    def _holding(self, off: dict[int, float]) -> int | None:
        """Where the form is guessed to hold still, or None; ``off``, by ascending place, is at most 1 where it does."""
        low = _LEAST - 1
        for high, value in off.items():  # the first that does not hold, and the last before it
            if value > 1:
                break
            low = high
        else:
            high = _MOST + 1
        if high - low < 2:
            return None
        below, above = off.get(low), off.get(high)
        if below is not None and above is not None and 0 < below < above < math.inf:
            guess = low + (high - low) * math.log(1 / below) / math.log(above / below)
        elif below is not None:  # the deviation grows with ε to first order
            guess = low - _DECADE * math.log10(max(below, 1e-3))
        else:
            guess = high - _DECADE * math.log10(min(above or math.inf, 1e3)) - _UNEVEN
        return min(max(math.floor(guess) - _SURE, low + 1), high - 1)

    def _flipping(self) -> int | None:
        """Where the prediction is guessed to flip; None where that is known, or no side comes nearer to a flip."""
        if self._class is None:
            return None
        places = sorted(self._outputs)
        left = np.array([margins(self._reader, self._outputs[k][:2], np.repeat(self._class, 2)) for k in places])  # (E, 2)
        at = np.array([0.0, *(self._epsilon(k) for k in places)]) / self._distance
        left = np.concatenate([np.repeat(margins(self._reader, self._base[None], self._class), 2)[None], left])
        flipped = (left < 0).any(axis=1)
        after = int(flipped.argmax()) if flipped.any() else len(at)
        low = _LEAST - 1 if after <= 1 else places[after - 2]
        high = places[after - 1] if after < len(at) else _MOST + 1
        if high - low < 2:
            return None
        a, b = (after - 1, after) if after < len(at) else (after - 2, after - 1)
        fall = (left[a] - left[b]) / (at[b] - at[a])  # (2,)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(fall > 0, at[a] + left[a] / fall, np.inf).min()
        if not 0 < reach < np.inf:
            return None
        return min(max(math.ceil(_DECADE * math.log10(reach)) + (_SURE if after == len(at) else 0), low + 1), high - 1)


def kl_curve(reader: OutputReader, base: Array, outputs: Array, epsilons: Array, lam: float) -> KLCurve:
    """The KL curve of one sample.

    Args:
        reader: What the outputs are.
        base: Outputs at x, (K, P).
        outputs: Outputs at `rows_along`, (3·E, K, P).
        epsilons: Distances, ascending, (E,).
        lam: lambda_max at x.
    """
    divergences = reader.divergence(base, outputs).reshape(-1, 3)  # (E, 3)
    points = tuple(
        KLPoint(float(e), float(k[0]), float(k[1]), float(k[2]), 0.5 * lam * float(e) ** 2)
        for e, k in zip(epsilons, divergences, strict=True)
    )
    holds = None
    for p in points:
        if p.quadratic <= 0 or max(abs(p.along / p.quadratic - 1), abs(p.against / p.quadratic - 1)) > _HOLDS:
            break
        holds = p.epsilon
    flips = None
    if _decides(reader, base):
        changed = (reader.predictions(outputs) != reader.predictions(base[None])[0]).reshape(-1, 3)[:, :2].any(axis=1)
        flips = float(epsilons[int(changed.argmax())]) if changed.any() else None
    return KLCurve(points, holds, flips)


def _decides(reader: OutputReader, base: Array) -> bool:
    """Whether outputs (K, P) make one decision."""
    return reader.has_classes and base.shape[1] == 1
