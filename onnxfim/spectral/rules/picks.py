"""Rules of operators that pick or place entries by index, sort them, or sample between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.spectral.bound_rules import rule
from onnxfim.spectral.linear import Other, Rearrange
from onnxfim.spectral.norms import NormBound, matrix_norm, outward
from onnxfim.spectral.result import log10, root_sum, times
from onnxfim.spectral.rules.pointwise import attribute
from onnxfim.spectral.rules.rearrange import flat_places, moved
from onnxfim.spectral.site import Composition, Value, unbounded

_MATRIX = 1 << 22  # entries of a matrix that is written out


def _no(ctx: Composition, node: Node, why: str, *, output: int = 0) -> Value:
    return ctx.fresh(node, math.inf, reason=unbounded(node, why), output=output)


@rule("GatherElements")
def _gather_elements(ctx: Composition, node: Node) -> Value:
    data, where = node.inputs[:2]
    if not ctx.varying(data) or ctx.varying(where):
        return _no(ctx, node, "its index varies with the input, so it may jump")
    x, index = ctx.values[data], ctx.constant(where)
    if index is None:
        return _no(ctx, node, "its index is unknown before the model runs")
    full, axis = flat_places(x), int(attribute(node, "axis", 0))
    if full is None or full.ndim != index.ndim:
        copies = index.shape[axis]  # each entry at most once for each index of its line
        return moved(ctx, node, x, None, copies=float(copies))
    cut = tuple(slice(None) if a == axis % full.ndim else slice(0, n) for a, n in enumerate(index.shape))
    return moved(ctx, node, x, np.take_along_axis(full[cut], index.astype(np.int64) % full.shape[axis], axis))


@rule("ScatterElements", "ScatterND")
def _scatter(ctx: Composition, node: Node) -> Value:
    """Data whose entries give way to updates, or take the larger, or add them.

    Where a result is one entry of the data or of the updates, each of which goes to one place, ``‖J‖² ≤ ‖J_data‖² + ‖J_updates‖²``.
    """
    data, where, news = node.inputs[:3]
    if ctx.varying(where):
        return _no(ctx, node, "its index varies with the input, so it may jump")
    reduction = str(node.attributes.get("reduction", "none"))
    if reduction == "mul":
        return _no(ctx, node, "multiplies what goes to one place, for which there is no rule")
    index, shape, axis = ctx.constant(where), ctx.shape(data), int(attribute(node, "axis", 0))
    values = [ctx.values[n] for n in (data, news) if ctx.varying(n)]
    low, high = _range(ctx, data, news)
    if reduction != "add":
        replaced = _targets(node, index, shape, axis)
        if reduction == "none" and len(values) == 1 and replaced is not None and len(np.unique(replaced)) == replaced.size:
            return _one_part(ctx, node, values[0], replaced, placed=ctx.varying(news))
        return ctx.fresh(node, root_sum(*(ctx.log(v) for v in values)), *values, low=low, high=high)
    targets = _targets(node, index, shape, axis)
    if targets is None:
        return _no(ctx, node, "how many updates go to one place is not known")
    parts = []
    if ctx.varying(data):
        parts.append(ctx.values[data])
    if ctx.varying(news):
        x, size = ctx.values[news], math.prod(d or 0 for d in shape or ())
        copies = int(np.bincount(targets.reshape(-1)).max(initial=0))

        def added(X: np.ndarray) -> np.ndarray:
            Y = np.zeros((len(X), size))
            np.add.at(Y.T, targets.reshape(-1), X.reshape(len(X), -1).T)
            return Y.reshape(len(X), *(d or 0 for d in shape or ()))

        norm = NormBound(1.0 if copies <= 1 else outward(math.sqrt(copies)), "updates of one place")
        part = ctx.linear(node, x, Other((node,), x.shape, shape, norm, added))
        parts.append(Value(f"{node.outputs[0]} updates", part.shape, part.terms, part.log, part.reason))
    return ctx.total(node, parts)


def _range(ctx: Composition, *names: str) -> tuple[float, float]:
    lows, highs = [], []
    for name in names:
        if ctx.varying(name):
            lows.append(ctx.values[name].low)
            highs.append(ctx.values[name].high)
        else:
            array = ctx.constant(name)
            lows.append(-math.inf if array is None else float(array.min(initial=math.inf)))
            highs.append(math.inf if array is None else float(array.max(initial=-math.inf)))
    return min(lows), max(highs)


def _targets(node: Node, index: np.ndarray | None, shape: tuple[int | None, ...] | None, axis: int) -> np.ndarray | None:
    """The flat place of each update, of the updates' shape; None where shapes or indices are not known."""
    if index is None or shape is None or None in shape or math.prod(d or 0 for d in shape) > _MATRIX:
        return None
    cells = np.arange(math.prod(d or 0 for d in shape)).reshape([d or 0 for d in shape])
    if node.op == "ScatterND":
        return np.asarray(cells[tuple(np.moveaxis(index.astype(np.int64), -1, 0))])
    own: list[np.ndarray] = list(np.indices(index.shape, sparse=True))
    own[axis % cells.ndim] = index.astype(np.int64)
    return np.asarray(cells[tuple(own)])


