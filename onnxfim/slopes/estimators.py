"""Estimates of lambda_max, trace, logit sensitivity and boundary distance at one sample, from scores and slopes.

Functions of arrays only; nothing here knows a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import Estimate, Kind
from onnxfim.slopes.difference_error import DifferenceError
from onnxfim.slopes.sketches import (
    as_multiples,
    cross_fit,
    group_sums,
    jackknife,
    lambda_max_sketches,
    leading_parts,
    plain_tops,
    scales,
    student_quantile,
)

Array: TypeAlias = np.ndarray[Any, Any]

#: Why there is no boundary distance.
NO_SLOPE = "no slope towards another class was resolved"
_SHARP = 0.1  # of the largest singular value: errors of the differences below this leave a value exact
# Pairings of different directions that a cross-Gram value must exceed: by chance the largest of nine is the true one in 11 %.
_SHIFTS = 8


@dataclass(frozen=True)
class Gram:
    """Scores along m directions in the eigenbasis of their Gram matrix.

    Attributes:
        Z: Scores projected on the leading eigenvectors, (m, q); ``ZᵀZ`` is diagonal.
        top: Largest eigenvalue of ``YᵀY`` over all of the spectrum.
        trace: ``‖Y‖²_F``.
    """

    Z: Array
    top: float
    trace: float


def gram(Y: Array) -> Gram:
    """Project scores (m, K) on the leading eigenvectors of ``YᵀY``, through the smaller of its two forms.

    For K > m the m×m form is used, so no K×K matrix is ever made. The part of the spectrum that is dropped from ``Z`` holds
    less than a quarter of the largest eigenvalue in total.
    """
    Z, w = leading_parts(Y[None])
    return Gram(Z[0], float(w[0, -1]), float(w[0].sum()))


def lambda_max_exact(Y: Array, *, error: float = 0.0, evaluations: int = 0, method: str = "all coordinates") -> Estimate:
    """lambda_max(F) from scores along all d coordinate directions: the top eigenvalue of ``YᵀY``.

    Args:
        Y: Scores ``y(e_i)``, (d, K).
        error: Bound of the spectral norm of the scores' errors; by Weyl's inequality it bounds that of the largest singular value.
        evaluations: Forward passes spent.
        method: How the scores were made.

    Returns:
        lambda_max in nats per squared input unit with the interval that the error leaves. It is an estimate, not exact, where that
        is wide.
    """
    value = _top(Y)
    low, high = _ends(value, error)
    kind: Kind = "exact" if error <= _SHARP * math.sqrt(value) else "estimate"
    return Estimate(value, low, high, kind, method, evaluations, plain=value, cross_fit=value)


def lambda_max_sketch(Y: Array, *, groups: int = 20, evaluations: int = 0, method: str = "Gram sketch") -> Estimate:
    """Estimate lambda_max(F) at one sample from scores along random directions.

    ``E[y yᵀ] = A Aᵀ`` for ``v`` with identity covariance, so the top eigenvalue of ``YᵀY / m`` is consistent, biased upwards;
    the delete-group jackknife removes the first-order bias. The interval is log-normal with the larger of the jackknife's
    standard error and ``√(2/m)``, which no spectrum goes far below; its lower end reaches below the cross-fit value, which is
    not biased upwards, by that one's own error, so that a flat spectrum (where the correction falls short) is covered too.

    Args:
        Y: Scores ``y(v_i)`` of m independent directions, (m, K).
        groups: Number of jackknife groups, at most m.
        evaluations: Forward passes spent.
        method: How the scores were made.

    Returns:
        lambda_max in nats per squared input unit, ``kind="estimate"``, with its 95 % interval.

    Source: Miller (1974), Biometrika 61(1), for the jackknife.
    """
    return lambda_max_sketches(Y[None], [method], groups=groups, evaluations=evaluations)[0]


def lambda_max_cross(Y: Array, twin: Array, *, groups: int = 20, evaluations: int = 0) -> Estimate:
    """Estimate lambda_max from scores at two independently dithered points per direction (dithered cross-Gram).

    ``sym(Σ y⁽¹⁾y⁽²⁾ᵀ)/m`` has the same mean as the Gram matrix of the signal, while rounding noise that is independent at the
    two points has mean zero in it. Its top eigenvalue is positive for noise alone too, so it must exceed what scores of different
    directions give when they are paired; where it does not, nothing was resolved, and the value is None with the reason.

    Args:
        Y, twin: Scores of m directions around the two points, (m, K) each.
        groups: Number of jackknife groups, at most m.
        evaluations: Forward passes spent.

    Returns:
        lambda_max at the scale of the step, with its 95 % interval; ``plain`` is the value with the noise in it.
    """
    method = "dithered cross-Gram"
    scale = max(_scale(Y), _scale(twin))
    both = gram(np.concatenate([Y, twin]) / scale)
    m = len(Y)
    groups = max(2, min(groups, m))
    Z1, Z2 = both.Z[:m], both.Z[m:]
    sums = group_sums(Z1[None], Z2[None], groups)[0]
    sums = (sums + sums.transpose(0, 2, 1)) / 2
    sizes = np.bincount(np.arange(m) % groups, minlength=groups)
    top = float(np.linalg.eigvalsh(sums.sum(axis=0))[-1])
    plain = both.top / (2 * m)
    unit = scale**2
    if top <= 0.0:
        reason = "no slope was resolved above the model's own rounding at this step"
        return Estimate(None, None, None, "estimate", method, evaluations, reason, plain=plain * unit)
    pseudo = jackknife(sums[None], sizes, np.array([top]))[0]
    value, error = _mean_and_error(pseudo)
    crossed = float(cross_fit(sums[None], sizes)[0])
    value = max(value, min(max(crossed, 0.0), top / m))
    error = max(error, top / m * math.sqrt(2 / m))
    half = student_quantile(groups - 1) * error
    if value <= 0.0 or half > 3 * value or top <= _unrelated_top(Z1, Z2):
        reason = (
            "the cross-Gram estimate is no larger than noise alone makes it: the model's own rounding hides the slope at this step"
        )
        return Estimate(None, 0.0, (max(value, 0.0) + half) * unit, "estimate", method, evaluations, reason, plain=plain * unit)
    low, high = value * math.exp(-half / value), value * math.exp(half / value)
    estimate = Estimate(value * unit, max(min(low, crossed), 0.0) * unit, high * unit, "estimate", method, evaluations)
    return replace(estimate, plain=plain * unit, cross_fit=crossed * unit, replicates=as_multiples(pseudo, value))


def plain_top(Y: Array, twin: Array | None = None) -> float:
    """The top eigenvalue of ``YᵀY``, or of ``sym(YᵀY₂)`` with the scores at dithered twins; not negative."""
    if twin is None:
        return float(plain_tops(Y[None])[0])
    scale = max(_scale(Y), _scale(twin))
    both = gram(np.concatenate([Y, twin]) / scale)
    product = both.Z[: len(Y)].T @ both.Z[len(Y) :]
    return max(float(np.linalg.eigvalsh((product + product.T) / 2)[-1]), 0.0) * scale**2


def trace_estimate(
    Y: Array, twin: Array | None = None, *, exact: bool = False, error: float = 0.0, evaluations: int = 0
) -> Estimate:
    """``tr F``: unbiased mean of ``y(v)·y(v)`` (``y⁽¹⁾·y⁽²⁾`` with dithered twins); the sum over all coordinates if exact.

    ``error`` bounds the Frobenius norm of the scores' errors, for the exact one.
    """
    squares = (Y * (Y if twin is None else twin)).sum(axis=1)  # (m,)
    if exact:
        total = float(squares.sum())
        low, high = _ends(total, error)
        return Estimate(total, low, high, "exact", "all coordinates", evaluations)
    value = float(squares.mean())
    half = student_quantile(len(squares) - 1) * float(squares.std(ddof=1)) / math.sqrt(len(squares))
    if value <= 0:
        return Estimate(None, None, None, "estimate", "Hutchinson", evaluations, "no slope was resolved at this step")
    low, high = value * math.exp(-half / value), value * math.exp(min(half / value, 50.0))
    return Estimate(value, low, high, "estimate", "Hutchinson", evaluations)


def effective_rank(trace: Estimate, lambda_max: Estimate) -> Estimate:
    """``tr F / lambda_max``: how many directions carry the information, at least 1; a lower bound where the trace is one."""
    if trace.value is None or not lambda_max.value:
        return Estimate(None, reason=trace.reason or lambda_max.reason or "lambda_max is 0")
    kind = lambda_max.kind if trace.kind == "exact" else trace.kind
    return Estimate(
        max(trace.value / lambda_max.value, 1.0), kind=kind, method="trace over lambda_max", evaluations=trace.evaluations
    )


def sensitivity_estimate(
    D: Array, twin: Array | None = None, *, exact: bool = False, error: float = 0.0, evaluations: int = 0
) -> Estimate:
    """``‖J‖₂`` from slopes of the logits, (m, K): the root of the sketch of ``λ_max(JJᵀ)``, or of its cross-Gram.

    ``error`` is as in `lambda_max_exact`.
    """
    square = lambda_max_exact(D, error=error) if exact else lambda_max_sketch(D) if twin is None else lambda_max_cross(D, twin)
    return root_of(square, evaluations)


def root_of(square: Estimate, evaluations: int) -> Estimate:
    """The root of an estimate of a square, with its interval."""
    roots = [None if v is None else math.sqrt(max(v, 0.0)) for v in (square.value, square.low, square.high)]
    return Estimate(roots[0], roots[1], roots[2], square.kind, square.method, evaluations, square.reason)


def boundary_distance_estimate(
    z: Array,
    D: Array,
    twin: Array | None = None,
    *,
    exact: bool = False,
    error: DifferenceError | None = None,
    evaluations: int = 0,
) -> Estimate:
    """First-order L2 distance to the decision boundary, ``min_j (z_c − z_j) / ‖∇(z_c − z_j)‖₂``.

    Independent of temperature. ``‖∇(z_c − z_j)‖²`` is the mean of squared slope differences (their sum over all coordinates).

    Args:
        z: Logits, (K,).
        D: Slopes of the logits along m directions, (m, K).
        twin: The same around independently dithered points: rounding noise has mean zero in the products of the two.
        exact: The directions are all coordinates.
        error: What those slopes may be off by, for the exact one.
        evaluations: Forward passes spent.

    Returns:
        Distance in input units; the interval is that of the nearest class's gradient norm.
    """
    c = int(z.argmax())
    gaps = z[c] - z  # (K,)
    differences = D[:, c, None] - D  # (m, K)
    others = differences if twin is None else twin[:, c, None] - twin
    squares = np.maximum(np.einsum("mk,mk->k", differences, others) / (1 if exact else len(D)), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = gaps / np.sqrt(squares)
    distances[c] = np.inf
    j = int(np.nanargmin(distances)) if not np.isnan(distances).all() else c
    value = float(distances[j])
    if not math.isfinite(value):
        return Estimate(None, None, None, "estimate", "", evaluations, NO_SLOPE)
    if exact:
        low: float
        high: float | None
        low, high = (value, value) if error is None else error.distance(gaps, np.sqrt(squares), c)
        return Estimate(value, low, high, "exact", "all coordinates", evaluations)
    nearest = differences[:, j] * others[:, j]
    # d = gap / √q: half of q's relative error, and q is a mean of m squares.
    relative = float(nearest.std(ddof=1) / nearest.mean() / math.sqrt(len(nearest))) / 2
    relative = max(relative, math.sqrt(2 / len(nearest)) / 2)
    factor = math.exp(student_quantile(len(nearest) - 1) * relative)
    return Estimate(value, value / factor, value * factor, "estimate", "mean squared slope", evaluations)


def top_eigenvalues(Y: Array, count: int = 5) -> tuple[float, ...]:
    """The largest eigenvalues of ``YᵀY``, descending."""
    scale = _scale(Y)
    scaled = Y / scale
    w = np.linalg.eigvalsh(scaled @ scaled.T if len(Y) < Y.shape[1] else scaled.T @ scaled)[::-1][:count]
    return tuple(float(max(v, 0.0)) * scale**2 for v in w)


def worst_direction(Y: Array) -> Array:
    """Unit direction (d,) along which the output distribution moves most, from scores (d, K) along all coordinates.

    It is the top eigenvector of ``F = YYᵀ``. Its sign is free; the entry of largest magnitude is made positive.
    """
    scaled = Y / _scale(Y)
    wide = len(Y) < Y.shape[1]
    u = np.linalg.eigh(scaled @ scaled.T if wide else scaled.T @ scaled)[1][:, -1]
    v = u if wide else scaled @ u
    v = v / (np.linalg.norm(v) or 1.0)
    return np.asarray(v * (np.sign(v[np.abs(v).argmax()]) or 1.0))


def _top(Y: Array) -> float:
    """Largest eigenvalue of ``YᵀY``."""
    return float(plain_tops(Y[None])[0])


def _ends(square: float, error: float) -> tuple[float, float]:
    """Ends of a square whose root may be off by ``error``."""
    if error == 0:
        return square, square
    root = math.sqrt(square)
    return max(root - error, 0.0) ** 2, (root + error) ** 2


def _scale(Y: Array) -> float:
    """A factor that keeps squares of scores away from under- and overflow."""
    return float(scales(Y[None])[0])


def _mean_and_error(pseudo: Array) -> tuple[float, float]:
    """The bias-corrected value and its standard error."""
    return float(pseudo.mean()), float(pseudo.std(ddof=1)) / math.sqrt(len(pseudo))


def _unrelated_top(Z1: Array, Z2: Array) -> float:
    """Largest top eigenvalue of ``sym(Σ z⁽¹⁾_i z⁽²⁾_{i+s}ᵀ)`` over shifts s: what pairs with no common signal give."""
    products = np.stack([Z1.T @ np.roll(Z2, shift, axis=0) for shift in range(1, min(_SHIFTS, len(Z1) - 1) + 1)])  # (s, q, q)
    return float(np.linalg.eigvalsh((products + products.transpose(0, 2, 1)) / 2)[:, -1].max())
