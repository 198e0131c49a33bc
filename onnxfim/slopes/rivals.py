"""Boundary distances of many classes: from the slopes towards those that can be nearest, with a bound for all others."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.sample import Estimate

Array: TypeAlias = np.ndarray[Any, Any]

_RUNNERS_UP = 9  # classes next in logit that are always asked
_FURTHER = 15  # classes that are asked too where no other is left then
#: Classes next in logit that are asked where there is no bound for the others.
MOST = _RUNNERS_UP + _FURTHER


def distances_to_rivals(
    model: DifferentiableModel, x: Array, z: Array, stretch: Array, rounding: float, of: Array | None = None
) -> tuple[list[Estimate], list[Array], Array]:  # fmt: skip
    """Boundary distances of n samples, weights of the logits (K,) whose sum rises towards the nearest boundary, and passes, (n,).

    Class j is at ``(z_c − z_j)/‖J_c − J_j‖`` to first order, and so at ``(z_c − z_j)/(√2 ‖J‖)`` at least: classes that lie further
    than the nearest found need not be asked. Where some are left, the value is an upper bound; its interval reaches down to theirs.

    Args:
        model: The derivative graphs.
        x: Samples, (n, *shape).
        z: Their logits, (n, K).
        stretch: Upper bounds of ``‖J‖``, (n,).
        rounding: Relative error of slopes.
        of: Positions of the samples, (n,), for a model that needs them.
    """
    order = np.argsort(-z, axis=1, kind="stable")
    gaps = np.take_along_axis(z, order[:, :1], 1) - np.take_along_axis(z, order, 1)  # (n, K), ascending from 0
    asked = min(_RUNNERS_UP, z.shape[1] - 1)
    norms = _norms(model, x, of, order, slice(1, asked + 1))
    passes = np.full(len(x), 1 + asked)
    estimates, ways = [], []
    for k, (gap, size) in enumerate(zip(gaps, norms, strict=True)):
        floors = gap / (math.sqrt(2) * stretch[k] * (1 + rounding)) if stretch[k] > 0 else np.full(len(gap), np.inf)  # (K,)
        known = _ratios(gap[1 : asked + 1], size)
        candidates = int((floors < known.min()).sum()) - 1  # they are next in logit, after the class itself
        if asked < candidates <= asked + _FURTHER:
            more = slice(asked + 1, candidates + 1)
            known = np.r_[known, _ratios(gap[more], _norms(model, x[[k]], None if of is None else of[[k]], order[[k]], more)[0])]
            passes[k] += 1 + candidates - asked
        nearest = int(known.argmin())
        estimates.append(_estimate(float(known[nearest]), len(known), floors[len(known) + 1 :], rounding))
        way = np.zeros(z.shape[1])
        way[order[k, nearest + 1]], way[order[k, 0]] = 1.0, -1.0
        ways.append(way)
    return estimates, ways, passes


def slopes_to_rivals(model: DifferentiableModel, x: Array, of: Array | None, order: Array, some: slice) -> Array:
    """``∇(z_c − z_j)`` for some of the classes j in their order (n, K), c being the first, (m, n, *shape)."""
    n, rivals = len(order), order[:, some].T  # (m, n)
    U = np.zeros((*rivals.shape, order.shape[1]))
    U[..., np.arange(n), order[:, 0]] = 1.0
    np.put_along_axis(U, rivals[:, :, None], -1.0, axis=2)
    return model.vjp(x, U, of)[1]


def _norms(model: DifferentiableModel, x: Array, of: Array | None, order: Array, some: slice) -> Array:
    """``‖J_c − J_j‖`` for some of the classes j in their order, (n, m), c being the first."""
    slopes = slopes_to_rivals(model, x, of, order, some)
    return np.asarray(np.linalg.norm(slopes.reshape(*slopes.shape[:2], -1).astype(np.float64), axis=2).T)


def _ratios(gaps: Array, norms: Array) -> Array:
    return np.divide(gaps, norms, out=np.full(gaps.shape, np.inf), where=norms > 0)


def _estimate(distance: float, asked: int, floors: Array, rounding: float) -> Estimate:
    """The distance, with what the classes that were not asked leave open: they lie at ``floors`` (m,) or further."""
    if not math.isfinite(distance):
        return Estimate(None, reason="no slope towards another class")
    low = float(floors.min(initial=math.inf))
    if low >= distance:
        low, high = distance / (1 + rounding), distance * (1 + rounding)
        return Estimate(distance, low, high, "exact", f"first-order, over the {asked} classes next in logit: no other is nearer")
    return Estimate(distance, low, distance, "upper bound", f"first-order, over the {asked} classes next in logit")
