"""Random graphs for resampling, transforms, windows, rare functions and losses."""

from __future__ import annotations

import numpy as np

from tests.gradients.cases import Case, Rng, away, ints, pick
from tests.gradients.cases_indexed import rows_of, scaled
from tests.support.gradient_nets import ROWS, Net, spread

CASES: list[Case] = []


def case(*ops: str, repeats: int = 2):
    def register(make):
        CASES.append(Case(ops, make.__name__, make, repeats))
        return make

    return register


# functions of one input: (operator, attributes, opset, range of x, kinks)

RARE = [
    ("Tan", {}, 18, (-1.2, 1.2), ()),
    ("Asin", {}, 18, (-0.9, 0.9), ()),
    ("Acos", {}, 18, (-0.9, 0.9), ()),
    ("Sinh", {}, 18, (-2, 2), ()),
    ("Cosh", {}, 18, (-2, 2), ()),
    ("Asinh", {}, 18, (-3, 3), ()),
    ("Acosh", {}, 18, (1.2, 4), ()),
    ("Atanh", {}, 18, (-0.9, 0.9), ()),
    ("Shrink", {}, 18, (-2, 2), (-0.5, 0.5)),
    ("Shrink", {"lambd": 0.75, "bias": 0.25}, 18, (-2, 2), (-0.75, 0.75)),
]


def _rare(op: str, attributes: dict, opset: int, limits: tuple, kinks: tuple):
    def make(rng: Rng) -> tuple[Net, str]:
        shape = tuple(ints(rng, 1, 4, int(rng.integers(1, 4))))
        net = Net(shape, opset=opset, x=away(rng, spread(rng, ROWS, *shape, low=limits[0], high=limits[1]), kinks))
        net.step = 5e-3
        net.rtol = 5e-3  # the step is small, so float32 rounding of y shows
        return net, net.op(op, "x", **attributes)

    return make


for _op, _attributes, _opset, _limits, _kinks in RARE:
    CASES.append(Case((_op,), f"{_op}{sorted(_attributes)}", _rare(_op, _attributes, _opset, _limits, _kinks), 2))


@case("ReduceProd", repeats=10)
def reduced_products(rng: Rng) -> tuple[Net, str]:
    """Entries that are zero: the product's slope is that of the others alone."""
    opset = int(pick(rng, [11, 13, 18]))
    net = Net((3, 4), opset=opset, ir_version=8, x=spread(rng, ROWS, 3, 4, low=0.5, high=1.5))
    if rng.random() < 0.4:
        net.x[:, 0, 1] = 0
    axes, keepdims = pick(rng, [[1], [2], [-1], [1, 2], [2, 1]]), int(rng.integers(2))
    keepdims = 1 if len(axes) == 2 else keepdims
    axes_given = {"axes": axes} if opset < 18 else {}
    return net, net.op(
        "ReduceProd", scaled(net, rng), *([np.asarray(axes)] if opset >= 18 else []), keepdims=keepdims, **axes_given
    )


@case("CumProd", repeats=16)
def running_products(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 4), opset=26, ir_version=11, x=spread(rng, ROWS, 5, 4, low=0.5, high=1.5))
    if rng.random() < 0.4:
        net.x[:, 2, :2] = 0
    axis = np.asarray(int(pick(rng, [1, 2, -1, -2])))
    return net, net.op("CumProd", scaled(net, rng), axis, exclusive=int(rng.integers(2)), reverse=int(rng.integers(2)))


@case("Det", repeats=10)
def determinants(rng: Rng) -> tuple[Net, str]:
    """Singular ones too: the slope is that of the minors."""
    n = int(rng.integers(1, 6))
    net = Net((2, n, n), opset=int(pick(rng, [11, 18, 22])), ir_version=8)
    net.x = (rng.standard_normal((ROWS, 2, n, n)) + np.eye(n)).astype(np.float32)
    if n > 1 and rng.random() < 0.4:
        net.x[:, :, 1] = net.x[:, :, 0]
    return net, net.op("Det", scaled(net, rng))


# grids


