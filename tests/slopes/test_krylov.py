"""Lanczos iteration against dense eigendecompositions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.slopes.krylov import confirmed, lanczos

SIZE = 40


def spectra(rng):
    """Operators with known spectra: a fast and a slow decay, a cluster at the top, rank 3, and all zero."""
    values = [
        0.5 ** np.arange(SIZE),
        1.0 / (1 + np.arange(SIZE)),
        np.r_[1.0, 0.999, 0.998, rng.uniform(0, 0.1, SIZE - 3)],
        np.r_[3.0, 2.0, 1.0, np.zeros(SIZE - 3)],
        np.zeros(SIZE),
    ]
    bases = [np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0] for _ in values]
    return np.array([(Q * w) @ Q.T for Q, w in zip(bases, values, strict=True)])


def product(M, log=None):
    def call(rows, u):
        if log is not None:
            log.append(rows.copy())
        return np.einsum("nij,nj->ni", M[rows], u)

    return call


def noise(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, SIZE))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_values_lie_within_the_residual_of_the_dense_ones(tolerance, scale):  # 1e-12: float64 rounding of the dense twin
    M = scale * spectra(np.random.default_rng(1))
    found = lanczos(product(M), noise(len(M)), tolerance=tolerance, most=SIZE)
    dense = np.linalg.eigvalsh(M)
    top = np.maximum(dense[:, -1], 0)
    assert (found.values <= top * (1 + 1e-12)).all(), "a Ritz value is a lower bound"
    assert (np.abs(found.values[:, None] - dense).min(axis=1) <= found.residuals + 1e-12 * top).all()
    assert (found.residuals <= tolerance * found.values).all()
    true = np.linalg.norm(np.einsum("nij,nj->ni", M, found.vectors) - found.values[:, None] * found.vectors, axis=1)
    assert_allclose(true, found.residuals, atol=1e-11 * top.max())


def test_ritz_values_do_not_repeat_and_fill_the_spectrum():  # 1e-10: full reorthogonalisation
    M = spectra(np.random.default_rng(2))[1:2]
    found = lanczos(product(M), noise(1), tolerance=0.0, most=SIZE)
    assert_allclose(found.ritz[0], np.linalg.eigvalsh(M[0])[::-1], atol=1e-10)


def test_each_sample_stops_by_itself_and_its_products_are_counted():
    M, log = spectra(np.random.default_rng(3)), []
    found = lanczos(product(M, log), noise(len(M)), tolerance=1e-6, most=SIZE)
    assert_array_equal(found.products, [sum(i in rows for rows in log) for i in range(len(M))])
    fast, slow, _, rank, zero = found.products
    assert fast < slow
    assert rank <= 4, "the Krylov space of rank 3 is used up after four products"
    assert zero == 1


def test_no_more_products_than_allowed_and_the_residual_says_so():
    M = spectra(np.random.default_rng(4))
    found = lanczos(product(M), noise(len(M)), tolerance=1e-12, most=5)
    assert found.products.max() == 5
    assert found.residuals[2] > 1e-12


def test_zero_and_rank_one():
    u = noise(1)[0]
    M = np.array([np.zeros((SIZE, SIZE)), np.outer(u, u)])
    found = lanczos(product(M), noise(2, seed=1), tolerance=1e-10, most=SIZE)
    assert_allclose(found.values, [0, u @ u], rtol=1e-12)
    assert_allclose(found.residuals, 0, atol=1e-10 * (u @ u))
    assert_allclose(abs(found.vectors[1] @ u), np.linalg.norm(u), rtol=1e-12)
    assert found.products.max() <= 2


def test_a_start_orthogonal_to_the_top_still_finds_it():  # 1e-8: the square of the residual
    M = spectra(np.random.default_rng(5))[:2]
    second = np.linalg.eigh(M)[1][:, :, -2]
    found = lanczos(product(M), noise(2), tolerance=1e-4, most=SIZE, start=second)
    assert_allclose(found.values, np.linalg.eigvalsh(M)[:, -1], rtol=1e-7)


def test_a_good_start_saves_products():
    M = spectra(np.random.default_rng(6))[1:2]
    top = np.linalg.eigh(M)[1][:, :, -1]
    cold = lanczos(product(M), noise(1), tolerance=1e-4, most=SIZE)
    warm = lanczos(product(M), noise(1), tolerance=1e-4, most=SIZE, start=top)
    assert warm.products[0] < cold.products[0]


def test_samples_do_not_depend_on_each_other():
    M = spectra(np.random.default_rng(7))
    together = lanczos(product(M), noise(len(M)), tolerance=1e-6, most=SIZE)
    alone = [lanczos(product(M[[i]]), noise(len(M))[[i]], tolerance=1e-6, most=SIZE) for i in range(len(M))]
    assert_allclose(together.values, [a.values[0] for a in alone], rtol=1e-12)


def spectrum(gap, size=1000):
    return np.r_[1.0, 1 - gap, (1 - gap) * 0.9 * 0.97 ** np.arange(size - 2)]


@pytest.mark.parametrize("gap", [0.1, 0.03, 0.01])
def test_two_starts_find_what_one_misses(gap):
    """From the second eigenvector: one start calls it the largest in up to 85 % of the runs at a gap of 1 %, two in under 1 %."""
    runs, size, tolerance = 100, 1000, 1e-4
    values = spectrum(gap, size)
    start = np.zeros((runs, size))
    start[:, 1] = 1.0
    noises = np.random.default_rng(8).standard_normal((3, runs, size))
    one, two = (
        f(lambda rows, u: values * u, n, tolerance=tolerance, most=60, start=start)
        for f, n in ((lanczos, noises[0]), (confirmed, noises))
    )
    missed = [(r.values < 1 - gap / 2) & (r.residuals <= tolerance * r.values) for r in (one, two)]
    if gap == 0.01:
        assert missed[0].mean() > 0.5, "the test does not test what it says"
    assert (missed[1] & (two.starts > 1)).sum() == 0
    assert (two.starts > 1).mean() > 0.95
    assert two.products.mean() > one.products.mean()


@pytest.mark.parametrize("width", [1e-3, 3e-4])
def test_a_cluster_at_the_top_is_not_taken_for_its_mean(width):  # 2 tolerances: what agreement is
    """One Ritz vector can mix a cluster long before its residual is below the width: a Kato-Temple stop confirms such values."""
    values = np.r_[1.0, 1 - width, 1 - 2 * width, 0.5 * 0.97 ** np.arange(997)]
    noises = np.random.default_rng(9).standard_normal((3, 30, 1000))
    found = confirmed(lambda rows, u: values * u, noises, tolerance=1e-4, most=60)
    assert (found.starts > 1).mean() > 0.9
    assert found.values[found.starts > 1].min() >= 1 - 2e-4


def test_starts_that_disagree_are_not_confirmed():
    """An operator that is another one at every call, so that nothing agrees."""
    calls = iter(range(1000))
    found = confirmed(lambda rows, u: u * np.linspace(1, 2, SIZE) * (1 + next(calls)), noise(3)[:, None], tolerance=1e-4, most=1)
    assert found.starts.tolist() == [1]
