"""A copy whose averages over all positions are convolutions, for tools that know few operators."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfim.graph.graph import Graph, Node

_MOST = 2**22  # weights of a convolution that mixes no channels; above that it is one by groups, which fewer tools read


def without_averages(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The copy with each mean over all positions of every channel as a convolution whose kernel covers them; None without any.

    Args:
        model: A model whose shapes are known, of one row; it is not changed.
    """
    graph = Graph(model)
    means = {n.index: shape for n in graph.nodes if (shape := _averaged(graph, n)) is not None}
    if not means:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = []
    for index, node in enumerate(model.graph.node):
        if index not in means:
            nodes.append(node)
            continue
        _, channels, *places = means[index]
        name, out = f"{node.output[0]}__mean", node.output[0]
        groups = 1 if channels * channels * int(np.prod(places)) <= _MOST else channels
        kernel = np.zeros((channels, channels // groups, *places), np.float32)
        at = np.arange(channels)
        kernel[at, at if groups == 1 else 0] = 1.0 / np.prod(places)
        copy.graph.initializer.append(numpy_helper.from_array(kernel, f"{name}__kernel"))
        keeps = node.op_type == "GlobalAveragePool" or next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        made = out if keeps else f"{name}__kept"
        nodes.append(helper.make_node("Conv", [node.input[0], f"{name}__kernel"], [made], name=name, kernel_shape=places, group=groups))
        if not keeps:
            nodes.append(helper.make_node("Flatten", [made], [out], name=f"{name}__flat", axis=1))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _averaged(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """The shape of what a node takes the mean of, where that is over all positions of each channel, in float32."""
    if node.op not in ("ReduceMean", "GlobalAveragePool"):
        return None
    shape = graph.shapes.get(node.inputs[0])
    if shape is None or len(shape) < 3 or any(not isinstance(n, int) or n < 1 for n in shape) or shape[0] != 1:
        return None
    if node.op == "ReduceMean":
        axes = node.attributes.get("axes")
        if axes is None and len(node.inputs) > 1 and node.inputs[1]:
            axes = graph.constant(node.inputs[1])
        if axes is None or isinstance(axes, (str, float, int)):
            return None
        if sorted(int(a) % len(shape) for a in np.ravel(np.asarray(axes))) != list(range(2, len(shape))):
            return None
    return tuple(int(n) for n in shape)  # type: ignore[arg-type]
