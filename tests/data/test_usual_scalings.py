"""The usual scalings: every pair of units is found from the data alone, and the change leads from one to the other."""

import numpy as np
import pytest

from onnxfim.data.usual_scalings import usual_changes

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 3, 6, 7)) / 255.0
IMAGENET = (np.array([0.485, 0.456, 0.406])[:, None, None], np.array([0.229, 0.224, 0.225])[:, None, None])
UNITS = {
    "0 to 1": lambda p: p,
    "0 to 255": lambda p: 255 * p,
    "-1 to 1": lambda p: 2 * p - 1,
    "normalised as ImageNet": lambda p: (p - IMAGENET[0]) / IMAGENET[1],
}
WRONG = UNITS | {
    "normalised as ImageNet twice": lambda p: (UNITS["normalised as ImageNet"](p) - IMAGENET[0]) / IMAGENET[1],
    "normalised as ImageNet, of bytes not divided by 255": lambda p: (255 * p - IMAGENET[0]) / IMAGENET[1],
    "divided by 255 twice": lambda p: p / 255,
}


@pytest.mark.parametrize("target", sorted(UNITS))
@pytest.mark.parametrize("source", sorted(WRONG))
def test_one_of_the_changes_leads_to_the_units_of_the_model(source, target):
    if source == target:
        return
    X = WRONG[source](COLOUR).astype(np.float32)
    wanted = UNITS[target](COLOUR)
    # float32 inputs, and constants that the units have rounded to four digits
    fitting = [
        c for c in usual_changes(X) if c.apply(X).shape == X.shape and np.allclose(c.apply(X), wanted, atol=2e-3 * wanted.std())
    ]
    assert any(c.target == target and source in c.words for c in fitting)


@pytest.mark.parametrize("source", sorted(WRONG))
def test_the_options_are_the_change(source):
    X = WRONG[source](COLOUR).astype(np.float32)
    for change in usual_changes(X):
        if change.mean is None:
            continue
        words = change.options.split()
        mean, std = (np.array([float(v) for v in words[words.index(o) + 1].split(",")])[:, None, None] for o in ("--mean", "--std"))
        assert np.allclose((X - mean) / std, change.apply(X), rtol=2e-3, atol=2e-3 * np.abs(change.apply(X)).max())  # four digits


def test_bytes_have_options_of_their_own():
    X = (255 * COLOUR).astype(np.float32)
    (change,) = [c for c in usual_changes(X) if c.target == "normalised as ImageNet"]
    assert "--input-range 0,1 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 for uint8 arrays" in change.options


def test_channels_and_planes_can_be_in_another_order():
    X = RNG.random((20, 3, 6, 6)).astype(np.float32)
    orders = [c.apply(X) for c in usual_changes(X) if c.mean is None]
    assert any(np.array_equal(o, X[:, ::-1]) for o in orders)
    assert any(np.array_equal(o, X.swapaxes(2, 3)) for o in orders)


def test_a_table_is_standardised_feature_by_feature():
    X = (RNG.standard_normal((40, 5)) * [1, 10, 1e4, 0.01, 3] + [0, 5, 5e4, 1, 0]).astype(np.float32)
    (change,) = usual_changes(X)
    np.testing.assert_allclose(change.apply(X).std(axis=0), 1, rtol=1e-4)
    assert usual_changes(change.apply(X)) == ()


@pytest.mark.parametrize("X", [np.zeros((20, 3, 6, 6), np.uint8), np.zeros((20, 8), np.float32), np.full((20, 8), np.nan)])
def test_nothing_is_tried_where_nothing_can_be_scaled(X):
    assert usual_changes(X) == ()


def test_sums_of_sixteen_bits_do_not_overflow():
    X = np.random.default_rng(0).integers(128, 256, (40, 8, 8, 3)).astype(np.float16)
    assert usual_changes(X)  # a sum of these passes the type's largest number, and RuntimeWarnings are errors
