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
        starts: How many independent starts ended at this value, (N,): a residual proves an eigenvalue, not the largest.
    """

    values: Array
    residuals: Array
    vectors: Array
    ritz: tuple[Array, ...]
    products: Array
    starts: Array


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

    Returns:
        The pairs; values are NaN where a product was.

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
    active, failed = np.arange(count), np.zeros(count, bool)
    for j in range(most):
        w = product(active, basis[active, j])  # (n, K)
        lost = np.asarray(~np.isfinite(w).all(axis=1))
        failed[active[lost]] = True
        w = np.where(lost[:, None], 0.0, w)
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
        exhausted |= lost
        going = ~exhausted & (residuals[active] > tolerance * values[active])
        if j == 0:
            going |= ~exhausted  # one vector's residual can be small by chance
        safe = np.where(beta > 0, beta, 1.0)
        basis[active, j + 1] = w / safe[:, None]
        active = active[going]
        if len(active) == 0:
            break
    values[failed], residuals[failed] = np.nan, np.nan
    ritz = tuple(np.linalg.eigvalsh(T[i, : steps[i], : steps[i]])[::-1] for i in range(count))
    return TopEigenpairs(values, residuals, vectors, ritz, steps, np.ones(count, int))


def confirmed(product: Product, noises: Array, *, tolerance: float, most: int, start: Array | None = None) -> TopEigenpairs:
    """Top eigenpairs that two independent starts agree on; the largest found where none do.

    Started near the second eigenvector, the iteration may end there with a small residual: of 1,000 × 1,000 operators with a gap
    of 1 % in every run. A second start, random and from nowhere near, misses the top by itself in less than 1 %, and both miss it
    together in fewer still. Where two starts disagree, a third one decides. It costs as many products again.

    Args:
        product: ``u ↦ M u`` for a subset of the operators.
        noises: Independent normal numbers, (3, count, size).
        tolerance: Relative residual to stop at; twice that is agreement.
        most: Products per operator and start at most.
        start: Start vectors of the first run, as of `lanczos`.
    """
    runs = [lanczos(product, noises[0], tolerance=tolerance, most=most, start=start)]
    runs.append(lanczos(product, noises[1], tolerance=tolerance, most=most))
    values = np.array([r.values for r in runs])
    apart = np.flatnonzero(values.max(axis=0) - values.min(axis=0) > 2 * tolerance * values.max(axis=0))
    if len(apart):
        third = lanczos(lambda rows, u: product(apart[rows], u), noises[2][apart], tolerance=tolerance, most=most)
        runs.append(_spread_out(third, apart, runs[0]))
        values = np.array([r.values for r in runs])
    best = values.argmax(axis=0)
    pick = np.arange(values.shape[1])
    starts = (values >= (1 - 2 * tolerance) * values.max(axis=0)).sum(axis=0)
    return TopEigenpairs(
        values=values[best, pick],
        residuals=np.array([r.residuals for r in runs])[best, pick],
        vectors=np.array([r.vectors for r in runs])[best, pick],
        ritz=tuple(runs[k].ritz[i] for i, k in enumerate(best)),
        products=np.sum([r.products for r in runs], axis=0),
        starts=starts,
    )


def _spread_out(part: TopEigenpairs, rows: Array, like: TopEigenpairs) -> TopEigenpairs:
    """A run of some operators in the place of all: the others have found nothing."""
    count, size = like.vectors.shape
    values, residuals, vectors = np.full(count, -np.inf), np.full(count, np.inf), np.zeros((count, size))
    values[rows], residuals[rows], vectors[rows] = part.values, part.residuals, part.vectors
    products = np.zeros(count, int)
    products[rows] = part.products
    ritz = [np.zeros(0)] * count
    for k, i in enumerate(rows):
        ritz[i] = part.ritz[k]
    return TopEigenpairs(values, residuals, vectors, tuple(ritz), products, np.zeros(count, int))
