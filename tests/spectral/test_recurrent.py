"""Bounds of recurrent operators and of unrolled loops: closed forms, the ranges they use, and why there is none."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import helper

from onnxfim.graph.recurrent import ActivationForm
from onnxfim.spectral.rules.steps_in_time import activation_range
from tests.spectral.cases import node
from tests.spectral.dense import Case, bound_of, largest_norm
from tests.support.recurrent_reference import _activation

LSTM = {"W": np.ones((1, 8, 3)), "R": np.ones((1, 8, 2))}


def lstm(op="LSTM", outputs=("", "y"), inputs=("t", "W", "R"), weights=LSTM, steps=4, before=(), **attributes) -> Case:
    nodes = [
        *before,
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node(op, list(inputs), list(outputs), hidden_size=2, **attributes),
    ]
    return Case(nodes, (steps, 3), dict(weights))


def test_a_linear_recurrence_has_the_norm_of_its_powers():
    """h_t = Σ r^(t−s) w·x_s: one unit, Affine of slope 1, so the last value's constant is |w|·√(Σ r^2k), exactly."""
    w, r = np.array([[[0.6, -0.3, 0.2]]]), np.array([[[0.5]]])
    form = {"activations": ["Affine"], "activation_alpha": [1.0], "activation_beta": [0.0]}
    case = Case(
        [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("RNN", ["t", "W", "R"], ["", "y"], hidden_size=1, **form)],
        (4, 3), {"W": w, "R": r},
    )  # fmt: skip
    want = np.linalg.norm(w) * np.sqrt(sum(0.25**k for k in range(4)))
    assert_allclose(10 ** bound_of(case).log10_lipschitz, want, rtol=1e-6)  # norms are rounded up by 1e-8 each


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_all_values_have_the_norm_of_the_matrix_of_powers(direction):
    w, r = np.array([[[0.6, -0.3, 0.2]]]), np.array([[[0.5]]])
    form = {"activations": ["Affine"], "activation_alpha": [1.0], "activation_beta": [0.0], "direction": direction}
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("RNN", ["t", "W", "R"], ["y"], hidden_size=1, **form)]
    K = np.tril(0.5 ** np.subtract.outer(np.arange(4), np.arange(4)).clip(0))
    want = np.linalg.norm(w) * np.linalg.norm(K, 2)
    assert_allclose(10 ** bound_of(Case(nodes, (4, 3), {"W": w, "R": r})).log10_lipschitz, want, rtol=1e-6)


def test_an_lstm_s_bound_is_finite_at_any_length_and_less_on_bounded_inputs():
    """|c_t| ≤ t bounds it without any range of the input; bounded inputs bound the gates, which then forget."""
    small = {k: 0.1 * v for k, v in LSTM.items()}
    free = bound_of(lstm(weights=small, steps=300))
    case = lstm(weights=small, steps=300)
    case.input_range = (-1.0, 1.0)
    inside = bound_of(case)
    assert free.available
    assert inside.log10_lipschitz < free.log10_lipschitz - 1


def test_figures_beyond_float64_stay_finite():
    bound = bound_of(lstm(weights={k: 10 * v for k, v in LSTM.items()}, steps=400))
    assert bound.available
    assert 308 < bound.log10_lipschitz < 10_000


REASONS = [
    (lstm(activations=["Sigmoid", "Relu", "Tanh"]), r"products of its gates \(relu, sigmoid, tanh\) with values that are not bounded"),
    (lstm("RNN", weights={"W": np.ones((1, 2, 3)), "R": np.ones((1, 2, 2))}, activations=["ThresholdedRelu"]), "thresholdedrelu jumps"),
    (lstm(inputs=("w", "W", "R", "", "", "h"), before=[node("ReduceMean", ["x", "axis"], ["h"])], weights={**LSTM, "axis": np.array([1]),
          "w": np.ones((4, 1, 3))}), "only its initial state varies"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "reason"), REASONS)
