"""Copies in plainer operators compute the same function, as ONNX Runtime does it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfim.graph.alone import copies_alone
from onnxfim.graph.plainer import with_plain_convolutions, without_averages

#: float32 sums of other orders, with zeros among them.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def conv_model(kernel: tuple[int, ...], size: int = 9, **attributes) -> onnx.ModelProto:
    """A convolution with a bias, rectified, and its mean over all positions; channels are what the kernel and the groups need."""
    rng = np.random.default_rng(0)
    channels = kernel[1] * attributes.get("group", 1)
    axes = len(kernel) - 2
    weights = [
        numpy_helper.from_array(rng.standard_normal(kernel, dtype=np.float32), "w"),
        numpy_helper.from_array(rng.standard_normal(kernel[0], dtype=np.float32), "b"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, *[size] * axes])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    return session.run(None, {"x": np.random.default_rng(1).standard_normal(shape, dtype=np.float32)})[0]


UNEVEN = [
    ({"pads": [0, 0, 1, 1], "strides": [2, 2]}, (4, 3, 3, 3)),  # as TensorFlow pads
    ({"pads": [4, 1, 5, 1], "strides": [2, 2]}, (4, 1, 6, 4)),
    ({"pads": [2, 0, 0, 1]}, (2, 2, 3, 2)),
    ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (3, 2, 4, 4)),
    ({"auto_pad": "SAME_LOWER", "strides": [2, 3]}, (3, 2, 4, 5)),
    ({"auto_pad": "VALID"}, (3, 2, 3, 3)),
    ({"pads": [1, 2]}, (3, 2, 4)),
    ({"pads": [0, 1, 0, 1, 0, 1]}, (2, 1, 2, 2, 2)),
    ({"group": 6, "pads": [1, 1, 1, 1]}, (6, 1, 3, 3)),  # depth-wise
    ({"group": 3, "pads": [0, 1, 1, 0], "strides": [2, 1]}, (6, 2, 3, 3)),
]


@pytest.mark.parametrize(("attributes", "kernel"), UNEVEN, ids=lambda v: str(v))
def test_convolutions_without_groups_and_with_even_paddings_are_the_same_function(attributes, kernel):
    model = conv_model(kernel, **attributes)
    before = model.SerializeToString()
    copy = with_plain_convolutions(model)
    assert copy is not None
    (conv,) = (n for n in copy.graph.node if n.op_type == "Conv")
    got = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    half = len(got["pads"]) // 2
    assert got["pads"][:half] == got["pads"][half:]
    assert not got.keys() & {"auto_pad", "group"}
    np.testing.assert_allclose(run(copy), run(model), **CLOSE)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("attributes", [{}, {"pads": [1, 1, 1, 1]}, {"pads": [1, 1, 1, 1], "strides": [2, 2], "dilations": [2, 2]}])
def test_plain_ones_are_left_alone(attributes):
    assert with_plain_convolutions(conv_model((3, 2, 3, 3), **attributes)) is None


def test_a_kernel_with_gaps_keeps_uneven_paddings():
    assert with_plain_convolutions(conv_model((3, 2, 3, 3), pads=[0, 0, 1, 1], dilations=[2, 2])) is None


def test_averages_are_convolutions_of_the_same_value():
    model = conv_model((4, 3, 3, 3))
    copy = without_averages(model)
    assert copy is not None
    assert "GlobalAveragePool" not in {n.op_type for n in copy.graph.node}
    np.testing.assert_allclose(run(copy), run(model), **CLOSE)


def test_weights_kept_as_integers_are_scaled_once_for_all():
    model = conv_model((4, 3, 3, 3), pads=[0, 0, 1, 1])
    kernel = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array((kernel * 20).round().astype(np.int8), "q"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.05), "s"))
    model.graph.initializer.append(numpy_helper.from_array(np.int8(0), "z"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]))
    copy, told = next(copies_alone(model, "x", "y", (3, 9, 9), fixed=1, base_dir="."))
    assert {n.op_type for n in copy.graph.node} == {"Conv", "Relu", "Flatten"}
    assert "constants folded" in told
    assert "even paddings" in told
    np.testing.assert_allclose(run(copy), run(model), **CLOSE)
