"""Parts of samples: which are taken, and what stays as it was."""

import numpy as np
import pytest

from onnxfim.data import from_arrays


@pytest.fixture
def samples():
    X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    return from_arrays(X, np.arange(12) % 5, held={"mask": np.arange(24.0).reshape(12, 2)})


@pytest.mark.parametrize("at", [[0, 3, 11], [4, 5, 6], [7], []])
def test_the_samples_at_positions(samples, at):
    some = samples.take(at)
    assert len(some) == len(at)
    np.testing.assert_array_equal(some.inputs, samples.inputs[at])
    np.testing.assert_array_equal(some.labels, samples.labels[at])
    np.testing.assert_array_equal(some.indices, at)
    np.testing.assert_array_equal(some.held["mask"], samples.held["mask"][at])
    assert len(some.names) == len(at)
    assert some.sha256 == samples.sha256


def test_a_part_of_a_part_keeps_the_indices_of_the_data(samples):
    some = samples.without({0: "why", 5: "so"}).take([0, 4, 9])
    assert some.indices.tolist() == [1, 6, 11]
    assert [s.index for s in some.skipped] == [0, 5]


def test_all_of_them(samples):
    assert samples.take(range(12)) is samples
    assert len(samples.first(100)) == 12
    assert samples.first(5).indices.tolist() == [0, 1, 2, 3, 4]


def test_a_run_of_samples_is_no_copy(samples):
    assert np.shares_memory(samples.take([2, 3, 4]).inputs, samples.inputs)


@pytest.mark.parametrize("at", [[12], [-1, 0]])
def test_a_position_that_is_not_there(samples, at):
    with pytest.raises(IndexError, match="of 12 samples"):
        samples.take(at)


@pytest.mark.parametrize("at", [[3, 3], [5, 2]])
def test_positions_that_do_not_increase(samples, at):
    with pytest.raises(ValueError, match="do not increase"):
        samples.take(at)
