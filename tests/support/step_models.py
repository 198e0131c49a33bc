"""Models without a slope: trees, and what else jumps or stays."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.support import models


def forest(trees, features, classes, *, seed=0, regressor=False, before=(), after=(), weights=None):
    """Trees of depth two as a file: outputs ``z`` (N, classes), from ``x`` by the nodes ``before`` (which write ``c``) and ``after``."""
    rng = np.random.default_rng([seed, trees, features, classes])
    nodes = [(t, i) for t in range(trees) for i in range(7)]
    leaves = [(t, i, k) for t in range(trees) for i in range(3, 7) for k in range(classes)]
    share = rng.dirichlet(np.ones(classes), size=4 * trees).ravel() / trees
    end = "target" if regressor else "class"
    table = {
        "nodes_treeids": [t for t, _ in nodes],
        "nodes_nodeids": [i for _, i in nodes],
        "nodes_featureids": rng.integers(features, size=len(nodes)).tolist(),
        "nodes_values": [float(v) if i < 3 else 0.0 for v, (_, i) in zip(rng.standard_normal(len(nodes)), nodes, strict=True)],
        "nodes_modes": ["BRANCH_LEQ" if i < 3 else "LEAF" for _, i in nodes],
        "nodes_truenodeids": [2 * i + 1 if i < 3 else 0 for _, i in nodes],
        "nodes_falsenodeids": [2 * i + 2 if i < 3 else 0 for _, i in nodes],
        f"{end}_treeids": [t for t, _, _ in leaves],
        f"{end}_nodeids": [i for _, i, _ in leaves],
        f"{end}_ids": [k for _, _, k in leaves],
        f"{end}_weights": share.tolist(),
    }
    source, result = ("c" if before else "x"), ("p" if after else "z")
    if regressor:
        trees_node = ("TreeEnsembleRegressor", [source], [result], {**table, "n_targets": classes})
    else:
        labels = {"classlabels_int64s": list(range(classes)), "post_transform": "NONE"}
        trees_node = ("TreeEnsembleClassifier", [source], ["label", result], {**table, **labels})
    label = () if regressor else (helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),)
    made = models.model([*before, trees_node, *after], weights or {}, shape=(features,), out=(classes,), outputs=label)
    for node in made.graph.node:
        if node.op_type.startswith("Tree"):
            node.domain = "ai.onnx.ml"
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return made