def _one_part(ctx: Composition, node: Node, x: Value, targets: np.ndarray, *, placed: bool) -> Value:
    """What one of the two, data or updates, gives where the other is constant: its entries moved, the others left out."""
    shape = [d or 0 for d in ctx.shape(node.inputs[0]) or ()]
    index = np.full(math.prod(shape), -1) if placed else np.arange(math.prod(shape))
    index[targets.reshape(-1)] = np.arange(targets.size) if placed else -1
    y = ctx.linear(node, x, Rearrange((node,), x.shape, tuple(shape), index.reshape(shape)))
    low, high = _range(ctx, node.inputs[0], node.inputs[2])
    return Value(y.name, y.shape, y.terms, y.log, y.reason, low, high)


@rule("TopK")
def _top(ctx: Composition, node: Node) -> tuple[Value, ...]:
    """Each result is an entry of its own, and where two change places they are equal: slope 1."""
    data, count = node.inputs
    if ctx.varying(count):
        return (_no(ctx, node, "how many it returns varies with the input"),)
    x = ctx.values[data]
    values = ctx.fresh(node, ctx.log(x), x, low=x.low, high=x.high)
    places = [_no(ctx, node, "its places jump, so they have no Lipschitz constant", output=1)] if any(node.outputs[1:]) else []
    return (values, *places)


@rule("ReverseSequence")
def _reverse_sequence(ctx: Composition, node: Node) -> Value:
    if not ctx.varying(node.inputs[0]) or ctx.varying(node.inputs[1]):
        return _no(ctx, node, "its lengths vary with the input, so it may jump")
    return moved(ctx, node, ctx.values[node.inputs[0]], None)  # each entry at one place


@rule("CumSum")
def _running_sum(ctx: Composition, node: Node) -> Value:
    """A triangle of ones along one axis."""
    x, given = ctx.values[node.inputs[0]], ctx.constant(node.inputs[1])
    if given is None or x.shape is None or (size := x.shape[int(given.reshape(()))]) is None or size * size > _MATRIX:
        return _no(ctx, node, "how many entries it sums is not known")
    axis = int(given.reshape(()))
    ones = np.triu(np.ones((size, size)), 1 if attribute(node, "exclusive", 0) else 0)  # (in, out)
    if attribute(node, "reverse", 0):
        ones = ones[::-1, ::-1]

    def sums(X: np.ndarray) -> np.ndarray:
        where = axis if axis < 0 else axis + 1
        return np.moveaxis(np.moveaxis(X, where, -1) @ ones, -1, where)

    return ctx.linear(node, x, Other((node,), x.shape, x.shape, matrix_norm(ones), sums))


