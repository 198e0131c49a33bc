"""Block Lanczos iteration against dense eigendecompositions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.slopes.krylov import lanczos

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
            log.append(rows.repeat(u.any(axis=2).sum(axis=1)))
        return np.einsum("nij,nsj->nsi", M[rows], u)

    return call


def noise(count, block=1, seed=0):
    return np.random.default_rng(seed).standard_normal((count, block, SIZE))


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_values_lie_within_their_errors_of_the_dense_ones(tolerance, scale, block):  # 1e-12: float64 rounding of the dense twin
    M = scale * spectra(np.random.default_rng(1))
    found = lanczos(product(M), noise(len(M), block), tolerance=tolerance, most=SIZE)
    dense = np.linalg.eigvalsh(M)
    top = np.maximum(dense[:, -1], 0)
    assert (found.values <= top * (1 + 1e-12)).all(), "a Rayleigh quotient is a lower bound"
    assert (found.errors <= tolerance * found.values).all()
    assert (top <= found.values + found.errors + 1e-12 * top).all()
    quotients = np.einsum("nj,nij,ni->n", found.vectors, M, found.vectors)
    assert (np.abs(quotients[:, None] - dense).min(axis=1) <= found.residuals + 1e-12 * top).all()
    true = np.linalg.norm(np.einsum("nij,nj->ni", M, found.vectors) - quotients[:, None] * found.vectors, axis=1)
    assert_allclose(true, found.residuals, atol=1e-11 * top.max())


def test_the_value_is_the_rayleigh_quotient_of_the_input_direction():  # 1e-12: float64
    A = np.random.default_rng(8).standard_normal((SIZE, 60))
    found = lanczos(product(A[None] @ A.T), noise(1), tolerance=0.0, most=4)
    v = A.T @ found.vectors[0]
    assert_allclose(found.values[0], (A @ v) @ (A @ v) / (v @ v), rtol=1e-12)


@pytest.mark.parametrize("block", [1, 2])
def test_ritz_values_do_not_repeat_and_fill_the_spectrum(block):  # 1e-10: full reorthogonalisation
    M = spectra(np.random.default_rng(2))[1:2]
    found = lanczos(product(M), noise(1, block), tolerance=0.0, most=SIZE)
    assert_allclose(found.ritz[0], np.linalg.eigvalsh(M[0])[::-1], atol=1e-10)


def test_each_sample_stops_by_itself_and_its_products_are_counted():
    M, log = spectra(np.random.default_rng(3)), []
    found = lanczos(product(M, log), noise(len(M), 2), tolerance=1e-6, most=SIZE)
    assert_array_equal(found.products, np.bincount(np.concatenate(log), minlength=len(M)))
    fast, _, cluster, rank, zero = found.products
    assert fast < cluster
    assert rank <= 5, "two starts and a rank of 3 are five dimensions"
    assert zero == 2


def test_no_more_products_than_allowed_and_the_error_says_so():
    M = spectra(np.random.default_rng(4))
    found = lanczos(product(M), noise(len(M)), tolerance=1e-12, most=5)
    assert found.products.max() == 5
    assert found.errors[2] > 1e-12


def test_zero_and_rank_one():
    u = noise(1)[0, 0]
    M = np.array([np.zeros((SIZE, SIZE)), np.outer(u, u)])
    found = lanczos(product(M), noise(2, 3, seed=1), tolerance=1e-10, most=SIZE)
    assert_allclose(found.values, [0, u @ u], rtol=1e-12)
    assert_allclose(found.residuals, 0, atol=1e-10 * (u @ u))
    assert_allclose(abs(found.vectors[1] @ u), np.linalg.norm(u), rtol=1e-12)
    assert found.products.max() <= 6


def test_a_start_of_zeros_is_none_and_equal_starts_are_one():  # 1e-12: float64
    M = spectra(np.random.default_rng(5))[:1]
    one, more = noise(1), noise(1, 3)
    more[:, 1], more[:, 2] = 0.0, more[:, 0]
    single, padded = (lanczos(product(M), s, tolerance=1e-6, most=SIZE) for s in (one, more[:, :1] * [[[1], [0], [1]]]))
    assert_allclose(padded.values, single.values, rtol=1e-12)
    assert padded.products[0] == single.products[0]
    assert lanczos(product(M), more, tolerance=1e-6, most=SIZE).products[0] <= 2 * single.products[0]


def test_a_good_start_saves_products():
    M = spectra(np.random.default_rng(6))[1:2]
    top = np.linalg.eigh(M)[1][:, :, -1]
    cold = lanczos(product(M), noise(1), tolerance=1e-4, most=SIZE)
    warm = lanczos(product(M), top[:, None] + 0.01 * noise(1), tolerance=1e-4, most=SIZE)
    assert warm.products[0] < cold.products[0]


def test_samples_do_not_depend_on_each_other():
    M = spectra(np.random.default_rng(7))
    together = lanczos(product(M), noise(len(M), 3), tolerance=1e-6, most=SIZE)
    alone = [lanczos(product(M[[i]]), noise(len(M), 3)[[i]], tolerance=1e-6, most=SIZE) for i in range(len(M))]
    assert_allclose(together.values, [a.values[0] for a in alone], rtol=1e-12)


def test_a_product_that_is_no_number_is_no_value_of_its_own_operator_alone():
    M = spectra(np.random.default_rng(7))[:2]
    M[0, 0, 0] = np.nan
    found = lanczos(product(M), noise(2, 3), tolerance=1e-6, most=SIZE)
    assert np.isnan(found.values[0])
    assert found.errors[1] <= 1e-6 * found.values[1]


def spectrum(gap, size=1000):
    return np.r_[1.0, 1 - gap, (1 - gap) * 0.9 * 0.97 ** np.arange(size - 2)]


@pytest.mark.parametrize("gap", [0.1, 0.03, 0.01])
def test_several_starts_find_what_one_misses(gap):
    """From the second eigenvector one start calls it the largest in a tenth of the runs at a gap of 1 %, three in none."""
    runs, size, tolerance = 60, 500, 1e-4
    values = spectrum(gap, size)
    starts = np.random.default_rng(8).standard_normal((runs, 3, size)) / np.sqrt(size)
    starts[:, 0] = 0.1 * starts[:, 0] + np.eye(size)[1]
    one, more = (lanczos(lambda rows, u: values * u, s, tolerance=tolerance, most=60) for s in (starts[:, :1], starts))
    sure, both = (r.errors <= tolerance * r.values for r in (one, more))
    if gap == 0.01:
        assert (one.values[sure] < 1 - gap / 2).mean() > 0.03, "the test does not test what it says"
    assert both.all()
    assert more.values.min() >= 1 - tolerance


@pytest.mark.parametrize("width", [1e-3, 3e-4])
def test_a_cluster_at_the_top_is_not_taken_for_its_mean(width):
    """One Ritz vector can mix a cluster long before its residual is below the width: a Kato-Temple stop confirms such values."""
    values = np.r_[1.0, 1 - width, 1 - 2 * width, 0.5 * 0.97 ** np.arange(997)]
    starts = np.random.default_rng(9).standard_normal((30, 3, 1000))
    found = lanczos(lambda rows, u: values * u, starts, tolerance=1e-4, most=60)
    sure = found.errors <= 1e-4 * found.values
    assert sure.mean() > 0.9
    assert found.values[sure].min() >= 1 - 1e-4


def planted(rng, size):
    """Spectra that mislead a stop, the largest value 1: clusters, plateaus, spikes, slow decays, and their mixtures."""
    few, many = rng.integers(2, 12, 2)
    width, gap = 10 ** rng.uniform(-4.5, -1.5), 10 ** rng.uniform(-3, -0.5)
    tail = rng.uniform(0.3, 0.9) * rng.uniform(0.9, 0.99) ** np.arange(size)
    kinds = [
        np.r_[1 - width * rng.random(few), tail[few:]],
        np.r_[1, 1 - width * np.linspace(0.1, 1, many), tail[many + 1 :]],
        np.r_[1, np.full(size - 1, 1 - gap)],
        np.r_[1, (1 - gap) * (1 - 0.05 * rng.random(size - 1))],
        np.r_[np.ones(few), np.full(many, 1 - gap), tail[few + many :]],
        rng.random(size) ** rng.uniform(0.5, 30),
        np.r_[1 - 10 ** rng.uniform(-5, -0.5, few), 0.9 * rng.random(size - few) ** 8],
        np.ones(size),
    ]
    return np.array([np.sort(v / v.max())[::-1] for v in kinds])


def test_no_spectrum_misleads_the_stop():
    """200 cases: whatever is called converged is within the tolerance of the largest eigenvalue."""
    rng, size, tolerance = np.random.default_rng(10), 400, 1e-4
    values = np.concatenate([planted(rng, size) for _ in range(25)])
    starts = rng.standard_normal((len(values), 3, size))
    found = lanczos(lambda rows, u: values[rows, None] * u, starts, tolerance=tolerance, most=60)
    sure = found.errors <= tolerance * found.values
    assert sure.mean() > 0.95
    assert found.values[sure].min() >= 1 - tolerance
