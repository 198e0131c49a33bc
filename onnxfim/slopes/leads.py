"""Where to look for a flip: the Fisher direction and the way to the nearest boundary, as weights of what was measured.

A lead is a pair of weights, of directions (m,) or of outputs (K,): ``Σ cᵢ vᵢ`` or ``Jᵀc`` is then the direction. It takes the place
of the direction itself, which has as many numbers as an input.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.slopes.estimators import worst_direction
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.scored import Scored

Array: TypeAlias = np.ndarray[Any, Any]


def lead_of_directions(scored: Scored) -> Array:
    """Weights of the directions that were measured, (2, m): of the sketch's worst direction, and of the nearest boundary's slope.

    The worst direction of ``F ≈ VᵀYYᵀV`` is ``Vᵀc`` with c the top left singular vector of the scores Y (m, K); from m random
    directions of d coordinates it is about ``√(m/(m + d))`` of the true one. A sample without a slope has zeros.
    """
    reader, base, pairs = scored.reader, scored.base, scored.pairs
    Y = np.mean([s.scores for s in pairs], axis=0)
    lead = np.zeros((2, len(Y)))
    if Y.any():
        lead[0] = worst_direction(Y)
    if reader.has_classes and base.shape[1] == 1:
        z, D = reader.contest(base, np.mean([s.slopes for s in pairs], axis=0))
        if (pair := nearest_boundary(z, D)) is not None:
            lead[1] = D[:, pair[1]] - D[:, pair[0]]
    return lead


def output_weights(reader: OutputReader, base: Array, u: Array, towards: Array | None, temperature: float = 1.0) -> Array:
    """Weights c of the outputs, (2, K·P), largest entry 1: ``Jᵀc`` is ``Aᵀu``, and the slope of what ``towards`` weighs.

    Args:
        reader: What the outputs are.
        base: Outputs at the sample, (K, P).
        u: Top eigenvector of ``A Aᵀ``, (K·P,).
        towards: Weights of the logits, (K·P,), whose sum rises towards the nearest boundary; None where there is none.
        temperature: T of the scores.
    """
    towards = np.zeros(base.size) if towards is None else towards
    return np.asarray(leads_of_outputs(reader, base[None], u[None], towards[None], temperature)[0])


def leads_of_outputs(reader: OutputReader, base: Array, u: Array, towards: Array, temperature: float = 1.0) -> Array:
    """`output_weights` of n samples, (n, 2, K·P), from outputs (n, K, P), u and ``towards`` (n, K·P); zeros where there is none."""
    diagonal = reader.weights(base, temperature)
    if diagonal is not None:
        fisher = diagonal * u
    else:  # Aᵀu = Jᵀc with c = √p ⊙ u − p·(√pᵀu), whose sum is 0: the dominant class takes what the others have, nothing cancels
        p = reader.probabilities(base, temperature)  # (n, K, P)
        c = np.sqrt(p) * u.reshape(p.shape)
        fisher = c - p * c.sum(axis=1, keepdims=True)
        top = p.argmax(axis=1)[:, None]
        np.put_along_axis(fisher, top, 0.0, axis=1)
        np.put_along_axis(fisher, top, -fisher.sum(axis=1, keepdims=True), axis=1)
        fisher = fisher.reshape(u.shape)
    weights = np.stack([fisher, towards], axis=1)
    largest = np.abs(weights).max(axis=2, keepdims=True)
    return np.asarray(weights / np.where(largest > 0, largest, 1.0))


def nearest_boundary(z: Array, D: Array) -> tuple[int, int] | None:
    """The class decided for and the one whose boundary is nearest to first order; None where no slope leads to another.

    Args:
        z: What decides the class, (C,).
        D: Its slopes along directions, (m, C).
    """
    c = int(z.argmax())
    nearest, there = nearest_by_norms(z[None], np.linalg.norm(D - D[:, [c]], axis=0)[None])
    return (c, int(nearest[0])) if there[0] else None


def nearest_by_norms(z: Array, norms: Array) -> tuple[Array, Array]:
    """The class whose boundary is nearest, (n,), and whether any slope leads to one, (n,).

    Args:
        z: What decides the class, (n, C).
        norms: Of its slopes less those of the class decided for, (n, C).
    """
    rows, top = np.arange(len(z)), z.argmax(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(norms > 0, (z[rows, top][:, None] - z) / norms, np.inf)
    distances[rows, top] = np.inf
    nearest = distances.argmin(axis=1)
    return nearest, np.isfinite(distances[rows, nearest])
