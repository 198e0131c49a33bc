"""Check the derivative graphs of a model against the model itself, before any figure is taken from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating]
Original: TypeAlias = Callable[[Array], Array]
Derivative: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
Activation: TypeAlias = Literal["none", "softmax", "log_softmax", "sigmoid"]

OUTPUT_TOLERANCE = 1e-3  # of the largest output: fused kernels and half precision round differently
ADJOINT_TOLERANCE = 1e-4
DIFFERENCE_TOLERANCE = 5e-2  # the best of several steps on a net with kinks; a wrong rule is off by far more
_STEPS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of the sample's norm
_SHARE = 0.75  # of the rows must agree: two sessions may break a tie at a kink differently


@dataclass(frozen=True)
class SelfTest:
    """Outcome; each error is the largest among the better three quarters of the rows, relative; NaN where not reached."""

    passed: bool
    reason: str
    output_error: float
    adjoint_error: float
    difference_error: float


def self_test(
    original: Original, vjp: Derivative, jvp: Derivative, X: Array, *, rng: np.random.Generator, activation: Activation = "none"
) -> SelfTest:
    """Return whether derivative graphs belong to a model and to each other.

    Four checks: the graphs give the model's outputs; ``⟨u, Jv⟩ = ⟨Jᵀu, v⟩``; Jv is the limit of central differences,
    along Jᵀu where the change is largest; Jᵀu is not zero.

    Args:
        original: The model's own outputs for rows of inputs, (N, ...).
        vjp: ``(X, U (S, N, K)) -> (z (N, K), Jᵀu (S, N, *shape))``.
        jvp: ``(X, V (S, N, *shape)) -> (z (N, K), Jv (S, N, K))``.
        X: A few samples, (N, *shape).
        rng: Source of the seeds.
        activation: What the model does to the logits z before it returns them.
    """
    z, _ = jvp(X, np.zeros((1, *X.shape), X.dtype))
    y = np.asarray(original(X), np.float64).reshape(len(X), -1)
    if y.shape != z.shape:
        return _failed(f"the derivative graph returns {z.shape[1]} values per sample, the model {y.shape[1]}")
    output_error = _relative(np.abs(_activated(z, activation) - y).max(axis=1), np.abs(y).max())
    if not output_error <= OUTPUT_TOLERANCE:
        return _failed(f"outputs differ by {output_error:.1e} of the largest", output_error=output_error)
    u = rng.standard_normal((2, *z.shape)).astype(z.dtype)
    _, g = vjp(X, u)
    if not np.isfinite(g).all():
        return _failed("Jᵀu is not finite", output_error=output_error)
    if not g.any():
        return _failed("Jᵀu is zero for every sample: the model is flat here, or rounds its values", output_error=output_error)
    noise = rng.standard_normal(g.shape)
    _, noise_w = jvp(X, noise.astype(X.dtype))
    left, right = _inner(u, noise_w), _inner(g, noise.astype(X.dtype))
    adjoint_error = _relative(np.abs(left - right), _norm(u) * _norm(noise_w) + np.finfo(np.float64).tiny)
    length = np.maximum(_norm(g), np.finfo(np.float32).tiny).reshape(*g.shape[:2], *[1] * (X.ndim - 1))
    v = (g / length).astype(X.dtype)
    _, w = jvp(X, v)
    difference_error = _difference_error(lambda rows: jvp(rows, np.zeros((1, *rows.shape), rows.dtype))[0], X, v, w)
    if not adjoint_error <= ADJOINT_TOLERANCE:
        reason = f"⟨u, Jv⟩ and ⟨Jᵀu, v⟩ differ by {adjoint_error:.1e}: a derivative rule is wrong for this graph"
        return SelfTest(False, reason, output_error, adjoint_error, difference_error)
    if not difference_error <= DIFFERENCE_TOLERANCE:
        reason = f"Jv differs from central differences by {difference_error:.1e}: the graph is not smooth, or a rule is wrong"
        return SelfTest(False, reason, output_error, adjoint_error, difference_error)
    return SelfTest(True, "outputs, adjoint identity and differences agree", output_error, adjoint_error, difference_error)


def _failed(reason: str, *, output_error: float = np.nan) -> SelfTest:
    return SelfTest(False, reason, output_error, np.nan, np.nan)


def _difference_error(logits: Original, X: Array, v: Array, w: Array) -> float:
    """Relative error of w against central differences at the step where most rows agree."""
    length = np.sqrt((X.astype(np.float64) ** 2).reshape(len(X), -1).sum(axis=1)).mean() or 1.0
    errors = []
    for step in _STEPS:
        h = step * length
        ends = [[logits((X + sign * h * d).astype(X.dtype)).astype(np.float64) for d in v] for sign in (1, -1)]
        slope = (np.stack(ends[0]) - np.stack(ends[1])) / (2 * h)
        errors.append(_relative(_norm(w - slope), _norm(w) + np.finfo(np.float64).tiny))
    return min(errors)


def _relative(error: NDArray[np.float64], size: NDArray[np.float64] | float) -> float:
    """The error that three quarters of the rows keep, relative; infinite where it is not a number."""
    ratio = np.nan_to_num(error / np.where(np.asarray(size) > 0, size, 1.0), nan=np.inf)
    return float(np.sort(ratio.reshape(-1))[int(np.ceil(_SHARE * ratio.size)) - 1])


def _inner(a: Array, b: Array) -> NDArray[np.float64]:
    """Inner products of seeds and rows, (S, N)."""
    product: NDArray[np.float64] = a.astype(np.float64) * b.astype(np.float64)
    return np.asarray(product.reshape(*a.shape[:2], -1).sum(axis=-1))


def _norm(a: Array) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(_inner(a, a)))


def _activated(z: Array, activation: Activation) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = z.astype(np.float64)
    if activation == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))
    if activation == "none":
        return logits
    log_p = logits - logits.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    return np.asarray(log_p if activation == "log_softmax" else np.exp(log_p))