@rule("DFT")
def _fourier(ctx: Composition, node: Node) -> Value:
    """A unitary transform times √n, the inverse divided by it; cut, filled up with zeros, or of one side it is no larger."""
    x = ctx.values[node.inputs[0]]
    if any(ctx.varying(n) for n in node.inputs[1:] if n) or x.shape is None:
        return _no(ctx, node, "its length is not known before the model runs")
    axis = int(attribute(node, "axis", 1)) if "axis" in node.attributes else None
    if axis is None:
        given = ctx.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
        axis = (1 if ctx.flow.graph.opsets.get("ai.onnx", 20) < 20 else -2) if given is None else int(given.reshape(()))
    length = ctx.constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    n = x.shape[axis] if length is None else int(length.reshape(()))
    inverse, half = (attribute(node, name, 0) == 1 for name in ("inverse", "onesided"))
    if n and inverse and half and length is None:
        n = 2 * (n - 1)
    if not n:
        return _no(ctx, node, "its length is not known before the model runs")
    # half a spectrum stands for a whole one that is at most √2 as long
    norm = outward(math.sqrt((2 if half else 1) / n) if inverse else math.sqrt(n))
    return ctx.linear(node, x, Other((node,), x.shape, ctx.shape(node.outputs[0]), NormBound(norm, "unitary, scaled")))


# sampling between cells


@rule("GridSample")
def _grid_sample(ctx: Composition, node: Node) -> Value:
    """A fixed grid makes a matrix of taps M, and ``‖M‖² ≤ max row sum · max column sum`` of magnitudes (Schur)."""
    if not ctx.varying(node.inputs[0]) or ctx.varying(node.inputs[1]):
        return _no(ctx, node, "its grid varies with the input, and between cells the slope is as large as their differences")
    x, grid = ctx.values[node.inputs[0]], ctx.constant(node.inputs[1])
    out = ctx.shape(node.outputs[0])
    if grid is None or x.shape is None or None in x.shape or len(grid) != 1:
        return _no(ctx, node, "its grid is unknown before the model runs")
    size = [d or 0 for d in x.shape[2:]]
    cells, weights = _taps(node, grid.astype(np.float64).reshape(-1, len(size)), size)
    rows = float(np.abs(weights).sum(axis=1).max(initial=0.0))
    columns = float(np.bincount(cells.reshape(-1), np.abs(weights).reshape(-1)).max(initial=0.0))

    function: Callable[[np.ndarray], np.ndarray] | None = None
    if math.prod(size) * len(cells) <= _MATRIX:
        matrix = np.zeros((math.prod(size), len(cells)))
        np.add.at(matrix, (cells, np.arange(len(cells))[:, None]), weights)

        def function(X: np.ndarray) -> np.ndarray:
            return (X.reshape(*X.shape[:3], -1) @ matrix).reshape(*X.shape[:3], *grid.shape[1:-1])

    known = NormBound(outward(math.sqrt(rows * columns)), "sums of taps")
    return ctx.linear(node, x, Other((node,), x.shape, out, known, function))


_CUBIC = -0.75


