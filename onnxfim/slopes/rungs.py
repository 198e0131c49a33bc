"""Which distances to try for the smallest at which a decision changes along a few rays: rungs of a ladder, guided by the margin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

#: A rung over the one below it, and so the relative width of the bracket that is found.
RATIO = 1.02
#: Rungs up to which, and down to which, a search goes: 1000 and a millionth of the expected distance.
HIGHEST, LOWEST = math.ceil(math.log(1000) / math.log(RATIO)), math.floor(math.log(1e-6) / math.log(RATIO))
#: Stands for no rung.
NOWHERE = -(2**30)
_FAR = 2**30
_UP = 35  # rungs at most from one try to the next upwards: a factor of 2
_DOWN = 70  # rungs downwards where the margin tells nothing: a factor of 4
_NEAR = 2  # rungs: a guess so near to the smallest change is tried just below that, which ends the search where nothing changes
_BEYOND = 12  # rungs above the smallest change: a guess there is no rival where the ray was tried above half of the distance
_WELL_BEYOND = 24  # the same of a ray that was tried nowhere below its own change
_SLOW = 2  # tries that do not halve a bracket, after which it is halved
_BLIND = 5  # tries below a change that find no lower end, after which the margin is not asked any more


def distance_of(rung: Array) -> Array:
    """Distances of rungs, in units of the expected distance: `RATIO` to their power."""
    return np.asarray(RATIO ** rung.astype(np.float64))


@dataclass
class RungSearch:
    """The brackets of R rays of each of n samples.

    The margin of the class decided for falls to 0 where the decision changes: its secant says where to try next. That is rounded
    to a rung, so that what is found does not depend on how margins are rounded; a bracket that the secant does not halve
    in two tries is halved. A ray is given up where it was tried just below the smallest change found, or where its own change is
    guessed well beyond that.

    Args:
        alive: Rays to search along, (n, R); those that end without a change are taken out.
        margin: Margin of the class decided for at the samples, (n,); NaN where it is not known.
    """

    alive: Array
    margin: Array

    def __post_init__(self) -> None:
        shape = self.alive.shape
        self.low, self.high = np.full(shape, NOWHERE), np.full(shape, _FAR)
        # Distances and margins: of the last point that did not change and the one before it, and of the nearest that did.
        self._at, self._of = np.zeros((3, *shape)), np.full((3, *shape), np.nan)
        self._of[0] = np.maximum(self.margin, 0.0)[:, None]
        self._tries, self._slow = np.zeros(shape, int), np.zeros(shape, int)

    def tries(self) -> tuple[Array, Array, Array]:
        """Samples, rays and rungs to try next, (T,) each; none where all is found."""
        top = self.high.min(axis=1)
        rungs = np.where((top == _FAR)[:, None], self._upwards(), self._inwards(top))
        i, k = np.nonzero(rungs > NOWHERE)
        return i, k, rungs[i, k]

    def learn(self, i: Array, k: Array, rungs: Array, distance: Array, margin: Array, changed: Array, exhausted: Array) -> None:
        """Take in what was seen at the tries.

        Args:
            i, k, rungs: The tries, as from `tries`.
            distance: Their distances in units of the expected one, shorter than the rung's where the ray has no more room.
            margin: Margins seen there.
            changed: Where the decision was another.
            exhausted: Where the ray has no more room.
        """
        width, bounded = self._width(i, k), self.high[i, k] < _FAR
        self._tries[i, k] += 1
        at, of = self._at, self._of
        c = i[changed], k[changed]
        self.high[c], at[2][c], of[2][c] = rungs[changed], distance[changed], margin[changed]
        s = i[~changed], k[~changed]
        at[1][s], of[1][s] = at[0][s], of[0][s]
        self.low[s], at[0][s], of[0][s] = rungs[~changed], distance[~changed], margin[~changed]
        slow = bounded & (2 * self._width(i, k) > width)
        self._slow[i, k] = np.where(slow, self._slow[i, k] + 1, 0)
        ended = ~changed & (exhausted | (rungs >= HIGHEST))
        self.alive[i[ended], k[ended]] = False

    def _width(self, i: Array, k: Array) -> Array:
        """Rungs of the brackets."""
        high = self.high[i, k]
        return np.asarray(high - np.maximum(self.low[i, k], high - _DOWN))

    def _guesses(self) -> Array:
        """Rungs where the margin is guessed to be 0, (n, R) float; infinite where it does not fall, NaN where it is not known."""
        at, of = self._at, self._of
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            between = at[0] + (at[2] - at[0]) * of[0] / (of[0] - of[2])
            slope = (of[1] - of[0]) / (at[0] - at[1])
            beyond = np.where(slope > 0, at[0] + of[0] / slope, np.where(np.isnan(slope), np.nan, np.inf))
            return np.asarray(np.log(np.where(self.high < _FAR, between, beyond)) / math.log(RATIO))

    def _upwards(self) -> Array:
        """Rungs to try of samples without a change so far: the rays whose change is guessed nearest; never more than doubled."""
        first = self.low == NOWHERE
        # A margin that falls ever more slowly must not be followed in ever smaller steps.
        least = self.low + np.minimum(2 ** np.minimum(self._tries, 6) // 2, _UP)
        guess = np.nan_to_num(np.ceil(self._guesses()), nan=_FAR, posinf=_FAR, neginf=-_FAR)
        rungs = np.where(first, 0, np.clip(guess, np.maximum(least, self.low + 1), self.low + _UP)).astype(int)
        rungs = np.where(self.alive, np.minimum(rungs, HIGHEST), _FAR)
        nearest = rungs.min(axis=1, initial=_FAR)[:, None]
        return np.where(self.alive & ((rungs == nearest) | (self.low + _UP <= nearest)), rungs, NOWHERE)

    def _inwards(self, top: Array) -> Array:
        """A rung to try of each sample below its smallest change so far, of the ray whose change is guessed nearest."""
        most = top[:, None] - 1
        guess = self._guesses()
        known = np.isfinite(guess)
        far = known & (guess > top[:, None] + np.where(self.low == NOWHERE, _WELL_BEYOND, _BEYOND)) | (guess == np.inf)
        tried = (self.low >= top[:, None] - _UP) | ((self.low == NOWHERE) & (self.high < _FAR))
        open_ = self.alive & (self.low < most) & ~(far & tried) & (top[:, None] > LOWEST)
        end = np.minimum(self.high, most + 1)
        floor = np.maximum(self.low, np.maximum(end - _DOWN, LOWEST - 1))
        middle = np.where(self.low == NOWHERE, floor, (floor + end) // 2)
        blind = ~known | (self._slow >= np.where(self.low == NOWHERE, _BLIND, _SLOW))
        rungs, step = np.ceil(np.where(known, guess, 0.0)), 2**self._slow
        rungs = np.where(rungs >= end - _NEAR, end - step, np.where(rungs <= self.low, self.low + step, rungs))
        rungs = np.where(self.high > most + 1, most, np.where(blind, middle, rungs))  # a rival is tried just below first
        lowest = np.where(self.low == NOWHERE, LOWEST, self.low + 1)
        rungs = np.clip(rungs, lowest, most).astype(int)
        order = np.where(open_, np.where(known, guess, rungs), np.inf)
        chosen = np.zeros(open_.shape, bool)
        if chosen.shape[1]:
            chosen[np.arange(len(chosen)), order.argmin(axis=1)] = True
        return np.where(chosen & open_, rungs, NOWHERE)
