"""Random graphs for operators that move, cut, join, pick and resample."""

from __future__ import annotations

import numpy as np

from tests.gradients.cases import Case, Rng, ints, pick
from tests.support.gradient_nets import Net, spread

CASES: list[Case] = []


def case(*ops: str, repeats: int = 2):
    def register(make):
        CASES.append(Case(ops, make.__name__, make, repeats))
        return make

    return register


def scaled(net: Net, rng: Rng, name: str = "x") -> str:
    """A value of the same shape with a different Jacobian in each entry."""
    return net.op("Mul", name, rng.uniform(0.5, 1.5, net.shape))


@case("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", repeats=60)
def movement(rng: Rng) -> tuple[Net, str]:
    """Reshape, Flatten, Squeeze, Unsqueeze, Transpose in a row, in the forms of several operator sets."""
    opset = int(pick(rng, [7, 9, 11, 13, 18, 21]))
    net = Net((2, 6, 4), opset=opset, ir_version=4 if opset < 13 else 8)
    t = scaled(net, rng)
    t = net.op("Transpose", t, perm=[0, *(int(i) + 1 for i in rng.permutation(3))])
    t = net.op("Reshape", t, np.asarray(pick(rng, [[0, -1, 3], [-1, 4, 12], [0, 3, 4, 4], [-1, 48]])))
    axes = [int(pick(rng, [1, 2, -1]))]
    t = net.op("Unsqueeze", t, axes=[a if a > 0 else 1 for a in axes]) if opset < 13 else net.op("Unsqueeze", t, np.asarray(axes))
    t = net.op("Tanh", t)
    kind = int(rng.integers(3))
    if kind == 0:
        t = net.op("Flatten", t, axis=int(pick(rng, [1, 1, -1] if opset >= 11 else [1])) if rng.random() < 0.7 else 1)
        return net, net.op("Reshape", t, np.asarray([-1, 48]))
    if kind == 1:
        where = 1 if axes[0] < 0 and opset < 13 else axes[0]
        t = net.op("Squeeze", t, axes=[where]) if opset < 13 else net.op("Squeeze", t, np.asarray([where]))
    return net, t


@case("Transpose", "MatMul", repeats=4)
def batch_in_the_middle(rng: Rng) -> tuple[Net, str]:
    """Sequence-first graphs carry the batch on their second axis."""
    net = Net((5, 4))
    t = net.op("Transpose", "x", perm=[1, 0, 2])
    t = net.op("Reshape", net.op("MatMul", t, rng.standard_normal((4, 6))), np.asarray([5, -1, 3]))
    t = net.op("Softmax", t, axis=-1)
    t = net.op("Reshape", t, np.asarray([5, -1, 6]))
    return net, net.op("Transpose", net.op("Add", t, rng.standard_normal((5, 1, 6))), perm=[1, 0, 2])


@case("Expand", "Tile", repeats=20)
def repetition(rng: Rng) -> tuple[Net, str]:
    net = Net((1, 3, 1))
    if rng.random() < 0.5:
        return net, net.op("Tile", scaled(net, rng), np.asarray([1, *ints(rng, 1, 3, 3)]))
    target = pick(rng, [[2, 3, 4], [1, 3, 1], [1, 2, 3, 1], [3, 1], [1, 1, 5]])
    net.shape = (1, 3, 1)
    return net, net.op("Expand", scaled(net, rng), np.asarray(target if len(target) != 4 else [2, 3, 1]))


