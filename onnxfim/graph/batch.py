"""Free the batch axis of a graph that was exported for a fixed batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from onnxfim.graph.emitter import Emitter
from onnxfim.graph.shapes import STANDARD, Walk, walk

#: Operators that take as many rows of each input.
_ROW_BY_ROW = ("GatherElements", "GridSample", "ScatterElements", "ScatterND")


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

    A Reshape target gets −1 where row-major order puts the batch; a constant joined by Concat is repeated, as are indices, grids
    and updates that are the same for each row, and positions that count the rows count all of them. Where an axis of
    length one was dropped and the batch may have gone to either neighbour, it goes to the right if axes there are split
    (heads), else to the left (rows of a matrix product). The outputs must be compared with the file's, row by row.

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
        elif node.op_type in _ROW_BY_ROW:
            instead = _row_by_row(node, found, fixed, emitter)
        elif node.op_type == "Gather":
            instead = _flattened_rows(node, found, fixed, emitter)
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


def _row_by_row(node: onnx.NodeProto, found: Walk, fixed: Walk, emitter: Emitter) -> list[onnx.NodeProto] | None:
    """Repeat operands that do not hold the batch for each row of those that do."""
    names = [n for n in node.input if n]
    if any(n not in w.shapes or not w.shapes[n] for n in names for w in (found, fixed)):
        return None
    grown = [n for n in names if found.shapes[n] != fixed.shapes[n]]
    still = [n for n in names if found.shapes[n] == fixed.shapes[n]]
    if not grown or not still or any(found.shapes[n][1:] != fixed.shapes[n][1:] for n in grown):
        return None
    rows = fixed.shapes[grown[0]][0]
    nodes, lead = _lead(grown[0], emitter)
    instead = {}
    for name in still:
        shape, value = fixed.shapes[name], found.values.get(name)
        counts = node.op_type == "ScatterND" and name == node.input[1]
        if shape[0] != rows or (value is None and (rows > 1 or counts)):
            return None
        first = name if value is None else _first_row(value, counts=counts, emitter=emitter)
        if first is None:
            return None
        target, instead[name] = emitter.fresh("batch"), emitter.fresh("repeated")
        wide = emitter.fresh("wide") if counts else instead[name]
        nodes.append(helper.make_node("Concat", [lead, emitter.constant(np.asarray(shape[1:], np.int64))], [target], axis=0))
        nodes.append(helper.make_node("Expand", [first, target], [wide]))
        if counts:
            column = np.zeros(shape[-1], np.int64)
            column[0] = 1
            nodes += _numbered(lead, len(shape), wide, emitter.constant(column), instead[name], emitter)
    again = onnx.NodeProto()
    again.CopyFrom(node)
    del again.input[:]
    again.input.extend(instead.get(n, n) for n in node.input)
    return [*nodes, again]


def _lead(name: str, emitter: Emitter) -> tuple[list[onnx.NodeProto], str]:
    """The number of rows of a value, as a vector of one number."""
    lead = emitter.fresh("rows")
    return [helper.make_node("Shape", [name], [lead], start=0, end=1)], lead


def _first_row(value: np.ndarray, *, counts: bool, emitter: Emitter) -> str | None:
    """The row that all rows of a constant are, (1, ...); the number of the row in front of the last axis not counted."""
    rows = value.copy()
    if counts:
        own = np.arange(len(rows)).reshape(-1, *[1] * (rows.ndim - 2))
        if (rows[..., 0] != own).any():
            return None
        rows[..., 0] = 0
    return emitter.constant(rows[:1]) if (rows == rows[:1]).all() else None


def _numbered(lead: str, rank: int, to: str, factor: str, result: str, emitter: Emitter) -> list[onnx.NodeProto]:
    """Add the number of each row, times a factor, to a value of this rank."""
    count, number, column, steps = (emitter.fresh("row") for _ in range(4))
    zero, one = (emitter.constant(np.asarray(k, np.int64)) for k in (0, 1))
    shape = emitter.constant(np.asarray([-1, *[1] * (rank - 1)], np.int64))
    return [
        helper.make_node("Squeeze", [lead, emitter.constant(np.zeros(1, np.int64))], [count]),
        helper.make_node("Range", [zero, count, one], [number]),
        helper.make_node("Reshape", [number, shape], [column]),
        helper.make_node("Mul", [column, factor], [steps]),
        helper.make_node("Add", [to, steps], [result]),
    ]


def _flattened_rows(node: onnx.NodeProto, found: Walk, fixed: Walk, emitter: Emitter) -> list[onnx.NodeProto] | None:
    """Positions in a value whose first axis holds the batch and others, row after row: those of the first row, and so on."""
    x, where = node.input
    index = found.values.get(where)
    if index is None or not index.ndim or any(a.name == "axis" and a.i != 0 for a in node.attribute):
        return None
    if any(n not in w.shapes for n in (x, where) for w in (found, fixed)) or found.shapes[where] != fixed.shapes[where]:
        return None
    old, new, rows = fixed.shapes[x], found.shapes[x], len(index)
    if old == new or old[1:] != new[1:] or old[0] % rows or old[0] == rows:
        return None
    step = old[0] // rows
    own = np.arange(rows).reshape(-1, *[1] * (index.ndim - 1)) * step
    if (index // step * step != own).any() or (index - own != index[:1]).any():
        return None
    nodes, all_ = _lead(x, emitter)
    lead, moved = (emitter.fresh("rows") for _ in range(2))
    nodes.append(helper.make_node("Div", [all_, emitter.constant(np.asarray([step], np.int64))], [lead]))
    first = emitter.constant(index[:1].astype(np.int64))
    nodes += _numbered(lead, index.ndim, first, emitter.constant(np.asarray(step, np.int64)), moved, emitter)
    again = helper.make_node("Gather", [x, moved], list(node.output), name=node.name, axis=0)
    return [*nodes, again]
