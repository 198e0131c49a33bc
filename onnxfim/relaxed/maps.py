"""Linear maps between values of a network at one sample, as bounds go through them forwards and backwards.

A value is a flat vector (n,); rows of coefficients of a value are a matrix (R, n).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfim.errors import OnnxFimError
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.providers import CPU
from onnxfim.runtime.session import open_session, run

Array: TypeAlias = np.ndarray[Any, Any]
Kind: TypeAlias = "type[np.floating[Any]] | np.dtype[Any]"


class Map(Protocol):
    """A matrix A (n_out, n_in) that is not written out.

    Attributes:
        terms: The most products that one sum of `push` or `pull` has: what their rounding errors are counted by.
        cost: Multiplications of one row of `pull`.
        work: Numbers that `pull` takes for one row.
    """

    @property
    def work(self) -> int: ...

    @property
    def terms(self) -> int: ...

    @property
    def cost(self) -> int: ...

    def push(self, x: Array) -> Array:
        """``A x`` of a vector (n_in,)."""
        ...

    def push_abs(self, x: Array) -> Array:
        """``|A| x`` of a vector (n_in,) without negative entries."""
        ...

    def pull(self, rows: Array) -> Array:
        """``Λ A`` of rows Λ (R, n_out), (R, n_in); the rows are not changed."""
        ...

    def rows(self, which: Array, kind: Kind) -> Array:
        """These rows of A, (len(which), n_in), in numbers of a kind."""
        ...


def unit_rows(which: Array, n: int, kind: Kind) -> Array:
    """Rows that pick one entry of n each, (len(which), n)."""
    rows = np.zeros((len(which), n), kind)
    rows[np.arange(len(which)), which] = 1.0
    return rows


@dataclass(frozen=True)
class Same:
    """The identity of n entries: a reshape."""

    n: int
    terms: int = 1
    cost: int = 0

    @property
    def work(self) -> int:
        return self.n

    def push(self, x: Array) -> Array:
        return x

    push_abs = push
    pull = push

    def rows(self, which: Array, kind: Kind) -> Array:
        return unit_rows(which, self.n, kind)


@dataclass(frozen=True)
class Dense:
    """``x W`` along the last axis of a value with ``count`` vectors; W is (n, m)."""

    W: Array
    count: int

    @property
    def terms(self) -> int:
        return max(self.W.shape)

    @property
    def cost(self) -> int:
        return self.count * int(self.W.size)

    @property
    def work(self) -> int:
        return self.count * sum(self.W.shape)

    def _times(self, x: Array, W: Array) -> Array:
        lead = x.shape[:-1]
        return np.asarray(np.matmul(x.reshape(*lead, self.count, -1), W).reshape(*lead, -1))

    def push(self, x: Array) -> Array:
        return self._times(x, self.W)

    def push_abs(self, x: Array) -> Array:
        return self._times(x, self._absolute)

    @cached_property
    def _absolute(self) -> Array:
        return np.abs(self.W)

    @cached_property
    def _single(self) -> Array:
        return self.W.astype(np.float32)

    def pull(self, rows: Array) -> Array:
        return self._times(rows, (self._single if rows.dtype == np.float32 else self.W).T)

    def rows(self, which: Array, kind: Kind) -> Array:
        n, m = self.W.shape
        made = np.zeros((len(which), self.count, n), kind)
        made[np.arange(len(which)), which // m] = self.W.T[which % m]
        return made.reshape(len(which), -1)


@dataclass(frozen=True)
class Before:
    """``W x`` along the last axis but one of a value (count, n, m); W is (k, n)."""

    W: Array
    count: int
    m: int

    @property
    def terms(self) -> int:
        return max(self.W.shape)

    @property
    def cost(self) -> int:
        return self.count * self.m * int(self.W.size)

    @property
    def work(self) -> int:
        return self.count * self.m * sum(self.W.shape)

    def _times(self, x: Array, W: Array) -> Array:
        lead = x.shape[:-1]
        return np.asarray(np.matmul(W, x.reshape(*lead, self.count, -1, self.m)).reshape(*lead, -1))

    def push(self, x: Array) -> Array:
        return self._times(x, self.W)

    def push_abs(self, x: Array) -> Array:
        return self._times(x, np.abs(self.W))

    def pull(self, rows: Array) -> Array:
        return self._times(rows, self.W.T.astype(rows.dtype))

    def rows(self, which: Array, kind: Kind) -> Array:
        return self.pull(unit_rows(which, self.count * len(self.W) * self.m, kind))


@dataclass(frozen=True)
class Pick:
    """``y_i = w_i x_{index_i}``, 0 where the index is negative; w is 1 where ``weights`` is None."""

    n: int
    index: Array
    weights: Array | None = None

    @property
    def terms(self) -> int:
        return 2 + self.copies

    @property
    def cost(self) -> int:
        return len(self.index)

    @property
    def work(self) -> int:
        return len(self.index) + self.n

    @cached_property
    def copies(self) -> int:
        """How often an entry is picked at most."""
        return int(np.bincount(self._from, minlength=1).max(initial=1))

    @cached_property
    def _ok(self) -> Array:
        return np.flatnonzero(self.index >= 0)

    @cached_property
    def _from(self) -> Array:
        return self.index[self._ok]

    @cached_property
    def _order(self) -> tuple[Array, Array, Array]:
        """Places of `_ok` in the order of what they pick, where each run of one entry starts, and which entry that is."""
        order = np.argsort(self._from, kind="stable")
        entries, starts = np.unique(self._from[order], return_index=True)
        return self._ok[order], starts, entries

    def push(self, x: Array) -> Array:
        y = np.zeros(len(self.index))
        y[self._ok] = x[self._from]
        return y if self.weights is None else y * self.weights

    def push_abs(self, x: Array) -> Array:
        y = np.zeros(len(self.index))
        y[self._ok] = x[self._from]
        return y if self.weights is None else y * np.abs(self.weights)

    def pull(self, rows: Array) -> Array:
        rows = rows if self.weights is None else rows * self.weights.astype(rows.dtype)
        made = np.zeros((len(rows), self.n), rows.dtype)
        if self.copies == 1:
            made[:, self._from] = rows[:, self._ok]
        else:
            order, starts, entries = self._order
            made[:, entries] = np.add.reduceat(rows[:, order], starts, axis=1)
        return made

    def rows(self, which: Array, kind: Kind) -> Array:
        made, index = np.zeros((len(which), self.n), kind), self.index[which]
        ok = index >= 0
        made[np.flatnonzero(ok), index[ok]] = 1.0 if self.weights is None else self.weights[which[ok]]
        return made


@dataclass(frozen=True)
class Windows:
    """``y_i = Σ_k w_ik x_{index_ik}``: averages of windows; index (n_out, k), negative for none.

    For each k no two outputs pick one entry.
    """

    n: int
    index: Array
    weights: Array

    @property
    def terms(self) -> int:
        return 2 * self.index.shape[1] + 2

    @property
    def cost(self) -> int:
        return int(self.index.size)

    @property
    def work(self) -> int:
        return int(self.index.size) + self.n

    @cached_property
    def _each(self) -> list[tuple[Array, Array, Array]]:
        """For each k: the outputs that pick an entry, which, and its weight."""
        found = []
        for k in range(self.index.shape[1]):
            ok = np.flatnonzero(self.index[:, k] >= 0)
            found.append((ok, self.index[ok, k], self.weights[ok, k]))
        return found

    @cached_property
    def _apart(self) -> bool:
        """Whether no entry is picked twice."""
        picked = self.index[self.index >= 0]
        return len(np.unique(picked)) == len(picked)

    def push(self, x: Array) -> Array:
        return np.asarray((np.where(self.index >= 0, x[self.index], 0.0) * self.weights).sum(axis=1))

    def push_abs(self, x: Array) -> Array:
        return np.asarray((np.where(self.index >= 0, x[self.index], 0.0) * np.abs(self.weights)).sum(axis=1))

    def pull(self, rows: Array) -> Array:
        made = np.zeros((len(rows), self.n), rows.dtype)
        if self._apart and (self.index >= 0).all():
            made[:, self.index.ravel()] = (rows[:, :, None] * self.weights.astype(rows.dtype)).reshape(len(rows), -1)
            return made
        for ok, entries, weights in self._each:
            made[:, entries] += rows[:, ok] * weights.astype(rows.dtype)
        return made

    def rows(self, which: Array, kind: Kind) -> Array:
        return self.pull(unit_rows(which, len(self.index), kind))


@dataclass(frozen=True)
class Convolution:
    """A convolution of any rank, stride, padding, dilation and groups.

    Attributes:
        kernel: (O, I / groups, *taps).
        size, out: Spatial shapes of input and output.
        strides, dilations, pads: By spatial axis; ``pads`` in front.
        groups: Of the channels.
    """

    kernel: Array
    size: tuple[int, ...]
    out: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int = 1

    @property
    def terms(self) -> int:
        taps = math.prod(self.kernel.shape[2:])
        return taps * max(self.kernel.shape[1], self.kernel.shape[0] // self.groups) + taps

    @property
    def cost(self) -> int:
        return int(self.kernel.size) * math.prod(self.out)

    @property
    def work(self) -> int:
        return self._channels * (math.prod(self.size) + math.prod(self.kernel.shape[2:]) * math.prod(self.out))

    @cached_property
    def _transposed(self) -> Array:
        """The kernel as matrices (groups, I/g · taps, O/g)."""
        O, I = self.kernel.shape[:2]
        return np.ascontiguousarray(self.kernel.reshape(self.groups, O // self.groups, -1).transpose(0, 2, 1)).reshape(
            self.groups, I * math.prod(self.kernel.shape[2:]), O // self.groups
        )

    @cached_property
    def _taps(self) -> list[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
        """For each tap: its place, the part of the input that it reads, and the part of the output that reads it there."""
        found = []
        for tap in np.ndindex(*self.kernel.shape[2:]):
            reads, writes = [], []
            for t, n, m, s, d, p in zip(tap, self.size, self.out, self.strides, self.dilations, self.pads, strict=True):
                shift = t * d - p  # the input read by output j is shift + s·j
                first = max(0, -(shift // s))
                last = min(m - 1, (n - 1 - shift) // s) if n - 1 - shift >= 0 else -1
                if last < first:
                    break
                reads.append(slice(shift + s * first, shift + s * last + 1, s))
                writes.append(slice(first, last + 1))
            else:
                found.append((tap, tuple(reads), tuple(writes)))
        return found

    @property
    def _channels(self) -> int:
        return int(self.kernel.shape[1]) * self.groups

    def _pushed(self, x: Array, kernel: Array) -> Array:
        O, I = kernel.shape[:2]
        g = self.groups
        x = x.reshape(g, I, *self.size)
        y = np.zeros((g, O // g, *self.out))
        by_group = kernel.reshape(g, O // g, *kernel.shape[1:])
        for tap, reads, writes in self._taps:
            part = x[(slice(None), slice(None), *reads)]
            made = np.matmul(by_group[(slice(None), slice(None), slice(None), *tap)], part.reshape(g, I, -1))
            y[(slice(None), slice(None), *writes)] += made.reshape(g, O // g, *part.shape[2:])
        return y.ravel()

    def push(self, x: Array) -> Array:
        return self._pushed(x, self.kernel)

    def push_abs(self, x: Array) -> Array:
        return self._pushed(x, np.abs(self.kernel))

    @cached_property
    def _on_runtime(self) -> Callable[[Array], Array] | None:
        return transposed_convolution(self)

    def pull(self, rows: Array) -> Array:
        """On the runtime in float32: five times as fast as below (measured: 16 channels of 8x8 by 3x3)."""
        if rows.dtype == np.float32 and self._on_runtime is not None:
            return self._on_runtime(rows)
        R, g = len(rows), self.groups
        taps = self.kernel.shape[2:]
        I = self.kernel.shape[1]
        columns = np.matmul(
            self._transposed.astype(rows.dtype), rows.reshape(R, g, self.kernel.shape[0] // g, -1)
        )  # (R, g, I·taps, P)
        columns = columns.reshape(R, g, I, *taps, *self.out)
        made = np.zeros((R, g, I, *self.size), rows.dtype)
        for tap, reads, writes in self._taps:
            made[(..., *reads)] += columns[(slice(None), slice(None), slice(None), *tap, *writes)]
        return made.reshape(R, -1)

    def rows(self, which: Array, kind: Kind) -> Array:
        P = math.prod(self.out)
        O, I = self.kernel.shape[:2]
        channel, place = which // P, np.array(np.unravel_index(which % P, self.out))  # (rank, R)
        group = channel // (O // self.groups)
        made = np.zeros((len(which), self.groups, I, *self.size), kind)
        at = np.arange(len(which))
        for tap in np.ndindex(*self.kernel.shape[2:]):
            spot = [
                np.asarray(t) * d - p + s * place[axis]
                for axis, (t, s, d, p) in enumerate(zip(tap, self.strides, self.dilations, self.pads, strict=True))
            ]
            ok = np.all([(a >= 0) & (a < n) for a, n in zip(spot, self.size, strict=True)], axis=0)
            made[(at[ok], group[ok], slice(None), *(a[ok] for a in spot))] = self.kernel[(channel[ok], slice(None), *tap)]
        return made.reshape(len(which), -1)


@dataclass(frozen=True)
class Transposed:
    """The transpose of another map."""

    of: Convolution
    n: int
    m: int

    @property
    def terms(self) -> int:
        return self.of.terms

    @property
    def cost(self) -> int:
        return self.of.cost

    @property
    def work(self) -> int:
        return self.n + self.m

    def push(self, x: Array) -> Array:
        return self.of.pull(x[None])[0]

    @cached_property
    def _absolute(self) -> Convolution:
        return replace(self.of, kernel=np.abs(self.of.kernel))

    def push_abs(self, x: Array) -> Array:
        return self._absolute.pull(x[None])[0]

    def pull(self, rows: Array) -> Array:
        made = np.zeros((len(rows), self.n), rows.dtype)
        for own, row in zip(made, rows, strict=True):
            own[:] = self.of.push(row)
        return made

    def rows(self, which: Array, kind: Kind) -> Array:
        return self.pull(unit_rows(which, self.m, kind))


def windows(size: tuple[int, ...], out: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...],
            dilations: tuple[int, ...], channels: int) -> Array:  # fmt: skip
    """Which entries each output of a pool reads, (channels · outputs, taps), negative for padding; ``pads`` in front."""
    rank = len(size)
    flat = np.zeros((*out, *kernel), np.int64)
    inside = np.ones((*out, *kernel), bool)
    for axis in range(rank):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = out[axis], kernel[axis]
        spot = (strides[axis] * np.arange(out[axis])[:, None] - pads[axis] + dilations[axis] * np.arange(kernel[axis])).reshape(
            shape
        )
        inside &= (spot >= 0) & (spot < size[axis])
        flat = flat * size[axis] + spot
    flat, inside = flat.reshape(math.prod(out), -1), inside.reshape(math.prod(out), -1)
    whole = np.arange(channels)[:, None, None] * math.prod(size) + flat
    return np.where(inside, whole, -1).reshape(channels * math.prod(out), -1)


def transposed_convolution(conv: Convolution) -> Callable[[Array], Array] | None:
    """``Λ A`` of a convolution A on the runtime's CPU, in float32 on one thread; None where it has no such operator.

    It is a product of matrices, whose entries are added up by places: sums of float32 products, in some order.
    """
    rank = len(conv.size)
    short = [
        (m - 1) * s + (k - 1) * d + 1 - p - n
        for n, m, k, s, d, p in zip(
            conv.size, conv.out, conv.kernel.shape[2:], conv.strides, conv.dilations, conv.pads, strict=True
        )
    ]  # what is to be cut off behind; where it is negative, what the convolution did not read
    beyond = [max(-n, 0) for n in short]
    if rank > 3 or any(b >= max(s, d) for b, s, d in zip(beyond, conv.strides, conv.dilations, strict=True)):
        return None
    node = helper.make_node(
        "ConvTranspose", ["rows", "kernel"], ["made"], strides=conv.strides, dilations=conv.dilations, group=conv.groups,
        pads=[*conv.pads, *(max(n, 0) for n in short)], output_padding=beyond,
    )  # fmt: skip
    shape = (conv.kernel.shape[0], *conv.out)
    made = (conv._channels, *conv.size)
    kernel = numpy_helper.from_array(np.ascontiguousarray(conv.kernel, np.float32), "kernel")
    graph = helper.make_graph(
        [node], "transposed", [helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("made", onnx.TensorProto.FLOAT, ["N", *made])], [kernel],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        session, _ = open_session(model.SerializeToString(), Hardware((CPU,)), threads=1)
        run(session, ["made"], {"rows": np.zeros((1, *shape), np.float32)})
    except OnnxFimError:
        return None

    def pulled(rows: Array) -> Array:
        found = run(session, ["made"], {"rows": np.ascontiguousarray(rows.reshape(len(rows), *shape))})[0]
        return found.reshape(len(rows), -1)

    return pulled
