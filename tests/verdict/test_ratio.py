from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

from onnxfim.verdict.correlation import rank_correlation
from onnxfim.verdict.ratio import Column, _freedom, moved, p_value, ratio_of_means, resamples, share
from tests.support.small_audits import heavy, noisy


def columns(a, b, noise=0.0, replicates=(None, None)):
    made = []
    for values, pseudo in zip((a, b), replicates, strict=True):
        n = len(values)
        made.append(
            Column(np.arange(n), np.asarray(values, float), np.full(n, noise), np.empty((n, 0)) if pseudo is None else pseudo)
        )
    return made


@pytest.mark.parametrize("n", [3, 10, 64])
def test_degrees_of_freedom_match_the_dense_form(n):
    rng = np.random.default_rng(0)
    w = rng.pareto(1.0, n) + 1e-3
    w /= w.sum()
    expected = 1 - 2 * w + (w**2).sum()
    M = np.eye(n) - np.outer(np.ones(n), w)
    Q = M.T @ np.diag(w**2 / expected) @ M
    assert_allclose(_freedom(w, expected), max(np.trace(Q) ** 2 / np.trace(Q @ Q), 1.0), rtol=1e-9)
    assert_allclose(np.trace(Q), (w**2).sum(), rtol=1e-9)  # unbiased under equal variances


@pytest.mark.parametrize("n", [1, 2, 100])
def test_equal_values_are_certainly_equal(n):
    values = heavy(n, np.random.default_rng(1))
    ratio = ratio_of_means(*columns(values, values, noise=0.2), paired=True)
    assert (ratio.interval().low, ratio.interval().value, ratio.interval().high) == (1.0, 1.0, 1.0)
    assert ratio_of_means(*columns(values, values, noise=0.2), paired=False).half > 0


def test_swapping_the_two_inverts_the_interval():
    rng = np.random.default_rng(2)
    a, b = heavy(50, rng), heavy(50, rng)
    there, back = (ratio_of_means(*columns(x, y, 0.1), paired=False) for x, y in ((a, b), (b, a)))
    assert_allclose([there.log, there.half, there.half_here], [-back.log, back.half, back.half_here], rtol=1e-9)


def test_units_cancel():
    rng = np.random.default_rng(3)
    a, b = heavy(50, rng), heavy(50, rng)
    one, other = (ratio_of_means(*columns(s * a, s * b, 0.1), paired=True) for s in (1.0, 1e-30))
    assert_allclose([one.log, one.half], [other.log, other.half], rtol=1e-9)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("n", "spread"), [(64, 1.0), (64, 2.4), (300, 2.4)])
def test_the_population_interval_misses_the_truth_in_at_most_its_share(paired, n, spread):
    # Log-ratios of mean 1 whatever the weight; 400 repeats: a rate of 2.5 % has a standard error of 0.8 %, so 5 % is three of them.
    rng = np.random.default_rng([n, int(10 * spread), paired])
    above = below = 0
    for _ in range(400):
        b = heavy(n, rng, spread)
        a = b * np.exp(rng.normal(0, 0.3, n) - 0.045)
        first, second = (np.exp(rng.normal(0, 0.14, n) - 0.0098) for _ in range(2))
        ratio = ratio_of_means(*columns(a * first, b * (first if paired else second), 0.14), paired=paired)
        above += ratio.log - ratio.half > 0
        below += ratio.log + ratio.half < 0
    assert above / 400 <= 0.05
    assert below / 400 <= 0.05


@pytest.mark.parametrize("share_of_noise", [0.0, 0.9])
def test_the_noise_of_a_pair_comes_from_its_pseudo_values(share_of_noise):
    # Truth fixed, only the directions are drawn. 400 repeats: 5 % misses have a standard error of 1.1 %; 8.3 % is three of them.
    rng = np.random.default_rng(int(10 * share_of_noise))
    b = heavy(64, rng)
    a = 1.2 * b
    misses, widths = 0, []
    for _ in range(400):
        common = rng.standard_normal((64, 20))
        own = np.sqrt(1 - share_of_noise**2) * rng.standard_normal((64, 20))
        (x, rx), (y, ry) = noisy(a, rng, 0.1, share_of_noise * common + own), noisy(b, rng, 0.1, common)
        ratio = ratio_of_means(*columns(x, y, 0.1, (rx, ry)), paired=True)
        misses += abs(ratio.log - np.log(1.2)) > ratio.half_here
        widths.append(ratio.half_here)
    assert misses / 400 <= 0.083
    independent = ratio_of_means(*columns(x, y, 0.1), paired=False).half_here
    if share_of_noise:
        assert np.median(widths) < 0.7 * independent  # sharing pays


