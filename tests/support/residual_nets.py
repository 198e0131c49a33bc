"""Residual nets of random weights, of any size: for speed and for memory, not for values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def residual_net(side: int, width: int, blocks: int, classes: int = 10) -> onnx.ModelProto:
    """A residual net with random weights: a strided stem, stages of residual blocks, global pooling, one linear layer."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(*shape: int) -> str:
        name = f"w{len(weights)}"
        fan = int(np.prod(shape[1:])) or 1
        weights.append(numpy_helper.from_array((rng.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32), name))
        return name

    def conv(x: str, c_in: int, c_out: int, k: int, stride: int) -> str:
        y = f"c{len(nodes)}"
        pads = [(k - 1) // 2] * 4
        nodes.append(helper.make_node("Conv", [x, constant(c_out, c_in, k, k)], [y], strides=[stride] * 2, pads=pads))
        return y

    def node(op: str, *inputs: str, **attributes: Any) -> str:
        y = f"n{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [y], **attributes))
        return y

    x = node("Relu", conv("input", 3, width, 7 if side > 64 else 3, 4 if side > 64 else 1))
    c = width
    for stage in range(3):
        for block in range(blocks):
            stride, out = (2, 2 * c) if stage and not block else (1, c)
            y = conv(node("Relu", conv(x, c, out, 3, stride)), out, out, 3, 1)
            skip = conv(x, c, out, 1, stride) if stride > 1 else x
            x, c = node("Relu", node("Add", y, skip)), out
    x = node("Flatten", node("GlobalAveragePool", x))
    nodes.append(helper.make_node("MatMul", [x, constant(c, classes)], ["logits"]))
    into = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, side, side])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])
    model = helper.make_model(
        helper.make_graph(nodes, "residual", [into], [out], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    return model
