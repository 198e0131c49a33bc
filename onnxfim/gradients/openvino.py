"""Derivative graphs in the form that OpenVINO computes rightly: the same function, written otherwise.

Both were seen with OpenVINO 2025.4.1 in onnxruntime-openvino 1.24.1:

- Its CPU plug-in keeps a weight in the order that a kernel wants under a key of format, size and address. A convolution and a
  transposed one, or ``x W`` and ``x Wᵀ``, that read one square weight have the same key, and the second takes what was packed for
  the first: the result is wrong by its own size. A forward pass hardly ever reads a weight both ways; a derivative graph does at
  every strided convolution and dense layer.
- It takes no LayerNormalization that returns its mean and deviation, which the derivative reads.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Operators that pack their weights, and how: by the position of the weight among the inputs, and what turns it.
_PACKING = ("Conv", "ConvTranspose", "MatMul", "Gemm")
#: Operators that only pass a value on, so that the runtime leaves one constant of the two.
_PASSING = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
_AXES_AS_INPUT = 18  # opset from which ReduceMean takes its axes as an input


def for_openvino(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy where something had to be written otherwise."""
    return unshared(own_statistics(model))


def unshared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy in which no two ways of reading a weight read the same constant; it computes the same bits.

    What is added are two changes of sign, which every runtime works out once at load time.
    """
    constant = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    origin = {name: name for name in constant}
    first: dict[str, tuple[str, ...]] = {}  # the way in which the constant itself is read
    apart: dict[tuple[str, tuple[str, ...]], str] = {}  # values for the other ways, by name and way
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Constant" or (node.input and all(i in constant for i in node.input if i)):
            constant.update(o for o in node.output if o)
            passes = node.op_type in _PASSING
            origin.update({o: origin.get(node.input[0], node.input[0]) if passes else o for o in node.output if o})
        if node.op_type not in _PACKING or node.domain not in ("", "ai.onnx"):
            nodes.append(node)
            continue
        for position, name in enumerate(node.input[:2]):
            if name not in constant:
                continue
            way = _way(node, position)
            if first.setdefault(origin[name], way) == way:
                continue
            key = (name, way)
            if key not in apart:
                apart[key] = f"{name}/apart{len(apart)}"
                between = f"{apart[key]}/negative"
                nodes.append(helper.make_node("Neg", [name], [between], name=between))
                nodes.append(helper.make_node("Neg", [between], [apart[key]], name=apart[key]))
            node = _reading(node, position, apart[key])
        nodes.append(node)
    return _with_nodes(model, nodes) if apart else model


def own_statistics(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy whose LayerNormalization nodes return one value; what read the others gets it from nodes of its own."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    known = {t.name for t in model.graph.initializer}
    tensors: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        if node.op_type != "LayerNormalization" or not any(node.output[1:]) or axis >= 0 or opset < _AXES_AS_INPUT:
            nodes.append(node)
            continue
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        axes, least = f"normalised/axes{axis}", f"normalised/epsilon{epsilon}"
        tensors[axes] = numpy_helper.from_array(np.arange(axis, 0), axes)
        tensors[least] = numpy_helper.from_array(np.float32(epsilon), least)
        nodes += [_with_one_output(node), *_statistics(node, axes, least)]
    if not tensors:
        return model
    copy = _with_nodes(model, nodes)
    copy.graph.initializer.extend(t for name, t in tensors.items() if name not in known)
    return copy


def _with_one_output(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.output[1:]
    return copy


def _statistics(node: onnx.NodeProto, axes: str, least: str) -> list[onnx.NodeProto]:
    """Nodes that give the mean and the reciprocal deviation that a LayerNormalization returns, in float32."""
    mean, deviation = (*node.output[1:], "", "")[:2]
    own = f"{node.output[0]}/"
    x, mean = f"{own}x", mean or f"{own}mean"
    written = [
        helper.make_node("Cast", [node.input[0]], [x], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", [x, axes], [mean], keepdims=1),
    ]
    if deviation:
        written += [
            helper.make_node("Sub", [x, mean], [f"{own}centred"]),
            helper.make_node("Mul", [f"{own}centred", f"{own}centred"], [f"{own}square"]),
            helper.make_node("ReduceMean", [f"{own}square", axes], [f"{own}variance"], keepdims=1),
            helper.make_node("Add", [f"{own}variance", least], [f"{own}safe"]),
            helper.make_node("Sqrt", [f"{own}safe"], [f"{own}deviation"]),
            helper.make_node("Reciprocal", [f"{own}deviation"], [deviation]),
        ]
    for made in written:
        made.name = made.output[0]
    return written


def _with_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _way(node: onnx.NodeProto, position: int) -> tuple[str, ...]:
    """What tells how a node packs the weight at a position."""
    if node.op_type in ("Conv", "ConvTranspose"):
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        return node.op_type, str(position), str(group)
    turned = any(a.name == ("transA", "transB")[position] and a.i for a in node.attribute)
    return "matrix", str(position), str(turned)


def _reading(node: onnx.NodeProto, position: int, name: str) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[position] = name
    return copy
