"""Which axis the graph says the classes lie on, and whether a slope reaches the output."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxfim.graph.ends import ending
from onnxfim.graph.graph import Graph
from onnxfim.graph.output_axes import class_clues, input_batch_axis
from onnxfim.graph.reach import no_slope
from tests.support import models
from tests.support.step_models import forest

A = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
B = np.zeros(4, np.float32)
KERNEL = np.random.default_rng(1).standard_normal((4, 3, 1, 1)).astype(np.float32)
SCORES = [("MatMul", ["x", "A"], ["t"], {}), ("Add", ["t", "b"], ["u"], {})]


def graph(nodes, weights, shape, out, **options):
    return Graph(models.model(nodes, weights, shape=shape, out=out, **options))


def written(*nodes, end="z"):
    """Scores per step, and nodes that go on from ``u`` and end in ``z``."""
    return [*SCORES, *nodes] if nodes else [SCORES[0], ("Add", ["t", "b"], [end], {})]


CASES = {
    "a product with weights makes its last axis": (written(), (5, 6), (5, 4), 2, "MatMul"),
    "and a transpose moves it": (written(("Transpose", ["u"], ["z"], {"perm": [0, 2, 1]})), (5, 6), (4, 5), 1, "MatMul"),
    "weights on the left make the last but one": (
        [("MatMul", ["A1", "x"], ["z"], {})], (6, 5), (4, 5), 1, "MatMul",
    ),
    "an activation keeps it": (written(("Relu", ["u"], ["z"], {})), (5, 6), (5, 4), 2, "MatMul"),
    "a softmax runs over it": (written(("Softmax", ["u"], ["z"], {"axis": 1})), (5, 6), (5, 4), 1, "Softmax"),
    "a softmax, moved": (
        written(("Softmax", ["u"], ["p"], {"axis": 2}), ("Transpose", ["p"], ["z"], {"perm": [0, 2, 1]})), (5, 6), (4, 5), 1, "Softmax",
    ),
    "a softmax, reshaped": (
        written(("Softmax", ["u"], ["p"], {"axis": 2}), ("Reshape", ["p", "s"], ["z"], {})), (5, 6), (5, 1, 4), 3, "Softmax",
    ),
    "an ArgMax that reads it": (
        written(("Identity", ["u"], ["z"], {}), ("ArgMax", ["z"], ["best"], {"axis": 1})), (5, 6), (5, 4), 1, "ArgMax",
    ),
    "a convolution makes its second axis": ([("Conv", ["x", "K"], ["z"], {})], (3, 7, 7), (4, 7, 7), 1, "Conv"),
    "and a transpose moves that": (
        [("Conv", ["x", "K"], ["c"], {}), ("Transpose", ["c"], ["z"], {"perm": [0, 2, 3, 1]})], (3, 7, 7), (7, 7, 4), 3, "Conv",
    ),
    "an equation's own letter": ([("Einsum", ["x", "A"], ["z"], {"equation": "btd,dk->bkt"})], (5, 6), (4, 5), 1, "Einsum"),
}  # fmt: skip
WEIGHTS = {"A": A, "A1": A.T.copy(), "b": B, "K": KERNEL, "s": np.array([0, 5, 1, 4])}


@pytest.mark.parametrize("case", CASES)
def test_the_class_axis(case):
    nodes, shape, out, axis, word = CASES[case]
    used = {n for _, inputs, _, _ in nodes for n in inputs}
    found = class_clues(graph(nodes, {k: w for k, w in WEIGHTS.items() if k in used}, shape, out), "z", len(out) + 1)
    assert found[0].axis == axis
    assert word in found[0].how


def test_a_name_is_firmer_than_a_layer():
    found = class_clues(graph(written(), {"A": A, "b": B}, (5, 6), ("num_classes", 4)), "z", 3)
    assert [(c.axis, c.firm) for c in found] == [(1, True), (2, False)]


def test_a_product_of_two_computed_values_tells_nothing():
    nodes = [("Transpose", ["x"], ["y"], {"perm": [0, 2, 1]}), ("MatMul", ["x", "y"], ["z"], {})]
    assert class_clues(graph(nodes, {}, (5, 6), (5, 5)), "z", 3) == ()


class TestBatchOfTheInput:
    def test_it_is_the_first_axis(self):
        assert input_batch_axis(graph(written(), {"A": A, "b": B}, (5, 6), (5, 4)), "x") == (0, "the first axis")

    def test_a_name_tells_another(self):
        made = graph(written(), {"A": A, "b": B}, ("batch_size", 6), (5, 4), batch="seq")
        assert input_batch_axis(made, "x") == (1, "its axis 1 is called 'batch_size'")

    @pytest.mark.parametrize(("layout", "axis"), [(0, 1), (1, 0)])
    def test_a_recurrent_layer_tells_it(self, layout, axis):
        rng = np.random.default_rng(0)
        weights = {"w": rng.standard_normal((1, 4, 6)).astype(np.float32), "r": rng.standard_normal((1, 4, 4)).astype(np.float32)}
        nodes = [("RNN", ["x", "w", "r"], ["z"], {"hidden_size": 4, "layout": layout})]
        assert input_batch_axis(graph(nodes, weights, (5, 6), (1, 5, 4), batch=None), "x")[0] == axis

    @pytest.mark.parametrize(
        ("batch", "shape", "z", "axis"),
        [("N", [2, "N", 6], ["N", 3], 1), (1, [2, 1, 6], [1, 3], 1), (8, [8, 1, 6], [8, 3], 0), (1, [8, 1, 6], [8, 3], 0)],
    )
    def test_another_input_tells_it(self, batch, shape, z, axis):  # the last: a threshold that has no batch
        info = helper.make_tensor_value_info
        inputs = [info("a", TensorProto.FLOAT, [batch, 4]), info("x", TensorProto.FLOAT, shape)]
        nodes = [helper.make_node("Add", ["a", "x"], ["z"])]
        made = helper.make_graph(nodes, "two", inputs, [info("z", TensorProto.FLOAT, z)])
        assert input_batch_axis(Graph(helper.make_model(made)), "x")[0] == axis


class TestEndings:
    def test_percent(self):
        found = ending(graph([*written(("Softmax", ["u"], ["p"], {"axis": 2}), ("Mul", ["p", "h"], ["z"], {}))],
                             {"A": A, "b": B, "h": np.float32(100)}, (5, 6), (5, 4)), "z")  # fmt: skip
        assert (found.kind, found.logits, found.total) == ("probabilities", "u", 100.0)

    def test_a_clip_hides_the_logits(self):
        nodes = written(("Softmax", ["u"], ["p"], {"axis": 2}), ("Clip", ["p", "low", "high"], ["z"], {}))
        found = ending(graph(nodes, {"A": A, "b": B, "low": np.float32(0), "high": np.float32(0.9)}, (5, 6), (5, 4)), "z")
        assert (found.kind, found.logits, found.clipped) == ("probabilities", None, (0.0, pytest.approx(0.9)))

    def test_exp_after_logarithms(self):
        found = ending(
            graph(written(("LogSoftmax", ["u"], ["p"], {"axis": 2}), ("Exp", ["p"], ["z"], {})), {"A": A, "b": B}, (5, 6), (5, 4)),
            "z",
        )
        assert (found.kind, found.logits) == ("probabilities", "u")

    def test_exp_alone_makes_nothing(self):
        found = ending(graph(written(("Exp", ["u"], ["z"], {})), {"A": A, "b": B}, (5, 6), (5, 4)), "z")
        assert (found.kind, found.node, found.linear) == ("logits", None, False)

    @pytest.mark.parametrize(("op", "linear"), [("Identity", True), ("Relu", False)])
    def test_scores_of_any_sign(self, op, linear):
        assert ending(graph(written((op, ["u"], ["z"], {})), {"A": A, "b": B}, (5, 6), (5, 4)), "z").linear is linear


ONE, SPLIT = np.array([1]), {"v": np.array([0, 1], np.float32), "n": np.array(4)}
VOTE = [("ArgMax", ["u"], ["i"], {"axis": 1, "keepdims": 0}), ("OneHot", ["i", "n", "v"], ["z"], {"axis": 1})]
NEIGHBOURS = [
    ("Sub", ["x1", "P"], ["d"], {}),
    ("Mul", ["d", "d"], ["q"], {}),
    ("ReduceSum", ["q", "two"], ["far"], {"keepdims": 0}),
]
NEAREST = [("Unsqueeze", ["x", "one"], ["x1"], {}), *NEIGHBOURS, ("TopK", ["far", "k"], ["near", "at"], {"axis": 1, "largest": 0})]
KNN = {"P": np.ones((1, 8, 6), np.float32), "one": ONE, "two": np.array([2]), "k": np.array([3]), "L": np.ones((8, 4), np.float32)}
STEPS = {
    "ArgMax": (written(*VOTE), {"A": A, "b": B, **SPLIT}),
    "Round": (written(("Round", ["u"], ["z"], {})), {"A": A, "b": B}),
    "Sign": (written(("Sign", ["u"], ["s"], {}), ("MatMul", ["s", "M"], ["z"], {})), {"A": A, "b": B, "M": np.eye(4, dtype=np.float32)}),
    "Greater": (
        written(("Greater", ["u", "o"], ["g"], {}), ("Where", ["g", "o", "b"], ["z"], {})), {"A": A, "b": B, "o": np.float32(0)},
    ),
    "Cast": (written(("Cast", ["u"], ["i"], {"to": 6}), ("Cast", ["i"], ["z"], {"to": 1})), {"A": A, "b": B}),
    "TopK": ([*NEAREST, ("Gather", ["L", "at"], ["g"], {"axis": 0}), ("ReduceMean", ["g"], ["z"], {"axes": [1], "keepdims": 0})], KNN),
}  # fmt: skip
SLOPES = {
    "a mask": (
        written(("Greater", ["u", "o"], ["g"], {}), ("Cast", ["g"], ["m"], {"to": 1}), ("Mul", ["u", "m"], ["z"], {})),
        {"A": A, "b": B, "o": np.float32(0)},
    ),
    "distances of the nearest": ([*NEAREST[:-1], ("TopK", ["far", "k"], ["z", "at"], {"axis": 1, "largest": 0})], KNN),
    "quantisers": (
        written(("QuantizeLinear", ["u", "q"], ["i"], {}), ("DequantizeLinear", ["i", "q"], ["z"], {})),
        {"A": A, "b": B, "q": np.float32(0.1)},
    ),
    "one path beside a step": (written(("Round", ["u"], ["s"], {}), ("Add", ["u", "s"], ["z"], {})), {"A": A, "b": B}),
    "a constant": (written(("Mul", ["u", "o"], ["z"], {})), {"A": A, "b": B, "o": np.float32(0)}),
}  # fmt: skip


class TestSlope:
    @pytest.mark.parametrize("op", STEPS)
    def test_none_passes(self, op):
        nodes, weights = STEPS[op]
        assert op in no_slope(graph(nodes, weights, (6,), (4,)), "x", "z")

    @pytest.mark.parametrize("case", SLOPES)
    def test_one_passes(self, case):
        nodes, weights = SLOPES[case]
        assert no_slope(graph(nodes, weights, (6,), (4,)), "x", "z") is None

    @pytest.mark.parametrize("regressor", [False, True])
    def test_trees(self, regressor):
        found = Graph(forest(3, 6, 4, regressor=regressor))
        assert "TreeEnsemble" in no_slope(found, "x", "z")

    def test_an_output_that_does_not_depend_on_the_input(self):
        made = models.model([("Identity", ["c"], ["z"], {}), ("Round", ["x"], ["r"], {})], {"c": np.ones((1, 4), np.float32)}, shape=(6,),
                            out=(4,), outputs=[helper.make_tensor_value_info("r", 1, ["N", 6])])  # fmt: skip
        assert no_slope(Graph(made), "x", "z") is None
