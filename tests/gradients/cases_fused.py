"""Random graphs for the fused operators of ONNX Runtime."""

from __future__ import annotations

import numpy as np

from tests.gradients.cases import Case, Rng, pick
from tests.gradients.cases_tensor import scaled
from tests.support.gradient_nets import Net, optimised
from tests.support.packed_weights import four_bit_floats, n_bits

CASES: list[Case] = []


def case(*ops: str, repeats: int = 2):
    def register(make):
        CASES.append(Case(ops, make.__name__, make, repeats))
        return make

    return register


MS = "com.microsoft"


ACTIVATIONS = [
    *(("Relu", []), ("LeakyRelu", [0.2]), ("Sigmoid", []), ("Tanh", []), ("Clip", [-1.0, 1.0]), ("HardSigmoid", [0.25, 0.5])),
]
_KINKED = ("Relu", "LeakyRelu", "Clip", "HardSigmoid")  # a kink may lie within the step


@case(f"{MS}.FusedConv", repeats=8)
def fused_conv(rng: Rng) -> tuple[Net, str]:
    net = Net((2, 6, 6), step=2e-3)
    name, params = pick(rng, ACTIVATIONS)
    attributes = {"activation_params": params} if params else {}
    net.rtol = 5e-2 if name in _KINKED else 5e-3
    weight = rng.standard_normal((3, 2, 3, 3)) / 4
    more = [net.op("Conv", "x", rng.standard_normal((3, 2, 1, 1)))] if rng.integers(2) else []
    weights = weight, rng.standard_normal(3), *more
    return net, net.op("FusedConv", "x", *weights, domain=MS, activation=name, pads=[1] * 4, **attributes)


@case(f"{MS}.FusedMatMul", f"{MS}.TransposeMatMul", repeats=12)
def fused_matmul(rng: Rng) -> tuple[Net, str]:
    a, b, batch = int(rng.integers(2)), int(rng.integers(2)), int(rng.integers(3)) == 0
    if batch:  # the rows stand before the batch axes
        net = Net((3, 4))
        t = net.op("Transpose", "x", perm=[2, 0, 1] if a else [1, 0, 2])
        w = rng.standard_normal((1, 2, 4) if b else (1, 4, 2))
        return net, net.op("FusedMatMul", t, w, domain=MS, transA=a, transB=b, transBatchA=1)
    net = Net((3, 4))
    t = net.op("Transpose", "x", perm=[0, 2, 1]) if a else "x"
    w = rng.standard_normal((2, 4) if b else (4, 2))
    op = str(pick(rng, ["FusedMatMul", "TransposeMatMul"]))
    return net, net.op(op, t, w, domain=MS, alpha=0.5, transA=a, transB=b)


@case(f"{MS}.FusedGemm", repeats=12)
def fused_gemm(rng: Rng) -> tuple[Net, str]:
    net = Net((4,), step=2e-3, rtol=5e-3)
    plain = [("Tanh", {}), ("Softplus", {}), ("Softsign", {}), ("Sigmoid", {})]
    name, given = pick(
        rng, [*plain, ("Elu", {"alpha": 0.7}), ("LeakyRelu", {"alpha": 0.3}), ("HardSigmoid", {"alpha": 0.3, "beta": 0.4})]
    )
    net.rtol = 5e-2 if name in (*_KINKED, "Elu") else 5e-3
    attributes = {f"activation_{k}": v for k, v in given.items()}
    return net, net.op(
        "FusedGemm", "x", rng.standard_normal((4, 3)), rng.standard_normal(3), domain=MS, activation=name, **attributes
    )


@case(f"{MS}.MatMulNBits", repeats=12)
def weights_of_few_bits(rng: Rng) -> tuple[Net, str]:
    k = int(pick(rng, [32, 48, 70]))
    form = n_bits(
        rng, int(rng.integers(1, 7)), k, bits=int(pick(rng, [4, 4, 8])), block=int(pick(rng, [16, 32, 64])),
        zeros=str(pick(rng, ["none", "packed"])), bias=bool(rng.integers(2)),
    )  # fmt: skip
    net = Net((3, k) if rng.integers(2) else (k,))
    return net, net.op("MatMulNBits", "x", *("" if i is None else i for i in form.inputs), domain=MS, **form.attributes)


