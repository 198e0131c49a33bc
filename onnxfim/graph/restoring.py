"""Gives single nodes of a deployed file their float form back: the trained file's weights, and inputs that are not rounded.

Every rounding of the file stands before some node that reads it, or before an output: so each belongs to one node, and what the
nodes change together is what the file changes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfim.graph.aligning import EITHER, Alignment, Layer, Twin, align, layers, roles, unchanged
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.graph import Graph
from onnxfim.graph.known_values import KnownValues
from onnxfim.graph.written_out import written_out

Array: TypeAlias = np.ndarray[Any, Any]

_QUANTISERS = ("QuantizeLinear", "DynamicQuantizeLinear")
#: Operators that hand integers on as they are, between a quantiser and its DequantizeLinear.
_MOVES = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "MaxPool", "Gather", "Expand", "Identity"})
_PASSIVE = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant"})
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_MOVED = 1e-6  # relative distance of weights below which they are the trained ones
_AT_CLIP = 0.02  # of a Clip's limit: how near the end of a quantiser's range lies that stands for it


@dataclass(frozen=True)
class Unit:
    """A node that can be restored.

    Attributes:
        index: Its position among the nodes of the written-out file, or -1 for the outputs.
        node: Its name.
        operator: Its type.
        rounded: Which of its inputs are rounded.
        twin: Whose weights it gets, or None.
        half: It computes in 16 bits.
    """

    index: int
    node: str
    operator: str
    rounded: tuple[int, ...]
    twin: Twin | None
    half: bool = False

    @property
    def restores(self) -> str:
        """What is put back, in words."""
        words = [] if self.twin is None else ["weights"]
        words += ["inputs not rounded" if self.index >= 0 else "output not rounded"] if self.rounded else []
        words += ["computed in 32 bits"] if self.half else []
        return ", ".join(words)


@dataclass(frozen=True)
class Restorable:
    """A deployed file whose nodes can be restored.

    Attributes:
        model: The file with every rounding in a node of its own; the file itself where it is of that form.
        units: What can be restored, in the order of computation.
        left: (node, operator, reason) of what cannot.
        rewritten: ``model`` is not the file itself.
    """

    model: onnx.ModelProto
    units: tuple[Unit, ...]
    left: tuple[tuple[str, str, str], ...]
    rewritten: bool
    clips: tuple[float, ...]
    base_dir: str

    def restored(self, units: Collection[Unit]) -> onnx.ModelProto:
        """A copy of the model with these units in their float form."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        pen = _Restorer(copy, self.clips, self.base_dir)
        for unit in units:
            pen.restore(unit)
        pen.finish()
        return copy


def restorable(
    deployed: onnx.ModelProto, trained: onnx.ModelProto, *, deployed_dir: str | os.PathLike[str] = ".",
    trained_dir: str | os.PathLike[str] = ".",
) -> Restorable:  # fmt: skip
    """What of a deployed file can be restored from the trained one.

    Raises:
        UnsupportedOperator: the file computes with integers in a form that cannot be written with quantisers.
    """
    model = written_out(deployed, base_dir=deployed_dir)
    ours, theirs = layers(model, base_dir=deployed_dir), layers(trained, base_dir=trained_dir)
    alignment = align(ours, theirs)
    values = KnownValues(model, base_dir=deployed_dir)
    graph = Graph(model, base_dir=deployed_dir)
    of_layer = {layer.index: layer for layer in ours}
    units, left = [], []
    for view in graph.nodes:
        node = model.graph.node[view.index]
        if node.op_type in _PASSIVE or node.op_type in _MOVES or values.known(o for o in node.output if o):
            continue
        rounded = tuple(k for k, name in enumerate(node.input) if name and _rounded(graph, name, values))
        layer = of_layer.get(view.index)
        twin = None if layer is None else _twin(layer, alignment)
        half = twin is not None and _in_half(node, model, layer)
        reason = alignment.why.get(view.index)
        if reason is not None and layer is not None and not unchanged(layer, theirs):
            left.append((view.label, node.op_type, reason))
        if rounded or twin is not None:
            units.append(Unit(view.index, view.label, node.op_type, rounded, twin, half))
    outputs = tuple(k for k, o in enumerate(model.graph.output) if _rounded(graph, o.name, values))
    if outputs:
        units.append(Unit(-1, model.graph.output[outputs[0]].name, "output", outputs, None))
    clips = _clips(trained, trained_dir)
    return Restorable(model, tuple(units), tuple(left), model is not deployed, clips, str(deployed_dir))


