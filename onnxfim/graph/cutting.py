"""Copies of a model cut at an inner value: the part before it, to read it, and the part behind it, which takes it as an input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
from onnx import helper

from onnxfim.errors import ModelError
from onnxfim.graph.graph import Dimension, Graph, reads
from onnxfim.graph.prepare import pruned


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions written out, so that the values inside them have names; itself where it has none.

    Raises:
        ModelError: a function does not fit the nodes that call it.
    """
    if not model.functions:
        return model
    import onnx.inliner  # few models have functions

    try:
        written: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    except Exception as error:
        why = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(f"model: its functions cannot be written out ({why}). Export it again.") from error
    return written


def part_before(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """A copy whose only output is the inner value ``tensor``, and that holds no more than it needs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=tensor))  # the runtime knows its type
    return _kept(copy, _needed(model, [tensor]))


def part_behind(
    model: onnx.ModelProto, tensor: str, element_type: int, shape: Sequence[Dimension] | None, batch_axis: int = 0
) -> onnx.ModelProto:
    """A copy that takes the inner value ``tensor`` as its first input, without what it alone needed.

    Outputs that are this value itself are left out. Inputs that something else reads stay, behind it.

    Args:
        model: The model; it is not changed.
        tensor: A value that a node of the main graph writes.
        element_type: Its ONNX type.
        shape: Its shape with the batch first; a name or None where a size is open. None where it is not known.
        batch_axis: Its axis of the batch. Where that is not the first, the copy's input has it first, under a name of its own.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    outputs = [o for o in model.graph.output if o.name != tensor]
    inputs = list(model.graph.input)
    for field, values in ((copy.graph.output, outputs), (copy.graph.input, inputs)):
        del field[:]
        field.extend(values)
    name = f"{tensor}__by_sample" if batch_axis else tensor
    copy.graph.input.insert(0, helper.make_tensor_value_info(name, element_type, None if shape is None else list(shape)))
    for node in copy.graph.node:  # of a node whose other outputs are read, this one has another name from here on
        for k, written in enumerate(node.output):
            if written == tensor:
                node.output[k] = f"{tensor}__before"
    if batch_axis and shape is not None:
        order = [0 if k == batch_axis else k + (k < batch_axis) for k in range(len(shape))]
        copy.graph.node.insert(0, helper.make_node("Transpose", [name], [tensor], name=name, perm=order))
    return _kept(copy, _needed(copy, [o.name for o in outputs]))


def _needed(model: onnx.ModelProto, outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that these values need, sorted."""
    return pruned([model.graph.node[n.index] for n in Graph(model).nodes], outputs)


def _kept(copy: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """The copy with these nodes, and what they read and its outputs are."""
    graph = copy.graph
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    used = {r for n in kept for r in reads(n)} | {o.name for o in graph.output}
    made = {o for n in kept for o in n.output}
    weights = [t for t in graph.initializer if t.name in used]
    sparse = [t for t in graph.sparse_initializer if t.values.name in used]
    inputs = [i for i in graph.input if i.name in used]
    for field, left in ((graph.initializer, weights), (graph.sparse_initializer, sparse), (graph.input, inputs)):
        del field[:]
        field.extend(left)
    told = [v for v in graph.value_info if v.name in made]
    del graph.value_info[:], graph.node[:]
    graph.value_info.extend(told)
    graph.node.extend(kept)
    return copy
