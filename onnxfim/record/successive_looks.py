"""Whether a share is at least so large, told from a growing number of tries: an interval that holds wherever one stops.

**The test.** One number m of tries is looked at after another, ``m_1 < m_2 < … < m_L``, all fixed before the first try. At look l
the interval of Clopper & Pearson (1934, Biometrika 26) misses the share from below with a chance of ``α_l`` at most, and from above
with ``β_l``, where ``Σ α_l + Σ β_l`` is the level that the share may spend. The tries stop at the first look whose lower end
reaches the share asked for (stable) or whose upper end lies below it (unstable).

**Why it may stop.** Let B be the event that any of the L intervals misses, whether or not that look is reached. By the union
bound ``P(B) ≤ Σ α_l + Σ β_l``. Outside of B all L intervals hold at once, so that every rule that picks among them, a stopping
time among these, picks one that holds, and so does their intersection. The decision is wrong only in B. (Group-sequential looks
with the error spent over them: Pocock 1977, Biometrika 64; Lan & DeMets 1983, Biometrika 70; here by Bonferroni, hence without
their numerical integration.)

**Many shares.** Each gets the same part of one level, so that all intervals hold at once, again by the union bound: the tries of
one share may depend on those of another (they may even be the same noise); only those of one share are independent.

**Which looks.** A share of 1 is the usual case, and is decided at the first look that needs no failure, so that two fifths of what
the lower end may spend are spent there; earlier looks double, to let go of what is clearly unstable; later ones grow by three
tenths. ``python tests/benchmarks/bench_noise.py passes`` compares this with confidence sequences (a beta mixture, Robbins 1970;
Howard et al. 2021, Annals of Statistics 49), which may be looked at after every try: these take about as many tries where nothing
fails, and leave more open near the share asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from onnxfim.record.statistics import binomial_at_least, binomial_at_most, clopper_pearson

Decided: TypeAlias = Literal["stable", "unstable", "open"]

#: How the 5 % by which a whole statement may be wrong are spent: on the samples that were tried, and on those that they stand for.
#: Tries grow with the logarithm of the first alone, while the second widens the interval of the population's share.
OF_SAMPLES, OF_POPULATION = 0.01, 0.04
#: Tries that are made together: looks stand at multiples of it.
CHUNK = 32
_DOUBLE, _LATER = 2.0, 1.3  # by which looks grow, before and after the first one that can show a share to be large enough
_FIRST, _EARLY = 0.4, 0.05  # of what the lower end may spend: at that look, and at those before it together


@dataclass(frozen=True)
class Look:
    """One number of tries at which it may end.

    Attributes:
        tries: How many.
        below, above: Chances that the interval misses the share from below, and from above.
        most_lost: Of so many failures at most the share is shown to be large enough; -1 where none shows it.
        least_lost: From so many failures on it is shown to be too small; ``tries + 1`` where none shows it.
    """

    tries: int
    below: float
    above: float
    most_lost: int
    least_lost: int

    def decides(self, kept: int) -> bool:
        """Whether so many that were kept decide at it."""
        return not self.most_lost < self.tries - kept < self.least_lost


@dataclass(frozen=True)
class ShareSoFar:
    """What the looks so far tell of a share.

    Attributes:
        tries, kept: Of the last look.
        low, high: Ends of what it lies in, at its level.
        decided: Whether it is at least as large as was asked.
    """

    tries: int
    kept: int
    low: float
    high: float
    decided: Decided


@dataclass(frozen=True)
class Looks:
    """All looks at one share, in order; ``share`` is what it must be."""

    share: float
    looks: tuple[Look, ...]

    @property
    def soonest(self) -> int | None:
        """Tries after which a share is shown to be large enough where none fails; None where so many are not allowed."""
        return next((look.tries for look in self.looks if look.most_lost >= 0), None)

    def standing(self, kept: Sequence[int]) -> ShareSoFar:
        """What is known where so many were kept at each of the first looks; these end with the one that decided."""
        assert kept, "no look"
        low, high = 0.0, 1.0
        for look, k in zip(self.looks, kept, strict=False):
            own = clopper_pearson(k, look.tries, look.below, look.above)
            low, high = max(low, own[0]), min(high, own[1])
            if low > high:  # one of the intervals misses: the newest one stands alone
                low, high = own
        last, lost = self.looks[len(kept) - 1], self.looks[len(kept) - 1].tries - kept[-1]
        decided: Decided = "open"
        if lost <= last.most_lost:
            decided, low = "stable", max(low, self.share)
        elif lost >= last.least_lost:
            decided, high = "unstable", min(high, math.nextafter(self.share, 0.0))
        return ShareSoFar(last.tries, kept[-1], min(low, high), max(low, high), decided)


def noise_level(samples: int, noises: int) -> float:
    """What a sample may spend under one of several noises, so that all intervals of all of them hold at once."""
    return OF_SAMPLES / max(samples * noises, 1)


@lru_cache(maxsize=64)
def looks(share: float, level: float, most: int) -> Looks:
    """The looks by which it is told whether a share is at least ``share``.

    Args:
        share: Between 0 and 1.
        level: Chance that any of it is wrong, both sides together.
        most: Tries at most, `CHUNK` at least.
    """
    side, last = level / 2, most // CHUNK * CHUNK
    first = _whole(math.log(side * _FIRST) / math.log(share))
    early: list[int] = []
    at = CHUNK
    while at < min(first, last):
        early.append(at)
        at = _whole(at * _DOUBLE)
    late: list[int] = []
    at = first
    while at < last:
        late.append(at)
        at = _whole(at * _LATER)
    late.append(last)
    below = [side * _EARLY / max(len(early), 1)] * len(early)
    left = side * (1 - _EARLY * bool(early))
    below += [left] if len(late) == 1 else [side * _FIRST] + [(left - side * _FIRST) / (len(late) - 1)] * (len(late) - 1)
    above = side / (len(early) + len(late))
    return Looks(share, tuple(_look(share, tries, b, above) for tries, b in zip([*early, *late], below, strict=True)))


def _whole(tries: float) -> int:
    """So many tries, or the next that are whole chunks."""
    return math.ceil(tries / CHUNK) * CHUNK


def _look(share: float, tries: int, below: float, above: float) -> Look:
    """A look with the failures that decide at it: where the end of Clopper and Pearson's interval reaches the share."""
    lost = range(tries + 1)
    # The lower end is at least the share where so few failures, or fewer, have a chance of `below` at most at the share itself.
    most = bisect_left(lost, True, key=lambda f: binomial_at_most(f, tries, 1 - share) > below) - 1
    least = bisect_left(lost, True, key=lambda f: binomial_at_least(f, tries, 1 - share) <= above)
    return Look(tries, below, above, most, least)


__all__ = ["CHUNK", "OF_POPULATION", "OF_SAMPLES", "Decided", "Look", "Looks", "ShareSoFar", "looks", "noise_level"]
