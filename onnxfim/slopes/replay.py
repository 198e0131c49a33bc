"""Does the number mean what it says: measured KL divergences along the worst direction against the quadratic form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import KLCurve, KLPoint
from onnxfim.slopes.kinds import Gaussian, OutputReader, SigmoidLogits

Array: TypeAlias = np.ndarray[Any, Any]

#: Distances of the ladder, in first-order boundary distances of the sample.
LADDER = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
_HOLDS = 0.10


def rows_along(x: Array, worst: Array, other: Array, epsilons: Array) -> Array:
    """The points of a sample's KL curve: x + εv, x − εv and x + εw for each ε, (3·E, *shape), in the type of x."""
    moves = np.stack([worst, -worst, other])  # (3, d)
    points = x.ravel()[None, None] + epsilons[:, None, None] * moves[None]  # (E, 3, d)
    return points.reshape(-1, *x.shape).astype(x.dtype)


def kl_curve(reader: OutputReader, base: Array, outputs: Array, epsilons: Array, lam: float) -> KLCurve:
    """The KL curve of one sample.

    Args:
        reader: What the outputs are.
        base: Outputs at x, (K, 1).
        outputs: Outputs at `rows_along`, (3·E, K, 1).
        epsilons: Distances, ascending, (E,).
        lam: lambda_max at x.
    """
    divergences = divergence(reader)(base, outputs).reshape(-1, 3)  # (E, 3)
    points = tuple(
        KLPoint(float(e), float(k[0]), float(k[1]), float(k[2]), 0.5 * lam * float(e) ** 2)
        for e, k in zip(epsilons, divergences, strict=True)
    )
    holds = None
    for p in points:
        if p.quadratic <= 0 or max(abs(p.along / p.quadratic - 1), abs(p.against / p.quadratic - 1)) > _HOLDS:
            break
        holds = p.epsilon
    flips = None
    if reader.has_classes:
        decided = _decisions(reader, base[None])[0]
        changed = (_decisions(reader, outputs) != decided).reshape(-1, 3)[:, :2].any(axis=1)
        flips = float(epsilons[int(changed.argmax())]) if changed.any() else None
    return KLCurve(points, holds, flips)


def divergence(reader: OutputReader) -> Callable[[Array, Array], Array]:
    """``KL(p ‖ q)`` in nats from outputs (K, 1) at x and (R, K, 1) at the moved points, without cancellation for small moves."""
    if isinstance(reader, Gaussian):
        return lambda base, outputs: ((outputs - base) ** 2).sum(axis=(1, 2)) / (2 * reader.sigma**2)
    return bernoulli_divergence if isinstance(reader, SigmoidLogits) else softmax_divergence


def softmax_divergence(base: Array, outputs: Array) -> Array:
    """KL between softmax distributions: ``log1p Σ p (e^t − 1 − t)`` with ``t`` the change of the logits less its mean under p."""
    z = base[:, 0]
    p = np.exp(z - z.max())
    p /= p.sum()
    change = outputs[:, :, 0] - z  # (R, K)
    t = change - change[:, [int(p.argmax())]]
    t = t - (t * p).sum(axis=1, keepdims=True)
    return np.log1p((p * _excess(t)).sum(axis=1))


def bernoulli_divergence(base: Array, outputs: Array) -> Array:
    """KL between Bernoulli distributions of independent sigmoid logits, summed over the outputs."""
    total = np.zeros(len(outputs))
    for k in range(base.shape[0]):
        two = np.array([[base[k, 0]], [0.0]])
        moved = np.zeros((len(outputs), 2, 1))
        moved[:, 0, 0] = outputs[:, k, 0]
        total += softmax_divergence(two, moved)
    return total


def _excess(t: Array) -> Array:
    """``e^t − 1 − t``, by its series where t is small."""
    small = np.abs(t) < 1e-3
    clipped = np.where(small, 0.0, np.minimum(t, 700.0))
    return np.where(small, t**2 / 2 * (1 + t / 3 * (1 + t / 4)), np.expm1(clipped) - clipped)


def _decisions(reader: OutputReader, outputs: Array) -> Array:
    z = outputs[:, :, 0]
    return z.argmax(axis=1) if z.shape[1] > 1 else (reader.probabilities(outputs)[:, 0, 0] > 0.5).astype(np.int64)
