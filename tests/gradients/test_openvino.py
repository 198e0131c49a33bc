"""Derivative graphs as OpenVINO takes them compute what they computed before, and no longer hold what it computes wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import helper, numpy_helper

from onnxfim.gradients import derivative_graph
from onnxfim.gradients.openvino import for_openvino, own_statistics, unshared
from tests.support.gradient_nets import Net, run

RNG = np.random.default_rng(0)


def readers(model):
    """Which ways every constant is read in, by the constant: operator, position, and what turns or groups it."""
    found = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            kind = node.op_type if "Conv" in node.op_type else "matrix"
            for position, name in enumerate(node.input[:2]):
                turned = [a.i for a in node.attribute if a.name == ("transA", "transB")[position] and a.i]
                found.setdefault(name, set()).add((kind, position, bool(turned)))
    constants = {t.name for t in model.graph.initializer}
    return {name: ways for name, ways in found.items() if name in constants}


def strided():
    """Two strided square convolutions and a square dense layer: their derivative reads each weight both ways."""
    net = Net((8, 8, 8))
    a = net.op("Relu", net.op("Conv", "x", RNG.standard_normal((8, 8, 3, 3)) / 8, strides=[2, 2], pads=[1, 1, 1, 1]))
    b = net.op("Relu", net.op("Conv", a, RNG.standard_normal((8, 4, 1, 1)), strides=[2, 2], group=2))
    c = net.op("Gemm", net.op("Flatten", b), RNG.standard_normal((32, 32)) / 6, transB=1)
    z = net.op("MatMul", net.op("Relu", c), RNG.standard_normal((32, 5)) / 6)
    return net.model(z), z


def feeds(model, shape, classes):
    rows = RNG.standard_normal((3, *shape)).astype(np.float32)
    made = {"x": rows, "u": RNG.standard_normal((2, 3, classes)), "v": RNG.standard_normal((2, 3, *shape))}
    return {i.name: made[i.name].astype(np.float32) for i in model.graph.input}


@pytest.mark.parametrize("kind", ["vjp", "jvp", "gram"])
def test_no_weight_is_read_in_two_ways_and_every_bit_stays(kind):
    model, z = strided()
    graph = derivative_graph(model, input_name="x", output_name=z, kind=kind)
    apart = for_openvino(graph)
    assert all(len(ways) == 1 for ways in readers(apart).values())
    if kind != "jvp":  # otherwise this test could not fail
        assert any(len(ways) > 1 for ways in readers(graph).values())
    given = feeds(graph, (8, 8, 8), 5)
    for before, after in zip(run(graph, given), run(apart, given), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_weight_passed_on_is_the_same_weight():
    """A runtime that leaves out an Identity or a Reshape leaves one constant for both readers."""
    w = numpy_helper.from_array(RNG.standard_normal((4, 4)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Identity", ["w"], ["same"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Gemm", ["a", "same"], ["y"], transB=1),
    ]
    ends = [helper.make_tensor_value_info(n, 1, ["N", 4]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert [n.op_type for n in unshared(model).graph.node] == ["Identity", "MatMul", "Neg", "Neg", "Gemm"]
    x = {"x": RNG.standard_normal((2, 4)).astype(np.float32)}
    np.testing.assert_array_equal(run(model, x)[0], run(unshared(model), x)[0])


def test_a_graph_without_such_weights_is_left_alone():
    model, _ = strided()
    assert for_openvino(model) is model


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("outputs", [2, 3])
def test_statistics_of_a_normalisation_are_those_by_definition(axis, outputs):
    names = ["y", "mean", "inverse"][:outputs]
    shape = (4, 6)[axis:]
    node = helper.make_node("LayerNormalization", ["x", "g"], names, name="norm", axis=axis, epsilon=1e-3)
    info = [helper.make_tensor_value_info(n, 1, None) for n in names]
    gain = numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), "g")
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", 1, ["N", 4, 6])], info, [gain])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    written = own_statistics(model)
    assert [len(n.output) for n in written.graph.node if n.op_type == "LayerNormalization"] == [1]
    x = (3 + RNG.standard_normal((2, 4, 6))).astype(np.float32)
    got = dict(zip(names, run(written, {"x": x}), strict=True))
    axes = tuple(range(axis, 0))
    mean = x.astype(np.float64).mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(np.square(x - mean).mean(axis=axes, keepdims=True) + 1e-3)
    assert_allclose(got["mean"], mean, rtol=1e-5)  # float32 sums of a few numbers
    if outputs == 3:
        assert_allclose(got["inverse"], inverse, rtol=1e-5)
    np.testing.assert_array_equal(got["y"], run(model, {"x": x})[0])
