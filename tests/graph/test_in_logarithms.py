"""Logarithms of probabilities, written out from what they are made of, against float64."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit, log_expit, log_softmax, logsumexp

from onnxfim.graph.ends import ending
from onnxfim.graph.graph import Graph
from onnxfim.graph.in_logarithms import in_logarithms

ML = "ai.onnx.ml"
Z = np.array([[150.0, -150.0, 3.0], [0.2, -0.5, 0.1], [-40.0, 60.0, 59.0]], np.float32)  # saturated, and not


def model(nodes, weights=None, *, opset=18, output="y", width=3, dtype=TensorProto.FLOAT):
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    x = helper.make_tensor_value_info("x", dtype, ["N", width])
    y = helper.make_tensor_value_info(output, dtype, None)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML, 1)]
    made = [helper.make_node(op.rpartition(".")[2], i, o, domain=op.rpartition(".")[0], **a) for op, i, o, a in nodes]
    return helper.make_model(helper.make_graph(made, "m", [x], [y], weights), opset_imports=opsets, ir_version=8)


def run(proto, name, x):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run([name], {"x": x})[0]


def logarithm(proto, x=Z, **options):
    copy, name = in_logarithms(proto, proto.graph.output[0].name, **options)
    return run(copy, name, x).astype(np.float64)


def classifier(rows, transform, **given):
    W = np.eye(3, dtype=np.float32)[:rows]
    return {
        "coefficients": W.ravel().tolist(), "intercepts": [0.0] * rows, "post_transform": transform,
        "classlabels_ints": list(range(max(rows, 2))), **given,
    }  # fmt: skip


def axes(opset, names=("s", "k")):
    return ({"axes": [1]}, ()) if opset < 13 else ({}, names[1:])


def softmax_written_out(opset, shifted):
    total, more = axes(opset)
    top = {"axes": [1]} if opset < 18 else {}
    nodes = [
        ("ReduceMax", ["x"] if opset < 18 else ["x", "k"], ["top"], {"keepdims": 1, **top}),
        ("Sub", ["x", "top"], ["t"], {}),
        ("Exp", ["t" if shifted else "x"], ["e"], {}),
        ("ReduceSum", ["e", *more], ["s"], {"keepdims": 1, **total}),
        ("Div", ["e", "s"], ["y"], {}),
    ]
    return nodes if shifted else nodes[2:]


SIGMOIDS = log_expit(Z.astype(np.float64))
SOFTMAX = log_softmax(Z.astype(np.float64), axis=1)
FIRST = SIGMOIDS[:, :1]
AGAINST = log_expit(-Z[:, :1].astype(np.float64))
EXACT = {
    "softmax": ([("Softmax", ["x"], ["y"], {"axis": 1})], {}, SOFTMAX),
    "exp of a log-softmax": ([("LogSoftmax", ["x"], ["l"], {"axis": 1}), ("Exp", ["l"], ["y"], {})], {}, SOFTMAX),
    "percent": (
        [("Softmax", ["x"], ["p"], {"axis": 1}), ("Mul", ["p", "c"], ["y"], {})], {"c": np.float32(100)}, SOFTMAX + np.log(100),
    ),
    "moved": (
        [
            ("Softmax", ["x"], ["p"], {"axis": 1}), ("Identity", ["p"], ["q"], {}), ("Cast", ["q"], ["r"], {"to": 1}),
            (f"{ML}.ArrayFeatureExtractor", ["r", "k"], ["y"], {}),
        ],
        {"k": np.array([2, 0, 1])}, SOFTMAX[:, [2, 0, 1]],
    ),
    "classifier and normaliser": (
        [
            (f"{ML}.LinearClassifier", ["x"], ["l", "p"], classifier(3, "SOFTMAX")),
            (f"{ML}.Normalizer", ["p"], ["y"], {"norm": "L1"}),
        ], {}, SOFTMAX,
    ),
    "one against the rest": (
        [
            (f"{ML}.LinearClassifier", ["x"], ["l", "p"], classifier(3, "LOGISTIC")),
            (f"{ML}.Normalizer", ["p"], ["y"], {"norm": "L1"}),
        ], {}, SIGMOIDS - logsumexp(SIGMOIDS, axis=1, keepdims=True),
    ),
    "one row for two classes": (
        [(f"{ML}.LinearClassifier", ["x"], ["l", "y"], classifier(1, "LOGISTIC"))], {}, np.hstack([AGAINST, FIRST]),
    ),
    "regressor": (
        [(f"{ML}.LinearRegressor", ["x"], ["y"], {"coefficients": np.eye(3).ravel().tolist(), "targets": 3, "post_transform": "SOFTMAX"})],
        {}, SOFTMAX,
    ),
    "one less a sigmoid": (
        [
            ("Sigmoid", ["x"], ["p"], {}), ("Sub", ["one", "p"], ["q"], {}), ("Concat", ["q", "p"], ["y"], {"axis": 1}),
        ], {"one": np.ones(1, np.float32)}, np.hstack([log_expit(-Z.astype(np.float64)), SIGMOIDS]),
    ),
    "mean of two": (
        [
            ("Softmax", ["x"], ["p"], {"axis": 1}), ("Neg", ["x"], ["m"], {}), ("Softmax", ["m"], ["q"], {"axis": 1}),
            ("Add", ["p", "q"], ["s"], {}), ("Div", ["s", "two"], ["y"], {}),
        ], {"two": np.float32(2)}, np.logaddexp(SOFTMAX, log_softmax(-Z.astype(np.float64), axis=1)) - np.log(2),
    ),
    "weighted mean": (
        [
            ("Softmax", ["x"], ["p"], {"axis": 1}), ("Neg", ["x"], ["m"], {}), ("Softmax", ["m"], ["q"], {"axis": 1}),
            ("Mul", ["w", "p"], ["a"], {}), ("Mul", ["q", "v"], ["b"], {}), ("Sum", ["a", "b"], ["y"], {}),
        ], {"w": np.float32(0.75), "v": np.float32(0.25)},
        np.logaddexp(SOFTMAX + np.log(0.75), log_softmax(-Z.astype(np.float64), axis=1) + np.log(0.25)),
    ),
    "mean over an axis": (
        [
            ("Softmax", ["x"], ["p"], {"axis": 1}), ("Neg", ["x"], ["m"], {}), ("Softmax", ["m"], ["q"], {"axis": 1}),
            ("Reshape", ["p", "t"], ["a"], {}), ("Reshape", ["q", "t"], ["b"], {}), ("Concat", ["a", "b"], ["c"], {"axis": 0}),
            ("ReduceMean", ["c", "k"], ["y"], {"keepdims": 0}),
        ], {"t": np.array([1, -1, 3]), "k": np.array([0])},
        np.logaddexp(SOFTMAX, log_softmax(-Z.astype(np.float64), axis=1)) - np.log(2),
    ),
    "sigmoid written out": (
        [
            ("Mul", ["x", "c"], ["n"], {}), ("Exp", ["n"], ["e"], {}), ("Add", ["e", "one"], ["s"], {}), ("Reciprocal", ["s"], ["y"], {}),
        ], {"c": np.float32(-1), "one": np.float32(1)}, SIGMOIDS,
    ),
    "clipped": (
        [("Softmax", ["x"], ["p"], {"axis": 1}), ("Clip", ["p", "a", "b"], ["y"], {})],
        {"a": np.float32(1e-5), "b": np.float32(1)}, np.maximum(SOFTMAX, np.log(1e-5)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXACT))
def test_logarithms_are_those_of_float64(name):  # 1e-6 of the largest: float32 scores of 150
    nodes, weights, expected = EXACT[name]
    got = logarithm(model(nodes, weights))
    shift = (got - expected)[:, :1] if name in ("softmax", "classifier and normaliser", "regressor") else 0.0  # scores
    assert_allclose(got - shift, expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-6)


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operator_sets(opset, shifted):
    """The copy is of the file's own operator set, and runs."""
    x = Z if shifted else Z / 10  # the exponentials of 150 overflow in the file itself
    proto = model(softmax_written_out(opset, shifted), {"k": np.array([1])}, opset=opset)
    got = logarithm(proto, x)
    assert_allclose(got, log_softmax(x.astype(np.float64), axis=1), atol=1e-5)
    end = ending(Graph(proto), "y")
    assert (end.kind, end.logits) == ("probabilities", "x")


