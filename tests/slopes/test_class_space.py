"""Products of many classes, and the values they lead to, against dense float64 matrices written from the definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from onnxfim.gradients import derivative_graph
from onnxfim.slopes.class_space import JointProducts, Weighing, passes_of_products
from onnxfim.slopes.exact import largest_quotient
from onnxfim.slopes.kinds.sigmoid import SigmoidLogits
from onnxfim.slopes.kinds.softmax import SoftmaxLogits
from onnxfim.slopes.krylov import lanczos
from tests.support.gradient_nets import ROWS, SEEDS, Net, run, spread

K = 90


class Slopes:
    """Derivative graphs of samples with the given Jacobians, in their precision; logs the calls."""

    def __init__(self, J):
        self.J, self.calls = J, []

    def gram(self, X, U, of=None):
        self.calls.append((len(X), len(U)))
        J = self.J[X[:, 0].astype(int)]
        g = np.einsum("nkd,snk->snd", J, U.astype(J.dtype))
        return np.einsum("nkd,snd->snk", J, g)


class Graphs:
    """The derivative graphs of a model with the input ``x``, run."""

    def __init__(self, model, output):
        self.of = {k: derivative_graph(model, input_name="x", output_name=output, kind=k) for k in ("vjp", "gram")}

    def gram(self, X, U, of=None):
        return run(self.of["gram"], {"x": X, "u": U.astype(np.float32)}, ["w"])[0]

    def jacobian(self, X, classes):
        """Logits (N, K) and J (N, K, d), by K cotangents."""
        u = np.repeat(np.eye(classes, dtype=np.float32)[:, None], len(X), axis=1)
        z, g = run(self.of["vjp"], {"x": X, "u": u}, ["z", "g"])
        return z.astype(np.float64), g.reshape(classes, len(X), -1).transpose(1, 0, 2).astype(np.float64)


def softmax(z):
    p = np.exp(z - z.max())
    return p / p.sum()


def dense(z, J, temperature):
    """``A`` of a softmax, from its definition: ``√p ⊙ (J − pᵀJ) / T``."""
    p = softmax(z / temperature)
    return np.sqrt(p)[:, None] * (J - p @ J) / temperature


def rows(n):
    return np.arange(n, dtype=float)[:, None]


def largest(z, J, temperatures=(1.0,), seed=0):
    """The found pairs of every temperature and sample, (t, n) values with their kind, and the products."""
    noise = np.random.default_rng(seed).standard_normal((len(z), 3, z.shape[1]))
    noise /= np.linalg.norm(noise, axis=2, keepdims=True)
    weighings = [Weighing.of(SoftmaxLogits(), z[:, :, None], t) for t in temperatures]
    products = JointProducts(Slopes(J), rows(len(z)), weighings)
    found = lanczos(products, np.concatenate([w.starts(noise) for w in weighings]), tolerance=1e-4, most=60)
    factor = np.concatenate([w.factor for w in weighings])
    shape = (len(temperatures), len(z))
    return (found.values * factor).reshape(shape), (found.errors <= 1e-4 * found.values).reshape(shape), products


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_products_are_those_of_the_definition(spread, temperature):  # 1e-9 of the largest: float64, cancelled where p is saturated
    rng = np.random.default_rng(1)
    z, J, u = spread * rng.standard_normal((2, K)), rng.standard_normal((2, K, 30)), rng.standard_normal((2, 3, K))
    w = Weighing.of(SoftmaxLogits(), z[:, :, None], temperature)
    at = np.arange(2)
    root = np.sqrt(w.factor)[:, None, None]
    for k in at:
        A = dense(z[k], J[k], temperature)
        back = root[k] * w.cotangents(at, u)[k] @ J[k]
        assert_allclose(back, u[k] @ A, atol=1e-9 * np.abs(u[k] @ A).max())
        v = rng.standard_normal((1, 3, 30))
        assert_allclose(root[k] * w.scores(at[[k]], v @ J[k].T)[0], v[0] @ A.T, atol=1e-9 * np.abs(v[0] @ A.T).max())


@pytest.mark.parametrize("scale", [1.0, 40.0, 300.0])  # saturated: 1 − p below the float64 rounding of 1 at the last
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_products_through_a_derivative_graph_match_the_dense_matrix(scale, temperature):
    rng = np.random.default_rng(7)
    net = Net((6,))
    h = net.op("Tanh", net.op("Gemm", "x", rng.standard_normal((6, 8)), rng.standard_normal(8)))
    output = net.op("Gemm", h, scale * rng.standard_normal((8, 5)), rng.standard_normal(5))
    model, x = Graphs(net.model(output), output), spread(rng, ROWS, 6)
    z, J = model.jacobian(x, 5)
    log_p = z / temperature - (z / temperature).max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    p = np.exp(log_p)
    # y_k = √p_k Σ_j p_j (J_k − J_j): differences first, so nothing cancels
    A = np.sqrt(p)[:, :, None] * np.einsum("nj,nkjd->nkd", p, J[:, :, None] - J[:, None]) / temperature
    u = rng.standard_normal((ROWS, SEEDS, 5))
    w = Weighing.of(SoftmaxLogits(), z[:, :, None], temperature)
    got = JointProducts(model, x, [w])(np.arange(ROWS), u) * w.factor[:, None, None]
    back = w.cotangents(np.arange(ROWS), u) @ J * np.sqrt(w.factor)[:, None, None]
    want_g = np.einsum("nkd,nsk->nsd", A, u)
    want_w = np.einsum("nkd,nsd->nsk", A, want_g)
    norm = np.linalg.norm
    assert (norm(back - want_g, axis=-1) <= 1e-4 * norm(want_g, axis=-1)).all()
    assert (norm(got - want_w, axis=-1) <= 1e-4 * norm(want_w, axis=-1)).all()  # float32 passes


def test_those_of_a_linear_model_have_its_closed_form():
    rng = np.random.default_rng(8)
    W = rng.standard_normal((6, 4)).astype(np.float32)
    net = Net((6,))
    output = net.op("MatMul", "x", W)
    model, x = Graphs(net.model(output), output), spread(rng, ROWS, 6)
    z = (x @ W).astype(np.float64)
    w = Weighing.of(SoftmaxLogits(), z[:, :, None], 1.0)
    found = JointProducts(model, x, [w])(np.arange(ROWS), np.repeat(np.eye(4)[None], ROWS, axis=0)) * w.factor[:, None, None]
    p = np.array([softmax(row) for row in z])
    F = [W @ (np.diag(q) - np.outer(q, q)) @ W.T for q in p]
    assert_allclose(np.linalg.eigvalsh(found)[:, -1], [np.linalg.eigvalsh(f)[-1] for f in F], rtol=1e-5)  # float32 forward


def test_independent_outputs_have_a_diagonal():  # 1e-12: float64
    z = np.random.default_rng(2).standard_normal((2, K))
    w = Weighing.of(SigmoidLogits(), z[:, :, None], 1.0)
    p = expit(z)
    assert_allclose(w.root**2 * w.factor[:, None], p * (1 - p), rtol=1e-12)
    assert w.p is None


@pytest.mark.parametrize("gap", [50.0, 400.0, 3000.0])
def test_saturated_probabilities_have_products_of_usual_size(gap):  # λ ≈ p₂‖J₁ − J₂‖², down to e⁻⁴⁰⁰ and to 0
    rng = np.random.default_rng(3)
    z = np.r_[gap, 0.0, -5.0 - np.arange(K - 2)][None]
    J = rng.standard_normal((1, K, 30))
    values, sure, products = largest(z, J)
    assert sure.all()
    assert all(1e-3 < np.abs(d).max() < 1e3 for d in products.slopes[0])
    p = np.exp(-gap) / (1 + np.exp(-5.0) / (1 - np.exp(-1.0)))
    apart = ((J[0, 0] - J[0, 1]) ** 2).sum()
    assert values[0, 0] == pytest.approx(p * apart, rel=0.05, abs=1e-320)


def test_vectors_of_one_sample_share_a_call_and_count_so():
    rng = np.random.default_rng(4)
    J = rng.standard_normal((3, K, 5)).astype(np.float32)
    products = JointProducts(model := Slopes(J), rows(3), [Weighing.none(3, K), Weighing.none(3, K)])
    u = rng.standard_normal((4, 2, K))
    u[3, 1] = 0.0
    found = products(np.array([0, 1, 3, 5]), u)  # both of sample 0, one of samples 1 and 2
    assert model.calls == [(1, 1), (1, 2), (1, 4)]
    assert_array_equal(products.passes, [passes_of_products(4), passes_of_products(2), passes_of_products(1)])
    for i, k in enumerate([0, 1, 0, 2]):  # 1e-5: float32
        assert_allclose(found[i], u[i] @ J[k] @ J[k].T, atol=1e-5 * np.abs(found[i]).max())
    assert [len(c) for kept in products.cotangents.values() for c in kept] == [2, 2, 2, 1]


def jacobian(rng, d=40):
    """Slopes with a decaying spectrum; some classes are nearly the same, and some hardly have any."""
    J = rng.standard_normal((K, d)) * rng.uniform(0.7, 0.99) ** np.arange(d)
    J = J @ np.linalg.qr(rng.standard_normal((d, d)))[0] + rng.uniform(0, 3) * rng.standard_normal(d)
    J[1] = J[0] + 10 ** rng.uniform(-3, 0) * rng.standard_normal(d)
    J[rng.integers(2, K, 20)] *= 10 ** rng.uniform(-2, 1)
    return J


def logits(rng, kind):
    """Probabilities that mislead starts: even, of two classes, of one, of few, of many."""
    z = rng.standard_normal(K) * rng.uniform(0.1, 5)
    lift = {
        "even": -z,
        "two": 20 * (np.arange(K) < 2) - z + 1e-3 * z,
        "tail": 8 * (np.arange(K) < 2),
        "one": 15 * (np.arange(K) == 0),
    }
    return z + lift.get(kind, 0.0)


def test_values_called_converged_are_those_of_the_dense_matrix():
    """200 operators at two temperatures, in float64: never more than 1e-4 below, and never above."""
    rng = np.random.default_rng(5)
    kinds = ["even", "two", "tail", "one", "any"] * 40
    z, J = np.array([logits(rng, kind) for kind in kinds]), np.array([jacobian(rng) for _ in kinds])
    values, sure, _ = largest(z, J, (1.0, 0.8))
    truth = np.array([[np.linalg.norm(dense(*zj, t), 2) ** 2 for zj in zip(z, J, strict=True)] for t in (1.0, 0.8)])
    assert sure.mean() > 0.95
    ratio = values[sure] / truth[sure]
    assert ratio.min() >= 1 - 1e-4
    assert ratio.max() <= 1 + 1e-9


def test_the_largest_quotient_of_a_subspace():  # 1e-9: float64
    rng = np.random.default_rng(6)
    F, V = (m := rng.standard_normal((30, 30))) @ m.T, rng.standard_normal((30, 5))
    Q = np.linalg.qr(V)[0]
    wanted = np.linalg.eigvalsh(Q.T @ F @ Q)[-1]
    V = np.c_[V, V[:, 0]] * [1, 1e-20, 1, 1, 1e6, 3]  # lengths do not matter, nor a direction that comes twice
    assert_allclose(largest_quotient(V.T @ F @ V, V.T @ V), wanted, rtol=1e-9)
