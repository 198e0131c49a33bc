"""What the test of derivative rules holds at a time, and what it sees of order and of rounding."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.gradients import nodewise
from onnxfim.gradients.derivative_rules import RULES, DerivativeRule
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


def worst(net, output, X, v):
    """The largest error at any node, by its operator."""

    def evaluate(model, feeds):
        return session(model).run([o.name for o in model.graph.output], dict(feeds))

    _, found = NodeTests(net.model(output), input_name="x", output_name=output, sample_shape=net.shape)(evaluate, X, v)
    return {e.op: float(e.errors.max()) for e in found}


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("ordered", [0, 1])
def test_many_values_in_order_are_no_wrong_rule(largest, ordered):
    """Some of 300 change places within any step that float32 can take."""
    net = Net((300,))
    output = net.ops("TopK", "x", np.array([200]), outputs=2, largest=largest, sorted=ordered)[0]
    X, v = np.random.default_rng(0).standard_normal((2, 4, 300)).astype(np.float32)
    assert worst(net, output, X, v)["TopK"] == 0


def test_a_wrong_order_is_seen(monkeypatch):
    right = RULES["TopK"]
    assert isinstance(right, DerivativeRule)

    def turned(n, vs):
        return [n.write("Slice", right.jvp(n, vs)[0], [-1], [-(2**62)], [2], [-1]), None]

    monkeypatch.setitem(RULES, "TopK", DerivativeRule(right.vjp, turned))
    net = Net((300,))
    output = net.ops("TopK", "x", np.array([200]), outputs=2)[0]
    X, v = np.random.default_rng(0).standard_normal((2, 4, 300)).astype(np.float32)
    assert worst(net, output, X, v)["TopK"] > 0.5


@pytest.mark.parametrize("op", ["Add", "Mul", "Pow"])
def test_a_small_part_of_a_large_value_is_no_wrong_rule(op):
    """Local response: 1 and a ten-thousandth of the squares, which float32 rounds; a slope of half the size would be seen."""
    net = Net((50,))
    t = net.op("Add", net.op("Mul", net.op("Mul", "x", "x"), np.float32(1e-4)), np.float32(1))
    output = net.op("Pow", t, np.float32(0.75)) if op == "Pow" else t
    X, v = np.random.default_rng(0).standard_normal((2, 4, 50)).astype(np.float32)
    assert worst(net, output, X, v)[op] < 1e-3  # the tolerance of the self-test


def test_a_wrong_slope_beside_a_large_value_is_seen(monkeypatch):
    net = Net((50,))
    output = net.op("Add", net.op("Tanh", net.op("Mul", "x", np.float32(1e-2))), np.float32(1))
    monkeypatch.setitem(RULES, "Add", type(RULES["Add"])(lambda n: {0: 0.95, 1: 1.0}))
    X, v = np.random.default_rng(0).standard_normal((2, 4, 50)).astype(np.float32)
    assert worst(net, output, X, v)["Add"] > 0.02


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


@pytest.mark.parametrize(("slope", "seen"), [(1.0, False), (0.95, True), (0.99, True)])
@pytest.mark.parametrize("constant", [1e2, 1e4, 1e6])
def test_a_large_constant_hides_no_wrong_slope(constant, slope, seen, monkeypatch):
    """At 1e6 float32 has steps of 0.06: what one of the usual size changes is lost in them; a longer one is as straight."""
    net = Net((50,))
    output = net.op("Add", net.op("Tanh", "x"), np.float32(constant))
    monkeypatch.setitem(RULES, "Add", type(RULES["Add"])(lambda n: {0: slope, 1: 1.0}))
    X, v = np.random.default_rng(0).standard_normal((2, 4, 50)).astype(np.float32)
    assert (worst(net, output, X, v)["Add"] > 1e-3) is seen  # what the self-test allows


@pytest.mark.parametrize("hidden", [0.25, 0.75])
@pytest.mark.parametrize("low", [-1e4, -3.4e38, -np.inf])
def test_a_wrong_slope_of_the_scores_that_are_seen_is_seen_beside_those_hidden(hidden, low, monkeypatch):
    rng = np.random.default_rng(0)
    net = Net((6, 40))
    masked = net.op("Add", net.op("Tanh", "x"), np.where(np.arange(40) < 40 * hidden, low, 0.0).astype(np.float32))
    output = net.op("Softmax", masked, axis=-1)
    X, v = rng.standard_normal((2, 4, 6, 40)).astype(np.float32)
    assert worst(net, output, X, v)["Add"] < 1e-3
    monkeypatch.setitem(RULES, "Add", type(RULES["Add"])(lambda n: {0: 0.95, 1: 1.0}))
    assert worst(net, output, X, v)["Add"] > 0.01


@pytest.mark.parametrize("kind", ["probabilities", "centred"])
def test_a_sum_whose_slope_is_rounding_alone_is_no_wrong_rule(kind):
    """Probabilities that are divided by their sum, and values that are normalised twice."""
    net = Net((4, 20))
    h = net.op("MatMul", "x", np.random.default_rng(1).standard_normal((20, 20)))
    if kind == "probabilities":
        h = net.op("Softmax", h, axis=-1)
        output = net.op("Div", h, net.op("ReduceSum", h, np.array([2])))
    else:
        for _ in range(2):
            h = net.op("InstanceNormalization", h, np.ones(4), np.zeros(4))
        output = h
    X, v = np.random.default_rng(0).standard_normal((2, 4, 4, 20)).astype(np.float32)
    errors = worst(net, output, X, v)
    assert errors["ReduceSum" if kind == "probabilities" else "ReduceMean"] < 1e-3


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean"])
def test_a_wrong_slope_of_a_sum_is_seen(op, monkeypatch):
    net = Net((4, 20))
    output = net.op(op, net.op("Tanh", "x"), np.array([2]))
    right = RULES[op]
    wrong = DerivativeRule(right.vjp, lambda n, vs: [n.mul(t, 0.99) for t in right.jvp(n, vs)])
    monkeypatch.setitem(RULES, op, wrong)
    X, v = np.random.default_rng(0).standard_normal((2, 4, 4, 20)).astype(np.float32)
    assert worst(net, output, X, v)[op] > 5e-3
