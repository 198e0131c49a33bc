"""Random small graphs for every operator that has a rule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import helper

from tests.spectral.dense import Case
from tests.support.packed_weights import four_bit_floats, n_bits

Rng = np.random.Generator
CASES: dict[str, Callable[[Rng], Case]] = {}
REFUSED: dict[str, Callable[[Rng], Case]] = {}


def case(*ops: str, table: dict[str, Callable[[Rng], Case]] = CASES):
    def enter(make):
        for op in ops:
            table[op] = partial(make, op=op)
        return make

    return enter


def node(op: str, inputs: list[str], outputs: list[str] | None = None, **attributes):
    domain, _, name = op.rpartition(".")
    return helper.make_node(name, inputs, outputs or ["y"], domain=domain, **attributes)


def ints(rng: Rng, low: int, high: int, n: int) -> list[int]:
    return [int(v) for v in rng.integers(low, high + 1, n)]


@case(
    "Relu",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "Erf",
    "Mish",
    "HardSwish",
    "Softsign",
    "Sin",
    "Cos",
    "Atan",
    "Abs",
    "Asinh",
    "Neg",
    "Identity",
    "Dropout",
)
def pointwise(rng, op):
    return Case([node(op, ["x"])], (int(rng.integers(1, 8)),))


@case("LeakyRelu", "Elu", "Celu", "ThresholdedRelu")
def with_alpha(rng, op):
    alpha = {"Celu": abs(rng.normal()) + 0.1, "ThresholdedRelu": 0.0}.get(op, float(rng.normal() * 1.5))
    return Case([node(op, ["x"], alpha=float(alpha))], (5,))


@case("Selu", "HardSigmoid")
def with_two(rng, op):
    names = ("alpha", "gamma") if op == "Selu" else ("alpha", "beta")
    return Case([node(op, ["x"], **{n: float(v) for n, v in zip(names, rng.normal(size=2), strict=True)})], (6,))


@case("PRelu")
def prelu(rng, op):
    return Case([node(op, ["x", "s"])], (3, 4), {"s": rng.normal(size=(3, 1)) * 1.5})


@case("Clip")
def clip(rng, op):
    low = float(rng.normal())
    return Case([node(op, ["x", "a", "b"])], (6,), {"a": np.float32(low), "b": np.float32(low + abs(rng.normal()))})


@case("Gelu")
def gelu(rng, op):
    return Case([node(op, ["x"], approximate=str(rng.choice(["none", "tanh"])))], (5,), opset=20)


@case("LRN")
def local_response(rng, op):
    n, b = int(rng.choice([1, 3, 5])), float(rng.uniform(0.3, 1.5))
    attributes = {"size": n, "alpha": float(rng.uniform(0, 3)), "beta": b, "bias": float(rng.uniform(0.5, 2))}
    return Case([node(op, ["x"], **attributes)], (6, 2, 2), spread=1.0)


@case("ReduceLogSum")
def log_of_a_sum(rng, op):
    weights = {"a": np.float64(0.3), "b": np.float64(2), "axes": np.array([1])}
    return Case([node("Clip", ["x", "a", "b"], ["c"]), node(op, ["c", "axes"])], (3, 4), weights)


@case("CastLike")
def cast_like(rng, op):
    return Case([node(op, ["x", "w"])], (4,), {"w": np.float64(1)}, linear=True, within=0.01)


@case("ai.onnx.ml.Scaler")
def scaler(rng, op):
    return Case([node(op, ["x"], offset=[0.5], scale=[float(rng.normal())])], (4,), linear=True, within=0.01)


@case("ai.onnx.ml.Normalizer")
def normalizer_of_positive(rng, op):
    """Entries of at least a, or a softmax, which sums to 1 already."""
    kind = str(rng.choice(["MAX", "L1", "L2"]))
    if kind == "L1" and rng.random() < 0.5:
        return Case([node("Softmax", ["x"], ["p"], axis=1), node(op, ["p"], norm=kind)], (4,))
    weights = {"a": np.float64(rng.uniform(0.3, 1)), "b": np.float64(rng.uniform(2, 4))}
    return Case([node("Clip", ["x", "a", "b"], ["c"]), node(op, ["c"], norm=kind)], (4,), weights)


@case("ai.onnx.ml.Imputer")
def imputer(rng, op):
    return Case([node(op, ["x"], imputed_value_floats=[1.0], replaced_value_float=float("nan"))], (4,), within=0.01)


def linear_scores(rng, rows):
    return {"coefficients": rng.normal(size=4 * rows).tolist(), "intercepts": rng.normal(size=rows).tolist()}


@case("ai.onnx.ml.LinearClassifier")
def linear_classifier(rng, op):
    rows, transform = int(rng.integers(1, 4)), str(rng.choice(["NONE", "SOFTMAX", "LOGISTIC"]))
    labels = list(range(max(rows, 2)))
    made = node(op, ["x"], ["l", "y"], post_transform=transform, classlabels_ints=labels, **linear_scores(rng, rows))
    linear = transform == "NONE" or (rows == 1 and transform == "SOFTMAX")
    return Case([made], (4,), linear=linear, within=0.01 if linear else None)


@case("ai.onnx.ml.LinearRegressor")
def linear_regressor(rng, op):
    rows = int(rng.integers(1, 4))
    return Case([node(op, ["x"], targets=rows, **linear_scores(rng, rows))], (4,), linear=True, within=0.01)


def machine(rng, kernel):
    """A support vector machine's kernel and vectors of 4 features: more of them than features, and fewer."""
    V, parameters = int(rng.integers(1, 9)), [float(rng.uniform(0.05, 1)), float(rng.normal()), 2.0]
    vectors = rng.normal(size=4 * V) * rng.uniform(0.1, 3)
    return V, {"support_vectors": vectors.tolist(), "kernel_type": kernel, "kernel_params": parameters}


