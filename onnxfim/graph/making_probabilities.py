"""Patterns that make probabilities of scores without a Softmax or Sigmoid: both written out, and transforms of classical models."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import numpy as np

from onnxfim.graph.graph import Graph, Node

ML = "ai.onnx.ml"


def one_and(graph: Graph, node: Node) -> str | None:
    """The value e of a node that computes 1 / (1 + e), None of another."""
    if node.op == "Reciprocal":
        whole = node.inputs[0]
    elif node.op == "Div" and number(graph, node.inputs[0]) == 1:
        whole = node.inputs[1]
    else:
        return None
    total = graph.producers.get(whole)
    if total is None or total.op != "Add":
        return None
    return next((total.inputs[1 - k] for k in (0, 1) if number(graph, total.inputs[k]) == 1), None)


def number(graph: Graph, name: str) -> float | None:
    """The value of a constant of one number, None of another value."""
    value = graph.constant(name)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 and value.dtype.kind in "fiu" else None


def total_of(graph: Graph, name: str, summands: str) -> bool:
    """Whether a value is a sum over some axes of another."""
    node = graph.producers.get(name)
    return node is not None and node.op == "ReduceSum" and node.inputs[0] == summands


def softmax_written_out(graph: Graph, node: Node) -> str | None:
    """The scores of a node that divides their exponentials by the sum of these over the second axis, None of another."""
    if node.op != "Div" or not total_of(graph, node.inputs[1], node.inputs[0]):
        return None
    total, exp = graph.producers[node.inputs[1]], graph.producers.get(node.inputs[0])
    given = graph.constant(total.inputs[1]) if len(total.inputs) > 1 and total.inputs[1] else total.attributes.get("axes")
    rank = len(graph.shapes.get(total.inputs[0], (0, 0)))
    axes = [] if given is None else [int(a) % max(rank, 1) for a in np.asarray(given).reshape(-1)]
    if exp is None or exp.op != "Exp" or rank != 2 or axes != [1] or total.attributes.get("keepdims", 1) != 1:
        return None
    shifted = graph.producers.get(exp.inputs[0])
    if shifted is not None and shifted.op == "Sub":
        top = graph.producers.get(shifted.inputs[1])
        if top is not None and top.op == "ReduceMax" and top.inputs[0] == shifted.inputs[0]:
            return shifted.inputs[0]
    return exp.inputs[0]


def rows_of_scores(node: Node) -> int:
    """How many scores a LinearClassifier or LinearRegressor computes."""
    if node.op.endswith("Regressor"):
        return int(cast("int", node.attributes.get("targets", 1)))
    return len(cast("Any", node.attributes.get("intercepts") or ()))


def classical_kind(node: Node) -> str | None:
    """What the transform of a LinearClassifier or LinearRegressor makes of its scores; None where they stay scores."""
    transform, rows = node.attributes.get("post_transform"), rows_of_scores(node)
    if transform in ("SOFTMAX", "SOFTMAX_ZERO"):
        return "probabilities" if rows > 1 else None
    if transform != "LOGISTIC":
        return None
    return "sigmoid" if rows > 1 and not two_opposite_rows(node) else None


def regressor(graph: Graph, value: str, transparent: Collection[str]) -> str | None:
    """The label of the classical regression that makes a value as it is, moved at most; None where none does."""
    node = graph.producers.get(value)
    while node is not None and node.op in transparent and node.inputs:
        node = graph.producers.get(node.inputs[0])
    if node is None or not (node.op.startswith(f"{ML}.") and node.op.endswith("Regressor")):
        return None
    return node.label if node.attributes.get("post_transform", "NONE") == "NONE" else None


def two_opposite_rows(node: Node) -> bool:
    """Whether a classifier's sigmoids are those of a score and of its negative, and so a distribution over two classes."""
    given = node.attributes
    if given.get("post_transform") != "LOGISTIC" or node.op != f"{ML}.LinearClassifier":
        return False
    b, W = (np.asarray(given.get(k) or (), np.float64) for k in ("intercepts", "coefficients"))
    if b.size == 1:
        labels = given.get("classlabels_ints") or given.get("classlabels_strings") or ()
        return len(cast("Any", labels)) == 2
    return b.size == 2 and W.size % 2 == 0 and bool(b[0] == -b[1] and (W[: W.size // 2] == -W[W.size // 2 :]).all())
