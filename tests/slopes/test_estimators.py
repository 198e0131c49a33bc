"""Every estimate against its dense float64 twin, over spectra from one direction to flat."""

from __future__ import annotations

import tracemalloc
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax

from onnxfim.slopes.estimators import (
    boundary_distance_estimate,
    gram,
    lambda_max_cross,
    lambda_max_exact,
    lambda_max_sketch,
    plain_top,
    sensitivity_estimate,
    trace_estimate,
)
from onnxfim.slopes.sketches import lambda_max_sketches, plain_tops, scales

#: Eigenvalues of F, the largest one 1: tr/λ of 1, 1.5, 2.9 and 20.
SPECTRA = {
    "one direction": np.array([1.0]),
    "two": np.array([1.0, 0.5]),
    "slow decay": 1.0 / np.arange(1, 10) ** 1.0,
    "flat tail": np.concatenate([[1.0], np.full(199, 19 / 199)]),
}
DRAWS = 300


def factor(eigenvalues, K, seed=0):
    """A (K, d) with ``F = AᵀA`` of these eigenvalues, in random bases of the K outputs and of d ≥ 2K inputs."""
    rng = np.random.default_rng([seed, K])
    Q, _ = np.linalg.qr(rng.standard_normal((K, len(eigenvalues))))
    R, _ = np.linalg.qr(rng.standard_normal((max(64, 2 * K), len(eigenvalues))))
    return Q * np.sqrt(eigenvalues) @ R.T


def draws(A, m, count=DRAWS, seed=1):
    """Scores of m Rademacher directions, ``count`` times."""
    rng = np.random.default_rng([seed, m])
    for _ in range(count):
        yield rng.choice([-1.0, 1.0], (m, A.shape[1])) @ A.T


@cache
def sketches(name, m=100, K=None):
    values = SPECTRA[name]
    return [lambda_max_sketch(Y) for Y in draws(factor(values, K or len(values) + 2), m)]


