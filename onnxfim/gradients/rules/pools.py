"""Pooling: the maximum by its recomputed position, the average by its weights as the runtime counts them."""

from __future__ import annotations

import numpy as np

from onnxfim.gradients.derivative_rules import Cotangent, Scaled, Site, linear, numel
from onnxfim.gradients.rules.windows import Window, window
from onnxfim.graph.emitter import AttributeValue
from onnxfim.graph.shapes import Dim

_POOL_ATTRIBUTES = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides")


def _window(n: Site) -> Window:
    x, y = n.static(n.shape(n.x)[2:]), n.static(n.shape(n.y)[2:])
    return window(n, x, y, n.integers("kernel_shape"))


# maximum


def _winners(n: Site) -> str:
    """Position of each window's first maximum within its plane, (N, C, windows)."""
    if n.integer("storage_order"):
        raise n.refuse("storage_order 1 has no rule")
    if len(n.node.output) < 2 or not n.node.output[1]:
        del n.node.output[1:]
        n.node.output.append(n.emitter.fresh("indices"))
    plane = numel(n.static(n.shape(n.x)[2:]))
    within = n.write("Mod", n.node.output[1], np.asarray(plane, np.int64))
    return n.write("Reshape", within, [0, 0, -1])


def _flat(n: Site, name: str) -> list[Dim]:
    """(N, C, cells) of a value (N, C, *spatial)."""
    dims = n.shape(name)
    return [*dims[:2], numel(n.static(dims[2:]))]


def _max_transpose(n: Site, u: str) -> Cotangent:
    w = _window(n)
    if n.dtype == np.float32 and all(e <= s for e, s in zip(w.extent, w.strides, strict=True)):  # Resize takes no doubles
        return Scaled(_spread(n, u, w), _won(n))
    u = n.reshape(u, _flat(n, n.y))
    where = n.write("Expand", _winners(n), n.write("Shape", u))
    shape = n.write("Concat", n.seeds, n.write("Shape", n.x, start=0, end=2), [_plane(n)], axis=0)
    overlapping = any(k > s or d > 1 for k, s, d in zip(w.kernel, w.strides, w.dilations, strict=True))
    g = n.write("ScatterElements", n.write("Expand", 0.0, shape), where, u, axis=3, reduction="add" if overlapping else None)
    return n.reshape(g, n.shape(n.x))


def _won(n: Site) -> str:
    """1 at the first maximum of each window that overlaps no other, 0 elsewhere, (N, C, *spatial): found once for all seeds."""
    winners = _winners(n)
    rows = n.write("Shape", n.x, start=0, end=2)
    zeros = n.write("Expand", 0.0, n.write("Concat", rows, [_plane(n)], axis=0))
    won = n.write("ScatterElements", zeros, winners, n.write("Expand", 1.0, n.write("Shape", winners)), axis=2)
    return n.write("Reshape", won, n.write("Shape", n.x))


def _spread(n: Site, u: str, w: Window) -> str:
    """The cotangent of each window at all cells from its first to the next window's, (S, N, C, *spatial)."""
    y = n.shape(n.y)
    u = n.fold(u, y)
    if any(s > 1 for s in w.strides):
        scales = np.asarray([1, 1, *w.strides], np.float32)
        nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        u = n.write("Resize", u, None, scales, **nearest)
    covered = [o * s for o, s in zip(n.static(y[2:]), w.strides, strict=True)]  # from the first padded cell
    starts = [b for b, _ in w.pads]
    ends = [min(b + h, c) for b, h, c in zip(starts, w.size, covered, strict=True)]
    if any(starts) or ends != covered:
        u = n.write("Slice", u, starts, ends, [i + 2 for i in range(len(ends))])
    behind = [b + h - e for b, h, e in zip(starts, w.size, ends, strict=True)]
    return n.unfold(n.pad(u, [0] * (1 + len(ends)), [0, *behind]), n.shape(n.x))


def _plane(n: Site) -> int:
    return numel(n.static(n.shape(n.x)[2:]))


def _max(n: Site, v: str) -> str:
    v = n.reshape(v, _flat(n, n.x))
    winners = _winners(n)
    where = n.write("Expand", winners, n.write("Concat", n.seeds, n.write("Shape", winners), axis=0))
    return n.reshape(n.write("GatherElements", v, where, axis=3), n.shape(n.y))