def masked(first="p"):
    """Probabilities of one against the rest, where an exporter adds 1 to each if all are zero."""
    nodes = [
        ("Sigmoid", ["x"], ["p"], {}),
        ("ReduceSum", [first, "k"], ["s"], {"keepdims": 1}),
        ("Cast", ["s"], ["any"], {"to": 9}),
        ("Not", ["any"], ["none"], {}),
        ("Cast", ["none"], ["m"], {"to": 1}),
        ("Add", ["p", "m"], ["a"], {}),
        ("Mul", ["m", "n"], ["mn"], {}),
        ("Add", ["s", "mn"], ["b"], {}),
        ("Div", ["a", "b"], ["y"], {}),
    ]
    return model(nodes, {"k": np.array([1]), "n": np.float32(3)})


def test_masks_for_zero_sums_keep_the_uniform_distribution():
    x = np.concatenate([Z, np.full((1, 3), -1e4, np.float32)])
    got = logarithm(masked(), x)
    expected = SIGMOIDS - logsumexp(SIGMOIDS, axis=1, keepdims=True)
    assert_allclose(got[:-1], expected, atol=2e-4, rtol=1e-6)
    assert_allclose(got[-1], np.log(1 / 3), rtol=1e-6)


def test_a_mask_of_something_else_is_not_taken_for_one():
    assert in_logarithms(masked("x"), "y") is None