@case("ai.onnx.ml.SVMRegressor")
def support_vector_regressor(rng, op):
    kernel = str(rng.choice(["RBF", "RBF", "LINEAR", "SIGMOID"]))
    V, given = machine(rng, kernel)
    made = node(op, ["x"], n_supports=V, rho=[0.3], coefficients=rng.normal(size=V).tolist(), **given)
    return Case([made], (4,), linear=kernel == "LINEAR", within=0.01 if kernel == "LINEAR" else None)


@case("ai.onnx.ml.SVMClassifier")
def support_vector_classifier(rng, op):
    """Decisions of all pairs of classes."""
    kernel, classes = str(rng.choice(["RBF", "LINEAR", "SIGMOID"])), int(rng.integers(2, 5))
    V, given = machine(rng, kernel)
    sizes = rng.multinomial(V, np.ones(classes) / classes).tolist()
    pairs = classes * (classes - 1) // 2
    made = node(
        op, ["x"], ["l", "y"], classlabels_ints=list(range(classes)), vectors_per_class=sizes, rho=rng.normal(size=pairs).tolist(),
        coefficients=rng.normal(size=(classes - 1) * V).tolist(), **given,
    )  # fmt: skip
    return Case([made], (4,))


@case("ai.onnx.ml.FeatureVectorizer")
def feature_vectorizer(rng, op):
    widths = [int(n) for n in rng.integers(2, 6, 2)]
    return Case([node("Neg", ["x"], ["n"]), node(op, ["x", "n"], inputdimensions=widths)], (4,), linear=True, within=0.5)


@case("ai.onnx.ml.ArrayFeatureExtractor")
def array_feature_extractor(rng, op):
    return Case([node(op, ["x", "i"])], (4,), {"i": rng.permutation(4)[:3]}, linear=True, within=0.01)


@case("ReduceProd")
def product_of_bounded(rng, op):
    weights = {"a": np.float64(-1), "b": np.float64(rng.uniform(0.5, 2)), "axes": np.array([1])}
    return Case([node("Clip", ["x", "a", "b"], ["c"]), node(op, ["c", "axes"])], (3,), weights)


@case("com.microsoft.Gelu", "com.microsoft.QuickGelu", "com.microsoft.FastGelu")
def fused_gelu(rng, op):
    return Case([node(op, ["x"])], (5,))


@case("com.microsoft.BiasGelu")
def bias_gelu(rng, op):
    return Case([node(op, ["x", "b"])], (5,), {"b": rng.normal(size=5)})


@case("Exp", "Log", "Sqrt", "Reciprocal", "Pow")
def by_range(rng, op):
    low = float(rng.uniform(0.2, 1))
    inputs, weights = (["c", "e"], {"e": np.float64(rng.choice([2.0, 3.0, 0.5, -1.0, 1.7]))}) if op == "Pow" else (["c"], {})
    nodes = [node("Clip", ["x", "a", "b"], ["c"]), node(op, inputs)]
    return Case(nodes, (5,), {"a": np.float64(low), "b": np.float64(low + rng.uniform(0.1, 3)), **weights})