def _twin(layer: Layer, alignment: Alignment) -> Twin | None:
    """The twin whose parameters differ; None where there is none, or nothing to put back."""
    twin = alignment.twins.get(layer.index)
    if twin is None:
        return None
    shared = [r for r in layer.weights if r in twin.weights and layer.weights[r].size == twin.weights[r].size]
    apart = [float(np.abs(layer.weights[r].ravel() - twin.weights[r].ravel()).max()) for r in shared]
    size = [float(np.abs(twin.weights[r]).max()) for r in shared]
    return twin if any(a > _MOVED * s for a, s in zip(apart, size, strict=True)) else None


def _in_half(node: onnx.NodeProto, model: onnx.ModelProto, layer: Layer | None) -> bool:
    """Whether a node's parameters are stored in 16 bits."""
    if layer is None:
        return False
    types = {t.name: t.data_type for t in model.graph.initializer}
    return any(types.get(i) in _HALF for i in node.input)


def _rounded(graph: Graph, name: str, values: KnownValues) -> bool:
    """Whether a value was rounded, and only moved since."""
    if values.value(name) is not None:
        return False
    if _rounding(graph, name) is not None:
        return True
    maker = graph.producers.get(name)
    return maker is not None and maker.op in _MOVES and _rounded(graph, maker.inputs[0], values)


def _rounding(graph: Graph, name: str) -> tuple[int, ...] | None:
    """Positions of the nodes from a quantiser to the DequantizeLinear that wrote ``name``; None where none did."""
    last = graph.producers.get(name)
    if last is None or last.op != "DequantizeLinear":
        return None
    found, at = [last.index], graph.producers.get(last.inputs[0])
    while at is not None and at.op in _MOVES:
        found.append(at.index)
        at = graph.producers.get(at.inputs[0])
    return None if at is None or at.op not in _QUANTISERS else (at.index, *found[::-1])


def _clips(model: onnx.ModelProto, base_dir: str | os.PathLike[str]) -> tuple[float, ...]:
    """The upper limits of the Clips of the trained file: quantisers may stand in for them."""
    values = KnownValues(model, base_dir=base_dir)
    found: list[float] = []
    for node in model.graph.node:
        if node.op_type == "Clip":
            limit = values.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
            given = [a.f for a in node.attribute if a.name == "max"]
            found += [float(limit)] if limit is not None and limit.size == 1 else given
    return tuple(found)