class TestSeveralAtOnce:
    @pytest.mark.parametrize(("m", "K"), [(40, 7), (43, 7), (12, 30), (2, 5)])
    def test_the_same_as_one_by_one(self, m, K):
        """Spectra of one and of many directions keep different numbers of columns; scores of zero and tiny ones are among them."""
        rng = np.random.default_rng([m, K])
        one = rng.standard_normal((m, 1)) * rng.standard_normal(K)
        Ys = np.stack([rng.standard_normal((m, K)), one, np.zeros((m, K)), 1e-150 * rng.standard_normal((m, K)), 3.0 * one])
        for Y, found in zip(Ys, lambda_max_sketches(Ys, list("abcde"), evaluations=9), strict=True):
            alone = lambda_max_sketch(Y, evaluations=9, method=found.method)
            for name in ("value", "low", "high", "plain", "cross_fit"):  # eigenvalues of matrices with rows of zeros beside
                assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-11, atol=0)
            assert_allclose(found.replicates, alone.replicates, atol=1.01e-4)  # rounded to four decimals
            assert (found.method, found.evaluations) == (alone.method, 9)
        assert_allclose(plain_tops(Ys), [plain_top(Y) for Y in Ys], rtol=1e-12)
        assert_allclose(
            plain_tops(Ys), [np.linalg.norm(Y / s, 2) ** 2 * s**2 for Y, s in zip(Ys, scales(Ys), strict=True)], rtol=1e-12
        )

    def test_against_the_definition(self):
        """Deleting groups of directions from the whole matrix: nothing is projected, nothing stacked."""
        m, K, groups = 40, 6, 20
        Y = np.random.default_rng(4).standard_normal((m, 3)) @ np.random.default_rng(5).standard_normal((3, K))
        top = [np.linalg.norm(Y[np.arange(m) % groups != g], 2) ** 2 / (m - m // groups) for g in range(groups)]
        pseudo = groups * np.linalg.norm(Y, 2) ** 2 / m - (groups - 1) * np.array(top)
        halves = [Y[np.arange(m) % groups < groups // 2], Y[np.arange(m) % groups >= groups // 2]]
        us = [np.linalg.svd(h)[2][0] for h in halves]
        crossed = np.mean([np.square(halves[0] @ us[1]).mean(), np.square(halves[1] @ us[0]).mean()])
        found = lambda_max_sketches(Y[None], ["a"])[0]
        # The tail that is left out of the replicates holds less than a quarter of the top: a few parts in a thousand.
        assert_allclose(found.value, max(pseudo.mean(), crossed), rtol=3e-3)
        assert_allclose(found.cross_fit, crossed, rtol=0.03)
        assert_allclose(found.plain, np.linalg.norm(Y, 2) ** 2 / m, rtol=1e-12)


class TestSketch:
    # 95 % is the aim; 300 draws have a standard error of 1.3 %, and for flat tails the correction is of first order only.
    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "least"), [("one direction", 0.93), ("two", 0.92), ("slow decay", 0.90), ("flat tail", 0.90)])
    def test_intervals_cover(self, name, least):
        found = list(sketches(name))
        assert np.mean([e.low <= 1.0 <= e.high for e in found]) >= least

    # No direction is the largest: the plain value takes the best of many, the jackknife mends a part, cross-fit is the truth.
    @pytest.mark.slow
    @pytest.mark.parametrize("count", [2, 9, 100])
    @pytest.mark.parametrize("m", [32, 100, 200])
    def test_intervals_cover_where_eigenvalues_are_equal(self, count, m):  # 93 % and more over 400 draws, standard error 1.3 %
        A = factor(np.ones(count), count + 2)
        found = [lambda_max_sketch(Y) for Y in draws(A, m)]
        assert np.mean([e.low <= 1.0 <= e.high for e in found]) >= 0.92

    @pytest.mark.parametrize("m", [8, 16, 32])
    def test_intervals_of_few_directions_cover(self, m):  # 90 %: the refining rounds live on these
        found = list(sketches("slow decay", m))
        assert np.mean([e.low <= 1.0 <= e.high for e in found]) >= 0.90

    @pytest.mark.parametrize("name", ["slow decay", "flat tail"])
    @pytest.mark.slow
    def test_brackets_and_the_jackknife_between_them(self, name):
        found = sketches(name)
        plain, value, cross = (np.mean(v) for v in zip(*((s.plain, s.value, s.cross_fit) for s in found), strict=True))
        assert plain > 1.0 > cross, "plain is biased upwards, cross-fit downwards"
        assert abs(value - 1) < abs(plain - 1), "the jackknife is less biased than the plain value"
        assert abs(value - 1) < 0.05  # what the jackknife leaves is of second order (Miller 1974, Biometrika 61(1))

    def test_spread_is_that_of_a_chi_square(self):  # relative sd √(2/m) = 0.141, whatever d; 20 % of a sample sd of 300 draws
        for d in (1, 400):  # one direction of F spread over d inputs
            A = np.full((1, d), 1 / np.sqrt(d)) if d > 1 else np.ones((1, 1))
            values = [lambda_max_sketch(np.random.default_rng([i, d]).standard_normal((100, d)) @ A.T).value for i in range(DRAWS)]
            assert_allclose(np.std(values), np.sqrt(2 / 100), rtol=0.2)
            assert_allclose(np.mean(values), 1.0, atol=0.03)

    def test_jackknife_is_that_of_its_definition(self):  # rtol: the part of the spectrum that the replicates leave out
        Y = next(draws(factor(SPECTRA["slow decay"], 11), 100))
        group = np.arange(100) % 20
        full = np.linalg.eigvalsh(Y.T @ Y / 100)[-1]
        without = np.array([np.linalg.eigvalsh(Y[group != g].T @ Y[group != g] / 95)[-1] for g in range(20)])
        found = lambda_max_sketch(Y)
        assert_allclose(found.plain, full, rtol=1e-12)
        assert_allclose(found.value, 20 * full - 19 * without.mean(), rtol=3e-3)

    @pytest.mark.parametrize("m", [7, 50, 101])  # fewer, equal and not a multiple of the groups
    def test_wide_and_tall_forms_agree(self, m):  # rtol: two eigensolvers of the same matrix, and the dropped tail's 0.3 %
        A = factor(SPECTRA["slow decay"], 60)
        Y = next(draws(A, m))
        basis = np.linalg.svd(A, full_matrices=False)[0][:, :9]
        wide, tall = lambda_max_sketch(Y), lambda_max_sketch(Y @ basis)  # the same scores in 60 and in 9 coordinates
        for a, b in ((wide.plain, tall.plain), (wide.cross_fit, tall.cross_fit), (wide.value, tall.value)):
            assert_allclose(a, b, rtol=6e-3)

    @pytest.mark.parametrize("unit", [1e-160, 1e-20, 1e20, 1e150])
    def test_units_do_not_matter(self, unit):  # rtol: float64 rounding; λ is quadratic in the scores
        Y = next(draws(factor(SPECTRA["two"], 5), 64))
        ours, theirs = lambda_max_sketch(Y), lambda_max_sketch(Y * unit)
        if 1e-300 < unit**2 < 1e300:
            for a, b in (
                (ours.value, theirs.value),
                (ours.low, theirs.low),
                (ours.plain, theirs.plain),
            ):
                assert_allclose(b, a * unit**2, rtol=1e-9)
        assert np.isfinite(theirs.value)

    def test_silence_is_zero_with_no_interval_made_up(self):
        found = lambda_max_sketch(np.zeros((16, 4)))
        assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)

    @pytest.mark.parametrize("m", [3, 8, 12, 20, 41])
    @pytest.mark.parametrize("noise", [0.0, 1e-17, 1e-6])
    def test_two_orthogonal_slopes_among_directions_without(self, m, noise):
        """The jackknife leaves nothing of such a value: deleting one of the two takes as little away as deleting another."""
        Y = noise * np.random.default_rng(1).standard_normal((m, 4))
        Y[0, 0], Y[m // 2 + 1, 1] = 3.0, 3.0
        estimate = lambda_max_sketch(Y)
        assert 0.9 * estimate.plain < estimate.value <= estimate.plain
        assert 0.0 <= estimate.low < 9 / m < estimate.high < np.inf

    def test_input_stays_as_it_was(self):
        Y = next(draws(factor(SPECTRA["two"], 5), 32))
        before = Y.copy()
        lambda_max_sketch(Y), gram(Y), lambda_max_cross(Y, Y)
        np.testing.assert_array_equal(Y, before)


class TestExact:
    @pytest.mark.parametrize("K", [2, 9, 300])
    def test_all_coordinates_give_the_top_eigenvalue(self, K):  # rtol: float64 eigensolvers
        A = np.random.default_rng(K).standard_normal((K, 40))
        found = lambda_max_exact(A.T)  # scores along e_i are the columns of A
        assert_allclose(found.value, np.linalg.norm(A, 2) ** 2, rtol=1e-12)
        assert found.kind == "exact"
        assert found.low == found.value == found.high

    def test_sensitivity_is_the_spectral_norm(self):  # rtol: float64 eigensolver
        J = np.random.default_rng(0).standard_normal((7, 30))
        assert_allclose(sensitivity_estimate(J.T, exact=True).value, np.linalg.norm(J, 2), rtol=1e-12)


class TestGram:
    @pytest.mark.parametrize("shape", [(40, 7), (7, 40), (1, 5), (5, 1)])
    def test_projection_keeps_top_and_trace(self, shape):  # rtol: float64 eigensolver
        Y = np.random.default_rng(shape).standard_normal(shape)
        found = gram(Y)
        assert_allclose(found.top, np.linalg.norm(Y, 2) ** 2, rtol=1e-12)
        assert_allclose(found.trace, (Y**2).sum(), rtol=1e-12)
        product = found.Z.T @ found.Z
        assert_allclose(product, np.diag(np.diag(product)), atol=1e-9 * found.top)
        assert found.trace - np.trace(product) <= 0.25 * found.top * (1 + 1e-12), "what is left out is a quarter at most"

    def test_no_square_matrix_of_the_classes(self):  # K×K in float64 would be 20 GB; allowed: 8 times the scores themselves
        m, K = 24, 50_000
        rng = np.random.default_rng(0)
        D, z = rng.standard_normal((m, K)), rng.standard_normal(K)
        Y = np.sqrt(softmax(z)) * D
        tracemalloc.start()
        lambda_max_sketch(Y), lambda_max_cross(Y, Y), lambda_max_exact(Y), trace_estimate(Y), sensitivity_estimate(D)
        boundary_distance_estimate(z, D)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * Y.nbytes


class TestCrossGram:
    def noisy(self, name, m, noise, count=100, K=12):
        A = factor(SPECTRA[name], K)
        rng = np.random.default_rng([7, m])
        for Y in draws(A, m, count):
            yield tuple(Y + noise * rng.standard_normal(Y.shape) for _ in range(2))

    def test_independent_noise_has_mean_zero_in_it(self):  # 10 %: measured on rounding noise 5 % is seldom passed
        found = [lambda_max_cross(Y, twin) for Y, twin in self.noisy("two", 100, noise=0.5)]
        plain = np.mean([s.plain for s in found])
        value = np.mean([s.value for s in found])
        assert plain > 1.2, "the plain value holds the noise: 1 + σ² and more"
        assert abs(value - 1) < 0.1

    def test_intervals_cover_through_the_noise(self):  # 90 % of 100 draws, standard error 2.2 %
        found = [lambda_max_cross(Y, twin) for Y, twin in self.noisy("two", 100, noise=0.5)]
        assert np.mean([e.value is not None and e.low <= 1.0 <= e.high for e in found]) >= 0.88

    def test_without_noise_it_is_the_sketch(self):  # rtol: the two halves are projected together, which drops 0.3 % differently
        Y = next(draws(factor(SPECTRA["two"], 6), 60))
        cross, sketch = lambda_max_cross(Y, Y), lambda_max_sketch(Y)
        assert_allclose(cross.value, sketch.value, rtol=6e-3)
        assert_allclose(cross.plain, sketch.plain, rtol=1e-9)

    @pytest.mark.parametrize("m", [12, 24, 100])
    def test_noise_alone_gives_a_value_seldom(self, m):  # 1 in 9 by chance, and 3 standard errors of 100 draws
        rng = np.random.default_rng(m)
        found = [lambda_max_cross(*rng.standard_normal((2, m, 10))) for _ in range(100)]
        assert sum(e.value is not None for e in found) <= 20
        assert all("rounding" in e.reason for e in found if e.value is None)

    @pytest.mark.parametrize("m", [12, 24, 100])
    def test_a_signal_in_little_noise_is_never_lost(self, m):  # noise of 0.3 per output: 12 % of the plain value, the most accepted
        found = [lambda_max_cross(Y, twin).value for Y, twin in self.noisy("one direction", m, noise=0.3)]
        assert None not in found

    def test_opposite_twins_resolve_nothing(self):
        Y = next(draws(factor(SPECTRA["two"], 6), 32))
        found = lambda_max_cross(Y, -Y)
        assert found.value is None
        assert "no slope was resolved above the model's own rounding" in found.reason
        assert found.plain > 0


class TestTrace:
    @pytest.mark.parametrize("name", ["two", "slow decay"])
    def test_unbiased_and_covered(self, name):  # mean of 300: 3 standard errors; coverage 95 % ± 3 of them
        truth = SPECTRA[name].sum()
        found = [trace_estimate(Y) for Y in draws(factor(SPECTRA[name], 12), 64)]
        values = np.array([e.value for e in found])
        assert abs(values.mean() - truth) < 3 * values.std() / np.sqrt(len(values))
        assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.91

    def test_all_coordinates_are_exact(self):  # rtol: float64 sum
        A = np.random.default_rng(0).standard_normal((6, 20))
        found = trace_estimate(A.T, exact=True)
        assert_allclose([found.value, found.low, found.high], np.trace(A @ A.T), rtol=1e-12)

    def test_twins_take_the_noise_out(self):  # 3 standard errors
        rng = np.random.default_rng(0)
        values = []
        for Y in draws(factor(SPECTRA["two"], 6), 100):
            found = trace_estimate(Y + rng.standard_normal(Y.shape), Y + rng.standard_normal(Y.shape))
            values.append(found.value or 0.0)
        assert abs(np.mean(values) - 1.5) < 3 * np.std(values) / np.sqrt(len(values))

    def test_nothing_resolved_is_null(self):
        assert trace_estimate(np.zeros((8, 3))).value is None


class TestBoundary:
    def test_is_the_first_order_distance(self):  # rtol: float64
        rng = np.random.default_rng(0)
        J, z = rng.standard_normal((5, 30)), rng.standard_normal(5)
        c = int(z.argmax())
        truth = min((z[c] - z[j]) / np.linalg.norm(J[c] - J[j]) for j in range(5) if j != c)
        assert_allclose(boundary_distance_estimate(z, J.T, exact=True).value, truth, rtol=1e-12)

    def test_intervals_cover(self):  # 95 % less 3 standard errors; the nearest class is clear, so that no minimum is taken
        J = np.random.default_rng(1).standard_normal((3, 40))
        z = np.array([1.0, 0.0, -30.0])
        truth = 1 / np.linalg.norm(J[0] - J[1])
        rng = np.random.default_rng(2)
        found = [boundary_distance_estimate(z, rng.choice([-1.0, 1.0], (64, 40)) @ J.T) for _ in range(DRAWS)]
        assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.91

    def test_a_class_without_slope_is_far(self):
        D = np.zeros((8, 3))
        found = boundary_distance_estimate(np.array([1.0, 0.0, 0.0]), D)
        assert found.value is None
        assert "no slope towards another class" in found.reason

    def test_a_tie_is_at_distance_zero(self):
        D = np.random.default_rng(0).standard_normal((8, 3))
        assert boundary_distance_estimate(np.array([1.0, 1.0, 0.0]), D).value == 0.0