@case("Max", "Min", "Where", "Add", "Sub", "Sum", "Mean")
def several(rng, op):
    W = rng.normal(size=(4, 4))
    nodes = [node("MatMul", ["x", "W"], ["h"])]
    if op == "Where":
        return Case([*nodes, node(op, ["m", "x", "h"])], (3, 4), {"W": W, "m": rng.random((3, 4)) > 0.5})
    weights = {"W": W, "b": rng.normal(size=(3, 4))}
    other = str(rng.choice(["h", "b", "x"])) if op != "Sum" else "h"
    inputs = ["x", other] if rng.random() < 0.5 or op == "Mean" else [other, "x"]  # the reference evaluator adds into its first
    return Case([*nodes, node(op, inputs)], (3, 4), weights)


@case("Mul", "Div")
def product(rng, op):
    kind = int(rng.integers(0, 4))
    if kind == 0 or op == "Div":
        if kind % 2:
            nodes = [
                node("Sigmoid", ["x"], ["s"]),
                node("Add", ["s", "one"], ["t"]),
                node("Tanh", ["x"], ["h"]),
                node("Div", ["h", "t"]),
            ]
            return Case(nodes, (5,), {"one": np.float64(rng.uniform(0.1, 2))})
        shape = [(3, 4), (4,), (3, 1), (1,)][int(rng.integers(0, 4))]
        return Case([node(op, ["x", "c"])], (3, 4), {"c": rng.normal(size=shape) + 3.0 * rng.choice([-1, 1])})
    if kind == 1:  # a gate with scales and offsets
        weights = {
            "a": np.float64(rng.normal() * 2),
            "k": np.float64(rng.normal()),
            "q": np.float64(rng.normal()),
            "c": np.float64(rng.normal()),
        }
        h = str(rng.choice(["Sigmoid", "Erf", "HardSigmoid", "Tanh"]))
        shift = [node("Add", ["t0", "c"], ["t"])] if rng.random() < 0.5 else [node("Identity", ["t0"], ["t"])]
        nodes = [
            node("Mul", ["x", "a"], ["t0"]),
            *shift,
            node(h, ["t"], ["g"]),
            node("Add", ["g", "q"], ["g1"]),
            node("Mul", ["x", "k"], ["u"]),
            node("Mul", ["g1", "u"]),
        ]
        return Case(nodes, (4,), weights)
    if kind == 2:  # both bounded, one broadcast
        nodes = [
            node("Tanh", ["x"], ["t"]),
            node("ReduceMean", ["x", "axes"], ["m"], keepdims=1),
            node("Sigmoid", ["m"], ["s"]),
            node("Mul", ["t", "s"]),
        ]
        return Case(nodes, (3, 4), {"axes": np.array([2])})
    weights = {
        "k3": np.float64(3),
        "c": np.float64(rng.choice([0.044715, 0.3])),
        "r": np.float64(np.sqrt(2 / np.pi)),
        "one": np.float64(1),
        "half": np.float64(0.5),
    }
    nodes = [node("Pow", ["x", "k3"], ["p"]), node("Mul", ["p", "c"], ["pc"]), node("Add", ["x", "pc"], ["s"]), node("Mul", ["s", "r"], ["sr"]), node("Tanh", ["sr"], ["t"]),
             node("Add", ["t", "one"], ["t1"]), node("Mul", ["x", "t1"], ["m"]), node("Mul", ["m", "half"])]  # fmt: skip
    return Case(nodes, (4,), weights)


@case("MatMul", "com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul")
def matmul(rng, op):
    kind = int(rng.integers(0, 4))
    if kind == 0 and op == "MatMul":
        nodes = [node("Tanh", ["x"], ["t"]), node("Transpose", ["t"], ["k"], perm=[0, 2, 1]), node("MatMul", ["t", "k"])]
        return Case(nodes, (3, 2))
    n, m = ints(rng, 1, 6, 2)
    W = rng.normal(size=(n, m))
    if op != "MatMul":
        flip = int(rng.integers(0, 2))
        return Case(
            [node(op, ["x", "W"], alpha=float(rng.normal()), transB=flip)],
            (2, n),
            {"W": W.T if flip else W},
            linear=True,
            within=0.01,
        )
    if kind == 1:
        return Case([node(op, ["W", "x"])], (m, 2), {"W": W}, linear=True, within=0.01)
    if kind == 2:
        return Case([node(op, ["x", "W"])], (2, 3, n), {"W": rng.normal(size=(2, n, m))}, linear=True, within=0.01)
    return Case([node(op, ["x", "W"])], (3, n), {"W": W}, linear=True, within=0.01)