@case(f"{MS}.MatMulBnb4", repeats=4)
def weights_of_four_bit_floats(rng: Rng) -> tuple[Net, str]:
    k = int(pick(rng, [32, 64]))
    form = four_bit_floats(rng, int(pick(rng, [1, 4, 6])), k, block=int(pick(rng, [16, 32])), kind=int(rng.integers(2)))
    net = Net((k,))
    return net, net.op("MatMulBnb4", "x", *form.inputs, domain=MS, **form.attributes)


@case(f"{MS}.Gelu", f"{MS}.BiasGelu", f"{MS}.FastGelu", f"{MS}.QuickGelu", repeats=10)
def fused_gelus(rng: Rng) -> tuple[Net, str]:
    op = str(pick(rng, ["Gelu", "BiasGelu", "FastGelu", "QuickGelu"]))
    net = Net((3, 4))
    bias = [rng.standard_normal(4)] if op == "BiasGelu" or (op == "FastGelu" and rng.random() < 0.5) else []
    return net, net.op(op, "x", *bias, domain=MS)


@case(f"{MS}.SkipLayerNormalization", f"{MS}.SkipSimplifiedLayerNormalization", repeats=12)
def skip_normalisations(rng: Rng) -> tuple[Net, str]:
    net = Net((3, 4))
    skip = scaled(net, rng)
    if rng.random() < 0.5:
        w = rng.uniform(0.5, 1.5, 4)
        y, *_, total = net.ops("SkipSimplifiedLayerNormalization", "x", skip, w, outputs=4, domain=MS, epsilon=1e-3)
        net.nodes[-1].output[1:3] = ["", ""]  # only the sum is asked for
        return net, net.op("Mul", y, total)
    tail = [rng.standard_normal(4)] if rng.random() < 0.5 else []
    w = rng.uniform(0.5, 1.5, 4), rng.standard_normal(4)
    return net, net.op("SkipLayerNormalization", "x", skip, *w, *tail, domain=MS, epsilon=1e-3)


@case("SimplifiedLayerNormalization")
def simplified(rng: Rng) -> tuple[Net, str]:
    net = Net((3, 4))
    return net, net.op("SimplifiedLayerNormalization", "x", rng.uniform(0.5, 1.5, 4), axis=-1, epsilon=1e-3)


@case(f"{MS}.ExpandDims", f"{MS}.Trilu", repeats=4)
def of_shape(rng: Rng) -> tuple[Net, str]:
    net = Net((3, 4))
    t = net.op("Trilu", scaled(net, rng), np.asarray(int(rng.integers(-1, 2))), domain=MS, upper=int(rng.integers(2)))
    return net, net.op("ExpandDims", t, np.asarray(int(rng.integers(1, 4)), np.int32), domain=MS)


@case(f"{MS}.ConvTransposeWithDynamicPads", repeats=4)
def conv_transpose(rng: Rng) -> tuple[Net, str]:
    net = Net((2, 5, 5))
    tail = [rng.standard_normal(3)] if rng.integers(2) else []
    weights = rng.standard_normal((2, 3, 3, 3)), np.asarray([1, 0, 1, 1]), *tail
    return net, net.op("ConvTransposeWithDynamicPads", "x", *weights, domain=MS, strides=[2, 2], kernel_shape=[3, 3])


# attention


def _tokens(net: Net, rng: Rng, width: int, heads: int = 0) -> str:
    """Five tokens of a width, or in heads."""
    t = net.op("MatMul", "x", rng.standard_normal((4, width)) / 2)
    if not heads:
        return t
    return net.op("Transpose", net.op("Reshape", t, np.asarray([0, 5, heads, -1])), perm=[0, 2, 1, 3])


def _seen(rng: Rng, *shape: int) -> np.ndarray:
    """A mask with ones and zeros, of which every row sees the first key."""
    mask = (rng.random(shape) < 0.6).astype(np.int32)
    mask[..., 0] = 1
    return mask


