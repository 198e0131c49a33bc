"""What central differences may be off by, against functions whose slopes are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.slopes.difference_error import DifferenceError
from onnxfim.slopes.estimators import boundary_distance_estimate, lambda_max_exact, sensitivity_estimate, trace_estimate

RNG = np.random.default_rng(0)


def bare(half):
    return DifferenceError(half, np.zeros(len(half)))


@pytest.mark.parametrize("unit", [1.0, 1e-160, 1e150])
def test_norms(unit):  # float64
    half = RNG.normal(size=(12, 5)) * unit
    s = RNG.uniform(0.1, 3, 12)
    assert_allclose(bare(half).norm(), np.linalg.norm(half / unit, 2) * unit, rtol=1e-12)
    assert_allclose(bare(half).norm(s), np.linalg.norm(half / unit * s[:, None], 2) * unit, rtol=1e-12)
    assert_allclose(bare(half).frobenius(), np.linalg.norm(half / unit) * unit, rtol=1e-12)


def test_rounding_that_leaves_no_trace_counts():
    error = DifferenceError(np.zeros((3, 2)), np.array([1e-3, 2e-3, 0]))
    assert error.norm() == pytest.approx(4e-3)
    assert error.norm(np.array([10.0, 1, 1])) == pytest.approx(2e-2)


def test_errors_of_any_sign_stay_inside():
    """Rows of the truth are off by at most their half difference, to either side, which is what a kink does."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        Y, half = rng.normal(size=(20, 4)), rng.normal(size=(20, 4)) * 10 ** rng.uniform(-4, 0)
        truth = Y + rng.uniform(-1, 1, size=(20, 1)) * half
        error = bare(half)
        lam = lambda_max_exact(Y, error=error.norm())
        assert lam.low <= np.linalg.norm(truth, 2) ** 2 <= lam.high
        trace = trace_estimate(Y, exact=True, error=error.frobenius())
        assert trace.low <= (truth**2).sum() <= trace.high
        z = rng.normal(size=4)
        c = int(z.argmax())
        exact = boundary_distance_estimate(z, truth, exact=True).value
        distance = boundary_distance_estimate(z, Y, exact=True, error=error)
        assert distance.low <= exact <= (np.inf if distance.high is None else distance.high)
        stretch = sensitivity_estimate(Y, exact=True, error=error.norm())
        assert stretch.low <= np.linalg.norm(truth, 2) <= stretch.high
        assert c == z.argmax()


def test_a_wide_error_is_no_exact_value():
    Y = np.diag([1.0, 0.5])
    assert lambda_max_exact(Y, error=0.01).kind == "exact"
    found = lambda_max_exact(Y, error=0.5)
    assert found.kind == "estimate"
    assert (found.low, found.high) == pytest.approx((0.25, 2.25))
    assert lambda_max_exact(Y, error=2.0).low == 0.0


def test_no_class_with_a_slope_has_no_upper_end():
    found = boundary_distance_estimate(
        np.array([1.0, 0.0]), np.full((3, 2), 1e-9) * [1, -1], exact=True, error=bare(np.ones((3, 2)) * [1, -1])
    )
    assert found.high is None
    assert 0 < found.low < 1