@case("com.microsoft.MatMulNBits", "com.microsoft.MatMulBnb4")
def weights_of_few_bits(rng, op):
    n, k = int(rng.integers(1, 6)), 32
    form = n_bits(rng, n, k, zeros="packed") if op.endswith("NBits") else four_bit_floats(rng, n, k, block=16)
    names = "Bso" if op.endswith("NBits") else "Bs"
    weights = {name: a for name, a in zip(names, form.inputs, strict=False) if a is not None}
    return Case([node(op, ["x", *weights], **form.attributes)], (k,), weights, linear=True, within=0.01)


@case("Gemm")
def gemm(rng, op):
    n, m = ints(rng, 1, 8, 2)
    flip = int(rng.integers(0, 2))
    W = rng.normal(size=(m, n) if flip else (n, m))
    return Case(
        [node(op, ["x", "W", "b"], transB=flip, alpha=float(rng.normal()), beta=2.0)],
        (n,),
        {"W": W, "b": rng.normal(size=m)},
        linear=True,
        within=0.01,
    )


@case("com.microsoft.FusedGemm")
def fused_gemm(rng, op):
    n, m = ints(rng, 1, 8, 2)
    nodes = [node(op, ["x", "W", "b"], activation=str(rng.choice(["Relu", "LeakyRelu"])), activation_alpha=0.1)]
    return Case(nodes, (n,), {"W": rng.normal(size=(n, m)), "b": rng.normal(size=m)})


def _conv(rng, op, *, spatial=2):
    g = int(rng.choice([1, 1, 1, 2, 3]))
    ci, co = ints(rng, 1, 3, 2)
    if rng.random() < 0.2:
        g, ci, co = 3, 1, int(rng.integers(1, 3))
    k, s, d = ints(rng, 1, 4, spatial), ints(rng, 1, 3, spatial), ints(rng, 1, 2, spatial)
    n = ints(rng, 4, 8, spatial)
    pads = [min(p, (kk - 1) * dd) for p, kk, dd in zip(ints(rng, 0, 3, 2 * spatial), k * 2, d * 2, strict=True)]
    n = [max(a, (kk - 1) * dd + 1) for a, kk, dd in zip(n, k, d, strict=True)]
    return g, ci, co, k, s, d, n, pads


