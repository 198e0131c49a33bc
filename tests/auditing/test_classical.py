"""Audits of classical models, against float64 twins of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import helper
from scipy.special import expit, log_expit, log_softmax

from onnxfim.auditing.run import audit

ML = "ai.onnx.ml"
RNG = np.random.default_rng(3)
d, K = 12, 4
W, B = RNG.standard_normal((K, d)).astype(np.float32), RNG.standard_normal(K).astype(np.float32)
SIZES = RNG.choice([0.3, 3.0, 30.0], 16)[:, None]  # of the inputs: some samples are saturated far below float32
X = (SIZES * RNG.standard_normal((16, d))).astype(np.float32)


def saved(tmp_path, nodes, classes):
    x, y = helper.make_tensor_value_info("x", 1, ["N", d]), helper.make_tensor_value_info("y", 1, ["N", classes])
    made = [helper.make_node(op, i, o, domain=ML if op in DOMAIN else "", **a) for op, i, o, a in nodes]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]
    model = helper.make_model(helper.make_graph(made, "m", [x], [y]), opset_imports=opsets, ir_version=8)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


DOMAIN = ("LinearClassifier", "Normalizer", "SVMClassifier", "Scaler")


def truth(log_p, rows, step=1e-6):
    """lambda_max of the rows from central differences of log-probabilities in float64."""
    found = []
    for x in rows.astype(np.float64):
        ends = np.concatenate([x + step * np.eye(d), x - step * np.eye(d)])
        values = log_p(ends)
        J = ((values[:d] - values[d:]) / (2 * step)).T
        p = np.exp(log_p(x[None])[0])
        c = p.argmax()
        E = J - J[c]
        found.append(np.linalg.norm(np.sqrt(p)[:, None] * (E - p @ E), 2) ** 2)
    return np.array(found)


def values(found):
    return np.array([s.lambda_max.value for s in found.samples], float)


def linear(transform, rows=K, **given):
    return ("LinearClassifier", ["x"], ["l", "p"], {
        "coefficients": W[:rows].ravel().tolist(), "intercepts": B[:rows].tolist(), "post_transform": transform,
        "classlabels_ints": list(range(max(rows, 2))), **given,
    })  # fmt: skip


def scores(Z):
    return Z @ W.astype(float).T + B.astype(float)


def one_against_the_rest(Z):
    s = log_expit(scores(Z))
    return s - np.logaddexp.reduce(s, axis=1, keepdims=True)


MODELS = {
    "softmax": (linear("SOFTMAX"), K, lambda Z: log_softmax(scores(Z), axis=1)),
    "one against the rest": (linear("LOGISTIC"), K, one_against_the_rest),
    "two classes": (
        linear("LOGISTIC", 1), 2, lambda Z: np.stack([log_expit(-scores(Z)[:, 0]), log_expit(scores(Z)[:, 0])], axis=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", ["auto", "sketch"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_linear_classifiers_are_read_at_their_scores(tmp_path, cpu, name, method):
    """1e-4: float32 scores of 100 are off by 1e-5; a sketch covers nine in ten of sixteen samples, however saturated."""
    node, classes, log_p = MODELS[name]
    path = saved(tmp_path, [node, ("Normalizer", ["p"], ["y"], {"norm": "L1"})], classes)
    found = audit(path, X, settings=cpu(replay=0, method=method))
    wanted = truth(log_p, X)
    assert wanted.min() < 1e-12 * wanted.max()
    assert found.model.output_kind == "probabilities"
    if method == "auto":
        assert found.run.method == "gradient"
        known = wanted > 1e-30  # differences of the twin itself have no digits below
        assert_allclose(values(found)[known], wanted[known], rtol=2e-4)
        assert found.bound.available
        assert np.log10(wanted.max()) <= found.bound.log10_fisher
    else:
        covered = [e.lambda_max.low <= t <= e.lambda_max.high for e, t in zip(found.samples, wanted, strict=True)]
        assert np.mean(covered) >= 0.8


def coupled(r):
    """Probabilities of K classes from those of pairs r (K, K), by the iteration of libsvm."""
    n = len(r)
    Q = -r * r.T
    np.fill_diagonal(Q, [(r[:, i] ** 2).sum() for i in range(n)])
    p = np.full(n, 1 / n)
    for _ in range(100):
        Qp = Q @ p
        pQp = p @ Qp
        if np.abs(Qp - pQp).max() < 0.005 / n:
            break
        for t in range(n):
            step = (pQp - Qp[t]) / Q[t, t]
            p[t] += step
            pQp = (pQp + step * (step * Q[t, t] + 2 * Qp[t])) / (1 + step) ** 2
            Qp = (Qp + step * Q[t]) / (1 + step)
            p /= 1 + step
    return p


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_of_support_vector_machines(tmp_path, cpu, classes):
    """The iteration stops short of its limit, and is written out as it stops. 1e-3: the runtime iterates in float32."""
    sizes, pairs = [3] * classes, [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    V = RNG.standard_normal((3 * classes, d)).astype(np.float32)
    weights = RNG.standard_normal((classes - 1, 3 * classes)).astype(np.float32)
    rho, a, b = (RNG.uniform(-s, s / 2, len(pairs)).astype(np.float32) for s in (0.3, 2.0, 0.3))
    node = ("SVMClassifier", ["x"], ["l", "y"], {
        "kernel_type": "RBF", "kernel_params": [0.05, 0.0, 3.0], "support_vectors": V.ravel().tolist(), "vectors_per_class": sizes,
        "coefficients": weights.ravel().tolist(), "rho": rho.tolist(), "prob_a": a.tolist(), "prob_b": b.tolist(),
        "classlabels_ints": list(range(classes)), "post_transform": "NONE",
    })  # fmt: skip

    def log_p(Z):
        found = []
        for z in Z:
            k = np.exp(-np.float32(0.05).astype(float) * np.square(z - V).sum(axis=1))
            r = np.zeros((classes, classes))
            for n, (i, j) in enumerate(pairs):
                own, other = slice(3 * i, 3 * i + 3), slice(3 * j, 3 * j + 3)
                decided = weights[j - 1, own] @ k[own] + weights[i, other] @ k[other] + rho[n]
                r[i, j] = np.clip(expit(-(decided * a[n] + b[n])), 1e-7, 1 - 1e-7)
                r[j, i] = 1 - r[i, j]
            found.append(np.log(coupled(r)))
        return np.array(found)

    rows = RNG.standard_normal((8, d)).astype(np.float32)
    found = audit(saved(tmp_path, [node], classes), rows, settings=cpu(replay=0))
    assert found.run.method == "gradient"
    assert_allclose(values(found), truth(log_p, rows), rtol=1e-3)
