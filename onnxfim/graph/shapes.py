"""Shapes, element types and small constant values of a graph, known for every batch size.

The graph is walked at two batch sizes. With numbers in place of symbols every exporter's Shape/Gather/Concat chain is a
constant, so all shapes are known; what differs between the two walks is what depends on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxfim.errors import ModelError

STANDARD = ("", "ai.onnx")
_SMALL = 65_536  # elements of a value that is worth computing ahead
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}


@dataclass(frozen=True)
class Batch:
    """A dimension that is ``factor`` times the batch size."""

    factor: int


Dim: TypeAlias = "int | Batch"
Shape: TypeAlias = "tuple[Dim, ...]"


class TraceError(ModelError):
    """A shape does not work out at the batch size that was tried."""


@dataclass
class Walk:
    """What one walk found: shapes in numbers, ONNX element types, values of constants."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    elem: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def put(self, name: str, value: np.ndarray) -> None:
        self.values[name] = value
        self.shapes[name] = value.shape
        self.elem[name] = helper.np_dtype_to_tensor_dtype(value.dtype)


@dataclass(frozen=True)
class Trace:
    """Shapes with their dependence on the batch, element types, and values that do not depend on the batch."""

    shapes: Mapping[str, Shape]
    elem: Mapping[str, int]
    values: Mapping[str, np.ndarray]


Expand: TypeAlias = "Callable[[onnx.NodeProto, Walk], list[onnx.NodeProto] | None]"


def walk(
    nodes: Iterable[onnx.NodeProto],
    initializers: Iterable[onnx.TensorProto],
    inputs: Mapping[str, tuple[int, Sequence[int]]],
    *,
    opset: int,
    expand: Expand | None = None,
) -> tuple[Walk, list[onnx.NodeProto]]:
    """Infer every shape with numbers, compute small constants, and replace nodes on the way.

    Args:
        nodes: Nodes in topological order.
        initializers: Weights; the values of small ones are read.
        inputs: Element type and shape of each graph input, in numbers.
        opset: Version of the standard operators.
        expand: Gives the nodes to walk in place of a node, or None to keep it.

    Raises:
        TraceError: shapes do not fit each other.
    """
    found = Walk()
    for tensor in initializers:
        found.shapes[tensor.name] = tuple(tensor.dims)
        found.elem[tensor.name] = tensor.data_type
        if math.prod(tensor.dims) <= _SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
            found.put(tensor.name, numpy_helper.to_array(tensor))
    for name, (elem_type, shape) in inputs.items():
        found.shapes[name] = tuple(shape)
        found.elem[name] = elem_type
    todo = list(nodes)[::-1]
    done: list[onnx.NodeProto] = []
    while todo:
        node = todo.pop()
        instead = expand(node, found) if expand else None
        if instead is not None:
            todo.extend(instead[::-1])
            continue
        _visit(node, found, opset)
        done.append(node)
    return found, done


def _visit(node: onnx.NodeProto, found: Walk, opset: int) -> None:
    if node.op_type == "Constant" and node.domain in STANDARD:
        value = constant_value(node)
        if value is not None:
            found.put(node.output[0], value)
            return
    if any(i and i not in found.shapes for i in node.input):
        return
    if node.op_type == "Shape" and node.domain in STANDARD:
        attributes = {a.name: a.i for a in node.attribute}
        shape = found.shapes[node.input[0]][attributes.get("start", 0) : attributes.get("end")]
        found.put(node.output[0], np.asarray(shape, np.int64))
        return
    _infer(node, found, opset)
    if node.op_type in ("AveragePool", "MaxPool") and node.output[0] in found.shapes:
        _drop_windows(node, found)
    if node.op_type == "Reshape" and node.output[0] in found.shapes:
        before, after = (math.prod(found.shapes[n]) for n in (node.input[0], node.output[0]))
        if before != after:
            raise TraceError(f"node {node.name!r}: {before} elements cannot be reshaped to {found.shapes[node.output[0]]}.")
    _evaluate(node, found, opset)


