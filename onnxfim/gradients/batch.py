"""Free the batch axis of a graph that was exported for a fixed batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from onnxfim.gradients.emitter import Emitter
from onnxfim.gradients.trace import STANDARD, Walk, walk


def free_batch(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    inputs: Mapping[str, tuple[int, Sequence[int]]],
    fixed: Walk,
    emitter: Emitter,
    *,
    opset: int,
) -> tuple[Walk, list[onnx.NodeProto]]:
    """Walk the graph at a larger batch and correct the constants that hold the old one.

    A Reshape target gets −1 where row-major order puts the batch; a constant joined by Concat is repeated.

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

    def corrected(node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        if id(node) in seen or node.domain not in STANDARD:
            return None
        before = len(emitter.constants)
        instead = None
        if node.op_type == "Reshape":
            instead = _reshape(node, found, fixed, emitter)
        elif node.op_type == "Concat":
            instead = _concat(node, found, fixed, emitter)
        for tensor in emitter.constants[before:]:
            found.put(tensor.name, onnx.numpy_helper.to_array(tensor))
        seen.update(id(n) for n in instead or ())
        kept.extend(instead or ())  # keeps the identities in `seen` alive
        return instead

    kept: list[onnx.NodeProto] = []
    return walk(nodes, initializers, inputs, opset=opset, expand=corrected)


def _reshape(node: onnx.NodeProto, found: Walk, fixed: Walk, emitter: Emitter) -> list[onnx.NodeProto] | None:
    x, y = node.input[0], node.output[0]
    if any(n not in w.shapes for n, w in ((x, found), (x, fixed), (y, fixed))) or node.input[1] not in found.values:
        return None
    old, new, out = fixed.shapes[x], found.shapes[x], fixed.shapes[y]
    if old == new:
        return None
    axis = next(i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
    place = _place(int(np.prod(old[:axis])), out)
    target = list(out)
    target[place] = -1
    return [helper.make_node("Reshape", [x, emitter.constant(np.asarray(target, np.int64))], [y], name=node.name)]


def _place(before: int, out: Sequence[int]) -> int:
    """The axis of a reshaped value that takes up the batch, ``before`` elements standing in front of it."""
    products = [int(np.prod(out[:i])) for i in range(len(out))]
    if before in products:
        return products.index(before)
    return max(i for i, p in enumerate(products) if p < before)


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
