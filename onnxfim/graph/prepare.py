"""Bring a model to the form that is differentiated: sorted, upgraded, simple operators, every shape known.

Works on copies of the nodes; weights are referred to, never converted. What the runtime does better (folding weights,
fusing nodes) is left to it: the derivative is written first and optimised afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxfim.errors import ModelError
from onnxfim.graph import inline, lower, quantised
from onnxfim.graph.batch import free_batch
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.graph import Graph
from onnxfim.graph.shapes import STANDARD, Batch, Trace, TraceError, Walk, merge, walk
from onnxfim.graph.upgrade import TARGET, upgrade

_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Prepared:
    """A graph ready to be differentiated.

    ``x`` is the value to differentiate with respect to, ``z`` the one to differentiate; ``inputs`` are the other graph
    inputs. Initializers are the model's own messages, to be copied only into the final model.
    """

    nodes: tuple[onnx.NodeProto, ...]
    initializers: tuple[onnx.TensorProto, ...]
    inputs: tuple[onnx.ValueInfoProto, ...]
    trace: Trace
    opset_imports: tuple[onnx.OperatorSetIdProto, ...]
    ir_version: int
    x: str
    z: str
    input_name: str  # what x and z are called in the file
    output_name: str

    @property
    def opset(self) -> int:
        return next(int(o.version) for o in self.opset_imports if o.domain in STANDARD)


def reads(node: onnx.NodeProto) -> list[str]:
    """Values a node reads, those captured by its subgraphs included."""
    names = [i for i in node.input if i]
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else [])):
            inner = {t.name for t in graph.initializer} | {i.name for i in graph.input}
            inner.update(o for n in graph.node for o in n.output)
            names.extend(r for n in graph.node for r in reads(n) if r not in inner)
            names.extend(o.name for o in graph.output if o.name not in inner)
    return names


def pruned(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str], *, stop: Collection[str] = ()) -> list[onnx.NodeProto]:
    """Nodes that the outputs need; values in ``stop`` are given."""
    needed = set(outputs) - set(stop)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(set(reads(node)) - set(stop))
    return kept[::-1]


def prepare(
    model: onnx.ModelProto,
    *,
    input_name: str,
    output_name: str,
    reserved: Collection[str] = (),
    sample_shape: Sequence[int] | None = None,
    dimensions: Mapping[str, int] | None = None,
    surrogate: Literal["clip"] | None = None,
    base_dir: str | os.PathLike[str] = ".",
) -> Prepared:
    """Return the part of a model between two values in the form that is differentiated.

    float16 and bfloat16 are computed in float32: the function then differs from the file's at rounding level.

    Args:
        model: The model; it is not changed.
        input_name: A graph input, or any inner float value, to differentiate with respect to.
        output_name: Value to differentiate.
        reserved: Names that the caller will use for new values; the model's own are renamed out of the way.
        sample_shape: Shape of one sample, where the file leaves dimensions of the graph input open.
        dimensions: Sizes for other symbolic dimensions by their name.
        surrogate: "clip" replaces each quantise-dequantise pair by a Clip to its range (a surrogate, not the file).
        base_dir: Folder of external data; read only for scales and zero points.

    Raises:
        ModelError: a malformed graph, an unknown value, an open dimension, or a batch axis that cannot be freed.
        UnsupportedOperator: an operator that has no form in a current operator set.
    """
    graph = Graph(model, base_dir=base_dir)
    sources = {t.name for t in model.graph.initializer} | {i.name for i in graph.inputs}
    nodes = [_copy(model.graph.node[n.index]) for n in graph.nodes]
    names = sources.union(*(n.output for n in nodes)) if nodes else sources
    for what, name in (("input", input_name), ("output", output_name)):
        if name not in names:
            raise ModelError(f"{what} {name!r}: the graph has no such value; graph inputs are {[i.name for i in graph.inputs]}.")
    nodes = pruned(nodes, [output_name])
    sparse = {t.values.name for t in model.graph.sparse_initializer}.intersection(r for n in nodes for r in reads(n))
    if sparse:
        raise ModelError(f"weight {min(sparse)!r}: sparse weights are not differentiated. Re-export the model with dense ones.")
    emitter = Emitter([*names, *reserved], prefix="p")
    version = graph.opsets.get("ai.onnx", TARGET)
    nodes = upgrade(nodes, version, emitter)
    opset = max(version, TARGET)
    initializers = _needed(model.graph.initializer, nodes)
    if surrogate == "clip":
        nodes = quantised.clipped(nodes, initializers, emitter, base_dir=base_dir)
    nodes, initializers = quantised.dequantised(nodes, initializers, base_dir=base_dir)
    initializers, casts = _widened(initializers, emitter)
    nodes = casts + [_wide(n) for n in nodes]
    inputs = [i for i in model.graph.input if i.name in {g.name for g in graph.inputs}]
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    nodes, trace = _traced(
        nodes, initializers, inputs, opset, functions, emitter,
        input_name=input_name, sample_shape=sample_shape, dimensions=dimensions or {},
    )  # fmt: skip
    nodes, initializers = _simplified(nodes, [*initializers, *emitter.constants], trace, {input_name, output_name}, emitter)
    nodes = pruned(nodes, [output_name], stop=[input_name])
    used = {r for n in nodes for r in reads(n)} | {output_name}
    imports = [helper.make_opsetid("", opset)]
    imports += [o for o in model.opset_import if o.domain not in STANDARD]
    prepared = Prepared(
        nodes=tuple(nodes),
        initializers=tuple(t for t in initializers if t.name in used),
        inputs=tuple(_declared(i, trace) for i in inputs if i.name in used and i.name != input_name),
        trace=trace,
        opset_imports=tuple(imports),
        ir_version=max(model.ir_version, 8),
        x=input_name,
        z=output_name,
        input_name=input_name,
        output_name=output_name,
    )
    return _renamed(prepared, {n: emitter.fresh(n) for n in reserved if n in names})


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = node.name or next((o for o in node.output if o), node.op_type)
    return copy


def _needed(initializers: Iterable[onnx.TensorProto], nodes: Iterable[onnx.NodeProto]) -> list[onnx.TensorProto]:
    used = {r for n in nodes for r in reads(n)}
    return [t for t in initializers if t.name in used]


# half precision


def _widened(initializers: Iterable[onnx.TensorProto], emitter: Emitter) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Half precision weights under another name, and the casts that give them back as float32."""
    kept, casts = [], []
    for tensor in initializers:
        if tensor.data_type in _HALF:
            half = onnx.TensorProto()
            half.CopyFrom(tensor)
            half.name = emitter.fresh("half")
            casts.append(helper.make_node("Cast", [half.name], [tensor.name], name=half.name, to=TensorProto.FLOAT))
            kept.append(half)
        else:
            kept.append(tensor)
    return kept, casts


