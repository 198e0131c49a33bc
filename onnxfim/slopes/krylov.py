"""Largest eigenvalue of a symmetric positive operator from products only: batched Lanczos with per-sample stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

#: Takes positions of samples (n,) and one vector each (n, K); returns the products (n, K), float64.
Product: TypeAlias = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class TopEigenpairs:
    """The top of the spectrum of each operator.

    Attributes:
        values: Largest Ritz value, a lower bound of lambda_max, (N,).
        residuals: ``‖M u − θu‖``: there is an eigenvalue within this of the Ritz value, (N,).
        vectors: Ritz vectors, unit length, (N, K).
        ritz: All Ritz values of each sample, descending.
        products: Products spent on each, (N,).
    """

    values: Array
    residuals: Array
    vectors: Array
    ritz: tuple[Array, ...]
    products: Array


def lanczos(product: Product, noise: Array, *, tolerance: float, most: int, start: Array | None = None) -> TopEigenpairs:
    """Top eigenpair of each of ``count`` operators of ``size`` × ``size``, until its residual is below ``tolerance`` of the value.

    Full reorthogonalisation (twice) keeps the Krylov bases orthonormal, so Ritz values do not repeat. A random start has a part
    along the top eigenvector with probability 1; a start given by the caller is mixed with a random one for that reason.

    Args:
        product: ``u ↦ M u`` for a subset of the samples.
        noise: Independent normal numbers to start from, a row for each operator, (count, size).
        tolerance: Relative residual to stop at.
        most: Products per sample at most.
        start: Unit start vectors, (count, size), or None.

    Source: Golub & Van Loan, Matrix Computations, 4th ed., section 10.1; Saad (2011), theorem 6.4 for the residual.
    """
    count, size = noise.shape
    most = min(most, size)
    q = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    if start is not None:
        q = start + 0.1 * q
        q /= np.linalg.norm(q, axis=1, keepdims=True)
    basis = np.zeros((count, most + 1, size))
    basis[:, 0] = q
    T = np.zeros((count, most, most))
    values, residuals = np.zeros(count), np.full(count, np.inf)
    vectors, steps = q.copy(), np.zeros(count, int)
    active = np.arange(count)
    for j in range(most):
        w = product(active, basis[active, j])  # (n, K)
        Q = basis[active, : j + 1]  # (n, j + 1, K)
        h = np.einsum("njk,nk->nj", Q, w)
        w = w - np.einsum("njk,nj->nk", Q, h)
        again = np.einsum("njk,nk->nj", Q, w)
        w -= np.einsum("njk,nj->nk", Q, again)
        T[active, : j + 1, j] = T[active, j, : j + 1] = h + again
        beta = np.linalg.norm(w, axis=1)
        theta, s = np.linalg.eigh(T[active, : j + 1, : j + 1])
        values[active] = np.maximum(theta[:, -1], 0.0)
        residuals[active] = beta * np.abs(s[:, -1, -1])
        vectors[active] = np.einsum("njk,nj->nk", Q, s[:, :, -1])
        steps[active] = j + 1
        # β at the level of rounding: the Krylov space holds all that the start can reach.
        exhausted = beta <= 1e-12 * np.maximum(values[active], np.finfo(float).tiny)
        going = ~exhausted & (residuals[active] > tolerance * values[active])
        if j == 0:
            going |= ~exhausted  # one vector's residual can be small by chance
        safe = np.where(beta > 0, beta, 1.0)
        basis[active, j + 1] = w / safe[:, None]
        active = active[going]
        if len(active) == 0:
            break
    ritz = tuple(np.linalg.eigvalsh(T[i, : steps[i], : steps[i]])[::-1] for i in range(count))
    return TopEigenpairs(values, residuals, vectors, ritz, steps)
