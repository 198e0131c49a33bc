"""Shares that are decided by a growing number of tries: held against SciPy's distributions, by exact chances and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import beta, binom, binomtest

from onnxfim.record.statistics import clopper_pearson
from onnxfim.record.successive_looks import CHUNK, OF_POPULATION, OF_SAMPLES, looks, noise_level

LEVEL = 1e-4
PLANS = [(0.99, LEVEL, 4000), (0.99, 0.05, 4000), (0.9, 1e-6, 1000), (0.5, 1e-3, 500), (0.999, 1e-5, 20000), (0.99, LEVEL, 300)]


@pytest.mark.parametrize("plan", PLANS)
def test_looks_grow_and_spend_their_level(plan):
    share, level, most = plan
    found = looks(*plan)
    tries = [look.tries for look in found.looks]
    assert tries == sorted(set(tries))
    assert all(t % CHUNK == 0 for t in tries)
    assert tries[-1] == most // CHUNK * CHUNK
    assert sum(look.below for look in found.looks) <= level / 2 * (1 + 1e-12)
    assert sum(look.above for look in found.looks) <= level / 2 * (1 + 1e-12)
    assert min(min(look.below, look.above) for look in found.looks) > 0
    assert found.share == share


@pytest.mark.parametrize("plan", PLANS)
def test_a_look_decides_where_clopper_and_pearsons_interval_does(plan):
    """By SciPy's own beta quantiles, at the failures on both sides of each border."""
    share, *_ = plan
    for look in looks(*plan).looks:
        for lost in {look.most_lost, look.most_lost + 1, look.least_lost - 1, look.least_lost} & set(range(look.tries + 1)):
            kept = look.tries - lost
            low = beta.ppf(look.below, kept, lost + 1) if kept else 0.0
            high = beta.ppf(1 - look.above, kept + 1, lost) if lost else 1.0
            assert (low >= share) == (lost <= look.most_lost), (look, lost)
            assert (high < share) == (lost >= look.least_lost), (look, lost)
            assert look.decides(kept) == (low >= share or high < share)


def test_intervals_are_clopper_and_pearsons():
    for kept, n in ((0, 32), (32, 32), (1216, 1216), (3990, 4000), (17, 64)):
        for below, above in ((0.025, 0.025), (1e-7, 3e-6)):
            low, high = clopper_pearson(kept, n, below, above)
            assert_allclose(low, beta.ppf(below, kept, n - kept + 1) if kept else 0.0, rtol=1e-9)
            assert_allclose(high, beta.ppf(1 - above, kept + 1, n - kept) if kept < n else 1.0, rtol=1e-9)
    found = binomtest(3990, 4000).proportion_ci(0.95, "exact")
    assert_allclose(clopper_pearson(3990, 4000), (found.low, found.high), rtol=1e-9)


def test_where_nothing_fails_the_first_look_that_can_decides():
    found = looks(0.99, LEVEL, 4000)
    assert found.soonest is not None
    assert 0.99**found.soonest <= LEVEL / 2 < 0.99 ** (found.soonest / 1.2)  # not many more than one look alone would take
    kept = [look.tries for look in found.looks if look.tries <= found.soonest]
    assert [found.standing(kept[:k]).decided for k in range(1, len(kept) + 1)] == ["open"] * (len(kept) - 1) + ["stable"]
    assert found.standing(kept).low >= 0.99
    assert found.standing(kept).high == 1.0


def test_a_budget_that_shows_nothing_to_be_large_enough_is_known():
    assert looks(0.99, LEVEL, 300).soonest is None
    assert looks(0.99, LEVEL, 300).standing([0]).decided == "unstable"


def test_nothing_is_said_beyond_what_decided():
    found = looks(0.99, LEVEL, 4000)
    none = found.standing([0])
    assert (none.tries, none.kept, none.low, none.decided) == (CHUNK, 0, 0.0, "unstable")
    assert 0 < none.high < 0.99


def test_ends_of_earlier_looks_count():
    """All looks' intervals hold at once, so that a narrower one of an earlier look is kept."""
    found = looks(0.5, 1e-3, 500)
    first, second = found.looks[:2]
    own = clopper_pearson(30, second.tries, second.below, second.above)
    before = clopper_pearson(22, first.tries, first.below, first.above)
    both = found.standing([22, 30])
    assert both.low == max(before[0], own[0])
    assert both.high == min(before[1], own[1])


