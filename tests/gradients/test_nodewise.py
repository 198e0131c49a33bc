"""What the test of derivative rules holds at a time."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.gradients import nodewise
from onnxfim.gradients.derivative_rules import RULES
from onnxfim.gradients.nodewise import NodeTests
from tests.support.gradient_nets import Net, session
from tests.support.planted import FAULTS, NETS


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


@pytest.mark.parametrize("low", [-1e4, float(np.finfo(np.float32).min), -np.inf])
@pytest.mark.parametrize("wrong", [False, True])
def test_a_mask_hides_neither_right_rules_nor_wrong_ones(low, wrong, monkeypatch):
    rng = np.random.default_rng(0)
    net = Net((4, 6))
    mask = np.where(np.arange(4) < 2, 0.0, low).astype(np.float32)
    scores = net.op("MatMul", "x", rng.normal(0, 0.5, (6, 4)))
    output = net.op("MatMul", net.op("Softmax", net.op("Add", scores, mask), axis=-1), rng.normal(0, 1, (4, 3)))
    if wrong:
        spoiled = next(found for fault in FAULTS if (found := fault.plant(RULES["Softmax"])) is not None)
        monkeypatch.setitem(RULES, "Softmax", spoiled)
    X, v = np.random.default_rng(1).standard_normal((2, 3, 4, 6)).astype(np.float32)
    tests = NodeTests(net.model(output), input_name="x", output_name=output, sample_shape=net.shape)
    _, found = tests(lambda model, feeds: session(model).run([o.name for o in model.graph.output], dict(feeds)), X, v)
    errors = {e.op: e.errors.max() for e in found}
    assert (errors["Softmax"] > 1e-3) == wrong
    assert all(error < 1e-3 for op, error in errors.items() if op != "Softmax")