linear("MaxPool", transpose=_max_transpose, apply=_max)


# average


def _average(n: Site, t: str) -> str:
    attributes = {name: n.attribute(name) for name in _POOL_ATTRIBUTES}
    kept: dict[str, AttributeValue] = {k: v for k, v in attributes.items() if isinstance(v, (int, str, list))}
    return n.write("AveragePool", t, **kept)


def _share(n: Site, w: Window) -> str:
    """1 / divisor of each window, (1, 1, *out), read off the runtime's own average of ones.

    Operators differ between versions in what they divide by at the border with ceil_mode; the runtime's word counts.
    """
    valid = np.ones([], dtype=n.dtype)
    for h, o, k, s, d, (begin, _) in zip(w.size, n.static(n.shape(n.y)[2:]), w.kernel, w.strides, w.dilations, w.pads, strict=True):
        taps = np.arange(o)[:, None] * s - begin + np.arange(k)[None] * d
        valid = np.multiply.outer(valid, ((taps >= 0) & (taps < h)).sum(axis=1).astype(n.dtype))
    average = _average(n, n.emitter.constant(np.ones((1, 1, *w.size), n.dtype)))
    if n.integer("ceil_mode"):  # the runtime's shape inference may count a window that its kernel does not have
        out = n.static(n.shape(n.y)[2:])
        average = n.write("Slice", average, [0] * len(out), out, list(range(2, 2 + len(out))))
    return n.div(average, np.maximum(valid, 1)[None, None])


def _average_transpose(n: Site, u: str) -> str:
    """Hand each window's cotangent, divided, to its cells."""
    x, y = n.shape(n.x), n.shape(n.y)
    w = _window(n)
    size, out = list(w.size), n.static(y[2:])
    rank = len(size)
    if out == [1] * rank and not any(w.flat_pads) and list(w.kernel) == size:
        return n.write("Expand", n.mul(u, 1 / numel(size)), [1] * (len(x) - rank + 1) + size)
    if n.dtype == np.float32 and w.kernel == w.strides and all(d == 1 for d in w.dilations):  # Resize takes no doubles
        return _spread(n, n.mul(u, _share(n, w)), w)
    folded = n.write("Reshape", n.mul(u, _share(n, w)), [-1, 1, *out])  # (S·N·C, 1, *out)
    padded = [h + b + max((o - 1) * s + e - h - b, 0) for h, o, s, e, (b, _) in _cells(w, out)]
    ones = n.emitter.constant(np.ones((1, 1, *w.kernel), n.dtype))
    extra = [p - (o - 1) * s - e for p, (_, o, s, e, _) in zip(padded, _cells(w, out), strict=True)]
    g = n.write(
        "ConvTranspose", folded, ones, strides=list(w.strides), dilations=list(w.dilations), kernel_shape=list(w.kernel)
    )  # from the first padded cell to the last one that a window covers
    if any(extra):
        g = n.write("Pad", g, [0] * (2 + rank) + [0, 0, *extra], 0.0)
    starts = [b for b, _ in w.pads]
    ends = [b + h for (b, _), h in zip(w.pads, size, strict=True)]
    if any(starts) or ends != padded:
        g = n.write("Slice", g, starts, ends, list(range(2, 2 + rank)))
    return n.unfold(g, x)


def _cells(w: Window, out: list[int]) -> list[tuple[int, int, int, int, tuple[int, int]]]:
    return list(zip(w.size, out, w.strides, w.extent, w.pads, strict=True))


def _average_apply(n: Site, v: str) -> str:
    return n.unfold(_average(n, n.fold(v, n.shape(n.x))), n.shape(n.y))


linear("AveragePool", transpose=_average_transpose, apply=_average_apply)


def _global_average_transpose(n: Site, u: str) -> str:
    size = n.static(n.shape(n.x)[2:])
    return n.write("Expand", n.mul(u, 1 / numel(size)), [1, 1, 1, *size])


def _global_average(n: Site, v: str) -> str:
    return n.write("ReduceMean", v, [i + 3 for i in range(n.rank(n.x) - 2)])


linear("GlobalAveragePool", transpose=_global_average_transpose, apply=_global_average)
