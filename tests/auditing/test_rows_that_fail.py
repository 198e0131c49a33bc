"""The runtime fails on one sample, beside it, or on its derivative alone: that sample is skipped, the others are as without it.

Two kinds of tests: a real graph whose table is read out of its bounds, and a runtime that is made to fail on chosen rows of one kind
of graph, which is how any operator fails that depends on values.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import tied
from onnxfim.gradients import differentiable
from onnxfim.record.settings import Settings
from onnxfim.runtime.failures import RowsFailed
from tests.runtime.test_forgiving import looking_up
from tests.support.models import Mlp

FEW, MANY = Mlp.draw(4, 12), Mlp.draw(100, 12)
X = FEW.samples(9)
ROUNDING = 2e-5  # of float32 graphs, against the dense Jacobian in float64; Lanczos stops within 1e-4 of the value


def settings(**changes):
    given = {"providers": ("cpu",), "bounds": False, "batch": 4, "replay": 2} | changes
    return Settings(**given)


def failing(monkeypatch, fails):
    """Derivative graphs fail where ``fails(feeds)`` marks one of their rows, (N,) bool."""
    real = differentiable.run

    def run(session, outputs, feeds, along=None):
        if "x" in feeds and np.any(fails(feeds)):
            raise RowsFailed("model: it failed", "Non-zero status code returned while running Gather node")
        return real(session, outputs, feeds)

    monkeypatch.setattr(differentiable, "run", run)


def at(rows):
    """Marks rows that are one of these samples, to rounding of a neighbour in the last place."""

    def fails(feeds):
        x = feeds["x"].reshape(len(feeds["x"]), -1)
        return np.array([np.isclose(x, r.ravel(), rtol=1e-6, atol=0).all(axis=1) for r in X[list(rows)]]).any(axis=0)

    return fails


def values(found):
    return {s.index: s.lambda_max.value for s in found.samples}


@pytest.mark.parametrize("bad", [[3], [0], [8], [0, 1, 2, 3], [0, 4, 5, 6, 8]])
@pytest.mark.parametrize(("model", "rtol"), [(FEW, ROUNDING), (MANY, 2e-4)], ids=["Jacobians", "Lanczos"])
def test_a_sample_whose_derivative_fails_is_skipped_with_the_runtimes_reason(monkeypatch, saved, model, rtol, bad):
    path = saved(model.onnx())
    whole = values(audit(path, X, settings=settings(method="gradient")))
    failing(monkeypatch, at(bad))
    found = audit(path, X, settings=settings(method="gradient"))
    assert [s.index for s in found.skipped] == bad
    assert all("fails on its derivative: Non-zero status code" in s.reason for s in found.skipped)
    got = values(found)
    assert sorted(got) == [i for i in range(9) if i not in bad]
    for i, value in got.items():
        assert value == pytest.approx(whole[i], rel=rtol)
        assert value == pytest.approx(model.lambda_max(X[i : i + 1])[0], rel=rtol)
    assert all(s.flip_radius.value is not None for s in found.samples)
    assert not found.run.partial


def test_where_every_derivative_fails_the_sketch_measures_and_says_why(monkeypatch, saved):
    failing(monkeypatch, lambda feeds: np.ones(len(feeds["x"]), bool))
    found = audit(saved(FEW.onnx()), X, settings=settings(budget=24))
    assert found.run.method in ("sketch", "exact")
    assert len(found.samples) == 9
    assert "self-test failed" in (found.gradient.reason or "")
    assert "no-gradient" in {f.id for f in found.findings}


def test_points_of_an_attack_that_fail_are_no_success(monkeypatch, saved):
    """All points but the samples themselves: no attack gets anywhere, and none is told to have succeeded."""
    path = saved(FEW.onnx())
    there = audit(path, X, settings=settings(method="gradient", attack="l2", replay=0, flip=False))
    assert there.attack is not None
    assert there.attack.median_distance is not None
    failing(monkeypatch, lambda feeds: ("target" in feeds) & ~at(range(9))(feeds))
    found = audit(path, X, settings=settings(method="gradient", attack="l2", replay=0, flip=False))
    assert values(found) == values(there)
    assert found.attack is not None
    assert found.attack.failed == found.attack.samples == 9
    assert found.attack.robust_accuracy == 1.0


def test_half_of_the_points_of_an_attack_fail(monkeypatch, saved):
    failing(monkeypatch, lambda feeds: ("target" in feeds) & (feeds["x"][:, 0] < X[:, 0].min()))
    found = audit(saved(FEW.onnx()), X, settings=settings(method="gradient", attack="l2", replay=0, flip=False))
    assert found.attack is not None
    assert found.attack.samples == 9
    assert not found.run.partial


def test_points_beside_the_samples_that_fail_leave_the_self_test_the_others(monkeypatch, saved):
    path = saved(FEW.onnx())
    whole = values(audit(path, X, settings=settings(method="gradient")))
    samples = at(range(9))
    # Of points beside the samples a third; the test asks the rules of eight points.
    failing(monkeypatch, lambda feeds: ~samples(feeds) & (np.abs(feeds["x"][:, 1] * 1e4) % 3 < 1))
    assert values(audit(path, X, settings=settings(method="gradient"))) == whole


@pytest.mark.parametrize("method", ["auto", "sketch", "exact"])
@pytest.mark.parametrize("first", [98.0, 99.99, 99.9999, -99.9999], ids=str)
def test_a_real_table_that_is_left_beside_a_sample(tmp_path, method, first):
    """Sample 3 stands at the end of the table: steps, flips, attacks and points beside it read outside; the others do not."""
    inputs = np.random.default_rng(1).uniform(1, 8, (9, 3)).astype(np.float32)
    path = looking_up(tmp_path / "m.onnx")
    asked = settings(method=method, budget=40, step=1e-2)
    whole = audit(path, inputs, settings=asked)
    inputs[3, 0] = first
    found = audit(path, inputs, settings=asked)
    assert {s.index for s in found.skipped} <= {3}
    for s in found.skipped:
        assert "runtime fails" in s.reason
    got, before = values(found), values(whole)
    assert {i for i in range(9) if i != 3} <= set(got)
    if method == "exact":  # a sketch spends what the skipped sample leaves on the others
        assert {i: got[i] for i in got if i != 3} == {i: before[i] for i in got if i != 3}


def test_ties_of_the_others_are_found_where_the_values_of_one_sample_fail(monkeypatch, saved):
    """Blank rows stand on ties of a clip; the graph of values at kinks fails on two of the samples."""
    path = saved(clipped())
    inputs = X.copy()
    inputs[[2, 6]] = 0.0
    asked = settings(method="gradient")
    whole = audit(path, inputs, settings=asked)
    real = tied.run

    def run(session, outputs, feeds, along=None):
        if any(np.allclose(row, inputs[k], atol=1e-2) for row in feeds["x"] for k in (0, 8)):
            raise RowsFailed("model: it failed", "it failed")
        return real(session, outputs, feeds)

    monkeypatch.setattr(tied, "run", run)
    found = audit(path, inputs, settings=asked)
    assert whole.gradient.ties.samples == found.gradient.ties.samples == 2
    assert values(found) == values(whole)


def clipped():
    """``z = B Relu(A x)`` as a file."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((12, 16)).astype(np.float32), rng.standard_normal((16, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "B"], ["z"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["N", 12])], [info("z", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(A, "A"), numpy_helper.from_array(B, "B")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