@pytest.mark.parametrize(
    "nodes",
    [
        [("Sigmoid", ["x"], ["y"], {})],
        [("Neg", ["x"], ["n"], {}), ("Exp", ["n"], ["e"], {}), ("Add", ["one", "e"], ["s"], {}), ("Div", ["one", "s"], ["y"], {})],
        [("Neg", ["x"], ["n"], {}), ("Sigmoid", ["n"], ["p"], {}), ("Sub", ["one", "p"], ["y"], {})],
        [(f"{ML}.LinearClassifier", ["x"], ["l", "y"], classifier(3, "LOGISTIC"))],
    ],
)
def test_odds_of_sigmoids_are_their_scores(nodes):
    assert_allclose(logarithm(model(nodes, {"one": np.float32(1)}), odds=True), Z, rtol=1e-6)


UNKNOWN = {
    "no activation": [("Mul", ["x", "x"], ["y"], {})],
    "a difference": [("Sigmoid", ["x"], ["p"], {}), ("Sigmoid", ["p"], ["q"], {}), ("Sub", ["p", "q"], ["y"], {})],
    "added scores": [("Softmax", ["x"], ["p"], {"axis": 1}), ("Add", ["p", "x"], ["y"], {})],
    "rounded": [("Softmax", ["x"], ["p"], {"axis": 1}), ("Round", ["p"], ["y"], {})],
    "whole numbers": [("Softmax", ["x"], ["p"], {"axis": 1}), ("Cast", ["p"], ["i"], {"to": 7}), ("Cast", ["i"], ["y"], {"to": 1})],
    "one row that is no softmax": [(f"{ML}.LinearClassifier", ["x"], ["l", "y"], classifier(1, "SOFTMAX"))],
    "without zeros": [(f"{ML}.LinearClassifier", ["x"], ["l", "y"], classifier(3, "SOFTMAX_ZERO"))],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(UNKNOWN))
def test_what_has_no_known_logarithm_is_left(name):
    assert in_logarithms(model(UNKNOWN[name]), "y") is None


@pytest.mark.parametrize(("dtype", "kind"), [(TensorProto.DOUBLE, np.float64), (TensorProto.FLOAT16, np.float16)])
def test_types(dtype, kind):
    proto = model([("Sigmoid", ["x"], ["p"], {}), ("Identity", ["p"], ["y"], {})], dtype=dtype)
    if kind is np.float16:  # its logarithms are no better than its probabilities
        assert in_logarithms(proto, "y") is None
    else:
        assert_allclose(logarithm(proto, Z.astype(kind)), SIGMOIDS, rtol=1e-14, atol=1e-15)


def test_the_ends_of_classical_models():
    def end(*nodes):
        found = ending(Graph(model(list(nodes))), "y")
        return found.kind, found.node is not None

    def made(rows, transform, **given):
        return (f"{ML}.LinearClassifier", ["x"], ["l", "y"], classifier(rows, transform, **given))

    assert end(made(3, "SOFTMAX")) == ("probabilities", True)
    assert end(made(3, "LOGISTIC")) == ("sigmoid", True)
    assert end(made(1, "LOGISTIC")) == ("logits", False)  # two numbers that sum to 1, as their values tell
    assert end(made(2, "LOGISTIC", coefficients=[1.0, 2, 3, -1, -2, -3])) == ("logits", False)
    assert end(made(3, "NONE")) == ("logits", False)
    divided = (f"{ML}.Normalizer", ["p"], ["y"], {"norm": "L1"})
    assert end(("Softmax", ["x"], ["p"], {"axis": 1}), divided) == ("probabilities", True)
    assert end(("Sigmoid", ["x"], ["p"], {}), divided) == ("logits", False)
    assert end(("Softmax", ["x"], ["p"], {"axis": 1}), (f"{ML}.Normalizer", ["p"], ["y"], {"norm": "L2"})) == ("logits", False)


def test_expit_is_what_the_file_computes():
    proto = model(EXACT["sigmoid written out"][0], EXACT["sigmoid written out"][1])
    assert_allclose(run(proto, "y", Z), expit(Z.astype(np.float64)), atol=1e-6)
    assert ending(Graph(proto), "y").logits == "x"
