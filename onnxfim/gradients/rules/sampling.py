"""Resampling: Resize by its matrix along each axis, GridSample and RoiAlign by their taps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxfim.gradients.derivative_rules import Site, linear, numel, rule
from onnxfim.graph.emitter import AttributeValue
from onnxfim.graph.shapes import Batch

# Resize


def _cropped(n: Site) -> bool:
    return str(n.attribute("coordinate_transformation_mode", "half_pixel")) == "tf_crop_and_resize"


def _named_axes(n: Site) -> list[int]:
    """The axes that scales, sizes and regions are given for."""
    rank = n.rank(n.x)
    return [a % rank for a in n.integers("axes")] or list(range(rank))


def _scales(n: Site) -> dict[int, float]:
    """Scales by axis, where the node is given some, or sizes that keep a ratio."""
    axes, scales = _named_axes(n), n.value(2)
    if scales is not None and scales.size:
        return dict(zip(axes, (float(s) for s in scales.reshape(-1)), strict=True))
    policy, sizes = str(n.attribute("keep_aspect_ratio_policy", "stretch")), n.value(3)
    if policy == "stretch":
        return {}
    if sizes is None or any(isinstance(n.shape(n.x)[a], Batch) for a in axes):
        raise n.refuse("it keeps a ratio to the batch")
    ratios = np.asarray(sizes.reshape(-1), np.float32) / np.asarray(n.static([n.shape(n.x)[a] for a in axes]), np.float32)
    scale = float(ratios.min() if policy == "not_larger" else ratios.max())
    if any(int(d * scale) != o for a in axes for d, o in [n.static([n.shape(n.x)[a], n.shape(n.y)[a]])]):
        raise n.refuse("it keeps a ratio that leaves no whole size")
    return dict.fromkeys(axes, scale)


def _resampled(n: Site) -> list[int]:
    """Axes that a Resize changes."""
    dims, out, scales = n.shape(n.x), n.shape(n.y), _scales(n)
    axes = [i for i, (a, b) in enumerate(zip(dims, out, strict=True)) if a != b or scales.get(i, 1.0) != 1.0]
    if _cropped(n):
        if n.has(1) and n.varies[1]:
            raise n.refuse("its region depends on the differentiated input")
        axes = sorted({*axes, *(i for i, (start, end) in _regions(n).items() if (start, end) != (0.0, 1.0))})
    n.static([dims[i] for i in axes])
    return axes


def _regions(n: Site) -> dict[int, tuple[float, float]]:
    """Start and end of the region that is cut out, by axis."""
    roi = n.known(1, "region").reshape(2, -1)
    return {a: (float(s), float(e)) for a, s, e in zip(_named_axes(n), *roi, strict=True)}


def _resize_attributes(n: Site) -> dict[str, AttributeValue]:
    names = ("coordinate_transformation_mode", "mode", "nearest_mode", "cubic_coeff_a", "exclude_outside", "antialias")
    found = {name: n.attribute(name) for name in names}
    return {k: v for k, v in found.items() if isinstance(v, (int, float, str))}  # beyond a region: zeros, a constant's slope


def _resize_matrix(n: Site, axis: int) -> str:
    """The operator along one axis as a matrix (in, out): itself applied to the identity, computed once at load time."""
    dims, out = n.static([n.shape(n.x)[axis]])[0], n.static([n.shape(n.y)[axis]])[0]
    eye = n.emitter.constant(np.eye(dims, dtype=n.dtype)[None, None])
    scales, region = _scales(n), None
    if _cropped(n):
        region = n.emitter.constant(np.asarray([0, 0, 0, _regions(n)[axis][0], 1, 1, 1, _regions(n)[axis][1]], np.float32))
    if scales:
        wide = np.asarray([1, 1, 1, scales.get(axis, 1.0)], np.float32)
        got = n.write("Resize", eye, region, wide, **_resize_attributes(n))
    else:
        got = n.write("Resize", eye, region, None, [1, 1, dims, out], **_resize_attributes(n))
    return n.write("Reshape", got, [dims, out])


def _resize(n: Site, t: str, *, back: bool) -> str:
    """Multiply each changed axis by its matrix."""
    for axis in _resampled(n):
        matrix = _resize_matrix(n, axis)
        rank = n.rank(n.x)
        if axis == rank - 1:
            t = n.write("MatMul", t, n.write("Transpose", matrix, perm=[1, 0]) if back else matrix)
        elif axis == rank - 2:
            t = n.write("MatMul", matrix if back else n.write("Transpose", matrix, perm=[1, 0]), t)
        else:
            order = [*(i for i in range(rank + 1) if i != axis + 1), axis + 1]
            t = n.write("Transpose", t, perm=order)
            t = n.write("MatMul", t, n.write("Transpose", matrix, perm=[1, 0]) if back else matrix)
            t = n.write("Transpose", t, perm=[int(i) for i in np.argsort(order)])
    return t


linear("Resize", transpose=lambda n, u: _resize(n, u, back=True), apply=lambda n, v: _resize(n, v, back=False))


# GridSample: each entry of the result is a weighted sum of a few cells, the taps

# Weights of a tap by powers of the distance to the cell in front, (taps, powers): linear, and Keys's cubic with a = -3/4.
_LINEAR = np.array([[1.0, -1.0], [0.0, 1.0]])
_A = -0.75
_CUBIC = np.array([[0, _A, -2 * _A, _A], [1, 0, -(_A + 3), _A + 2], [0, -_A, 2 * _A + 3, -(_A + 2)], [0, 0, _A, -_A]])
#: Entries of a matrix from cells to results up to which products are faster than placing, with few channels and with at least
#: `_CHANNELS`: measured 0.4 times as long on 64 channels of 32 × 32, and 2.6 times on 3 of 28 × 28.
_FEW, _DENSE, _CHANNELS = 1 << 16, 1 << 21, 16


@dataclass(frozen=True)
class _Taps:
    """The taps of a GridSample: K a result, of P results.

    Attributes:
        where: Cells in a flattened map, (N, P, K) int64.
        weights: (N, P, K).
        slopes: Of the weights, by the coordinate along each spatial axis, (N, P, K); none where the grid is constant.
    """

    where: str
    weights: str
    slopes: list[str]


def _reflected(n: Site, t: str, low: float, width: float) -> tuple[str, str]:
    """Coordinates folded into ``[low, low + width]``, and the sign of the slope."""
    if width == 0:
        return n.add(n.mul(t, 0.0), low), n.mul(t, 0.0)
    period = n.mul(n.write("Floor", n.mul(n.sub(t, low), 0.5 / width)), 2 * width)
    within = n.sub(n.sub(n.sub(t, low), period), width)  # from −width to width
    return n.sub(low + width, n.write("Abs", within)), n.write("Neg", n.write("Sign", within))


def _axis_taps(n: Site, axis: int, size: int) -> tuple[str, str, str]:
    """Cells, weights and slopes of the weights along one spatial axis, (N, P, T) each."""
    mode, padding = str(n.attribute("mode", "linear")).removeprefix("bi"), str(n.attribute("padding_mode", "zeros"))
    corners, rank = n.integer("align_corners") == 1, n.rank(n.x) - 2
    grid = n.write("Gather", n.inputs[1], np.asarray(rank - 1 - axis, np.int64), axis=-1)  # the last axis comes first
    grid = n.write("Reshape", grid, [0, -1, 1])
    scale = (size - 1) / 2 if corners else size / 2
    t = n.add(n.mul(n.add(grid, 1.0), scale), 0.0 if corners else -0.5)
    low, width = (0.0, size - 1.0) if corners else (-0.5, float(size))
    if mode == "nearest":
        t = n.write("Round", t)
    slope = n.emitter.operand(scale, n.dtype)
    outside = n.write("Or", n.write("Less", t, low), n.write("Greater", t, low + width))
    if padding == "border" and mode != "cubic":  # whose taps are moved to the border one by one
        slope = n.mul(slope, n.mask(n.write("Not", outside)))
        t = n.write("Where", outside, n.write("Min", n.write("Max", t, 0.0), size - 1.0), t)
    elif padding == "reflection":
        folded, sign = _reflected(n, t, low, width)
        slope = n.mul(slope, n.write("Where", outside, sign, 1.0))
        t = n.write("Where", outside, folded, t)
    if mode == "nearest":
        cells = t
        weights, slopes = n.write("Expand", 1.0, n.write("Shape", t)), n.mul(t, 0.0)
    else:
        form = _LINEAR if mode == "linear" else _CUBIC
        front = n.write("Floor", t)
        weights, slopes = _polynomials(n, n.sub(t, front), form, slope)
        cells = n.add(front, n.emitter.constant((np.arange(len(form)) - (len(form) // 2 - 1)).astype(n.dtype)))
    if padding == "zeros":
        inside = n.mask(n.write("And", n.write("GreaterOrEqual", cells, 0.0), n.write("LessOrEqual", cells, size - 1.0)))
        weights, slopes = n.mul(weights, inside), n.mul(slopes, inside)
    elif padding == "reflection":
        beyond = n.write("Or", n.write("Less", cells, low), n.write("Greater", cells, low + width))
        cells = n.write("Where", beyond, _reflected(n, cells, low, width)[0], cells)
    cells = n.write("Min", n.write("Max", cells, 0.0), size - 1.0)
    return n.write("Cast", cells, to=TensorProto.INT64), weights, slopes


def _polynomials(n: Site, t: str, form: np.ndarray, slope: str) -> tuple[str, str]:
    """Weights (N, P, T) at the distances t (N, P, 1), and their slopes times ``slope``."""
    powers = np.arange(form.shape[1])
    values = []
    for coefficients in (form, form[:, 1:] * powers[1:]):
        total = n.emitter.constant(coefficients[:, -1].astype(n.dtype))
        for k in range(coefficients.shape[1] - 2, -1, -1):
            total = n.add(n.mul(t, total), n.emitter.constant(coefficients[:, k].astype(n.dtype)))
        values.append(total)
    weights, slopes = values
    return weights, n.mul(slopes, slope)


def _taps(n: Site) -> _Taps:
    size = n.static(n.shape(n.x)[2:])
    if 0 in size:
        raise n.refuse("its map is empty")
    rank = len(size)
    axes = [_axis_taps(n, a, size[a]) for a in range(rank)]

    def spread(t: str, a: int) -> str:
        """(N, P, T) with the taps on their own axis among those of all."""
        behind = [i for i in range(2, 2 + rank) if i != 2 + a]
        return n.write("Unsqueeze", t, behind)

    def flat(t: str) -> str:
        return n.write("Reshape", t, [0, 0, -1])

    def product(parts: list[str]) -> str:
        total = parts[0]
        for part in parts[1:]:
            total = n.write("Mul", total, part)
        return total

    where: str | None = None
    for a, (cells, _, _) in enumerate(axes):
        steps = n.write("Mul", spread(cells, a), np.asarray(math.prod(size[a + 1 :]), np.int64))
        where = steps if where is None else n.write("Add", where, steps)
    assert where is not None
    weights = [spread(w, a) for a, (_, w, _) in enumerate(axes)]
    slopes = []
    if n.varies[1]:
        for a in range(rank):
            slopes.append(flat(product([spread(axes[a][2], a) if i == a else w for i, w in enumerate(weights)])))
    return _Taps(flat(where), flat(product(weights)), slopes)


def _map_cells(n: Site) -> int:
    return numel(n.static(n.shape(n.x)[2:]))


def _results(n: Site) -> int:
    return numel(n.static(n.shape(n.y)[2:]))


def _grid_slopes(n: Site, taps: _Taps) -> list[str]:
    """∂y by the coordinate along each spatial axis, (N, C, P)."""
    rows, channels = n.write("Shape", n.x, start=0, end=1), n.static(n.shape(n.x)[1:2])[0]
    cells = _map_cells(n)
    flat = n.write("Transpose", n.write("Reshape", n.x, [0, channels, cells]), perm=[0, 2, 1])
    flat = n.write("Reshape", flat, [-1, channels])  # (N·cells, C)
    zero, one = np.asarray(0, np.int64), np.asarray(1, np.int64)
    starts = n.write("Mul", n.write("Range", zero, n.write("Squeeze", rows, [0]), one), np.asarray(cells, np.int64))
    picked = n.write("Gather", flat, n.write("Add", taps.where, n.write("Reshape", starts, [-1, 1, 1])), axis=0)  # (N, P, K, C)
    stacked = n.write("Concat", *(n.write("Unsqueeze", s, [2]) for s in taps.slopes), axis=2)  # (N, P, axes, K)
    slopes = n.write("Transpose", n.write("MatMul", stacked, picked), perm=[2, 0, 3, 1])  # (axes, N, C, P)
    return [n.write("Squeeze", part, [0]) for part in n.split(slopes, [1] * len(taps.slopes), axis=0)]


def _grid_vjp(n: Site, u: str) -> Mapping[int, str]:
    taps = _taps(n)
    rows, channels = n.shape(n.x)[:2]
    cells, results = _map_cells(n), _results(n)
    u = n.reshape(u, [rows, channels, results])
    back = {}
    if n.varies[0]:
        back[0] = n.reshape(_onto_map(n, u, taps, cells, results), n.shape(n.x))
    if n.varies[1]:
        parts = [n.write("ReduceSum", n.mul(u, s), [2], keepdims=0) for s in _grid_slopes(n, taps)]  # (S, N, P)
        joined = n.write("Concat", *(n.write("Unsqueeze", p, [3]) for p in parts[::-1]), axis=3)
        back[1] = n.reshape(joined, n.shape(n.inputs[1]))
    return back


def _onto_map(n: Site, u: str, taps: _Taps, cells: int, results: int) -> str:
    """Cotangents (S, N, C, P) handed to the cells of their taps, (S, N, C, cells)."""
    (channels,) = n.static(n.shape(n.x)[1:2])
    if cells * results <= (_DENSE if channels >= _CHANNELS else _FEW):
        shape = n.write("Concat", n.write("Shape", taps.where, start=0, end=2), [cells], axis=0)
        matrix = n.write("ScatterElements", n.write("Expand", 0.0, shape), taps.where, taps.weights, axis=2, reduction="add")
        rows = n.write("Reshape", n.write("Transpose", u, perm=[1, 0, 2, 3]), [0, -1, results])  # (N, S·C, P)
        rows = n.write("MatMul", rows, matrix)  # by (N, P, cells)
        return n.write("Transpose", n.write("Reshape", rows, [0, -1, channels, cells]), perm=[1, 0, 2, 3])
    size = n.write("Concat", n.seeds, n.write("Shape", n.x, start=0, end=2), [-1], axis=0)

    def among(t: str) -> str:
        """(N, P, K) with an axis for channels in front of the results."""
        return n.write("Unsqueeze", t, [1])

    spread = n.write("Mul", n.write("Unsqueeze", u, [4]), among(taps.weights))  # (S, N, C, P, K)
    where = n.write("Expand", among(taps.where), n.write("Shape", spread))
    zeros = n.write("Expand", 0.0, n.write("Concat", n.seeds, n.write("Shape", n.x, start=0, end=2), [cells], axis=0))
    spread, where = (n.write("Reshape", t, size) for t in (spread, where))
    return n.write("ScatterElements", zeros, where, spread, axis=3, reduction="add")


def _grid_jvp(n: Site, vs: Mapping[int, str]) -> str:
    terms = []
    if 0 in vs:
        names = ("mode", "padding_mode", "align_corners")
        kept: dict[str, AttributeValue] = {k: v for k in names if isinstance(v := n.attribute(k), (int, str))}
        dims = n.shape(n.inputs[1])
        grid = n.write("Expand", n.inputs[1], n.write("Concat", n.seeds, n.write("Shape", n.inputs[1]), axis=0))
        got = n.write("GridSample", n.fold(vs[0], n.shape(n.x)), n.fold(grid, dims), **kept)
        terms.append(n.unfold(got, n.shape(n.y)))
    if 1 in vs:
        rows, rank = n.shape(n.x)[0], n.rank(n.x) - 2
        v = n.reshape(vs[1], [rows, 1, _results(n), rank])  # (S, N, 1, P, axes)
        moved = [n.write("Gather", v, np.asarray(rank - 1 - a, np.int64), axis=4) for a in range(rank)]
        parts = [n.mul(m, s) for m, s in zip(moved, _grid_slopes(n, _taps(n)), strict=True)]
        terms.append(n.reshape(n.write("Sum", *parts), n.shape(n.y)))
    return terms[0] if len(terms) == 1 else n.add(*terms)


rule("GridSample", _grid_vjp, _grid_jvp)


# RoiAlign: linear in its map, by the matrix that it is on the identity

_LARGEST = 1 << 24  # entries of a matrix a region


def _regions_matrix(n: Site) -> str:
    """The mean over each cell of each region as a matrix, (R, H·W, cells)."""
    if str(n.attribute("mode", "avg")) != "avg":
        raise n.refuse("its mode 'max' has no rule")
    height, width = n.static(n.shape(n.x)[2:])
    results = _results(n)
    if height * width * max(results, height * width) > _LARGEST:
        raise n.refuse("its map is too large")
    names = ("mode", "output_height", "output_width", "sampling_ratio", "spatial_scale", "coordinate_transformation_mode")
    kept: dict[str, AttributeValue] = {k: v for k in names if isinstance(v := n.attribute(k), (int, float, str))}
    eye = n.emitter.constant(np.eye(height * width, dtype=n.dtype).reshape(1, height * width, height, width))
    first = n.write("Mul", n.inputs[2], np.asarray(0, np.int64))
    return n.write("Reshape", n.write("RoiAlign", eye, n.inputs[1], first, **kept), [-1, height * width, results])


def _roi_transpose(n: Site, u: str) -> str:
    channels, regions = n.shape(n.x)[1], n.shape(n.y)[0]
    matrix = n.write("Transpose", _regions_matrix(n), perm=[0, 2, 1])
    parts = n.write("MatMul", n.reshape(u, [regions, channels, _results(n)]), matrix)  # (S, R, C, H·W)
    flat = n.reshape(parts, [regions, numel(n.static(n.shape(n.x)[1:]))])
    zero, one = np.asarray(0, np.int64), np.asarray(1, np.int64)
    number = n.write("Range", zero, n.write("Squeeze", n.write("Shape", n.x, start=0, end=1), [0]), one)
    owner = n.mask(n.write("Equal", n.write("Unsqueeze", number, [1]), n.inputs[2]))  # (N, R)
    return n.reshape(n.write("MatMul", owner, flat), n.shape(n.x))


def _roi(n: Site, v: str) -> str:
    rows, channels = n.shape(n.x)[:2]
    v = n.write("Gather", n.reshape(v, [rows, channels, _map_cells(n)]), n.inputs[2], axis=1)  # (S, R, C, H·W)
    return n.reshape(n.write("MatMul", v, _regions_matrix(n)), n.shape(n.y))


linear("RoiAlign", transpose=_roi_transpose, apply=_roi)
