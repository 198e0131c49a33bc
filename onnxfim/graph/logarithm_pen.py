"""Writes logarithms of a file's values beside them: what is known of the values, and the pen; the rules are in `in_logarithms`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfim.graph.emitter import AttributeValue, Emitter, Operand
from onnxfim.graph.graph import Graph, Node
from onnxfim.graph.making_probabilities import ML, number, one_and, rows_of_scores

Array: TypeAlias = np.ndarray[Any, Any]

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
_OLDEST = 9  # of the operator sets that have Where
DEEPEST = 200  # operators between the outputs and the scores
_LARGEST = 65_536  # numbers of a constant that is written as its logarithm
_MOVES = frozenset({
    "Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Expand", "Tile",
    "Split", "ai.onnx.ml.ArrayFeatureExtractor", "ReduceMax", "ReduceMin",
})  # fmt: skip

Rule: TypeAlias = "Callable[[LogarithmPen, Node, str, int], str | None]"
RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Enter a function that writes the logarithm of what operators make."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return enter


class LogarithmPen:
    """What is known of the file's values, and where the logarithms are written."""

    def __init__(self, model: onnx.ModelProto, tensor: str, base_dir: str | os.PathLike[str]) -> None:
        self.graph = Graph(model, base_dir=base_dir)
        self.opset = self.graph.opsets.get("ai.onnx", 17)
        values = {v for n in model.graph.node for v in (*n.input, *n.output)}
        self.emitter = Emitter([*values, *(t.name for t in model.graph.initializer)], prefix="log")
        self._elem = _element_types(model)
        self.unfit = self.opset < _OLDEST or self.elem(tensor) not in FLOATS
        self._logs: dict[str, str | None] = {}

    # writing

    def elem(self, name: str) -> int:
        return self._elem.get(name, TensorProto.FLOAT)

    def write(self, like: str, op_type: str, *inputs: Operand, **attributes: AttributeValue) -> str:
        """Write a node; numbers become constants of the type of the value ``like``."""
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(self.elem(like)))
        out = self.emitter.emit(op_type, *(self.emitter.operand(i, dtype) for i in inputs), **attributes)
        self._elem.setdefault(out, self.elem(like))
        return out

    def again(self, node: Node, inputs: Mapping[int, str], output: str, op_type: str = "", **attributes: AttributeValue) -> str:
        """The file's node once more, with other inputs, of another type or with other attributes; the name of ``output``."""
        proto = onnx.NodeProto()
        proto.CopyFrom(self.graph.model.graph.node[node.index])
        for at, name in inputs.items():
            proto.input[at] = name
        proto.op_type = op_type or proto.op_type
        kept = [a for a in proto.attribute if a.name not in attributes]
        del proto.attribute[:]
        proto.attribute.extend(kept)
        proto.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        names = {o: self.emitter.fresh(proto.op_type) for o in proto.output if o}
        for k, o in enumerate(proto.output):
            proto.output[k] = names.get(o, "")
        proto.name = names[output]
        self.emitter.nodes.append(proto)
        self._elem[names[output]] = self.elem(output)
        return names[output]

    def known(self, name: str) -> Array | None:
        value = self.graph.constant(name)
        return value if value is not None and value.size <= _LARGEST else None

    def number(self, name: str) -> float | None:
        """The value of a constant of one number."""
        return number(self.graph, name)

    def sum_of(self, logs: str, axes: Sequence[int], *, keepdims: int = 1) -> str:
        """The logarithm of the sum of what ``logs`` are the logarithms of."""
        if self.opset >= 18:
            return self.write(logs, "ReduceLogSumExp", logs, list(axes), keepdims=keepdims)
        return self.write(logs, "ReduceLogSumExp", logs, axes=list(axes), keepdims=keepdims)

    def plus(self, a: str, b: str, *, fixed: bool = False) -> str:
        """The logarithm of a sum of two from theirs; ``fixed`` where the first is a constant."""
        first, second = (a, b) if fixed else (b, a)
        return self.write(a, "Add", first, self.write(a, "Softplus", self.write(a, "Sub", second, first)))

    def log_sigmoid(self, s: str, *, of: str) -> str:
        return self.write(of, "Neg", self.write(of, "Softplus", self.write(of, "Neg", s)))

    # reading

    def log(self, name: str, depth: int) -> str | None:
        """The logarithm of a value, None where none is known."""
        if name not in self._logs:
            self._logs[name] = None  # while it is sought
            self._logs[name] = self._log(name, depth)
        return self._logs[name]

    def _log(self, name: str, depth: int) -> str | None:
        value = self.known(name)
        if value is not None:
            positive = value.dtype.kind == "f" and value.size and (value > 0).all()
            return self.emitter.constant(np.log(value, dtype=value.dtype)) if positive else None
        node = self.graph.producers.get(name)
        if node is None or depth > DEEPEST or node.has_subgraph or self.elem(name) not in FLOATS:
            return None
        if node.op in _MOVES:
            return self.moved(node, name, self.log, depth)
        found = RULES.get(node.op)
        return None if found is None else found(self, node, name, depth + 1)

    def moved(self, node: Node, name: str, find: Callable[[str, int], str | None], depth: int) -> str | None:
        """What a move of values makes of what was found of its input."""
        if self.elem(node.inputs[0]) not in FLOATS or (node.op == "Dropout" and name != node.outputs[0]):
            return None
        inner = find(node.inputs[0], depth + 1)
        return None if inner is None else self.again(node, {0: inner}, name)

    def each(self, node: Node, name: str, find: Callable[[str, int], str | None], depth: int) -> str | None:
        """The node again, of what was found of each of its inputs."""
        parts = [find(i, depth + 1) for i in node.inputs]
        return None if None in parts else self.again(node, dict(enumerate(cast("list[str]", parts))), name)

    def complement(self, name: str, depth: int) -> str | None:
        """The logarithm of 1 less a value, None where none is known."""
        node = self.graph.producers.get(name)
        if node is None or depth > DEEPEST:
            return None
        if node.op in _MOVES:
            return self.moved(node, name, self.complement, depth)
        if node.op == "Concat":
            return self.each(node, name, self.complement, depth)
        if node.op == "Sub" and self.number(node.inputs[0]) == 1:
            return self.log(node.inputs[1], depth + 1)
        s = self.logit(node, name, depth)
        if s is not None:
            return self.write(name, "Neg", self.write(name, "Softplus", s))
        return None

    def odds(self, name: str, depth: int) -> str | None:
        """The logarithm of p / (1 − p), None where it is not known."""
        node = self.graph.producers.get(name)
        if node is None or depth > DEEPEST:
            return None
        if node.op in _MOVES:
            return self.moved(node, name, self.odds, depth)
        if node.op == "Concat":
            return self.each(node, name, self.odds, depth)
        if node.op == "Sub" and self.number(node.inputs[0]) == 1:
            inner = self.odds(node.inputs[1], depth + 1)
            return None if inner is None else self.write(name, "Neg", inner)
        return self.logit(node, name, depth)

    def logit(self, node: Node, name: str, depth: int) -> str | None:
        """The scores of a node that makes sigmoids of them, written out or not."""
        if node.op == "Sigmoid":
            return node.inputs[0]
        if node.op in (f"{ML}.LinearClassifier", f"{ML}.LinearRegressor"):
            return raw_scores(self, node, name) if node.attributes.get("post_transform") == "LOGISTIC" else None
        parts = one_and(self.graph, node)
        if parts is None:
            return None
        log = self.log(parts, depth + 1)  # 1 / (1 + e)
        return None if log is None else self.write(name, "Neg", log)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # noqa: BLE001 - types that are not told are taken for float32
        graph = model.graph
    found = {v.name: int(v.type.tensor_type.elem_type) for v in (*graph.input, *graph.output, *graph.value_info)}
    return {k: v for k, v in found.items() if v} | {t.name: int(t.data_type) for t in graph.initializer}


def raw_scores(pen: LogarithmPen, node: Node, name: str) -> str | None:
    """The scores that a node of a classical model transforms, from the same node without its transform."""
    given = node.attributes
    if name != node.outputs[-1]:
        return None
    if node.op.endswith("SVMClassifier"):
        labels = given.get("classlabels_ints") or given.get("classlabels_strings") or ()
        two_sided = len(cast("Any", labels)) == 2 and given.get("vectors_per_class") and not given.get("prob_a")
        return None if two_sided and given["post_transform"] != "LOGISTIC" else pen.again(node, {}, name, post_transform="NONE")
    rows = rows_of_scores(node)
    if rows > 1:
        return pen.again(node, {}, name, post_transform="NONE")
    if node.op.endswith("Regressor") or given["post_transform"] != "LOGISTIC":
        return None  # of one row the runtime makes no softmax
    W, b = (list(cast("Any", given[k])) for k in ("coefficients", "intercepts"))
    return pen.again(node, {}, name, post_transform="NONE", coefficients=[-v for v in W] + W, intercepts=[-v for v in b] + b)
