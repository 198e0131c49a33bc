"""Paired intervals against slow references written from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, t

from onnxfim.record.statistics import Z95
from onnxfim.verdict.paired import (
    difference_of_shares,
    geometric_mean_of_ratios,
    mcnemar,
    mean_difference,
    reading,
    signed_ranks,
)


def score_test(only_first, only_second, n, delta):
    """Tango's statistic with the nuisance parameter found by maximising the trinomial likelihood numerically."""
    both = n - only_first - only_second

    def loss(q):  # q: probability that the first alone is right; that of the second alone is q + delta
        terms = ((only_first, q), (only_second, q + delta), (both, 1 - 2 * q - delta))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in terms if k)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (only_second - only_first - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))


@pytest.mark.parametrize(("only_first", "only_second", "n"), [(3, 7, 50), (12, 2, 200), (1, 1, 30), (20, 20, 60)])
def test_tangos_interval_is_where_the_score_test_turns(only_first, only_second, n):
    found = difference_of_shares(only_first, only_second, n)
    assert found.value == (only_second - only_first) / n
    # atol: the reference's nuisance parameter is a minimum found to about 1e-6.
    assert_allclose(score_test(only_first, only_second, n, found.low), Z95, atol=1e-3)
    assert_allclose(score_test(only_first, only_second, n, found.high), -Z95, atol=1e-3)


def test_without_a_difference_the_interval_is_no_point():
    found = difference_of_shares(0, 0, 100)
    assert_allclose((found.low, found.high), (-(Z95**2) / (100 + Z95**2), Z95**2 / (100 + Z95**2)), rtol=1e-6)


def test_all_one_sided_ends_at_one():
    found = difference_of_shares(0, 10, 10)
    assert (found.value, found.high) == (1.0, 1.0)
    assert_allclose(
        found.low, (10 - Z95**2) / (10 + Z95**2), rtol=1e-9
    )  # the test's root, with the nuisance parameter at (1 − δ)/2


def test_swapping_the_models_turns_the_interval():
    one, other = difference_of_shares(4, 9, 80), difference_of_shares(9, 4, 80)
    assert_allclose((one.low, one.high), (-other.high, -other.low), atol=1e-9)


@pytest.mark.parametrize(("p_first", "p_second", "n"), [(0.02, 0.02, 200), (0.05, 0.01, 200), (0.1, 0.2, 40)])
def test_tangos_interval_covers(p_first, p_second, n):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n, [p_first, p_second, 1 - p_first - p_second], size=400)
    truth = p_second - p_first
    covered = [a.low <= truth <= a.high for a in (difference_of_shares(int(b), int(c), n) for b, c, _ in counts)]
    assert 0.92 <= np.mean(covered) <= 0.99  # 95 %, three standard errors of 400 draws are 3.3 %


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 8), (5, 5), (0, 6)])
def test_mcnemars_test_is_the_exact_binomial(b, c):
    assert_allclose(mcnemar(b, c), 1.0 if b + c == 0 else binomtest(b, b + c).pvalue)


def test_the_geometric_mean_is_students():
    logs = np.random.default_rng(1).normal(0.2, 0.5, 40)
    found = geometric_mean_of_ratios(logs)
    low, high = t.interval(0.95, 39, logs.mean(), logs.std(ddof=1) / math.sqrt(40) * math.sqrt(1 + 3 / 40))
    assert_allclose((found.value, found.low, found.high), np.exp([logs.mean(), low, high]))


def test_the_geometric_mean_is_never_narrower_than_its_noise_and_holds_what_is_shared():
    logs = np.zeros(30)
    assert_allclose(math.log(geometric_mean_of_ratios(logs, noise=0.3).high), 0.3)
    assert_allclose(math.log(geometric_mean_of_ratios(logs, noise=0.3, temperature=0.4 / Z95).high), 0.5)
    assert_allclose(math.log(geometric_mean_of_ratios(logs, reach=(0.1, 0.2)).high), 0.2)


@pytest.mark.parametrize("draw", ["normal", "skewed"])
def test_the_geometric_mean_covers(draw):
    rng = np.random.default_rng(2)
    logs = rng.normal(0, 1, (600, 24)) if draw == "normal" else 1 - rng.exponential(1, (600, 24))
    covered = [a.low <= 1 <= a.high for a in map(geometric_mean_of_ratios, logs)]
    assert 0.92 <= np.mean(covered) <= 0.985  # 95 %; three standard errors of 600 draws are 2.7 %


def test_one_sample_has_no_interval():
    assert geometric_mean_of_ratios(np.array([0.1])).low is None
    assert mean_difference(np.array([0.1])).low is None
    assert reading(mean_difference(np.array([0.1])), 0.0) == "not known"


def test_readings_follow_the_interval():
    rose = geometric_mean_of_ratios(np.full(10, 0.5) + np.linspace(-0.1, 0.1, 10))
    assert reading(rose, 1.0) == "rose"
    assert reading(geometric_mean_of_ratios(np.linspace(-1, 1, 10)), 1.0) == "no change shown"


def test_equal_samples_have_no_ranks():
    assert signed_ranks(np.zeros(5)) == 1.0
    assert signed_ranks(np.array([0.0, 0.0, *np.arange(1, 9)])) == pytest.approx(2 / 2**8)
