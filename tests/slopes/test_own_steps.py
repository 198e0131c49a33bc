"""Steps of coordinates whose scale the data do not tell."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.slopes.dithering import Probe
from onnxfim.slopes.kinds import SoftmaxLogits
from onnxfim.slopes.own_steps import settled_moves

ALL = np.array([True, True])


def settle(fn, x, moves, guessed=ALL):
    """Moves of the two coordinates of ``fn`` at x, in float32."""
    forward = CallableForward(fn, (2,), 2, batch=64)
    X = np.array([x], np.float32)
    probe = Probe(X, forward.outputs(X), (0,))
    return settled_moves(forward, SoftmaxLogits(), probe, np.array(moves), guessed)


def saturating(scale):
    """Of scale 1 in the first coordinate and ``scale`` in the second."""

    def fn(X):
        t = np.tanh(X / np.array([1, scale], np.float32) + np.float32(0.4))
        return np.stack([t[:, 0] + 2 * t[:, 1], -t[:, 0]], axis=1)

    return fn


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 1e3, 1e5])
def test_a_step_in_the_feature_s_own_scale(scale):
    """One of a thousandth of another feature's scale saturates it, or drowns in float32."""
    found = settle(saturating(scale), (0.0, 0.0), (1e-3, 1e-3))
    assert found[0] == 1e-3, "it was right"
    assert 1e-4 <= found[1] / scale <= 3e-2


def test_others_stay():
    found = settle(saturating(1e-4), (0.0, 0.0), (1e-3, 1e-3), guessed=np.array([True, False]))
    assert_array_equal(found, (1e-3, 1e-3))
    assert_array_equal(settle(saturating(1e-4), (0.0, 0.0), (1e-3, 1e-3), guessed=~ALL), (1e-3, 1e-3))


def test_far_from_a_kink_is_no_place_to_settle():
    """Beyond both kinks the two sides are straight lines too: slopes agree there, and are those of another place."""

    def fn(X):
        z = np.abs(X[:, 1] - np.float32(1e-3)) * 1e3 + X[:, 0]
        return np.stack([z, 0 * z], axis=1)

    assert settle(fn, (0.0, 0.0), (1e-3, 1e-2))[1] <= 1e-3


def test_nothing_depends_on_it():
    found = settle(lambda X: np.stack([X[:, 0], 0 * X[:, 0]], axis=1), (0.0, 0.0), (1e-3, 7e-3))
    assert_array_equal(found, (1e-3, 7e-3))
