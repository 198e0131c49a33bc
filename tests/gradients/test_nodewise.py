"""What the test of derivative rules holds at a time."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.gradients import nodewise
from onnxfim.gradients.nodewise import NodeTests
from tests.support.gradient_nets import session
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