def chances(plan, p):
    """Exact chances at a true share p, by the distribution of failures from look to look: (stable, unstable, any interval wrong)."""
    alive, before = np.array([1.0]), 0
    stable = unstable = 0.0
    for look in plan.looks:
        step = look.tries - before
        alive = np.convolve(alive, binom.pmf(np.arange(step + 1), step, 1 - p))
        before, lost = look.tries, np.arange(len(alive))
        stable += alive[lost <= look.most_lost].sum()
        unstable += alive[lost >= look.least_lost].sum()
        alive = np.where((lost > look.most_lost) & (lost < look.least_lost), alive, 0.0)
    return stable, unstable


@pytest.mark.parametrize("plan", PLANS)
def test_wrong_decisions_are_rarer_than_the_level(plan):
    """Just below the share, and at it, where the chances are largest: exact, with every stop."""
    share, level, _ = plan
    found = looks(*plan)
    below = np.nextafter(share, 0.0)
    assert chances(found, below)[0] <= level / 2
    assert chances(found, share)[1] <= level / 2
    for p in (share - 0.3 * (1 - share), max(share - 2 * (1 - share), 0.0)):
        assert chances(found, p)[0] <= chances(found, below)[0]


def simulated(plan, p, audits, rng):
    """Of audits whose samples have these true shares p (n,), how often all intervals hold, and how often all decisions are right."""
    n = len(p)
    lost = np.zeros((audits, n), int)
    low, high = np.zeros((audits, n)), np.ones((audits, n))
    going, before = np.ones((audits, n), bool), 0
    wrong = np.zeros((audits, n), bool)
    for look in plan.looks:
        step = look.tries - before
        before = look.tries
        lost += np.where(going, rng.binomial(step, 1 - p, (audits, n)), 0)
        for f in np.unique(lost[going]):
            at = going & (lost == f)
            ends = clopper_pearson(look.tries - int(f), look.tries, look.below, look.above)
            low[at], high[at] = np.maximum(low[at], ends[0]), np.minimum(high[at], ends[1])
        stable, unstable = going & (lost <= look.most_lost), going & (lost >= look.least_lost)
        wrong |= (stable & (p < plan.share)) | (unstable & (p >= plan.share))
        going &= ~(stable | unstable)
    held = ((low <= p) & (p <= high)).all(axis=1)
    return held.mean(), 1 - wrong.any(axis=1).mean()


@pytest.mark.parametrize("level", [0.05, 0.5])
@pytest.mark.parametrize(
    "p",
    [
        np.full(20, 0.98999),
        np.full(20, 0.99),
        np.full(20, 0.97),
        np.r_[np.full(10, 0.9895), np.full(10, 0.9905)],
        np.linspace(0, 1, 20),
    ],
)
def test_all_intervals_of_an_audit_hold_at_once(p, level):
    """At a nominal 95 %, and at 50 % where a missing correction would show; three standard errors of 2000 audits are 1.5 and 3.4 %."""
    plan = looks(0.99, level / len(p), 2000)
    held, right = simulated(plan, p, 2000, np.random.default_rng(4))
    error = 3 * math.sqrt(level * (1 - level) / 2000)
    assert held >= 1 - level - error
    assert right >= 1 - level - error


def test_the_simulation_would_find_looks_that_are_not_paid_for():
    """The same with each look at the whole level, as a test that ignores that it stops: far too few hold."""
    plan = looks(0.99, 0.5 / 20, 2000)
    unpaid = type(plan)(plan.share, tuple(type(k)(k.tries, 0.25, 0.25, k.most_lost, k.least_lost) for k in plan.looks))
    held, _ = simulated(unpaid, np.full(20, 0.99), 500, np.random.default_rng(4))
    assert held < 0.1


def test_the_whole_is_95_percent():
    assert OF_SAMPLES + OF_POPULATION == pytest.approx(0.05)
    assert noise_level(50, 2) == OF_SAMPLES / 100
    assert noise_level(0, 1) == OF_SAMPLES
