"""What the graph alone tells of outputs that are shares of one, in broken files too."""

from __future__ import annotations

from onnx import helper

from onnxfim.graph.graph import Graph
from onnxfim.graph.shares import makes_shares


def trees(**changed):
    """A classifier of one tree with two leaves, whose weights are shares."""
    given = {
        "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0], "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0, 0, 0, 0], "class_nodeids": [1, 1, 2, 2], "class_ids": [0, 1, 0, 1], "class_weights": [0.2, 0.8, 0.7, 0.3],
        "classlabels_int64s": [0, 1],
    } | changed  # fmt: skip
    node = helper.make_node("TreeEnsembleClassifier", ["x"], ["label", "p"], domain="ai.onnx.ml", **given)
    values = [helper.make_tensor_value_info(n, t, s) for n, t, s in (("x", 1, ["N", 1]), ("label", 7, ["N"]), ("p", 1, ["N", 2]))]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return Graph(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]), opset_imports=opsets))


def test_leaves_whose_weights_are_shares_are_told_from_others():
    assert makes_shares(trees(), "p")
    assert not makes_shares(trees(class_weights=[0.2, 0.8, 0.7, 0.4]), "p")


def test_tables_of_other_lengths_are_no_shares():
    assert not makes_shares(trees(class_nodeids=[1, 1, 2]), "p")