def _taps(node: Node, grid: np.ndarray, size: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Flat cells and weights of each place of a grid (P, axes), (P, K) each."""
    mode = str(node.attributes.get("mode", "linear")).removeprefix("bi")
    padding, corners = str(node.attributes.get("padding_mode", "zeros")), attribute(node, "align_corners", 0) == 1
    cells, weights = np.zeros((len(grid), 1), np.int64), np.ones((len(grid), 1))
    for a, n in enumerate(size):
        g = grid[:, len(size) - 1 - a]
        t = (g + 1) * (n - 1) / 2 if corners else ((g + 1) * n - 1) / 2
        low, width = (0.0, n - 1.0) if corners else (-0.5, float(n))
        t = np.round(t) if mode == "nearest" else t
        outside = (t < low) | (t > low + width)
        if padding == "border" and mode != "cubic":
            t = np.where(outside, np.clip(t, 0, n - 1), t)
        elif padding == "reflection":
            t = np.where(outside, _reflected(t, low, width), t)
        steps = {"nearest": [0], "linear": [0, 1], "cubic": [-1, 0, 1, 2]}[mode]
        at = (t if mode == "nearest" else np.floor(t))[:, None] + np.array(steps)
        w = _weight(np.abs(t[:, None] - at), mode)
        if padding == "zeros":
            w = w * ((at >= 0) & (at <= n - 1))
        elif padding == "reflection":
            at = np.where((at < low) | (at > low + width), _reflected(at, low, width), at)
        own = np.clip(at, 0, n - 1).astype(np.int64)
        cells = (cells[:, :, None] * n + own[:, None]).reshape(len(grid), -1)
        weights = (weights[:, :, None] * w[:, None]).reshape(len(grid), -1)
    return cells, weights


def _weight(distance: np.ndarray, mode: str) -> np.ndarray:
    """What a cell at a distance counts."""
    d, a = distance, _CUBIC
    if mode == "nearest":
        return np.ones_like(d)
    if mode == "linear":
        return 1 - d
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)


def _reflected(t: np.ndarray, low: float, width: float) -> np.ndarray:
    if width == 0:
        return np.full_like(t, low)
    within = (t - low) % (2 * width)
    return low + width - np.abs(within - width)


@rule("RoiAlign")
def _roi_align(ctx: Composition, node: Node) -> Value:
    """Every result is a mean of cells, so no row of the matrix is longer than 1, and of R results each: ``‖M‖ ≤ √R``."""
    x, out = ctx.values.get(node.inputs[0]), ctx.shape(node.outputs[0])
    if x is None or any(ctx.varying(n) for n in node.inputs[1:] if n) or str(node.attributes.get("mode", "avg")) != "avg":
        return _no(ctx, node, "its regions vary with the input, or it takes maxima")
    if out is None or None in out:
        return _no(ctx, node, "the number of its regions is not known")
    count = (out[0] or 0) * math.prod(d or 0 for d in out[2:])
    norm = NormBound(outward(math.sqrt(count)), "rows of at most 1")
    return ctx.linear(node, x, Other((node,), x.shape, out, norm), low=min(x.low, 0.0), high=max(x.high, 0.0))


# norms of windows


@rule("LpPool", "GlobalLpPool")
def _window_norms(ctx: Composition, node: Node) -> Value:
    """The slope of a p-norm is at most 1 for p ≥ 2, and √k for the sum of k magnitudes; each cell is in a few windows."""
    x, p = ctx.values[node.inputs[0]], int(attribute(node, "p", 2))
    if x.shape is None:
        return _no(ctx, node, "the shape of its input is not known")
    if node.op == "GlobalLpPool":
        kernel, times_over = [d or 0 for d in x.shape[2:]], 1
        if None in x.shape[2:]:
            return _no(ctx, node, "how many cells it takes is not known")
    else:
        kernel = [int(k) for k in cast("tuple[int, ...]", node.attributes["kernel_shape"])]
        ones = (1,) * len(kernel)
        strides, dilations = (cast("tuple[int, ...]", node.attributes.get(name, ones)) for name in ("strides", "dilations"))
        times_over = math.prod(_windows(k, int(s), int(d)) for k, s, d in zip(kernel, strides, dilations, strict=True))
    slope = outward(math.sqrt(times_over * (math.prod(kernel) if p == 1 else 1)))
    ctx.record(node, log10(slope), kind="pool", method="norms of windows")
    return ctx.fresh(node, times(log10(slope), ctx.log(x)), x, low=0.0)


def _windows(kernel: int, stride: int, dilation: int) -> int:
    """Windows that a cell is in, at most: taps that are a multiple of the stride apart."""
    starts = np.arange(kernel) * dilation % stride
    return int(np.bincount(starts).max())
