"""Bring a model to the form that is differentiated and bounded: sorted, upgraded, simple operators, shapes known.

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

from onnxfim.errors import ModelError, OnnxFimError, UnsupportedOperator
from onnxfim.graph import quantised
from onnxfim.graph.batch import walk_freed
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.expand import HALF, expansion, told_unfit, tolerant, unfit, unroller_of, widen
from onnxfim.graph.graph import Graph, reads
from onnxfim.graph.integers import floated
from onnxfim.graph.shapes import STANDARD, Batch, Expand, OpenShape, Trace, TraceError, Walk, merge, walk
from onnxfim.graph.simplify import rename, simplified
from onnxfim.graph.upgrade import TARGET, too_old, upgrade


@dataclass(frozen=True)
class Prepared:
    """A graph ready to be differentiated.

    ``x`` is the value to differentiate with respect to, ``z`` the one to differentiate; ``inputs`` are the other graph
    inputs. Initializers are the model's own messages, to be copied only into the final model. ``kept`` tells by the first output of
    a node of control flow why it could not be written out.
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
    kept: Mapping[str, str]

    @property
    def opset(self) -> int:
        return next(int(o.version) for o in self.opset_imports if o.domain in STANDARD)


def pruned(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str], *, stop: Collection[str] = ()) -> list[onnx.NodeProto]:
    """Nodes that the outputs need; values in ``stop`` are given."""
    needed = set(outputs) - set(stop)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(set(reads(node)) - set(stop))
    return kept[::-1]


@told_unfit
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
        nodes = floated(nodes, initializers, emitter, base_dir=base_dir)
        nodes = quantised.clipped(nodes, initializers, emitter, base_dir=base_dir)
    nodes, initializers = quantised.dequantised(nodes, initializers, base_dir=base_dir)
    initializers, casts = _widened(initializers, emitter)
    nodes = casts + [widen(n) for n in nodes]
    inputs = [i for i in model.graph.input if i.name in {g.name for g in graph.inputs}]
    unroller = unroller_of(model, emitter, wide=True)
    try:
        nodes, trace = _traced(
            nodes, initializers, inputs, opset, expansion(model, opset, emitter, unroller, wide=True), emitter, unroller.decisions,
            input_name=input_name, sample_shape=sample_shape, dimensions=dimensions or {}, base_dir=base_dir,
        )  # fmt: skip
    except TraceError as error:  # at another batch size the axis has other rows
        if error.node in unroller.splits:
            raise UnsupportedOperator(f"node {error.node!r}: SplitToSequence makes a sequence of the rows of the batch.") from error
        raise
    nodes, initializers = simplified(nodes, [*initializers, *emitter.constants], trace, {input_name, output_name}, emitter)
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
        kept=unroller.reasons,
    )
    return _renamed(prepared, {n: emitter.fresh(n) for n in reserved if n in names})


@dataclass(frozen=True)
class OneSample:
    """A whole graph ready to be read at one sample, whatever could not be brought to the common form left as it is.

    ``constants`` are those that the rewriting made; ``problems`` and ``problem`` are those of `Flow`.
    """

    nodes: tuple[onnx.NodeProto, ...]
    constants: tuple[onnx.TensorProto, ...]
    found: Walk
    opset: int
    problems: Mapping[str, str]
    problem: str | None


