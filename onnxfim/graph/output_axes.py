"""Which axis of an output holds the classes, and which the batch: what the graph's last nodes, its names and its shapes say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from onnxfim.graph.graph import Dimension, Graph, Node

#: Where each axis of an output lies in a value before it; None for an axis that is made from several, or by none.
AxisMap: TypeAlias = tuple[int | None, ...]

_CLASSES = re.compile(
    r"(^|[_ -])(num_?|n_?)?(class(es)?|labels?|categor(y|ies)|vocab(ulary)?(_?size)?|logits?)([_ -]|$)", re.IGNORECASE
)
_BATCH = re.compile(r"(^|[_ -])(n|b|bs|batch(_?size)?)([_ -]|$)", re.IGNORECASE)
_PRODUCTS = {  # operator: the place of the factor that holds the weights
    "MatMul": 1, "Gemm": 1, "MatMulInteger": 1, "QLinearMatMul": 3, "com.microsoft.FusedMatMul": 1, "com.microsoft.FusedGemm": 1,
    "com.microsoft.QGemm": 3, "com.microsoft.MatMulNBits": 1, "com.microsoft.DynamicQuantizeMatMul": 1,
    "com.microsoft.MatMulIntegerToFloat": 1, "com.microsoft.MatMulBnb4": 1,
}  # fmt: skip
_CONVOLUTIONS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3, "com.microsoft.FusedConv": 1}
_RECURRENT = ("LSTM", "GRU", "RNN")
_DECIDING = ("Softmax", "LogSoftmax", "Hardmax", "ArgMax")
_KEEPS_AXES = frozenset({
    "Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear", "Clip", "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid",
    "Tanh", "Exp", "Log", "Neg", "Abs", "Sqrt", "Reciprocal", "Softplus", "Elu", "Selu", "Add", "Sub", "Mul", "Div", "Max", "Min",
    "Sum", "Mean", "Pow", "Where", "BatchNormalization", "InstanceNormalization", "LayerNormalization", "Resize", "Upsample",
    "Concat", "Slice", "Pad", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Softmax", "LogSoftmax", "Round",
    "Floor", "Ceil", "Sign", "Expand", "Tile", "LpNormalization", "Erf", "Gelu", "HardSwish", "DynamicQuantizeLinear",
    "com.microsoft.QuantizeLinear", "com.microsoft.DequantizeLinear",
})  # fmt: skip
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceLogSumExp", "ReduceL2", "ReduceL1", "ArgMax")


@dataclass(frozen=True)
class Clue:
    """An axis of the output that may hold the classes, and what says so; ``firm`` where nothing weaker is asked any more."""

    axis: int
    how: str
    firm: bool


def class_clues(graph: Graph, output: str, rank: int) -> tuple[Clue, ...]:
    """What the graph says of the class axis of an output of ``rank`` axes, the firmest first.

    A Softmax, LogSoftmax or ArgMax on the way to the output, or one that reads it, sums over the classes. Names of axes come
    next, then the last layer: a product with weights makes the classes its last axis, a convolution its second.
    """
    deciding, layer = [], None
    name, axes = output, _all(rank)
    varying = _varying(graph)
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        for reader in graph.consumers.get(name, ()):
            if reader.op in _DECIDING and reader.inputs[0] == name:
                deciding.append(_decides(graph, reader, axes))
        node = graph.producers.get(name)
        if node is None:
            break
        if node.op in _DECIDING[:3]:
            deciding.append(_decides(graph, node, axes))
        layer = _layer_axis(graph, node, axes, varying)
        if layer is not None:
            break
        step = back(graph, node, axes, varying)
        if step is None:
            break
        name, axes = step
    found = [Clue(*d, firm=True) for d in deciding if d is not None and d[0] != 0]
    found += _named(graph, output, rank)
    return (*found, *([Clue(*layer, firm=False)] if layer is not None else []))


def _all(rank: int) -> AxisMap:
    return tuple(range(rank))


def named_axes(shape: Sequence[Dimension] | None, words: Literal["classes", "batch"]) -> tuple[int, ...]:
    """AxisMap whose symbolic dimension is called like the ``classes`` or the ``batch``."""
    pattern = {"classes": _CLASSES, "batch": _BATCH}[words]
    return tuple(k for k, n in enumerate(shape or ()) if isinstance(n, str) and pattern.search(n))


def open_axes(graph: Graph, output: str) -> tuple[int, ...]:
    """AxisMap of the output whose length the file leaves open, or names after a position: the classes are as many in every call."""
    shape = next((o.shape for o in graph.outputs if o.name == output), None) or graph.shapes.get(output) or ()
    return tuple(k for k, n in enumerate(shape) if not isinstance(n, int) and k not in named_axes(shape, "classes"))


def input_batch_axis(graph: Graph, input_name: str) -> tuple[int, str]:
    """The axis of an input that holds the batch, and how that is known: the first, unless an LSTM, names or others deny it."""
    shape = next((i.shape for i in graph.inputs if i.name == input_name), None)
    name = input_name
    while shape is not None and len(shape) == 3 and len(readers := graph.consumers.get(name, ())) == 1:
        reader = readers[0]
        if reader.op in _RECURRENT and reader.inputs[0] == name:
            told = f"{reader.op} (node {reader.label!r}) reads it with the time first"
            return (0, "the first axis") if reader.attributes.get("layout") == 1 else (1, told)
        if reader.op not in ("Identity", "Cast", "Dropout"):
            break
        name = reader.outputs[0]
    named = named_axes(shape, "batch")
    if named and 0 not in named:
        return named[0], f"its axis {named[0]} is called {(shape or ())[named[0]]!r}"
    if shape and isinstance(shape[0], int) and shape[0] > 1:  # such as the states of layers, whose first axis counts them
        output = graph.outputs[0].shape if graph.outputs else None
        for other in graph.inputs:
            first = other.shape[0] if other.shape and other.name != input_name else None
            fixed = first is not None and first != shape[0] and output is not None and output[:1] == (first,)
            if (isinstance(first, str) or fixed) and shape[1:].count(first) == 1:
                return shape.index(first, 1), f"its length there is {first}, as on the first axis of {other.name!r}"
    return 0, "the first axis"


def back(graph: Graph, node: Node, axes: AxisMap, varying: frozenset[str] | None = None) -> tuple[str, AxisMap] | None:
    """The value that ``node`` keeps the axes of, and where they lie in it; None where the node makes axes of its own."""
    if not node.inputs:
        return None
    source = node.inputs[0]
    before, after = graph.shapes.get(source), graph.shapes.get(node.outputs[0])
    if node.op == "Transpose":
        perm = node.attributes.get("perm")
        order = tuple(int(p) for p in perm) if isinstance(perm, tuple) else tuple(range(len(axes)))[::-1]
        if perm is None and before is not None:
            order = tuple(range(len(before)))[::-1]
        return source, tuple(None if a is None or a >= len(order) else order[a] for a in axes)
    if node.op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "ai.onnx.ml.ZipMap"):
        return (source, _regrouped(before, after, axes)) if before is not None and after is not None else None
    if node.op in _REDUCTIONS:
        return _reduced(graph, node, axes)
    if node.op in _KEEPS_AXES:
        fitting = [i for i in node.inputs if i and (varying is None or i in varying)] or [source]
        wide = [i for i in fitting if after is None or (s := graph.shapes.get(i)) is None or len(s) == len(after)]
        return (wide or fitting)[0], axes
    kept = before is not None and before == after and all(n is not None for n in before)
    return (source, axes) if kept and node.op not in (*_PRODUCTS, *_CONVOLUTIONS, *_RECURRENT, "Einsum") else None


def softmax_axis(graph: Graph, node: Node) -> int:
    """The axis attribute of a softmax, with the default of its version."""
    axis = node.attributes.get("axis", -1 if graph.opsets.get("ai.onnx", 0) >= 13 else 1)
    return axis if isinstance(axis, int) else -1


def _decides(graph: Graph, node: Node, axes: AxisMap) -> tuple[int, str] | None:
    """The output's axis that a Softmax or ArgMax sums over, and in words."""
    axis = softmax_axis(graph, node) if node.op != "ArgMax" else node.attributes.get("axis", 0)
    shape = graph.shapes.get(node.inputs[0])
    rank = len(shape) if shape is not None else len(axes)
    if not isinstance(axis, int) or rank == 0:
        return None
    axis %= rank
    joint = (
        node.op != "ArgMax" and graph.opsets.get("ai.onnx", 0) < 13 and any(n != 1 for n in (shape or (None,) * rank)[axis + 1 :])
    )
    if joint or axis not in axes:  # before set 13 a softmax runs over all axes from its own on
        return None
    return axes.index(axis), f"{node.op} (node {node.label!r}) runs over it"


