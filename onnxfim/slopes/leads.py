"""Where to look for a flip: the Fisher direction and the way to the nearest boundary, as weights of what was measured.

A lead is a pair of weights, of directions (m,) or of outputs (K,): ``Σ cᵢ vᵢ`` or ``Jᵀc`` is then the direction. It takes the place
of the direction itself, which has as many numbers as an input.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.slopes.differences import Ends
from onnxfim.slopes.estimators import worst_direction
from onnxfim.slopes.flips import ValidRange
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.triangle import pieces

Array: TypeAlias = np.ndarray[Any, Any]


def lead_of_directions(reader: OutputReader, base: Array, ends: Ends) -> Array:
    """Weights of the directions that were measured, (2, m): of the sketch's worst direction, and of the nearest boundary's slope.

    The worst direction of ``F ≈ VᵀYYᵀV`` is ``Vᵀc`` with c the top left singular vector of the scores Y (m, K); from m random
    directions of d coordinates it is about ``√(m/(m + d))`` of the true one. A sample without a slope has zeros.
    """
    pairs = [ends] if ends.twin is None else [ends, ends.twin]
    Y = np.mean([reader.scores(base, e.plus, e.minus, e.h) for e in pairs], axis=0)
    lead = np.zeros((2, len(Y)))
    if Y.any():
        lead[0] = worst_direction(Y)
    if reader.has_classes and base.shape[1] == 1:
        z, D = reader.contest(base, np.mean([reader.slopes(e.plus, e.minus, e.h) for e in pairs], axis=0))
        if (pair := nearest_boundary(z, D)) is not None:
            lead[1] = D[:, pair[1]] - D[:, pair[0]]
    return lead


def lead_of_outputs(reader: OutputReader, base: Array, ends: Ends, x: Array, box: ValidRange | None, temperature: float) -> Array:
    """Weights of the outputs, (2, K), from the slopes along all coordinates of x (*shape): see `output_weights`."""
    Y = reader.scores(base, ends.plus, ends.minus, ends.h, temperature)
    u = Y.T @ worst_direction(Y) if Y.any() else np.zeros(Y.shape[1])
    towards = None
    if reader.has_classes:
        z, D = reader.contest(base, reader.slopes(ends.plus, ends.minus, ends.h))
        if ends.jacobian is not None and box is not None:
            pair = _nearest(z, _norms_inside(reader, base, ends.jacobian, x.ravel(), box))
        else:
            pair = nearest_boundary(z, D, x.ravel(), box)
        if pair is not None:
            S = reader.contest(base, np.eye(len(base))[:, :, None])[1]
            towards = S[:, pair[1]] - S[:, pair[0]]
    return output_weights(reader, base, u, towards, temperature)


def output_weights(reader: OutputReader, base: Array, u: Array, towards: Array | None, temperature: float = 1.0) -> Array:
    """Weights c of the outputs, (2, K), largest entry 1: ``Jᵀc`` is ``Aᵀu``, and the slope of what ``towards`` weighs.

    Args:
        reader: What the outputs are.
        base: Outputs at the sample, (K, 1).
        u: Top eigenvector of ``A Aᵀ``, (K,).
        towards: Weights of the logits, (K,), whose sum rises towards the nearest boundary; None where there is none.
        temperature: T of the scores.
    """
    diagonal = reader.weights(base[None], temperature)
    if diagonal is not None:
        fisher = diagonal[0] * u
    else:  # Aᵀu = Jᵀc with c = √p ⊙ u − p·(√pᵀu), whose sum is 0: the dominant class takes what the others have, nothing cancels
        p = reader.probabilities(base, temperature)[:, 0]
        c = np.sqrt(p) * u
        fisher = c - p * c.sum()
        top = int(p.argmax())
        fisher[top] = 0.0
        fisher[top] = -fisher.sum()
    weights = np.stack([fisher, np.zeros(len(base)) if towards is None else towards])
    largest = np.abs(weights).max(axis=1, keepdims=True)
    return np.asarray(weights / np.where(largest > 0, largest, 1.0))


def nearest_boundary(z: Array, D: Array, x: Array | None = None, box: ValidRange | None = None) -> tuple[int, int] | None:
    """The class decided for and the one whose boundary is nearest to first order; None where no slope leads to another.

    Args:
        z: What decides the class, (C,), and its slopes along directions, (m, C).
        D: The slopes.
        x, box: With slopes along all coordinates: the sample and the valid range. A coordinate that cannot move further towards a
            class does not count on the way there.
    """
    G = D - D[:, [int(z.argmax())]]
    if x is not None and box is not None:
        G = _inside(G, x < box.high, x > box.low)
    return _nearest(z, np.linalg.norm(G, axis=0))


def _norms_inside(reader: OutputReader, base: Array, J: Array, x: Array, box: ValidRange) -> Array:
    """Norms of the slopes of each class less those of the class decided for, without what cannot move, (C,); J is (K, d)."""
    up, down = np.broadcast_to(x < box.high, x.shape), np.broadcast_to(x > box.low, x.shape)
    squares: Array | float = 0.0
    for part, slopes in pieces(J):
        z, D = reader.contest(base, slopes[:, :, None])
        squares = squares + np.square(_inside(D - D[:, [int(z.argmax())]], up[part], down[part])).sum(axis=0)
    return np.sqrt(squares)


def _inside(G: Array, up: Array, down: Array) -> Array:
    """Slopes (m, C) without those along coordinates that cannot move further that way."""
    return np.where(np.where(G > 0, up[:, None], down[:, None]), G, 0.0)


def _nearest(z: Array, norms: Array) -> tuple[int, int] | None:
    c = int(z.argmax())
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(norms > 0, (z[c] - z) / norms, np.inf)
    distances[c] = np.inf
    j = int(distances.argmin())
    return (c, j) if np.isfinite(distances[j]) else None