@case("Concat", "Split", repeats=50)
def joining(rng: Rng) -> tuple[Net, str]:
    """Split in the forms of three sets, some parts unused, and Concat with constants between."""
    opset = int(pick(rng, [11, 13, 18]))
    net = Net((2, 6, 4), opset=opset, ir_version=8)
    axis = int(pick(rng, [1, 2, 3, -1, -2]))
    size = [2, 6, 4][(axis % 4) - 1]
    t = scaled(net, rng)
    if rng.random() < 0.5:
        parts = net.ops("Split", t, outputs=2, axis=axis, **({"num_outputs": 2} if opset >= 18 else {}))
    else:
        first = int(rng.integers(1, size))
        sizes = [first, size - first]
        if opset < 13:
            parts = net.ops("Split", t, outputs=2, axis=axis, split=sizes)
        else:
            parts = net.ops("Split", t, np.asarray(sizes), outputs=2, axis=axis)
    if rng.random() < 0.3:
        return net, net.op("Tanh", parts[int(rng.integers(2))])
    parts = [net.op("Tanh", parts[0]), parts[1]]
    if rng.random() < 0.4:
        dims = [1, 2, 6, 4]
        dims[axis] = 2
        fixed = net.op("Expand", rng.standard_normal((1, 1, 1, 1)), np.asarray(dims))
        shape = net.op(
            "Concat", net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1])), np.asarray(dims[1:]), axis=0
        )
        parts.insert(int(rng.integers(3)), net.op("Expand", fixed, shape))
    return net, net.op("Concat", *[parts[i] for i in rng.permutation(len(parts))], axis=axis)


@case("Slice", repeats=60)
def cutting(rng: Rng) -> tuple[Net, str]:
    """Starts and ends of both signs and out of range, steps of both signs, axes negative or implied."""
    opset = int(pick(rng, [9, 11, 13, 18]))
    net = Net((7, 5), opset=opset, ir_version=4 if opset < 11 else 8)
    t = scaled(net, rng)
    if opset < 10:
        return net, net.op("Slice", t, starts=[int(rng.integers(-7, -3))], ends=[int(pick(rng, [5, -1, 10_000]))], axes=[1])
    while True:
        axes = [a for a in (1, 2) if rng.random() < 0.7] or [1]
        starts, ends, steps = ints(rng, -9, 9, len(axes)), ints(rng, -9, 9, len(axes)), []
        for i in range(len(axes)):
            steps.append(int(pick(rng, [1, 1, 2, 3, -1, -2])))
            if rng.random() < 0.2:
                ends[i] = 2**31 if steps[i] > 0 else -(2**31)
        sizes = [
            len(range(net.shape[a - 1])[s : (None if e <= -(2**31) else e) : st])
            for a, s, e, st in zip(axes, starts, ends, steps, strict=True)
        ]
        # onnx clamps an end below −size to −1 for a negative step, as Python does
        if min(sizes) > 0:
            break
    named = [a - 3 if rng.random() < 0.5 else a for a in axes]
    return net, net.op("Slice", t, *(np.asarray(v) for v in (starts, ends, named, steps)))


@case("Pad", repeats=50)
def padding(rng: Rng) -> tuple[Net, str]:
    """Constant with pads of both signs, reflect, edge, wrap; the forms of sets 7, 13 and 18 (with axes)."""
    opset = int(pick(rng, [7, 13, 18, 19]))
    net = Net((5, 4), opset=opset, ir_version=4 if opset < 11 else 8)
    mode = str(pick(rng, ["constant", "constant", "reflect", "edge", *(["wrap"] if opset >= 19 else [])]))
    low = -1 if mode == "constant" else 0
    b, e = ints(rng, low, 3, 2), ints(rng, low, 3, 2)
    t = scaled(net, rng)
    if opset < 11:
        return net, net.op("Pad", t, mode=mode, pads=[0, *b, 0, *e], value=0.5) if mode == "constant" else net.op(
            "Pad", t, mode=mode, pads=[0, *b, 0, *e]
        )
    value = [np.float32(0.5)] if mode == "constant" else []
    if opset >= 18 and rng.random() < 0.5:
        return net, net.op("Pad", t, np.asarray([*b, *e]), value[0] if value else "", np.asarray([-2, 2]), mode=mode)
    return net, net.op("Pad", t, np.asarray([0, *b, 0, *e]), *value, mode=mode)


@case("Gather", "GatherElements", repeats=90)
def picking(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 4))
    axis = int(pick(rng, [1, 2, -1, -2]))
    size = [5, 4][(axis % 3) - 1]
    t = scaled(net, rng)
    if rng.random() < 0.3:
        shape = net.op("Shape", "x")
        index = net.op("Expand", rng.integers(-size, size, (1, 5, 4)), shape)
        return net, net.op("GatherElements", t, index, axis=axis)
    index = pick(
        rng,
        [
            np.asarray(int(rng.integers(-size, size))),
            rng.integers(-size, size, 3),
            rng.integers(0, size, (2, 3)).astype(np.int32),
            rng.permutation(size),
            np.arange(1, size - 1),
            np.arange(size)[::-1].copy(),
        ],
    )
    return net, net.op("Gather", t, index, axis=axis)


