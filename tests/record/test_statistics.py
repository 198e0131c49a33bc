"""Statistics over samples: their values, and that their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.record.statistics import aggregate


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
        for name in ("mean", "median", "p95", "max"):
            a, b = getattr(ours, name), getattr(theirs, name)
            assert_allclose([b.value, b.low, b.high], np.array([a.value, a.low, a.high]) * 1e-30, rtol=1e-9)

    @pytest.mark.parametrize("n", [1, 2, 3, 5, 19, 400])
    def test_every_value_lies_in_its_interval(self, n):
        for seed in range(5):
            found = stats(lognormal(n, seed), 0.15)
            for name in ("mean", "median", "p95", "max"):
                one = getattr(found, name)
                assert 0 <= one.low <= one.value <= one.high
                assert 0 <= one.confidence <= 0.95
                assert np.isfinite(one.high)

    def test_few_samples_do_not_claim_95_percent(self):
        assert stats([1.0]).mean.confidence == 0.0
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
        assert stats(values, 0.2, seed=1).mean != stats(values, 0.2).mean


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
