"""Writes out the first operators of a file that take whole numbers themselves, so that a float value stands behind the input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfim.graph.emitter import Emitter
from onnxfim.graph.graph import Graph, Node

_MS = "com.microsoft."
# Operators of integer arithmetic, with the places of their first operand's scale (None: it is 1) and zero point.
_QUANTISED: dict[str, tuple[int | None, int]] = {
    "QLinearConv": (1, 2), "QLinearMatMul": (1, 2), "ConvInteger": (None, 2), "MatMulInteger": (None, 2),
    f"{_MS}QLinearAdd": (1, 2), f"{_MS}QLinearMul": (1, 2), f"{_MS}QLinearAveragePool": (1, 2),
    f"{_MS}QLinearGlobalAveragePool": (1, 2), f"{_MS}QLinearConv": (1, 2), f"{_MS}QGemm": (1, 2),
    f"{_MS}MatMulIntegerToFloat": (2, 4),
}  # fmt: skip
# Operators of the domain of classical models, which take floats as well and give floats.
_EITHER = frozenset({
    "ai.onnx.ml.Scaler", "ai.onnx.ml.Normalizer", "ai.onnx.ml.LinearClassifier", "ai.onnx.ml.LinearRegressor",
    "ai.onnx.ml.SVMClassifier", "ai.onnx.ml.SVMRegressor",
})  # fmt: skip
EMBEDDING = f"{_MS}EmbedLayerNormalization"
_WHOLE = (TensorProto.INT32, TensorProto.INT64)  # which an embedding takes
# Operators that only move whole numbers: what they give is the input still.
_MOVING = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice"})


def with_float_front(model: onnx.ModelProto, input_name: str) -> onnx.ModelProto | None:
    """A copy whose operators that compute with the input's whole numbers take them as floats first; None where there are none.

    Integer arithmetic gets the pair of DequantizeLinear and QuantizeLinear that it stands for, of the same scale and zero point:
    what comes out of it is what went in. Classical models, which take either, get a Cast. An EmbedLayerNormalization is written as
    the sum of its embeddings and its LayerNormalization.
    """
    graph = Graph(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = {o for n in graph.nodes for o in n.outputs} | {i.name for i in graph.inputs} | {t.name for t in graph.weights}
    emitter = Emitter(names, prefix="whole")
    reached, written, replaced = {input_name}, False, set()
    for node in graph.nodes:
        first = node.inputs[0] if node.inputs else ""
        if first not in reached:
            continue
        if node.op in _MOVING or (node.op == "Cast" and node.attributes.get("to") in _WHOLE):
            reached.update(node.outputs[:1])
        elif node.op == EMBEDDING:
            write = _embedding(node, graph.opsets.get("ai.onnx", 1), emitter)
            if write is not None:
                write()
                replaced.add(node.index)
                written = True
        elif (real := _real(node, first, emitter)) is not None:
            copy.graph.node[node.index].input[0] = real
            written = True
    if not written:
        return None
    nodes = [n for k, n in enumerate(copy.graph.node) if k not in replaced]
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (*emitter.nodes, *nodes)]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    copy.graph.initializer.extend(emitter.constants)
    if not any(o.domain in ("", "ai.onnx") for o in copy.opset_import):
        copy.opset_import.append(helper.make_opsetid("", 17))
    ordered = [copy.graph.node[n.index] for n in Graph(copy).nodes]
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in ordered]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def _real(node: Node, value: str, emitter: Emitter) -> str | None:
    """What a node reads in place of the whole numbers ``value``, their float written before it; None for any other node."""
    if node.op in _EITHER:
        return emitter.emit("Cast", value, to=int(TensorProto.FLOAT))
    if node.op not in _QUANTISED:
        return None
    scale_at, zero_at = _QUANTISED[node.op]
    scale = emitter.constant(np.float32(1)) if scale_at is None else node.inputs[scale_at]
    zero = node.inputs[zero_at] if len(node.inputs) > zero_at and node.inputs[zero_at] else emitter.constant(np.uint8(0))
    real = emitter.emit("DequantizeLinear", value, scale, zero)
    return emitter.emit("QuantizeLinear", real, scale, zero)


def _embedding(node: Node, opset: int, emitter: Emitter) -> Callable[[], None] | None:
    """Writes an EmbedLayerNormalization out; None where it lacks what that takes."""
    ids, segments, words, positions, kinds, gamma, beta, mask, places = (*node.inputs, *[""] * 9)[:9]
    outputs = (*node.outputs, "", "")[:3]
    if not words or not positions or not gamma or not beta:
        return None

    def write() -> None:
        total = emitter.emit("Gather", words, ids)
        if places:
            at = emitter.emit("Gather", positions, places)
        else:
            length = emitter.emit("Gather", emitter.emit("Shape", total), emitter.operand([1], np.dtype(np.int64)))
            at = emitter.emit("Slice", positions, emitter.operand([0], np.dtype(np.int64)), length)
        total = emitter.emit("Add", total, at)
        if segments and kinds:
            total = emitter.emit("Add", total, emitter.emit("Gather", kinds, segments))
        epsilon = node.attributes.get("epsilon", 1e-12)
        assert isinstance(epsilon, float)
        emitter.nodes.append(
            helper.make_node("LayerNormalization", [total, gamma, beta], [outputs[0]], name=node.name, axis=-1, epsilon=epsilon)
        )
        if outputs[2]:
            emitter.nodes.append(helper.make_node("Identity", [total], [outputs[2]]))
        if outputs[1] and mask:  # how many tokens each sample has
            axes = emitter.operand([1], np.dtype(np.int64)) if opset >= 13 else ""
            count = emitter.emit("ReduceSum", *filter(None, (mask, axes)), axes=None if axes else [1], keepdims=0)
            emitter.nodes.append(helper.make_node("Cast", [count], [outputs[1]], to=TensorProto.INT32))
        elif outputs[1]:  # zero of each
            size = emitter.emit("Gather", emitter.emit("Shape", total), emitter.operand([0], np.dtype(np.int64)))
            zeros = helper.make_tensor("value", TensorProto.INT32, [1], [0])
            emitter.nodes.append(helper.make_node("ConstantOfShape", [size], [outputs[1]], value=zeros))

    return write
