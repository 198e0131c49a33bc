"""Where samples stand on kinks of a graph: elements of ReLUs, clips and maxima that a small move of the input sends both ways.

A tie counts only where it matters: equal zeros under a MaxPool that stay equal when the input moves are no kink of the function.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import helper

from onnxfim.graph.graph import reads
from onnxfim.graph.lower import op_name
from onnxfim.graph.prepare import Prepared, prepare, pruned
from onnxfim.graph.referring import array_of
from onnxfim.graph.shapes import Batch

Array: TypeAlias = np.ndarray[Any, Any]
Values: TypeAlias = Callable[[str], Array]
#: Marks the tied elements of a node's result from its inputs at the samples and at points beside them, (N, ...) bool. The points
#: beside are asked for only where something at the samples may be tied: mostly nothing is, and their pass is saved.
Tied: TypeAlias = Callable[["_Node", Values, Values], Array]

#: Two maxima are equal to rounding: sums over one constant background differ in their last bits with their order.
_EQUAL = 1e-6

_RULES: dict[str, Tied] = {}


@dataclass(frozen=True)
class KinkNode:
    """A node that may have kinks."""

    op: str
    name: str


@dataclass(frozen=True)
class _Node:
    """A node with its attributes and the weights it reads; ``rows`` of its output are of one sample."""

    proto: onnx.NodeProto
    weights: Mapping[str, Array]
    rows: int

    def given(self, index: int, values: Values) -> Array | None:
        """An input's value; None where there is none."""
        if index >= len(self.proto.input) or not self.proto.input[index]:
            return None
        name = self.proto.input[index]
        return self.weights[name] if name in self.weights else values(name)

    def value(self, index: int, values: Values) -> Array:
        """An input's value."""
        found = self.given(index, values)
        if found is None:
            raise ValueError(f"node {self.proto.name!r} has no input {index}")
        return found

    def attribute(self, name: str, default: Any = None) -> Any:
        return next((helper.get_attribute_value(a) for a in self.proto.attribute if a.name == name), default)


def _rule(*ops: str) -> Callable[[Tied], Tied]:
    def register(tied: Tied) -> Tied:
        _RULES.update(dict.fromkeys(ops, tied))
        return tied

    return register


def _at(points: Callable[[_Node, Values], Sequence[Array | float | None]]) -> Tied:
    """Kinks of an operator of one input at these values of it."""

    def tied(node: _Node, here: Values, there: Values) -> Array:
        a = node.value(0, here)
        found = np.zeros(a.shape, bool)
        for point in points(node, here):
            if point is not None and (on := a == point).any():
                found |= on & (node.value(0, there) != point)
        return found

    return tied


_rule("Relu", "Abs", "LeakyRelu", "PRelu", "Selu", "ReduceL1")(_at(lambda n, _: [0.0]))
_rule("Shrink")(_at(lambda n, _: [sign * np.float32(n.attribute("lambd", 0.5)) for sign in (-1, 1)]))
_rule("Elu")(_at(lambda n, _: [0.0] if n.attribute("alpha", 1.0) != 1.0 else []))
_rule("ThresholdedRelu")(_at(lambda n, _: [np.float32(n.attribute("alpha", 1.0))]))
_rule("Clip")(_at(lambda n, values: [n.given(1, values), n.given(2, values)]))
_rule("HardSwish")(_at(lambda n, _: [-3.0, 3.0]))
_rule("HardSigmoid")(
    _at(lambda n, _: [np.float32((end - n.attribute("beta", 0.5)) / n.attribute("alpha", 0.2)) for end in (0.0, 1.0)])
)


@_rule("Max", "Min")
def _extremum(node: _Node, here: Values, there: Values) -> Array:
    def stacked(values: Values) -> Array:
        return np.stack(np.broadcast_arrays(*(node.value(i, values) for i in range(len(node.proto.input)))))

    a = stacked(here)
    return _shared(a if op_name(node.proto) == "Max" else -a, lambda: stacked(there))