def _modes(opset: int) -> list[str]:
    return ["bilinear", "nearest", "bicubic"] if opset < 20 else ["linear", "nearest", "cubic"]


def _off_cells(rng: Rng, shape: tuple[int, ...], size: list[int], *, corners: bool, reach: float) -> np.ndarray:
    """Coordinates of a grid whose places are between the borders of cells, (..., axes)."""
    grid = np.empty(shape)
    for k, n in enumerate(size[::-1]):
        low, high = (1 - reach) * n / 2, (1 + reach) * n / 2
        cells = np.floor(rng.uniform(low, high, shape[:-1]))
        place = cells + rng.uniform(0.1, 0.4, shape[:-1]) + 0.5 * rng.integers(0, 2, shape[:-1])
        grid[..., k] = 2 * place / max(n - 1, 1) - 1 if corners else (2 * place + 1) / n - 1
    return grid.astype(np.float32)


@case("GridSample", repeats=80)
def sampled_by_a_fixed_grid(rng: Rng) -> tuple[Net, str]:
    """All modes and paddings, in the names of both sets, of one, two and three axes; places beyond the map."""
    opset = int(pick(rng, [16, 18, 20, 22]))
    axes = int(pick(rng, [2, 2, 3])) if opset >= 20 else 2
    mode = str(pick(rng, _modes(opset)))
    if axes == 3 and mode == "cubic":
        mode = "linear"
    size, corners = ints(rng, 1, 5, axes), int(rng.integers(2))
    net = Net((2, *size), opset=opset, ir_version=8)
    grid = _off_cells(rng, (1, *ints(rng, 1, 4, axes), axes), size, corners=bool(corners), reach=2.0)
    padding = str(pick(rng, ["zeros", "border", "reflection"]))
    net.may_vanish = padding == "zeros"
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    return net, net.op("GridSample", scaled(net, rng), rows_of(net, grid), **attributes)


@case("GridSample", repeats=80)
def sampled_by_a_grid_that_varies(rng: Rng) -> tuple[Net, str]:
    """The map, the grid, or both depend on x; no place is near the border of a cell."""
    opset = int(pick(rng, [16, 20]))
    axes = int(pick(rng, [2, 2, 3])) if opset >= 20 else 2
    mode = str(pick(rng, _modes(opset)))
    if axes == 3 and mode == "cubic":
        mode = "linear"
    corners = int(rng.integers(2))
    size, out = [int(v) for v in rng.integers(2, 6, axes)], ints(rng, 1, 3, axes)
    net = Net((*out, axes), opset=opset, ir_version=8)
    grid = _off_cells(rng, (ROWS, *out, axes), size, corners=bool(corners), reach=1.6)
    net.x, net.step = grid, 2e-3
    net.rtol = 1e-2  # float32 rounding of y over a short step
    padding = str(pick(rng, ["zeros", "border", "reflection"]))
    fixed = rows_of(net, rng.standard_normal((1, 2, *size)).astype(np.float32))
    data, moved = fixed, "x"
    if mode == "nearest" or rng.random() < 0.5:
        total = net.op("ReduceSum", net.op("Reshape", "x", np.asarray([0, -1])), np.asarray([1]))
        data = net.op("Mul", fixed, net.op("Reshape", total, np.asarray([-1, *[1] * (axes + 1)])))
    net.may_vanish = True
    return net, net.op("GridSample", data, moved, mode=mode, padding_mode=padding, align_corners=corners)


@case("GridSample", repeats=3)
def many_channels_are_multiplied(rng: Rng) -> tuple[Net, str]:
    """What is faster by a matrix than by placing."""
    net = Net((16, 18, 17), opset=20, ir_version=8)
    grid = _off_cells(rng, (1, 19, 18, 2), [18, 17], corners=False, reach=1.1)
    return net, net.op("GridSample", scaled(net, rng), rows_of(net, grid), mode=str(pick(rng, ["linear", "cubic"])))


