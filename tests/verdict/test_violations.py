"""The test of a bound: strict without noise, at one level for all samples with it; its size and its power."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxfim.record.sample import Estimate
from onnxfim.slopes.estimators import lambda_max_sketch
from onnxfim.verdict.violations import ViolationTest, violations


def exact(value, kind="exact"):
    return Estimate(value, value, value, kind)


def sketches(rng, n, spectrum, m=100):
    """Sketches of samples with these eigenvalues along m directions each."""
    return [lambda_max_sketch(rng.standard_normal((m, len(spectrum))) * np.sqrt(spectrum)) for _ in range(n)]


@pytest.mark.parametrize("kind", ["exact", "lower bound", "kinked"])
def test_values_without_noise_are_strict(kind):  # slack 1e-3: float32
    values = [exact(0.5, kind), exact(1.0005, kind), exact(1.002, kind)]
    assert violations(ViolationTest(values, 0.0), level=0.01) == (2,)


def test_upper_bounds_and_missing_values_violate_nothing():
    values = [exact(2.0, "upper bound"), Estimate(None, reason="none")]
    assert violations(ViolationTest(values, 0.0), level=0.01) == ()


def test_values_below_zero_violate_nothing():  # of a saved audit: no estimator gives them
    values = [Estimate(-1.0, -2.0, 1.0, "estimate"), Estimate(-1e308, None, 1e308, "estimate")]
    assert violations(ViolationTest(values, 0.0), level=0.01) == ()


def test_without_a_bound_nothing_is_violated():
    assert violations(ViolationTest(sketches(np.random.default_rng(0), 5, [1.0]), math.inf), level=0.01) == ()


@pytest.mark.parametrize("spectrum", [[1.0], [1.0, 0.5, 0.2], [1.0] * 3 + [0.3] * 6], ids=["one", "falling", "flat"])
@pytest.mark.parametrize("n", [1, 40, 400])
def test_a_tight_bound_is_rarely_called_violated(n, spectrum):
    """Every sample lies on the bound: at most 1 % of audits; 2 of 40 are the 99.2 % quantile of what 1 % gives."""
    rng = np.random.default_rng([n, len(spectrum)])
    runs = 40 if n < 400 else 10
    found = sum(bool(violations(ViolationTest(sketches(rng, n, spectrum), 0.0), level=0.01)) for _ in range(runs))
    assert found <= 2


@pytest.mark.parametrize(("n", "share"), [(10, 1.0), (40, 1.0), (40, 0.25)])
def test_twice_the_bound_is_found(n, share):
    rng = np.random.default_rng([n, int(100 * share)])
    high = int(n * share)
    for _ in range(10):
        values = sketches(rng, high, [2.0, 0.4]) + sketches(rng, n - high, [0.1])
        found = violations(ViolationTest(values, 0.0), level=0.01)
        assert found
        assert max(found) < high