@case("Resize", repeats=50)
def resampling(rng: Rng) -> tuple[Net, str]:
    """Nearest, linear and cubic, up and down, by scales or sizes, in sets 9 to 19."""
    opset = int(pick(rng, [9, 10, 11, 13, 18, 19]))
    net = Net((2, 5, 4), opset=opset, ir_version=4 if opset < 11 else 8)
    t = scaled(net, rng)
    if opset < 11:
        scales = [1.0, 1.0, float(pick(rng, [2.0, 3.0])), float(pick(rng, [1.0, 2.0]))]
        op = "Upsample" if opset == 9 else "Resize"
        return net, net.op(op, t, np.asarray(scales, np.float32), mode=str(pick(rng, ["nearest", "linear"])))
    mode = str(pick(rng, ["nearest", "linear", "cubic"]))
    frame = str(pick(rng, ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]))
    attributes = {"mode": mode, "coordinate_transformation_mode": frame}
    if mode == "nearest":
        attributes["nearest_mode"] = str(pick(rng, ["floor", "ceil", "round_prefer_floor"]))
    if rng.random() < 0.5:
        return net, net.op(
            "Resize",
            t,
            np.asarray([], np.float32),
            np.asarray([1, 1, *rng.choice([0.6, 1.0, 1.5, 2.0], 2)], np.float32),
            **attributes,
        )
    return net, net.op(
        "Resize",
        t,
        np.asarray([], np.float32),
        np.asarray([], np.float32),
        _sizes(net, rng),
        **attributes,
    )


def _sizes(net: Net, rng: Rng) -> str:
    """Target sizes with the batch taken from the input, as exporters write them."""
    lead = net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1]))
    return net.op("Concat", lead, np.asarray([2, *ints(rng, 3, 9, 2)]), axis=0)


@case("Resize", repeats=10)
def resampling_one_and_three_axes(rng: Rng) -> tuple[Net, str]:
    if rng.random() < 0.5:
        net = Net((2, 5))
        return net, net.op("Resize", scaled(net, rng), "", np.asarray([1, 1, 2.0], np.float32), mode="linear")
    net = Net((1, 3, 4, 2))
    mode = str(pick(rng, ["nearest", "linear"]))
    return net, net.op("Resize", scaled(net, rng), "", np.asarray([1, 1, 2.0, 1.5, 1.0], np.float32), mode=mode)


@case("Trilu", "CumSum", repeats=16)
def triangles(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 4))
    if rng.random() < 0.5:
        return net, net.op("Trilu", scaled(net, rng), np.asarray(int(rng.integers(-2, 3))), upper=int(rng.integers(2)))
    axis = np.asarray(int(pick(rng, [1, 2, -1])))
    return net, net.op("CumSum", scaled(net, rng), axis, exclusive=int(rng.integers(2)), reverse=int(rng.integers(2)))


@case("DepthToSpace", "SpaceToDepth", repeats=8)
def depth_and_space(rng: Rng) -> tuple[Net, str]:
    net = Net((8, 4, 6), opset=int(pick(rng, [11, 13])), ir_version=8)
    if rng.random() < 0.4:
        return net, net.op("SpaceToDepth", scaled(net, rng), blocksize=2)
    return net, net.op("DepthToSpace", scaled(net, rng), blocksize=2, mode=str(pick(rng, ["DCR", "CRD"])))


@case("Dropout")
def dropout(rng: Rng) -> tuple[Net, str]:
    opset = int(pick(rng, [7, 10, 13]))
    net = Net((3, 4), opset=opset, ir_version=8)
    return net, net.op("Tanh", net.op("Dropout", "x"))


@case("Concat", "Slice", repeats=4)
def dense_reuse(rng: Rng) -> tuple[Net, str]:
    """A value read many times: cotangents add."""
    net = Net((3, 4), x=spread(rng, 4, 3, 4))
    a = net.op("Tanh", "x")
    b = net.op("Concat", "x", a, axis=1)
    c = net.op("Concat", b, net.op("Sigmoid", b), "x", axis=1)
    return net, net.op("Mul", c, c)
