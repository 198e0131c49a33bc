"""Logarithms of sums of exponentials, and what is made of them, without overflow and without the loss of small terms.

They are here because the import of SciPy's takes longer than many an audit; tests hold them against SciPy's.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


def expit(x: Array) -> Array:
    """``1 / (1 + e^{-x})``."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-np.asarray(x))))


def logsumexp(a: Array, axis: int, *, keepdims: bool = False) -> Array:
    """``ln Σ e^a`` along an axis; the largest terms are set apart, so that the others count beside them to the last digit."""
    largest = a.max(axis=axis, keepdims=True)
    shift = np.where(np.isfinite(largest), largest, 0.0).astype(a.dtype)
    top = a == largest
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        count = top.sum(axis=axis, keepdims=True, dtype=a.dtype)
        others = np.exp(np.where(top, -np.inf, a).astype(a.dtype) - shift).sum(axis=axis, keepdims=True)
        found = np.log1p(np.where(others == 0, others, others / count)) + np.log(count) + largest
    return np.asarray(found if keepdims else np.squeeze(found, axis))


def log_softmax(x: Array, axis: int) -> Array:
    """``x − ln Σ e^x`` along an axis."""
    largest = x.max(axis=axis, keepdims=True)
    moved = x - np.where(np.isfinite(largest), largest, 0.0).astype(x.dtype)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.asarray(moved - np.log(np.exp(moved).sum(axis=axis, keepdims=True)))
