"""Make a prepared graph smaller: constants in place of what computes them, no node that does nothing, names out of the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfim.graph.emitter import Emitter
from onnxfim.graph.shapes import STANDARD, Batch, Trace


def simplified(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    trace: Trace,
    ends: set[str],
    emitter: Emitter,
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Constants in place of what computes them, static Reshape targets, and nodes that do nothing taken out."""
    tensors = list(initializers)
    known = {t.name for t in tensors}
    alias: dict[str, str] = {}
    kept = []
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = alias.get(name, name)
        if node.op_type == "Constant" and node.domain in STANDARD and node.attribute[0].name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            tensors.append(tensor)
        elif all(o in trace.values for o in node.output if o) and not ends.intersection(node.output):
            tensors.extend(numpy_helper.from_array(trace.values[o], o) for o in node.output if o and o not in known)
        elif _idle(node, trace) and node.output[0] not in ends:
            alias[node.output[0]] = node.input[0]
        else:
            _settle_target(node, trace, emitter)
            kept.append(node)
    return kept, [*tensors, *(c for c in emitter.constants if c.name not in {t.name for t in tensors})]


def _idle(node: onnx.NodeProto, trace: Trace) -> bool:
    """True for a node that hands its first input on unchanged."""
    if node.domain not in STANDARD or any(node.output[1:]):
        return False
    if node.op_type == "Identity":
        return True
    x, y = node.input[0] if node.input else "", node.output[0]
    if x not in trace.shapes or y not in trace.shapes:
        return False
    if node.op_type in ("Cast", "CastLike"):
        return trace.elem[x] == trace.elem[y]
    if node.op_type == "Transpose":
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        return perm == sorted(perm) if perm is not None else len(trace.shapes[x]) < 2
    return node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand") and trace.shapes[x] == trace.shapes[y]


def _settle_target(node: onnx.NodeProto, trace: Trace, emitter: Emitter) -> None:
    """Give a Reshape whose target holds the batch a constant one with −1 there."""
    shape = trace.shapes.get(node.output[0]) if node.op_type == "Reshape" and node.domain in STANDARD else None
    if shape is None or node.input[1] in trace.values or sum(isinstance(d, Batch) for d in shape) != 1:
        return
    if 0 not in shape:
        node.input[1] = emitter.constant(np.asarray([-1 if isinstance(d, Batch) else d for d in shape], np.int64))


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename the values that a node and its subgraphs read and write."""
    for values in (node.input, node.output):
        for i, name in enumerate(values):
            values[i] = names.get(name, name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else [])):
            for inner in graph.node:
                rename(inner, names)
            for output in graph.output:
                output.name = names.get(output.name, output.name)
