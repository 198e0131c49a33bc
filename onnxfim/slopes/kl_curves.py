"""Does the number mean what it says: measured KL divergences along the worst direction against the quadratic form."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import KLCurve, KLPoint
from onnxfim.slopes.kinds import OutputReader

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
    divergences = reader.divergence(base, outputs).reshape(-1, 3)  # (E, 3)
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
        changed = (reader.predictions(outputs) != reader.predictions(base[None])[0]).reshape(-1, 3)[:, :2].any(axis=1)
        flips = float(epsilons[int(changed.argmax())]) if changed.any() else None
    return KLCurve(points, holds, flips)
