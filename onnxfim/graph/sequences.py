"""Sequences of values resolved before the model runs: what is put into one is what is taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx
from onnx import helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.shapes import STANDARD, Walk
from onnxfim.graph.upgrade import attributes_of

_OPERATORS = frozenset({
    "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SplitToSequence",
})  # fmt: skip


class Sequences:
    """The sequences of one walk over a graph, as lists of the names of their values.

    Args:
        emitter: Gives names and constants.
    """

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._items: dict[str, tuple[str, ...]] = {}

    def resolved(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """The nodes in place of one that works on a sequence; None for any other, and where it is not known what a sequence holds.

        Raises:
            UnsupportedOperator: a sequence of the rows of the batch.
        """
        op = node.op_type
        if node.domain not in STANDARD or not (op in _OPERATORS or (op == "Identity" and node.input[0] in self._items)):
            return None
        items = self._items.get(node.input[0]) if node.input else ()
        if op == "SequenceConstruct":
            return self._keep(node, tuple(node.input))
        if op == "SplitToSequence":
            return self._split(node, found)
        if items is None:
            return None
        if op in ("SequenceEmpty", "Identity"):
            return self._keep(node, items)
        if op == "SequenceLength":
            return [self._same(node, self._emitter.constant(np.asarray(len(items), np.int64)))]
        if op == "ConcatFromSequence":
            return self._joined(node, items)
        return self._at(node, items, found)

    def _keep(self, node: onnx.NodeProto, items: tuple[str, ...]) -> list[onnx.NodeProto]:
        self._items[node.output[0]] = items
        return []

    def _same(self, node: onnx.NodeProto, name: str) -> onnx.NodeProto:
        return helper.make_node("Identity", [name], list(node.output), name=node.name)

    def _at(self, node: onnx.NodeProto, items: tuple[str, ...], found: Walk) -> list[onnx.NodeProto] | None:
        """Take from, insert at or erase at a position, the last one unless it is given."""
        inserts = node.op_type == "SequenceInsert"
        where = node.input[2 if inserts else 1] if len(node.input) > (2 if inserts else 1) else ""
        position = found.value(where) if where else np.asarray(len(items) if inserts else -1)
        if position is None:
            return None
        k = int(np.asarray(position).reshape(()))
        k += len(items) if k < 0 else 0
        if not 0 <= k < len(items) + inserts:
            return None  # the runtime says what is wrong
        if inserts:
            return self._keep(node, (*items[:k], node.input[1], *items[k:]))
        return self._keep(node, (*items[:k], *items[k + 1 :])) if node.op_type == "SequenceErase" else [self._same(node, items[k])]

    def _joined(self, node: onnx.NodeProto, items: Sequence[str]) -> list[onnx.NodeProto]:
        attributes, nodes, parts = attributes_of(node), [], list(items)
        if attributes.get("new_axis"):
            axis = self._emitter.constant(np.asarray([attributes["axis"]], np.int64))
            parts = [self._emitter.fresh("part") for _ in items]
            nodes = [helper.make_node("Unsqueeze", [i, axis], [p], name=node.name) for i, p in zip(items, parts, strict=True)]
        return [*nodes, helper.make_node("Concat", parts, list(node.output), name=node.name, axis=attributes["axis"])]

    def _split(self, node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        """Parts of given sizes, of one size, or single entries."""
        shape, given = found.shape(node.input[0]), found.value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        attributes = attributes_of(node)
        axis = cast("int", attributes.get("axis", 0))
        if shape is None or shape[axis] is None or (given is None and len(node.input) > 1 and node.input[1]):
            return None
        if axis % len(shape) == 0:
            raise UnsupportedOperator(f"node {node.name!r}: SplitToSequence makes a sequence of the rows of the batch.")
        size = shape[axis] or 0
        if given is not None and given.ndim:
            sizes = [int(v) for v in given]
        else:
            step = 1 if given is None else int(given)
            sizes = [min(step, size - start) for start in range(0, size, step)]
        parts = [self._emitter.fresh("part") for _ in sizes]
        nodes = [
            helper.make_node(
                "Split", [node.input[0], self._emitter.constant(np.asarray(sizes, np.int64))], parts, name=node.name, axis=axis
            )
        ]
        if given is None and not attributes.get("keepdims", 1):
            bare = [self._emitter.fresh("part") for _ in sizes]
            axes = self._emitter.constant(np.asarray([axis], np.int64))
            nodes += [helper.make_node("Squeeze", [p, axes], [b], name=node.name) for p, b in zip(parts, bare, strict=True)]
            parts = bare
        self._items[node.output[0]] = tuple(parts)
        return nodes
