"""Random graphs for matrix products, convolutions, pools, reductions and normalisations."""

from __future__ import annotations

import numpy as np

from tests.gradients.cases import Case, Rng, away, ints, pick
from tests.support.gradient_nets import ROWS, Net, spread

CASES: list[Case] = []


def case(*ops: str, repeats: int = 2):
    def register(make):
        CASES.append(Case(ops, make.__name__, make, repeats))
        return make

    return register


def scaled(net: Net, rng: Rng, name: str = "x") -> str:
    return net.op("Mul", name, rng.uniform(0.5, 1.5, net.shape))


# products


@case("MatMul", repeats=60)
def products(rng: Rng) -> tuple[Net, str]:
    """Either operand or both varying; ranks one to four; batch axes broadcast."""
    kind = int(rng.integers(7))
    if kind == 0:
        net = Net((4,))
        return net, net.op("MatMul", "x", rng.standard_normal((4, 3)))
    if kind == 1:
        net = Net((3, 4))
        return net, net.op("MatMul", "x", rng.standard_normal(pick(rng, [(4, 2), (4,), (1, 4, 2)])))
    if kind == 2:
        net = Net((3, 4))
        return net, net.op("MatMul", rng.standard_normal(pick(rng, [(2, 3), (1, 2, 3), (3,)])), "x")
    if kind == 3:
        net = Net((2, 3, 4))
        return net, net.op("MatMul", "x", rng.standard_normal(pick(rng, [(2, 4, 5), (1, 4, 5), (4, 5), (1, 2, 4, 5)])))
    if kind == 4:
        net = Net((2, 3, 4))
        return net, net.op("MatMul", scaled(net, rng), net.op("Transpose", "x", perm=[0, 1, 3, 2]))
    if kind == 5:  # one operand broadcast over heads
        net = Net((2, 3, 4))
        narrow = net.op("ReduceMean", net.op("Transpose", "x", perm=[0, 1, 3, 2]), np.asarray([1]))
        return net, net.op("MatMul", scaled(net, rng), narrow)
    net = Net((1, 3, 4))
    return net, net.op("MatMul", "x", rng.standard_normal((5, 4, 2)))


@case("Gemm", repeats=50)
def gemm(rng: Rng) -> tuple[Net, str]:
    opset = int(pick(rng, [7, 9, 11, 13]))
    net = Net((4,), opset=opset, ir_version=8)
    a, b = int(rng.integers(2)), int(rng.integers(2))
    t = net.op("Transpose", "x", perm=[1, 0]) if a else "x"
    weight = rng.standard_normal((3, 4) if b else (4, 3))
    if rng.random() < 0.3:  # the bias varies too
        bias = net.op("MatMul", "x", rng.standard_normal((4, int(pick(rng, [1, 3])))))
    else:
        bias = net.weight(rng.standard_normal(pick(rng, [(3,), (1, 3), (1,), ()])))
    inputs = [t, weight, bias] if opset < 11 or rng.random() < 0.7 else [t, weight]
    return net, net.op("Gemm", *inputs, transA=a, transB=b, alpha=float(pick(rng, [1.0, 0.5])), beta=float(pick(rng, [1.0, 2.0])))


@case("Gemm", "Einsum", repeats=50)
def einsum(rng: Rng) -> tuple[Net, str]:
    equation, second = pick(
        rng,
        [
            ("nij,jk->nik", (4, 2)),
            ("bij,kj->bki", (2, 4)),
            ("...ij,jk->...ik", (4, 2)),
            ("...j,jk", (4, 2)),
            ("nij->nji", None),
            ("nij->ni", None),
            ("nij,nik->njk", "x"),
            ("bid,bjd->bij", "x"),
            ("nij,ij->n", (3, 4)),
            ("nij,k->nik", (2,)),
            ("nij,nij->nij", "x"),
        ],
    )
    net = Net((3, 4), opset=int(pick(rng, [13, 18])), ir_version=8)
    operands = [scaled(net, rng)]
    if isinstance(second, str):
        operands.append(second)
    elif second is not None:
        operands.append(net.weight(rng.standard_normal(second)))
    out = net.op("Einsum", *operands, equation=equation)
    return net, net.op("Unsqueeze", out, np.asarray([1])) if equation.endswith("->n") else out


