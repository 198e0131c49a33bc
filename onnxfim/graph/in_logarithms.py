"""Probabilities of a file written once more as their logarithms, from the nearest values that are not rounded to 0 or 1.

``log softmax(z)``, ``log σ(s) = −softplus(−s)``, ``log(a b) = log a + log b``, ``log Σ a = logsumexp(log a)``: what makes
probabilities of scores is replaced, operator by operator, back to where a logarithm is known. Saturated probabilities lose their
slope in float32, their logarithms do not. The operators are those of the file's own set, so that the copy runs beside what it
stands for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfim.graph.graph import Node
from onnxfim.graph.logarithm_pen import DEEPEST, LogarithmPen, raw_scores, rule
from onnxfim.graph.making_probabilities import ML, total_of, two_opposite_rows


def in_logarithms(
    model: onnx.ModelProto, tensor: str, *, odds: bool = False, base_dir: str | os.PathLike[str] = "."
) -> tuple[onnx.ModelProto, str] | None:
    """A copy whose first output is the logarithm of the value ``tensor``, and that output's name.

    Where the value is a softmax of scores, the output is the scores: they differ by one number in a row.

    Args:
        model: The model; it is not changed.
        tensor: An output that holds probabilities.
        odds: The logarithm of p / (1 − p) in place of that of p.
        base_dir: Folder of external data.

    Returns:
        The copy, or None where some of what makes the value has no logarithm that is known without computing it first.
    """
    pen = LogarithmPen(model, tensor, base_dir)
    log = None if pen.unfit else pen.odds(tensor, 0) if odds else pen.log(tensor, 0)
    if log is None:
        return None
    last = pen.emitter.nodes[-1] if pen.emitter.nodes else None
    if last is not None and last.op_type == "LogSoftmax" and last.output[0] == log:
        log = last.input[0]  # the scores: as good as logarithms, and what a file that ends in them gives
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name = pen.emitter.emit("Identity", log)  # its name is one of no file's values
    copy.graph.node.extend(_needed(pen.emitter.nodes, name))
    copy.graph.initializer.extend(pen.emitter.constants)
    copy.graph.output.insert(0, helper.make_tensor_value_info(name, pen.elem(tensor), None))
    if not any(o.domain in ("", "ai.onnx") for o in copy.opset_import):
        copy.opset_import.append(helper.make_opsetid("", pen.opset))
    return copy, name


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


# rules: the logarithm of a node's output


@rule("Exp")
def _exp(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    return node.inputs[0]


@rule("Softmax")
def _softmax(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    return pen.again(node, {}, name, "LogSoftmax")


@rule("Sigmoid")
def _sigmoid(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    return pen.log_sigmoid(node.inputs[0], of=name)


@rule("Concat", "Max", "Min")
def _each(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    """Side by side, or the largest: a logarithm keeps the order."""
    return pen.each(node, name, pen.log, depth)


@rule("Where")
def _where(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    parts = [pen.log(i, depth) for i in node.inputs[1:]]
    return None if None in parts else pen.write(name, "Where", node.inputs[0], *parts)


@rule("Clip")
def _clip(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    log = pen.log(node.inputs[0], depth)
    for k, (end, op) in enumerate((("min", "Max"), ("max", "Min"))):
        given = node.inputs[k + 1] if len(node.inputs) > k + 1 else ""
        limit = pen.number(given) if given else cast("float | None", node.attributes.get(end))
        if log is None or (given and limit is None) or (limit is not None and limit <= 0 and op == "Min"):
            return None
        if limit is not None and 0 < limit < math.inf:
            log = pen.write(name, op, log, math.log(limit))
    return log


@rule("Mul")
def _mul(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    a, b = (pen.log(i, depth) for i in node.inputs)
    return None if a is None or b is None else pen.write(name, "Add", a, b)


@rule("Div")
def _div(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    a, b = (pen.log(i, depth) for i in node.inputs)
    if a is None or b is None:
        return None
    if total_of(pen.graph, node.inputs[1], node.inputs[0]) and _distribution(pen, node.inputs[0], depth):
        return a
    return pen.write(name, "Neg", b) if pen.number(node.inputs[0]) == 1 else pen.write(name, "Sub", a, b)


@rule("Reciprocal")
def _reciprocal(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    a = pen.log(node.inputs[0], depth)
    return None if a is None else pen.write(name, "Neg", a)


@rule("Sqrt")
def _sqrt(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    a = pen.log(node.inputs[0], depth)
    return None if a is None else pen.write(name, "Mul", a, 0.5)


@rule("Pow")
def _pow(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    a, power = pen.log(node.inputs[0], depth), pen.number(node.inputs[1])
    return None if a is None or power is None else pen.write(name, "Mul", a, power)


@rule("Sub")
def _sub(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    return pen.complement(node.inputs[1], depth) if pen.number(node.inputs[0]) == 1 else None


@rule("Add", "Sum", "Mean")
def _add(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    if node.op == "Add" and (masked := _masked(pen, node, name, depth)) is not None:
        return masked
    first, *others = sorted(node.inputs, key=lambda i: pen.known(i) is None)  # a constant first
    total, fixed = pen.log(first, depth), pen.known(first) is not None
    for other in others:
        log = pen.log(other, depth)
        if total is None or log is None:
            return None
        total, fixed = pen.plus(total, log, fixed=fixed), False
    if total is None or node.op != "Mean":
        return total
    return pen.write(name, "Sub", total, math.log(len(node.inputs)))


def _mask(pen: LogarithmPen, name: str) -> tuple[str, float] | None:
    """The truth value whose number, times a constant, a value is, and that constant."""
    node, factor = pen.graph.producers.get(name), 1.0
    if node is not None and node.op == "Mul":
        rest = [(i, pen.number(o)) for i, o in (node.inputs, node.inputs[::-1])]
        other, found = next(((i, c) for i, c in rest if c is not None), ("", None))
        node, factor = pen.graph.producers.get(other), found or 0.0
    if node is None or node.op != "Cast" or pen.elem(node.inputs[0]) != TensorProto.BOOL or factor <= 0:
        return None
    return node.inputs[0], factor


def _where_zero(pen: LogarithmPen, name: str, condition: str) -> bool:
    """Whether a condition is that all of a non-negative value is zero: ``not bool(Σ a)``."""
    node = pen.graph.producers.get(condition)
    cast_to = pen.graph.producers.get(node.inputs[0]) if node is not None and node.op == "Not" else None
    if cast_to is None or cast_to.op != "Cast" or cast_to.attributes.get("to") != TensorProto.BOOL:
        return False
    return cast_to.inputs[0] == name or total_of(pen.graph, cast_to.inputs[0], name)


def _masked(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    """Some exporters add a constant where all else is zero, lest a sum be that is divided by."""
    for a, other in (node.inputs, node.inputs[::-1]):
        mask = _mask(pen, other)
        if mask is not None and _where_zero(pen, a, mask[0]) and (log := pen.log(a, depth)) is not None:
            return pen.write(name, "Where", mask[0], math.log(mask[1]), log)
    return None


@rule("ReduceSum", "ReduceMean", "ReduceL1")
def _reduce(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    log = pen.log(node.inputs[0], depth)
    given = pen.known(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else node.attributes.get("axes")
    if log is None or given is None or (len(node.inputs) > 1 and not node.inputs[1]):
        return None
    axes = [int(a) for a in np.asarray(given).reshape(-1)]
    total = pen.sum_of(log, axes, keepdims=int(cast("int", node.attributes.get("keepdims", 1)) == 1)) if axes else None
    if total is None or node.op != "ReduceMean":
        return total
    sizes = pen.emitter.emit("Gather", pen.emitter.emit("Shape", log), pen.emitter.constant(np.asarray(axes, np.int64)))
    count = pen.emitter.emit("Cast", pen.emitter.emit("ReduceProd", sizes, keepdims=0), to=pen.elem(name))
    return pen.write(name, "Sub", total, pen.write(name, "Log", count))


def _distribution(pen: LogarithmPen, name: str, depth: int) -> bool:
    """Whether rows of a value sum to 1 as they are: divided by their sum they stay, and its logarithm is rounding."""
    node = pen.graph.producers.get(name)
    if node is None or depth > DEEPEST:
        return False
    if node.op in ("Identity", "Cast") or (node.op == "Concat" and len(node.inputs) == 1):
        return _distribution(pen, node.inputs[0], depth + 1)
    if node.op == "Concat":  # 1 − p and p
        makers = [pen.graph.producers.get(i) for i in node.inputs]
        return len(makers) == 2 and any(
            m is not None and m.op == "Sub" and m.inputs[1] == other and pen.number(m.inputs[0]) == 1
            for m, other in zip(makers, node.inputs[::-1], strict=True)
        )
    if node.op in (f"{ML}.LinearClassifier", f"{ML}.SVMClassifier"):
        return node.attributes.get("post_transform") == "SOFTMAX" or two_opposite_rows(node)
    return node.op == "Softmax" or (node.op == f"{ML}.Normalizer" and node.attributes.get("norm") == "L1")


@rule("LpNormalization")
def _lp(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    log, axis = pen.log(node.inputs[0], depth), int(cast("int", node.attributes.get("axis", -1)))
    return None if log is None or node.attributes.get("p", 2) != 1 else pen.write(name, "Sub", log, pen.sum_of(log, [axis]))


# operators of classical models


@rule(f"{ML}.Normalizer")
def _normalizer(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    log, norm = pen.log(node.inputs[0], depth), node.attributes.get("norm", "MAX")
    if log is None or len(pen.graph.shapes.get(node.inputs[0], (0, 0))) != 2:
        return None
    if norm == "MAX":
        axes = {"axes": [1]} if pen.opset < 18 else {}
        top = pen.write(name, "ReduceMax", log, *([] if axes else [[1]]), **axes)
        return pen.write(name, "Sub", log, top)
    if norm == "L2":
        return pen.write(name, "Sub", log, pen.write(name, "Mul", pen.sum_of(pen.write(name, "Mul", log, 2.0), [1]), 0.5))
    return log if _distribution(pen, node.inputs[0], depth) else pen.write(name, "Sub", log, pen.sum_of(log, [1]))


@rule(f"{ML}.LinearClassifier", f"{ML}.LinearRegressor", f"{ML}.SVMClassifier")
def _scored(pen: LogarithmPen, node: Node, name: str, depth: int) -> str | None:
    transform = node.attributes.get("post_transform")
    if transform not in ("SOFTMAX", "LOGISTIC"):
        return None
    scores = raw_scores(pen, node, name)
    if scores is None:
        return None
    return pen.write(name, "LogSoftmax", scores, axis=1) if transform == "SOFTMAX" else pen.log_sigmoid(scores, of=name)