def _of_rows(net: Net, mask: np.ndarray) -> str:
    """A mask for every row of the batch."""
    lead = net.op("Slice", net.op("Shape", "x"), np.asarray([0]), np.asarray([1]))
    return net.op("Expand", mask, net.op("Concat", lead, np.asarray(mask.shape[1:], np.int64), axis=0))


@case(f"{MS}.Attention", repeats=12)
def fused_attention(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 4))
    heads, sizes = 2, [4, 4, 6] if rng.integers(2) else [4, 4, 4]
    masks = {0: "", 1: _seen(rng, 1, 5), 2: _seen(rng, 1, 5, 5), 3: rng.integers(1, 6, 1).astype(np.int32)}  # 3: how many are seen
    mask = masks[int(rng.integers(4))]
    bias = rng.standard_normal((1, heads, 5, 5)) if rng.integers(2) else ""
    attributes = {"unidirectional": int(rng.integers(2)), "scale": float(rng.choice([0.0, 0.3])), "qkv_hidden_sizes": sizes}
    t = _tokens(net, rng, 4)
    weights = rng.standard_normal((4, sum(sizes))), rng.standard_normal(sum(sizes))
    mask = mask if isinstance(mask, str) else _of_rows(net, mask)
    return net, net.op("Attention", t, *weights, mask, "", bias, domain=MS, num_heads=heads, **attributes)


@case(f"{MS}.MultiHeadAttention", repeats=16)
def multi_head_attention(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 4))
    heads, width = 2, int(pick(rng, [4, 6]))
    in_heads = bool(rng.integers(2))
    q = _tokens(net, rng, 4)
    k, v = (_tokens(net, rng, w, heads if in_heads else 0) for w in (4, 4 if in_heads else width))
    bias = "" if in_heads or rng.integers(2) else rng.standard_normal(8 + width)
    mask = "" if rng.integers(2) else _of_rows(net, _seen(rng, 1, 5))
    added = rng.standard_normal((1, heads, 5, 5)) if rng.integers(2) else ""
    attributes = {"unidirectional": int(rng.integers(2)), "scale": float(rng.choice([0.0, 0.3]))}
    return net, net.op("MultiHeadAttention", q, k, v, bias, mask, added, domain=MS, num_heads=heads, **attributes)


@case(f"{MS}.GroupQueryAttention", repeats=6)
def group_query_attention(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 4))
    shared = int(pick(rng, [1, 2]))
    q, k, v = (_tokens(net, rng, 8 * h) for h in (2, shared, shared))
    last = net.op("Cast", _of_rows(net, np.asarray([4])), to=6)
    empty = net.op("Cast", _of_rows(net, np.zeros((1, shared, 0, 8), np.float32)), to=1)
    attributes = {"scale": float(rng.choice([0.0, 0.3])), "softcap": float(rng.choice([0.0, 2.0]))}
    y = net.ops(
        "GroupQueryAttention", q, k, v, empty, empty, last, np.asarray(5, np.int32), outputs=3, domain=MS, num_heads=2,
        kv_num_heads=shared, **attributes,
    )  # fmt: skip
    net.nodes[-1].output[1:] = ["", ""]
    return net, y[0]


@case(f"{MS}.RotaryEmbedding", repeats=10)
def rotary_embedding(rng: Rng) -> tuple[Net, str]:
    net = Net((5, 4))
    heads, kind = 2, int(rng.integers(3))
    part = kind == 2  # of each head alone
    t = _tokens(net, rng, 16, heads if kind == 1 else 0)
    tables = [rng.standard_normal((7, 2 if part else 4)) for _ in range(2)]
    positions = np.asarray([1]) if rng.integers(2) else _of_rows(net, np.asarray([[0, 2, 1, 3, 6]]))
    given = {"num_heads": heads, "rotary_embedding_dim": 4} if part else {}
    return net, net.op("RotaryEmbedding", t, positions, *tables, domain=MS, interleaved=int(rng.integers(2)), **given)


