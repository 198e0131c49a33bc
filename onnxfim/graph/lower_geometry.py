"""Write operators of windows, grids, signals and indices out in convolutions, products and simpler picking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from onnxfim.graph.lower import Scratch, lowering

_TINY = float(np.finfo(np.float32).tiny)


def _constant(s: Scratch, index: int, what: str) -> np.ndarray:
    """The value of an input that must be known before the model runs."""
    value = s.found.value(s.get(index)) if s.get(index) else None
    if value is None:
        raise s.refuse(f"its {what} is computed at run time")
    return np.asarray(value)


def _whole_numbers(s: Scratch, name: str, default: Sequence[int]) -> list[int]:
    return [int(v) for v in cast("Sequence[int]", s.attributes.get(name, default))]


# norms of windows


def _norm(s: Scratch, powers: str, p: int) -> str:
    """The p-th root of sums of p-th powers; flat, not infinitely steep, where they are all zero."""
    floored = s.write("Max", powers, _TINY)
    return s.write("Sqrt", floored) if p == 2 else powers if p == 1 else s.write("Pow", floored, 1 / p)


def _power(s: Scratch, x: str, p: int) -> str:
    if p == 2:
        return s.write("Mul", x, x)
    size = s.write("Abs", x)
    return size if p == 1 else s.write("Pow", size, float(p))


@lowering("GlobalLpPool")
def _global_lp(s: Scratch) -> str:
    p = s.integer("p", 2)
    return _norm(s, s.write("ReduceSum", _power(s, s.inputs[0], p), list(range(2, s.rank()))), p)


@lowering("LpPool")
def _lp_pool(s: Scratch) -> str:
    """Sums over windows by a convolution with ones, channel by channel."""
    p, kernel, x = s.integer("p", 2), _whole_numbers(s, "kernel_shape", []), s.shape()
    size, rank = x[2:], len(kernel)
    strides, dilations = (_whole_numbers(s, name, [1] * rank) for name in ("strides", "dilations"))
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    flat = _whole_numbers(s, "pads", [0] * 2 * rank)
    automatic = str(s.attributes.get("auto_pad", "NOTSET"))
    begins, out = flat[:rank] if automatic == "NOTSET" else [0] * rank, []
    for a, (h, k, step) in enumerate(zip(size, extent, strides, strict=True)):
        if automatic.startswith("SAME"):
            out.append(-(-h // step))
            total = max((out[a] - 1) * step + k - h, 0)
            begins[a] = total // 2 if automatic == "SAME_UPPER" else total - total // 2
            continue
        room = h + begins[a] + (flat[rank + a] if automatic == "NOTSET" else 0) - k
        count = -(-room // step) + 1 if s.integer("ceil_mode", 0) else room // step + 1
        out.append(count - 1 if (count - 1) * step >= h + begins[a] else count)  # no window starts behind the cells
    # cells behind the last window are left out, those that it lacks are zeros
    ends = [(o - 1) * t + k - h - b for o, t, k, h, b in zip(out, strides, extent, size, begins, strict=True)]
    planes = s.write("Reshape", _power(s, s.inputs[0], p), [-1, 1, *size])
    if any(e < 0 for e in ends):
        kept = [h + min(e, 0) for h, e in zip(size, ends, strict=True)]
        planes = s.write("Slice", planes, [0] * rank, kept, list(range(2, 2 + rank)))
    ones = np.ones((1, 1, *kernel), s.dtype)
    sums = s.write(
        "Conv", planes, ones, kernel_shape=kernel, strides=strides, dilations=dilations, pads=[*begins, *(max(e, 0) for e in ends)]
    )
    return _norm(s, s.write("Reshape", sums, [-1, x[1], *out]), p)


_LOWEST = -float(np.finfo(np.float32).max)


@lowering("MaxRoiPool")
def _pooled_regions(s: Scratch) -> str:
    """Maxima over the rows, then over the columns, of each cell of each region, all else left out."""
    size, cells = s.shape()[2:], _whole_numbers(s, "pooled_shape", [])
    column = [s.write("Gather", s.inputs[1], np.asarray(k, np.int64), axis=1) for k in range(5)]  # owner, x, y, x, y
    inside, empty = [], []
    for a in range(2):
        corners = [
            s.write("Floor", s.write("Add", s.write("Mul", column[k], s.real("spatial_scale", 1.0)), 0.5)) for k in (2 - a, 4 - a)
        ]  # rounded, halves up
        extent = s.write("Max", s.write("Add", s.write("Sub", corners[1], corners[0]), 1.0), 1.0)
        share = s.write("Unsqueeze", s.write("Div", extent, float(cells[a])), [1])  # (R, 1)
        first = s.write("Unsqueeze", corners[0], [1])
        ends = [
            s.write("Add", s.write(op, s.write("Mul", share, (np.arange(cells[a]) + more).astype(s.dtype))), first)
            for op, more in (("Floor", 0), ("Ceil", 1))
        ]  # (R, cells)
        low, high = (s.write("Unsqueeze", s.write("Min", s.write("Max", e, 0.0), float(size[a])), [2]) for e in ends)
        at = np.arange(size[a]).astype(s.dtype)
        inside.append(s.write("And", s.write("GreaterOrEqual", at, low), s.write("Less", at, high)))  # (R, cells, size)
        empty.append(s.write("LessOrEqual", high, low))  # (R, cells, 1)
    maps = s.write("Gather", s.inputs[0], s.write("Cast", column[0], to=7), axis=0)  # (R, C, H, W)
    rows = s.write("Where", s.write("Unsqueeze", inside[0], [1, 4]), s.write("Unsqueeze", maps, [2]), _LOWEST)
    rows = s.write("ReduceMax", rows, [3])  # (R, C, cells, 1, W)
    found = s.write("ReduceMax", s.write("Where", s.write("Unsqueeze", inside[1], [1, 2]), rows, _LOWEST), [4], keepdims=0)
    nothing = s.write(
        "Or", s.write("Unsqueeze", empty[0], [1]), s.write("Transpose", s.write("Unsqueeze", empty[1], [1]), perm=[0, 1, 3, 2])
    )
    return s.write("Where", nothing, 0.0, found)


# windows put back


@lowering("Col2Im")
def _columns_to_image(s: Scratch) -> str:
    """A transposed convolution whose weights hand each row of a column to its cell."""
    image, block = ([int(v) for v in _constant(s, i, what).reshape(-1)] for i, what in ((1, "image shape"), (2, "block shape")))
    rank, taps = len(image), int(np.prod(block))
    strides, dilations = (_whole_numbers(s, name, [1] * rank) for name in ("strides", "dilations"))
    pads = _whole_numbers(s, "pads", [0] * 2 * rank)
    extent = [(k - 1) * d + 1 for k, d in zip(block, dilations, strict=True)]
    out = [(h + b + e - k) // t + 1 for h, b, e, k, t in zip(image, pads[:rank], pads[rank:], extent, strides, strict=True)]
    channels = s.shape()[1] // taps
    weight = np.tile(np.eye(taps, dtype=s.dtype), (channels, 1)).reshape(channels * taps, 1, *block)
    columns = s.write("Reshape", s.inputs[0], [0, channels * taps, *out])
    behind = [h + b - (o - 1) * t - k for h, b, o, t, k in zip(image, pads[:rank], out, strides, extent, strict=True)]
    t = s.write(
        "ConvTranspose", columns, weight, group=channels, kernel_shape=block, strides=strides, dilations=dilations,
        pads=[*pads[:rank], *(max(-b, 0) for b in behind)],
    )  # fmt: skip
    return s.write("Pad", t, [0] * (4 + rank) + [max(b, 0) for b in behind], 0.0) if any(b > 0 for b in behind) else t


@lowering("MaxUnpool")
def _unpooled(s: Scratch) -> str:
    """Each entry goes to its position among all entries of the result."""
    x, rank = s.shape(), s.rank() - 2
    if s.get(2):
        spatial = [int(v) for v in _constant(s, 2, "output shape").reshape(-1)[2:]]
    else:
        kernel, pads = _whole_numbers(s, "kernel_shape", []), _whole_numbers(s, "pads", [0] * 2 * rank)
        strides = _whole_numbers(s, "strides", [1] * rank)
        ends = zip(x[2:], strides, kernel, pads[:rank], pads[rank:], strict=True)
        spatial = [(h - 1) * t + k - b - e for h, t, k, b, e in ends]
    shape = s.write("Concat", s.write("Shape", s.inputs[0], start=0, end=2), spatial, axis=0)
    zeros = s.write("Expand", 0.0, s.write("ReduceProd", shape, [0]))
    flat, where = (s.write("Reshape", t, [-1]) for t in s.inputs[:2])
    return s.write("Reshape", s.write("ScatterElements", zeros, where, flat, axis=0), shape)


# grids


@lowering("AffineGrid")
def _affine_grid(s: Scratch) -> str:
    """A product of each row's matrix with the fixed grid, the last axis first."""
    size = [int(v) for v in _constant(s, 1, "size").reshape(-1)[2:]]
    corners = s.integer("align_corners", 0) == 1
    # one cell between corners is the last one to the runtime
    axes = [np.linspace(-1, 1, n) if corners and n > 1 else np.ones(1) if corners else (2 * np.arange(n) + 1) / n - 1 for n in size]
    mesh = np.meshgrid(*axes, indexing="ij")
    grid = np.stack([*mesh[::-1], np.ones(size)], axis=-1).reshape(-1, len(size) + 1).astype(s.dtype)
    turned = s.write("Transpose", s.inputs[0], perm=[0, 2, 1])
    return s.write("Reshape", s.write("MatMul", grid, turned), [0, *size, len(size)])


