"""Convolutions of few cells and many channels by minimal filtering: fewer products, in matrices that the runtime packs once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxfim.gradients.derivative_rules import Site

# F(2, 3): two outputs of three taps from four inputs by four products, Lavin and Gray (2016), "Fast Algorithms for Convolutional
# Neural Networks", section 4.1: y = _OUT ((_TAPS w) * (_IN x)). Entries are 0, ±1 and ±1/2, so rounding stays that of float32.
_IN = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_TAPS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_OUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
_CHANNELS, _CELLS = 64, 7  # the runtime's own kernels are slow on rows of up to seven cells


def pays(channels: Sequence[int], size: Sequence[int], out: Sequence[int]) -> bool:
    """Whether minimal filtering is faster: measured from 0.3 to 0.8 of the runtime's convolution, on ten rows and more.

    The transforms cost in proportion to the cells, what they save in proportion to the channels; on eight cells a side, or with
    64 channels or fewer a cell, nothing is saved.
    """
    widest = max(*size, *out)
    return len(size) == 2 and min(*size, *out) >= 3 and widest <= _CELLS and _CHANNELS * widest <= min(channels)


def flipped(n: Site, u: str, weight: Sequence[int], size: Sequence[int], out: Sequence[int], begins: Sequence[int]) -> str:
    """Convolve by 3 × 3 weights with taps in reverse order, at stride 1.

    Args:
        n: The convolution (M, C, 3, 3) that is transposed.
        u: Its cotangents, (R, M, *size).
        weight: (M, C, 3, 3).
        size: Cells of a cotangent.
        out: Cells of the result.
        begins: Zeros before the first cell on each axis; as many follow the last as the result takes.

    Returns:
        (R, C, *out).
    """
    m, c = weight[:2]
    cells, results = int(np.prod(size)), int(np.prod(out))
    (into, from_), (into_2, from_2) = (_matrices(*axis) for axis in zip(size, out, begins, strict=True))
    tiles = into.shape[1] * into_2.shape[1]
    before = np.einsum("ati,buj->abtuij", into, into_2).reshape(16 * tiles, cells).astype(n.dtype)
    behind = np.einsum("iat,jbu->ijabtu", from_, from_2).reshape(results, 16 * tiles).astype(n.dtype)
    t = n.write("Transpose", n.write("Reshape", u, [-1, m, cells]), perm=[2, 0, 1])  # (cells, R, M)
    t = n.write("MatMul", before, n.write("Reshape", t, [cells, -1]))  # (16·tiles, R·M)
    parts = n.split(t, [tiles] * 16, axis=0)
    products = [
        n.write("MatMul", n.write("Reshape", part, [-1, m]), w) for part, w in zip(parts, _weights(n, m, c), strict=True)
    ]  # (tiles·R, C) each
    t = n.write("Reshape", n.write("Concat", *products, axis=0), [16 * tiles, -1])
    t = n.write("Reshape", n.write("MatMul", behind, t), [results, -1, c])
    return n.write("Reshape", n.write("Transpose", t, perm=[1, 2, 0]), [-1, c, *out])


def _weights(n: Site, m: int, c: int) -> list[str]:
    """The sixteen matrices (M, C) that tiles are multiplied by; constant, so computed once at load time."""
    taps = _TAPS[:, ::-1]
    w = n.write("Transpose", n.write("Reshape", n.inputs[1], [m * c, 9]), perm=[1, 0])
    w = n.write("MatMul", np.kron(taps, taps).astype(n.dtype), w)
    return [n.write("Reshape", part, [m, c]) for part in n.split(w, [1] * 16, axis=0)]


def _matrices(size: int, out: int, begin: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one axis: to the four numbers of each tile (4, tiles, size), and from their products to the results (out, 4, tiles)."""
    tiles = -(-out // 2)
    into, from_ = np.zeros((4, tiles, size)), np.zeros((out, 4, tiles))
    for t in range(tiles):
        for j in range(4):
            if 0 <= (cell := 2 * t + j - begin) < size:
                into[:, t, cell] = _IN[:, j]
        for r in range(min(2, out - 2 * t)):
            from_[2 * t + r, :, t] = _OUT[r]
    return into, from_
