"""What the test of derivative rules holds at a time."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.gradients import nodewise
from onnxfim.gradients.nodewise import NodeTests
from tests.support.gradient_nets import Net, session
from tests.support.planted import NETS


@pytest.mark.parametrize("name", list(NETS)[:1])
def test_nodes_are_tested_in_groups_of_few_bytes_with_the_same_errors(name, monkeypatch):
    net, output = NETS[name](np.random.default_rng(0))
    X, v = np.random.default_rng(1).standard_normal((2, 4, *net.shape)).astype(np.float32)
    tests = NodeTests(net.model(output), input_name="x", output_name=output, sample_shape=net.shape)
    fed: list[int] = []

    def evaluate(model, feeds):
        fed.append(sum(a.nbytes for a in feeds.values()))
        return session(model).run([o.name for o in model.graph.output], dict(feeds))

    w, together = tests(evaluate, X, v)
    whole, fed[:] = max(fed[1:]), []
    monkeypatch.setattr(nodewise, "_TOGETHER_BYTES", 1)  # every node by itself
    again, apart = tests(evaluate, X, v)
    assert max(fed[1:]) < whole
    np.testing.assert_array_equal(again, w)
    assert [(e.op, e.name) for e in apart] == [(e.op, e.name) for e in together]
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_array_equal(one.errors, other.errors)


@pytest.mark.parametrize("hidden", ["added", "chosen"])
@pytest.mark.parametrize("far", [-1e4, -100.0])
def test_hidden_scores_do_not_lengthen_the_step(hidden, far):
    """Scores that a mask moves far away make the deviation of all a step in which a softmax is no line.

    1e-3: what the self-test asks of a rule. The sum with the mask is rounded to 1e-3 where it lies, which is not the rule's.
    """
    net = Net((6, 6))
    mask = np.triu(np.ones((6, 6), bool), 1)
    rng = np.random.default_rng(0)
    if hidden == "added":
        scores = net.op("Add", net.op("MatMul", "x", rng.standard_normal((6, 6))), np.where(mask, far, 0.0))
    else:
        scores = net.op("Where", mask, np.float32(far), net.op("MatMul", "x", rng.standard_normal((6, 6))))
    output = net.op("Softmax", scores, axis=-1)
    X, v = rng.standard_normal((2, 4, 6, 6)).astype(np.float32)
    tests = NodeTests(net.model(output), input_name="x", output_name=output, sample_shape=net.shape)
    _, found = tests(lambda model, feeds: session(model).run([o.name for o in model.graph.output], dict(feeds)), X, v)
    assert {e.op for e in found} >= {"MatMul", "Softmax"}
    assert max(float(e.errors.max()) for e in found) < 1e-3
