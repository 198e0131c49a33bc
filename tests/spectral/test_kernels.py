"""Gaussian kernels against the dense Jacobian of what they are weighed into, at its largest over many points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper

from onnxfim.graph.graph import Graph
from onnxfim.spectral import kernels, spectral_bound
from onnxfim.spectral.kernels import GaussianKernels
from tests.spectral.dense import Case, bound_of, build, largest_norm


def slope(k: GaussianKernels, W: np.ndarray, x: np.ndarray) -> float:
    """The norm of the Jacobian of ``k(x) W`` at one point, from the closed form of a kernel's slope."""
    apart = x - k.centres
    own = k.scales * np.exp(-k.gamma * (apart**2).sum(axis=1))
    return float(np.linalg.norm((-2 * k.gamma * own[:, None] * apart).T @ W, 2))


def largest(k: GaussianKernels, W: np.ndarray, rng: np.random.Generator) -> float:
    """The largest over many points about the centres, the best of them improved by small moves."""
    points = k.centres[rng.integers(0, len(k.centres), 4000)] + rng.normal(size=(4000, k.centres.shape[1])) / math.sqrt(2 * k.gamma)
    best, x = max(((slope(k, W, p), tuple(p)) for p in points), key=lambda found: found[0])
    here = np.array(x)
    for n in range(2000):
        there = here + rng.normal(size=here.size) * 0.3 / math.sqrt(k.gamma) * 0.997**n
        if (now := slope(k, W, there)) > best:
            best, here = now, there
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("outputs", [1, 3])
def test_above_the_largest_slope_and_not_far(seed, outputs):  # a factor of 4 above: what random weights leave open
    rng = np.random.default_rng([seed, outputs])
    k = GaussianKernels("x", float(rng.uniform(0.1, 2)), rng.normal(size=(7, 2)), rng.uniform(0.5, 2, 7))
    W = rng.normal(size=(7, outputs))
    true = largest(k, W, rng)
    assert true <= k.stretch(W) <= 4 * true
    assert largest(k, np.eye(7), rng) <= k.stretch() <= 4 * largest(k, np.eye(7), rng)


def test_one_vector_is_exact():  # steepest at a distance of 1/√2γ
    k = GaussianKernels("x", 0.7, np.zeros((1, 3)), np.ones(1))
    assert k.stretch(np.array([[-2.0]])) == pytest.approx(2 * math.sqrt(2 * 0.7 / math.e), rel=1e-7)


def test_weights_that_cancel_are_seen():  # the sum of their sizes is 2; at unit distance in a feature each the slope is nearly 0
    k = GaussianKernels("x", 0.5, np.array([[0.0], [1e-3]]), np.ones(2))
    W = np.array([[1.0], [-1.0]])
    true = largest(k, W, np.random.default_rng(0))
    assert true <= k.stretch(W) <= 1.1 * true


def test_many_vectors_go_by_the_sum_of_their_weights(monkeypatch):
    monkeypatch.setattr(kernels, "_MOST", 1)
    k = GaussianKernels("x", 0.5, np.array([[0.0], [1e-3]]), np.ones(2))
    assert k.stretch(np.array([[1.0], [-1.0]])) == pytest.approx(2 * math.sqrt(1 / math.e), rel=1e-7)


def test_the_largest_row_sum_is_above_the_eigenvalue(monkeypatch):
    k = GaussianKernels("x", 0.5, np.random.default_rng(0).normal(size=(40, 3)) / 3, np.ones(40))
    close = k.stretch()
    monkeypatch.setattr(kernels, "_EIGENVALUES", 1)
    assert close <= k.stretch() <= math.sqrt(2 * 0.5 * 40)


def written(order: str, *, bias: bool) -> Case:
    """Kernels in the manner of an exporter: a squared distance by products, its two sums in either order; weights on them."""
    rng = np.random.default_rng(3)
    C = rng.normal(size=(5, 4))
    weights = {"C": C, "axes": np.array([1]), "g": np.float64(-0.4), "W": rng.normal(size=(5, 2)), "s": rng.normal(size=(4, 3))}
    weights |= {"b": (C**2).sum(axis=1) + (0.5 if bias else 0.0)}
    sums = ["gemm", "square"] if order == "product first" else ["square", "gemm"]
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["q"]), helper.make_node("ReduceSum", ["q", "axes"], ["square"], keepdims=1),
        helper.make_node("Gemm", ["x", "C", "b"], ["gemm"], alpha=-2.0, transB=1), helper.make_node("Add", sums, ["apart"]),
        helper.make_node("Mul", ["g", "apart"], ["e"]), helper.make_node("Exp", ["e"], ["k"]),
        helper.make_node("MatMul", ["k", "W"], ["y"]),
    ]  # fmt: skip
    return Case(nodes, (4,), weights)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("order", ["product first", "product last"])
def test_written_out_by_others(order, bias):  # 1e-4: differences in float64 about the steepest point found
    case = written(order, bias=bias)
    bound = bound_of(case)
    norm = largest_norm(case, np.random.default_rng(1))
    assert norm * (1 - 1e-4) <= 10**bound.log10_lipschitz <= 5 * norm
    assert any("Gaussian kernels" in f.op for f in bound.factors)


@pytest.mark.parametrize("change", ["other rows", "growing"])
def test_what_is_no_distance_has_no_bound(change):
    case = written("product first", bias=False)
    if change == "growing":
        case.weights["g"] = np.float64(0.4)
    else:
        case.nodes[0].input[:] = ["x", "one"]
        case.weights["one"] = np.ones(4) * 2
    assert not spectral_bound(Graph(build(case, double=False)), logits=False).available


@pytest.mark.parametrize("op", ["SVMRegressor", "SVMClassifier"])
def test_a_polynomial_kernel_is_named(op):
    given = {"kernel_type": "POLY", "kernel_params": [0.3, 0.1, 3.0], "support_vectors": [0.5] * 8, "rho": [0.1], "name": "machine"}
    if op == "SVMRegressor":
        node = helper.make_node(op, ["v"], ["y"], domain="ai.onnx.ml", n_supports=2, coefficients=[1.0, -2.0], **given)
    else:
        given |= {"classlabels_ints": [0, 1], "vectors_per_class": [1, 1], "coefficients": [1.0, -2.0]}
        node = helper.make_node(op, ["v"], ["l", "y"], domain="ai.onnx.ml", **given)
    whole = bound_of(Case([helper.make_node("Neg", ["x"], ["v"]), node], (4,)))
    assert whole.reason == (
        f"node 'machine', op ai.onnx.ml.{op}: its polynomial kernel of degree 3 grows without limit, so it has no global Lipschitz "
        "constant"
    )
    assert bound_of(Case([helper.make_node("Tanh", ["x"], ["v"]), node], (4,))).available  # within a range it has one
