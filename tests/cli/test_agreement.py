"""`inspect`, `bounds` and `audit` tell the same of a file: the output's name, its kind and axes, and the bound."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onnxfim.auditing.run import audit
from tests.support import headed, models
from tests.support.headed import H, X, info, net, weights

ONE = np.ones(1, np.float32)
SCORES = ("MatMul", ["h", "W"], ["l"], {})
YES = [("MatMul", ["h", "V"], ["l"], {}), ("Sigmoid", ["l"], ["p"], {})]


def head(nodes, classes=3, *, ml=False, output="y", opset=17, **constants):
    """A net that ends in these nodes."""
    stored = {"W": weights(H, classes), "V": weights(H, 1), "one": ONE, "last": np.array([1]), **constants}
    used = {n for _, inputs, _, _ in nodes for n in inputs}
    label = [info("label", "N", kind=7)] if any("label" in o for _, _, o, _ in nodes) else []
    return net(nodes, {n: w for n, w in stored.items() if n in used}, [*label, info(output, "N", classes)], ml=ml, opset=opset)


def classical(op, **attributes):
    return head([("Identity", ["h"], ["f"], {}), (f"ai.onnx.ml:{op}", ["f"], ["label", "y"], attributes)], 2, ml=True)


def leaves(share, other=None):
    """Two trees of a split each, whose leaves weigh both classes; the weights of a leaf sum to a share, or to another."""
    rest = share if other is None else other
    once = {"treeids": [0, 0, 0, 1, 1, 1], "nodeids": [0, 1, 2] * 2, "featureids": [0] * 6, "values": [0.0] * 6,
            "modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2, "truenodeids": [1, 0, 0] * 2, "falsenodeids": [2, 0, 0] * 2}  # fmt: skip
    votes = {
        "treeids": [0] * 4 + [1] * 4,
        "nodeids": [1, 1, 2, 2] * 2,
        "ids": [0, 1] * 4,
        "weights": [0.1, share - 0.1, 0.4, rest - 0.4] * 2,
    }
    return {f"nodes_{k}": v for k, v in once.items()} | {f"class_{k}": v for k, v in votes.items()} | {"classlabels_int64s": [0, 1]}


MACHINE = {
    "classlabels_ints": [0, 1], "vectors_per_class": [1, 1], "support_vectors": np.linspace(-1, 1, 2 * H).tolist(), "rho": [0.1],
    "coefficients": [1.0, -1.0], "kernel_type": "RBF", "kernel_params": [0.3, 0.0, 0.0],
}  # fmt: skip
LINEAR = {"classlabels_ints": [0, 1], "coefficients": np.linspace(-1, 1, H).tolist(), "intercepts": [0.2]}
TARGETS = {"targets": 3, "coefficients": np.linspace(-1, 1, 3 * H).tolist(), "intercepts": [0.1, 0.2, 0.3]}
LSE = [SCORES, ("ReduceLogSumExp", ["l"], ["t"], {"axes": [1], "keepdims": 1}), ("Sub", ["l", "t"], ["z"], {})]
MADE = {
    "logits": head([("MatMul", ["h", "W"], ["y"], {})]),
    "softmax": head([SCORES, ("Softmax", ["l"], ["y"], {"axis": 1})]),
    "log softmax": head([SCORES, ("LogSoftmax", ["l"], ["y"], {"axis": 1})]),
    "sigmoid": head([SCORES, ("Sigmoid", ["l"], ["y"], {})]),
    "one probability": head([YES[0], ("Sigmoid", ["l"], ["y"], {})], 1),
    "complement first": head([*YES, ("Sub", ["one", "p"], ["q"], {}), ("Concat", ["q", "p"], ["y"], {"axis": 1})], 2),
    "complement last": head([*YES, ("Sub", ["one", "p"], ["q"], {}), ("Concat", ["p", "q"], ["y"], {"axis": 1})], 2),
    "over its sum": head(
        [SCORES, ("Sigmoid", ["l"], ["p"], {}), ("ReduceSum", ["p", "last"], ["t"], {"keepdims": 1}), ("Div", ["p", "t"], ["y"], {})]
    ),
    "softmax written out": head([*LSE, ("Exp", ["z"], ["y"], {})]),
    "log softmax written out": head([*LSE, ("Identity", ["z"], ["y"], {})]),
    "ZipMap": headed.zipped(),
    "heads": headed.captcha((3, 4)),
    "soft heads": headed.captcha((3, 4), soft=True),
    "embedding": headed.embedder("torch"),
    "regression": head([("Identity", ["h"], ["f"], {}), ("ai.onnx.ml:LinearRegressor", ["f"], ["y"], TARGETS)], ml=True),
    "called as one": head([("MatMul", ["h", "W"], ["variable"], {})], output="variable"),
    "linear classifier of two": classical("LinearClassifier", post_transform="LOGISTIC", **LINEAR),
    "linear classifier, raw": classical("LinearClassifier", post_transform="NONE", **LINEAR),
    "trees of shares": classical("TreeEnsembleClassifier", **leaves(0.5)),
    "trees of another total": classical("TreeEnsembleClassifier", **leaves(0.7)),
    "trees of scores": classical("TreeEnsembleClassifier", **leaves(0.7, 0.9)),
    "trees, softmax": classical("TreeEnsembleClassifier", post_transform="SOFTMAX", **leaves(0.7)),
    "support vectors": classical("SVMClassifier", **MACHINE),
    "support vectors, coupled": classical("SVMClassifier", **MACHINE, prob_a=[-1.0], prob_b=[0.1]),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_they_tell_the_same(here, command, cpu, name):  # 1e-6: norms of weights with and without a move between them
    models.save(MADE[name], here / "m.onnx")
    inspected, bounds = (json.loads(command(of, "m.onnx", "--json").output) for of in ("inspect", "bounds"))
    found = audit("m.onnx", X, settings=cpu(replay=0, flip=False))
    told = inspected["output_kind"]["kind"]
    assert inspected["audited_output"] == found.model.output
    if name in ("embedding", "regression", "called as one"):  # that is a choice: read as logits it is doubted, in the same word
        assert told in found.model.doubt
        assert found.verdict == "inconclusive"
    else:
        assert told == found.model.output_kind
    assert inspected["output_axes"]["classes"] == found.model.class_axis == 1
    assert [h["name"] for h in inspected["heads"]] == [o.name for o in found.model.outputs] or len(inspected["heads"]) == 1
    assert bounds["bound"]["available"] == found.bound.available
    if found.bound.available:
        assert bounds["bound"]["log10_lipschitz"] == pytest.approx(found.bound.log10_lipschitz, abs=1e-6)


@pytest.mark.parametrize("layout", ["channels", "last", "traced"])
def test_of_a_detector(here, command, cpu, layout):
    models.save(headed.detector(layout), here / "m.onnx")
    assert json.loads(command("inspect", "m.onnx", "--json").output)["output_kind"]["kind"] == "detection"
    bound = json.loads(command("bounds", "m.onnx", "--json").output)["bound"]
    assert not bound["available"]
    assert "an audit with --output-kind detection has the bound of the scores" in bound["reason"]
    assert audit("m.onnx", X, settings=cpu(replay=0, flip=False, output_kind="detection")).bound.available


def test_what_is_not_divided_by_its_own_sum_is_no_share(here, command):
    nodes = [SCORES, ("ReduceSum", ["h", "last"], ["t"], {"keepdims": 1}), ("Div", ["l", "t"], ["y"], {})]
    models.save(head(nodes), here / "m.onnx")
    assert json.loads(command("inspect", "m.onnx", "--json").output)["output_kind"]["kind"] == "logits"
