"""The rounding of probabilities in values that were differentiated at their logarithm."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit

from onnxfim.auditing.run import audit
from tests.support import models

G = np.random.default_rng(0).standard_normal((6, 1)).astype(np.float32)
ENDS = [("Sub", ["one", "p"], ["q"], {}), ("Concat", ["q", "p"], ["z"], {"axis": 1})]
NODES = [  # a sigmoid that is not seen to be one
    ("MatMul", ["x", "g"], ["t"], {}),
    ("Mul", ["t", "half"], ["h"], {}),
    ("Tanh", ["h"], ["u"], {}),
    ("Mul", ["u", "half"], ["v"], {}),
    ("Add", ["v", "half"], ["p"], {}),
    *ENDS,
]
WEIGHTS = {"g": G, "one": np.ones(1, np.float32), "half": np.full(1, 0.5, np.float32)}


def test_saturated_ones_widen_the_interval_until_nothing_is_left(saved, cpu):
    """[1 − p, p] in float32: 1 − p is off by 3e-8 of 1. Every interval holds ``p(1 − p) ‖g‖²``, and a value of zero is none."""
    logits = np.array([0.0, 2, 4, 6, 8, 10, 12, 14, 15, 16, 16.8, 25, 40])
    X = (logits[:, None] * G[:, 0] / np.square(G).sum()).astype(np.float32)
    made = models.model(NODES, WEIGHTS, shape=(6,), out=(2,))
    found = audit(saved(made), X, settings=cpu(replay=0))
    p = expit(X.astype(float) @ G.astype(float))[:, 0]
    q = expit(-X.astype(float) @ G.astype(float))[:, 0]
    truth = p * q * float(np.square(G.astype(float)).sum())
    assert found.run.method == "gradient"
    for sample, wanted in zip(found.samples, truth, strict=True):
        estimate = sample.lambda_max
        assert estimate.value is None or estimate.low <= wanted <= estimate.high
    values = [s.lambda_max.value for s in found.samples]
    assert_allclose(values[:5], truth[:5], rtol=1e-3)
    assert values[-2:] == [None, None]
    assert any("saturated" in (s.lambda_max.reason or "") for s in found.samples)


@pytest.mark.parametrize("logit", [10.0, 12.0])
def test_it_is_more_than_float32_passes_where_they_cancel(saved, cpu, logit):
    X = np.full((3, 1), logit) * (G[:, 0] / np.square(G).sum())
    made = models.model(NODES, WEIGHTS, shape=(6,), out=(2,))
    estimate = audit(saved(made), X.astype(np.float32), settings=cpu(replay=0)).samples[0].lambda_max
    assert estimate.high / estimate.value > 1 + 2e-4


@pytest.mark.parametrize("method", ["auto", "sketch"])
def test_sigmoids_that_are_seen_to_be_some_keep_their_slope(saved, cpu, method):  # 1e-5: gradients in float32; 1e-2: differences
    """The same model with its Sigmoid: read at log σ(±t), where nothing cancels."""
    logits = np.array([-40.0, -20, -5, 0, 2, 8, 14, 16, 18, 25, 40])
    X = (logits[:, None] * G[:, 0] / np.square(G).sum()).astype(np.float32)
    made = models.model(
        [NODES[0], ("Sigmoid", ["t"], ["p"], {}), *ENDS], {k: WEIGHTS[k] for k in ("g", "one")}, shape=(6,), out=(2,)
    )
    found = audit(saved(made), X, settings=cpu(replay=0, method=method))
    t = X.astype(float) @ G.astype(float)
    truth = (expit(t) * expit(-t))[:, 0] * float(np.square(G.astype(float)).sum())
    assert "written out from the scores" in found.model.read_from
    assert_allclose([s.lambda_max.value for s in found.samples], truth, rtol=1e-5 if method == "auto" else 1)
    assert found.bound.available
    assert found.bound.log10_lipschitz >= np.log10(np.linalg.norm(G)) - 1e-9
