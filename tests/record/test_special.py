"""Distribution functions and quantiles, against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special as reference

from onnxfim.record.special import betainc, betaincinv, gammaincinv, ndtri, stdtr, stdtrit

_SAME = 1e-10  # relative: SciPy's own quantiles of the beta distribution are off by up to 4e-11 (by mpmath)


@pytest.mark.parametrize("a", [0.5, 1, 2, 10, 1000, 4000])
def test_beta_as_scipy(a: float) -> None:
    for b in (0.5, 1, 3, 10, 1000, 100_000):
        for p in (1e-6, 0.025, 0.3, 0.5, 0.9, 0.975, 1 - 1e-6):
            assert betaincinv(a, b, p) == pytest.approx(reference.betaincinv(a, b, p), rel=_SAME), (b, p)
            for at in (1e-5, 0.1, 0.5, 0.9):
                assert betainc(a, b, at) == pytest.approx(reference.betainc(a, b, at), rel=_SAME, abs=1e-250), (b, at)


def test_ends_of_the_beta_distribution() -> None:
    assert (betainc(2, 3, 0.0), betainc(2, 3, 1.0)) == (0.0, 1.0)
    assert (betaincinv(2, 3, 0.0), betaincinv(2, 3, 1.0)) == (0.0, 1.0)
    assert math.isnan(betaincinv(2, 3, 1.5))


@pytest.mark.parametrize("freedom", [0.5, 1, 1.5, 2, 5, 19, 99.5, 499, 9_999, 10_001, 1e6, 1e9])
def test_student_as_scipy(freedom: float) -> None:
    for p in (1e-8, 0.025, 0.2, 0.3, 0.499, 0.6, 0.75, 0.95, 0.975, 0.995, 1 - 1e-5, 1 - 1e-8):
        assert stdtrit(freedom, p) == pytest.approx(reference.stdtrit(freedom, p), rel=_SAME), p
    for t in (-20.0, -5.0, -2.0, -0.1, -1e-3, 0.0, 0.5, 2.0):
        assert stdtr(freedom, t) == pytest.approx(reference.stdtr(freedom, t), rel=_SAME, abs=1e-250), t


def test_ends_of_students_distribution() -> None:
    assert (stdtrit(5, 0.0), stdtrit(5, 0.5), stdtrit(5, 1.0)) == (-math.inf, 0.0, math.inf)
    assert (stdtr(5, -math.inf), stdtr(5, math.inf)) == (0.0, 1.0)
    assert stdtrit(math.inf, 0.975) == pytest.approx(reference.ndtri(0.975), rel=1e-14)
    assert math.isnan(stdtrit(math.nan, 0.975))
    assert math.isnan(stdtrit(5, math.nan))


@pytest.mark.parametrize("p", [1e-300, 1e-20, 1e-5, 0.025, 0.3, 0.5, 0.7, 0.975, 0.9999])
def test_normal_quantile_as_scipy(p: float) -> None:
    assert ndtri(p) == pytest.approx(reference.ndtri(p), rel=1e-14, abs=1e-15)


def test_ends_of_the_normal_distribution() -> None:
    assert (ndtri(0.0), ndtri(1.0)) == (-math.inf, math.inf)
    assert math.isnan(ndtri(-0.1))


@pytest.mark.parametrize("p", [1e-8, 1e-3, 0.1, 0.5])
def test_gamma_quantiles_as_scipy(p: float) -> None:
    a = np.array([[0.5, 1, 1.5, 2, 9.5], [10, 11, 100, 1000, 50_000]])
    found = gammaincinv(a, p)
    assert found.shape == a.shape
    np.testing.assert_allclose(found, reference.gammaincinv(a, p), rtol=1e-12)
