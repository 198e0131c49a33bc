"""The exact Fisher quantities of a PyTorch classifier in float64: the dense, slow twin that estimates are judged by.

Notation: logits ``z`` (K,), ``p = softmax(z)``, ``J = ∂z/∂x`` (K, d), ``F = Jᵀ(diag(p) − ppᵀ)J = AᵀA``.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import nn

Array = NDArray[np.float64]
Record = dict[str, int | float]


def logits(model: nn.Module, X: NDArray[np.float32]) -> Array:
    """Logits in float64, (N, K)."""
    with torch.no_grad():
        return in_float64(model)(torch.from_numpy(X).double()).numpy()


def jacobians(model: nn.Module, X: NDArray[np.float32]) -> Array:
    """Jacobians of the logits in float64, (N, K, d), one backward pass for each class.

    A pass serves the whole batch, since in eval mode no sample enters another one's logits.
    """
    x = torch.from_numpy(X).double().requires_grad_()
    z = in_float64(model)(x)
    rows = [torch.autograd.grad(z[:, k].sum(), x, retain_graph=True)[0].flatten(1) for k in range(z.shape[1])]
    return torch.stack(rows, dim=1).numpy()  # (N, K, d)


def fit_temperature(z: Array, labels: NDArray[np.int64]) -> float:
    """Temperature that minimises the mean negative log-likelihood of ``softmax(z/T)`` (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(z / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded", options={"xatol": 1e-10}).x))


def fisher_spectrum(z: Array, J: Array, *, temperature: float = 1.0) -> Array:
    """Eigenvalues of F of ``softmax(z/T)``, falling, (K,), in nats per squared input unit.

    The rows of A are ``√p_k Σ_j p_j (J_k − J_j) / T``: no difference of nearly equal numbers where p is saturated.
    """
    p = softmax(z / temperature)
    A = np.sqrt(p)[:, None] * np.einsum("j,kjd->kd", p, J[:, None] - J[None]) / temperature
    return np.linalg.svd(A, compute_uv=False) ** 2


def boundary_distance(z: Array, J: Array) -> float:
    """First-order L2 distance to the nearest decision boundary, ``min_{j≠c} (z_c − z_j) / ‖J_c − J_j‖₂``."""
    c = int(z.argmax())
    others = np.arange(len(z)) != c
    return float(np.min((z[c] - z[others]) / np.linalg.norm(J[c] - J[others], axis=1)))


def describe_samples(model: nn.Module, X: NDArray[np.float32], labels: NDArray[np.int64], *, temperature: float) -> list[Record]:
    """One record for each sample: what the model says there, and how sharply that changes."""
    return [
        {"index": index, "label": int(label), **describe_sample(z, J, temperature=temperature)}
        for index, (z, J, label) in enumerate(zip(logits(model, X), jacobians(model, X), labels, strict=True))
    ]


def describe_sample(z: Array, J: Array, *, temperature: float) -> Record:
    """What an audit reports at one sample with logits (K,) and Jacobian (K, d)."""
    spectrum = fisher_spectrum(z, J)
    return {
        "prediction": int(z.argmax()),
        "confidence": float(softmax(z).max()),
        "lambda_max": float(spectrum[0]),
        "lambda_max_calibrated": float(fisher_spectrum(z, J, temperature=temperature)[0]),
        "trace": float(spectrum.sum()),
        "effective_rank": float(spectrum.sum() / spectrum[0]),
        "boundary_distance": boundary_distance(z, J),
        "logit_sensitivity": float(np.linalg.norm(J, 2)),
    }


def in_float64(model: nn.Module) -> nn.Module:
    """A float64 copy in eval mode; the model itself stays as it is."""
    return copy.deepcopy(model).double().eval()
