"""Brent's search against SciPy's: the same points, bit for bit."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from onnxfim.slopes.bounded_minimum import least

SHAPES = {
    "smooth": lambda c: lambda x: math.cosh(x - c) + 0.1 * x,
    "kinked": lambda c: lambda x: abs(x - c),
    "flat": lambda c: lambda x: 1.0,
    "several minima": lambda c: lambda x: math.sin(7 * x + c) + 0.1 * x * x,
    "at an end": lambda c: lambda x: x * math.exp(c / 9),
    "steep": lambda c: lambda x: abs(x - c) ** 3,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("xatol", [1e-6, 1e-2])
def test_the_points_are_those_of_scipy(shape, xatol):
    rng = np.random.default_rng(0)
    for c, low, width in zip(rng.normal(0, 2, 60), rng.normal(0, 2, 60), rng.exponential(3, 60) + 1e-6, strict=True):
        f, seen, theirs = SHAPES[shape](float(c)), [], []
        bounds = float(low), float(low + width)
        x, value = least(lambda t, f=f, seen=seen: seen.append(t) or f(t), bounds, xatol=xatol)
        found = minimize_scalar(
            lambda t, f=f, theirs=theirs: theirs.append(float(t)) or f(t), bounds=bounds, method="bounded", options={"xatol": xatol}
        )
        assert seen == theirs
        assert (x, value) == (found.x, found.fun)
