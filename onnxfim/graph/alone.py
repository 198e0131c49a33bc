"""A copy of a model for tools that read one row alone: one input of a fixed shape, one output, and nothing that neither needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import onnx
from onnx import helper
from onnx.external_data_helper import load_external_data_for_model

from onnxfim.errors import OnnxFimError
from onnxfim.graph.cutting import part_before, without_functions
from onnxfim.graph.freeing import freed_copies
from onnxfim.graph.plainer import with_plain_convolutions, without_averages
from onnxfim.graph.prepare import prepare

#: Operators that compute shapes or decide what is computed: few tools beside a runtime know them.
_OF_SHAPES = frozenset({"Shape", "Size", "ConstantOfShape", "Range", "If", "Loop", "Scan", "NonZero", "Expand", "Einsum"})


def copies_alone(
    model: onnx.ModelProto,
    input_name: str,
    value: str,
    shape: Sequence[int],
    *,
    fixed: int | None,
    base_dir: str | os.PathLike[str],
) -> Iterator[tuple[onnx.ModelProto, str]]:
    """Copies that take one row, the least changed first, and what was changed in words; each must be compared with the model.

    The last is in the simplest form that this package knows: functions and control flow written out, shapes and constants folded.
    It comes first where the graph holds what few tools read.

    Args:
        model: The model; it is not changed. It has no other input that the value needs.
        input_name: Its input.
        value: The output, or an inner value, which becomes the only output.
        shape: Of one sample.
        fixed: Rows that the model insists on in a call, or None.
        base_dir: Folder of external data.
    """
    rare = bool(model.functions) or any(n.op_type in _OF_SHAPES for n in model.graph.node) or _packed(model)
    ways = (_simplest, _cut) if rare else (_cut, _simplest)
    for way in ways:
        try:
            for copy, told in way(model, input_name, value, tuple(shape), fixed, base_dir):
                yield from _plainer(copy, told)
                yield copy, told
        except (OnnxFimError, OSError, ValueError, KeyError, IndexError, TypeError):  # no copy in this way
            continue


def _packed(model: onnx.ModelProto) -> bool:
    """Whether weights are kept as integers, to be scaled each time."""
    constants = {t.name for t in model.graph.initializer}
    return any(n.op_type == "DequantizeLinear" and n.input[0] in constants for n in model.graph.node)


def _plainer(copy: onnx.ModelProto, told: str) -> Iterator[tuple[onnx.ModelProto, str]]:
    """The copy without what tools do not read, or misread; nothing where it has none of that."""
    made = copy
    for rewritten, words in (
        (without_averages, "its averages over all positions written as convolutions"),
        (with_plain_convolutions, "its convolutions without groups and with even paddings"),
    ):
        if (found := rewritten(made)) is not None:
            made, told = found, ", ".join(filter(None, (told, words)))
    if made is not copy:
        yield made, told


def _cut(
    model: onnx.ModelProto, input_name: str, value: str, shape: tuple[int, ...], fixed: int | None, base_dir: str | os.PathLike[str]
) -> Iterator[tuple[onnx.ModelProto, str]]:
    whole = without_functions(model)
    told = "its functions written out" if model.functions else ""
    yield _one_row(part_before(whole, value), input_name, shape, base_dir), told
    if fixed is not None and fixed > 1:
        for freed in freed_copies(whole, fixed, input_name, shape, base_dir=base_dir):
            yield (
                _one_row(part_before(freed, value), input_name, shape, base_dir),
                f"{told}, its {fixed} rows a call made one".strip(", "),
            )


def _simplest(
    model: onnx.ModelProto, input_name: str, value: str, shape: tuple[int, ...], fixed: int | None, base_dir: str | os.PathLike[str]
) -> Iterator[tuple[onnx.ModelProto, str]]:
    found = prepare(model, input_name=input_name, output_name=value, sample_shape=shape, base_dir=base_dir)
    entry = next(i for i in model.graph.input if i.name == input_name)
    graph = helper.make_graph(list(found.nodes), "alone", [entry], [onnx.ValueInfoProto(name=value)], list(found.initializers))
    made = helper.make_model(graph, opset_imports=list(found.opset_imports), ir_version=found.ir_version)
    yield _one_row(made, input_name, shape, base_dir), "written in simpler operators, with its shapes and constants folded"


def _one_row(model: onnx.ModelProto, input_name: str, shape: tuple[int, ...], base_dir: str | os.PathLike[str]) -> onnx.ModelProto:
    """The copy with its weights in it, and an input of one row."""
    load_external_data_for_model(model, os.fspath(base_dir))
    entry = next(i for i in model.graph.input if i.name == input_name)
    entry.CopyFrom(helper.make_tensor_value_info(input_name, entry.type.tensor_type.elem_type, [1, *shape]))
    del model.graph.value_info[:], model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    return model


def with_output_shape(model: onnx.ModelProto, shape: Sequence[int]) -> onnx.ModelProto:
    """The copy, which says its only output's type and shape: those of its input's numbers, and ``shape``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name, element = copy.graph.output[0].name, copy.graph.input[0].type.tensor_type.elem_type
    copy.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, element, list(shape)))
    return copy
