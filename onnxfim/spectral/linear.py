"""Linear maps between two values of the graph: merged where that is cheap, and bounded as one operator where they are small."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.graph.shapes import OpenShape
from onnxfim.spectral.norms import ConvGeometry, NormBound, conv_norm, diagonal_norm, matrix_norm, outward

LARGE = 1 << 20  # entries of a weight that is not kept in float64
_MERGE_FLOPS = 2e9  # a product of two weights beyond this is not worth its gain
_INDEX = 1 << 22  # largest rearrangement that is followed element by element


@dataclass(frozen=True, eq=False)
class Element:
    """One linear map; ``nodes`` are the graph's nodes it stands for, shapes those of one sample."""

    nodes: tuple[Node, ...]
    in_shape: OpenShape | None
    out_shape: OpenShape | None

    @property
    def norm(self) -> NormBound:
        """An upper bound of the map's norm."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape to show: that of the weights."""
        return ()

    @property
    def weights(self) -> np.ndarray | None:
        """The numbers a merge would multiply."""
        return None

    def apply(self, X: np.ndarray) -> np.ndarray | None:
        """The map applied to rows ``(m, *in_shape)``, or None when that is not implemented."""
        return None


Chain: TypeAlias = "tuple[Element, ...]"


@dataclass(frozen=True, eq=False)
class Scaling(Element):
    """Entrywise product with a constant that broadcasts to the value without enlarging it."""

    factor: np.ndarray

    @cached_property
    def norm(self) -> NormBound:
        return diagonal_norm(self.factor)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.factor.shape

    @property
    def weights(self) -> np.ndarray:
        return self.factor

    def apply(self, X: np.ndarray) -> np.ndarray | None:
        return np.asarray(X * self.factor)

    def along(self, axis: int, rank: int) -> np.ndarray | None:
        """The factors as a vector along ``axis`` (from the end), or as one number; None when they vary along another axis."""
        values: np.ndarray = self.factor
        if values.size < 2:
            return values.reshape(-1)
        full = self.factor.reshape((1,) * (rank - self.factor.ndim) + self.factor.shape)
        head = np.moveaxis(full, axis, -1)[(0,) * (rank - 1)]
        along = head.reshape([-1 if a == axis % rank else 1 for a in range(rank)])
        return head if np.array_equal(np.broadcast_to(along, full.shape), full) else None


@dataclass(frozen=True, eq=False)
class Dense(Element):
    """``x W`` along the last axis; W is (in, out): what is ``stored``, with its rows and columns scaled where there are factors.

    A large weight is kept as the file holds it, and as float64 while it is worked with.
    """

    stored: np.ndarray
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None

    @property
    def matrix(self) -> np.ndarray:
        """W in float64, (in, out)."""
        W = self.stored
        if self.rows is not None:
            W = self.rows[:, None] * W
        if self.columns is not None:
            W = W * self.columns
        return W.astype(np.float64, copy=False)

    @cached_property
    def norm(self) -> NormBound:
        return matrix_norm(self.stored if self.rows is None and self.columns is None else self.matrix)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def weights(self) -> np.ndarray:
        return self.matrix

    def apply(self, X: np.ndarray) -> np.ndarray | None:
        return np.asarray(X @ self.matrix)


