"""The flip radius: how far a sample must move along a few rays, inside the valid input range, until its prediction changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.lengths import Euclidean, Length
from onnxfim.slopes.rungs import RATIO, RungSearch, distance_of

Array: TypeAlias = np.ndarray[Any, Any]

#: Of rows (B, *shape), the class (B,) that each was decided for before, and which of the samples (B,) it was moved from: the
#: classes that they are decided for, (B,), -1 where an output is not a number, which is no change of a decision; and the margin of
#: the class before, (B,), NaN where it is not known.
Decide: TypeAlias = Callable[[Array, Array, Array], tuple[Array, Array]]

#: Relative width of the bracket at which the search ends.
PRECISION = RATIO - 1
_PIECE = 2**17  # numbers of a piece of the points that is made at a time
_WIDE = 10.0  # ratio of ranges from which on coordinates are of different scale
_ENOUGH = 8  # samples from which on every coordinate has a range of its own


@dataclass(frozen=True)
class ValidRange:
    """The inputs that count as valid: an interval for each coordinate, (d,) each, and where it is from, in words."""

    low: Array
    high: Array
    source: str


def valid_range(X: Array, given: tuple[float, float] | None, limits: tuple[float, float] | None) -> ValidRange:
    """The valid range of inputs: as given, else what the file tells apart, else that of the data X (N, *shape).

    The data's is one for all coordinates where these are alike (pixels), and one for each where they differ in scale (features):
    where the middle one of the coordinates' own ranges is less than a tenth of the whole.
    """
    d = int(np.prod(X.shape[1:]))
    for ends, source in ((given, "the range given"), (limits, "the range that the file tells apart")):
        if ends is not None:
            return ValidRange(np.full(d, float(ends[0])), np.full(d, float(ends[1])), f"{source}, {ends[0]:.4g} to {ends[1]:.4g}")
    low, high = X.min(axis=0).ravel().astype(np.float64), X.max(axis=0).ravel().astype(np.float64)
    moving = (high - low)[high > low]
    least, most = float(low.min()), float(high.max())
    if len(X) >= _ENOUGH and len(moving) and float(np.median(moving)) * _WIDE < most - least:
        return ValidRange(low, high, "the data's range of each input")
    return ValidRange(np.full(d, least), np.full(d, most), f"the data's range, {least:.4g} to {most:.4g}")


def margins(reader: OutputReader, outputs: Array, classes: Array) -> Array:
    """By how much the logits of ``classes`` (n,) lead all others at ``outputs`` (n, K, P), (n,): below 0 where another has won.

    A lone logit is that of class 1 against one of 0.
    """
    z = reader.logits(outputs)[:, :, 0]
    if z.shape[1] == 1:
        return np.asarray(np.where(classes == 1, z[:, 0], -z[:, 0]))
    own = np.arange(z.shape[1]) == np.asarray(classes)[:, None]
    return np.asarray(z[own] - np.where(own, -np.inf, z).max(axis=1))


@dataclass(frozen=True)
class Flips:
    """What was found for n samples.

    Attributes:
        distance: Length of the shortest move that changed the prediction, (n,); inf where none did.
        ray: Which ray it lies on, (n,).
        passes: Forward passes spent, (n,).
        move: The move itself, (n, d); zeros where there is none.
    """

    distance: Array
    ray: Array
    passes: Array
    move: Array


def smallest_flips(
    decide: Decide, X: Array, before: Array, rays: Array, box: ValidRange, expected: Array, margin: Array | None = None,
    length: Length | None = None,
) -> Flips:  # fmt: skip
    """The smallest distance at which the prediction changes along any of a sample's rays; all samples are searched together.

    A point of a ray is ``x + t·v`` projected on the valid range and rounded to the type of x; its distance is the length of that
    move. Distances are rungs of a ladder of 2 %, in units of the expected distance, which is tried first. What the class has left
    of its margin there says which rung is next (`RungSearch`), until a ray flips at one and no ray that is a rival does at the
    rung below. What comes back is the length of a move that was tried and did change the prediction: an upper bound of the
    distance to the boundary. A flip nearer than the rungs that were tried show is not looked for.

    Args:
        decide: The model.
        X: Samples, (n, *shape).
        before: Their predictions, (n,).
        rays: Directions of any length, (n, R, d); a ray of zeros is left out.
        box: The valid range. A sample outside it may stay where it is, and only move inwards.
        expected: Distance at which a flip is expected, (n,), such as the first-order distance to the boundary.
        margin: Margin of the class decided for at the samples, (n,); None where it is not known.
        length: What the length of a move is; L2 in model units unless told.
    """
    search = _Search(decide, X, before, rays, box, length or Euclidean())
    rungs = RungSearch(search.alive, np.full(len(X), np.nan) if margin is None else np.asarray(margin, np.float64))
    while True:
        i, k, rung = rungs.tries()
        if len(i) == 0:
            return Flips(search.best, search.ray, search.passes, search.move)
        wanted = expected[i] * distance_of(rung)
        radius = np.minimum(wanted, search.reach[i, k])
        flips, left = search.look(i, k, radius)
        rungs.learn(i, k, rung, radius / expected[i], left, flips, wanted >= search.reach[i, k])


class _Search:
    """The rays and the shortest flips so far."""

    def __init__(self, decide: Decide, X: Array, before: Array, rays: Array, box: ValidRange, length: Length) -> None:
        self.decide, self.X, self.before, self.length = decide, X, before, length
        self.flat = X.reshape(len(X), -1).astype(np.float64)
        size = np.abs(rays).max(axis=2, keepdims=True, initial=0.0)
        usable = np.isfinite(size[:, :, 0]) & (size[:, :, 0] > 0)
        self.rays = np.where(usable[:, :, None], rays / np.where(usable[:, :, None], size, 1.0), 0.0)
        self.low, self.high = np.minimum(box.low, self.flat), np.maximum(box.high, self.flat)
        self.reach = np.zeros(usable.shape)
        for k in range(usable.shape[1]):
            v = self.rays[:, k]
            self.reach[:, k] = length.reach(v, self._room(slice(None), v))
        self.alive = usable & (self.reach > 0)
        n = len(X)
        self.best, self.ray, self.passes = np.full(n, np.inf), np.zeros(n, int), np.zeros(n, int)
        self.move = np.zeros_like(self.flat)

    def look(self, i: Array, k: Array, radius: Array) -> tuple[Array, Array]:
        """Whether rays k of the samples i flip at moves of these lengths, and the margins of the class before there, (T,) each."""
        rows, moved = self._points(i, k, radius)
        after, margin = self.decide(rows.reshape(-1, *self.X.shape[1:]), self.before[i], i)
        self.passes += np.bincount(i, minlength=len(self.X))
        flips = (after >= 0) & (after != self.before[i])
        order = np.flatnonzero(flips)
        for at in order[np.argsort(-moved[order], kind="stable")]:  # the shortest last
            if moved[at] <= self.best[i[at]]:
                self.best[i[at]], self.ray[i[at]] = moved[at], k[at]
                self.move[i[at]] = rows[at].astype(np.float64) - self.flat[i[at]]
        return flips, margin

    def _points(self, i: Array, k: Array, length: Array) -> tuple[Array, Array]:
        """Points of the samples' rays at moves of given lengths, (B, d) in the samples' type, and the moves' true lengths (B,)."""
        rows, moved = np.empty((len(i), self.flat.shape[1]), self.X.dtype), np.empty(len(i))
        size = max(1, _PIECE // max(self.flat.shape[1], 1))  # pieces that stay in the cache
        for start in range(0, len(i), size):
            part = slice(start, start + size)
            which: Any = i[part] if size > 1 else slice(i[start], i[start] + 1)  # a slice is no copy
            x, v = self.flat[which], self.rays[i[part], k[part]]
            rows[part] = x + self.length.along(v, self._room(which, v), length[part])
            moved[part] = self.length.of(rows[part].astype(np.float64) - x)
        return rows, moved

    def _room(self, i: Any, v: Array) -> Array:
        """How far each coordinate may go in its direction, as v."""
        return np.where(v > 0, self.high[i] - self.flat[i], self.flat[i] - self.low[i])
