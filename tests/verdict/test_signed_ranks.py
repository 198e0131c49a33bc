import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import rankdata, wilcoxon

from onnxfim.verdict.signed_ranks import signed_ranks_of

INF = np.inf


def by_enumeration(d):
    """The two-sided p-value by all 2^n signs, ranks of zeros dropped after ranking (Pratt)."""
    d = np.asarray(d, float)
    ranks = rankdata(np.where(np.isinf(d), 1e9, np.abs(d)))[d != 0]
    observed = ranks[d[d != 0] > 0].sum()
    sums = np.array(
        [sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=len(ranks))]
    )
    return min(1.0, 2 * min((sums >= observed - 1e-9).mean(), (sums <= observed + 1e-9).mean()))


@pytest.mark.parametrize(
    "d",
    [
        [0.3, -0.1, 0.7, 0.2, 1.1, -0.4, 0.9],
        [0.5, 0.5, -0.5, 1.0, 1.0, 0.2, -0.2, 0.7],  # ties
        [0.0, 0.0, 0.3, 0.4, -0.1, 0.8, 0.6],  # equal samples
        [INF, INF, 0.3, -0.2, -INF, 0.9, 0.4, 0.8],  # no flip in one of the two
        [INF, INF, INF, INF, INF, INF],
        [0.1],
    ],
)
def test_the_p_value_is_that_of_all_signs(d):
    assert_allclose(signed_ranks_of(np.array(d)).p, by_enumeration(d), rtol=1e-12)
    assert_allclose(signed_ranks_of(-np.array(d)).p, by_enumeration(d), rtol=1e-12)


@pytest.mark.parametrize("n", [6, 20, 50])
def test_without_ties_it_is_scipys_exact_test(n):
    d = np.random.default_rng(n).normal(0.3, 1, n)
    assert_allclose(signed_ranks_of(d).p, wilcoxon(d, method="exact").pvalue, rtol=1e-9)


def test_above_a_hundred_samples_it_is_scipys_normal_approximation():
    d = np.round(np.random.default_rng(1).normal(0.15, 1, 300), 1)  # ties and zeros
    expected = wilcoxon(d, zero_method="pratt", correction=True, method="asymptotic").pvalue
    assert_allclose(signed_ranks_of(d).p, expected, rtol=2e-2)  # scipy corrects the variance for ties in another place


@pytest.mark.parametrize("n", [40, 100, 101, 250])
def test_exact_and_normal_meet(n):
    # A p-value near 1 %: the normal approximation is within some percent of it there, on either side of the border.
    d = np.random.default_rng(n).normal(2.6 / np.sqrt(n), 1, n)
    assert_allclose(signed_ranks_of(d).p, wilcoxon(d, method="asymptotic", correction=True).pvalue, rtol=0.15)


@pytest.mark.parametrize("n", [31, 101, 240])
def test_the_pseudomedian_is_that_of_all_means_of_two(n):
    d = np.round(np.random.default_rng(2).normal(0.4, 1, n), 2)
    means = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(d, 2)]
    assert_allclose(signed_ranks_of(d).log, np.median(means), atol=1e-9)  # halving ends at the last digits


@pytest.mark.parametrize("n", [12, 40, 150])
def test_the_interval_holds_what_the_test_does_not_reject(n):
    d = np.random.default_rng(n).normal(0.4, 1, n)
    found = signed_ranks_of(d)
    for end, inside in ((found.low, 1), (found.high, -1)):
        assert signed_ranks_of(d - (end + inside * 1e-6)).p > 0.05 * 0.97  # normal approximation: to 3 %
        assert signed_ranks_of(d - (end - inside * 1e-6)).p < 0.05 * 1.03


@pytest.mark.parametrize("n", [15, 60])
def test_the_interval_covers(n):
    # 1,000 draws from a symmetric law with heavy tails: 95 % has a standard error of 0.7 %, so 93 % is three of them.
    rng = np.random.default_rng(n)
    hits = 0
    for _ in range(1000):
        found = signed_ranks_of(0.3 + rng.standard_t(3, n))
        hits += found.low <= 0.3 <= found.high
    assert hits / 1000 >= 0.93


def test_unflipped_samples_are_farther_than_all_and_bound_no_more_than_they_tell():
    d = np.r_[np.linspace(0.1, 1, 20), np.full(3, INF)]
    found = signed_ranks_of(d)
    assert found.p == signed_ranks_of(np.r_[np.linspace(0.1, 1, 20), np.full(3, 50.0)]).p
    assert 0 < found.low < found.log < 1.1
    most = signed_ranks_of(np.r_[np.linspace(0.1, 1, 5), np.full(20, INF)])
    interval = most.interval()
    assert (interval.value, interval.high) == (None, None)
    assert most.p < 1e-6


def test_samples_that_flip_in_neither_are_ties():
    assert signed_ranks_of(np.zeros(9)).p == 1.0
    assert signed_ranks_of(np.r_[np.zeros(40), 0.5]).p == 1.0


def test_a_shared_error_gives_the_largest_p_value_within_it():
    d = np.random.default_rng(3).normal(0.5, 1, 40)
    largest = max(signed_ranks_of(d + shift).p for shift in np.linspace(-0.2, 0.2, 41))
    found = signed_ranks_of(d, reach=0.2)
    assert found.p == pytest.approx(largest, rel=1e-9)
    plain = signed_ranks_of(d)
    assert (found.low, found.high) == pytest.approx((plain.low - 0.2, plain.high + 0.2))
    assert signed_ranks_of(np.full(30, 0.1), reach=0.2).p == 1.0


def test_too_few_samples_have_no_interval():
    found = signed_ranks_of(np.array([0.1, 0.2, 0.3]))
    assert (found.low, found.high) == (-INF, INF)
    assert found.interval().low == 0.0
    assert found.interval().high is None
    assert signed_ranks_of(np.empty(0)).interval().value is None