def test_few_carriers_make_few_degrees_of_freedom():
    values = np.r_[1000.0, 900.0, np.ones(98)]
    ratio = ratio_of_means(*columns(values * np.linspace(0.9, 1.1, 100), values), paired=True)
    assert ratio.freedom < 3
    assert ratio_of_means(*columns(np.linspace(0.9, 1.1, 100), np.ones(100)), paired=True).freedom > 90


def test_p_values_are_uniform_where_nothing_differs():
    # 300 repeats at 5 %: standard error 1.3 %, so at most 9 %.
    rng = np.random.default_rng(5)
    counts = resamples(80, 500, 0)
    below = 0
    for _ in range(300):
        b = heavy(80, rng, 1.0)
        below += p_value(b * np.exp(rng.normal(0, 0.3, 80) - 0.045), b, counts) < 0.05
    assert below / 300 <= 0.09


def test_p_values_find_what_differs():
    rng = np.random.default_rng(6)
    b = heavy(200, rng, 1.0)
    counts = resamples(200, 1000, 0)
    assert p_value(1.5 * b * np.exp(rng.normal(0, 0.2, 200)), b, counts) < 0.01
    assert p_value(b, b, counts) == 1.0
    assert p_value(1.2 * b, b, counts) < 0.01  # every sample rose by the same factor


def test_shares_have_exact_intervals():
    assert_allclose([share(0, 10).low, share(0, 10).high], [0.0, 1 - 0.025 ** (1 / 10)])
    assert_allclose([share(10, 10).low, share(10, 10).high], [0.025 ** (1 / 10), 1.0])
    assert_allclose([share(3, 10).low, share(3, 10).high], [0.0667395, 0.6524529], rtol=1e-5)  # Clopper & Pearson's table


def test_equal_values_moved_nowhere():
    assert moved(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 4.0])) == (1, 1)


def test_spearman_is_scipys():
    rng = np.random.default_rng(7)
    x = rng.normal(size=120)
    y = np.round(x + rng.normal(size=120), 1)  # with ties
    found = rank_correlation(x, y, resamples(120, 2000, 0))
    assert_allclose(found.value, spearmanr(x, y).statistic, rtol=1e-9)
    assert found.low < found.value < found.high
    # Bonett & Wright's standard error of the Fisher transform, sqrt((1 + rho²/2)/(n − 3)); the bootstrap is within a quarter of it.
    half = 1.96 * np.sqrt((1 + found.value**2 / 2) / 117)
    assert_allclose((np.arctanh(found.high) - np.arctanh(found.low)) / 2, half, rtol=0.25)


def test_spearman_of_a_constant_is_none():
    assert rank_correlation(np.ones(10), np.arange(10.0), resamples(10, 50, 0)).value is None


def with_temperature(column, slope, influences):
    """The column with ``d ln λ / d ln T = slope`` at every sample."""
    half = 1.96 * np.linalg.norm(influences)
    shifted = column.values[:, None] * np.exp(slope * half * np.array([-1, 1]))
    return replace(column, shifted=shifted, influences=np.asarray(influences))


def test_errors_of_temperatures_add_but_for_what_the_two_share():  # float64
    rng = np.random.default_rng(0)
    a, b = columns(np.exp(rng.standard_normal(50)), np.exp(rng.standard_normal(50)))
    plain = ratio_of_means(a, b, paired=True)
    one, other = 0.02 * rng.standard_normal((2, 50))
    slopes = 1.5, -0.5
    found = ratio_of_means(with_temperature(a, slopes[0], one), with_temperature(b, slopes[1], other), paired=True)
    error = np.linalg.norm(slopes[0] * one - slopes[1] * other)
    assert_allclose(found.temperature, error, rtol=1e-9)
    assert_allclose(found.half, np.hypot(plain.half, 1.96 * error), rtol=1e-9)
    assert_allclose(found.half_here, 1.96 * error, rtol=1e-9)
    assert "error of the temperatures" in found.interval_here().method
    same = ratio_of_means(with_temperature(a, 1.5, one), with_temperature(b, 1.5, one), paired=True)
    assert_allclose([same.temperature, same.half], [0.0, plain.half], atol=1e-12)
    longer = with_temperature(b, slopes[1], [*other, 0.01])  # fitted on other samples: nothing is shared
    apart = ratio_of_means(with_temperature(a, slopes[0], one), longer, paired=True)
    assert_allclose(apart.temperature, np.hypot(1.5 * np.linalg.norm(one), 0.5 * np.linalg.norm(longer.influences)), rtol=1e-9)


def test_an_error_of_the_temperatures_makes_a_difference_less_significant():
    rng = np.random.default_rng(1)
    a = np.exp(0.1 * rng.standard_normal(60))
    counts = resamples(60, 500, 0)
    assert p_value(a, 1.2 * a[::-1], counts) < 0.05 < p_value(a, 1.2 * a[::-1], counts, temperature=0.2)