@case("GridSample", repeats=3)
def large_maps_are_placed(rng: Rng) -> tuple[Net, str]:
    """What is too large for a matrix from cells to results."""
    net = Net((1, 40, 40), opset=20, ir_version=8)
    grid = _off_cells(rng, (1, 39, 38, 2), [40, 40], corners=False, reach=1.1)
    return net, net.op("GridSample", scaled(net, rng), rows_of(net, grid), mode=str(pick(rng, ["linear", "cubic"])))


@case("AffineGrid", "GridSample", repeats=10)
def turned_images(rng: Rng) -> tuple[Net, str]:
    """A spatial transformer: the matrix depends on x."""
    corners, axes = int(rng.integers(2)), int(pick(rng, [2, 3]))
    net = Net((axes * (axes + 1),), opset=20, ir_version=8, step=5e-3, rtol=1e-2)
    theta = net.op("Reshape", net.op("Tanh", "x"), np.asarray([-1, axes, axes + 1]))
    size = ints(rng, 1, 4, axes)
    lead = net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1]))
    grid = net.op("AffineGrid", theta, net.op("Concat", lead, np.asarray([1, *size]), axis=0), align_corners=corners)
    if rng.random() < 0.6:
        return net, grid
    net.may_vanish, net.step, net.rtol = True, 2e-4, 5e-2  # a place may cross the border of a cell within the step
    return net, net.op(
        "GridSample", rows_of(net, rng.standard_normal((1, 1, *[4] * axes)).astype(np.float32)), grid, align_corners=corners
    )


@case("RoiAlign", repeats=10)
def aligned_regions(rng: Rng) -> tuple[Net, str]:
    """A region of each row, in the order of the batch; half pixels or none, and fixed or adaptive counts."""
    opset = int(pick(rng, [11, 16, 18]))
    net = Net((2, 6, 7), opset=opset, ir_version=8)
    count = int(rng.integers(1, 3))
    corner = rng.uniform(0, 3, (1, count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 4, (1, count, 2))], axis=-1).astype(np.float32)
    rois = net.op("Reshape", rows_of(net, boxes), np.asarray([-1, 4]))
    lead = net.op("Shape", "x")
    first = net.op("Gather", lead, np.asarray(0), axis=0)
    number = net.op("Reshape", net.op("Range", np.asarray(0), first, np.asarray(1)), np.asarray([-1, 1]))
    owner = net.op("Reshape", net.op("Mul", number, np.ones((1, count), np.int64)), np.asarray([-1]))
    attributes: dict = {
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": int(pick(rng, [0, 2])),
        "spatial_scale": float(pick(rng, [1.0, 0.5])),
    }
    if opset >= 16:
        attributes["coordinate_transformation_mode"] = str(pick(rng, ["half_pixel", "output_half_pixel"]))
    y = net.op("RoiAlign", scaled(net, rng), rois, owner, **attributes)
    return net, net.op("Reshape", y, np.asarray([-1, count * 12]))


@case("MaxRoiPool", repeats=10)
def pooled_regions(rng: Rng) -> tuple[Net, str]:
    """A region of each row, some beyond the map, and cells that hold nothing."""
    net = Net((2, 6, 7), opset=int(pick(rng, [11, 18])), ir_version=8, x=spread(rng, ROWS, 2, 6, 7, low=-4, high=4))
    net.step, net.rtol = 0.2 * 8 / net.x.size, 2e-2  # the largest stays the largest within the step
    corner = rng.uniform(-1, 5, 2)
    box = np.concatenate([corner, corner + rng.uniform(-1, 5, 2)])[None].astype(np.float32)
    first = net.op("Gather", net.op("Shape", "x"), np.asarray(0), axis=0)
    number = net.op("Reshape", net.op("Range", np.asarray(0), first, np.asarray(1)), np.asarray([-1, 1]))
    rois = net.op("Concat", net.op("Cast", number, to=1), rows_of(net, box), axis=1)
    net.may_vanish = True
    cells, scale = ints(rng, 1, 3, 2), float(pick(rng, [1.0, 0.5]))
    return net, net.op("MaxRoiPool", "x", rois, pooled_shape=cells, spatial_scale=scale)


