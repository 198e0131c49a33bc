"""Statistics over samples: their values, and that their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import binom, binomtest, norm, rankdata, spearmanr

from onnxfim.record import statistics
from onnxfim.record.statistics import (
    aggregate,
    binomial_at_least,
    binomial_at_most,
    bracketing,
    clopper_pearson,
    fewest_bracketing,
    percentiles,
    spearman,
    spearman_of_resamples,
    spearman_of_weights,
    temperature_interval,
    wilson,
)

NAMES = ("mean", "geometric_mean", "median", "p95", "max")


def stats(values, sd=0.0, seed=0):
    values = np.asarray(values, float)
    return aggregate(values, values * np.exp(-1.96 * sd), values * np.exp(1.96 * sd), seed=seed, units="u")


def stats_unfound(values, unfound):
    values = np.asarray(values, float)
    return aggregate(values, values, values, seed=0, units="u", noisy=np.zeros(len(values), bool), unfound=unfound)


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


class TestKinds:
    def test_the_geometric_mean_of_exact_values(self):  # float64
        values = lognormal(40, 0)
        assert_allclose(stats(values).geometric_mean.value, np.exp(np.log(values).mean()), rtol=1e-12)

    def test_zeros_have_no_geometric_mean_and_it_says_so(self):
        found = stats([0.0, 0.0, *lognormal(20, 0)]).geometric_mean
        assert (found.value, found.low, found.high) == (None, None, None)
        assert "2 of 22 values are 0" in found.method

    @pytest.mark.parametrize("seed", range(20))
    def test_quantiles_stay_in_order_through_the_noise(self, seed):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(4, 80))
        values = np.exp(0.3 * rng.standard_normal(n))
        sd = rng.choice([0.05, 1.0], n)  # very unequal noise: correcting each quantile alone would reorder them
        found = aggregate(values, values * np.exp(-1.96 * sd), values * np.exp(1.96 * sd), seed=seed, units="u")
        assert found.median.value <= found.p95.value <= found.max.value

    def test_the_maximum_is_not_below_an_exact_sample_and_tells_what_noise_took(self):
        values = np.array([*np.full(30, 0.3), 0.33, 0.347])
        sd = np.where(values == 0.33, 0.0, 0.15)
        found = aggregate(values, values * np.exp(-1.96 * sd), values * np.exp(1.96 * sd), seed=0, units="u").max
        assert 0.33 <= found.value < 0.347
        assert "the largest estimate is 0.347, of which noise makes up" in found.method

    def test_lower_bounds_have_no_upper_end(self):
        values = lognormal(200, 0, 0.3)
        found = aggregate(values, values, np.full(200, np.inf), seed=0, units="u", noisy=np.zeros(200, bool), kind="lower bound")
        assert found.kind == "lower bound"
        for name in NAMES:
            one = getattr(found, name)
            assert one.high is None
            assert 0 < one.low <= one.value

    def test_upper_bounds_have_no_lower_end(self):
        values = lognormal(200, 0, 0.3)
        found = aggregate(values, np.full(200, -np.inf), values, seed=0, units="u", noisy=np.zeros(200, bool), kind="upper bound")
        for name in NAMES:
            one = getattr(found, name)
            assert one.low is None
            assert one.high >= one.value

    @pytest.mark.parametrize("unfound", [1, 20, 110])
    def test_where_nothing_was_found_counts_as_larger_than_all(self, unfound):  # float64
        values = lognormal(200 - unfound, 0)
        everything = np.append(values, np.full(unfound, np.inf))
        found = aggregate(values, values, values, seed=0, units="u", kind="upper bound", noisy=values < 0, unfound=unfound)
        assert (found.count, found.unfound) == (200 - unfound, unfound)
        for name in ("mean", "geometric_mean"):
            one = getattr(found, name)
            assert (one.value, one.low, one.high) == (None, None, None)
            assert f"nothing was found on {unfound} of 200 samples" in one.method
        assert (found.max.value, found.max.low, found.max.high) == (None, values.max(), None)
        for name, q in (("median", 0.5), ("p95", 0.95)):
            one = getattr(found, name)
            below, above = bracketing(200, q)
            low, high = np.sort(everything)[[below, above]]
            with np.errstate(invalid="ignore"):
                value = np.quantile(everything, q)
            assert one.low == (low if np.isfinite(low) else values.max())
            assert one.high == (high if np.isfinite(high) else None)
            assert one.value == (pytest.approx(value, rel=1e-12) if np.isfinite(value) else None)
            assert "count as larger than all" in one.method

    def test_few_samples_with_one_that_was_not_found_have_no_upper_end(self):  # the largest order statistic is not known
        found = stats_unfound([1.0, 2.0, 3.0, 4.0], 1)
        assert (found.median.value, found.median.low, found.median.high) == (3.0, 1.0, None)
        assert (found.p95.value, found.p95.low, found.p95.high) == (None, 4.0, None)

    def test_nothing_found_at_all(self):
        found = stats_unfound([], 12)
        assert (found.count, found.unfound, found.median.value, found.median.low) == (0, 12, None, None)
        assert found.median.method == "nothing was found on 12 samples"

    def test_what_does_not_average_out_is_carried_through_whole(self):  # float64
        values = lognormal(200, 0, 0.3)
        sure = stats(values)
        biased = aggregate(values, values * 0.8, values * 1.5, seed=0, units="u", noisy=np.zeros(200, bool))
        assert_allclose(biased.mean.low, sure.mean.low - 0.2 * values.mean(), rtol=1e-12)
        assert_allclose(biased.mean.high, sure.mean.high + 0.5 * values.mean(), rtol=1e-12)
        assert_allclose([biased.median.low, biased.median.high], [0.8 * sure.median.low, 1.5 * sure.median.high], rtol=1e-12)
        assert_allclose(biased.geometric_mean.high, 1.5 * sure.geometric_mean.high, rtol=1e-12)
        assert biased.median.value == sure.median.value

    def test_the_temperatures_error_adds_in_quadrature(self):  # float64
        values = lognormal(200, 0, 0.3)
        sure = stats(values)
        shifted = np.stack([0.7 * values, 1.6 * values])
        found = aggregate(values, values, values, seed=0, units="u", shifted=shifted)
        for name in NAMES:
            alone, both = getattr(sure, name), getattr(found, name)
            assert_allclose(np.log(both.high / both.value), np.hypot(np.log(alone.high / alone.value), np.log(1.6)), rtol=1e-9)
            assert_allclose(np.log(both.value / both.low), np.hypot(np.log(alone.value / alone.low), -np.log(0.7)), rtol=1e-9)

    def test_a_mean_that_few_carry_says_how_many(self):
        found = stats([*np.full(60, 0.01), 5.0, 7.0, 9.0]).mean
        assert found.high is None
        assert 0 < found.low < found.value
        assert "carried by 2 of 63 samples: no population interval" in found.method


@pytest.mark.slow
class TestCoverage:
    # 300 data sets have a standard error of 1.3 %. A log-normal tail of spread 2 holds half of its mean beyond the 97th percentile.
    @pytest.mark.parametrize(("n", "spread"), [(16, 0.5), (32, 0.5), (32, 1.0), (200, 1.0), (200, 1.5), (64, 2.0)])
    def test_the_mean_is_covered_or_has_no_upper_end(self, n, spread):
        truth = np.exp(spread**2 / 2)
        found = [stats(lognormal(n, seed, spread)).mean for seed in range(300)]
        assert np.mean([f.low > truth for f in found]) <= 0.04
        assert np.mean([f.high is not None and f.high < truth for f in found]) <= 0.05
        if spread < 2:
            given = [f for f in found if f.high is not None]
            assert len(given) > 30
            assert np.mean([f.low <= truth <= f.high for f in given]) >= (0.93 if len(given) > 150 else 0.85)
        else:
            assert np.mean([f.high is None for f in found]) > 0.8

    @pytest.mark.parametrize(("n", "spread"), [(16, 1.0), (64, 3.0)])
    def test_the_geometric_mean(self, n, spread):
        noise = 0.14
        hits = []
        for seed in range(300):
            noisy = lognormal(n, seed, spread) * np.exp(noise * np.random.default_rng([8, seed]).standard_normal(n) - noise**2 / 2)
            found = stats(noisy, noise).geometric_mean
            hits.append(found.low <= 1.0 <= found.high)
        assert np.mean(hits) >= 0.92

    @pytest.mark.parametrize(("q", "name"), [(0.5, "median"), (0.95, "p95")])
    def test_quantiles_where_the_longest_were_not_found(self, q, name):  # what a search of limited reach leaves: order is kept
        truth = np.exp(norm.ppf(q))
        reach = 2.0 * truth
        hits = []
        for seed in range(300):
            values = lognormal(200, seed)
            found = getattr(stats_unfound(values[values < reach], int((values >= reach).sum())), name)
            hits.append(found.low <= truth and (found.high is None or truth <= found.high))
        assert np.mean(hits) >= 0.93

    @pytest.mark.parametrize(("q", "name"), [(0.5, "median"), (0.95, "p95")])
    def test_quantiles_through_the_noise(self, q, name):  # order statistics are conservative
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


@pytest.mark.parametrize("n", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("p", [0.01, 0.5, 0.95])
def test_binomial_tails_are_scipys(n, p):  # rtol: the same function of float64, reached another way
    for count in {-1, 0, 1, n // 3, n // 2, n - 1, n, n + 1}:
        assert_allclose(binomial_at_most(count, n, p), binom.cdf(count, n, p), rtol=1e-12)
        assert_allclose(binomial_at_least(count, n, p), binom.sf(count - 1, n, p), rtol=1e-12)


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_a_quantiles_order_statistics_are_the_binomials_own_quantiles(q):
    for n in (1, 2, 5, 6, 16, 59, 60, 100, 200, 999, 10_000):
        below, above = binom.ppf([0.025, 0.975], n, q)
        assert bracketing(n, q) == (below - 1 if below >= 1 else None, above if above < n else None)


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


def test_a_temperatures_interval_is_symmetric_on_the_log_scale():
    low, high = temperature_interval(0.5, 0.2)
    assert_allclose([low * high, high / low], [0.25, np.exp(2 * 1.96 * 0.2)])
    assert temperature_interval(2.0, 0.0) == temperature_interval(2.0, None) == (2.0, 2.0)


@pytest.mark.parametrize("n", [2, 40, 301])
def test_noise_is_taken_out_alike_in_any_parts(monkeypatch, n):
    rng = np.random.default_rng(n)
    values = np.where(np.arange(n) % 5 == 0, 0.0, np.exp(rng.normal(size=n)))
    v = statistics._Values(values, rng.random(n), values, values, values, values, None)
    whole = statistics._without_noise(v, np.random.default_rng(1))
    monkeypatch.setattr(statistics, "_AT_ONCE", 3 * n)
    np.testing.assert_array_equal(statistics._without_noise(v, np.random.default_rng(1)), whole)
