"""Find the value in front of a classifier's final activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import onnx

from onnxfim.errors import ModelError
from onnxfim.graph.graph import Graph, Node

Activation: TypeAlias = Literal["none", "softmax", "log_softmax", "sigmoid"]
_ACTIVATIONS: dict[str, Activation] = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_TRANSPARENT = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "ai.onnx.ml.ZipMap"})


@dataclass(frozen=True)
class Logits:
    """``name`` is the value to differentiate; the file's output is ``activation`` of it, reshaped at most."""

    name: str
    activation: Activation


def find_logits(model: onnx.ModelProto, output_name: str) -> Logits:
    """Return the logits behind an output: what enters its final Softmax, LogSoftmax or Sigmoid, else the output itself.

    Only operators that move or convert values may stand behind the activation.

    Raises:
        ModelError: the graph has no such value.
    """
    graph = Graph(model)
    name = output_name
    if name not in graph.producers and name not in {i.name for i in graph.inputs}:
        raise ModelError(f"output {name!r}: the graph has no such value; its outputs are {[o.name for o in graph.outputs]}.")
    node = graph.producers.get(name)
    while node is not None:
        if node.op in _ACTIVATIONS and _over_classes(graph, node):
            return Logits(node.inputs[0], _ACTIVATIONS[node.op])
        if node.op not in _TRANSPARENT or (node.op == "Cast" and not _to_float(node)):
            break
        node = graph.producers.get(node.inputs[0])
    return Logits(output_name, "none")


def _to_float(node: Node) -> bool:
    return node.attributes.get("to") in (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    )


def _over_classes(graph: Graph, node: Node) -> bool:
    """True unless the activation normalises over another axis than all behind the batch."""
    if node.op == "Sigmoid":
        return True
    axis = node.attributes.get("axis", -1 if graph.opsets.get("ai.onnx", 18) >= 13 else 1)
    shape = graph.shapes.get(node.inputs[0])
    rank = len(shape) if shape is not None else 2
    return (
        axis == -1
        or axis == rank - 1
        or (axis == 1 and (rank == 2 or graph.opsets.get("ai.onnx", 18) < 13))
        or (axis == 1 and shape is not None and all(d == 1 for d in shape[2:]))
    )