@_rule("Greater", "Less", "GreaterOrEqual", "LessOrEqual")
def _comparison(node: _Node, here: Values, there: Values) -> Array:
    even = np.asarray(node.value(0, here) == node.value(1, here))
    return even & (node.value(0, there) != node.value(1, there)) if even.any() else even


@_rule("ReduceMax", "ReduceMin")
def _reduced(node: _Node, here: Values, there: Values) -> Array:
    a = node.value(0, here)
    axes = node.given(1, here)
    kept = [i for i in range(a.ndim) if axes is not None and axes.size and i not in {int(k) % a.ndim for k in axes.reshape(-1)}]
    if axes is None or not axes.size:
        kept = [] if not node.attribute("noop_with_empty_axes", 0) else list(range(a.ndim))
    if 0 not in kept:
        return np.zeros((len(a), 1), bool)  # over the batch: of no one sample

    def first(t: Array) -> Array:
        return np.moveaxis(t, kept, range(-len(kept), 0)).reshape(-1, *(t.shape[k] for k in kept))

    return _shared(first(a if op_name(node.proto) == "ReduceMax" else -a), lambda: first(node.value(0, there)))


@_rule("MaxPool")
def _pooled(node: _Node, here: Values, there: Values) -> Array:
    a = node.value(0, here)
    y = here(node.proto.output[0])
    kernel = [int(k) for k in node.attribute("kernel_shape")]
    rank = len(kernel)
    strides = [int(s) for s in node.attribute("strides", [1] * rank)]
    dilations = [int(d) for d in node.attribute("dilations", [1] * rank)]
    begins = _begins(node, kernel, strides, dilations, a.shape[2:], y.shape[2:])
    # From the first padded cell to the last one that a window reaches.
    reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(y.shape[2:], strides, kernel, dilations, strict=True)]
    pads = [(p, max(r - p - n, 0)) for p, r, n in zip(begins, reach, a.shape[2:], strict=True)]

    def cells(t: Array, empty: float) -> Array:
        padded = np.pad(t, [(0, 0), (0, 0), *pads], constant_values=empty)
        parts = []
        for tap in np.ndindex(*kernel):
            spans: list[slice] = [slice(None), slice(None)]
            spans += [
                slice(i * d, i * d + (o - 1) * s + 1, s) for i, d, o, s in zip(tap, dilations, y.shape[2:], strides, strict=True)
            ]
            parts.append(padded[tuple(spans)])
        return np.stack(parts)

    return _shared(cells(a, -np.inf), lambda: cells(node.value(0, there), 0.0))