def _wide(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node with float32 in place of half precision in its attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _HALF:
            value = numpy_helper.to_array(attribute.t).astype(np.float32)
            attribute.t.CopyFrom(numpy_helper.from_array(value))
        elif attribute.name in ("to", "dtype") and attribute.i in _HALF:
            attribute.i = TensorProto.FLOAT
    return node


# shapes


def _traced(
    nodes: list[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    inputs: Sequence[onnx.ValueInfoProto],
    opset: int,
    functions: Mapping[tuple[str, str, str], onnx.FunctionProto],
    emitter: Emitter,
    *,
    input_name: str,
    sample_shape: Sequence[int] | None,
    dimensions: Mapping[str, int],
) -> tuple[list[onnx.NodeProto], Trace]:
    """Write composite operators out and learn all shapes; a batch axis of fixed size is freed."""

    def simpler(node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        before = len(emitter.constants)
        body = functions.get((node.domain, node.op_type, node.overload)) or inline.schema_function(node, found, opset)
        if body is not None:
            instead: list[onnx.NodeProto] | None = [_wide(n) for n in inline.inlined(node, body, opset, emitter)]
        else:
            instead = lower.lowered(node, found, emitter)
        for tensor in emitter.constants[before:]:
            found.put(tensor.name, numpy_helper.to_array(tensor))
        return instead

    def at(batch: int) -> dict[str, tuple[int, tuple[int, ...]]]:
        sizes = {}
        for i in inputs:
            own = sample_shape if i.name == input_name else None
            sizes[i.name] = (_elem(i), _sizes(i, batch, fixed=fixed, sample_shape=own, dimensions=dimensions))
        return sizes

    weights = list(initializers)
    fixed = _fixed_batch(inputs)
    if fixed is None:
        try:
            first, flat = walk(nodes, [*weights, *emitter.constants], at(2), opset=opset, expand=simpler)
            second, _ = walk(flat, [*weights, *emitter.constants], at(3), opset=opset)
            return flat, merge(first, second, first_batch=2, second_batch=3)
        except TraceError:
            fixed = 1  # declared free, but a constant in the graph holds the batch of the export
    first, flat = walk(nodes, [*weights, *emitter.constants], at(fixed), opset=opset, expand=simpler)
    second, freed = free_batch(flat, [*weights, *emitter.constants], at(2 * fixed), first, emitter, opset=opset)
    known, _ = walk(freed, [*weights, *emitter.constants], at(fixed), opset=opset)
    return freed, merge(known, second, first_batch=fixed, second_batch=2 * fixed)


def _elem(value: onnx.ValueInfoProto) -> int:
    elem = value.type.tensor_type.elem_type
    return int(TensorProto.FLOAT if elem in _HALF else elem)


def _fixed_batch(inputs: Sequence[onnx.ValueInfoProto]) -> int | None:
    """Leading dimension of the graph inputs where it is a number."""
    leading = [i.type.tensor_type.shape.dim[0] for i in inputs if len(i.type.tensor_type.shape.dim)]
    sizes = [d.dim_value for d in leading if d.dim_value > 0]
    return sizes[0] if sizes and len(sizes) == len(leading) else None


def _sizes(
    value: onnx.ValueInfoProto,
    batch: int,
    *,
    fixed: int | None,
    sample_shape: Sequence[int] | None,
    dimensions: Mapping[str, int],
) -> tuple[int, ...]:
    """Shape of a graph input at a batch size."""
    dims = list(value.type.tensor_type.shape.dim)
    if sample_shape is not None and (not value.type.tensor_type.HasField("shape") or len(dims) == 1 + len(sample_shape)):
        return (batch, *(int(s) for s in sample_shape))
    sizes = []
    for axis, d in enumerate(dims):
        if axis == 0 and (d.dim_value <= 0 or d.dim_value == fixed):
            sizes.append(batch)
        elif d.dim_value > 0:
            sizes.append(d.dim_value)
        elif d.dim_param in dimensions:
            sizes.append(int(dimensions[d.dim_param]))
        else:
            raise ModelError(
                f"input {value.name!r}: dimension {axis} ({d.dim_param or '?'}) is open. "
                "Give the shape of one sample, or a size for that dimension."
            )
    return tuple(sizes)


def _declared(value: onnx.ValueInfoProto, trace: Trace) -> onnx.ValueInfoProto:
    dims = ["N" if isinstance(d, Batch) else d for d in trace.shapes[value.name]]
    return helper.make_tensor_value_info(value.name, trace.elem[value.name], dims)


# simplification


def _simplified(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    trace: Trace,
    ends: set[str],
    emitter: Emitter,
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Constants in place of what computes them, static Reshape targets, and nodes that do nothing taken out."""
    tensors = list(initializers)
    known = {t.name for t in tensors}
    alias: dict[str, str] = {}
    kept = []
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = alias.get(name, name)
        if node.op_type == "Constant" and node.domain in STANDARD and node.attribute[0].name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            tensors.append(tensor)
        elif all(o in trace.values for o in node.output if o) and not ends.intersection(node.output):
            tensors.extend(numpy_helper.from_array(trace.values[o], o) for o in node.output if o and o not in known)
        elif _idle(node, trace) and node.output[0] not in ends:
            alias[node.output[0]] = node.input[0]
        else:
            _settle_target(node, trace, emitter)
            kept.append(node)
    return kept, [*tensors, *(c for c in emitter.constants if c.name not in {t.name for t in tensors})]


def _idle(node: onnx.NodeProto, trace: Trace) -> bool:
    """True for a node that hands its first input on unchanged."""
    if node.domain not in STANDARD or any(node.output[1:]):
        return False
    if node.op_type == "Identity":
        return True
    x, y = node.input[0] if node.input else "", node.output[0]
    if x not in trace.shapes or y not in trace.shapes:
        return False
    if node.op_type in ("Cast", "CastLike"):
        return trace.elem[x] == trace.elem[y]
    if node.op_type == "Transpose":
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        return perm == sorted(perm) if perm is not None else len(trace.shapes[x]) < 2
    return node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand") and trace.shapes[x] == trace.shapes[y]


def _settle_target(node: onnx.NodeProto, trace: Trace, emitter: Emitter) -> None:
    """Give a Reshape whose target holds the batch a constant one with −1 there."""
    shape = trace.shapes.get(node.output[0]) if node.op_type == "Reshape" and node.domain in STANDARD else None
    if shape is None or node.input[1] in trace.values or sum(isinstance(d, Batch) for d in shape) != 1:
        return
    if 0 not in shape:
        node.input[1] = emitter.constant(np.asarray([-1 if isinstance(d, Batch) else d for d in shape], np.int64))


def _renamed(prepared: Prepared, names: Mapping[str, str]) -> Prepared:
    """The same graph with values renamed."""
    if not names:
        return prepared
    for node in prepared.nodes:
        _rename_node(node, names)
    tensors = []
    for tensor in prepared.initializers:
        if tensor.name in names:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name]
            tensors.append(copy)
        else:
            tensors.append(tensor)
    trace = Trace(
        {names.get(k, k): v for k, v in prepared.trace.shapes.items()},
        {names.get(k, k): v for k, v in prepared.trace.elem.items()},
        {names.get(k, k): v for k, v in prepared.trace.values.items()},
    )
    return replace(
        prepared, initializers=tuple(tensors), trace=trace,
        x=names.get(prepared.x, prepared.x), z=names.get(prepared.z, prepared.z),
    )  # fmt: skip


def _rename_node(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for values in (node.input, node.output):
        for i, name in enumerate(values):
            values[i] = names.get(name, name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else [])):
            for inner in graph.node:
                _rename_node(inner, names)
            for output in graph.output:
                output.name = names.get(output.name, output.name)
