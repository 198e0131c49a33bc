"""A copy of a whole model that takes any number of rows, of a file that was exported for one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import onnx

from onnxfim.errors import OnnxFimError
from onnxfim.graph.batch import walk_freed
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.graph import Graph
from onnxfim.graph.shapes import walk
from onnxfim.graph.surgery import free_batch

_MOST_ROWS, _TRIED = 1024, 16  # that a file may insist on; numbers to try
_SIZED = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Tile": 1}  # operators that name shapes, and where


def freed_copies(
    model: onnx.ModelProto, batch: int, input_name: str, sample_shape: tuple[int, ...], *, base_dir: str | os.PathLike[str] = "."
) -> Iterator[onnx.ModelProto]:  # fmt: skip
    """Copies without the batch that a file insists on, the least changed first; each must be compared with the file.

    The second has all constants corrected that hold the old batch, as far as shapes can be worked out.

    Args:
        model: The model; it is not changed.
        batch: Rows that it insists on.
        input_name: Its input.
        sample_shape: Shape of one sample.
        base_dir: Folder of external data.
    """
    yield free_batch(model, batch)
    try:
        corrected = _corrected(model, batch, input_name, sample_shape, base_dir)
    except (OnnxFimError, OSError, ValueError, KeyError, IndexError, TypeError):  # nodes that do not fit one another: no copy
        return
    if corrected is not None:
        yield corrected


def _corrected(
    model: onnx.ModelProto, batch: int, input_name: str, sample_shape: tuple[int, ...], base_dir: str | os.PathLike[str]
) -> onnx.ModelProto | None:
    copy = free_batch(model, batch, constants=False)
    graph = Graph(model)
    nodes = [copy.graph.node[n.index] for n in graph.nodes]
    emitter = Emitter({t.name for t in model.graph.initializer} | {v for n in nodes for v in (*n.input, *n.output)}, prefix="b")
    opset = graph.opsets.get("ai.onnx", 1)
    elem = next((i.type.tensor_type.elem_type for i in model.graph.input if i.name == input_name), None)
    if elem is None or len(graph.inputs) != 1:
        return None
    stored = list(model.graph.initializer)
    fixed, _ = walk(nodes, stored, {input_name: (elem, (batch, *sample_shape))}, opset=opset)
    larger = {input_name: (elem, (2 * batch, *sample_shape))}
    _, freed = walk_freed(nodes, stored, larger, fixed, emitter, opset=opset, base_dir=base_dir)
    done = [_named(n, k) for k, n in enumerate(freed)]
    del copy.graph.node[:]
    copy.graph.node.extend(done)
    copy.graph.initializer.extend(emitter.constants)
    return copy


def _named(node: onnx.NodeProto, place: int) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = node.name or f"batch_freed_{place}"
    return copy


def declared(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy that declares the batch that the model insists on though it leaves it open."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {t.name for t in copy.graph.initializer}
    for value in copy.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in stored and dims and dims[0].dim_value <= 0:
            dims[0].dim_value = batch
    return copy


def batches_named(graph: Graph, output: str) -> list[int]:
    """Numbers of rows that a graph may insist on though it leaves its batch open: one, and what its constants begin with."""
    found = dict.fromkeys([1])
    shape = next((o.shape for o in graph.outputs if o.name == output), None)
    if shape and isinstance(shape[0], int):
        found[shape[0]] = None
    for node in graph.nodes:
        place = _SIZED.get(node.op, -1)
        value = graph.constant(node.inputs[place]) if 0 <= place < len(node.inputs) else None
        if value is not None and value.ndim == 1 and value.size and value.dtype == np.int64:
            found.update(dict.fromkeys(int(n) for n in value[:2]))
    shapes = [tuple(t.dims) for t in graph.weights]
    shapes += [value.shape for n in graph.nodes if n.op == "Constant" and (value := graph.constant(n.outputs[0])) is not None]
    for dims in shapes:
        if len(dims) > 2:
            found.update(dict.fromkeys(int(n) for n in dims[:2]))
    return [n for n in found if 1 <= n <= _MOST_ROWS][:_TRIED]
