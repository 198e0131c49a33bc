"""Random small graphs for local bounds, and what they compute, by ONNX's own reference in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxfim.graph.graph import Graph
from onnxfim.relaxed.network import StepNetwork, network

Rng = np.random.Generator


@dataclass(frozen=True)
class Net:
    """A graph from ``x`` to ``y``, and the shape of one sample."""

    nodes: list[onnx.NodeProto]
    weights: dict[str, np.ndarray]
    shape: tuple[int, ...]
    linear: bool = False
    many: bool = False  # whether it takes any number of rows at once

    def model(self, kind: type = np.float32) -> onnx.ModelProto:
        """The model with its numbers of a type."""
        elem = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        tensors = [numpy_helper.from_array(w.astype(kind) if w.dtype.kind == "f" else w, n) for n, w in self.weights.items()]
        graph = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info("x", elem, [1, *self.shape])],
            [helper.make_tensor_value_info("y", elem, None)], tensors,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    def network(self) -> StepNetwork:
        """What its local bounds are made from."""
        return network(Graph(self.model()), input_name="x", scores="y", sample_shape=self.shape)

    def exact(self) -> Callable[[np.ndarray], np.ndarray]:
        """What it computes of rows (N, d), in float64, (N, outputs)."""
        run = ReferenceEvaluator(_doubled(self.model(np.float32)))

        def values(rows: np.ndarray) -> np.ndarray:
            if self.many:
                return run.run(None, {"x": rows.reshape(-1, *self.shape)})[0].reshape(len(rows), -1)
            return np.stack([run.run(None, {"x": r.reshape(1, *self.shape)})[0].ravel() for r in rows])

        return values


def _doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the very same weights, computed in float64."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


CASES: dict[str, Callable[[Rng], Net]] = {}


def case(*ops: str):
    def enter(make):
        for op in ops:
            CASES[op] = partial(make, op=op)
        return make

    return enter


def node(op: str, inputs: list[str], outputs: list[str] | None = None, **attributes):
    domain, _, name = op.rpartition(".")
    return helper.make_node(name, inputs, outputs or ["y"], domain=domain, **attributes)


def normal(rng: Rng, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * rng.standard_normal(shape)).astype(np.float32)


@case("Relu", "Sigmoid", "Tanh", "Softplus", "Erf", "HardSwish", "Abs")
def pointwise(rng, op):
    n = int(rng.integers(2, 7))
    return Net([node("MatMul", ["x", "W"], ["a"]), node(op, ["a"])], {"W": normal(rng, n, n, scale=2.0)}, (n,))


@case("LeakyRelu", "Elu", "HardSigmoid", "Gelu")
def with_attributes(rng, op):
    own = {"LeakyRelu": {"alpha": float(rng.uniform(-0.5, 1.5))}, "Elu": {"alpha": float(rng.uniform(0.3, 2))},
           "HardSigmoid": {"alpha": float(rng.uniform(0.1, 1)), "beta": float(rng.uniform(0, 1))}}.get(op, {})  # fmt: skip
    return Net([node("MatMul", ["x", "W"], ["a"]), node(op, ["a"], **own)], {"W": normal(rng, 4, 5, scale=2.0)}, (4,))


@case("PRelu")
def prelu(rng, op):
    return Net([node(op, ["x", "s"])], {"s": rng.uniform(-1, 2, (3, 1)).astype(np.float32)}, (3, 4))


@case("Clip")
def clip(rng, op):
    low, high = np.sort(normal(rng, 2))
    return Net([node(op, ["x", "low", "high"])], {"low": np.float32(low)[()] * np.ones(()), "high": high * np.ones(())}, (5,))


@case("Identity", "Dropout", "Flatten", "Neg", "Cast")
def plain(rng, op):
    own = {"Cast": {"to": TensorProto.FLOAT}}.get(op, {})
    return Net([node(op, ["x"], **own)], {}, (2, 3), linear=True)


@case("Reshape", "Squeeze", "Unsqueeze", "Expand", "Tile")
def reshaped(rng, op):
    target = {"Reshape": [1, 6], "Squeeze": [2], "Unsqueeze": [1], "Expand": [1, 2, 3, 4], "Tile": [1, 2, 1, 3]}[op]
    shape = (2, 3, 1)
    if op == "Squeeze":
        target = [3]
    return Net([node(op, ["x", "t"])], {"t": np.array(target)}, shape, linear=True)


@case("Transpose")
def transposed(rng, op):
    return Net([node(op, ["x"], perm=[0, 3, 1, 2])], {}, (2, 3, 4), linear=True)


@case("DepthToSpace", "SpaceToDepth")
def blocks(rng, op):
    return Net([node(op, ["x"], blocksize=2)], {}, (4, 4, 2), linear=True)


@case("Slice", "Gather", "Pad", "Split", "Concat", "Where")
def moved(rng, op):
    if op == "Slice":
        return Net([node(op, ["x", "b", "e", "a", "s"])],
                   {"b": np.array([3]), "e": np.array([0]), "a": np.array([2]), "s": np.array([-2])}, (2, 5), linear=True)  # fmt: skip
    if op == "Gather":
        return Net([node(op, ["x", "i"], axis=2)], {"i": np.array([3, 0, 3, 3])}, (2, 4), linear=True)
    if op == "Pad":
        mode = str(rng.choice(["constant", "edge", "reflect"]))
        weights = {"p": np.array([0, 0, 1, 0, 0, 2])} | ({"v": np.float32(0.7) * np.ones(())} if mode == "constant" else {})
        return Net([node(op, ["x", *weights], mode=mode)], weights, (2, 4), linear=True)
    if op == "Split":
        return Net(
            [node(op, ["x", "s"], ["a", "b"], axis=1), node("Sub", ["a", "b"])], {"s": np.array([2, 2])}, (4, 3), linear=True
        )
    if op == "Concat":
        return Net([node("Neg", ["x"], ["a"]), node(op, ["a", "c", "x", "a"], axis=1)], {"c": normal(rng, 1, 2, 3)}, (2, 3),
                   linear=True)  # fmt: skip
    return Net([node("Neg", ["x"], ["a"]), node(op, ["m", "x", "a"])], {"m": np.array([[True, False, True]])}, (2, 3), linear=True)


@case("MatMul", "Gemm")
def products(rng, op):
    if op == "Gemm":
        return Net([node(op, ["x", "W", "b"], alpha=0.7, beta=1.5, transB=1)], {"W": normal(rng, 3, 5), "b": normal(rng, 3)}, (5,),
                   linear=True)  # fmt: skip
    if rng.random() < 0.5:
        return Net([node(op, ["W", "x"])], {"W": normal(rng, 4, 3)}, (2, 3, 5), linear=True)
    return Net([node(op, ["x", "W"])], {"W": normal(rng, 5, 4)}, (2, 3, 5), linear=True)


@case("Conv", "ConvTranspose")
def convolutions(rng, op):
    rank = int(rng.integers(1, 3))
    groups = int(rng.integers(1, 3)) if op == "Conv" else 1  # ONNX's reference knows no groups of the other
    strides, dilations = [[int(v) for v in rng.integers(1, 3, rank)] for _ in range(2)]
    kernel = [int(v) for v in rng.integers(1, 4, rank)]
    pads = [int(v) for v in rng.integers(0, 2, 2 * rank)] if op == "Conv" else [0] * 2 * rank
    shape = (2 * groups, *(int(v) for v in rng.integers(5, 8, rank)))
    outs = int(rng.integers(1, 3))
    W = normal(rng, outs * groups, 2, *kernel) if op == "Conv" else normal(rng, 2 * groups, outs, *kernel)
    auto = {"auto_pad": "SAME_UPPER"} if op == "Conv" and max(dilations) == 1 and rng.random() < 0.3 else {"pads": pads}
    return Net([node(op, ["x", "W", "b"], strides=strides, dilations=dilations, group=groups, **auto)],
               {"W": W, "b": normal(rng, outs * groups)}, shape, linear=True)  # fmt: skip


@case("BatchNormalization")
def normalised(rng, op):
    weights = {"g": normal(rng, 3), "b": normal(rng, 3), "m": normal(rng, 3), "v": rng.uniform(0.1, 2, 3).astype(np.float32)}
    return Net([node(op, ["x", *weights])], weights, (3, 4), linear=True)


@case("Add", "Sub", "Sum", "Mean")
def sums(rng, op):
    more = ["a"] if op in ("Add", "Sub") else ["a", "c"]
    return Net([node("Neg", ["x"], ["n"]), node("Mul", ["n", "f"], ["a"]), node(op, ["x", *more])],
               {"f": normal(rng, 3, 1), "c": normal(rng, 4)}, (3, 4), linear=True)  # fmt: skip


@case("Mul", "Div")
def factors(rng, op):
    if op == "Mul" and rng.random() < 0.6:
        return Net([node("Sigmoid", ["x"], ["a"]), node("ReduceMean", ["x", "axes"], ["m"], keepdims=1), node(op, ["a", "m"])],
                   {"axes": np.array([2])}, (2, 3))  # fmt: skip
    return Net([node(op, ["x", "f"])], {"f": rng.uniform(0.5, 2, (3, 1)).astype(np.float32)}, (3, 4), linear=True)


@case("ReduceMean", "ReduceSum", "GlobalAveragePool", "ReduceMax", "GlobalMaxPool")
def reduced(rng, op):
    linear = "Max" not in op
    if op.startswith("Global"):
        return Net([node(op, ["x"])], {}, (2, 3, 2), linear=linear)
    return Net([node(op, ["x", "axes"], keepdims=int(rng.integers(0, 2)))], {"axes": np.array([-1])}, (2, 3), linear=linear)


@case("AveragePool", "MaxPool")
def pools(rng, op):
    stride = int(rng.integers(1, 3))
    own = {} if op == "MaxPool" else {"count_include_pad": int(rng.integers(0, 2))}
    return Net([node(op, ["x"], kernel_shape=[2, 3], strides=[stride, 1], pads=[1, 0, 0, 1], **own)], {}, (2, 4, 4),
               linear=op == "AveragePool")  # fmt: skip


@case("QuantizeLinear", "DequantizeLinear")
def quantised(rng, op):
    weights = {"s": np.float32(rng.uniform(0.02, 0.3)) * np.ones(()), "z": np.int8(rng.integers(-20, 20)) * np.ones((), np.int8)}
    return Net([node("MatMul", ["x", "W"], ["a"]), node("QuantizeLinear", ["a", "s", "z"], ["q"]),
                node("DequantizeLinear", ["q", "s", "z"])], weights | {"W": normal(rng, 4, 4)}, (4,))  # fmt: skip


def deep(rng: Rng) -> Net:
    """A small net of convolutions, branches, pools and curves."""
    weights: dict[str, np.ndarray] = {}
    nodes = []

    def conv(x: str, y: str, o: int, i: int, **own) -> None:
        weights[f"{y}W"], weights[f"{y}b"] = normal(rng, o, i, 3, 3, scale=0.5), normal(rng, o, scale=0.3)
        nodes.append(node("Conv", [x, f"{y}W", f"{y}b"], [y], pads=[1, 1, 1, 1], **own))

    curve = str(rng.choice(["Relu", "LeakyRelu", "HardSwish", "Sigmoid", "Tanh", "Gelu"]))
    conv("x", "c1", 4, 1)
    nodes.append(node(curve, ["c1"], ["r1"]))
    conv("r1", "c2", 4, 4)
    nodes.append(node("Add", ["c2", "r1"], ["s"]))
    nodes.append(node("Relu", ["s"], ["r2"]))
    pool = str(rng.choice(["MaxPool", "AveragePool"]))
    nodes.append(node(pool, ["r2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]))
    conv("p", "c3", 3, 4, strides=[2, 2])
    nodes.append(node("Relu", ["c3"], ["r3"]))
    nodes.append(node("Concat", ["r3", "c3"], ["j"], axis=1))
    nodes.append(node("Flatten", ["j"], ["f"]))
    size = 6 * math.prod((2, 2))
    weights["W"], weights["b"] = normal(rng, size, 4, scale=0.5), normal(rng, 4)
    nodes.append(node("Gemm", ["f", "W", "b"]))
    return Net(nodes, weights, (1, 6, 6), many=True)


def mlp(rng: Rng, widths: tuple[int, ...] = (6, 16, 12, 4)) -> Net:
    """Dense layers with ReLU between them."""
    weights, nodes, last = {}, [], "x"
    for k, (n, m) in enumerate(pairwise(widths)):
        weights[f"W{k}"], weights[f"b{k}"] = normal(rng, n, m, scale=1.2 / math.sqrt(n)), normal(rng, m, scale=0.3)
        out = "y" if k == len(widths) - 2 else f"a{k}"
        nodes.append(node("Gemm", [last, f"W{k}", f"b{k}"], [out]))
        if out != "y":
            nodes.append(node("Relu", [out], [f"r{k}"]))
            last = f"r{k}"
    return Net(nodes, weights, (widths[0],), many=True)


def linear_net(rng: Rng) -> Net:
    """Scores that are linear in the input."""
    return Net([node("Gemm", ["x", "W", "b"])], {"W": normal(rng, 9, 4), "b": normal(rng, 4)}, (9,), linear=True, many=True)


def in_ball(rng: Rng, x: np.ndarray, radius: float, norm: str, scale: np.ndarray, count: int) -> np.ndarray:
    """Points of the ball around x (d,): half of them on its edge, of L∞ at its corners, (count, d)."""
    v = rng.standard_normal((count, x.size))
    v = v / np.linalg.norm(v, axis=1, keepdims=True) if norm == "l2" else np.sign(v)
    length = np.where(rng.random((count, 1)) < 0.5, 1.0, rng.random((count, 1)))
    if norm == "linf":
        v = np.where(rng.random((count, 1)) < 0.5, v, rng.uniform(-1, 1, v.shape))
    return x + radius * length * v * scale
