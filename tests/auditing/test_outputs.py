"""How outputs are read, end to end: axes, probabilities of every make, and values against the definition in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, softmax

from onnxfim.auditing.run import audit
from onnxfim.auditing.subject import from_callable
from onnxfim.errors import InputError, ModelError
from tests.support import models

RNG = np.random.default_rng(0)
A, A2 = (RNG.standard_normal((6, 4)).astype(np.float32) for _ in range(2))
B = RNG.standard_normal(4).astype(np.float32)
X, STEPS = RNG.standard_normal((10, 6)).astype(np.float32), RNG.standard_normal((8, 5, 6)).astype(np.float32)
SCORES = [("MatMul", ["x", "A"], ["t"], {}), ("Add", ["t", "b"], ["u"], {})]
WEIGHTS = {"A": A, "b": B}
MIXED = [
    *SCORES,
    ("Softmax", ["u"], ["p"], {"axis": 1}),
    ("MatMul", ["x", "A2"], ["v"], {}),
    ("Softmax", ["v"], ["q"], {"axis": 1}),
]


def truth(probabilities, X, h=1e-5):
    """``λ_max(Σ_k ∇p_k ∇p_kᵀ / p_k)``, summed over positions, by central differences of ``probabilities`` (d,) to (P, K) in float64."""
    found = []
    for x in X.astype(np.float64):
        moves = h * np.eye(x.size).reshape(x.size, *x.shape)
        J = np.stack([(probabilities(x + v) - probabilities(x - v)) / (2 * h) for v in moves], axis=-1)  # (P, K, d)
        rows = (J / np.sqrt(probabilities(x))[..., None]).reshape(-1, x.size)
        found.append(np.linalg.eigvalsh(rows.T @ rows)[-1])
    return np.array(found)


def scores(x):
    return np.atleast_2d(x @ A.astype(float) + B)


def p(x):
    return softmax(scores(x), axis=-1)


def q(x):
    return softmax(np.atleast_2d(x @ A2.astype(float)), axis=-1)


def values(found, measure="lambda_max"):
    return np.array([getattr(s, measure).value for s in found.samples])


def errors(found):
    return [f.id for f in found.findings if f.level == "error"]


@pytest.fixture
def audited(saved, cpu):
    def run(nodes, weights, X, out, **options):
        batch = options.pop("batch", "N")
        made = models.model(nodes, weights, shape=X.shape[1:], out=out, batch=batch, outputs=options.pop("outputs", ()))
        if (first := options.pop("first", None)) is not None:
            shape = made.graph.output[0].type.tensor_type.shape
            shape.dim[0].Clear()
            shape.dim[0].dim_value = first
        return audit(saved(made), X, settings=cpu(replay=0, **options))

    return run


class TestAxes:
    @pytest.mark.parametrize("batch", ["N", 1, 4])
    def test_scores_by_a_product_have_their_classes_last(self, audited, batch):  # rtol: float32 differences of a linear map
        found = audited([SCORES[0], ("Add", ["t", "b"], ["z"], {})], WEIGHTS, STEPS, (5, 4), batch=batch)
        assert (found.model.num_outputs, found.model.positions, found.model.class_axis, found.model.batch_axis) == (4, 5, 2, 0)
        assert "the weights of the last layer (MatMul" in found.model.axes_from
        assert_allclose(values(found), truth(p, STEPS), rtol=1e-3)

    def test_probabilities_that_are_moved(self, audited):  # as above
        nodes = [*SCORES, ("Softmax", ["u"], ["p"], {"axis": 2}), ("Transpose", ["p"], ["z"], {"perm": [0, 2, 1]})]
        found = audited(nodes, WEIGHTS, STEPS, (4, 5))
        assert (found.model.num_outputs, found.model.positions, found.model.class_axis) == (4, 5, 1)
        assert "logits before node 'Softmax_2'" in found.model.read_from
        assert_allclose(values(found), truth(p, STEPS), rtol=1e-3)

    def test_time_first(self, audited):  # as above
        nodes = [
            ("Transpose", ["x"], ["y"], {"perm": [1, 0, 2]}),
            ("MatMul", ["y", "A"], ["t"], {}),
            ("Add", ["t", "b"], ["z"], {}),
        ]
        for asked in (None, 1, -2):
            found = audited(nodes, WEIGHTS, STEPS, ("N", 4), first=5, batch_axis=asked)
            assert (found.model.class_axis, found.model.batch_axis) == (2, 1)
            assert_allclose(values(found), truth(p, STEPS), rtol=1e-3)
            assert not found.bound.available
            assert "batch" in found.bound.reason
        assert "as given by --batch-axis" in found.model.axes_from

    def test_it_asks_where_two_readings_fit(self, audited, told):
        nodes = [("Transpose", ["x"], ["y"], {"perm": [0, 2, 1]}), ("MatMul", ["x", "y"], ["z"], {})]
        with pytest.raises(
            ModelError, match=told("5 classes (axis 1) at 5 positions or 5 classes (axis 2)", "--class-axis 1 or 2")
        ):
            audited(nodes, {}, STEPS, (5, 5))
        found = [values(audited(nodes, {}, STEPS, (5, 5), class_axis=axis)) for axis in (1, -1)]
        assert_allclose(*found, rtol=1e-3)  # the outputs are symmetric

    @pytest.mark.parametrize("axis", [0, 3, -4])
    def test_an_axis_that_cannot_be(self, audited, told, axis):
        with pytest.raises(ModelError, match=told(f"--class-axis {axis}", "expected one of the axes 1 or 2")):
            audited([SCORES[0], ("Add", ["t", "b"], ["z"], {})], WEIGHTS, STEPS, (5, 4), class_axis=axis)

    def test_a_batch_axis_that_cannot_be(self, audited, told):
        with pytest.raises(ModelError, match=told("--batch-axis 1", "Name axis 0")):
            audited([SCORES[0], ("Add", ["t", "b"], ["z"], {})], WEIGHTS, STEPS, (5, 4), batch_axis=1)

    def test_rows_that_are_not_samples(self, audited, told):
        nodes = [("Reshape", ["x", "s"], ["y"], {}), ("MatMul", ["y", "A"], ["z"], {})]
        with pytest.raises(ModelError, match=told("shape (40, 4) for 8 samples", "one row per sample")):
            audited(nodes, {"s": np.array([-1, 6]), "A": A}, STEPS, (4,))

    def test_an_input_with_the_time_first(self, audited, told):
        weights = {"w": RNG.standard_normal((1, 16, 6)).astype(np.float32), "r": RNG.standard_normal((1, 16, 4)).astype(np.float32)}
        nodes = [("LSTM", ["x", "w", "r"], ["y"], {"hidden_size": 4}), ("Squeeze", ["y", "one"], ["z"], {})]
        with pytest.raises(InputError, match=told("batch on axis 1", "LSTM", "batch_first=True")):
            audited(nodes, {**weights, "one": np.array([1])}, STEPS, (5, 4))

    def test_a_function_tells_its_outputs(self, cpu, told):  # rtol: float32 differences
        found = audit(from_callable(lambda Z: Z @ A + B, (5, 6), 4), STEPS, settings=cpu())
        assert (found.model.class_axis, found.model.positions) == (2, 5)
        assert_allclose(values(found), truth(p, STEPS), rtol=1e-3)
        with pytest.raises(ModelError, match=told("--class-axis 1 or 2")):
            audit(from_callable(lambda Z: Z @ Z.transpose(0, 2, 1), (5, 6), 5), STEPS, settings=cpu())

    def test_the_record_keeps_it(self, audited):
        found = audited([SCORES[0], ("Add", ["t", "b"], ["z"], {})], WEIGHTS, STEPS, (5, 4))
        model = json.loads(found.to_json())["model"]
        assert (model["class_axis"], model["batch_axis"]) == (2, 0)


MAKES = {  # nodes from x to z, further weights, the probabilities, whether there is a bound
    "two from one sigmoid": (
        [("MatMul", ["x", "c"], ["t"], {}), ("Sigmoid", ["t"], ["p"], {}), ("Sub", ["one", "p"], ["o"], {}), ("Concat", ["o", "p"], ["z"], {"axis": 1})],
        {"c": A[:, :1].copy(), "one": np.ones(1, np.float32)},
        lambda x: np.array([[1 - expit(x @ A[:, 0].astype(float)), expit(x @ A[:, 0].astype(float))]]), True,
    ),
    "a clip after softmax": (
        [*SCORES, ("Softmax", ["u"], ["p"], {"axis": 1}), ("Clip", ["p", "low"], ["z"], {})], {**WEIGHTS, "low": np.float32(1e-7)}, p, True,
    ),
    "a clip that cuts": (
        [*SCORES, ("Softmax", ["u"], ["p"], {"axis": 1}), ("Clip", ["p", "low", "high"], ["z"], {})],
        {**WEIGHTS, "low": np.float32(0.02), "high": np.float32(0.9)},
        lambda x: (c := np.clip(p(x), 0.02, 0.9)) / c.sum(axis=-1, keepdims=True), True,
    ),
    "a mean of softmaxes": ([*MIXED, ("Mean", ["p", "q"], ["z"], {})], {**WEIGHTS, "A2": A2}, lambda x: (p(x) + q(x)) / 2, True),
    "a weighted sum": (
        [*MIXED, ("Mul", ["p", "a"], ["pa"], {}), ("Mul", ["q", "c"], ["qc"], {}), ("Add", ["pa", "qc"], ["z"], {})],
        {**WEIGHTS, "A2": A2, "a": np.float32(0.3), "c": np.float32(0.7)}, lambda x: 0.3 * p(x) + 0.7 * q(x), True,
    ),
    "percent": ([*SCORES, ("Softmax", ["u"], ["p"], {"axis": 1}), ("Mul", ["p", "h"], ["z"], {})], {**WEIGHTS, "h": np.float32(100)}, p, True),
    "percent of a mean": (
        [*MIXED, ("Add", ["p", "q"], ["s"], {}), ("Mul", ["s", "h"], ["z"], {})], {**WEIGHTS, "A2": A2, "h": np.float32(50)},
        lambda x: (p(x) + q(x)) / 2, True,
    ),
    "softmax with a temperature": (
        [*SCORES, ("Div", ["u", "T"], ["v"], {}), ("Softmax", ["v"], ["z"], {"axis": 1})], {**WEIGHTS, "T": np.float32(2.5)},
        lambda x: softmax(scores(x) / 2.5, axis=-1), True,
    ),
    "exponentials of log-probabilities": ([*SCORES, ("LogSoftmax", ["u"], ["p"], {"axis": 1}), ("Exp", ["p"], ["z"], {})], WEIGHTS, p, True),
    "sigmoids over their sum": (
        [*SCORES, ("Sigmoid", ["u"], ["p"], {}), ("ReduceSum", ["p", "one"], ["s"], {}), ("Div", ["p", "s"], ["z"], {})],
        {**WEIGHTS, "one": np.array([1])}, lambda x: (s := expit(scores(x))) / s.sum(axis=-1, keepdims=True), True,
    ),
    "joined classes": (
        [*SCORES, ("Softmax", ["u"], ["p"], {"axis": 1}), ("MatMul", ["p", "M"], ["z"], {})],
        {**WEIGHTS, "M": np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)},
        lambda x: p(x) @ np.array([[1, 0], [1, 0], [0, 1], [0, 1]]), False,
    ),
}  # fmt: skip


class TestProbabilities:
    @pytest.mark.parametrize("method", ["auto", "sketch"])
    @pytest.mark.parametrize("make", MAKES)
    def test_values_are_those_of_the_definition(self, audited, make, method):
        """By gradients to float32 (1 - p cancels to 1e-5); the sketch covers nine in ten, and all within a factor of 2."""
        nodes, weights, probabilities, bounded = MAKES[make]
        found = audited(nodes, weights, X, (probabilities(X[0].astype(float)).shape[1],), method=method)
        wanted = truth(probabilities, X)
        assert found.model.output_kind == "probabilities"
        assert errors(found) == []
        if method == "auto":
            assert found.run.method == "gradient"
            assert_allclose(values(found), wanted, rtol=1e-4)
        else:
            estimates = [s.lambda_max for s in found.samples]
            assert np.mean([e.low <= t <= e.high for e, t in zip(estimates, wanted, strict=True)]) >= 0.8  # 10 samples
            assert_allclose(values(found), wanted, rtol=1)
        assert found.bound.available is bounded
        if bounded:
            assert all(np.log10(max(t, 1e-300)) <= s.log10_fisher_bound.value for s, t in zip(found.samples, wanted, strict=True))
        else:
            assert "logits cannot be read" in found.bound.reason
            assert all(s.log10_fisher_bound is None for s in found.samples)

    def test_what_was_divided_and_clipped_is_said(self, audited):
        told = {make: audited(nodes, weights, X, (f(X[0].astype(float)).shape[1],)).model.read_from
                for make, (nodes, weights, f, _) in MAKES.items()}  # fmt: skip
        assert "read as probabilities after division by 100" in told["percent"]
        assert "non-negative and sum to 100" in told["percent of a mean"]
        assert "a Clip to 0.02 … 0.9 follows, where entries at its ends have no slope" in told["a clip that cuts"]
        assert "divided by their sum" in told["a clip that cuts"]

    def test_percent_of_a_function(self, cpu):  # rtol: forward differences
        found = audit(from_callable(lambda Z: 100 * softmax(Z @ A + B, axis=1), (6,), 4), X, settings=cpu())
        assert_allclose(values(found), truth(p, X), rtol=1e-2)

    def test_two_distributions_side_by_side(self, audited, told):
        with pytest.raises(ModelError, match=told("2 distributions side by side (entries 0 to 3, 4 to 7", "--output")):
            audited([*MIXED, ("Concat", ["p", "q"], ["z"], {"axis": 1})], {**WEIGHTS, "A2": A2}, X, (8,))

    @pytest.mark.parametrize(
        ("nodes", "more", "out"),
        [
            ([("Softmax", ["u"], ["p"], {"axis": 1}), ("Slice", ["p", "i", "j", "i"], ["z"], {})], {"i": np.array([1]), "j": np.array([4])}, 3),
            ([("HardSigmoid", ["u"], ["z"], {})], {}, 4),
            ([("Exp", ["u"], ["z"], {})], {}, 4),
        ],
    )  # fmt: skip
    def test_rows_of_no_known_kind_are_an_error(self, audited, nodes, more, out):
        found = audited([*SCORES, *nodes], {**WEIGHTS, **more}, X, (out,))
        assert "output-kind" in errors(found)
        assert found.verdict == "inconclusive"

    def test_a_user_answers_for_the_kind(self, audited):
        found = audited([*SCORES, ("Softmax", ["u"], ["z"], {"axis": 1})], WEIGHTS, X, (4,), output_kind="logits")
        assert ("output-kind", "warning") in [(f.id, f.level) for f in found.findings]

    @pytest.mark.parametrize("end", ["MatMul", "Add"])
    def test_a_layer_makes_scores_whatever_their_sign(self, audited, end):
        weights = {"A": np.abs(A) * 0.01, "b": np.full(4, 0.2, np.float32)}
        nodes = [("MatMul", ["x", "A"], ["z"], {})] if end == "MatMul" else [SCORES[0], ("Add", ["t", "b"], ["z"], {})]
        assert errors(audited(nodes, {k: weights[k] for _, i, _, _ in nodes for k in i if k in weights}, np.abs(X), (4,))) == []


class TestBounds:
    def test_of_log_probabilities_is_that_of_their_logits(self, audited):
        """The slope of log-probabilities exceeds that of logits: it is not held to their bound, F is."""
        weights = {"A": 8 * np.eye(6, 4, dtype=np.float32)}
        found = audited([("MatMul", ["x", "A"], ["t"], {}), ("LogSoftmax", ["t"], ["z"], {"axis": 1})], weights, X, (4,))
        assert max(np.log10(values(found, "logit_sensitivity"))) > found.bound.log10_lipschitz + 0.01
        assert max(np.log10(values(found))) <= found.bound.log10_fisher
        assert not found.bound.of_what_was_read
        assert "bound-violated" not in errors(found)

    def test_of_positions_holds_for_their_sum(self, audited):
        found = audited([SCORES[0], ("Add", ["t", "b"], ["z"], {})], WEIGHTS, STEPS, (5, 4))
        assert found.bound.available
        assert max(np.log10(values(found))) <= found.bound.log10_fisher
