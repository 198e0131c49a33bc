"""The ONNX graph as an immutable view: sorted nodes, producers, consumers, weights and known shapes.

Everything here reads; a graph to be computed with is written by `prepare`, a copy to be run by `surgery`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from onnxfim.errors import ModelError
from onnxfim.graph.referring import array_of

Attribute: TypeAlias = "int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | np.ndarray | None"
Dimension: TypeAlias = "int | str | None"


@dataclass(frozen=True)
class Node:
    """One operator call of the graph.

    ``op`` is the operator type, with its domain in front where that is not the standard one
    (``Conv``, ``com.microsoft.FusedConv``). ``label`` is what to show to a person: the node's name, or its first output.
    """

    index: int
    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(repr=False)
    has_subgraph: bool = False

    @property
    def label(self) -> str:
        return self.name or next((o for o in self.outputs if o), f"#{self.index}")


@dataclass(frozen=True)
class TensorInfo:
    """Name, NumPy-style element type and shape of a graph input or output; an unknown dimension is None or its symbol."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None


class Graph:
    """Immutable view of an ONNX model's main graph.

    Args:
        model: The model; it is not changed and must not be changed afterwards.
        base_dir: Folder against which external data is resolved.

    Raises:
        ModelError: a cycle, a value written twice, or a read or an output that nothing provides.
    """

    def __init__(self, model: onnx.ModelProto, *, base_dir: str | os.PathLike[str] = ".") -> None:
        self._model = model
        self._base_dir = Path(base_dir)
        graph = model.graph
        self.opsets: Mapping[str, int] = MappingProxyType({o.domain or "ai.onnx": o.version for o in model.opset_import})
        self._tensors = {t.name: t for t in graph.initializer}
        self._tensors.update({t.values.name: onnx.TensorProto(name=t.values.name) for t in graph.sparse_initializer})
        self.inputs: tuple[TensorInfo, ...] = tuple(_info(v) for v in graph.input if v.name not in self._tensors)
        self.outputs: tuple[TensorInfo, ...] = tuple(_info(v) for v in graph.output)
        self.nodes: tuple[Node, ...] = self._ordered(graph.node)
        provided = {*self._tensors, *self.producers, *(i.name for i in self.inputs)}
        for output in self.outputs:
            if output.name not in provided:
                raise ModelError(f"graph: no node writes the output {output.name!r}. Re-export the model.")

    def _ordered(self, nodes: Iterable[onnx.NodeProto]) -> tuple[Node, ...]:
        provided = {*self._tensors, *(i.name for i in self.inputs), ""}
        made = list(nodes)
        found = [_node(i, n) for i, n in enumerate(made)]
        return _sorted(found, provided, {n.index: reads(made[n.index]) for n in found if n.has_subgraph})

    def rewritten(
        self, nodes: Iterable[onnx.NodeProto], constants: Iterable[onnx.TensorProto], *, opset: int,
        shapes: Mapping[str, tuple[Dimension, ...]],
    ) -> Graph:  # fmt: skip
        """The graph with other nodes between the same inputs and outputs, and further constants beside its weights."""
        graph = copy.copy(self)
        for cached in ("producers", "consumers"):
            graph.__dict__.pop(cached, None)
        graph._tensors = {**self._tensors, **{t.name: t for t in constants}}
        graph.opsets = MappingProxyType({**self.opsets, "ai.onnx": opset})
        graph.nodes = graph._ordered(nodes)
        graph.__dict__["shapes"] = MappingProxyType(shapes)
        return graph

    def with_shapes(self, shapes: Mapping[str, tuple[Dimension, ...]]) -> Graph:
        """The same graph with shapes that were found otherwise."""
        graph = copy.copy(self)
        graph.__dict__["shapes"] = MappingProxyType(shapes)
        return graph

    @property
    def model(self) -> onnx.ModelProto:
        """The model as read; not to be changed."""
        return self._model

    @property
    def weights(self) -> tuple[onnx.TensorProto, ...]:
        """The dense weights as stored."""
        return tuple(self._model.graph.initializer)

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that writes each value."""
        return MappingProxyType({o: n for n in self.nodes for o in n.outputs if o})

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, in graph order."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    readers.setdefault(name, []).append(node)
        return MappingProxyType({k: tuple(v) for k, v in readers.items()})

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an initializer or Constant node, or None when ``name`` is computed.

        External data is read from the model's own folder only.
        """
        tensor = self._tensors.get(name)
        if tensor is not None:
            try:
                return array_of(tensor, self._base_dir)
            except Exception as error:  # onnx raises many kinds for bad or escaping external data
                raise ModelError(f"weight {name!r}: cannot be read ({_first_line(error)}). Re-export the model.") from error
        node = self.producers.get(name)
        if node is None or node.op != "Constant":
            return None
        value = next(iter(node.attributes.values()), None)
        return None if value is None else np.asarray(value)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[Dimension, ...]]:
        """Shapes known statically (ONNX shape inference); a dimension that is not known is None or its symbol."""
        try:
            inferred = onnx.shape_inference.infer_shapes(self._model).graph
        except Exception:  # noqa: BLE001 - a convenience only: a model that inference cannot take still runs
            inferred = self._model.graph
        known = {v.name: _info(v).shape for v in (*inferred.input, *inferred.output, *inferred.value_info)}
        known.update({t.name: tuple(t.dims) for t in self._model.graph.initializer})
        return MappingProxyType({k: v for k, v in known.items() if v is not None})


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
    except (KeyError, TypeError, ValueError):
        dtype = "unknown"
    if not kind.HasField("shape"):
        return TensorInfo(value.name, dtype, None)
    dims: list[Dimension] = []
    for d in kind.shape.dim:
        which = d.WhichOneof("value")
        dims.append(d.dim_value if which == "dim_value" and d.dim_value > 0 else (d.dim_param or None))
    return TensorInfo(value.name, dtype, tuple(dims))