def _begins(
    node: _Node, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], size: Sequence[int], out: Sequence[int]
) -> list[int]:
    """Cells padded in front, for each axis."""
    automatic = node.attribute("auto_pad", b"NOTSET").decode()
    if not automatic.startswith("SAME"):
        flat = [int(p) for p in node.attribute("pads", [0] * (2 * len(kernel)))]
        return [0] * len(kernel) if automatic == "VALID" else flat[: len(kernel)]
    total = [max((o - 1) * s + (k - 1) * d + 1 - n, 0) for o, s, k, d, n in zip(out, strides, kernel, dilations, size, strict=True)]
    return [t // 2 if automatic == "SAME_UPPER" else t - t // 2 for t in total]


@_rule("TopK")
def _ordered(node: _Node, here: Values, there: Values) -> Array:
    """Results that equal the next in order, and the last where it equals what is left out."""
    a, axis = node.value(0, here), int(node.attribute("axis", -1))
    count = int(node.value(1, here).reshape(())) if node.given(1, here) is not None else a.shape[axis]
    sign = -1 if node.attribute("largest", 1) else 1
    order = np.argsort(sign * a, axis=axis, kind="stable").take(range(min(count + 1, a.shape[axis])), axis=axis)

    def close(t: Array) -> Array:
        t = np.moveaxis(np.take_along_axis(t, order, axis), axis, -1)
        first, second = t[..., :-1], t[..., 1:]
        return np.asarray(np.abs(first - second) <= _EQUAL * np.maximum(np.abs(first), np.abs(second)))

    even = close(a)
    return even & ~close(node.value(0, there)) if even.any() else even


@_rule("GridSample")
def _between_cells(node: _Node, here: Values, there: Values) -> Array:
    """Places of a linear sampling at the centre of a cell, where it goes from one pair of cells to the next, (N, results, axes)."""
    if node.attribute("mode", b"linear").decode() not in ("linear", "bilinear"):
        return np.zeros((len(here(node.proto.output[0])), 1), bool)
    size = np.array(node.value(0, here).shape[:1:-1])

    def places(values: Values) -> Array:
        grid = node.value(1, values)
        moved = (grid + 1) * (size - 1) / 2 if node.attribute("align_corners", 0) else ((grid + 1) * size - 1) / 2
        return np.asarray(moved.reshape(len(moved), -1, len(size)))

    t = places(here)
    room = _EQUAL * np.maximum(1.0, np.abs(t))
    even = np.asarray(np.abs(t - np.round(t)) <= room)
    return even & (np.abs(places(there) - t) > room) if even.any() else even


@_rule("ScatterElements", "ScatterND")
def _placed(node: _Node, here: Values, there: Values) -> Array:
    """Cells where two of what goes there are the largest, (N, ...)."""
    data, index, news = (node.value(i, here) for i in range(3))
    reduction = node.attribute("reduction", b"none").decode()
    if reduction not in ("max", "min"):
        return np.zeros((len(data), 1), bool)
    sign = 1 if reduction == "max" else -1
    cells = np.arange(data.size).reshape(data.shape)
    if op_name(node.proto) == "ScatterND":
        where = cells[tuple(np.moveaxis(index, -1, 0))].reshape(-1)
    else:
        axis = int(node.attribute("axis", 0)) % data.ndim
        own: list[Array] = list(np.indices(index.shape, sparse=True))
        own[axis] = index
        where = cells[tuple(own)].reshape(-1)

    def flat(t: Array) -> Array:
        return sign * t.reshape(-1).astype(np.float64)

    a, b = flat(data), flat(news)
    top = a.copy()
    np.maximum.at(top, where, b)
    room = _EQUAL * np.abs(top)
    first, others = a >= top - room, b >= (top - room)[where]
    count = first.astype(np.int64)
    np.add.at(count, where[others], 1)
    even = (count > 1).reshape(data.shape)
    if not even.any():
        return even
    a, b = flat(node.value(0, there)), flat(node.value(2, there))
    high, low = np.where(first, a, -np.inf), np.where(first, a, np.inf)
    np.maximum.at(high, where[others], b[others])
    np.minimum.at(low, where[others], b[others])
    with np.errstate(invalid="ignore"):
        apart = high - low > _EQUAL * np.maximum(np.abs(high), np.abs(low))
    return even & apart.reshape(data.shape)


def _shared(a: Array, beside: Callable[[], Array]) -> Array:
    """Whether entries along the first axis share the maximum of a, and are apart beside it."""
    top = a.max(axis=0)
    with np.errstate(invalid="ignore"):
        winners = a >= top - _EQUAL * np.abs(top)
    several = np.asarray(winners.sum(axis=0) > 1)
    if not several.any():
        return several
    b = beside()
    high = np.where(winners, b, -np.inf).max(axis=0)
    low = np.where(winners, b, np.inf).min(axis=0)
    apart = high - low > _EQUAL * np.maximum(np.abs(high), np.abs(low))
    return np.asarray(several & apart)


class KinkFinder:
    """Finds ties of the part of a model between an input and an output; arguments and errors as of `derivative_graph`.

    The model need not be differentiable. ``model`` returns the values that `shares` reads.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        input_name: str,
        output_name: str,
        sample_shape: Sequence[int] | None = None,
        surrogate: Literal["clip"] | None = None,
        base_dir: str | os.PathLike[str] = ".",
    ) -> None:
        graph = prepare(
            model, input_name=input_name, output_name=output_name, reserved=("x",), sample_shape=sample_shape,
            surrogate=surrogate, base_dir=base_dir,
        )  # fmt: skip
        weights = {t.name: t for t in graph.initializers}
        self.rounds = any(n.op_type in _ROUNDING for n in graph.nodes)
        # A value whose rows are not the batch's, made of all of it or turned, is tied at no sample of its own.
        rows = {name: shape[0].factor for name, shape in graph.trace.shapes.items() if shape and isinstance(shape[0], Batch)}
        found = [] if self.rounds else [n for n in _varying(graph) if op_name(n) in _RULES and n.output[0] in rows]
        self._nodes = []
        for node in found:
            read = {i: weights[i] for i in node.input if i in weights}
            self._nodes.append(_Node(node, {k: _array(t, base_dir) for k, t in read.items()}, rows[node.output[0]]))
        self.nodes = tuple(KinkNode(op_name(n.proto), n.proto.name) for n in self._nodes)
        pools = {n.proto.output[0] for n in self._nodes if op_name(n.proto) == "MaxPool"}
        computed = {i for n in self._nodes for i in n.proto.input if i and i not in n.weights}
        self._names = sorted((computed | pools) - {i.name for i in graph.inputs})
        self.model = _values(graph, self._names)
        shapes = graph.trace.shapes
        #: Memory that the values of one row take, in bytes.
        self.bytes_per_row = 4 * sum(int(np.prod([d for d in shapes.get(n, ()) if isinstance(d, int)])) for n in self._names)

    def shares(self, here: Sequence[Array], there: Callable[[], Sequence[Array]]) -> Array:
        """Share of each node's elements that are tied at each sample, (nodes, N).

        Args:
            here: What the model returns for the samples.
            there: Gives the same for points beside them; called once, and only where something may be tied at the samples.
        """
        at = dict(zip(self._names, here, strict=True))
        found: dict[str, Array] = {}

        def beside(name: str) -> Array:
            if not found:
                found.update(zip(self._names, there(), strict=True))
            return found[name]

        return np.array(
            [_mean(_RULES[op_name(n.proto)](n, at.__getitem__, beside)).reshape(-1, n.rows).mean(axis=1) for n in self._nodes]
        )


_ROUNDING = frozenset(["QuantizeLinear", "DynamicQuantizeLinear", "Round", "Floor", "Ceil"])


def _mean(tied: Array) -> Array:
    return np.asarray(tied.reshape(len(tied), -1).mean(axis=1))


def _array(tensor: onnx.TensorProto, base_dir: str | os.PathLike[str]) -> Array:
    return array_of(tensor, base_dir)


def _varying(graph: Prepared) -> list[onnx.NodeProto]:
    """Nodes that read what depends on the input."""
    varying, found = {graph.x}, []
    for node in graph.nodes:
        if not varying.isdisjoint(reads(node)):
            varying.update(o for o in node.output if o)
            found.append(node)
    return found


def _values(graph: Prepared, names: Sequence[str]) -> onnx.ModelProto:
    """A model from ``x`` to values of the graph."""
    trace = graph.trace
    rows = ["N", *(d for d in trace.shapes[graph.x][1:])]
    ends = [f"{name}/out" for name in names]
    nodes = [helper.make_node("Identity", ["x"], [graph.x], name="x"), *graph.nodes]
    nodes += [helper.make_node("Identity", [name], [end], name=end) for name, end in zip(names, ends, strict=True)]
    nodes = pruned(nodes, ends)
    for i, node in enumerate(nodes):
        node.name = f"{i}/{node.name}"
    used = {r for n in nodes for r in reads(n)}
    model = onnx.ModelProto(ir_version=graph.ir_version, producer_name="onnxfim")
    model.opset_import.extend(graph.opset_imports)
    model.graph.name = "values at kinks"
    model.graph.node.extend(nodes)
    model.graph.input.append(helper.make_tensor_value_info("x", trace.elem[graph.x], rows))
    model.graph.input.extend(graph.inputs)
    model.graph.output.extend(onnx.ValueInfoProto(name=end) for end in ends)
    model.graph.initializer.extend(t for t in graph.initializers if t.name in used)
    return model
