"""What stands at the two ends of a graph: the input's normalisation and quantiser, the output's last activation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto

from onnxfim.graph.graph import Graph, Node
from onnxfim.graph.making_probabilities import classical_kind, one_and, softmax_written_out
from onnxfim.graph.output_axes import AxisMap, back, softmax_axis

Array: TypeAlias = np.ndarray[Any, Any]

#: Operators between the last arithmetic and the output that change no value.
TRANSPARENT = frozenset({
    "Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout", "Transpose", "ai.onnx.ml.ZipMap",
})  # fmt: skip
# Some tools write types that the graph's operator set does not know by operators of the runtime's domain, of the same meaning.
_QUANTISERS = frozenset({"QuantizeLinear", "com.microsoft.QuantizeLinear"})
_DEQUANTISERS = frozenset({"DequantizeLinear", "com.microsoft.DequantizeLinear"})
_QUANTISING = _QUANTISERS | _DEQUANTISERS
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_KINDS = {"Softmax": "probabilities", "LogSoftmax": "logits", "Sigmoid": "sigmoid"}
#: Operators after which any number is as good as another: outputs of them are scores, whatever their sign.
LAYERS = frozenset({
    "MatMul", "Gemm", "Conv", "MatMulInteger", "QLinearMatMul", "QLinearConv", "BatchNormalization", "LSTM", "GRU",
    "RNN", "ConvTranspose", "com.microsoft.FusedMatMul", "com.microsoft.QGemm", "com.microsoft.MatMulNBits", "Einsum",
    "com.microsoft.DynamicQuantizeMatMul", "com.microsoft.MatMulIntegerToFloat", "ai.onnx.ml.LinearClassifier",
    "ai.onnx.ml.LinearRegressor", "ai.onnx.ml.SVMClassifier", "ai.onnx.ml.SVMRegressor",
})  # fmt: skip


@dataclass(frozen=True)
class Normalisation:
    """An affine map of the input found in the graph's first nodes: ``(x − mean) / std`` per channel, in graph order ``nodes``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """What the graph does last.

    Attributes:
        kind: Of the outputs.
        node: Makes them; None where the last nodes make no kind of their own.
        logits: The value before that node; None where it does not tell the outputs alone.
        class_axis: The output's axis of classes that the node says, where that is not the second.
        axes: Where each axis of the output lies in ``logits``; None where a reshape lost one, or the output's rank is not known.
        total: What the probabilities were multiplied by (100 for percent).
        rounding: Spacing of the outputs' levels where they are quantised, else 0.
        clipped: Range that they are clipped to after the node, or None.
        linear: Whether the last arithmetic makes scores of any sign; None where there is no graph to tell it.
        concatenates: Whether the output is several values side by side.
        normalised: The node that divides each row by its length, where that is the last; None where it is not.
    """

    kind: str = "logits"
    node: str | None = None
    logits: str | None = None
    class_axis: int | None = None
    axes: AxisMap | None = None
    total: float = 1.0
    rounding: float = 0.0
    clipped: tuple[float, float] | None = None
    linear: bool | None = None
    concatenates: bool = False
    normalised: str | None = None


def ending(graph: Graph, output: str) -> Ending:
    """What kind of output the graph's last nodes make, as far as they say it.

    A Softmax or Sigmoid before the output makes probabilities, through casts, moves of axes, quantisation, a constant factor and
    a Clip; the value before it holds the logits, unless a Clip stands between. Log-probabilities are logits, and the value before
    the LogSoftmax holds them as well: a constant added to all of them changes nothing. Exp after it makes probabilities. A softmax
    over the batch is no such end. Both are seen where they are written out, and where a node of a classical model makes them.
    """
    name, total, rounding, clipped, exponential, divided = output, 1.0, 0.0, None, False, False
    shape = graph.shapes.get(output)
    axes: AxisMap | None = None if shape is None else tuple(range(len(shape)))
    while (node := graph.producers.get(name)) is not None and node.inputs:
        if node.op in _KINDS and (not exponential or node.op == "LogSoftmax") and not (divided and node.op != "Softmax"):
            axis = None if node.op == "Sigmoid" else softmax_axis(graph, node)
            if _over_the_batch(graph, node, axis):
                break
            kind = "probabilities" if exponential else _KINDS[node.op]
            logits = node.inputs[0] if clipped is None and (total == 1.0 or exponential or node.op == "Softmax") else None
            return Ending(
                kind, node.label, logits, _class_axis(graph, axis, node.inputs[0], axes), axes, total, rounding, clipped
            )  # fmt: skip
        if exponential:
            break
        made = _made_otherwise(graph, node, name)
        if made is not None and not (divided and made[0] == _KINDS["Sigmoid"]):
            kind, before = made
            logits = before if clipped is None and (total == 1.0 or kind == _KINDS["Softmax"]) else None
            return Ending(kind, node.label, logits, None, axes, total, rounding, clipped)
        if node.op == "Exp":
            exponential = True
        elif node.op == "ai.onnx.ml.Normalizer" and node.attributes.get("norm") == "L1" and clipped is None:
            divided, total = True, 1.0  # by their sum, which does not change what sums to 1
        elif node.op == "Clip":
            clipped = _clip_range(graph, node)
        elif node.op in ("Mul", "Div"):
            factor = _factor(graph, node)
            if factor is None:
                break
            name, total = factor[0], total * factor[1]
            continue
        elif node.op not in TRANSPARENT | _QUANTISING or (node.op == "Cast" and node.attributes.get("to") not in _FLOATS):
            break
        elif node.op in _DEQUANTISERS and (scale := graph.constant(node.inputs[1])) is not None:
            rounding = max(rounding, float(np.max(np.abs(scale), initial=0.0)) * total)
        step = None if axes is None or node.op in _QUANTISING else back(graph, node, axes)
        axes = axes if node.op in _QUANTISING else None if step is None else step[1]
        name = node.inputs[0]
    last = graph.producers.get(name)
    return Ending(
        linear=not exponential and _is_linear(graph, last), concatenates=last is not None and last.op == "Concat",
        normalised=None if last is None or exponential else _divides_by_length(graph, last),
    )  # fmt: skip


def _divides_by_length(graph: Graph, node: Node) -> str | None:
    """The node, where it divides a value by its own length (L2 norm)."""
    if node.op == "LpNormalization" and node.attributes.get("p", 2) == 2:
        return node.label
    if node.op not in ("Div", "Mul") or len(node.inputs) != 2:
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        if _is_length(graph, other, value, inverse=node.op == "Mul"):
            return node.label
        if node.op == "Div":
            break
    return None


def _is_length(graph: Graph, name: str, value: str, *, inverse: bool) -> bool:
    """Whether ``name`` holds the length of ``value`` along an axis, or its ``inverse``; a least one and repeats do not matter."""
    squared = False
    for _ in range(12):
        node = graph.producers.get(name)
        if node is None or not node.inputs:
            return False
        if inverse and node.op == "Reciprocal":
            inverse = False
        elif node.op == "Sqrt":
            squared = True
        elif node.op == "Pow" and (power := graph.constant(node.inputs[1])) is not None and power.size == 1:
            if abs(float(power.ravel()[0])) != 0.5 or (float(power.ravel()[0]) < 0) != inverse:
                return False
            squared, inverse = True, False
        elif node.op == "ReduceL2":
            return not squared and not inverse and node.inputs[0] == value
        elif node.op == "ReduceSumSquare":
            return squared and not inverse and node.inputs[0] == value
        elif node.op == "ReduceSum":
            square = graph.producers.get(node.inputs[0])
            return squared and not inverse and square is not None and square.op in ("Mul", "Pow") and square.inputs[0] == value
        elif node.op in ("Max", "Add"):
            rest = [i for i in node.inputs if graph.constant(i) is None]
            if len(rest) != 1:
                return False
            name = rest[0]
            continue
        elif node.op not in ("Clip", "Expand", "Unsqueeze", "Reshape", "Identity", "Cast"):
            return False
        name = node.inputs[0]
    return False


def _made_otherwise(graph: Graph, node: Node, name: str) -> tuple[str, str | None] | None:
    """The kind of what a node makes of scores without a Softmax or Sigmoid, and the scores where they are a value of the graph."""
    if node.op in ("ai.onnx.ml.LinearClassifier", "ai.onnx.ml.LinearRegressor"):
        kind = classical_kind(node) if name == node.outputs[-1] else None
        return None if kind is None else (kind, None)
    shares = softmax_written_out(graph, node)
    if shares is not None:
        return "probabilities", shares
    odds = one_and(graph, node)
    if odds is None or (exp := graph.producers.get(odds)) is None or exp.op != "Exp":
        return None
    turned = graph.producers.get(exp.inputs[0])
    if turned is not None and turned.op == "Neg":
        return "sigmoid", turned.inputs[0]
    if turned is not None and turned.op == "Mul":
        scores = [a for a, b in (turned.inputs, turned.inputs[::-1]) if (c := graph.constant(b)) is not None and (c == -1).all()]
        return "sigmoid", scores[0] if scores else None
    return "sigmoid", None


def _is_linear(graph: Graph, node: Node | None) -> bool:
    """Whether a node's results are scores: a layer with weights, or such a layer and its bias."""
    if node is not None and node.op in ("Add", "Sub"):
        rest = [i for i in node.inputs if graph.constant(i) is None]
        node = graph.producers.get(rest[0]) if len(rest) == 1 else None
    return node is not None and node.op in LAYERS


