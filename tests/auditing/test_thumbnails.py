"""Pictures of the inputs: which, how large, and that no other data make one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.auditing.pictures import thumbnails
from tests.support.audits import make_audit

SAMPLES = make_audit(30).samples


def pictures(shape, samples=SAMPLES, seed=0):
    rng = np.random.default_rng(seed)
    inputs = {s.index: rng.standard_normal(shape) for s in samples}
    return thumbnails(samples, inputs), inputs


def test_the_extremes_are_shown():
    found, _ = pictures((1, 8, 8))
    ranked = sorted(SAMPLES, key=lambda s: s.lambda_max_calibrated.value)  # as the report ranks them
    k = len(found) // 2
    assert k >= 4
    assert [t.index for t in found] == sorted(s.index for s in (*ranked[:k], *ranked[-k:]))


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 8, 8), (8, 8, 1)), ((3, 8, 9), (8, 9, 3)), ((8, 9, 3), (8, 9, 3)), ((28, 28), (28, 28, 1)), ((3, 224, 224), (56, 56, 3))],
)
def test_sizes(shape, size):
    found, _ = pictures(shape)
    for t in found:
        assert (t.height, t.width, t.channels) == size
        assert len(t.pixels) == np.prod(size)
        if max(shape) < 64:  # a picture averaged down keeps the range of the whole input
            assert min(t.pixels) == 0
            assert max(t.pixels) == 255


@pytest.mark.parametrize("shape", [(784,), (784, 1), (2, 8, 8), (12, 3), (1, 49, 2)])
def test_what_is_no_image_makes_no_picture(shape):
    assert pictures(shape)[0] == ()


def test_a_constant_input_is_black():
    (only,) = thumbnails(SAMPLES[:1], {SAMPLES[0].index: np.full((1, 8, 8), 7.0)})
    assert set(only.pixels) == {0}


def test_channels_keep_their_order():
    image = np.zeros((3, 4, 4))
    image[2] = 1
    (only,) = thumbnails(SAMPLES[:1], {SAMPLES[0].index: image})
    assert_array_equal(np.reshape(only.pixels, (4, 4, 3)), np.broadcast_to([0, 0, 255], (4, 4, 3)))


def test_samples_without_a_value_are_not_ranked():
    sketch = SAMPLES[0].lambda_max
    null = replace(sketch, value=None)
    lost = replace(SAMPLES[0], lambda_max=null, lambda_max_calibrated=null)
    assert thumbnails([lost], {lost.index: np.zeros((1, 8, 8))}) == ()
