"""Holds inputs of a copy of the model at given values, so that one input is left to change.

A value that is the same for all samples becomes a constant. Of values that differ between samples the copy holds tables, one row
for each sample, and one more input, `POSITION`, says which sample each row of a call is, or stands beside. Gradients, bounds and
everything else then see a model of one input.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxfim.errors import ModelError
from onnxfim.graph.graph import Dimension, Graph, reads
from onnxfim.graph.prepare import pruned

Array: TypeAlias = np.ndarray[Any, Any]

#: The input that holds the position of each row's sample, int64 (N,); no exporter calls an input so.
POSITION = "onnxfim/position"
_SIZE = "/size"  # what the shape is called that a held value takes its rows from
_MOST_BYTES = 2**30  # of tables: protobuf holds 2 GiB in all
_EXPAND = 8  # the operator set that Expand is from; before it Tile repeats
Role: TypeAlias = Literal["perturbed", "held", "not read"]


@dataclass(frozen=True)
class InputRole:
    """What becomes of an input of the file.

    Attributes:
        name, dtype, shape: As the file tells them.
        role: It is perturbed, held, or does not reach the output.
        at: What it is held at, in words.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None
    role: Role
    at: str | None = None


@dataclass(frozen=True)
class HeldValue:
    """What an input is held at.

    Attributes:
        value: Of each sample, (S, *rest), where ``per_sample``; else one for all, of the input's own rank: of length 1 along its
            batch, where it has one.
        axis: The input's axis that holds the batch; None where it has none, and the value is fed as it is.
        per_sample: Whether samples have values of their own.
    """

    value: Array
    axis: int | None
    per_sample: bool = False


def hold(model: onnx.ModelProto, input_name: str, held: Mapping[str, HeldValue]) -> onnx.ModelProto:
    """A copy whose inputs are ``input_name`` and, where values differ between samples, `POSITION`.

    Args:
        model: The model; it is not changed.
        input_name: The input that is left.
        held: Values of the others, by name; inputs that are not named here stay.

    Raises:
        ModelError: an input of the file has the reserved name, or the tables are larger than a model can be.
    """
    size = sum(h.value.nbytes for h in held.values())
    if size > _MOST_BYTES:
        raise ModelError(f"held inputs: their values take {size:,} bytes, expected at most {_MOST_BYTES:,}. Audit fewer samples.")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    already = any(i.name == POSITION for i in graph.input)  # of a copy in which others are held
    if not already and any(POSITION in (*n.input, *n.output) for n in graph.node):
        raise ModelError(f"value {POSITION!r}: this name is reserved. Rename it in the model.")
    kept = [i for i in graph.input if i.name not in held]
    into = next(i for i in kept if i.name == input_name)
    if not already and any(h.per_sample for h in held.values()):
        place = helper.make_tensor_value_info(POSITION, TensorProto.INT64, [None])
        rows = into.type.tensor_type.shape.dim[0]
        place.type.tensor_type.shape.dim[0].CopyFrom(rows)
        kept.append(place)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), _EXPAND)
    repeat = "Expand" if opset >= _EXPAND else "Tile"
    nodes: list[onnx.NodeProto] = []
    for name, h in held.items():
        made = _gathered(name, h) if h.per_sample else _spread(name, h, input_name, repeat)
        for part in made:
            if isinstance(part, onnx.NodeProto):
                nodes.append(part)
            else:
                graph.initializer.append(part)
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.input[:]
    graph.input.extend(kept)
    return copy


def sized_by(model: onnx.ModelProto, before: str, now: str) -> None:
    """Let held values in this copy of a part of the model take the number of rows from the input ``now``, not from ``before``.

    ``before`` is an input no longer where nothing else reads it.
    """
    for node in model.graph.node:
        if node.op_type == "Shape" and list(node.input) == [before] and node.name == node.output[0] and node.name.endswith(_SIZE):
            node.input[0] = now
    if not any(before in reads(n) for n in model.graph.node):
        left = [onnx.ValueInfoProto.FromString(i.SerializeToString()) for i in model.graph.input if i.name != before]
        del model.graph.input[:]
        model.graph.input.extend(left)


def without_inputs(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy without these inputs, without the nodes that read them, and without the outputs that these make."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    gone = set(names)
    nodes = []
    waiting = list(graph.node)
    while True:  # nodes of a file need not be in order
        touched = [n for n in waiting if not gone.isdisjoint(reads(n))]
        if not touched:
            break
        gone.update(o for n in touched for o in n.output if o)
        waiting = [n for n in waiting if gone.isdisjoint(reads(n))]
    nodes = waiting
    for values, left in ((graph.node, nodes), *((v, [i for i in v if i.name not in gone]) for v in (graph.input, graph.output))):
        left = [type(v).FromString(v.SerializeToString()) for v in left]
        del values[:]
        values.extend(left)
    return copy


def reaching(graph: Graph, output: str) -> frozenset[str]:
    """Names of all values that the output is made of, inputs among them."""
    nodes = pruned([graph.model.graph.node[n.index] for n in graph.nodes], [output])
    return frozenset({output, *(r for n in nodes for r in reads(n))})


def tensor_of(value: Array, name: str) -> onnx.TensorProto:
    """An array as a tensor of the model; text as bytes."""
    if value.dtype.kind in "US":
        return helper.make_tensor(name, TensorProto.STRING, value.shape, [_bytes(v) for v in value.ravel().tolist()])
    return numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _gathered(name: str, held: HeldValue) -> Iterator[onnx.NodeProto | onnx.TensorProto]:
    """Each row's value from a table with a row for every sample."""
    table, axis = f"{name}/table", held.axis or 0
    yield tensor_of(held.value, table)
    rows = name if axis == 0 else f"{name}/rows"
    yield helper.make_node("Gather", [table, POSITION], [rows], name=rows, axis=0)
    if axis:
        order = [*range(1, axis + 1), 0, *range(axis + 1, held.value.ndim)]
        yield helper.make_node("Transpose", [rows], [name], name=name, perm=order)


def _spread(name: str, held: HeldValue, input_name: str, repeat: str) -> Iterator[onnx.NodeProto | onnx.TensorProto]:
    """One value for all rows, repeated along the batch where there is one."""
    if held.axis is None:
        yield tensor_of(held.value, name)
        return
    one, size, rows, target = (f"{name}{word}" for word in ("/one", _SIZE, "/rows", "/target"))
    first = f"{name}/first"
    yield tensor_of(held.value, one)
    yield tensor_of(np.array([0], np.int64), first)
    yield helper.make_node("Shape", [input_name], [size], name=size)
    yield helper.make_node("Gather", [size, first], [rows], name=rows, axis=0)
    parts = [rows]
    for word, count in (("before", held.axis), ("after", held.value.ndim - held.axis - 1)):
        if count:
            yield tensor_of(np.ones(count, np.int64), f"{name}/{word}")
            parts = [f"{name}/{word}", *parts] if word == "before" else [*parts, f"{name}/{word}"]
    yield helper.make_node("Concat", parts, [target], name=target, axis=0)
    yield helper.make_node(repeat, [one, target], [name], name=name)
