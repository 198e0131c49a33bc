"""Free the batch axis of a graph that was exported for a fixed batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from onnxfim.graph.emitter import Emitter
from onnxfim.graph.shapes import STANDARD, Walk, walk

_BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Where"})


def walk_freed(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    inputs: Mapping[str, tuple[int, Sequence[int]]],
    fixed: Walk,
    emitter: Emitter,
    *,
    opset: int,
) -> tuple[Walk, list[onnx.NodeProto]]:
    """Walk the graph at a larger batch and correct the constants that hold the old one.

    A Reshape target gets −1 where row-major order puts the batch; a constant joined by Concat is repeated, and one that holds the
    same for every row of the old batch (the state that a loop begins with) holds it once. Where an axis of length one was dropped
    and the batch may have gone to either neighbour, it goes to the right if axes there are split (heads), else to the left (rows of
    a matrix product). The outputs must be compared with the file's, row by row.

    Args:
        nodes: Nodes in order, composites written out.
        initializers: Weights.
        inputs: Graph inputs at the larger batch.
        fixed: The walk at the batch of the file.
        emitter: Gives names and constants.
        opset: Version of the standard operators.

    Returns:
        The walk at the larger batch, and the corrected nodes.
    """
    seen: set[int] = set()
    outer: dict[str, int] = {}  # elements of the batch's axis that stand in front of the batch, where it is not in front

    def corrected(node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        if id(node) in seen or node.domain not in STANDARD:
            return None
        before = len(emitter.constants)
        instead = None
        within = max((outer.get(i, 1) for i in node.input), default=1)
        if within > 1:
            outer.update(dict.fromkeys(node.output, within))
        if node.op_type == "Reshape":
            instead = _reshape(node, found, fixed, emitter, outer)
        elif node.op_type == "Concat":
            instead = _concat(node, found, fixed, emitter)
        elif node.op_type in _BROADCASTING:
            instead = _same_rows(node, found, fixed, emitter)
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


def _concat(node: onnx.NodeProto, found: Walk, fixed: Walk, emitter: Emitter) -> list[onnx.NodeProto] | None:
    """Repeat operands that do not hold the batch along the axis where the others do."""
    if any(n not in w.shapes for n in node.input for w in (found, fixed)):
        return None
    axis = node.attribute[0].i % len(found.shapes[node.input[0]])
    grown = [n for n in node.input if found.shapes[n] != fixed.shapes[n]]
    still = [n for n in node.input if found.shapes[n] == fixed.shapes[n]]
    if not grown or not still or len(found.shapes[grown[0]]) == 1:
        return None
    mask = np.ones(len(found.shapes[grown[0]]), np.int64)
    mask[axis] = 0
    shape, scaled, target = (emitter.fresh("batch") for _ in range(3))
    nodes = [
        helper.make_node("Shape", [grown[0]], [shape]),
        helper.make_node("Mul", [shape, emitter.constant(mask)], [scaled]),
        helper.make_node("Add", [scaled, emitter.constant(1 - mask)], [target]),
    ]
    repeated = {n: emitter.fresh("repeated") for n in still}
    nodes += [helper.make_node("Expand", [n, target], [r]) for n, r in repeated.items()]
    joined = helper.make_node("Concat", [repeated.get(n, n) for n in node.input], list(node.output), name=node.name, axis=axis)
    return [*nodes, joined]


def _same_rows(node: onnx.NodeProto, found: Walk, fixed: Walk, emitter: Emitter) -> list[onnx.NodeProto] | None:
    """One row in place of the equal rows of a constant, along the axis on which another operand has grown."""
    if any(n not in w.shapes for n in node.input for w in (found, fixed)):
        return None
    grown = {
        axis - len(found.shapes[n])
        for n in node.input
        for axis, (a, b) in enumerate(zip(fixed.shapes[n], found.shapes[n], strict=False))
        if a != b
    }
    names = list(node.input)
    for k, n in enumerate(node.input):
        value = found.values.get(n) if found.shapes[n] == fixed.shapes[n] else None
        for axis in grown if value is not None else ():
            if value is not None and -axis <= value.ndim and value.shape[axis] > 1:
                first = np.take(value, [0], axis=axis)
                if (value != first).any():
                    return None
                value = first
                names[k] = emitter.constant(value)
    if names == list(node.input):
        return None
    return [helper.make_node(node.op_type, names, list(node.output), name=node.name)]
