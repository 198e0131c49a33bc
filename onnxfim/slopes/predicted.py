"""Where slopes, or λ alone, put the nearest change of a sample's prediction: estimates in L2 and L∞, which promise nothing."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.guarantees import Norm, PredictedDistance
from onnxfim.record.special import log_softmax
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]


def first_order(gaps: Array, slopes: Array, unit: Array) -> dict[Norm, float | None]:
    """``min_j (z_c − z_j) / ‖∇(z_c − z_j)‖`` in raw units, by the norm of the move; None where no slope leads to another class.

    Args:
        gaps: ``z_c − z_j`` of the other classes, (m,), not negative.
        slopes: ``∇(z_c − z_j)`` by the model's input, (m, d).
        unit: How many model input units one raw unit is, (d,) or a number.
    """
    raw = slopes * unit
    found: dict[Norm, float | None] = {}
    duals: dict[Norm, Array] = {"l2": np.linalg.norm(raw, axis=1), "linf": np.abs(raw).sum(axis=1)}
    for norm, sizes in duals.items():
        there = sizes > 0
        nearest = float((gaps[there] / sizes[there]).min()) if there.any() else math.inf
        found[norm] = nearest if math.isfinite(nearest) else None
    return found


def by_sensitivity(reader: OutputReader, base: Array, sensitivity: float | None) -> float | None:
    """Where λ alone puts the boundary to the class next in the lead; None where it is no positive number.

    Of two classes the logits' difference m has ``F = w ∇m ∇mᵀ`` with ``w = p (1 − p)``, so that λ tells its slope and m is 0 at
    ``m √(w / λ)``: ``ln(p / (1 − p)) √(p (1 − p) / λ)``. Of more, ``F ≥ w ∇m ∇mᵀ`` holds for m the lead over the runner-up and
    ``1/w = eᵀC⁺e`` with e what makes m of the logits: ``1/p_c + 1/p_j`` of a softmax, the same of ``p (1 − p)`` of sigmoids. So
    the distance is at most the first-order one to the runner-up, and that one where the worst direction leads straight to it.
    All of it is in logarithms: of a p that is 1 to all digits the lead is known, and λ may be 1e-35.

    Args:
        reader: What the outputs are.
        base: Outputs at the sample, (K, 1).
        sensitivity: λ, or ``sᵀFs`` along a move of unit length in another norm, per squared raw unit.
    """
    if not sensitivity or not sensitivity > 0:
        return None
    values = reader.contest(base, np.zeros((1, *base.shape)))[0]
    first, second = np.argsort(-values, kind="stable")[:2]
    z = reader.logits(base)[:, 0]
    log_w = -np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z))) if reader.independent else log_softmax(z, axis=0)
    log_w = np.r_[log_w, np.full(len(values) - len(log_w), np.inf)]  # a logit of 0 that stands against a lone one never moves
    together = -np.logaddexp(-log_w[first], -log_w[second])
    found = float((values[first] - values[second]) * np.exp((together - math.log(sensitivity)) / 2))
    return found if math.isfinite(found) else None


def told(
    near: dict[Norm, float | None], fisher: dict[Norm, float | None]
) -> tuple[PredictedDistance, ...]:  # fmt: skip
    """Both estimates in each norm in which there is one."""
    norms: tuple[Norm, Norm] = ("l2", "linf")
    pairs = [(norm, near.get(norm), fisher.get(norm)) for norm in norms]
    return tuple(PredictedDistance(norm, a, b) for norm, a, b in pairs if a is not None or b is not None)


def sign_sensitivity(reader: OutputReader, base: Array, slopes: Array) -> float:
    """``sᵀFs`` from slopes of the logits along s, (K,): the sensitivity along a move of L∞ length 1, at most the largest of all."""
    zeros = np.zeros((1, *base.shape))
    return float(np.square(reader.scores(base, slopes.reshape(zeros.shape).astype(np.float64), zeros, 1.0)).sum())