@lowering("DeformConv")
def _deformed(s: Scratch) -> str:
    """A matrix product of weights with what GridSample reads at the moved taps."""
    x, weight = s.shape(), s.shape(1)
    if len(x) != 4:
        raise s.refuse("its rule is for images of two axes")
    (rows, columns), kernel = x[2:], list(weight[2:])
    groups, parts = s.integer("group", 1), s.integer("offset_group", 1)
    strides, dilations = (_whole_numbers(s, name, [1, 1]) for name in ("strides", "dilations"))
    pads = _whole_numbers(s, "pads", [0] * 4)
    out, taps = list(s.shape(2)[2:]), kernel[0] * kernel[1]
    places = []
    for a in range(2):
        tap = np.arange(kernel[a]) * dilations[a]
        at = np.arange(out[a]) * strides[a] - pads[a]
        along = at.reshape(-1, 1) if a == 0 else at.reshape(1, -1)
        column = np.repeat(tap, kernel[1]) if a == 0 else np.tile(tap, kernel[0])
        places.append(np.broadcast_to(column[:, None, None] + along, (taps, *out)))
    base = np.stack(places, axis=1).astype(s.dtype)  # (taps, 2, *out), rows first
    moved = s.write("Add", s.write("Reshape", s.inputs[2], [-1, taps, 2, *out]), base)  # (N·parts, taps, 2, *out)
    scale = np.asarray([2 / rows, 2 / columns], s.dtype).reshape(2, 1, 1)
    shift = np.asarray([1 / rows - 1, 1 / columns - 1], s.dtype).reshape(2, 1, 1)
    grid = s.write("Add", s.write("Mul", moved, scale), shift)
    grid = s.write("Transpose", s.write("Gather", grid, [1, 0], axis=2), perm=[0, 1, 3, 4, 2])
    grid = s.write("Reshape", grid, [0, taps * out[0], out[1], 2])
    shares = s.write("Reshape", s.inputs[0], [-1, x[1] // parts, rows, columns])
    read = s.write("GridSample", shares, grid, mode="bilinear" if s.opset < 20 else "linear", padding_mode="zeros", align_corners=0)
    positions = out[0] * out[1]
    if s.get(4):
        read = s.write("Reshape", read, [0, x[1] // parts, taps, positions])
        read = s.write("Mul", read, s.write("Reshape", s.inputs[4], [-1, 1, taps, positions]))
    read = s.write("Reshape", read, [-1, groups, x[1] // groups * taps, positions])
    matrix = s.write("Reshape", s.inputs[1], [groups, weight[0] // groups, weight[1] * taps])
    y = s.write("Reshape", s.write("MatMul", matrix, read), [-1, weight[0], *out])
    return s.write("Add", y, s.write("Reshape", s.inputs[3], [-1, 1, 1])) if s.get(3) else y


# signals

_LONGEST = 1 << 24  # numbers of a transform written as a convolution


@lowering("STFT")
def _short_time_fourier(s: Scratch) -> str:
    """A convolution with the windowed waves."""
    x, step = s.shape(), int(_constant(s, 1, "frame step").reshape(()))
    window = s.get(2)
    length = int(_constant(s, 3, "frame length").reshape(())) if s.get(3) else s.shape(2)[0]
    parts = x[2] if len(x) == 3 else 1
    bins = length // 2 + 1 if s.integer("onesided", 1) == 1 else length
    if 2 * bins * parts * length > _LONGEST:
        raise s.refuse("its frames are too long")
    # e^{-2πi kt / length}; whole turns taken off before the angle, so that it keeps its digits
    angle = 2 * np.pi * (np.outer(np.arange(bins), np.arange(length)) % length) / length
    cos, sin = np.cos(angle), np.sin(angle)
    waves = np.array([[cos, sin], [-sin, cos]])[:, :parts]  # (real and imaginary part, parts of x, bins, t)
    kernel: str | np.ndarray = np.ascontiguousarray(waves.transpose(2, 0, 1, 3).reshape(2 * bins, parts, length).astype(s.dtype))
    if window:
        kernel = s.write("Mul", kernel, window)
    signal = s.write("Transpose", s.write("Reshape", s.inputs[0], [0, x[1], parts]), perm=[0, 2, 1])
    frames = (x[1] - length) // step + 1
    t = s.write("Conv", signal, kernel, kernel_shape=[length], strides=[step])
    t = s.write("Reshape", t, [0, bins, 2, frames])
    return s.write("Transpose", t, perm=[0, 3, 1, 2])


# picking and placing


@lowering("GatherND")
def _gather_nd(s: Scratch) -> str:
    """Rows of the flattened value, by one number each."""
    shape, depth, batch = s.shape(), s.shape(1)[-1], s.integer("batch_dims", 0)
    lead = batch + depth
    sizes = s.write("Shape", s.inputs[0], start=batch, end=lead)
    index = s.write("Mod", s.write("Cast", s.inputs[1], to=7), sizes)  # negative ones count from the end
    strides = [s.write("ReduceProd", s.write("Shape", s.inputs[0], start=batch + j + 1, end=lead), [0]) for j in range(depth - 1)]
    steps = s.write("Concat", *strides, [1], axis=0) if strides else np.ones(1, np.int64)
    flat = s.write("ReduceSum", s.write("Mul", index, steps), [-1], keepdims=0)
    if batch:  # each row of the batch axes is followed by the next
        zero, one = np.asarray(0, np.int64), np.asarray(1, np.int64)
        dims = s.write("Shape", s.inputs[0], start=0, end=batch)
        count = s.write("ReduceProd", dims, [0], keepdims=0)
        starts = s.write("Mul", s.write("Range", zero, count, one), s.write("ReduceProd", sizes, [0]))
        ones = [1] * (len(s.shape(1)) - 1 - batch)
        starts = s.write("Reshape", starts, s.write("Concat", dims, ones, axis=0) if ones else dims)
        flat = s.write("Add", flat, starts)
    rest = s.write("Shape", s.inputs[0], start=lead) if lead < len(shape) else None
    rows = s.write("Reshape", s.inputs[0], s.write("Concat", [-1], rest, axis=0) if rest else [-1])
    return s.write("Gather", rows, flat, axis=0)


@lowering("Compress")
def _compressed(s: Scratch) -> str:
    kept = [int(i) for i in np.flatnonzero(_constant(s, 1, "condition"))]
    if "axis" not in s.attributes:
        return s.write("Gather", s.write("Reshape", s.inputs[0], [-1]), kept, axis=0)
    return s.write("Gather", s.inputs[0], kept, axis=s.integer("axis", 0))


@lowering("TensorScatter")
def _cache(s: Scratch) -> str:
    """The update goes to consecutive places along an axis, from a place of its own in each row."""
    shape, news = s.shape(), s.shape(1)
    axis = s.integer("axis", -2) % len(shape)
    steps = np.arange(news[axis], dtype=np.int64).reshape(1, -1)
    places: str = s.write("Add", s.write("Unsqueeze", s.inputs[2], [1]), steps) if s.get(2) else s.write("Identity", steps)
    if s.attributes.get("mode", "linear") == "circular":
        places = s.write("Mod", places, np.asarray(shape[axis], np.int64))
    places = s.write("Reshape", places, [-1, *(news[axis] if a == axis else 1 for a in range(1, len(shape)))])
    where = s.write("Expand", places, s.write("Shape", s.inputs[1]))
    return s.write("ScatterElements", s.inputs[0], where, s.inputs[1], axis=axis)
