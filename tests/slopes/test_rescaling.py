"""Measures in other units of the inputs, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.record.sample import Estimate
from onnxfim.slopes.estimators import lambda_max_exact
from onnxfim.slopes.rescaling import Rescaling

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(7, 3))
S = 10.0 ** RNG.uniform(-3, 4, 7)


def test_all_coordinates_give_the_scaled_matrix():  # float64
    F = Y @ Y.T
    found = Rescaling(S).exact(lambda_max_exact(Y), Y, 0.0)
    assert_allclose(found.value, np.linalg.eigvalsh(S[:, None] * F * S)[-1], rtol=1e-10)
    assert found.kind == "exact"


def test_the_bracket_holds_the_scaled_value():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        A, s = rng.normal(size=(7, 3)), rng.uniform(0, 3, 7)
        found = Rescaling(s).bracketed(lambda_max_exact(A))
        assert found.low <= np.linalg.norm(s[:, None] * A, 2) ** 2 <= found.high
        assert found.kind == "estimate"


def test_equal_units_multiply():
    of = Estimate(2.0, 1.5, 3.0, "estimate", "sketch", 9, plain=2.2, cross_fit=1.9, replicates=(1.0, 0.9))
    found = Rescaling(np.array([3.0])).bracketed(of)
    assert (found.value, found.low, found.high, found.plain, found.cross_fit) == pytest.approx((18, 13.5, 27, 19.8, 17.1))
    assert (found.kind, found.replicates, found.evaluations) == ("estimate", of.replicates, 9)
    exact = Rescaling(np.array([3.0])).bracketed(Estimate(2.0, 2.0, 2.0, "exact"))
    assert exact.kind == "exact"


def test_no_value_and_no_unit():
    assert Rescaling(S).bracketed(Estimate(None, reason="why")) is None
    assert Rescaling(np.zeros(7)).bracketed(lambda_max_exact(Y)) is None
