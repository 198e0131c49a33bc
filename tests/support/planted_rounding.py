"""Plants one badly quantised layer in a quantised file: its weight's scale too coarse, or its range too small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import numpy_helper

Fault = Literal["coarse", "clipped"]
_INTEGER = {"QLinearConv": 8, "QLinearMatMul": None, "QGemm": 6}


@dataclass(frozen=True)
class Site:
    """A layer with stored integer weights: its node, the weight, its scale, and its bias (with its own scale, where it has one)."""

    node: str
    weight: str
    scale: str
    bias: str | None = None
    bias_scale: str | None = None


def sites(model: onnx.ModelProto) -> list[Site]:
    """All layers with stored integer weights, of QDQ and QOperator files."""
    tensors = {t.name for t in model.graph.initializer}
    makers = {o: n for n in model.graph.node for o in n.output}
    found = []
    for node in model.graph.node:
        if node.op_type in _INTEGER and node.input[3] in tensors:
            at = _INTEGER[node.op_type]
            bias = node.input[at] if at is not None and len(node.input) > at and node.input[at] else None
            found.append(Site(node.name, node.input[3], node.input[4], bias))
        elif node.op_type in ("Conv", "MatMul", "Gemm"):
            weight = makers.get(node.input[1])
            if weight is None or weight.op_type != "DequantizeLinear" or weight.input[0] not in tensors:
                continue
            bias = makers.get(node.input[2]) if len(node.input) > 2 else None
            stored = bias is not None and bias.op_type == "DequantizeLinear" and bias.input[0] in tensors
            found.append(Site(node.name, weight.input[0], weight.input[1], *(bias.input[:2] if stored else ())))
    return found


def planted(model: onnx.ModelProto, site: Site, fault: Fault, factor: float) -> onnx.ModelProto:
    """A copy in which one layer's weights were rounded ``factor`` times too coarsely, or cut at 1/factor of their range."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = {t.name: t for t in copy.graph.initializer}
    zeros = {n.input[0]: n.input[2] for n in copy.graph.node if n.op_type == "DequantizeLinear" and len(n.input) > 2}
    zeros |= {n.input[3]: n.input[5] for n in copy.graph.node if n.op_type in _INTEGER}
    # Two layers may hold the same scale: this one gets tensors of its own.
    wider = factor if fault == "coarse" else 1 / factor
    weight = numpy_helper.to_array(tensors[site.weight])
    zero = numpy_helper.to_array(tensors[zeros[site.weight]]).astype(np.float64)
    zero = zero.reshape([-1, *[1] * (weight.ndim - 1)]) if zero.size > 1 else zero
    ends = np.iinfo(weight.dtype)
    rounded = np.clip(np.round((weight.astype(np.float64) - zero) / wider) + zero, ends.min, ends.max).astype(weight.dtype)
    _replace(copy, site.weight, rounded)
    _replace(copy, site.scale, (numpy_helper.to_array(tensors[site.scale]) * wider).astype(np.float32))
    if site.bias is not None:  # its unit is the product of both scales
        bias = numpy_helper.to_array(tensors[site.bias])
        limits = np.iinfo(np.int32)
        _replace(copy, site.bias, np.clip(np.round(bias / wider), limits.min, limits.max).astype(np.int32))
    if site.bias_scale is not None:
        _replace(copy, site.bias_scale, (numpy_helper.to_array(tensors[site.bias_scale]) * wider).astype(np.float32))
    return copy


def _replace(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