def _layer_axis(graph: Graph, node: Node, axes: AxisMap, varying: frozenset[str]) -> tuple[int, str] | None:
    """The output's axis that the weights of a layer make, and in words."""
    rank = len(graph.shapes.get(node.outputs[0]) or axes)
    made = None
    if node.op in _PRODUCTS and len(node.inputs) > _PRODUCTS[node.op]:
        first, second = node.inputs[0] in varying, node.inputs[_PRODUCTS[node.op]] in varying
        made = None if first == second else rank - 1 if first else rank - 2
    elif node.op in _CONVOLUTIONS:
        made = 1
    elif node.op in _RECURRENT:
        made = rank - 1
    elif node.op == "Einsum" and isinstance(equation := node.attributes.get("equation"), str) and "->" in equation:
        terms, result = equation.replace(" ", "").split("->")
        weights = [t for t, i in zip(terms.split(","), node.inputs, strict=False) if i not in varying]
        free = "".join(t for t, i in zip(terms.split(","), node.inputs, strict=False) if i in varying)
        own = [k for k, letter in enumerate(result) if letter not in free and any(letter in w for w in weights)]
        made = own[0] if len(own) == 1 else None
    if made is None or made not in axes:
        return None
    return axes.index(made), f"the weights of the last layer ({node.op}, node {node.label!r}) make it"