@case(f"{MS}.EmbedLayerNormalization", repeats=4)
def embed_layer_normalization(rng: Rng) -> tuple[Net, str]:
    """Whole numbers have no slope: what it makes of them is multiplied by the input."""
    net = Net((4,))
    words, segments = (_of_rows(net, np.asarray(ids, np.int32)) for ids in ([[3, 1, 2]], [[0, 1, 1]]))
    more = [rng.standard_normal((5, 4)), rng.standard_normal((2, 4)), rng.uniform(0.5, 1.5, 4), rng.standard_normal(4)]
    if rng.integers(2):
        segments, more[1] = "", ""
    mask = _of_rows(net, np.asarray([[1, 1, 0]], np.int32)) if rng.integers(2) else ""
    tail = ["", _of_rows(net, np.asarray([[2, 0, 4]], np.int32))] if not mask and rng.integers(2) else [mask]
    table = rng.standard_normal((6, 4))
    y = net.ops("EmbedLayerNormalization", words, segments, table, *more, *tail, outputs=3, domain=MS, epsilon=1e-3)
    whole = net.op("Cast", net.op("Unsqueeze", y[1], np.asarray([1, 2])), to=1)
    total = net.op("Add", net.op("Add", y[0], y[2]), whole)
    return net, net.op("Mul", total, net.op("Unsqueeze", "x", np.asarray([1])))


# channels in blocks


@case(
    *(f"{MS}.nchwc.{op}" for op in ("Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")),
    *(f"{MS}.nchwc.{op}" for op in ("ReorderInput", "ReorderOutput", "Upsample")), repeats=32,
)  # fmt: skip
def blocked_channels(rng: Rng) -> tuple[Net, str]:
    """An image net as the runtime's optimiser writes it: few channels, many, depthwise, in groups, branches joined and summed."""
    many, kind = bool(rng.integers(2)), int(rng.integers(7))
    net = Net((20 if many else 3, 6, 6), step=5e-3, rtol=1e-2)
    c, out = (20, int(pick(rng, [16, 32]))) if many else (3, 16 if kind == 0 else int(pick(rng, [16, 24])))

    def conv(t: str, into: int, out: int, k: int, groups: int = 1) -> str:
        weight = rng.standard_normal((out, into // groups, k, k)) / (into // groups * k * k) ** 0.5
        return net.op("Conv", t, weight, rng.standard_normal(out), group=groups, pads=[k // 2] * 4)

    t = conv("x", c, out, 3)
    if kind in (0, 6):
        net.step, net.rtol = 1e-4, 0.1  # another entry may be the largest within the step
        if kind == 6:
            return optimised(net, net.op("GlobalMaxPool", conv(net.op("Tanh", t), out, 16, 3)))
        t = conv(net.op("MaxPool", net.op("Sigmoid", t), kernel_shape=[2, 2], strides=[2, 2]), out, 16, 1)
    elif kind == 1:
        t = net.op("AveragePool", t, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=int(rng.integers(2)))
        t = conv(net.op("Sigmoid", t), out, out, 3, groups=out)
    elif kind == 2:
        t = net.op("Add", conv(net.op("Sigmoid", t), out, out, 3), t)
    elif kind == 3:
        t = net.op("Concat", conv(t, out, 16, 1), conv(t, out, 16, 3), axis=1)
        t = conv(net.op("Tanh", t), 32, 32, 3, groups=2)
    elif kind == 4:
        mode = pick(rng, ["nearest", "linear"])
        forms = {"mode": mode, "coordinate_transformation_mode": "asymmetric" if mode == "nearest" else "half_pixel"}
        forms |= {"nearest_mode": "floor"} if mode == "nearest" else {}
        t = conv(net.op("Resize", t, "", np.asarray([1, 1, 2, 2], np.float32), **forms), out, 16, 1)
    else:
        t = net.op("GlobalAveragePool", conv(net.op("Tanh", t), out, 16, 3))
        t = net.op("Mul", t, 2.0) if rng.integers(2) else t
    return optimised(net, t)
