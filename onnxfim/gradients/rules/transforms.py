"""Transforms of whole vectors and matrices: Fourier transforms, running products, determinants."""

from __future__ import annotations

import numpy as np

from onnxfim.gradients.derivative_rules import Site, linear
from onnxfim.graph.shapes import Dim

# Fourier transforms: the conjugate transform is the transpose


def _fourier_axis(n: Site) -> int:
    """The axis of the signal, counted from zero; an attribute before set 20, an input since."""
    rank = n.rank(n.x)
    if n.opset < 20:
        return n.integer("axis", 1) % rank
    return (int(n.known(2, "axis").reshape(())) if n.has(2) else -2) % rank


def _fourier(n: Site, t: str, axis: int, length: int, *, inverse: bool, onesided: bool) -> str:
    """Transform values (S, ...) along ``axis``, the seeds not counted."""
    flags = {"inverse": int(inverse), "onesided": int(onesided)}
    size = np.asarray(length, np.int64)
    if n.opset < 20:
        return n.write("DFT", t, size, axis=axis + 1, **flags)
    return n.write("DFT", t, size, np.asarray(axis + 1, np.int64), **flags)


def _one_sided_inverse(n: Site) -> bool:
    """Whether a real signal is made of one half of its spectrum."""
    return bool(n.integer("inverse") and n.integer("onesided"))


def _length(n: Site, axis: int) -> int:
    if n.has(1):
        return int(n.known(1, "length").reshape(()))
    (own,) = n.static([n.shape(n.x)[axis]])
    return 2 * (own - 1) if _one_sided_inverse(n) else own


def _fourier_transpose(n: Site, u: str) -> str:
    """Hᵀ: the transform the other way round, times its length or divided by it; what was cut off is zero."""
    axis = _fourier_axis(n)
    length, (own, parts) = _length(n, axis), n.static([n.shape(n.x)[axis], n.shape(n.x)[-1]])
    inverse, rank = bool(n.integer("inverse")), n.rank(n.x)
    if _one_sided_inverse(n):
        size = length // 2 + 1
        if own != size:  # the runtime then mirrors other entries than the standard tells
            raise n.refuse(f"half the spectrum of {length} values has {size} entries, not {own}")
        g = n.mul(_fourier(n, u, axis, length, inverse=False, onesided=True), _shares(n, length, rank - axis))
    else:
        size = length
        (given,) = n.static([n.shape(n.y)[axis]])
        u = n.pad(u, [0] * rank, [length - given if a == axis else 0 for a in range(rank)])
        g = _fourier(n, u, axis, length, inverse=not inverse, onesided=False)
        g = n.mul(g, 1 / length if inverse else float(length))
    if own < size or parts == 1:
        g = n.write("Slice", g, [0, 0], [min(own, size), parts], [axis + 1, rank])
    return n.pad(g, [0] * rank, [max(own - size, 0) if a == axis else 0 for a in range(rank)])


