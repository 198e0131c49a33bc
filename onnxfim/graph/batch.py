"""Free the batch axis of a graph that was exported for a fixed batch size."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper

from onnxfim.graph.emitter import Emitter
from onnxfim.graph.referring import array_of
from onnxfim.graph.row_indices import ROW_BY_ROW, flattened_rows, row_by_row
from onnxfim.graph.shapes import STANDARD, TraceError, Walk, walk

_BROADCASTING = frozenset(
    [
        *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where", "PRelu", "MatMul", "And", "Or", "Xor", "Equal"),
        *("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Mod", "BitwiseAnd", "BitwiseOr"),
    ]
)
_ROUNDING = 1e-6  # relative: what an exporter computed ahead for each row is rounded for each
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}  # inputs that hold a state for each sample
_LENGTHS = 4  # the input of these that holds a number for each sample

Correction: TypeAlias = "Callable[[onnx.NodeProto, Walk], list[onnx.NodeProto] | None]"


def walk_freed(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    inputs: Mapping[str, tuple[int, Sequence[int]]],
    fixed: Walk,
    emitter: Emitter,
    *,
    opset: int,
    base_dir: str | os.PathLike[str] = ".",
) -> tuple[Walk, list[onnx.NodeProto]]:
    """Walk the graph at a larger batch and correct the constants that hold the old one.

    A Reshape target gets −1 where row-major order puts the batch; a constant joined by Concat, or a state that a recurrent operator
    begins with, is repeated, as are indices, grids and updates that are the same for each row, and positions that count the rows
    count all of them; a constant that holds the same for every sample keeps one row, and is broadcast. Where an axis of
    length one was dropped and the batch may have gone to either neighbour, it goes to the right if axes there are split
    (heads), else to the left (rows of a matrix product). The outputs must be compared with the file's, row by row.

    Args:
        nodes: Nodes in order, composites written out.
        initializers: Weights.
        inputs: Graph inputs at the larger batch.
        fixed: The walk at the batch of the file.
        emitter: Gives names and constants.
        opset: Version of the standard operators.
        base_dir: Folder of external data.

    Returns:
        The walk at the larger batch, and the corrected nodes.

    Raises:
        TraceError: a constant that differs between samples, or a shape that does not fit a larger batch.
    """
    seen: set[int] = set()
    outer: dict[str, int] = {}  # elements of the batch's axis that stand in front of the batch, where it is not in front
    freeing = _Freeing(fixed, {t.name: t for t in initializers}, emitter, base_dir)

    def corrected(node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        if id(node) in seen or node.domain not in STANDARD:
            return None
        before = len(emitter.constants)
        within = max((outer.get(i, 1) for i in node.input), default=1)
        if within > 1:
            outer.update(dict.fromkeys(node.output, within))
        if node.op_type == "Reshape":
            instead = _reshape(node, found, fixed, emitter, outer)
        elif node.op_type in ROW_BY_ROW:
            instead = row_by_row(node, found, fixed, emitter)
        elif node.op_type == "Gather":
            instead = flattened_rows(node, found, fixed, emitter)
        else:
            instead = freeing.corrected(node, found)
        for tensor in emitter.constants[before:]:
            found.put(tensor.name, onnx.numpy_helper.to_array(tensor))
        seen.update(id(n) for n in instead or ())
        kept.extend(instead or ())  # keeps the identities in `seen` alive
        return instead

    kept: list[onnx.NodeProto] = []
    return walk(nodes, initializers, inputs, opset=opset, expand=corrected)


def _reshape(
    node: onnx.NodeProto, found: Walk, fixed: Walk, emitter: Emitter, outer: dict[str, int]
) -> list[onnx.NodeProto] | None:
    x, y = node.input[0], node.output[0]
    if any(n not in w.shapes for n, w in ((x, found), (x, fixed), (y, fixed))) or node.input[1] not in found.values:
        return None
    old, new, out = fixed.shapes[x], found.shapes[x], fixed.shapes[y]
    if old == new:
        return None
    axis = next(i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
    place, within = _place(old, axis, outer.get(x, 1), out)
    outer[y] = within
    target = list(out)
    target[place] = -1
    return [helper.make_node("Reshape", [x, emitter.constant(np.asarray(target, np.int64))], [y], name=node.name)]


def _place(old: Sequence[int], axis: int, within: int, out: Sequence[int]) -> tuple[int, int]:
    """The axis of a reshaped value that takes up the batch, and the elements of that axis in front of it.

    The batch stands in ``axis`` of the value ``old``, behind ``within`` elements of that axis.
    """
    before = int(np.prod(old[:axis])) * within
    products = [int(np.prod(out[:i])) for i in range(len(out) + 1)]
    for i, p in enumerate(products[:-1]):
        if p == before and (out[i] == 1 or i == 0):
            return i, 1
    if before not in products:
        inside = max(i for i, p in enumerate(products) if p < before)
        return inside, before // products[inside]
    right = products.index(before)
    splits = len(out) - right > len(old) - axis - 1
    if right < len(out) and (splits or old[axis] != 1):
        return right, 1
    return right - 1, out[right - 1]


class _Freeing:
    """What stands in place of a node that reads a constant with a row for each sample of the old batch."""

    def __init__(
        self, fixed: Walk, weights: Mapping[str, onnx.TensorProto], emitter: Emitter, base_dir: str | os.PathLike[str]
    ) -> None:  # fmt: skip
        self.fixed, self.weights, self.emitter, self.base_dir = fixed, weights, emitter, base_dir

    def corrected(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        names = [n for n in node.input if n]
        if any(n not in w.shapes for n in names for w in (found, self.fixed)):
            return None
        if node.op_type == "Expand" and self.axis(node.input[0], found) is None:
            return self._expand_constant(node, found)
        if not any(self.axis(n, found) is not None for n in names):
            return None
        if node.op_type == "Concat":
            return self._concat(node, found)
        if node.op_type in _BROADCASTING:
            return self._broadcast(node, found)
        if node.op_type in _STATES:
            return self._recurrent(node, found)
        if node.op_type == "Expand" and node.input[1] in found.values:
            return self._expand(node, found)
        if node.op_type == "Resize" and len(node.input) > 3 and node.input[3] in found.values:
            return self._resize(node, found)
        return None

    def axis(self, name: str, found: Walk) -> int | None:
        """The axis of a value that holds the batch, counted from its end; None where none does."""
        old, new = self.fixed.shapes.get(name, ()), found.shapes.get(name, ())
        if len(old) != len(new):
            return None
        return next((k - len(old) for k, (a, b) in enumerate(zip(old, new, strict=True)) if a != b), None)

    def one_row(self, name: str, axis: int, found: Walk) -> str:
        """Name of a constant with one row along ``axis`` in place of one for each sample of the old batch.

        Raises:
            TraceError: its rows differ.
        """
        value = found.values.get(name)
        if value is None and name in self.weights:
            value = array_of(self.weights[name], self.base_dir)
        if value is None:
            raise TraceError(f"value {name!r} has a row for each sample, and is not known before the model runs.")
        first = value.take([0], axis=axis)
        apart = np.abs(value - first).max(initial=0) if value.dtype.kind == "f" else float((value != first).any())
        if not apart <= _ROUNDING * np.abs(value.astype(np.float64)).max(initial=0):
            raise TraceError(f"value {name!r} holds another row for each sample of the batch that the file was exported for.")
        return self.emitter.constant(first)

    def _broadcast(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """Constants keep one row where the other operand holds the batch."""
        axes = {(axis, self.fixed.shapes[n][axis]) for n in node.input if (axis := self.axis(n, found)) is not None}
        axes = {(axis, size) for axis, size in axes if node.op_type != "MatMul" or axis < -2}  # its last two are no rows of both
        names = list(node.input)
        for k, name in enumerate(names):
            shape = self.fixed.shapes[name]
            for axis, size in axes:
                if self.axis(name, found) is None and size > 1 and len(shape) >= -axis and shape[axis] == size:
                    names[k] = self.one_row(name, axis, found)
        return None if names == list(node.input) else [_reading(node, names)]

    def _expand(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """A target of one keeps the length that there is."""
        x, target = node.input[0], found.values[node.input[1]].copy()
        axis = self.axis(x, found)
        if axis is None or target.size < -axis or target[axis] in (1, found.shapes[x][axis]):
            return None
        target[axis] = 1
        return [_reading(node, [x, self.emitter.constant(target)])]

    def _expand_constant(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """A constant of the old batch keeps one row where its target has grown."""
        name, (old, new) = node.input[0], (w.values.get(node.input[1]) for w in (self.fixed, found))
        shape = found.shapes[name]
        if old is None or new is None or old.shape != new.shape or (old == new).all() or len(shape) > old.size:
            return None
        row = name
        for axis in (int(k) for k in np.flatnonzero(old != new) - old.size):
            if len(shape) >= -axis and shape[axis] != 1:
                row = self.one_row(name, axis, found)
        return None if row == name else [_reading(node, [row, node.input[1]])]

    def _resize(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """Sizes that name the batch take it from the value."""
        x, sizes = node.input[0], found.values[node.input[3]]
        if self.axis(x, found) != -len(found.shapes[x]) or sizes.size != len(found.shapes[x]):
            return None
        size, first, whole = (self.emitter.fresh("batch") for _ in range(3))
        ends = [self.emitter.constant(np.asarray([n], np.int64)) for n in (0, 1)]
        return [
            helper.make_node("Shape", [x], [size]),
            helper.make_node("Slice", [size, *ends], [first]),
            helper.make_node("Concat", [first, self.emitter.constant(sizes[1:])], [whole], axis=0),
            _reading(node, [*node.input[:3], whole]),
        ]

    def _recurrent(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """States, and lengths, that are constants are repeated for each sample."""
        last = any(a.name == "layout" and a.i == 1 for a in node.attribute)
        x, names, nodes = node.input[0], list(node.input), list[onnx.NodeProto]()
        batch = (0 if last else 1) - len(found.shapes[x])
        if self.axis(x, found) != batch:
            return None
        size, count = self.emitter.fresh("batch"), self.emitter.fresh("batch")
        ends = [self.emitter.constant(np.asarray([batch + len(found.shapes[x]) + n], np.int64)) for n in (0, 1)]
        for k in (_LENGTHS, *_STATES[node.op_type]):
            if k >= len(names) or not names[k] or self.axis(names[k], found) is not None:
                continue
            shape = self.fixed.shapes[names[k]]
            axis = 0 if k == _LENGTHS or last else 1
            one = names[k] if shape[axis] == 1 else self.one_row(names[k], axis, found)
            whole, repeated = self.emitter.fresh("batch"), self.emitter.fresh("repeated")
            parts = [
                self.emitter.constant(np.asarray(part, np.int64)) if part else "" for part in (shape[:axis], shape[axis + 1 :])
            ]
            nodes.append(helper.make_node("Concat", [n for n in (parts[0], count, parts[1]) if n], [whole], axis=0))
            nodes.append(helper.make_node("Expand", [one, whole], [repeated]))
            names[k] = repeated
        if not nodes:
            return None
        first = [helper.make_node("Shape", [x], [size]), helper.make_node("Slice", [size, *ends], [count])]
        return [*first, *nodes, _reading(node, names)]

    def _concat(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """Repeat operands that do not hold the batch along the axis where the others do."""
        shapes, emitter = found.shapes, self.emitter
        axis = node.attribute[0].i % len(shapes[node.input[0]])
        grown = [n for n in node.input if self.axis(n, found) is not None]
        still = [n for n in dict.fromkeys(node.input) if self.axis(n, found) is None]
        if not still or len(shapes[grown[0]]) == 1:
            return None
        batch = (self.axis(grown[0], found) or 0) + len(shapes[grown[0]])
        if batch == axis:
            return None
        mask = np.ones(len(shapes[grown[0]]), np.int64)
        mask[axis] = 0
        shape, scaled, target = (emitter.fresh("batch") for _ in range(3))
        nodes = [
            helper.make_node("Shape", [grown[0]], [shape]),
            helper.make_node("Mul", [shape, emitter.constant(mask)], [scaled]),
            helper.make_node("Add", [scaled, emitter.constant(1 - mask)], [target]),
        ]
        one = {n: n if shapes[n][batch] == 1 else self.one_row(n, batch, found) for n in still}
        repeated = {n: emitter.fresh("repeated") for n in still}
        nodes += [helper.make_node("Expand", [one[n], target], [r]) for n, r in repeated.items()]
        return [*nodes, _reading(node, [repeated.get(n, n) for n in node.input])]


def _reading(node: onnx.NodeProto, names: Sequence[str]) -> onnx.NodeProto:
    """The node with other inputs."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:]
    copy.input.extend(names)
    return copy
