"""The logits of some entries of an output whose Sigmoid lies before joins, cuts and moves: the same moves without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxfim.graph.graph import Graph, Node
from onnxfim.graph.head_copies import Pen
from onnxfim.graph.output_axes import back

_DEEP = 40  # nodes to look back on one way


def logits_of(pen: Pen, graph: Graph, value: str, axis: int, start: int, stop: int | None, *, deep: int = 0) -> str | None:
    """A value with the logits of the entries ``start`` to ``stop`` along an axis of ``value``; None where none can be written.

    Every Sigmoid on the ways back is left out, and what joins or moves its results joins and moves its inputs. Nothing else may
    stand between. Whoever uses it compares its sigmoid with the file's own values.
    """
    node, shape = graph.producers.get(value), graph.shapes.get(value)
    if node is None or not node.inputs or deep > _DEEP:
        return None
    if stop is None:
        length = shape[axis] if shape is not None and axis < len(shape) else None
        if not isinstance(length, int):
            return None
        stop = length

    def before(name: str, along: int, first: int, end: int) -> str | None:
        return logits_of(pen, graph, name, along, first, end, deep=deep + 1)

    source = node.inputs[0]
    if node.op == "Sigmoid":
        return pen.cut(source, axis, start, stop)
    if node.op in ("Identity", "Cast"):
        return before(source, axis, start, stop)
    if node.op == "Transpose" and isinstance(perm := node.attributes.get("perm"), tuple) and axis < len(perm):
        order = [int(p) for p in perm]
        moved = before(source, order[axis], start, stop)
        return None if moved is None else pen.emit("Transpose", moved, perm=order)
    if node.op == "Concat" and isinstance(along := node.attributes.get("axis"), int) and shape:
        along %= len(shape)
        ranges = [(i, start, stop) for i in node.inputs] if along != axis else _overlapping(graph, node, axis, start, stop)
        parts = [before(i, axis, first, end) for i, first, end in ranges or ()]
        whole = [p for p in parts if p is not None]
        if not whole or len(whole) < len(parts):
            return None
        return whole[0] if len(whole) == 1 else pen.emit("Concat", *whole, axis=along)
    if node.op in ("Split", "Slice") and (offset := _offset(graph, node, value, axis)) is not None:
        return before(source, axis, start + offset, stop + offset)
    if node.op == "Reshape" and shape is not None and (step := back(graph, node, tuple(range(len(shape))))) is not None:
        inner = step[1][axis]
        target = [stop - start if k == axis else n if isinstance(n, int) else 0 if k == 0 else -1 for k, n in enumerate(shape)]
        moved = None if inner is None or target.count(-1) > 1 else before(source, inner, start, stop)
        return None if moved is None else pen.reshaped(moved, *target)
    return None


def _overlapping(graph: Graph, node: Node, axis: int, start: int, stop: int) -> list[tuple[str, int, int]] | None:
    """The joined values that hold entries ``start`` to ``stop``, with their own; None where a length is not known."""
    found, at = [], 0
    for name in node.inputs:
        shape = graph.shapes.get(name)
        size = shape[axis] if shape is not None and axis < len(shape) else None
        if not isinstance(size, int):
            return None
        first, end = max(start - at, 0), min(stop - at, size)
        if first < end:
            found.append((name, first, end))
        at += size
    return found


def _offset(graph: Graph, node: Node, value: str, axis: int) -> int | None:
    """Where the entries of a Split's or a Slice's result begin along an axis of its input; None where another axis is cut."""
    shape = graph.shapes.get(node.inputs[0])
    if shape is None:
        return None
    if node.op == "Split":
        sizes = [graph.shapes.get(o) for o in node.outputs]
        along = node.attributes.get("axis", 0)
        if not isinstance(along, int) or along % len(shape) != axis:
            return None
        earlier = [s[axis] if s is not None else None for s in sizes[: node.outputs.index(value)]]
        return sum(n for n in earlier if isinstance(n, int)) if all(isinstance(n, int) for n in earlier) else None
    starts, axes, steps = (_numbers(graph, node, k, name) for k, name in ((1, "starts"), (3, "axes"), (4, "steps")))
    if starts is None or len(starts) != 1 or list(steps or [1]) != [1] or len(axes or [0]) != 1:
        return None
    if not shape or (axes or [0])[0] % len(shape) != axis:
        return None
    length = shape[axis]
    if starts[0] >= 0:
        return starts[0]
    return max(starts[0] + length, 0) if isinstance(length, int) else None


def _numbers(graph: Graph, node: Node, place: int, name: str) -> Sequence[int] | None:
    """Whole numbers that an attribute or, in later operator sets, an input of a node holds."""
    given = node.attributes.get(name)
    if given is None and len(node.inputs) > place and node.inputs[place]:
        given = graph.constant(node.inputs[place])
    return None if given is None or isinstance(given, (str, float)) else [int(n) for n in np.ravel(np.asarray(given))]
