"""Outputs whose rows sum to 1 without a Softmax at the end, as far as the graph tells: divisions, complements, tree ensembles."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from onnxfim.graph.ends import TRANSPARENT
from onnxfim.graph.graph import Graph, Node
from onnxfim.graph.making_probabilities import ML, number, total_of, two_opposite_rows

_SAME = 1e-4  # relative, of sums of weights that are stored in float32


def makes_shares(graph: Graph, value: str) -> str | None:
    """The label of the node that makes rows of shares of 1 of a value, or of another total that all have; None where none is seen.

    What is divided by its own sum is taken for shares whatever its sign: the values tell that when the model runs.
    """
    node = graph.producers.get(value)
    while node is not None and node.op in TRANSPARENT and node.inputs:
        value = node.inputs[0]
        node = graph.producers.get(value)
    if node is None:
        return None
    made = _MADE.get(node.op)
    return node.label if made is not None and made(graph, node) else None


def _over_its_sum(graph: Graph, node: Node) -> bool:
    """``a / Σ a``, both with what keeps a sum of zero from being divided by."""
    tops, bottoms = (_summands(graph, name) for name in node.inputs)
    return any(total_of(graph, below, above) for below in bottoms for above in tops)


def _summands(graph: Graph, name: str) -> list[str]:
    node = graph.producers.get(name)
    return [name, *(node.inputs if node is not None and node.op == "Add" else ())]


def _with_its_complement(graph: Graph, node: Node) -> bool:
    """``(1 − p, p)``, in either order."""
    if len(node.inputs) != 2:
        return False
    for one, other in (node.inputs, node.inputs[::-1]):
        made = graph.producers.get(one)
        if made is not None and made.op == "Sub" and number(graph, made.inputs[0]) == 1 and made.inputs[1] == other:
            return True
    return False


def _over_its_sum_in_logarithms(graph: Graph, node: Node) -> bool:
    """``exp(s − log Σ exp s)``."""
    less = graph.producers.get(node.inputs[0])
    if less is None or less.op != "Sub":
        return False
    total = graph.producers.get(less.inputs[1])
    while total is not None and total.op in TRANSPARENT and total.inputs:
        total = graph.producers.get(total.inputs[0])
    return total is not None and total.op == "ReduceLogSumExp" and total.inputs[0] == less.inputs[0]


def _over_its_size(graph: Graph, node: Node) -> bool:
    return node.attributes.get("norm") == "L1"


def _opposite(graph: Graph, node: Node) -> bool:
    return two_opposite_rows(node)


def _coupled(graph: Graph, node: Node) -> bool:
    """Probabilities that a support vector machine couples from those of all pairs."""
    return bool(_floats(node, "prob_a").size)


def _of_trees(graph: Graph, node: Node) -> bool:
    """A softmax of the trees' votes, a sigmoid and its complement, or leaves whose weights are shares."""
    labels = node.attributes.get("classlabels_int64s") or node.attributes.get("classlabels_strings") or ()
    transform = node.attributes.get("post_transform", "NONE")
    if transform == "SOFTMAX" or (transform == "LOGISTIC" and len(cast("Any", labels)) == 2):
        return True
    weights, trees, leaves = (_floats(node, f"class_{of}") for of in ("weights", "treeids", "nodeids"))
    if not len(weights) == len(trees) == len(leaves):  # the file does not run
        return False
    if transform != "NONE" or not weights.size or _floats(node, "base_values").any() or (weights < 0).any():
        return False
    _, leaf = np.unique(np.stack([trees, leaves], axis=1), axis=0, return_inverse=True)
    sums, of = np.bincount(leaf.reshape(-1), weights), np.zeros(leaf.max() + 1)
    of[leaf.reshape(-1)] = trees
    each = [sums[of == tree] for tree in np.unique(trees)]
    return all(np.ptp(s) <= _SAME * max(s.max(), _SAME) for s in each)  # whatever they sum to, it is the same in all rows


def _floats(node: Node, name: str) -> np.ndarray:
    return np.asarray(cast("Any", node.attributes.get(name)) or (), np.float64).reshape(-1)


_MADE = {
    "Div": _over_its_sum,
    "Concat": _with_its_complement,
    "Exp": _over_its_sum_in_logarithms,
    f"{ML}.Normalizer": _over_its_size,
    f"{ML}.LinearClassifier": _opposite,
    f"{ML}.SVMClassifier": _coupled,
    f"{ML}.TreeEnsembleClassifier": _of_trees,
}
