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


@pytest.mark.parametrize("mask", [-100.0, -3.4e38])
def test_masked_scores_are_tested_within_a_unit_of_them(mask):
    """A hundredth of the deviation of masked scores is no small step of the others; of the masked ones rounding leaves none."""
    rng = np.random.default_rng(0)
    net = Net((64, 49))
    masked = np.where(rng.random((1, 64, 49)) < 0.4, mask, 0.0)
    model = net.model(net.op("Softmax", net.op("Add", "x", masked), axis=-1))
    tests = NodeTests(model, input_name="x", output_name=model.graph.output[0].name)
    X, v = rng.standard_normal((2, 8, 64, 49)).astype(np.float32)
    v *= np.where(rng.random((8, 64, 1)) < 0.01, 30, 1).astype(np.float32)  # some windows move far more than most
    errors = {n.op: float(n.errors.max()) for n in tests(lambda part, feeds: session(part).run(None, dict(feeds)), X, v)[1]}
    # The tolerance of a rule. They were 0.015 at -100, and infinite at the least float32.
    assert errors["Softmax"] < 1e-3
    assert errors["Add"] < 1e-3
