"""The inputs' own scales: which features are uneven, and which only look so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.data import lazy_rows
from onnxfim.data.stored_rows import ArrayRows
from onnxfim.slopes.spread import EVEN, deviation_of_all, largest_magnitude, pooled_deviation, root_mean_square, spread_of
from tests.support.places import SAMPLES

RNG = np.random.default_rng(0)
SCALES = 10.0 ** np.array([4.7, 1.5, -0.5, -2, 0, 0])


def of(X):
    return spread_of(X, np.arange(len(X)))


def drawn(n=64, scales=SCALES):
    return RNG.lognormal(0, 0.7, size=(n, len(scales))) * scales


class TestUneven:
    def test_each_feature_is_moved_by_its_own_spread(self):  # a factor of 2: the farthest values of a long tail are drawn in
        X = drawn()
        found = of(X)
        assert np.all((found.steps / X.std(axis=0) > 0.5) & (found.steps <= X.std(axis=0) * 1.5))
        assert found.features == 0
        assert_array_equal(found.features_of((6,)), np.arange(6))

    @pytest.mark.parametrize("shape", [(6,), (6, 1), (1, 6), (1, 1, 6)])
    def test_vectors_of_any_shape(self, shape):
        X = drawn()
        found, flat = of(X.reshape(-1, *shape)), of(X)
        assert_array_equal(np.broadcast_to(found.steps, shape).ravel(), flat.steps)
        assert_array_equal(np.broadcast_to(found.deviation, shape).ravel(), flat.deviation)

    @pytest.mark.parametrize("last", [True, False])
    def test_series_of_features(self, last):  # float64 sums
        X = np.stack([drawn() for _ in range(9)], axis=1)  # (64, 9, 6)
        found = of(X if last else X.transpose(0, 2, 1))
        assert found.steps.shape == ((1, 6) if last else (6, 1))
        assert_allclose(found.deviation.ravel(), X.reshape(-1, 6).std(axis=0), rtol=1e-12)

    def test_deviations_are_those_of_the_audited_samples(self):  # float64 sums
        X = drawn()
        found = spread_of(X.astype(np.float32), np.arange(0, 64, 2))
        assert_allclose(found.deviation, X[::2].std(axis=0), rtol=1e-6)
        assert_allclose(found.pooled, X[::2].std(), rtol=1e-6)

    def test_one_large_feature_that_is_mostly_zero(self):
        X = RNG.normal(size=(200, 6))
        X[:, 0] = np.where(RNG.random(200) < 0.08, RNG.uniform(3e3, 9e4, 200), 0)
        assert of(X).steps is not None

    def test_constant_features_get_a_length_and_no_deviation(self):
        X = drawn()
        X[:, 1], X[:, 2] = 2020.0, 0.0
        found = of(X)
        assert_array_equal(found.deviation[1:3], 0)
        assert found.steps[1] == 2020.0, "its own magnitude"
        assert SCALES.min() < found.steps[2] < SCALES.max(), "the middle one of the others"

    def test_one_sample_tells_scales_by_its_values(self):
        assert of(drawn(1)).steps is not None
        assert of(RNG.uniform(size=(1, 784))).steps is None

    def test_a_far_value_is_no_scale(self):
        X = drawn(scales=SCALES * np.ones(6))
        far = X.copy()
        far[7, 3] = 1e6
        assert of(far).steps[3] < 2 * of(X).steps[3]
        assert of(far).deviation[3] > 1e4


class TestEven:
    def test_scales_within_a_few(self):
        assert of(RNG.normal(size=(64, 8)) * np.geomspace(1, EVEN / 2, 8)).steps is None

    def test_pixels_that_are_rarely_other_than_background(self):
        X = RNG.uniform(0.3, 1, size=(200, 784)) * (RNG.random((200, 784)) < np.linspace(0, 1, 784) ** 3)
        X[3, 0] = 0.004  # one faint pixel in all of the data
        found = of(X)
        assert found.steps is None
        assert found.deviation.shape == (784,)

    def test_rare_flags_that_were_standardised(self):
        flags = (RNG.random((500, 3)) < 0.004).astype(float)
        flags[0] = 1
        X = np.concatenate([flags, RNG.normal(size=(500, 5))], axis=1)
        assert of((X - X.mean(axis=0)) / X.std(axis=0)).steps is None

    @pytest.mark.parametrize("n", [1, 2, 3, 5])
    def test_few_samples_do_not_make_features_uneven(self, n):
        assert all(of(np.random.default_rng(seed).normal(size=(n, 30))).steps is None for seed in range(20))

    def test_one_far_value(self):
        X = RNG.normal(size=(60, 6))
        X[5, 2] = 1e4
        assert of(X).steps is None

    def test_images(self):
        with np.load(SAMPLES / "digits.npz") as data:
            found = of(data["inputs"])
        assert found.steps is None
        assert found.deviation.size == 1

    @pytest.mark.parametrize("axis", [0, 2])
    def test_channels_have_deviations_of_their_own(self, axis):  # float64 sums
        X = RNG.normal(size=(8, 3, 10, 10)) * np.array([1.0, 2, 3])[:, None, None]
        Y = np.moveaxis(X, 1, axis + 1)
        assert_allclose(of(Y).deviation.ravel(), X.transpose(1, 0, 2, 3).reshape(3, -1).std(axis=1), rtol=1e-12)

    def test_nothing_varies(self):
        found = of(np.full((4, 5), 0.1))
        assert found.steps is None
        assert not found.deviation.any()
        assert found.pooled == 1.0


def test_what_the_cache_tells_apart():
    X = drawn()
    assert of(X).identity == of(X.copy()).identity
    assert of(X).identity != of(X * 1.01).identity
    assert pooled_deviation(X, range(len(X))) == pytest.approx(X.std())


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 4, 5)])
def test_sizes_go_by_blocks_and_are_those_of_all_at_once(monkeypatch, shape):
    X = np.random.default_rng(0).normal(size=(300, *shape)).astype(np.float32)
    at = np.arange(0, 300, 3)
    want = np.sqrt(np.mean([X[i].astype(np.float64) ** 2 for i in at], axis=0))
    for block in (64, 2**23):
        monkeypatch.setattr(lazy_rows, "BLOCK_BYTES", block)
        # One coordinate alone NumPy sums in pairs: a rounding apart.
        np.testing.assert_allclose(root_mean_square(X, at), want, rtol=0 if shape != (1,) else 1e-15)
        np.testing.assert_array_equal(largest_magnitude(X, at), np.abs(X[at]).max(axis=0).astype(np.float64))


def test_the_deviation_of_rows_that_are_read_at_need(monkeypatch):
    X = np.random.default_rng(0).normal(3.0, 2.0, size=(300, 4, 5)).astype(np.float32)
    monkeypatch.setattr(lazy_rows, "BLOCK_BYTES", 1000)
    rows = lazy_rows.LazyRows(ArrayRows(X)).in_place
    # Sums of 6,000 numbers in another order: some roundings of float64.
    np.testing.assert_allclose(deviation_of_all(rows), X.std(dtype=np.float64), rtol=1e-13)
    assert deviation_of_all(X) == X.std(dtype=np.float64)
    assert spread_of(rows, range(300)).pooled == spread_of(X, range(300)).pooled
