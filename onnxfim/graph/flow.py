"""What flows from the model's input: the prepared graph as a view, constants folded, shapes at one sample, what varies."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from onnx import TensorProto, helper

from onnxfim.errors import ModelError
from onnxfim.graph.graph import Graph, TensorInfo
from onnxfim.graph.prepare import for_one_sample
from onnxfim.graph.shapes import OpenShape


@dataclass(frozen=True)
class Flow:
    """The graph as one sample sees it.

    ``graph`` holds the prepared nodes: functions written out, operators in the form of set 18 or the file's own newer one.
    ``constants`` holds folded results (read weights through `constant`), ``shapes`` the shape of each value with the batch
    axis of the inputs set to 1 (None: rank unknown), ``varying`` the values that depend on ``source``. ``problems`` says
    by the first output of a node why it could not be brought to that form, ``problem`` why the whole graph could not. ``elements``
    are the ONNX element types of the values, as far as they are known.
    """

    graph: Graph
    source: TensorInfo
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, OpenShape]
    varying: frozenset[str]
    problems: Mapping[str, str]
    problem: str | None
    elements: Mapping[str, int] = field(default_factory=dict)

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a weight or of a folded constant; None when it is not known before the model runs."""
        value = self.constants.get(name)
        return value if value is not None else self.graph.constant(name)

    def shape(self, name: str) -> OpenShape | None:
        return self.shapes.get(name)


def flow(
    graph: Graph, *, input_name: str | None = None, keeps: Collection[str] = (), sample_shape: Sequence[int] | None = None
) -> Flow:  # fmt: skip
    """Prepare ``graph`` for one sample, fold constants and follow shapes.

    Args:
        graph: The file's graph.
        input_name: The audited input; the first floating-point input by default.
        keeps: Operators that the reader has rules for: they are not written out.
        sample_shape: Shape of one sample of that input, where the file leaves dimensions open.

    Raises:
        ModelError: the graph has no such input, or none at all.
    """
    source = _source(graph, input_name)
    batch = source.shape[0] if source.shape and isinstance(source.shape[0], str) else None
    inputs = {i.name: (_type(i.dtype), _one_sample(i, None if i is source else batch)) for i in graph.inputs}
    if sample_shape is not None:
        declared = inputs[source.name][1]
        rows = declared[0] if declared else 1
        inputs[source.name] = (_type(source.dtype), (rows, *(int(n) for n in sample_shape)))
    ready = for_one_sample(graph, inputs, keeps=keeps)
    found = ready.found
    shapes = {**found.open, **found.shapes}
    view = graph.rewritten(ready.nodes, ready.constants, opset=ready.opset, shapes=shapes)
    varying = {source.name}
    for node in view.nodes:
        if any(name in varying for name in node.inputs) or node.has_subgraph:
            varying.update(o for o in node.outputs if o)
    fixed = frozenset(varying - found.values.keys())
    return Flow(view, source, found.values, shapes, fixed, ready.problems, ready.problem, found.elem)


_followed: WeakKeyDictionary[Graph, Graph] = WeakKeyDictionary()


def followed(graph: Graph, output: str) -> Graph:
    """The graph with the shapes that follow from one sample's where inference leaves those of an output open beside its batch.

    Exporters that trace compute sizes from the input's shape, which shape inference does not follow. The first axis stays as it
    is known, for it may be the batch's.
    """
    shape = graph.shapes.get(output)
    if shape is not None and (len(shape) < 3 or all(isinstance(n, int) for n in shape[1:])):
        return graph
    if graph not in _followed:
        try:
            found = flow(graph).shapes
        except ModelError:
            found = {}
        shapes = dict(graph.shapes)
        for name, one in found.items():
            own = shapes.get(name) or (None,) * len(one)
            if len(own) == len(one) and name in graph.producers:
                shapes[name] = (*own[:1], *(a if isinstance(a, int) else b for a, b in zip(own[1:], one[1:], strict=True)))
        _followed[graph] = graph.with_shapes(shapes)
    return _followed[graph]


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


def _one_sample(info: TensorInfo, batch: str | None) -> OpenShape | None:
    """An input's shape at one sample: its first axis, and one of the ``batch``'s name, have length 1."""
    if info.shape is None:
        return None
    return tuple(
        d if isinstance(d, int) else (1 if i == 0 or (batch is not None and d == batch) else None) for i, d in enumerate(info.shape)
    )


def _type(dtype: str) -> int:
    try:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    except (TypeError, ValueError, KeyError):
        return int(TensorProto.FLOAT)