@dataclass(frozen=True, eq=False)
class Convolution(Element):
    """A zero-padded convolution, or the transpose of one; the kernel is (c_out, c_in / groups, *k) of the convolution."""

    kernel: np.ndarray
    geometry: ConvGeometry
    groups: int
    transposed: bool = False

    @cached_property
    def norm(self) -> NormBound:
        return conv_norm(self.kernel, self.geometry, groups=self.groups)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kernel.shape

    @property
    def weights(self) -> np.ndarray:
        return self.kernel

    @property
    def pointwise(self) -> bool:
        plain = self.kernel.size == self.kernel.shape[0] * self.kernel.shape[1] and not self.transposed and self.groups == 1
        return plain and set(self.geometry.strides) == {1} and set(self.geometry.pads) <= {0} and self.same_size

    @property
    def same_size(self) -> bool:
        return all(s is not None and s[0] == s[1] for s in self.geometry.sizes)

    def scaled(self, s: np.ndarray, *, after: bool) -> Convolution:
        """The convolution with its output (``after``) or input channels scaled by ``s``."""
        o, i = self.kernel.shape[:2]
        spatial = (1,) * (self.kernel.ndim - 2)
        if after != self.transposed:
            factor = np.broadcast_to(s, (o,)).reshape(o, 1, *spatial)
        else:
            per_group = np.broadcast_to(s, (i * self.groups,)).reshape(self.groups, 1, i)
            factor = np.repeat(per_group, o // self.groups, axis=1).reshape(o, i, *spatial)
        return replace(self, kernel=self.kernel * factor)

    def apply(self, X: np.ndarray) -> np.ndarray | None:
        sizes = self.geometry.sizes
        if self.transposed or None in sizes:
            return None
        o, i, *k = self.kernel.shape
        g = self.groups
        pad, outs = [(0, 0), (0, 0)], []
        for a, size in enumerate(sizes):
            n_in, n_out = size or (0, 0)
            reach = (n_out - 1) * self.geometry.strides[a] + (k[a] - 1) * self.geometry.dilations[a] + 1
            pad.append((self.geometry.pads[a], max(0, reach - n_in - self.geometry.pads[a])))
            outs.append(n_out)
        rows = X.shape[: X.ndim - 1 - len(k)]  # (m, batch)
        X = X.reshape(-1, *X.shape[len(rows) :])
        padded = np.pad(X, pad)
        Y = np.zeros((len(X), g, o // g, math.prod(outs)))
        for tap in np.ndindex(*k):
            index: tuple[slice | int, ...] = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, s, n in zip(tap, self.geometry.dilations, self.geometry.strides, outs, strict=True)
            )
            window = padded[(slice(None), slice(None)) + index]  # noqa: RUF005 - unpacking in an index needs Python 3.11
            W = self.kernel[(slice(None), slice(None)) + tap].reshape(g, o // g, i)  # noqa: RUF005
            Y += W @ window.reshape(len(X), g, i, -1)
        return Y.reshape(*rows, o, *outs)


@dataclass(frozen=True, eq=False)
class Rearrange(Element):
    """Entries moved, copied, left out or set to constants: entry j of the output is entry ``index[j]`` of the input, -1 none.

    ``index`` None keeps the flat order (a reshape).
    """

    index: np.ndarray | None = None

    @cached_property
    def copies(self) -> int:
        if self.index is None:
            return 1
        used = self.index[self.index >= 0]
        return int(np.bincount(used.reshape(-1)).max()) if used.size else 0

    @cached_property
    def norm(self) -> NormBound:
        return NormBound(1.0 if self.copies == 1 else outward(math.sqrt(self.copies)), "copies of an entry")

    def full(self) -> np.ndarray | None:
        """The index as an array of the output's shape, or None when shapes are unknown or too large."""
        if self.index is not None:
            return self.index
        size = size_of_shape(self.out_shape)
        if size is None or size > _INDEX or self.out_shape is None:
            return None
        return np.arange(size).reshape([d or 0 for d in self.out_shape])

    def apply(self, X: np.ndarray) -> np.ndarray | None:
        index = self.full()
        if index is None:
            return None
        flat = X.reshape(len(X), -1)
        return np.where(index >= 0, flat[:, np.maximum(index, 0).reshape(-1)].reshape(len(X), *index.shape), 0.0)


@dataclass(frozen=True, eq=False)
class Other(Element):
    """A linear map known by its norm, and perhaps by a function."""

    known: NormBound
    function: Callable[[np.ndarray], np.ndarray] | None = None

    @cached_property
    def norm(self) -> NormBound:
        return self.known

    def apply(self, X: np.ndarray) -> np.ndarray | None:
        return None if self.function is None else self.function(X)


def tame(values: np.ndarray) -> bool:
    """Whether a merged weight stays far from overflow and underflow, so that nothing of it is lost."""
    top = float(np.abs(values).max(initial=0.0))
    return top == 0 or 1e-100 < top < 1e100


def append(chain: Chain, element: Element) -> Chain:
    """``chain`` followed by ``element``, merged with its last elements where that is cheap."""
    if not chain:
        return () if _is_identity(element) else (element,)
    merged = _merge(chain[-1], element)
    if merged is not None:
        result = chain[:-1]
        for part in merged:
            result = append(result, part)
        return result
    if isinstance(element, Scaling) and isinstance(chain[-1], Rearrange) and len(chain) > 1:
        pulled = _pull_back(element, chain[-1])
        before = None if pulled is None else _merge(chain[-2], pulled)
        if before is not None:
            return (*chain[:-2], *before, chain[-1])
    return (*chain, element)


def _is_identity(element: Element) -> bool:
    return (
        isinstance(element, Rearrange)
        and element.index is None
        and element.in_shape == element.out_shape
        and element.in_shape is not None
    )


def _merge(a: Element, b: Element) -> Chain | None:
    """``b`` after ``a`` as fewer (or better ordered) elements, or None."""
    rule = _MERGES.get((type(a), type(b)))
    merged = None if rule is None else rule(a, b)
    if merged is None:
        return None
    parts = merged if isinstance(merged, tuple) else (merged,)
    return parts if all(tame(w) for part in parts if (w := part.weights) is not None) else None


def _rank(shape: OpenShape | None, factor: np.ndarray) -> int:
    return max(factor.ndim, len(shape) if shape is not None else 0, 1)


def _scale_scale(a: Scaling, b: Scaling) -> Scaling | None:
    factor = a.factor * b.factor
    return None if factor.size > _INDEX else Scaling((*a.nodes, *b.nodes), a.in_shape, b.out_shape, factor)


def _scale_dense(a: Scaling, b: Dense) -> Dense | None:
    s = a.along(-1, _rank(a.in_shape, a.factor))
    if s is None or b.stored.size < LARGE:
        return None if s is None else Dense((*a.nodes, *b.nodes), a.in_shape, b.out_shape, s[:, None] * b.matrix)
    rows = np.broadcast_to(s, b.shape[:1]) if b.rows is None else s * b.rows
    return replace(b, nodes=(*a.nodes, *b.nodes), in_shape=a.in_shape, rows=rows)


def _dense_scale(a: Dense, b: Scaling) -> Dense | None:
    s = b.along(-1, _rank(b.in_shape, b.factor))
    if s is None or a.stored.size < LARGE:
        return None if s is None else Dense((*a.nodes, *b.nodes), a.in_shape, b.out_shape, a.matrix * s)
    columns = np.broadcast_to(s, a.shape[1:]) if a.columns is None else a.columns * s
    return replace(a, nodes=(*a.nodes, *b.nodes), out_shape=b.out_shape, columns=columns)


def _dense_dense(a: Dense, b: Dense) -> Dense | None:
    if a.shape[0] * a.shape[1] * b.shape[1] > _MERGE_FLOPS:
        return None
    return Dense((*a.nodes, *b.nodes), a.in_shape, b.out_shape, a.matrix @ b.matrix)


def _scale_conv(a: Scaling, b: Convolution) -> Convolution | None:
    s = a.along(1 - b.kernel.ndim, b.kernel.ndim)
    return None if s is None else replace(b.scaled(s, after=False), nodes=(*a.nodes, *b.nodes), in_shape=a.in_shape)


def _conv_scale(a: Convolution, b: Scaling) -> Convolution | None:
    s = b.along(1 - a.kernel.ndim, a.kernel.ndim)
    return None if s is None else replace(a.scaled(s, after=True), nodes=(*a.nodes, *b.nodes), out_shape=b.out_shape)


def _conv_conv(a: Convolution, b: Convolution) -> Convolution | None:
    if a.groups > 1 or b.groups > 1 or a.transposed or b.transposed or not (a.pointwise or b.pointwise):
        return None
    (o, mid), i = b.kernel.shape[:2], a.kernel.shape[1]
    taps = math.prod((b if a.pointwise else a).kernel.shape[2:])
    if o * mid * i * taps > _MERGE_FLOPS or min(o, i) > 2 * mid:
        return None
    if b.pointwise:
        kernel = np.tensordot(b.kernel.reshape(o, mid), a.kernel, 1)
        geometry = a.geometry
    else:
        kernel = np.moveaxis(np.tensordot(a.kernel.reshape(mid, i).T, b.kernel, ((1,), (1,))), 0, 1)
        geometry = b.geometry
    return Convolution((*a.nodes, *b.nodes), a.in_shape, b.out_shape, kernel, geometry, 1)


def _move_move(a: Rearrange, b: Rearrange) -> Chain | None:
    nodes = (*a.nodes, *b.nodes)
    if a.index is None and b.index is None:
        merged = Rearrange(nodes, a.in_shape, b.out_shape)
        return () if _is_identity(merged) else (merged,)
    first, second = a.full(), b.full()
    if first is None or second is None:
        return None
    index = np.where(second >= 0, first.reshape(-1)[np.maximum(second, 0)], -1)
    if a.in_shape == b.out_shape and np.array_equal(index.reshape(-1), np.arange(index.size)):
        return ()
    return (Rearrange(nodes, a.in_shape, b.out_shape, index),)


def _scale_move(a: Scaling, b: Rearrange) -> Chain | None:
    """Order a rearrangement before a scale, so that the scale reaches the weights after it."""
    if a.factor.size == 1:
        factor = a.factor.reshape(())
    else:
        index, size = b.full(), size_of_shape(a.in_shape)
        if index is None or size is None or a.in_shape is None or size > _INDEX:
            return None
        factor = np.broadcast_to(a.factor, [d or 0 for d in a.in_shape]).reshape(-1)[np.maximum(index, 0)]
    return (b, Scaling(a.nodes, b.out_shape, b.out_shape, factor))


def _pull_back(s: Scaling, move: Rearrange) -> Scaling | None:
    """The scale before ``move`` that does what ``s`` does after it, for a rearrangement that is a permutation."""
    if s.factor.size == 1:
        return replace(s, in_shape=move.in_shape, out_shape=move.in_shape, factor=s.factor.reshape(()))
    index, size = move.full(), size_of_shape(move.in_shape)
    if index is None or move.in_shape is None or index.size != size or move.copies != 1 or (index < 0).any():
        return None
    factor = np.empty(index.size)
    factor[index.reshape(-1)] = np.broadcast_to(s.factor, index.shape).reshape(-1)
    return Scaling(s.nodes, move.in_shape, move.in_shape, factor.reshape([d or 0 for d in move.in_shape]))


_MERGES: dict[tuple[type, type], Callable[..., Element | Chain | None]] = {
    (Scaling, Scaling): _scale_scale,
    (Scaling, Dense): _scale_dense,
    (Dense, Scaling): _dense_scale,
    (Dense, Dense): _dense_dense,
    (Scaling, Convolution): _scale_conv,
    (Convolution, Scaling): _conv_scale,
    (Convolution, Convolution): _conv_conv,
    (Rearrange, Rearrange): _move_move,
    (Scaling, Rearrange): _scale_move,
}


def size_of_shape(shape: OpenShape | None) -> int | None:
    """Entries of a value of that shape; None where a dimension is not known."""
    if shape is None or any(d is None for d in shape):
        return None
    return math.prod(d or 0 for d in shape)