class _Restorer:
    """Restores units of a copy in place."""

    def __init__(self, model: onnx.ModelProto, clips: Sequence[float], base_dir: str) -> None:
        self._model, self._clips = model, clips
        self._graph = Graph(model, base_dir=base_dir)
        self._values = KnownValues(model, base_dir=base_dir)
        taken = {t.name for t in model.graph.initializer} | {v for n in model.graph.node for v in (*n.input, *n.output)}
        self._emitter = Emitter(taken, prefix="r")
        self._more: list[onnx.NodeProto] = []
        self._smooth: dict[str, str] = {}
        self._types = {t.name: t.data_type for t in model.graph.initializer}

    def restore(self, unit: Unit) -> None:
        if unit.index < 0:
            for k in unit.rounded:
                self._free_output(self._model.graph.output[k].name)
            return
        node = self._model.graph.node[unit.index]
        for k in unit.rounded:
            node.input[k] = self._unrounded(node.input[k])
        if unit.twin is not None:
            self._give(node, unit.twin.weights)

    def finish(self) -> None:
        """Put what was written into the model, in an order that computes."""
        graph = self._model.graph
        graph.node.extend(self._more)
        graph.initializer.extend(self._emitter.constants)
        del graph.value_info[:]
        ordered = []
        for view in Graph(self._model).nodes:
            node = onnx.NodeProto()
            node.CopyFrom(graph.node[view.index])
            ordered.append(node)
        del graph.node[:]
        graph.node.extend(ordered)

    def _unrounded(self, name: str) -> str:
        """The value that ``name`` is the rounding of: through all that only moves it, and every rounding on the way."""
        if name in self._smooth:
            return self._smooth[name]
        chain = _rounding(self._graph, name)
        if chain is None:
            maker = self._graph.producers[name]
            now = self._moved(self._model.graph.node[maker.index], self._unrounded(maker.inputs[0]))
        else:
            nodes = [self._model.graph.node[k] for k in chain]
            source = nodes[0].input[0]
            deeper = self._unrounded(source) if _rounded(self._graph, source, self._values) else source
            now = self._within(deeper, nodes[0])
            for move in nodes[1:-1]:
                now = self._moved(move, now)
        self._smooth[name] = now
        return now

    def _moved(self, move: onnx.NodeProto, source: str) -> str:
        """A second copy of a node that hands its input on."""
        copy = onnx.NodeProto()
        copy.CopyFrom(move)
        out = self._emitter.fresh("moved")
        copy.input[0], copy.output[0], copy.name = source, out, out
        del copy.output[1:]
        self._more.append(copy)
        return out

    def _within(self, name: str, quantiser: onnx.NodeProto) -> str:
        """The value, cut where the quantiser stands for a Relu or a Clip that the quantising tool took out."""
        if quantiser.op_type != "QuantizeLinear" or len(quantiser.input) < 3:
            return name
        scale, zero = (self._values.value(quantiser.input[k]) for k in (1, 2))
        if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
            return name
        ends = np.iinfo(zero.dtype)
        if int(zero.reshape(())) != ends.min:
            return name
        top = float(ends.max - ends.min) * float(scale.reshape(()))
        out = self._emitter.fresh("cut")
        limit = next((c for c in self._clips if abs(top - c) <= _AT_CLIP * abs(c)), None)
        if limit is None:
            self._more.append(helper.make_node("Relu", [name], [out], name=out))
        else:
            ends_of = [self._emitter.constant(np.asarray(v, scale.dtype)) for v in (0.0, limit)]
            self._more.append(helper.make_node("Clip", [name, *ends_of], [out], name=out))
        return out

    def _free_output(self, name: str) -> None:
        """Write an output from what was rounded last."""
        source = self._unrounded(name)
        last = self._model.graph.node[self._graph.producers[name].index]
        del last.input[:], last.attribute[:]
        last.op_type, last.domain = "Identity", ""
        last.input.append(source)

    def _give(self, node: onnx.NodeProto, weights: Mapping[str, Array]) -> None:
        """Give a node its twin's parameters; one that computes in 16 bits computes in 32 then."""
        _, places, turned = roles(node)
        if EITHER in weights:
            places = {EITHER: next(k for k, i in enumerate(node.input) if self._values.value(i) is not None)}
        half = next((t for i in node.input if (t := self._types.get(i)) in _HALF), None)
        for role, at in places.items():
            old = self._values.value(node.input[at]) if at < len(node.input) and node.input[at] else None
            new = weights.get(role)
            if old is None or new is None or new.size != old.size:
                continue
            value = new.T if turned and role == "W" and new.ndim == 2 else new
            dtype = np.float32 if half or old.dtype.kind not in "f" else old.dtype
            node.input[at] = self._emitter.constant(np.ascontiguousarray(value.reshape(old.shape), dtype))
        if half:
            self._widen(node, int(half))

    def _widen(self, node: onnx.NodeProto, half: int) -> None:
        """Casts around a node that is to compute in 32 bits."""
        fresh = {t.name for t in self._emitter.constants}
        for k, name in enumerate(node.input):
            if name and name not in fresh:
                wide = self._emitter.fresh("wide")
                self._more.append(helper.make_node("Cast", [name], [wide], name=wide, to=TensorProto.FLOAT))
                node.input[k] = wide
        out = self._emitter.fresh("narrow")
        self._more.append(helper.make_node("Cast", [out], [node.output[0]], name=out, to=half))
        node.output[0] = out
