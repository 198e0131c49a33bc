"""A file that changes its class under noise with a chance that is known exactly, and plain loops over noisy rows."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from onnxfim.slopes.noisy_rows import drawn
from tests.support import models

#: Inputs of `failing` whose first number is 0 fail with the chance that it was made for.
DIMENSION = 6


def failing(chance, sigma):
    """A file of two classes: the second has won where the first number is above σ·Φ⁻¹(1 − chance)."""
    W = np.zeros((2, DIMENSION), np.float32)
    W[1, 0] = 1.0
    border = np.array([0.0, -sigma * norm.isf(chance)], np.float32)
    return models.linear(W, border)


def at_rest(n, *, first=0.0, seed=0):
    """Samples for it: the first number is ``first``, one or (n,), the others are random."""
    X = np.random.default_rng([seed, n]).standard_normal((n, DIMENSION)).astype(np.float32)
    X[:, 0] = first
    return X


def chance_at(first, chance, sigma):
    """How often the class changes at samples whose first number is ``first``."""
    return norm.sf(norm.isf(chance) - np.asarray(first) / sigma)


def noisy(x, noise, tries, *, seed=0, scale=1.0):
    """The first so many rows of a sample x under a noise, one after another, in the type of x; float32 sums."""
    chunks = [drawn(noise, seed, c, x.size) for c in range(-(-tries // 32))]
    moves = np.concatenate(chunks)[:tries] * np.asarray(noise.size * np.ravel(scale), np.float32)
    return (x.ravel() + moves).reshape(tries, *x.shape).astype(x.dtype)
