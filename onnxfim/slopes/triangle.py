"""A Jacobian reduced to a triangle with the same Gram matrix: all that measures over all coordinates need of it.

For many coordinates that is one pass over them instead of one for each measure, and no copy of the Jacobian in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from onnxfim.slopes.differences import Ends, Request, Sample

Array: TypeAlias = np.ndarray[Any, Any]

_LEAST = 1024  # coordinates; for fewer the measures take as long as the reduction
_PIECE = 4096  # coordinates at a time: of ten classes, what a processor keeps near


def pieces(J: Array) -> Iterator[tuple[slice, Array]]:
    """Stretches of the coordinates of J (K, d), and its slopes along them, (m, K) float64."""
    for start in range(0, J.shape[1], _PIECE):
        part = slice(start, start + _PIECE)
        yield part, J[:, part].T.astype(np.float64)


def triangle(J: Array, field: Array | None = None) -> Array:
    """R (K, K) float64 with ``RᵀR = J S² Jᵀ`` for J (K, d) and the units S = diag(field), (d,); 1 where they are not given.

    By Householder reflections piece by piece, which err by a few roundings of ‖J‖: differences of nearly equal slopes keep twice
    the digits that they have in the Gram matrix itself.

    Source: Demmel, Grigori, Hoemmen & Langou (2012), SIAM J. Sci. Comput. 34(1), for QR of tall matrices in pieces.
    """
    parts = [np.linalg.qr(D if field is None else D * field[part, None], mode="r") for part, D in pieces(J)]
    return np.asarray(parts[0] if len(parts) == 1 else np.linalg.qr(np.concatenate(parts), mode="r"))


def ends_of(sample: Sample, J: Array, *, whole: bool) -> Ends:
    """Slopes of the logits along all coordinates, J (K, d), as the ends of steps of length 1; reduced where these are many.

    Args:
        sample: Whose they are.
        J: In the model's own precision.
        whole: Keep each coordinate's own slopes.
    """
    K, d = J.shape
    still = np.zeros((1, K, 1))
    if not whole and d >= max(_LEAST, 2 * K):
        R = triangle(J)
        if np.isfinite(R).all():
            return Ends(Request(sample, 0, d), R[:, :, None], still, 1.0, jacobian=J)
    return Ends(Request(sample, 0, d), J.astype(np.float64).T[:, :, None], still, 1.0)
