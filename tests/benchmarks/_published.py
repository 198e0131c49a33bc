"""The published estimators, restated from their definition in Zhang et al. (2026), arXiv:2606.04767.

Black box: the largest ``vᵀFv`` over 100 random unit directions of the input. White box ("Hutchinson"): the largest Rayleigh quotient
of ``AAᵀ`` over 100 random unit vectors of the outputs, where ``F = AᵀA`` and ``A`` is (K, d).
"""

from __future__ import annotations

import numpy as np

DIRECTIONS = 100


def best_of_random_directions(A: np.ndarray, rng: np.random.Generator) -> float:
    """Published black box: the largest ``vᵀFv = ‖Av‖²`` over random unit directions of the input."""
    V = rng.standard_normal((DIRECTIONS, A.shape[1]), dtype=np.float32)
    V /= np.linalg.norm(V, axis=1, keepdims=True)
    return float((np.square(V @ A.T)).sum(axis=1).max())


def best_of_random_rayleigh(A: np.ndarray, rng: np.random.Generator) -> float:
    """Published white box: the largest ``uᵀAAᵀu`` over random unit vectors of the outputs."""
    U = rng.standard_normal((DIRECTIONS, A.shape[0]))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    return float(((U @ (A @ A.T)) * U).sum(axis=1).max())
