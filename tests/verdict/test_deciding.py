from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.record.decision import Aggregate
from onnxfim.verdict.decided import LEVEL
from onnxfim.verdict.deciding import decisions, ordered, rank_ends, relative_logs
from onnxfim.verdict.measure_tests import Trial

NONE = Aggregate(1.0, 1.0, 1.0)
SURE, UNSURE = 1e-9, 0.5
QUESTIONS = ("distance", "boundary", "log_lambda", "mean_lambda")


def trial(question, better, p, *, log=None, decides=True):
    log = (0.5 if better else -0.5) * (1 if question in ("distance", "boundary") else -1) if log is None else log
    return Trial(question, "flip_radius", 60, NONE, log, p, better, "a test", decides=decides)


def one(*trials):
    return decisions({(0, 1): trials})[0, 1]


@pytest.mark.parametrize(
    ("tests", "better", "by", "agreement"),
    [
        ([(0, UNSURE), (1, UNSURE)], None, None, "open"),
        ([(0, SURE), (1, UNSURE)], 0, "distance", "alone"),
        ([(0, SURE), (0, SURE)], 0, "distance", "agree"),
        ([(0, SURE), (1, SURE)], 0, "distance", "disagree"),  # what was seen decides
        ([(1, UNSURE), (1, SURE)], 1, "boundary", "alone"),
        ([(None, 1.0), (1, SURE)], 1, "boundary", "alone"),
        ([(0, UNSURE), (1, SURE)], None, None, "disagree"),  # flips that were seen point the other way
        ([(1, UNSURE), (1, SURE), (0, SURE)], None, None, "disagree"),  # two that contradict each other
        ([(1, UNSURE), (1, SURE), (1, SURE)], 1, "boundary", "agree"),
    ],
)
def test_which_measure_decides(tests, better, by, agreement):
    found = one(*(trial(q, b, p) for q, (b, p) in zip(QUESTIONS, tests, strict=False)))
    assert (found.better, found.by, found.agreement) == (better, by, agreement)


def test_a_measure_that_does_not_decide_is_told_and_costs_nothing():
    distance = trial("distance", 1, 0.02)
    alone = one(distance)
    beside = one(distance, trial("log_lambda", 0, SURE, decides=False))
    assert alone.better == beside.better == 1
    assert beside.p == alone.p == 0.02
    assert not beside.measures[1].significant


def test_all_pairs_and_measures_are_corrected_together():
    trials = {p: (trial("distance", 0, 0.004), trial("log_lambda", 0, UNSURE)) for p in combinations(range(5), 2)}
    assert all(d.better is None for d in decisions(trials).values())
    assert decisions({(0, 1): trials[0, 1]})[0, 1].better == 0
    assert LEVEL == 0.025


def test_relative_distances_are_those_that_pairs_tell():
    truth = np.array([0.3, -0.2, 0.5, -0.6])
    trials = {(i, j): (trial("distance", 0, SURE, log=truth[j] - truth[i]),) for i, j in combinations(range(4), 2)}
    assert_allclose(relative_logs(trials, 4, "distance"), truth - truth.mean(), atol=1e-12)
    against = {p: t for p, t in trials.items() if 1 in p}
    assert_allclose(relative_logs(against, 4, "distance"), truth - truth.mean(), atol=1e-12)
    assert relative_logs({(0, 1): trials[0, 1]}, 3, "distance") is None  # nothing is known of the third
    turned = {p: (trial("log_lambda", 0, SURE, log=-t[0].log),) for p, t in trials.items()}
    assert_allclose(relative_logs(turned, 4, "log_lambda"), truth - truth.mean(), atol=1e-12)


def decided(winners, count):
    """Decisions of all pairs; ``winners`` holds the better of those that are decided."""
    trials = {
        p: (trial("distance", p.index(winners[p]) if p in winners else 0, SURE if p in winners else 1.0),)
        for p in combinations(range(count), 2)
    }
    return decisions(trials)


def test_nobody_stands_before_one_that_is_decided_to_be_better():
    found = decided({(0, 2): 2, (0, 1): 1}, 3)
    order, kept = ordered([(0.9,), (0.1,), (0.2,)], found)
    assert (order, kept) == ([2, 1, 0], True)
    assert ordered([(0.9,), (0.1,), (0.2,)], decided({}, 3))[0] == [0, 2, 1]
    assert ordered([(0.0, 1.0), (0.0, 2.0)], decided({}, 2))[0] == [1, 0]


def test_a_circle_is_told():
    order, kept = ordered([(0.1,), (0.2,), (0.0,)], decided({(0, 1): 0, (1, 2): 1, (0, 2): 2}, 3))
    assert (order, kept) == ([1, 2, 0], False)


def test_ranks_are_those_that_no_decided_pair_excludes():
    found = decided({(0, 1): 0, (0, 2): 0, (1, 3): 1}, 4)
    assert [rank_ends(i, 4, found) for i in range(4)] == [(1, 2), (2, 3), (2, 4), (2, 4)]


def test_ranks_hold_every_order_that_agrees_with_the_decisions():
    from itertools import permutations

    rng = np.random.default_rng(0)
    for _ in range(20):
        winners = {p: p[0] for p in combinations(range(5), 2) if rng.random() < 0.4}  # no circles: the smaller number wins
        found = decided(winners, 5)
        ends = [rank_ends(i, 5, found) for i in range(5)]
        for order in permutations(range(5)):
            if all(order.index(w) < order.index(p[0] + p[1] - w) for p, w in winners.items()):
                assert all(low <= order.index(i) + 1 <= high for i, (low, high) in enumerate(ends))