def _shares(n: Site, length: int, behind: int) -> str:
    """What each entry of half a spectrum counts in the signal: twice, but for those that are their own mirror image."""
    counts = np.full(length // 2 + 1, 2 / length)
    counts[0] = 1 / length
    if length % 2 == 0:
        counts[-1] = 1 / length
    return n.emitter.constant(counts.reshape(-1, *[1] * (behind - 1)).astype(n.dtype))


def _fourier_apply(n: Site, v: str) -> str:
    axis = _fourier_axis(n)
    length = _length(n, axis)
    return _fourier(n, v, axis, length, inverse=bool(n.integer("inverse")), onesided=bool(n.integer("onesided")))


linear("DFT", transpose=_fourier_transpose, apply=_fourier_apply)


# running products


def _products(n: Site, axis: int) -> str:
    """∂y_i/∂x_j, (..., i, j) with the axis of the product last: products of all that come before i but x_j, exact at zeros."""
    rank = n.rank(n.x)
    (size,) = n.static([n.shape(n.x)[axis]])
    x = n.write("Transpose", n.x, perm=_last(rank, axis))
    if n.integer("reverse"):
        x = n.write("Slice", x, [-1], [-(2**62)], [rank - 1], [-1])
    column = n.write("Unsqueeze", x, [rank])  # (..., i, 1)
    later = np.tril(np.ones((size, size), bool), -1)  # i > j
    parts = n.write("Where", later, column, 1.0)
    between = n.write("CumProd", parts, np.asarray(rank - 1, np.int64))  # of x_{j+1} … x_i
    before = n.write("CumProd", x, np.asarray(rank - 1, np.int64), exclusive=1)  # of those in front of j
    slopes = n.mul(n.mul(between, n.write("Unsqueeze", before, [rank - 1])), np.tril(np.ones((size, size), n.dtype)))
    if n.integer("exclusive"):
        slopes = n.write("Slice", slopes, [0], [size - 1], [rank - 1])
        slopes = n.write("Pad", slopes, [0] * (rank - 1) + [1, 0] + [0] * (rank + 1), 0.0)
    if n.integer("reverse"):
        slopes = n.write("Slice", slopes, [-1, -1], [-(2**62)] * 2, [rank - 1, rank], [-1, -1])
    return slopes


def _last(rank: int, axis: int) -> list[int]:
    return [*(i for i in range(rank) if i != axis), axis]


def _cumprod(n: Site, t: str, *, back: bool) -> str:
    rank = n.rank(n.x)
    axis = int(n.known(1, "axis").reshape(())) % rank
    slopes = _products(n, axis)
    order = [0, *(i + 1 for i in _last(rank, axis))]
    t = n.write("Unsqueeze", n.write("Transpose", t, perm=order), [rank if back else rank + 1])
    t = n.write("MatMul", t, slopes) if back else n.write("MatMul", slopes, t)
    t = n.write("Squeeze", t, [rank if back else rank + 1])
    return n.write("Transpose", t, perm=[int(i) for i in np.argsort(order)])


linear("CumProd", transpose=lambda n, u: _cumprod(n, u, back=True), apply=lambda n, v: _cumprod(n, v, back=False))


# determinants

_SIDE = 32  # of a matrix whose minors are all computed


def _cofactors(n: Site) -> str:
    """∂det/∂x, (..., n, n): signed determinants of the matrices without one row and one column, exact where x is singular."""
    dims: tuple[Dim, ...] = n.shape(n.x)
    size = n.static(dims[-2:])[0]
    if size > _SIDE:
        raise n.refuse(f"its matrix has more than {_SIDE} rows")
    if size == 1:
        return n.mask(n.write("Equal", n.x, n.x))
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    kept = np.array([[i for i in range(size) if i != k] for k in range(size)])
    index = kept[rows.ravel()][:, :, None] * size + kept[columns.ravel()][:, None, :]  # (n², n − 1, n − 1)
    flat = n.write("Reshape", n.x, n.write("Concat", n.write("Shape", n.x, start=0, end=-2), [size * size], axis=0))
    minors = n.write("Gather", flat, n.emitter.constant(index.astype(np.int64)), axis=-1)
    found = minors if size == 2 else n.write("Unsqueeze", n.write("Det", minors), [-1, -2])
    signs = np.where((rows + columns) % 2 == 0, 1, -1).reshape(-1, 1, 1).astype(n.dtype)
    return n.write("Reshape", n.mul(found, signs), n.write("Shape", n.x))


def _determinant(n: Site, v: str) -> str:
    rank = n.rank(n.x)
    return n.write("ReduceSum", n.mul(v, _cofactors(n)), [rank - 1, rank], keepdims=0)


linear(
    "Det",
    transpose=lambda n, u: n.mul(n.write("Unsqueeze", u, [-1, -2]), _cofactors(n)),
    apply=_determinant,
)