# convolutions


def _geometry(rng: Rng, rank: int) -> dict:
    """A window that fits: kernel, strides, dilations, asymmetric pads, or automatic padding."""
    kernel, dilations = ints(rng, 1, 4, rank), ints(rng, 1, 2, rank)
    attributes = {"kernel_shape": kernel, "strides": ints(rng, 1, 4, rank), "dilations": dilations}
    automatic = str(pick(rng, ["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if automatic == "NOTSET":
        attributes["pads"] = ints(rng, 0, 3, 2 * rank)
    else:
        attributes["auto_pad"] = automatic
        if automatic.startswith("SAME"):
            attributes["dilations"] = [1] * rank
    return attributes


@case("Conv", repeats=80)
def convolution(rng: Rng) -> tuple[Net, str]:
    rank = int(pick(rng, [1, 2, 2, 2, 3]))
    attributes = _geometry(rng, rank)
    groups = int(pick(rng, [1, 1, 2, 4]))
    out = groups * int(rng.integers(1, 3))
    net = Net((4, *ints(rng, 7, 9, rank)), opset=int(pick(rng, [7, 11, 18])), ir_version=8)
    weight = rng.standard_normal((out, 4 // groups, *attributes["kernel_shape"])) / 4
    bias = [rng.standard_normal(out)] if rng.random() < 0.5 else []
    return net, net.op("Conv", "x", weight, *bias, group=groups, **attributes)


@case("Conv", repeats=8)
def known_hard_convolutions(rng: Rng) -> tuple[Net, str]:
    """Geometries that other tools get wrong: pads (0,0,1,1) at stride 2, symmetric k7 s4 p3, pads beyond the kernel."""
    k, s, pads, d = pick(
        rng,
        [
            (3, 2, [0, 0, 1, 1], 1),
            (7, 4, [3] * 4, 1),
            (1, 1, [1, 0, 0, 2], 1),
            (3, 3, [2, 1, 0, 2], 2),
            (1, 2, [0] * 4, 1),
            (2, 1, [3, 3, 3, 3], 1),
        ],
    )
    net = Net((2, 9, 10))
    return net, net.op("Conv", "x", rng.standard_normal((3, 2, k, k)), strides=[s, s], pads=pads, dilations=[d, d])


@case("Conv", repeats=3)
def few_cells_of_many_channels(rng: Rng) -> tuple[Net, str]:
    """What is transposed by minimal filtering: 3 × 3 at stride 1, with pads of all kinds and unequal sides."""
    size = ints(rng, 3, 6, 2)
    pads = [1] * 4 if rng.random() < 0.5 else [int(p) for p in rng.integers(0, 2, 4)]
    net = Net((384, *size), opset=18, ir_version=8)
    weight = rng.standard_normal((384, 384, 3, 3)) / 60
    return net, net.op("Conv", "x", weight, pads=pads)


@case("ConvTranspose", repeats=60)
def transposed_convolution(rng: Rng) -> tuple[Net, str]:
    rank = int(pick(rng, [1, 2, 2, 3]))
    kernel, strides, dilations = ints(rng, 2, 4, rank), ints(rng, 1, 3, rank), ints(rng, 1, 2, rank)
    groups = int(pick(rng, [1, 2]))
    net = Net((4, *ints(rng, 3, 5, rank)))
    weight = rng.standard_normal((4, int(rng.integers(1, 3)), *kernel)) / 4
    extra = [int(rng.integers(0, s)) for s in strides]
    attributes = {"output_padding": extra} if rng.random() < 0.5 else {}
    attributes |= {"strides": strides, "dilations": dilations, "pads": ints(rng, 0, 1, 2 * rank)}
    return net, net.op("ConvTranspose", "x", weight, group=groups, **attributes)


# pools


def _pool(rng: Rng, *, average: bool) -> tuple[Net, dict]:
    rank = int(pick(rng, [1, 2, 2, 2, 3]))
    opset = int(pick(rng, [8 if not average else 7, 10, 11, 12, 18, 19, 22]))
    kernel = ints(rng, 1, 3, rank)
    attributes: dict = {"kernel_shape": kernel, "strides": ints(rng, 1, 3, rank)}
    automatic = str(pick(rng, ["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if automatic == "NOTSET":
        attributes["pads"] = [int(rng.integers(0, k)) for k in kernel * 2]
    else:
        attributes["auto_pad"] = automatic
    if opset >= 10 and automatic == "NOTSET" and rng.random() < 0.5:
        attributes["ceil_mode"] = 1
    if opset >= (19 if average else 10) and not automatic.startswith("SAME") and rng.random() < 0.4:
        attributes["dilations"] = ints(rng, 1, 2, rank)
    if automatic.startswith("SAME"):
        attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel, strict=True)]
    if average and rng.random() < 0.5:
        attributes["count_include_pad"] = 1
    return Net((2, *ints(rng, 7, 9, rank)), opset=opset, ir_version=8), attributes


@case("MaxPool", repeats=80)
def max_pool(rng: Rng) -> tuple[Net, str]:
    """Values far apart: no tie is crossed by the step."""
    net, attributes = _pool(rng, average=False)
    net.x = spread(rng, ROWS, *net.shape, low=-4, high=4)
    net.step = 0.2 * 8 / net.x.size
    net.rtol = 2e-2  # the step is a fifth of the spacing, so float32 rounding of y shows
    return net, net.op("MaxPool", "x", **attributes)


@case("AveragePool", repeats=80)
def average_pool(rng: Rng) -> tuple[Net, str]:
    net, attributes = _pool(rng, average=True)
    return net, net.op("AveragePool", "x", **attributes)


@case("GlobalAveragePool", "GlobalMaxPool", "AveragePool", repeats=10)
def global_pools(rng: Rng) -> tuple[Net, str]:
    net = Net((3, *ints(rng, 2, 4, int(rng.integers(1, 4)))))
    kind = int(rng.integers(3))
    if kind == 0:
        return net, net.op("GlobalAveragePool", scaled(net, rng))
    if kind == 1:
        return net, net.op("AveragePool", scaled(net, rng), kernel_shape=list(net.shape[1:]))
    net.x, net.step, net.rtol = spread(rng, ROWS, *net.shape), 1e-3, 1e-2  # kinks stay away; rounding shows
    return net, net.op("GlobalMaxPool", "x")


# reductions and softmax


@case(
    "ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceLogSum",
    "ReduceMax", "ReduceMin", repeats=150,
)  # fmt: skip
def reductions(rng: Rng) -> tuple[Net, str]:
    """Axes of both signs, together and apart, kept or not, in sets 11, 13 and 18."""
    ops = ["Sum", "Mean", "L1", "L2", "SumSquare", "LogSumExp", "LogSum", "Max", "Min"]
    op = "Reduce" + str(pick(rng, ops))
    opset = int(pick(rng, [11, 13, 18]))
    net = Net((3, 4, 2), opset=opset, ir_version=8)
    net.x = spread(rng, ROWS, 3, 4, 2, low=0.5 if op == "ReduceLogSum" else 0.3, high=2.5)
    if op in ("ReduceMax", "ReduceMin"):
        net.step, net.rtol = 2e-3, 1e-2  # less than the spacing; rounding shows
    axes = list(pick(rng, [[1], [2], [-1], [1, 2], [2, 3], [1, 3], [-2, -1], [1, 2, 3], [3, 1]]))
    keepdims = int(rng.integers(2)) if len(axes) < 3 or rng.random() < 0.5 else 1
    if opset >= (13 if op == "ReduceSum" else 18):
        t = net.op(op, "x", np.asarray(axes), keepdims=keepdims)
        if op in ("ReduceSum", "ReduceMean") and rng.random() < 0.2:
            t = net.op(op, "x", np.asarray([], np.int64), noop_with_empty_axes=1)
    else:
        t = net.op(op, "x", axes=axes, keepdims=keepdims)
    return net, t


@case("Softmax", "LogSoftmax", repeats=50)
def softmaxes(rng: Rng) -> tuple[Net, str]:
    """Any axis; before set 13 the axes behind it are taken together."""
    opset = int(pick(rng, [7, 11, 13, 18]))
    net = Net((3, 4, 2), opset=opset, ir_version=8)
    op = str(pick(rng, ["Softmax", "LogSoftmax"]))
    axes = [1, 2, 3, -1, -2] if opset >= 11 else [1, 2, 3]
    attributes = {"axis": int(pick(rng, axes))} if rng.random() < 0.8 else {}
    return net, net.op(op, scaled(net, rng), **attributes)


# normalisations


@case("LayerNormalization", repeats=12)
def layer_normalization(rng: Rng) -> tuple[Net, str]:
    net = Net((3, 4, 5))
    axis = int(pick(rng, [-1, -2, 3, 2]))
    shape = net.shape[axis if axis < 0 else axis - 1 :]
    bias = [rng.standard_normal(shape)] if rng.random() < 0.7 else []
    return net, net.op("LayerNormalization", scaled(net, rng), rng.uniform(0.5, 1.5, shape), *bias, axis=axis, epsilon=1e-3)


@case("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "LRN", "LpNormalization", repeats=50)
def other_normalisations(rng: Rng) -> tuple[Net, str]:
    op = str(pick(rng, ["InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "LRN", "LpNormalization"]))
    net = Net((4, 3, 5), opset=int(pick(rng, [18, 21])), x=away(rng, spread(rng, ROWS, 4, 3, 5), (0.0,)))  # p = 1 has a kink
    t = scaled(net, rng)
    w = rng.uniform(0.5, 1.5, 4), rng.standard_normal(4)
    if op == "InstanceNormalization":
        return net, net.op(op, t, *w, epsilon=1e-3)
    if op == "GroupNormalization":
        net.opset = 21  # the runtime has no kernel that agrees with set 18 (scale per group)
        return net, net.op(op, t, *w, num_groups=int(pick(rng, [1, 2, 4])), epsilon=1e-3)
    if op == "MeanVarianceNormalization":
        return net, net.op(op, t, axes=pick(rng, [[2, 3], [1, 2, 3]]))
    if op == "LRN":
        return net, net.op(op, t, size=int(pick(rng, [1, 3, 5])), alpha=0.3, beta=0.6, bias=1.5)
    return net, net.op(op, t, axis=int(pick(rng, [1, 2, -1])), p=int(pick(rng, [1, 2])))


@case("RMSNormalization", repeats=3)
def rms_normalization(rng: Rng) -> tuple[Net, str]:
    net = Net((3, 5), opset=23)
    return net, net.op("RMSNormalization", scaled(net, rng), rng.uniform(0.5, 1.5, 5), axis=-1, epsilon=1e-3)


@case("Attention", repeats=6)
def attention(rng: Rng) -> tuple[Net, str]:
    net = Net((2, 5, 4), opset=23)
    q, k, v = (net.op("MatMul", "x", rng.standard_normal((4, 4))) for _ in range(3))
    if rng.random() < 0.5:
        q, k, v = (net.op("Reshape", net.op("Transpose", t, perm=[0, 2, 1, 3]), np.asarray([0, 5, 8])) for t in (q, k, v))
        return net, net.op("Attention", q, k, v, q_num_heads=2, kv_num_heads=2, is_causal=int(rng.integers(2)))
    return net, net.op("Attention", q, k, v, is_causal=int(rng.integers(2)))


@case("RotaryEmbedding")
def rotary(rng: Rng) -> tuple[Net, str]:
    net = Net((2, 5, 4), opset=23)
    return net, net.op(
        "RotaryEmbedding", scaled(net, rng), rng.standard_normal((5, 2)), rng.standard_normal((5, 2)), _positions(net)
    )


def _positions(net: Net) -> str:
    lead = net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1]))
    return net.op("Expand", np.arange(5)[None], net.op("Concat", lead, np.asarray([5]), axis=0))
