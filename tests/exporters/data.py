"""Samples that scikit-learn ships, in the shapes that the recipes take."""

from __future__ import annotations

import numpy as np

from tests.exporters.recipe import Array


def digits(n: int, size: int, channels: int = 3, *, seed: int = 0, last: bool = False) -> tuple[Array, Array]:
    """Handwritten digits enlarged to ``size``, with noise, standardised: (n, channels, size, size) float32 and their labels.

    Args:
        n: How many.
        size: Of a side.
        channels: The same picture in each.
        seed: Which of them, and the noise.
        last: Channels on the last axis.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    rng = np.random.default_rng(seed)
    which = rng.permutation(len(found.images))[:n]
    X = found.images[which].astype(np.float32) / 16
    times = -(-size // 8)
    X = np.kron(X, np.ones((1, times, times), np.float32))[:, :size, :size]
    X = (X - 0.3) / 0.37 + 0.1 * rng.standard_normal((n, size, size)).astype(np.float32)
    X = np.repeat(X[:, None], channels, 1).astype(np.float32)
    return (np.ascontiguousarray(X.transpose(0, 2, 3, 1)) if last else X), found.target[which].astype(np.int64)


def levels(X: Array) -> Array:
    """The same as grey levels of 0 to 255."""
    return np.clip(X * 60 + 100, 0, 255)
