"""What flows from the model's input: constants folded, shapes at one sample, and which values vary with the input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfim.errors import ModelError
from onnxfim.graph.folding import FOLDABLE, fold, node_proto
from onnxfim.graph.graph import Graph, Node, TensorInfo

Shape: TypeAlias = "tuple[int | None, ...]"

#: Larger results of constant folding are left alone: a hostile file must not fill the memory.
MAX_FOLDED = 1 << 26

_SAME_SHAPE = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Sigmoid",
        "Tanh",
        "Clip",
        "Elu",
        "Selu",
        "Celu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Mish",
        "Softplus",
        "Softsign",
        "Erf",
        "Exp",
        "Log",
        "Neg",
        "Abs",
        "Sqrt",
        "Reciprocal",
        "Identity",
        "Softmax",
        "LogSoftmax",
        "BatchNormalization",
        "InstanceNormalization",
        "ThresholdedRelu",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Sin",
        "Cos",
        "Not",
        "LRN",
        "Dropout",
        "QuantizeLinear",
        "DequantizeLinear",
        "GroupNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "com.microsoft.Gelu",
        "com.microsoft.FastGelu",
        "com.microsoft.BiasGelu",
        "com.microsoft.QuickGelu",
        "com.microsoft.SkipLayerNormalization",
        "SimplifiedLayerNormalization",
        "RMSNormalization",
        "LayerNormalization",
        "com.microsoft.MultiHeadAttention",
        "com.microsoft.SkipSimplifiedLayerNormalization",
    ]
)


@dataclass(frozen=True)
class Flow:
    """The graph as one sample sees it.

    ``constants`` holds folded results (read weights through `constant`), ``shapes`` the shape of each value with the batch
    axis of the inputs set to 1 (None: rank unknown), ``varying`` the values that depend on ``source``.
    """

    graph: Graph
    source: TensorInfo
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, Shape | None]
    varying: frozenset[str]

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a weight or of a folded constant; None when it is not known before the model runs."""
        value = self.constants.get(name)
        return value if value is not None else self.graph.constant(name)

    def is_constant(self, name: str) -> bool:
        return name in self.constants or self.graph.is_constant(name)

    def shape(self, name: str) -> Shape | None:
        return self.shapes.get(name)


def flow(graph: Graph, *, input_name: str | None = None) -> Flow:
    """Fold constants and follow shapes through ``graph`` for one sample.

    Args:
        graph: The model's graph.
        input_name: The audited input; the first floating-point input by default.

    Raises:
        ModelError: the graph has no such input, or none at all.
    """
    source = _source(graph, input_name)
    constants: dict[str, np.ndarray] = {}
    shapes: dict[str, Shape | None] = {}
    types: dict[str, onnx.TypeProto] = {}
    varying: set[str] = {source.name}
    for info in graph.inputs:
        dims = (
            None
            if info.shape is None
            else tuple(d if isinstance(d, int) else (1 if i == 0 else None) for i, d in enumerate(info.shape))
        )
        shapes[info.name] = dims
        types[info.name] = _type(info.dtype, dims)
    view = Flow(graph, source, constants, shapes, frozenset())
    for node in graph.nodes:
        if any(name in varying for name in node.inputs) or node.has_subgraph:
            varying.update(o for o in node.outputs if o)
        if node.op == "Constant":
            continue
        _visit(view, node, constants, shapes, types)
    return Flow(graph, source, constants, shapes, frozenset(varying - set(constants)))


def _source(graph: Graph, input_name: str | None) -> TensorInfo:
    if not graph.inputs:
        raise ModelError("graph: has no input, so nothing can be perturbed. Export the model with its input.")
    if input_name is None:
        return next((i for i in graph.inputs if i.dtype.startswith(("float", "bfloat"))), graph.inputs[0])
    found = next((i for i in graph.inputs if i.name == input_name), None)
    if found is None:
        names = ", ".join(repr(i.name) for i in graph.inputs)
        raise ModelError(f"graph: has no input {input_name!r}; its inputs are {names}. Choose one of them.")
    return found


