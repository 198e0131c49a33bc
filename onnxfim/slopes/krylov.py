"""Largest eigenvalues of symmetric positive operators from products only: batched block Lanczos, where each stops by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

#: Takes positions of operators (n,) and a block of vectors each, (n, S, K), zeros where there is none; returns the products
#: (n, S, K), float64.
Product: TypeAlias = Callable[[Array, Array], Array]

#: Of the tolerance. A residual shows an eigenvalue, and others may lie close above it: of planted clusters of 2 to 10 eigenvalues
#: within 1e-4 to 1e-2, a residual of the tolerance left values up to twice the tolerance below the largest.
MARGIN = 0.25
#: Of the distance of two Ritz values: the residual of the lower at which their gap is believed. From a start near the second of
#: three eigenvectors the largest was still rising at a half in 2 of 100 runs, at a tenth in 1 of 1,600.
_SHARP = 0.05
_SETTLED = 0.25  # the same, at which the second is no longer taken for one that may pass the first
_SPENT = 1e-12  # of the value: what is left of a product is rounding


@dataclass(frozen=True)
class TopEigenpairs:
    """The top of the spectrum of each operator ``M = A Aᵀ``.

    Attributes:
        values: ``θ + ‖r‖²/θ`` of the largest Ritz value θ with its residual r: the Rayleigh quotient of ``Aᵀu`` under ``AᵀA``, half
            a step ahead of θ, and a lower bound of lambda_max too, (N,).
        residuals: ``‖M u − θu‖``: there is an eigenvalue within this of θ, (N,).
        errors: How far lambda_max may lie above the value (`value_errors`), (N,).
        vectors: Ritz vectors, unit length, (N, K).
        ritz: All Ritz values of each operator, descending.
        products: Products spent on each, (N,).
    """

    values: Array
    residuals: Array
    errors: Array
    vectors: Array
    ritz: tuple[Array, ...]
    products: Array


def lanczos(product: Product, starts: Array, *, tolerance: float, most: int) -> TopEigenpairs:
    """Top eigenpairs of ``count`` operators of ``size`` × ``size``, each until the error of its value is below ``tolerance`` of it.

    Several independent random starts in one Krylov space find what one misses: from near the second eigenvector one start that
    stopped at its residual returned that as the largest in up to 85 % of the runs at a gap of 1 %. A cluster shows as many members
    as there are starts, so that a gap below the first is a gap, and not the distance from the cluster's mean to the rest. Full
    reorthogonalisation (twice) keeps the bases orthonormal, so Ritz values do not repeat.

    Args:
        product: ``u ↦ M u`` for blocks of vectors of some of the operators.
        starts: S starts of each, (count, S, size); a start of zeros is none.
        tolerance: Relative error of the value to stop at.
        most: Products with each start at most.

    Returns:
        The pairs; values are NaN where a product was.

    Source: Golub & Van Loan, Matrix Computations, 4th ed., section 10.3.6 (block Lanczos); Parlett, The Symmetric Eigenvalue
    Problem (1998), sections 11.5 and 11.7 for the errors.
    """
    count, _, size = starts.shape
    values, residuals, errors = np.zeros(count), np.full(count, np.inf), np.full(count, np.inf)
    vectors, products = np.zeros((count, size)), np.zeros(count, int)
    ritz: list[Array] = [np.zeros(0)] * count
    active = np.arange(count)
    block, alive = _orthonormal(starts, np.linalg.norm(starts, axis=2).max(axis=1))
    several = alive.sum(axis=1) > 1
    Q, T = np.zeros((count, 0, size)), np.zeros((count, 0, 0))
    for step in range(max(1, min(most, size // starts.shape[1]))):
        w = product(active, block)  # (n, S, K)
        products[active] += alive.sum(axis=1)
        lost = np.asarray(~np.isfinite(w).all(axis=(1, 2)))
        w = np.where(lost[:, None, None], 0.0, w)
        Q = np.concatenate([Q, block], axis=1)  # (n, m, K)
        w, h = _remainder(Q, w)
        T = _bordered(T, h)
        theta, s = np.linalg.eigh(T)  # ascending; 0 along vectors that are none
        theta, s = np.maximum(theta[:, ::-1], 0.0), s[:, :, ::-1]
        r = np.linalg.norm(s[:, -w.shape[1] :].transpose(0, 2, 1) @ w, axis=2)  # of every Ritz pair, (n, m)
        top = theta[:, 0]
        values[active] = top + np.divide(r[:, 0] ** 2, top, out=np.zeros_like(top), where=top > 0)
        residuals[active], errors[active] = r[:, 0], value_errors(theta, r, gaps=several[active] & (step > 0))
        vectors[active] = (s[:, :, 0][:, None] @ Q)[:, 0]
        for k, i in enumerate(active.tolist()):
            ritz[i] = theta[k, : int(Q[k].any(axis=1).sum())]
        block, alive = _orthonormal(w, top)
        values[active[lost]], residuals[active[lost]], errors[active[lost]] = np.nan, np.nan, np.nan
        # Residuals of one step can be small by chance.
        going = alive.any(axis=1) & ~lost & ((errors[active] > tolerance * values[active]) | (step == 0))
        active, block, alive, Q, T = active[going], block[going], alive[going], Q[going], T[going]
        if len(active) == 0:
            break
    return TopEigenpairs(values, residuals, errors, vectors, tuple(ritz), products)


def value_errors(theta: Array, residuals: Array, *, gaps: Array) -> Array:
    """How far the largest eigenvalue may lie above ``θ + ‖r‖²/θ``, (n,), with a margin for what Ritz values do not show.

    ``‖r‖``, of the second Ritz value too while that may still rise above the first; or the Kato-Temple bound where a gap shows: if
    all eigenvalues but the largest are at most ``b < θ``, that is at most ``θ + ‖r‖²/(θ − b)``. The second Ritz value and its
    residual stand for b, and are believed once the residual is small beside their distance.

    Args:
        theta: Ritz values, descending, (n, m).
        residuals: Theirs, (n, m).
        gaps: Whether a gap may be believed: of more than one start, after more than one step, (n,).
    """
    top, first = theta[:, 0], residuals[:, 0]
    if theta.shape[1] < 2:
        return first / MARGIN
    second = residuals[:, 1]
    apart, rest = top - theta[:, 1], theta[:, 1] + second
    plain = np.where(second <= _SETTLED * apart, first, np.maximum(first, second)) / MARGIN
    shown = gaps & (second <= _SHARP * apart) & (rest < top)
    gap = np.where(shown, top - rest, 1.0)
    bound = first * (first / gap) * np.divide(rest, top, out=np.zeros_like(top), where=top > 0) / MARGIN
    return np.where(shown, np.minimum(bound, plain), plain)


def _remainder(Q: Array, w: Array) -> tuple[Array, Array]:
    """What is left of w (n, S, K) beside the bases Q (n, m, K), and the coefficients of the rest, (n, m, S)."""
    h = Q @ w.transpose(0, 2, 1)
    w = w - h.transpose(0, 2, 1) @ Q
    again = Q @ w.transpose(0, 2, 1)
    return w - again.transpose(0, 2, 1) @ Q, h + again


def _bordered(T: Array, h: Array) -> Array:
    """The projected operators T with the columns h (n, m, S) of a new block, symmetric, (n, m, m)."""
    n, m, S = h.shape
    grown = np.zeros((n, m, m))
    grown[:, : m - S, : m - S] = T
    corner = h[:, m - S :]
    grown[:, : m - S, m - S :] = h[:, : m - S]
    grown[:, m - S :, : m - S] = h[:, : m - S].transpose(0, 2, 1)
    grown[:, m - S :, m - S :] = (corner + corner.transpose(0, 2, 1)) / 2
    return grown


def _orthonormal(w: Array, scale: Array) -> tuple[Array, Array]:
    """The vectors (n, S, K) made orthonormal, and which there are, (n, S); the others are zero: rounding beside ``scale`` (n,)."""
    q, R = np.linalg.qr(w.transpose(0, 2, 1))
    alive = np.abs(np.diagonal(R, axis1=1, axis2=2)) > np.maximum(_SPENT * scale, np.finfo(float).tiny)[:, None]
    return np.where(alive[:, :, None], q.transpose(0, 2, 1), 0.0), alive
