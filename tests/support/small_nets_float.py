"""The float file of a small dense net, with the names that its quantised files have."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.quantised_nets import Dense


def float_file(net: Dense) -> onnx.ModelProto:
    """``x → MatMul → Relu → …``, nodes named m0, r0, m1, …"""
    nodes, now = [], "x"
    for k in range(len(net.weights)):
        nodes.append(helper.make_node("MatMul", [now, f"w{k}"], [f"m{k}"], name=f"m{k}"))
        now = f"m{k}"
        if k < len(net.weights) - 1:
            nodes.append(helper.make_node("Relu", [now], [f"r{k}"], name=f"r{k}"))
            now = f"r{k}"
    d, K = net.weights[0].shape[1], net.weights[-1].shape[0]
    graph = helper.make_graph(
        nodes, "float", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", d])],
        [helper.make_tensor_value_info(now, TensorProto.FLOAT, ["N", K])],
        [numpy_helper.from_array(W.T.astype(np.float32), f"w{k}") for k, W in enumerate(net.weights)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model