@case("DeformConv", repeats=16)
def deformed_convolution(rng: Rng) -> tuple[Net, str]:
    """Offsets fixed or of the input, groups of channels and of offsets, a mask, strides, dilations and pads."""
    groups, parts = int(pick(rng, [1, 2])), int(pick(rng, [1, 2]))
    k, stride, dilation = ints(rng, 1, 3, 2), ints(rng, 1, 2, 2), ints(rng, 1, 2, 2)
    pads = ints(rng, 0, 1, 4)
    net = Net((4, 7, 6), opset=int(pick(rng, [19, 22])), step=2e-3, rtol=1e-2)
    out = [(h + pads[a] + pads[a + 2] - (k[a] - 1) * dilation[a] - 1) // stride[a] + 1 for a, h in enumerate((7, 6))]
    channels, weight = parts * k[0] * k[1], rng.standard_normal((4, 4 // groups, *k)) / 3
    cells = np.floor(rng.uniform(-1, 2, (1, 2 * channels, *out))) + rng.uniform(0.2, 0.8, (1, 2 * channels, *out))
    offset = rows_of(net, cells.astype(np.float32))
    if rng.random() < 0.5:  # moved by less than to the border of a cell
        total = net.op("Tanh", net.op("ReduceMean", "x", np.asarray([1, 2, 3])))
        offset = net.op("Add", offset, net.op("Mul", total, np.float32(0.1)))
    tail: list = []
    if rng.random() < 0.5:
        tail = [rng.standard_normal(4)]
    if rng.random() < 0.5:
        mask = rows_of(net, rng.uniform(0, 1, (1, channels, *out)).astype(np.float32))
        tail = [tail[0] if tail else "", mask]
    attributes = {"kernel_shape": k, "strides": stride, "dilations": dilation, "pads": pads, "group": groups, "offset_group": parts}
    return net, net.op("DeformConv", scaled(net, rng), weight, offset, *tail, **attributes)


@case("Resize", repeats=24)
def other_forms_of_resize(rng: Rng) -> tuple[Net, str]:
    """Without aliasing, of a region, of some axes, keeping the ratio, and by scales that leave the size as it is."""
    kind = int(rng.integers(5))
    opset = int(pick(rng, [18, 19]))
    net = Net((2, 6, 5), opset=opset)
    t = scaled(net, rng)
    none = np.asarray([], np.float32)
    if kind == 0:
        mode = str(pick(rng, ["linear", "cubic"]))
        return net, net.op("Resize", t, none, np.asarray([1, 1, 0.5, 0.7], np.float32), mode=mode, antialias=1)
    if kind == 1:
        roi = np.asarray([0, 0, 0.1, 0.2, 1, 1, 0.8, 1.3], np.float32)
        mode = str(pick(rng, ["linear", "nearest", "cubic"]))
        attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": mode, "extrapolation_value": 3.0}
        if rng.random() < 0.5:
            return net, net.op("Resize", t, roi, np.asarray([1, 1, 0.7, 1.5], np.float32), **attributes)
        lead = net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1]))
        return net, net.op("Resize", t, roi, none, net.op("Concat", lead, np.asarray([2, 6, 7]), axis=0), **attributes)
    if kind == 2:
        axes = pick(rng, [[2, 3], [3], [-1, -2]])
        return net, net.op("Resize", t, none, none, np.asarray(ints(rng, 2, 9, len(axes))), axes=axes, mode="linear")
    if kind == 3:
        policy = str(pick(rng, ["not_larger", "not_smaller"]))
        return net, net.op(
            "Resize",
            t,
            none,
            none,
            np.asarray(pick(rng, [[12, 20], [24, 10]])),
            axes=[2, 3],
            keep_aspect_ratio_policy=policy,
            mode="linear",
        )
    return net, net.op("Resize", t, none, np.asarray([1, 1, 1.1, 1.1], np.float32), mode="linear")


# transforms