def for_one_sample(graph: Graph, inputs: Mapping[str, tuple[int, OpenShape | None]], *, keeps: Collection[str]) -> OneSample:
    """Return the nodes of a graph in the common form, with shapes and constants as far as they are known at one sample.

    Nodes come in the order of the file, those written out in the place of the node that they stand for.

    Args:
        graph: The file's graph.
        inputs: ONNX element type and shape of each input; dimensions may be open.
        keeps: Operators that the reader has rules for: they are not written out.
    """
    names = {t.name for t in graph.weights}.union(inputs, *(n.outputs for n in graph.nodes))
    emitter = Emitter(names, prefix="p")
    version = graph.opsets.get("ai.onnx", TARGET)
    problem, problems = too_old(version), dict[str, str]()
    opset = version if problem else max(version, TARGET)
    nodes: list[onnx.NodeProto] = []
    places: list[int] = []
    for node in graph.nodes:
        copy = _copy(graph.model.graph.node[node.index])
        try:
            newer = [copy] if problem else upgrade([copy], version, emitter)
        except Exception as error:  # noqa: BLE001 - a node of no known form: the reason is told where it matters
            newer = [copy]
            why = str(error) if isinstance(error, OnnxFimError) else unfit(copy, error)
            problems.update(dict.fromkeys(node.outputs[:1], why))
        nodes += newer
        places += [node.index] * len(newer)
    unroller = unroller_of(graph.model, emitter)
    try:
        expand = expansion(graph.model, opset, emitter, unroller, keeps=keeps)
    except ModelError as error:
        problem, expand = problem or str(error), expansion(onnx.ModelProto(), opset, emitter, unroller, keeps=keeps)
    weights = [*graph.weights, *emitter.constants]
    read = {t.name: t for t in emitter.constants}
    found, done = walk(
        nodes, weights, inputs, opset=opset, expand=tolerant(expand, problems),
        read=lambda n: numpy_helper.to_array(read[n]) if n in read else graph.constant(n),
    )  # fmt: skip
    order = sorted(range(len(done)), key=lambda i: places[found.origin[i]])
    kept = {
        o: f"node {n.name!r}, op {n.op_type}: {unroller.reasons[o]}" for n in done for o in n.output[:1] if o in unroller.reasons
    }
    return OneSample(tuple(done[i] for i in order), tuple(emitter.constants), found, opset, {**kept, **problems}, problem)


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
        if tensor.data_type in HALF:
            half = onnx.TensorProto()
            half.CopyFrom(tensor)
            half.name = emitter.fresh("half")
            casts.append(helper.make_node("Cast", [half.name], [tensor.name], name=half.name, to=TensorProto.FLOAT))
            kept.append(half)
        else:
            kept.append(tensor)
    return kept, casts


# shapes


def _traced(
    nodes: list[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    inputs: Sequence[onnx.ValueInfoProto],
    opset: int,
    simpler: Expand,
    emitter: Emitter,
    decisions: dict[str, np.ndarray],
    *,
    input_name: str,
    sample_shape: Sequence[int] | None,
    dimensions: Mapping[str, int],
    base_dir: str | os.PathLike[str],
) -> tuple[list[onnx.NodeProto], Trace]:
    """Write composite operators out and learn all shapes; a batch axis of fixed size is freed.

    ``decisions`` are the values that decided what was written out, as far as the walk went.
    """

    def at(batch: int) -> dict[str, tuple[int, tuple[int, ...]]]:
        sizes: dict[str, tuple[int, tuple[int, ...]]] = {}
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
            _same_decisions(decisions, second)
            return flat, merge(first, second, first_batch=2, second_batch=3)
        except TraceError:
            fixed = 1  # declared free, but a constant in the graph holds the batch of the export
            decisions.clear()
    first, flat = walk(nodes, [*weights, *emitter.constants], at(fixed), opset=opset, expand=simpler)
    second, freed = walk_freed(flat, [*weights, *emitter.constants], at(2 * fixed), first, emitter, opset=opset, base_dir=base_dir)
    _same_decisions(decisions, second)
    known, _ = walk(freed, [*weights, *emitter.constants], at(fixed), opset=opset)
    return freed, merge(known, second, first_batch=fixed, second_batch=2 * fixed)


def _same_decisions(decisions: Mapping[str, np.ndarray], found: Walk) -> None:
    """Raise TraceError where a branch, or a number of turns, that was written out would be another at this batch size."""
    for name, value in decisions.items():
        now = found.values.get(name)
        if now is None or now.shape != value.shape or (now != value).any():
            raise TraceError(f"value {name!r}: a branch or a number of turns depends on it, and it depends on the batch size.")


def _elem(value: onnx.ValueInfoProto) -> int:
    elem = value.type.tensor_type.elem_type
    return int(TensorProto.FLOAT if elem in HALF else elem)


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


def _renamed(prepared: Prepared, names: Mapping[str, str]) -> Prepared:
    """The same graph with values renamed."""
    if not names:
        return prepared
    for node in prepared.nodes:
        rename(node, names)
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
