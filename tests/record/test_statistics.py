"""Statistics over samples: their values, and that their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import binomtest, rankdata, spearmanr

from onnxfim.record.statistics import (
    aggregate,
    bracketing,
    clopper_pearson,
    fewest_bracketing,
    percentiles,
    spearman,
    spearman_of_resamples,
    spearman_of_weights,
    wilson,
)

NAMES = ("mean", "geometric_mean", "median", "p95", "max")


def stats(values, sd=0.0, seed=0):
    values = np.asarray(values, float)
    return aggregate(values, values * np.exp(-1.96 * sd), values * np.exp(1.96 * sd), seed=seed, units="u")


def lognormal(n, seed, spread=1.0):
    return np.exp(spread * np.random.default_rng([seed, n]).standard_normal(n))


class TestValues:
    def test_exact_values(self):  # float64
        values = lognormal(101, 0)
        found = stats(values)
        assert_allclose(found.mean.value, values.mean(), rtol=1e-12)
        assert_allclose(found.median.value, np.median(values), rtol=1e-12)
        assert_allclose(found.p95.value, np.quantile(values, 0.95), rtol=1e-12)
        assert found.max.value == found.max.low == found.max.high == values.max()
        assert (found.count, found.units) == (101, "u")

    def test_units_carry_through(self):  # float64
        values = lognormal(40, 1)
        ours, theirs = stats(values, 0.2), stats(values * 1e-30, 0.2)
        for name in NAMES:
            a, b = getattr(ours, name), getattr(theirs, name)
            assert_allclose([b.value, b.low, b.high], np.array([a.value, a.low, a.high]) * 1e-30, rtol=1e-9)

    @pytest.mark.parametrize("n", [1, 2, 3, 5, 19, 400])
    def test_every_value_lies_in_its_interval(self, n):
        for seed in range(5):
            found = stats(lognormal(n, seed), 0.15)
            for name in NAMES:
                one = getattr(found, name)
                assert 0 <= one.confidence <= 0.95
                if one.high is None and name in ("mean", "geometric_mean") and n < 400:
                    assert one.low is None or 0 <= one.low <= one.value
                    assert "no population interval" in one.method
                else:
                    assert 0 <= one.low <= one.value <= one.high
                    assert np.isfinite(one.high)

    def test_few_samples_do_not_claim_95_percent(self):
        for one in (stats([1.0]).mean, stats([1.0]).geometric_mean):
            assert (one.low, one.high, one.confidence) == (None, None, 0.0)
        assert stats(lognormal(3, 0)).p95.confidence < 0.95

    def test_none(self):
        found = stats([])
        assert found.count == 0
        assert found.mean.value is None

    def test_zeros(self):
        found = stats(np.zeros(10))
        assert found.mean.value == found.max.value == 0.0

    def test_the_same_seed_gives_the_same(self):
        values = lognormal(30, 0)
        assert stats(values, 0.2) == stats(values, 0.2)
        assert stats(values, 0.2, seed=1).p95 != stats(values, 0.2).p95


@pytest.mark.slow
class TestCoverage:
    # 200 data sets of lognormal values have a standard error of 1.5 %; skewed data keep any interval of the mean some points short.
    @pytest.mark.parametrize(("n", "spread", "least"), [(32, 0.5, 0.92), (32, 1.0, 0.90), (200, 1.0, 0.91)])
    def test_mean(self, n, spread, least):
        truth = np.exp(spread**2 / 2)
        found = [stats(lognormal(n, seed, spread)).mean for seed in range(200)]
        assert np.mean([f.low <= truth <= f.high for f in found]) >= least

    @pytest.mark.parametrize(("q", "name"), [(0.5, "median"), (0.95, "p95")])
    def test_quantiles_through_the_noise(self, q, name):  # order statistics are conservative
        from scipy.stats import norm

        truth = np.exp(norm.ppf(q))
        hits = []
        for seed in range(200):
            noise = 0.14 * np.random.default_rng([7, seed]).standard_normal(200)
            found = getattr(stats(lognormal(200, seed) * np.exp(noise), 0.14), name)
            hits.append(found.low <= truth <= found.high)
        assert np.mean(hits) >= 0.93

    def test_noise_does_not_inflate_the_maximum(self):  # half of the bias at least is gone
        exact = np.linspace(0.8, 1.0, 100)
        raw, corrected, covered = [], [], []
        for seed in range(100):
            noisy = exact * np.exp(0.14 * np.random.default_rng(seed).standard_normal(100))
            found = stats(noisy, 0.14).max
            raw.append(noisy.max())
            corrected.append(found.value)
            covered.append(found.low <= 1.0 <= found.high)
        assert abs(np.mean(corrected) - 1) < 0.5 * (np.mean(raw) - 1)
        assert np.mean(covered) >= 0.9


def test_order_statistics_bracket_a_quantile_from_so_many_samples_on():
    for q in (0.5, 0.95):
        few, many = fewest_bracketing(q)
        assert bracketing(few - 1, q)[0] is None
        assert bracketing(few, q)[0] == 0
        assert bracketing(many - 1, q)[1] is None
        assert bracketing(many, q)[1] == many - 1


@pytest.mark.parametrize(("count", "n"), [(0, 20), (3, 10), (17, 20), (20, 20)])
def test_the_exact_interval_of_a_share_is_scipys_and_wilsons_lies_in_it_or_near(count, n):
    exact = binomtest(count, n).proportion_ci(0.95, "exact")
    assert_allclose(clopper_pearson(count, n), (exact.low, exact.high), rtol=1e-12, atol=1e-15)
    score = binomtest(count, n).proportion_ci(0.95, "wilson")
    assert_allclose(wilson(count, n), (score.low, score.high), atol=1e-4)  # 1.96 beside the exact quantile


def test_spearmans_of_resamples_are_scipys():
    rng = np.random.default_rng(3)
    x = rng.normal(size=30)
    y = np.round(x + rng.normal(size=30))  # with ties
    draws = [rng.integers(0, 30, 30) for _ in range(20)]
    expected = [spearmanr(x[i], y[i]).statistic for i in draws]
    assert_allclose(spearman_of_resamples(x, y, draws), expected, rtol=1e-12)
    assert_allclose(spearman(x, y), spearmanr(x, y).statistic, rtol=1e-12)
    counts = np.array([np.bincount(i, minlength=30) for i in draws], np.float32)
    r, s = rankdata(x), rankdata(y)  # the other bootstrap keeps the ranks of the whole sample
    kept = [np.corrcoef(r[i], s[i])[0, 1] for i in draws]
    assert_allclose(spearman_of_weights(x, y, counts), kept, atol=1e-4)  # sums in float32
    assert spearman(x, np.ones(30)) is None
    assert percentiles(np.array([])) is None
