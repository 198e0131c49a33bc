"""A calibrated value with the temperature's error, and without it again."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.record.sample import Estimate, SampleResult, own_interval, temperature_reach, with_temperature_error


@pytest.mark.parametrize("ends", [(0.7, 1.4), (1.3, 0.8), (0.9, 0.95), (1.2, 1.1), (1.0, 1.0)])
@pytest.mark.parametrize(("low", "high"), [(2.0, 2.0), (1.9998, 2.0002), (1.2, 3.5), (None, 2.5), (1.5, None), (0.0, 2.5)])
def test_the_own_interval_comes_back(ends, low, high):  # the square root of a difference: 1e-8 absolute
    before = Estimate(2.0, low, high)
    after = with_temperature_error(before, ends)
    for was, own, wide in zip((low, high), own_interval(after), (after.low, after.high), strict=True):
        assert (was is None) == (own is None) == (wide is None)
        if was is not None:
            assert_allclose(own, was, atol=1e-7)
    if low is not None:
        assert after.low <= min(low, 2.0 * min(ends)) * (1 + 1e-9) or low == 0
    if high is not None:
        assert after.high >= 2.0 * max(*ends, 1.0) * (1 - 1e-9)


def test_without_an_error_or_a_value_nothing_changes():
    for estimate in (Estimate(2.0, 1.0, 3.0), Estimate(None, reason="none"), Estimate(0.0, 0.0, 0.0)):
        assert with_temperature_error(estimate, ()) == estimate
        assert own_interval(estimate) == (estimate.low, estimate.high)
    assert with_temperature_error(Estimate(0.0, 0.0, 0.0), (0.5, 2.0)) == Estimate(0.0, 0.0, 0.0)


def test_a_turn_between_the_ends_counts():  # float64: the parabola's own extremes
    x = np.linspace(-1, 1, 2001)
    for slope, bend in ((0.3, -0.5), (0.3, 0.5), (0.3, 0.1), (-0.2, -0.2)):
        curve = slope * x + bend * x**2
        down, up = temperature_reach(np.exp(curve[[0, -1]]))
        assert_allclose([down, up], [-curve.min(), curve.max()], atol=1e-6)


def test_results_have_no_dictionaries():
    """Of 50,000 samples they would take more memory than all numbers in them."""
    assert not hasattr(Estimate(1.0), "__dict__")
    assert not any("__dict__" in vars(kind) for kind in (SampleResult, Estimate))