def _named(graph: Graph, output: str, rank: int) -> Iterator[Clue]:
    shape = next((o.shape for o in graph.outputs if o.name == output), None) or graph.shapes.get(output)
    if shape is None or len(shape) != rank:
        return
    for axis in named_axes(shape, "classes"):
        yield Clue(axis, f"it is called {shape[axis]!r}", firm=True)


def _varying(graph: Graph) -> frozenset[str]:
    """Values that depend on an input."""
    found = {i.name for i in graph.inputs}
    for node in graph.nodes:
        if node.has_subgraph or any(i in found for i in node.inputs):
            found.update(o for o in node.outputs if o)
    return frozenset(found)


Shape: TypeAlias = Sequence[Dimension]


def _regrouped(before: Shape, after: Shape, axes: AxisMap) -> AxisMap:
    """Axes through a reshape: those that are the same from the left and from the right; split or joined ones are lost."""
    place: dict[int, int] = {}
    for k in range(min(len(before), len(after))):
        if before[k] != after[k] and not (k == 0 and not (isinstance(before[0], int) and isinstance(after[0], int))):
            break
        place[k] = k
    for k in range(1, min(len(before), len(after)) + 1):
        a, b = len(after) - k, len(before) - k
        if after[a] != before[b] or after[a] is None or a in place or b in place.values():
            break
        place[a] = b
    ones = [k for k, n in enumerate(before) if n != 1]
    kept = [k for k, n in enumerate(after) if n != 1]
    if len(ones) == len(kept) and all(
        before[i] == after[j] or None in (before[i], after[j]) for i, j in zip(ones, kept, strict=True)
    ):
        place = {**place, **dict(zip(kept, ones, strict=True))}  # only axes of length one came or went
    return tuple(None if a is None else place.get(a) for a in axes)


def _reduced(graph: Graph, node: Node, axes: AxisMap) -> tuple[str, AxisMap] | None:
    """AxisMap through a reduction that drops some."""
    if node.attributes.get("keepdims", 1) == 1:
        return node.inputs[0], axes
    shape = graph.shapes.get(node.inputs[0])
    given: object = node.attributes.get("axes", node.attributes.get("axis"))
    if given is None and len(node.inputs) > 1:
        constant = graph.constant(node.inputs[1])
        given = None if constant is None else tuple(int(a) for a in np.ravel(constant))
    if shape is None or given is None or isinstance(given, (str, float)):
        return None
    dropped = {int(a) % len(shape) for a in np.atleast_1d(np.asarray(given)).tolist()}
    left = [k for k in range(len(shape)) if k not in dropped]
    return node.inputs[0], tuple(None if a is None or a >= len(left) else left[a] for a in axes)
