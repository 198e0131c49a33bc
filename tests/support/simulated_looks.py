"""What successive looks decide of shares that are known: exactly, and by simulation of whole audits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from onnxfim.record.statistics import clopper_pearson


@dataclass(frozen=True)
class Chances:
    """Of one share: that it is called stable, unstable, and how many tries that takes on average."""

    stable: float
    unstable: float
    tries: float


def exact_chances(borders, p) -> Chances:
    """At a true share p, by the distribution of failures from look to look.

    ``borders`` are looks: (tries, most failures that are stable, least that are unstable).
    """
    alive, before = np.array([1.0]), 0
    stable = unstable = tries = 0.0
    for at, most, least in borders:
        step = at - before
        tries += alive.sum() * step
        alive = np.convolve(alive, binom.pmf(np.arange(step + 1), step, 1 - p))
        before, lost = at, np.arange(len(alive))
        stable += alive[lost <= most].sum()
        unstable += alive[lost >= least].sum()
        alive = np.where((lost > most) & (lost < least), alive, 0.0)
    return Chances(float(stable), float(unstable), float(tries))


def borders_of(plan):
    """The borders of a plan of looks."""
    return [(look.tries, look.most_lost, look.least_lost) for look in plan.looks]


@dataclass(frozen=True)
class Simulated:
    """Of audits × samples: whether the interval holds the true share, whether the decision is not wrong, and what it is."""

    held: np.ndarray
    right: np.ndarray
    stable: np.ndarray
    unstable: np.ndarray
    tries: np.ndarray


def simulated_audits(plan, p, rng) -> Simulated:
    """Audits of samples with the true shares p (audits, n), each tried until it is decided or the looks are over."""
    lost, going = np.zeros(p.shape, int), np.ones(p.shape, bool)
    low, high, tries = np.zeros(p.shape), np.ones(p.shape), np.zeros(p.shape, int)
    is_stable, is_unstable = np.zeros(p.shape, bool), np.zeros(p.shape, bool)
    before = 0
    for look in plan.looks:
        step = look.tries - before
        before = look.tries
        lost += np.where(going, rng.binomial(step, 1 - p), 0)
        tries[going] = look.tries
        for f in np.unique(lost[going]):
            at = going & (lost == f)
            ends = clopper_pearson(look.tries - int(f), look.tries, look.below, look.above)
            low[at], high[at] = np.maximum(low[at], ends[0]), np.minimum(high[at], ends[1])
        is_stable |= going & (lost <= look.most_lost)
        is_unstable |= going & (lost >= look.least_lost)
        going &= ~(is_stable | is_unstable)
    wrong = (is_stable & (p < plan.share)) | (is_unstable & (p >= plan.share))
    return Simulated((low <= p) & (p <= high), ~wrong, is_stable, is_unstable, tries)