def _infer(node: onnx.NodeProto, found: Walk, opset: int) -> None:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain if node.domain not in STANDARD else "")
    except onnx.defs.SchemaError:
        return
    names = [i for i in node.input if i]
    types = {n: helper.make_tensor_type_proto(found.elem[n], found.shapes[n]) for n in names}
    data = {n: numpy_helper.from_array(found.values[n], n) for n in names if n in found.values and found.values[n].size <= 4096}
    imports = [helper.make_opsetid("", opset)]
    try:
        outputs = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
    except onnx.shape_inference.InferenceError as error:
        raise TraceError(f"node {node.name or node.output[0]!r} ({node.op_type}): {str(error).splitlines()[0]}") from error
    except Exception:  # noqa: BLE001 - inference has no answer here (a subgraph, a missing schema); a rule will say so if it matters
        return
    for name, kind in outputs.items():
        if not name or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
            continue
        found.elem[name] = kind.tensor_type.elem_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.tensor_type.shape.dim]
        if -1 not in dims:
            found.shapes[name] = tuple(dims)


def _drop_windows(node: onnx.NodeProto, found: Walk) -> None:
    """With ceil_mode, no window starts behind the cells and the padding in front; shape inference counts those too."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if not attributes.get("ceil_mode") or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return
    x, y = found.shapes[node.input[0]], found.shapes[node.output[0]]
    rank = len(x) - 2
    ones = [1] * rank
    strides, pads = attributes.get("strides", ones), attributes.get("pads", [0] * 2 * rank)
    extent = [(k - 1) * d + 1 for k, d in zip(attributes["kernel_shape"], attributes.get("dilations", ones), strict=True)]
    out = []
    for h, s, e, begin, end in zip(x[2:], strides, extent, pads[:rank], pads[rank:], strict=True):
        count = -(-(h + begin + end - e) // s) + 1
        out.append(count - 1 if (count - 1) * s >= h + begin else count)
    for name in node.output:
        if name:
            found.shapes[name] = (*y[:2], *out)


def _evaluate(node: onnx.NodeProto, found: Walk, opset: int) -> None:
    """Compute the outputs of a node whose inputs are all known and small."""
    names = [i for i in node.input if i]
    if not names or node.op_type in _RANDOM or node.domain not in STANDARD or any(n not in found.values for n in names):
        return
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return
    outputs = [o for o in node.output if o]
    if any(math.prod(found.shapes[o]) > _SMALL for o in outputs if o in found.shapes):
        return
    if any(o not in found.shapes for o in outputs) and node.op_type not in ("NonZero", "Slice", "Reshape"):
        return
    try:
        results = ReferenceEvaluator(node, opsets={"": opset}).run(None, {n: found.values[n] for n in names})
    except Exception:  # noqa: BLE001 - not computed ahead; the runtime computes it
        return
    for name, value in zip(node.output, results, strict=False):
        if name and isinstance(value, (np.ndarray, np.generic)) and value.size <= _SMALL:
            found.put(name, np.asarray(value))


def constant_value(node: onnx.NodeProto) -> np.ndarray | None:
    """The value of a Constant node, or None for kinds that are not tensors."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        if math.prod(attribute.t.dims) > _SMALL or attribute.t.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return np.asarray(numpy_helper.to_array(attribute.t))
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(helper.get_attribute_value(attribute), np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(helper.get_attribute_value(attribute), np.int64)
    return None


def merge(first: Walk, second: Walk, *, first_batch: int, second_batch: int) -> Trace:
    """Join two walks at different batch sizes into what holds for every batch size.

    Raises:
        TraceError: a shape that does not grow in proportion to the batch.
    """
    shapes: dict[str, Shape] = {}
    for name, a in first.shapes.items():
        b = second.shapes.get(name)
        if b is None:
            continue
        if len(a) != len(b):
            raise TraceError(f"value {name!r}: its rank depends on the batch size ({a} against {b}).")
        shapes[name] = tuple(
            _dim(name, i, j, first_batch=first_batch, second_batch=second_batch) for i, j in zip(a, b, strict=True)
        )
    values = {n: v for n, v in first.values.items() if n in second.values and _same(v, second.values[n])}
    return Trace(shapes, first.elem, values)


def _dim(name: str, a: int, b: int, *, first_batch: int, second_batch: int) -> Dim:
    if a == b:
        return a
    factor, rest = divmod(b - a, second_batch - first_batch)
    if rest or factor <= 0 or a != factor * first_batch:
        raise TraceError(f"value {name!r}: a dimension is {a} at batch {first_batch} and {b} at batch {second_batch}.")
    return Batch(factor)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