@case("Conv")
def conv(rng, op):
    g, ci, co, k, s, d, n, pads = _conv(rng, op, spatial=int(rng.choice([1, 2, 2, 2])))
    attributes = {"strides": s, "dilations": d, "group": g}
    if rng.random() < 0.15 and set(d) == {1}:
        attributes["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    else:
        attributes["pads"] = pads
    return Case(
        [node(op, ["x", "W", "b"], **attributes)],
        (ci * g, *n),
        {"W": rng.normal(size=(co * g, ci, *k)), "b": rng.normal(size=co * g)},
        linear=True,
    )


@case("com.microsoft.FusedConv")
def fused_conv(rng, op):
    g, ci, co, k, s, d, n, pads = _conv(rng, op)
    nodes = [node(op, ["x", "W", "b"], strides=s, dilations=d, group=g, pads=pads, activation="Relu")]
    return Case(nodes, (ci * g, *n), {"W": rng.normal(size=(co * g, ci, *k)), "b": rng.normal(size=co * g)})


@case("ConvTranspose")
def conv_transpose(rng, op):
    g, ci, co, k, s, d, n, _ = _conv(rng, op)
    pads = [int(rng.integers(0, max(1, (kk - 1) * dd // 2 + 1))) for kk, dd in zip(k * 2, d * 2, strict=True)]
    extra = [int(rng.integers(0, ss)) for ss in s]
    return Case([node(op, ["x", "W"], strides=s, dilations=d, group=g, pads=pads, output_padding=extra)], (ci * g, *[min(v, 5) for v in n]),
                {"W": rng.normal(size=(ci * g, co, *k))}, linear=True)  # fmt: skip


@case("BatchNormalization")
def batch_normalization(rng, op):
    weights = {"g": rng.normal(size=3), "b": rng.normal(size=3), "m": rng.normal(size=3), "v": rng.random(3)}
    nodes = [node(op, ["x", "g", "b", "m", "v"], epsilon=1e-3)]
    if rng.random() < 0.5:
        nodes = [node("Conv", ["x", "W"], ["h"], pads=[1, 1, 1, 1]), node(op, ["h", "g", "b", "m", "v"])]
        weights["W"] = rng.normal(size=(3, 3, 3, 3))
    return Case(nodes, (3, 5, 4), weights, linear=True)


@case(
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "Tile",
    "Pad",
    "DepthToSpace",
    "SpaceToDepth",
    "Trilu",
    "Concat",
    "Cast",
    "Resize",
)
def layout(rng, op):
    S = lambda *v: np.array(v, np.int64)  # noqa: E731
    mode = str(rng.choice(["constant", "edge", "reflect"]))
    i = int(rng.integers(0, 3))
    table = {
        "Reshape": ([node(op, ["x", "s"])], (2, 6), {"s": S(0, 3, 4)}),
        "Flatten": ([node(op, ["x"])], (2, 3), {}),
        "Squeeze": ([node(op, ["x", "s"])], (1, 5), {"s": S(1)}),
        "Unsqueeze": ([node(op, ["x", "s"])], (5,), {"s": S(1)}),
        "Transpose": ([node(op, ["x"], perm=[0, 2, 1])], (2, 3), {}),
        "Slice": ([node(op, ["x", "a", "b", "c", "d"])], (4, 5), {"a": S(i, -1), "b": S(4, -6), "c": S(1, 2), "d": S(1, -2)}),
        "Split": ([node(op, ["x", "s"], ["a", "b"], axis=1), node("Concat", ["b", "a", "b"], axis=2)], (4, 3), {"s": S(2, 2)}),
        "Gather": ([node(op, ["x", "s"], axis=1)], (4, 2), {"s": rng.integers(-4, 4, (2, 3))}),
        "Expand": ([node(op, ["x", "s"])], (1, 3), {"s": S(1, 4, 3)}),
        "Tile": ([node(op, ["x", "s"])], (2, 3), {"s": S(1, 2, 3)}),
        "Pad": ([node(op, ["x", "s"], mode=mode)], (4, 5), {"s": S(0, i, 1, 0, 2, 1)}),
        "DepthToSpace": ([node(op, ["x"], blocksize=2, mode=str(rng.choice(["DCR", "CRD"])))], (4, 2, 3), {}),
        "SpaceToDepth": ([node(op, ["x"], blocksize=2)], (1, 4, 6), {}),
        "Trilu": ([node(op, ["x"], upper=int(rng.integers(0, 2)))], (3, 4), {}),
        "Concat": ([node("MatMul", ["x", "W"], ["h"]), node(op, ["x", "h"] if i else ["x", "c", "h"], axis=1)] if i else [node("MatMul", ["x", "W"], ["h"]), node("Relu", ["h"], ["r"]), node(op, ["x", "h", "r"], axis=2)], (2, 4), {"W": rng.normal(size=(4, 4))}),
        "Cast": ([node(op, ["x"], to=1)], (5,), {}),
        "Resize": ([node(op, ["x", "", "s"], mode="nearest")], (2, 3, 4), {"s": np.array([1, 1, *(rng.choice([1, 2, 3], 2))], np.float32)}),
    }  # fmt: skip
    nodes, shape, weights = table[op]
    return Case(nodes, shape, weights, linear=op not in ("Concat",), within=0.01 if op not in ("Concat", "Trilu") else None)


@case("Upsample")
def upsample(rng, op):
    return Case(
        [node(op, ["x", "s"], mode="nearest")],
        (2, 3, 4),
        {"s": np.array([1, 1, 2, 3], np.float32)},
        opset=9,
        linear=True,
        within=0.01,
    )


@case("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_norm(rng, op):
    d, epsilon = int(rng.integers(2, 6)), float(10.0 ** rng.uniform(-5, 0))
    weights = {
        "g": rng.normal(size=d),
        "b": rng.normal(size=d),
        "two": np.float64(2),
        "e": np.float64(epsilon),
        "axes": np.array([-1]),
    }
    if op == "LayerNormalization" and rng.random() < 0.4:
        return Case([node(op, ["x", "g", "b"], epsilon=epsilon)], (2, d), weights, spread=0.1)
    if op == "RMSNormalization" and rng.random() < 0.5:
        return Case([node(op, ["x", "g"], epsilon=epsilon)], (2, d), weights, opset=23, spread=0.1)
    simple = op != "LayerNormalization"  # written out, as the older exporter does
    top = [] if simple else [node("ReduceMean", ["x", "axes"], ["m"]), node("Sub", ["x", "m"], ["c"])]
    c = "x" if simple else "c"
    square = node("Pow", [c, "two"], ["q"]) if rng.random() < 0.5 else node("Mul", [c, c], ["q"])
    nodes = [
        *top,
        square,
        node("ReduceMean", ["q", "axes"], ["v"]),
        node("Add", ["v", "e"], ["ve"]),
        node("Sqrt", ["ve"], ["s"]),
    ]
    nodes += (
        [node("Div", [c, "s"], ["n"])] if rng.random() < 0.5 else [node("Reciprocal", ["s"], ["i"]), node("Mul", [c, "i"], ["n"])]
    )
    return Case([*nodes, node("Mul", ["n", "g"], ["ng"]), node("Add", ["ng", "b"])], (2, d), weights, spread=0.1)


@case("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization")
def skip_norm(rng, op):
    weights = {"W": rng.normal(size=(4, 4)), "g": rng.normal(size=4), "b": rng.normal(size=4)}
    inputs = ["x", "h", "g"] if "Simplified" in op else ["x", "h", "g", "b"]
    return Case([node("MatMul", ["x", "W"], ["h"]), node(op, inputs, epsilon=0.1)], (2, 4), weights)


@case("InstanceNormalization", "GroupNormalization")
def group_norm(rng, op):
    attributes = {"epsilon": 0.1, **({"num_groups": 2} if op == "GroupNormalization" else {})}
    return Case(
        [node(op, ["x", "g", "b"], **attributes)],
        (4, 3),
        {"g": rng.normal(size=4), "b": rng.normal(size=4)},
        opset=21,
        spread=0.3,
    )


@case("Softmax", "LogSoftmax")
def softmax(rng, op):
    return Case([node(op, ["x"], axis=-1)], (2, int(rng.integers(2, 6))))


@case("MaxPool", "AveragePool")
def pool(rng, op):
    k, s = ints(rng, 1, 4, 2), ints(rng, 1, 3, 2)
    pads = [int(rng.integers(0, kk)) // 2 for kk in k * 2]
    attributes = {"kernel_shape": k, "strides": s, "pads": pads, "ceil_mode": int(rng.integers(0, 2))}
    if op == "AveragePool":
        attributes["count_include_pad"] = int(rng.integers(0, 2))
    elif rng.random() < 0.3:
        attributes |= {"dilations": [2, 1], "ceil_mode": 0}
    return Case([node(op, ["x"], **attributes)], (1, *ints(rng, 7, 9, 2)), linear=op == "AveragePool", spread=30.0)


@case(
    "GlobalMaxPool",
    "GlobalAveragePool",
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceL2",
    "ReduceL1",
    "ReduceLogSumExp",
)
def reduce(rng, op):
    if op.startswith("Global"):
        return Case([node(op, ["x"])], (2, 3, 4), linear="Average" in op, within=0.01 if "Average" in op else None)
    axes = np.array([[1], [2], [1, 2], [-1]][int(rng.integers(0, 4))])
    linear = op in ("ReduceMean", "ReduceSum")
    return Case(
        [node(op, ["x", "axes"], keepdims=int(rng.integers(0, 2)))],
        (3, 4),
        {"axes": axes},
        linear=linear,
        within=0.01 if linear else None,
    )


def _projections(rng, d):
    nodes = [node("LayerNormalization", ["x", "g", "b"], ["t"], epsilon=0.5)]
    for p in "qkv":
        nodes += [node("MatMul", ["t", f"W{p}"], [f"{p}0"]), node("Add", [f"{p}0", f"b{p}"], [p])]
    weights = {"g": rng.normal(size=d), "b": rng.normal(size=d)}
    weights |= {f"W{p}": rng.normal(size=(d, d)) * 10.0 ** rng.uniform(-1, 0.5) for p in "qkv"} | {
        f"b{p}": rng.normal(size=d) for p in "qkv"
    }
    return nodes, weights


@case("com.microsoft.MultiHeadAttention")
def multi_head(rng, op):
    n, h = int(rng.integers(2, 5)), int(rng.choice([1, 2]))
    nodes, weights = _projections(rng, 4)
    weights["bias"] = rng.normal(size=12)
    inputs = ["q", "k", "v", *(["bias"] if rng.random() < 0.5 else [])]
    return Case([*nodes, node(op, inputs, num_heads=h, unidirectional=int(rng.integers(2)))], (n, 4), weights)


@case("RotaryEmbedding", "com.microsoft.RotaryEmbedding")
def rotary(rng, op):
    """Tokens that are turned, before attention."""
    n = int(rng.integers(2, 5))
    nodes, weights = _projections(rng, 4)
    weights |= {"cos": rng.normal(size=(n, 1)), "sin": rng.normal(size=(n, 1))}
    own = op.startswith("com")
    weights["p"] = np.array([0]) if own else np.arange(n)[None]
    order = ["p", "cos", "sin"] if own else ["cos", "sin"]
    given = {"num_heads": 2, "interleaved": int(rng.integers(2))}
    if not own:
        order = ["cos", "sin", "pN"]
        weights |= {"0": np.array([0]), "1": np.array([1]), "n": np.array([n])}
        nodes += [node("Shape", ["x"], ["shape"]), node("Slice", ["shape", "0", "1"], ["N"]), node("Concat", ["N", "n"], ["Nn"], axis=0),
                  node("Expand", ["p", "Nn"], ["pN"])]  # fmt: skip
    turned = [node(op, [p, *order], [f"{p}t"], **given) for p in "qk"]
    return Case(
        [*nodes, *turned, node("com.microsoft.MultiHeadAttention", ["qt", "kt", "v"], num_heads=2)], (n, 4), weights, opset=23
    )


@case("Attention")
def attention(rng, op):
    """Written out with heads, as exporters do, or the standard's own operator, whose heads may share keys."""
    n, h = int(rng.integers(2, 5)), int(rng.choice([1, 2]))
    nodes, weights = _projections(rng, 4)
    if rng.random() < 0.6:
        shared = int(rng.choice([1, h]))
        if shared < h:  # keys and values of one head
            weights |= {w: weights[w][..., :2] for w in ("Wk", "bk", "Wv", "bv")}
        given = {"softcap": float(rng.uniform(0.5, 3))} if rng.random() < 0.5 else {}
        if rng.random() < 0.5:
            return Case(
                [*nodes, node(op, ["q", "k", "v"], q_num_heads=h, kv_num_heads=shared, **given)],
                (n, 4),
                weights,
                opset=23,
                spread=0.5,
            )
        for p, heads in zip("qkv", (h, shared, shared), strict=True):
            weights[f"split{p}"] = np.array([0, n, heads, -1])
            nodes += [node("Reshape", [p, f"split{p}"], [f"{p}r"]), node("Transpose", [f"{p}r"], [f"{p}h"], perm=[0, 2, 1, 3])]
        return Case(
            [*nodes, node(op, ["qh", "kh", "vh"], is_causal=int(rng.integers(2)), **given)], (n, 4), weights, opset=23, spread=0.5
        )
    weights |= {
        "split": np.array([0, n, h, 4 // h]),
        "join": np.array([0, n, 4]),
        "c": np.float64(1 / np.sqrt(4 // h)),
        "mask": rng.normal(size=(n, n)),
        "zero": np.float64(0),
    }
    for p in "qkv":
        nodes += [
            node("Reshape", [p, "split"], [f"{p}r"]),
            node("Transpose", [f"{p}r"], [f"{p}h"], perm=[0, 2, 3, 1] if p == "k" else [0, 2, 1, 3]),
        ]
    nodes += [node("MatMul", ["qh", "kh"], ["s"]), node("Mul", ["s", "c"], ["sc"]), node("Add", ["sc", "mask"], ["sm"]), node("Softmax", ["sm"], ["p0"], axis=-1),
              node("IsNaN", ["p0"], ["nan"]), node("Where", ["nan", "zero", "p0"], ["p"]),
              node("MatMul", ["p", "vh"], ["o"]), node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]), node("Reshape", ["ot", "join"])]  # fmt: skip
    return Case(nodes, (n, 4), weights, spread=0.5)


@case("com.microsoft.Attention")
def fused_attention(rng, op):
    n, h = int(rng.integers(2, 5)), int(rng.choice([1, 2]))
    weights = {"g": rng.normal(size=4), "b": rng.normal(size=4), "W": rng.normal(size=(4, 12)), "c": rng.normal(size=12)}
    return Case(
        [node("LayerNormalization", ["x", "g", "b"], ["t"], epsilon=0.5), node(op, ["t", "W", "c"], num_heads=h)],
        (n, 4),
        weights,
    )


@case("ConstantOfShape", "Shape", "Size")
def of_shape(rng, op):
    return Case(
        [node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["z"]), node("Add", ["x", "z"])],
        (3,),
        linear=True,
        within=0.01,
    )


@case("Round", "Floor", "Ceil", "Sign", "ArgMax", "ArgMin", "Hardmax", "LpNormalization", "Not", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "NonZero",
      "And", "Or", "Xor", "IsNaN", "IsInf", "QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear",
      "com.microsoft.QuantizeLinear", "com.microsoft.DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
      *(f"com.microsoft.{op}" for op in ("QGemm", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool",
        "QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat", "QAttention", "DynamicQuantizeLSTM")), table=REFUSED)  # fmt: skip
def refused(rng, op):
    two = op in (
        "Equal",
        "Greater",
        "Less",
        "GreaterOrEqual",
        "LessOrEqual",
        "And",
        "Or",
        "Xor",
        "QuantizeLinear",
        "DequantizeLinear",
    )
    return Case([node(op, ["x", "c"] if two else ["x"])], (4,), {"c": np.float32(rng.random() + 0.1)})


_ACTIVATIONS = ["Sigmoid", "Tanh", "HardSigmoid", "Softsign", "ScaledTanh"]


def _recurrent(rng: Rng, op: str, activations: list[str], **more) -> Case:
    """A recurrent node on values with the time first, one of its outputs."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    time, features, hidden = ints(rng, 1, 4, 3)
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    d = 2 if direction == "bidirectional" else 1
    scale = 10.0 ** rng.uniform(-1, 0.5)
    weights = {"W": scale * rng.normal(size=(d, gates * hidden, features)), "R": scale * rng.normal(size=(d, gates * hidden, hidden)),
               "B": scale * rng.normal(size=(d, 2 * gates * hidden)), "P": rng.normal(size=(d, 3 * hidden)),
               "h": rng.normal(size=(d, 1, hidden))}  # fmt: skip
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2])]
    names = ["t", "W", "R", *([["B"], [""]][int(rng.integers(2))])]
    if rng.random() < 0.3:  # a state that the input makes
        nodes += [node("Gather", ["t", "first"], ["g"], axis=0), node("MatMul", ["g", "V"], ["v"]), node("Tanh", ["v"], ["state"])]
        weights |= {"first": np.array([0]), "V": rng.normal(size=(d, features, hidden))}
        names += ["", "state"]
        if op == "LSTM":
            names += ["state"]
    if op == "LSTM" and rng.random() < 0.4:
        names += [""] * (7 - len(names)) + ["P"]
    if activations:
        more["activations"] = activations * d
    place = int(rng.integers(3 if op == "LSTM" else 2))
    outputs = [*["", "", ""][:place], "o"]
    nodes += [node(op, names, outputs, hidden_size=hidden, direction=direction, **more),
              node("Transpose", ["o"], perm=[1, 0, 2] if place else [2, 0, 1, 3])]  # fmt: skip
    return Case(nodes, (time, features), {k: v for k, v in weights.items() if any(k in n.input for n in nodes)}, spread=0.5)


@case("RNN")
def rnn(rng, op):
    clip = {"clip": float(rng.uniform(0.5, 2))} if rng.random() < 0.3 else {}
    return _recurrent(rng, op, [str(rng.choice([*_ACTIVATIONS, "Relu", "Softplus"]))] if rng.random() < 0.5 else [], **clip)


@case("GRU")
def gru(rng, op):
    more = {"linear_before_reset": int(rng.integers(2))}
    return _recurrent(rng, op, [str(a) for a in rng.choice(_ACTIVATIONS, 2)] if rng.random() < 0.5 else [], **more)


@case("LSTM")
def lstm(rng, op):
    more = {"input_forget": int(rng.integers(2))}
    if rng.random() < 0.3:
        more["clip"] = float(rng.uniform(0.5, 2))
    chosen = [str(a) for a in (*rng.choice(_ACTIVATIONS, 2), rng.choice([*_ACTIVATIONS, "Relu"]))]
    return _recurrent(rng, op, chosen if rng.random() < 0.5 else [], **more)
