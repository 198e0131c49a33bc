"""Small dense nets and their quantised files, in each form that such files come in, with exact values of the float net."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

FORMS = ("qdq", "qoperator", "dynamic")


@dataclass(frozen=True)
class Dense:
    """``x → W₁x → relu → W₂x …``: weights (out, in), no relu behind the last."""

    weights: tuple[np.ndarray, ...]

    @staticmethod
    def draw(*sizes: int, gain: float = 1.5, seed: int = 0) -> Dense:
        rng = np.random.default_rng(seed)
        return Dense(tuple(rng.standard_normal((o, i)) * gain / np.sqrt(i) for i, o in pairwise(sizes)))

    def samples(self, n: int, seed: int = 1) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((n, self.weights[0].shape[1])).astype(np.float32)

    def activations(self, X: np.ndarray) -> list[np.ndarray]:
        """Inputs of each layer, and the logits."""
        found = [np.asarray(X, np.float64)]
        for k, W in enumerate(self.weights):
            z = found[-1] @ W.T
            found.append(z if k == len(self.weights) - 1 else np.maximum(z, 0))
        return found

    def lambda_max(self, X: np.ndarray) -> np.ndarray:
        """Of the float net, from the definition, (n,)."""
        found = self.activations(X)
        values = []
        for i in range(len(X)):
            J = np.eye(X.shape[1])
            for k, W in enumerate(self.weights):
                J = W @ J
                if k < len(self.weights) - 1:
                    J = J * (found[k + 1][i] > 0)[:, None]
            p = softmax(found[-1][i])
            values.append(np.linalg.eigvalsh(J.T @ (np.diag(p) - np.outer(p, p)) @ J)[-1])
        return np.array(values)


def quantised_file(net: Dense, X: np.ndarray, form: str, levels: int = 127) -> onnx.ModelProto:
    """The net with values rounded to ``levels`` on either side of zero, of the range that X spans; dynamic ones to their own 255."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(op: str, inputs: list[str], *outputs: str, **attributes: int) -> str:
        nodes.append(helper.make_node(op, inputs, list(outputs), name=outputs[0], **attributes))
        return outputs[0]

    zero = constant("zero", np.int8(0))
    scales = [constant(f"s{k}", np.float32(np.abs(a).max() / levels)) for k, a in enumerate(net.activations(X))]
    pre = [a @ W.T for a, W in zip(net.activations(X), net.weights, strict=False)]
    now = "x"
    for k, W in enumerate(net.weights):
        scale = np.float32(np.abs(W).max() / 127)
        q = constant(f"w{k}", np.round(W.T / scale).astype(np.int8))
        ws = constant(f"ws{k}", scale)
        zs = constant(f"zs{k}", np.float32(np.abs(pre[k]).max() / levels))
        if form == "qdq":
            node("QuantizeLinear", [now, scales[k], zero], f"q{k}")
            node("DequantizeLinear", [f"q{k}", scales[k], zero], f"a{k}")
            node("DequantizeLinear", [q, ws, zero], f"f{k}")
            node("MatMul", [f"a{k}", f"f{k}"], f"m{k}")
            node("QuantizeLinear", [f"m{k}", zs, zero], f"p{k}")
            now = node("DequantizeLinear", [f"p{k}", zs, zero], f"z{k}")
        elif form == "qoperator":
            node("QuantizeLinear", [now, scales[k], zero], f"q{k}")
            node("QLinearMatMul", [f"q{k}", scales[k], zero, q, ws, zero, zs, zero], f"p{k}")
            now = node("DequantizeLinear", [f"p{k}", zs, zero], f"z{k}")
        else:
            node("DynamicQuantizeLinear", [now], f"q{k}", f"qs{k}", f"qz{k}")
            node("MatMulInteger", [f"q{k}", q, f"qz{k}"], f"i{k}")
            node("Cast", [f"i{k}"], f"c{k}", to=TensorProto.FLOAT)
            node("Mul", [f"qs{k}", ws], f"t{k}")
            now = node("Mul", [f"c{k}", f"t{k}"], f"z{k}")
        if k < len(net.weights) - 1:
            now = node("Relu", [now], f"r{k}")
    d, K = net.weights[0].shape[1], net.weights[-1].shape[0]
    graph = helper.make_graph(
        nodes, "quantised", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", d])],
        [helper.make_tensor_value_info(now, TensorProto.FLOAT, ["N", K])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model
