"""Samples at kinks: an interval that holds the one-sided slopes, or no value; never a number as if it were smooth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import tied
from onnxfim.auditing.tied_samples import TiedSamples
from tests.support.gradient_nets import Net

K, D = 4, 12
RNG = np.random.default_rng(4)
W = RNG.normal(0, 1, (D, K))
X = RNG.uniform(0.1, 0.9, (16, D)).astype(np.float32)
TIED = X.copy()
TIED[:10, :4] = 1.0
TIED[:10, 4:6] = 0.0


def clipped():
    net = Net((D,))
    return net.model(net.op("Gemm", net.op("Clip", "x", np.float32(0), np.float32(1)), W))


def truth(x, keep):
    """lambda_max of the piece in which the kept coordinates pass, in float64."""
    z = np.clip(x.astype(np.float64), 0, 1) @ W.astype(np.float32).astype(np.float64)
    p = np.exp(z - z.max())
    p /= p.sum()
    A = np.diag(np.sqrt(p)) @ (np.eye(K) - p) @ (W * keep[:, None]).T
    return np.linalg.eigvalsh(A @ A.T)[-1]


def ids(found):
    return {f.id: f for f in found.findings}


@pytest.fixture
def path(saved):
    return saved(clipped())


def test_the_interval_holds_both_sides(path, cpu):
    found = audit(path, TIED, settings=cpu(replay=0))
    assert found.run.method == "gradient"
    for s, x in zip(found.samples, TIED, strict=True):
        at = (x == 0) | (x == 1)
        inside, outside = truth(x, np.ones(D)), truth(x, ~at)
        lam = s.lambda_max
        if not at.any():
            assert lam.kind == "exact"
            assert_allclose(lam.value, inside, rtol=1e-4)
            continue
        assert lam.kind == s.trace.kind == s.logit_sensitivity.kind == "kinked"
        assert lam.low <= outside <= inside <= lam.high
        assert lam.low <= lam.value <= lam.high
        # One-sided slopes along the best direction, both signs: coordinates at an end pass only inwards.
        J = W.T
        z = np.clip(x.astype(np.float64), 0, 1) @ W
        p = np.exp(z - z.max())
        p /= p.sum()
        A = np.diag(np.sqrt(p)) @ (np.eye(K) - p)
        v = np.linalg.svd(A @ J)[2][0]
        for sign in (1, -1):
            move = sign * v * ~((x == 1) & (sign * v > 0)) * ~((x == 0) & (sign * v < 0))
            assert lam.low <= np.square(A @ J @ move).sum() <= lam.high


def test_the_finding_names_the_node_and_the_samples(path, cpu):
    found = audit(path, TIED[:10], settings=cpu(replay=0))
    ties = found.gradient.ties
    assert (ties.audited, ties.samples, ties.kinked, ties.unresolved) == (10, 10, 10, 0)
    assert [(n.op, n.samples) for n in ties.nodes] == [("Clip", 10)]
    assert_allclose(ties.nodes[0].share, 0.5)
    finding = ids(found)["kinks-at-the-data"]
    assert finding.level == "error"  # they carry all of the mean
    assert "10 of 10 samples" in finding.message
    assert "Clip" in finding.message
    assert "int8" not in " ".join(f.message for f in found.findings)
    assert "gradient-sketch-disagree" not in ids(found)


def test_few_kinked_samples_are_a_warning(path, cpu):
    few = X.copy()
    few[3, 0] = 1.0
    found = audit(path, few, settings=cpu(replay=0))
    assert ids(found)["kinks-at-the-data"].level == "warning"


@pytest.mark.parametrize("method", ["sketch", "exact"])
def test_differences_have_no_value_there(path, cpu, method):
    found = audit(path, TIED, settings=cpu(method=method, replay=0))
    for s, x in zip(found.samples, TIED, strict=True):
        if ((x == 0) | (x == 1)).any():
            assert s.lambda_max.value is None
            assert "the function has no slope here" in s.lambda_max.reason
        else:
            assert s.lambda_max.value > 0
    assert "kinks-at-the-data" in ids(found)


@pytest.mark.parametrize("method", ["auto", "sketch"])
def test_smooth_samples_keep_their_values(path, cpu, monkeypatch, method):
    found = audit(path, X, settings=cpu(method=method, replay=0))
    assert found.gradient.ties.samples == 0
    monkeypatch.setattr(tied, "find", lambda *_: TiedSamples())
    plain = audit(path, X, settings=cpu(method=method, replay=0))
    assert [s.lambda_max for s in found.samples] == [s.lambda_max for s in plain.samples]


def test_many_classes_at_a_kink(saved, cpu):
    """The same by Lanczos iteration."""
    wide = np.random.default_rng(5).normal(0, 0.5, (D, 90))
    net = Net((D,))
    path = saved(net.model(net.op("Gemm", net.op("Clip", "x", np.float32(0), np.float32(1)), wide)))
    found = audit(path, TIED[8:12], settings=cpu(replay=0))
    assert [s.lambda_max.kind for s in found.samples] == ["kinked", "kinked", "exact", "exact"]
    assert all(s.lambda_max.low < 0.9 * s.lambda_max.value for s in found.samples[:2])


def test_a_cached_result_is_the_same(path, cpu, tmp_path):
    first, again = (audit(path, TIED, settings=cpu(replay=0), cache_dir=tmp_path / "cache") for _ in range(2))
    assert first.samples == again.samples
    assert first.run.evaluations == again.run.evaluations