def _over_the_batch(graph: Graph, node: Node, axis: int | None) -> bool:
    shape = graph.shapes.get(node.inputs[0])
    return axis is not None and (axis == 0 or (shape is not None and len(shape) > 1 and axis % len(shape) == 0))


def _factor(graph: Graph, node: Node) -> tuple[str, float] | None:
    """The value that a Mul or Div by one positive constant scales, and the factor."""
    if len(node.inputs) != 2:
        return None
    for k, name in enumerate(node.inputs):
        constant = graph.constant(name)
        if constant is not None and constant.size == 1 and constant.dtype.kind == "f" and float(constant.ravel()[0]) > 0:
            c = float(constant.ravel()[0])
            return None if node.op == "Div" and k == 0 else (node.inputs[1 - k], c if node.op == "Mul" else 1 / c)
    return None


def _clip_range(graph: Graph, node: Node) -> tuple[float, float]:
    """Range of a Clip; infinite where an end is open or not known."""
    ends = [node.attributes.get("min"), node.attributes.get("max")]
    for k in (0, 1):
        if ends[k] is None and len(node.inputs) > k + 1 and node.inputs[k + 1]:
            value = graph.constant(node.inputs[k + 1])
            ends[k] = None if value is None or value.size != 1 else float(value.ravel()[0])
    low, high = (e if isinstance(e, (int, float)) else None for e in ends)
    return (-np.inf if low is None else float(low), np.inf if high is None else float(high))


def _class_axis(graph: Graph, axis: int | None, logits: str, axes: AxisMap | None) -> int | None:
    """The axis that the final softmax sums over, where the output still has it and it is not the second."""
    before = graph.shapes.get(logits)
    if axis is None or not before or axes is None or axis % len(before) not in axes:
        return None
    found = axes.index(axis % len(before))
    return found if found > 1 else None


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
        if a.size not in (1, scale.size) and scale.size != 1:
            break  # the file does not run, or its channels are not what they seem
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
    if constant is None or not 0 < constant.size <= 4096 or sum(n > 1 for n in constant.shape) > 1 or constant.dtype.kind != "f":
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
        if node.op in _QUANTISERS:
            scale = graph.constant(node.inputs[1])
            if scale is not None and scale.size == 1 and 0 < (size := float(scale.ravel()[0])) < math.inf:
                return node, size
        elif node.op in _MOVED and node.inputs[0] == input_name:
            found = _input_quantiser(graph, node.outputs[0])
            if found is not None:
                return found
    return None
