import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.verdict.closed_test import adjusted


def by_all_intersections(p, weights):
    """Of each hypothesis, the largest p-value of an intersection that holds it: the closed test, written out."""
    m = len(p)
    found = np.zeros(m)
    for size in range(1, m + 1):
        for members in itertools.combinations(range(m), size):
            share = weights[list(members)] / weights[list(members)].sum()
            local = min(1.0, float((p[list(members)] / share).min()))
            for i in members:
                found[i] = max(found[i], local)
    return found


@pytest.mark.parametrize("m", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("seed", range(5))
def test_one_pass_finds_what_all_intersections_do(m, seed):
    rng = np.random.default_rng([m, seed])
    p, weights = rng.random(m) ** 3, rng.choice([0.7, 0.1, 0.2], m)
    assert_allclose(adjusted(p, weights), by_all_intersections(p, weights), rtol=1e-12)


@pytest.mark.parametrize(
    ("p", "expected"),
    [([0.01], [0.01]), ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.5, 0.9], [1.0, 1.0]), ([], [])],
)
def test_equal_weights_are_holms(p, expected):
    assert_allclose(adjusted(np.array(p), np.ones(len(p))), expected)


def test_equal_weights_are_holms_of_many():
    p = np.random.default_rng(0).random(12) ** 4
    ordered = np.sort(p)
    by_rank = [min(max((12 - j) * ordered[j] for j in range(k + 1)), 1.0) for k in range(12)]  # Holm (1979), as it is written
    assert_allclose(adjusted(p, np.ones(12))[np.argsort(p)], by_rank, rtol=1e-12)


def test_only_the_ratios_of_the_weights_matter():
    p = np.array([0.001, 0.2, 0.03])
    assert_allclose(adjusted(p, np.array([1.0, 2.0, 4.0])), adjusted(p, np.array([10.0, 20.0, 40.0])))


def test_no_hypothesis_has_no_p_value():
    assert len(adjusted(np.empty(0), np.empty(0))) == 0


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_a_true_hypothesis_is_rejected_in_at_most_its_share(shared):
    # 4,000 draws of 10 hypotheses, of which 6 are true, with equal or nearly equal statistics: 5 % has a standard error of 0.34 %.
    from scipy.special import ndtr

    rng = np.random.default_rng(int(10 * shared))
    weights = np.tile([0.7, 0.3], 5)
    wrong = 0
    for _ in range(4000):
        z = np.sqrt(shared) * rng.normal() + np.sqrt(1 - shared) * rng.normal(size=10)
        z[6:] += 4
        wrong += bool((adjusted(2 * ndtr(-np.abs(z)), weights)[:6] < 0.05).any())
    assert wrong / 4000 <= 0.05 + 3 * 0.0034
