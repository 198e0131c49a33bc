"""The corruptions of the grid of classifiers: shapes and range stay, severities grow, and a seed gives the same images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.benchmarks.paper.corruptions import CORRUPTIONS, SEVERITIES, balanced, corrupted, cut_to_ink, mnist, overlaps, resized
from tests.support.places import needs_models


def blobs(side, n=24):
    """Smooth bright spots on black, (n, 1, side, side) in [0, 1]: digits come near them."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:side, :side] / side
    at, width = rng.uniform(0.3, 0.7, (n, 2, 1, 1)), rng.uniform(0.1, 0.25, (n, 1, 1))
    planes = np.exp(-((rows - at[:, 0]) ** 2 + 3 * (columns - at[:, 1]) ** 2) / width**2)
    return planes.astype(np.float32)[:, None]


@pytest.mark.parametrize("side", [8, 28])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupted_images_keep_their_shape_and_range_and_severities_grow(name, side):
    X = blobs(side)
    before = X.copy()
    found = [corrupted(X, name, severity) for severity in SEVERITIES]
    assert_array_equal(X, before)
    for images in found:
        assert images.shape == X.shape
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1
    changes = [np.sqrt(((images - X) ** 2).mean()) for images in found]
    assert 0 < changes[0] < changes[1] < changes[2], changes


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_seed_gives_the_same_images(name):
    X = blobs(8)
    assert_array_equal(corrupted(X, name, 2), corrupted(X, name, 2))
    drawn = name not in ("blur", "contrast", "brightness", "pixelate")
    assert (corrupted(X, name, 2, seed=1) != corrupted(X, name, 2)).any() == drawn


@pytest.mark.parametrize(("source", "target"), [(28, 8), (28, 14), (8, 6), (6, 8), (5, 5)])
def test_area_averages_keep_constants_and_the_mean(source, target):
    shares = overlaps(source, target)
    assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    assert_allclose(shares.sum(axis=0), target / source, rtol=1e-12)
    X = np.random.default_rng(0).random((3, 1, source, source))
    assert_allclose(resized(X, target).mean(axis=(1, 2, 3)), X.mean(axis=(1, 2, 3)), rtol=1e-12)


def test_halving_is_the_mean_of_two_by_two_pixels():
    X = np.random.default_rng(1).random((2, 1, 28, 28))
    assert_allclose(resized(X, 14), X.reshape(2, 1, 14, 2, 14, 2).mean(axis=(3, 5)), rtol=1e-12)


def test_a_digit_that_is_cut_to_its_ink_fills_the_frame_and_a_narrow_one_stays_narrow():
    X = np.zeros((2, 1, 28, 28), np.float32)
    X[0, 0, 4:24, 6:22] = 1  # 20 x 16
    X[1, 0, 4:24, 13:15] = 1  # 20 x 2
    wide, narrow = cut_to_ink(X)
    assert_allclose(wide[0, :, 1:7], 1, rtol=1e-12)
    assert narrow[0, :, 3:5].min() > 0.3
    assert narrow[0, :, [0, 1, 6, 7]].max() == 0


def test_a_balanced_accuracy_weighs_classes_alike():
    labels = np.array([0, 0, 0, 1])
    assert balanced(np.array([True, True, True, False]), labels) == 0.5


@needs_models
def test_mnist_comes_down_to_eight_by_eight():
    for images, labels in mnist().values():
        assert images.shape == (len(labels), 1, 8, 8)
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1 + 1e-6
        assert set(labels) == set(range(10))