@case("DFT", repeats=40)
def fourier(rng: Rng) -> tuple[Net, str]:
    """Real and complex signals, one side or both, the inverse, lengths that cut or fill, any axis, both forms of it."""
    opset = int(pick(rng, [17, 18, 20, 22]))
    parts = int(pick(rng, [1, 2]))
    net = Net((6, 5, parts), opset=opset, ir_version=8)
    inverse = int(rng.integers(2))
    onesided = int(rng.integers(2)) if parts == 1 and not inverse else 0
    axis = int(pick(rng, [1, 2, -2, -3]))
    length = [np.asarray(int(rng.integers(3, 9)))] if rng.random() < 0.5 else [""]
    t = scaled(net, rng)
    flags = {"inverse": inverse, "onesided": onesided}
    if opset < 20:
        return net, net.op("DFT", t, *length, axis=axis % 4, **flags)
    if axis == -2 and rng.random() < 0.5:
        return net, net.op("DFT", t, *(length if length != [""] else []), **flags)  # the last but one unless told
    return net, net.op("DFT", t, *length, np.asarray(axis), **flags)


@case("DFT", repeats=12)
def signals_of_half_a_spectrum(rng: Rng) -> tuple[Net, str]:
    """Filters in the frequency domain: a real signal there and back, or half a spectrum alone, of even and odd lengths."""
    net = Net((6, 5, 2), opset=int(pick(rng, [17, 20, 22])), ir_version=8)

    def transformed(t: str, *length: object, axis: int, **flags: int) -> str:
        if net.opset < 20:
            return net.op("DFT", t, *(length or [""]), axis=axis, **flags)
        return net.op("DFT", t, *(length or [""]), np.asarray(axis), **flags)

    axis = int(pick(rng, [1, 2]))
    if rng.random() < 0.5:
        size = [6, 5][axis - 1]
        half = transformed(net.op("Slice", "x", np.asarray([0]), np.asarray([1]), np.asarray([3])), axis=axis, onesided=1)
        bins = [(size // 2 + 1, 1, 1), (1, size // 2 + 1, 1)][axis - 1]
        half = net.op("Mul", half, rng.uniform(0.5, 1.5, bins))
        return net, transformed(half, np.asarray(size), axis=axis, inverse=1, onesided=1)
    bins = [6, 5][axis - 1]
    length = [np.asarray(2 * bins - int(rng.integers(1, 3)))] if rng.random() < 0.7 else []
    return net, transformed(scaled(net, rng), *length, axis=axis, inverse=1, onesided=1)


@case("STFT", repeats=20)
def short_time_fourier(rng: Rng) -> tuple[Net, str]:
    """With a window or its length alone, real and complex, frames that overlap or leave gaps, ends left over."""
    length, step = int(rng.integers(2, 7)), int(rng.integers(1, 8))
    parts = int(pick(rng, [1, 1, 2]))
    net = Net((int(rng.integers(8, 20)), parts), opset=int(pick(rng, [17, 18, 20])), ir_version=8)
    onesided = int(rng.integers(2)) if parts == 1 else 0
    window = str(pick(rng, ["constant", "hann", "none", "alone"]))
    if window == "hann":
        form = net.op("HannWindow" if rng.random() < 0.5 else "HammingWindow", np.asarray(length))
    elif window in ("constant", "alone"):
        form = net.weight(rng.uniform(0.2, 1.0, length))
    else:
        form = ""
    tail = [] if window == "alone" else [np.asarray(length)]
    return net, net.op("STFT", scaled(net, rng), np.asarray(step), form, *tail, onesided=onesided)


# windows


@case("LpPool", repeats=40)
def pools_of_norms(rng: Rng) -> tuple[Net, str]:
    """p of 1 to 3, automatic and given pads, strides, and dilations and rounding up where a set has them."""
    opset, rank = int(pick(rng, [11, 18, 22])), int(pick(rng, [1, 2, 2, 3]))
    kernel = ints(rng, 1, 3, rank)
    attributes: dict = {"kernel_shape": kernel, "strides": ints(rng, 1, 3, rank), "p": int(rng.integers(1, 4))}
    automatic = str(pick(rng, ["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if automatic == "NOTSET":
        attributes["pads"] = [int(rng.integers(0, k)) for k in kernel * 2]
    else:
        attributes["auto_pad"] = automatic
    if automatic.startswith("SAME"):
        attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel, strict=True)]
    if opset >= 18 and automatic == "NOTSET":
        attributes["dilations"] = ints(rng, 1, 2, rank)
        attributes["ceil_mode"] = int(rng.integers(2))
    shape = (2, *ints(rng, 6, 8, rank))
    net = Net(shape, opset=opset, ir_version=8, x=away(rng, spread(rng, ROWS, *shape), (0.0,)))
    net.rtol = 5e-3
    return net, net.op("LpPool", scaled(net, rng), **attributes)


@case("LpPool", "GlobalLpPool")
def pools_of_zeros(rng: Rng) -> tuple[Net, str]:
    """Where a window holds zeros alone, the norm has a corner: its slope there is taken as 0, not as no number."""
    net = Net((2, 4, 4), x=np.ones((ROWS, 2, 4, 4), np.float32))
    gate = np.ones((2, 4, 4))
    gate[:, :2, :2] = 0
    return net, net.op("LpPool", net.op("Mul", "x", gate), kernel_shape=[2, 2], strides=[2, 2])


@case("GlobalLpPool", repeats=4)
def global_norms(rng: Rng) -> tuple[Net, str]:
    net = Net((2, 4, 3), opset=int(pick(rng, [11, 18])), ir_version=8, x=away(rng, spread(rng, ROWS, 2, 4, 3), (0.0,)))
    return net, net.op("GlobalLpPool", scaled(net, rng), p=int(rng.integers(1, 4)))


@case("Col2Im", repeats=24)
def columns_to_images(rng: Rng) -> tuple[Net, str]:
    """One to three axes, with strides, dilations, pads of two sides, and cells that no window reaches."""
    rank = int(pick(rng, [1, 2, 2, 3]))
    block, strides = ints(rng, 1, 3, rank), ints(rng, 1, 3, rank)
    dilations = ints(rng, 1, 2, rank) if rank == 2 else [1] * rank  # the runtime's kernel is wrong where other ranks have some
    extent = [(k - 1) * d + 1 for k, d in zip(block, dilations, strict=True)]
    pads = [int(rng.integers(0, 2)) for _ in range(2 * rank)]
    image = [e + int(rng.integers(1, 5)) for e in extent]
    out = [(h + b + e - k) // s + 1 for h, b, e, k, s in zip(image, pads[:rank], pads[rank:], extent, strides, strict=True)]
    channels = int(rng.integers(1, 3))
    net = Net((channels * int(np.prod(block)), int(np.prod(out))), opset=18)
    attributes = {"strides": strides, "dilations": dilations, "pads": pads}
    return net, net.op("Col2Im", scaled(net, rng), np.asarray(image), np.asarray(block), **attributes)


@case("CenterCropPad", repeats=6)
def centred(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 6), opset=18)
    return net, net.op("CenterCropPad", scaled(net, rng), np.asarray(ints(rng, 3, 8, 2)), axes=[1, 2])


# losses


@case("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", repeats=12)
def losses(rng: Rng) -> tuple[Net, str]:
    """A loss of each row, by its class; with weights, and classes that are left out."""
    op = str(pick(rng, ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"]))
    wide = bool(rng.integers(2))
    net = Net((5, 3) if wide else (5,), opset=int(pick(rng, [12, 13, 18])), ir_version=8)
    labels = rows_of(net, rng.integers(0, 5, (1, 3) if wide else (1,)))
    weights = [rng.uniform(0.5, 1.5, 5)] if rng.random() < 0.5 else []
    t = net.op("Mul", "x", rng.uniform(0.5, 1.5, net.shape))
    if op == "NegativeLogLikelihoodLoss":
        t = net.op("LogSoftmax", t, axis=1) if net.opset >= 13 else net.op("Sin", t)
    y = net.op(op, t, labels, *weights, reduction="none")
    return net, y if wide else net.op("Reshape", y, np.asarray([-1, 1]))