def test_why_there_is_none_is_said(case, reason):
    bound = bound_of(case)
    assert not bound.available
    assert re.search(reason, bound.reason)


@pytest.mark.parametrize(
    "name", ["Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign", "Softplus"]
)
@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.6), (-0.7, -0.2), (1.5, 0.1)])
@pytest.mark.parametrize("size", [0.0, 0.4, 3.0])
def test_ranges_hold_the_activation(name, alpha, beta, size):
    found = activation_range(ActivationForm(name.lower(), alpha, beta), size)
    x = np.linspace(-size, size, 2001)
    y = _activation(name, alpha, beta)(x)
    assert found.low - 1e-12 <= y.min()
    assert y.max() <= found.high + 1e-12
    steps = np.abs(np.diff(y)) / max(2 * size / 2000, 1e-300)
    assert steps.max(initial=0.0) <= found.slope * (1 + 1e-9)


def test_an_unrolled_loop_has_the_bound_of_its_layers():
    """Three turns of tanh(W s): the product of three norms."""
    W = np.array([[0.5, 0.3], [0.0, 0.4]])
    body = helper.make_graph(
        [node("MatMul", ["s", "W"], ["m"]), node("Tanh", ["m"], ["s2"]), node("Identity", ["going"], ["still"])], "body",
        [helper.make_tensor_value_info("turn", 7, []), helper.make_tensor_value_info("going", 9, []), helper.make_tensor_value_info("s", 1, None)],
        [helper.make_tensor_value_info("still", 9, []), helper.make_tensor_value_info("s2", 1, None)],
    )  # fmt: skip
    case = Case([node("Loop", ["three", "", "x"], ["y"], body=body)], (2,), {"three": np.array(3), "W": W})
    upper = 10 ** bound_of(case).log10_lipschitz
    assert_allclose(upper, np.linalg.norm(W, 2) ** 3, rtol=1e-6)  # norms are rounded up by 1e-8 each


def test_a_bound_of_every_output_is_above_the_jacobian():
    """With all three outputs read, each by its own constant."""
    rng = np.random.default_rng(3)
    weights = {"W": rng.normal(size=(1, 8, 3)), "R": rng.normal(size=(1, 8, 2)), "all": np.array([0])}
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("LSTM", ["t", "W", "R"], ["a", "b", "c"], hidden_size=2),
             node("Squeeze", ["a", "one"], ["d"]), node("Concat", ["d", "b", "c"], ["e"], axis=0), node("Transpose", ["e"], perm=[1, 0, 2])]  # fmt: skip
    case = Case(nodes, (3, 3), {**weights, "one": np.array([1])}, spread=0.5)
    assert 10 ** bound_of(case).log10_lipschitz >= largest_norm(case, rng)


@pytest.mark.parametrize(("reads", "reason"), [("m", "whether a turn follows turn 1 is not known"), ("going", "take about")])
def test_a_loop_that_cannot_be_followed_has_no_bound(reads, reason):
    """What it made so far still counts: the output varies with the input, and its bound is not zero."""
    nodes = [node("Tanh", ["s"], ["s2"]), node("ReduceMax", ["s2"], ["n"], keepdims=0), node("Greater", ["n", "half"], ["m"])]
    nodes += [node("Not", ["never"], ["still"])] if reads == "going" else [node("Identity", ["m"], ["still"])]
    kinds = [("turn", 7), ("going", 9)]
    body = helper.make_graph(
        nodes, "body", [*(helper.make_tensor_value_info(n, k, []) for n, k in kinds), helper.make_tensor_value_info("s", 1, None)],
        [helper.make_tensor_value_info("still", 9, []), helper.make_tensor_value_info("s2", 1, None)],
    )  # fmt: skip
    weights = {"half": np.array(0.5), "yes": np.array(True), "never": np.array(False)}
    bound = bound_of(Case([node("Loop", ["", "yes", "x"], ["y"], body=body)], (2,), weights))
    assert not bound.available
    assert re.search(rf"op Loop: .*{reason}", bound.reason)
