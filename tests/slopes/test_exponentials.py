"""Sums of exponentials, against SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special as reference

from onnxfim.slopes.exponentials import expit, log_softmax, logsumexp

_RNG = np.random.default_rng(0)
_ARRAYS = (
    _RNG.standard_normal((50, 10)) * 10,
    _RNG.standard_normal((5, 3, 2, 4)) * 500,
    np.array([[-np.inf, -np.inf], [np.inf, 0], [0, 0], [1, np.nan], [-np.inf, 3], [1e308, 1e308], [7, 7]]),
)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("a", _ARRAYS)
def test_sums_are_scipys(a: np.ndarray[Any, Any], dtype: type) -> None:
    with np.errstate(all="ignore"):
        a = a.astype(dtype)
        for axis in (0, -1, -2):
            for keepdims in (True, False):
                expected = reference.logsumexp(a, axis=axis, keepdims=keepdims)
                found = logsumexp(a, axis, keepdims=keepdims)
                assert found.dtype == dtype
                np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(log_softmax(a, axis), reference.log_softmax(a, axis=axis))
        np.testing.assert_allclose(expit(a), reference.expit(a), rtol=4 * np.finfo(dtype).eps, atol=0)
