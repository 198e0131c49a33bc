"""Indices, grids and updates of a graph whose batch is freed: the same for each row, or counting the rows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from onnxfim.graph.emitter import Emitter
from onnxfim.graph.shapes import Walk

#: Operators that take as many rows of each input.
ROW_BY_ROW = frozenset({"GatherElements", "GridSample", "ScatterElements", "ScatterND"})


def row_by_row(node: onnx.NodeProto, found: Walk, fixed: Walk, emitter: Emitter) -> list[onnx.NodeProto] | None:
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


def flattened_rows(node: onnx.NodeProto, found: Walk, fixed: Walk, emitter: Emitter) -> list[onnx.NodeProto] | None:
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
