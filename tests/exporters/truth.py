"""Float64 truth, from the definition: λ_max(JᵀCJ) and ‖J‖₂ by dense Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.exporters.recipe import Array, Truth

_STEP = 1e-5  # of differences of fourth order in float64: an error of about 1e-10, and few kinks within it


def softmax_lambda(J: Array, z: Array) -> float:
    """λ_max of F = JᵀCJ for J (K, d) and logits z (K,); with positions, J (P, K, d) and z (P, K), of their sum."""
    J, z = (J[None], z[None]) if z.ndim == 1 else (J, z)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    A = np.sqrt(p)[..., None] * (J - np.einsum("pk,pkd->pd", p, J)[:, None])
    return float(np.linalg.norm(A.reshape(-1, J.shape[-1]), 2) ** 2)


def sigmoid_lambda(J: Array, z: Array) -> float:
    """λ_max for outputs that are each a Bernoulli, J (K, d), z (K,)."""
    p = 1 / (1 + np.exp(-z))
    return float(np.linalg.norm(np.sqrt(p * (1 - p))[:, None] * J, 2) ** 2)


def gaussian_lambda(J: Array, z: Array) -> float:
    """λ_max for outputs of unit variance."""
    return float(np.linalg.norm(J, 2) ** 2)


def of_jacobians(pairs: Any, lam: Callable[[Array, Array], float] = softmax_lambda) -> Truth:
    """The truth from ``(J, z)`` of each sample."""
    pairs = list(pairs)
    norms = [np.linalg.norm(J.reshape(-1, J.shape[-1]), 2) for J, _ in pairs]
    return Truth(np.array([lam(J, z) for J, z in pairs]), np.array(norms))


def by_torch(
    logits: Callable[[Any], Any], X: Array, lam: Callable[[Array, Array], float] = softmax_lambda, *, double: bool = True
) -> Truth:
    """The truth of a function of a float64 tensor (1, *shape), whose logits are (1, K) or (1, K, *positions); or of a float32 one."""
    import torch

    def pair(x: Array) -> tuple[Array, Array]:
        t = torch.tensor(x[None], dtype=torch.float64 if double else torch.float32, requires_grad=True)
        z = logits(t)[0]
        flat = z.reshape(-1)
        rows = [torch.autograd.grad(flat[k], t, retain_graph=True)[0].reshape(-1).double().numpy() for k in range(len(flat))]
        J = np.stack(rows).reshape(*z.shape, -1)
        values = z.detach().double().numpy()
        if values.ndim == 1:
            return J, values
        K = len(values)
        return J.reshape(K, -1, J.shape[-1]).transpose(1, 0, 2), values.reshape(K, -1).T

    return of_jacobians((pair(x) for x in X), lam)


def by_differences(logits: Callable[[Array], Array], X: Array, lam: Callable[[Array, Array], float] = softmax_lambda) -> Truth:
    """The truth of a smooth function of float64 rows (n, d), by central differences of fourth order."""

    def pair(x: Array) -> tuple[Array, Array]:
        step = _STEP * np.eye(len(x))
        near, far = (logits(x + k * step) - logits(x - k * step) for k in (1, 2))
        return ((8 * near - far) / (12 * _STEP)).T, logits(x[None])[0]

    return of_jacobians((pair(x) for x in X.astype(np.float64)), lam)