def _node(index: int, proto: onnx.NodeProto) -> Node:
    attributes: dict[str, Attribute] = {}
    has_subgraph = False
    for a in proto.attribute:
        if a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            has_subgraph = True
        else:
            attributes[a.name] = _attribute(a)
    op = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
    return Node(
        index=index, op=op, name=proto.name, inputs=tuple(proto.input), outputs=tuple(proto.output),
        attributes=MappingProxyType(attributes), has_subgraph=has_subgraph,
    )  # fmt: skip


def _attribute(a: onnx.AttributeProto) -> Attribute:
    if a.type == onnx.AttributeProto.TENSOR:
        return np.asarray(numpy_helper.to_array(a.t))
    value = onnx.helper.get_attribute_value(a) if a.type != onnx.AttributeProto.UNDEFINED else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (int, float)):
        return value
    if value is None or not hasattr(value, "__iter__"):
        return None
    return tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value)


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


def _sorted(nodes: list[Node], provided: set[str], captured: Mapping[int, Sequence[str]]) -> tuple[Node, ...]:
    """Nodes in topological order (file order among the ready ones); what subgraphs of a node capture comes before it."""
    writer: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for output in node.outputs:
            if output and (output in writer or output in provided):
                raise ModelError(f"graph: value {output!r} is written twice (node {node.label!r}). Re-export the model.")
            writer[output] = i
    waiting = [0] * len(nodes)
    readers: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        for name in {*node.inputs, *captured.get(i, ())} - provided:
            if name not in writer:
                if node.has_subgraph:
                    continue
                raise ModelError(f"graph: node {node.label!r} reads {name!r}, which nothing provides. Re-export the model.")
            readers[writer[name]].append(i)
            waiting[i] += 1
    ready = [i for i, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        ready_next: list[int] = []
        for i in ready:
            order.append(i)
            for j in readers[i]:
                waiting[j] -= 1
                if waiting[j] == 0:
                    ready_next.append(j)
        ready = sorted(ready_next)
    if len(order) < len(nodes):
        stuck = next(n for i, n in enumerate(nodes) if waiting[i])
        raise ModelError(f"graph: node {stuck.label!r} is part of a cycle; an ONNX graph has none. Re-export the model.")
    return tuple(nodes[i] for i in order)
