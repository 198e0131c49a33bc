"""What stands at the two ends of a graph: the input's normalisation and quantiser, the output's last activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto

from onnxfim.graph.graph import Graph, Node

Array: TypeAlias = np.ndarray[Any, Any]

# Operators between the last arithmetic and the output that change no value.
_TRANSPARENT = frozenset({"Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout", "ai.onnx.ml.ZipMap"})
_QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_KINDS = {"Softmax": "probabilities", "LogSoftmax": "logits", "Sigmoid": "sigmoid"}


@dataclass(frozen=True)
class Normalisation:
    """An affine map of the input found in the graph's first nodes: ``(x − mean) / std`` per channel, in graph order ``nodes``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """What the graph does last.

    ``kind`` of the outputs, the ``node`` that makes it, and the value before it, which holds the ``logits``; None where the
    last nodes make no kind of their own. ``class_axis`` is the output's axis of classes where that is not the second.
    """

    kind: str = "logits"
    node: str | None = None
    logits: str | None = None
    class_axis: int | None = None


def ending(graph: Graph, output: str) -> Ending:
    """What kind of output the graph's last nodes make, as far as they say it.

    A Softmax or Sigmoid directly before the output (through casts, reshapes and quantisation) makes probabilities; the value
    before it holds the logits. Log-probabilities are logits, and the value before the LogSoftmax holds them as well: a
    constant added to all of them changes nothing. A softmax over the batch is no such end.
    """
    name = output
    while (node := graph.producers.get(name)) is not None and node.inputs:
        if node.op in _KINDS:
            axis = None if node.op == "Sigmoid" else _softmax_axis(graph, node)
            if axis == 0:
                break
            return Ending(_KINDS[node.op], node.label, node.inputs[0], _class_axis(graph, axis, node.inputs[0], output))
        if node.op not in _TRANSPARENT | _QUANTISING or (node.op == "Cast" and node.attributes.get("to") not in _FLOATS):
            break
        name = node.inputs[0]
    return Ending()


def _softmax_axis(graph: Graph, node: Node) -> int:
    axis = node.attributes.get("axis", -1 if graph.opsets.get("ai.onnx", 0) >= 13 else 1)
    return axis if isinstance(axis, int) else -1


def _class_axis(graph: Graph, axis: int | None, logits: str, output: str) -> int | None:
    """The axis that the final softmax sums over, where the output still has it and it is not the second."""
    if axis is None or axis == 1:
        return None
    before, after = graph.shapes.get(logits), graph.shapes.get(output)
    if before is None or after is None or len(before) != len(after):
        return None
    return axis % len(after) if axis % len(after) > 1 else None


def normalisation(graph: Graph, input_name: str) -> Normalisation | None:
    """The affine map per channel in the graph's first nodes (Sub, Add, Mul, Div with constants), or None."""
    scale, shift = np.ones(1), np.zeros(1)
    nodes: list[str] = []
    name = input_name
    while True:
        readers = graph.consumers.get(name, ())
        if len(readers) != 1:
            break
        step = _affine_step(graph, readers[0], name)
        if step is None:
            if readers[0].op in ("Cast", "Identity"):
                name = readers[0].outputs[0]
                continue
            break
        a, b = step
        scale, shift = a * scale, a * shift + b
        nodes.append(readers[0].label)
        name = readers[0].outputs[0]
    if not nodes or not np.all(scale != 0) or not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    std = 1.0 / np.broadcast_to(scale, np.broadcast_shapes(scale.shape, shift.shape))
    mean = -shift * std
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)), tuple(nodes))


def _affine_step(graph: Graph, node: Node, name: str) -> tuple[Array, Array] | None:
    """(a, b) of ``a·x + b`` per channel where ``node`` is one, else None."""
    if node.op not in ("Sub", "Add", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first = node.inputs[0] == name
    constant = graph.constant(node.inputs[1 if first else 0])
    if constant is None or constant.size > 4096 or sum(n > 1 for n in constant.shape) > 1 or constant.dtype.kind != "f":
        return None
    c = constant.astype(np.float64).ravel()
    one, zero = np.ones_like(c), np.zeros_like(c)
    if node.op == "Add":
        return one, c
    if node.op == "Mul":
        return c, zero
    if node.op == "Sub":
        return (one, -c) if first else (-one, c)
    return (1.0 / c, zero) if first and np.all(c != 0) else None


def input_level(graph: Graph, input_name: str) -> float | None:
    """Spacing of the input levels where the graph quantises its input first, else None."""
    found = _input_quantiser(graph, input_name)
    return None if found is None else found[1]


def input_limits(graph: Graph, input_name: str) -> tuple[float, float] | None:
    """Smallest and largest input that the graph's first QuantizeLinear tells apart (it clips beyond them), else None."""
    found = _input_quantiser(graph, input_name)
    if found is None:
        return None
    node, scale = found
    zero = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(1, np.uint8)
    if zero is None or zero.size != 1 or zero.dtype.kind not in "iu":
        return None
    levels = np.iinfo(zero.dtype)
    offset = int(zero.ravel()[0])
    return (levels.min - offset) * scale, (levels.max - offset) * scale


_MOVED = ("Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")


def _input_quantiser(graph: Graph, input_name: str) -> tuple[Node, float] | None:
    """The QuantizeLinear that reads the input, moved or as it is, with its scale, where it has one for all values."""
    for node in graph.consumers.get(input_name, ()):
        if node.op == "QuantizeLinear":
            scale = graph.constant(node.inputs[1])
            if scale is not None and scale.size == 1:
                return node, float(scale.ravel()[0])
        elif node.op in _MOVED and node.inputs[0] == input_name:
            found = _input_quantiser(graph, node.outputs[0])
            if found is not None:
                return found
    return None