def _visit(
    view: Flow, node: Node, constants: dict[str, np.ndarray], shapes: dict[str, Shape | None], types: dict[str, onnx.TypeProto]
) -> None:
    """Enter the outputs of ``node``: their values when they can be folded, and their shapes."""
    if node.op == "Shape" and (dims := _known(shapes.get(node.inputs[0]))) is not None:
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        first, last = start if isinstance(start, int) else 0, end if isinstance(end, int) else None
        constants[node.outputs[0]] = np.asarray(dims, np.int64)[first:last]
        shapes[node.outputs[0]] = constants[node.outputs[0]].shape
        return
    _infer(view, node, shapes, types)
    if node.has_subgraph or not all(view.is_constant(i) for i in node.inputs if i) or node.op not in FOLDABLE:
        return
    sizes = [shapes.get(o) for o in node.outputs if o]
    if any(s is None or None in s or math.prod(d or 0 for d in s) > MAX_FOLDED for s in sizes):
        return
    arrays = [view.constant(i) if i else None for i in node.inputs]
    results = fold(node, arrays, view.graph.opsets)
    for name, value in zip(node.outputs, results, strict=False):
        if name:
            constants[name] = value
            shapes[name] = value.shape


def _infer(view: Flow, node: Node, shapes: dict[str, Shape | None], types: dict[str, onnx.TypeProto]) -> None:
    """Enter the shapes of the node's outputs, as far as ONNX shape inference can tell them."""
    for name in node.inputs:
        if name and name not in shapes:
            value = view.constant(name)
            if value is not None:
                shapes[name] = value.shape
    if node.op in _SAME_SHAPE and node.inputs:
        shapes[node.outputs[0]] = shapes.get(node.inputs[0])
        if node.inputs[0] in types:
            types[node.outputs[0]] = types[node.inputs[0]]
        if node.op == "com.microsoft.SkipLayerNormalization" and len(node.outputs) > 3:
            shapes[node.outputs[3]] = shapes.get(node.inputs[0])
        return
    if node.op == "com.microsoft.Attention":
        x, W = shapes.get(node.inputs[0]), shapes.get(node.inputs[1])
        widths = node.attributes.get("qkv_hidden_sizes")
        width = (
            int(widths[2]) if isinstance(widths, tuple) and widths else (W[1] or 0) // 3 if W is not None and len(W) == 2 else None
        )
        shapes[node.outputs[0]] = None if x is None else (*x[:-1], width)
        return
    domain, _, op = node.op.rpartition(".")
    if node.op in _TWINS:
        domain, op = "", _TWINS[node.op]
    if domain or node.has_subgraph:
        return
    inputs = [n for n in node.inputs if n]
    data: dict[str, onnx.TensorProto] = {}
    for name in inputs:
        value = view.constant(name) if view.is_constant(name) else None
        if name not in types:
            types[name] = _type("float32" if value is None else value.dtype.name, shapes.get(name))
        if value is not None and value.size <= 64:
            data[name] = numpy_helper.from_array(np.asarray(value), name)
    try:
        version = view.graph.opsets.get("ai.onnx", onnx.defs.onnx_opset_version())
        schema = onnx.defs.get_schema(op, min(version, onnx.defs.onnx_opset_version()), "")
        arity = 3 if node.op in ("com.microsoft.FusedConv", "com.microsoft.NhwcFusedConv") else len(node.inputs)
        kept = {k: v for k, v in node.attributes.items() if k in schema.attributes}
        proto = node_proto(op, node.inputs[:arity], node.outputs, kept)
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, {n: types[n] for n in inputs}, data, opset_imports=[helper.make_operatorsetid("", version)]
        )
    except Exception:  # noqa: BLE001 - a shape that inference cannot tell is unknown; the rules say what they miss
        return
    for name, kind in found.items():
        types[name] = kind
        tensor = kind.tensor_type
        if tensor.HasField("shape"):
            shapes[name] = tuple(d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim)


_TWINS = {"com.microsoft.FusedConv": "Conv", "com.microsoft.FusedGemm": "Gemm", "com.microsoft.FusedMatMul": "MatMul"}


def _known(shape: Shape | None) -> tuple[int, ...] | None:
    if shape is None or None in shape:
        return None
    return tuple(int(d) for d in shape if d is not None)


def _type(dtype: str, shape: Shape | None) -> onnx.TypeProto:
    try:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    except (TypeError, ValueError, KeyError):
        kind = onnx.TensorProto.FLOAT
    return helper.make_tensor_type_proto(kind, shape)
