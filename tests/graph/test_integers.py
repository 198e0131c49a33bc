"""Integer operators written as float ones: the surrogate's outputs are the file's, to within its rounding."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.gradients import derivative_graph
from onnxfim.graph.quantised import rounding_operators

S = 0.02  # scale of all values: outputs of the file lie within a few of it from the surrogate's
RNG = np.random.default_rng(0)
W4 = RNG.integers(-40, 40, (4, 3, 3, 3)).astype(np.int8)
W2 = RNG.integers(-60, 60, (12, 5)).astype(np.int8)
GRID = ["s", "z"]
CONSTANTS = {
    "s": np.float32(S), "z": np.int8(3), "ws": np.float32(0.004), "wz": np.int8(0), "w4": W4, "w2": W2,
    "ws4": np.array([0.004, 0.002, 0.003, 0.005], np.float32), "wz4": np.zeros(4, np.int8),
    "b4": np.array([500, -300, 0, 200], np.int32), "b5": np.array([900, -300, 0, 200, 50], np.int32),
    "ws5": np.array([0.004, 0.002, 0.003, 0.005, 0.001], np.float32), "wz5": np.zeros(5, np.int8),
    "bias": np.array([0.3, -0.2, 0.0, 0.1, 0.2], np.float32), "u2": RNG.integers(90, 160, (12, 5)).astype(np.uint8),
    "uz": np.uint8(128), "minus": np.array([0, -1]),
}  # fmt: skip


def node(op, inputs, outputs, domain="", **attributes):
    return helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes)


def quantised(*nodes, out="q"):
    return [node("QuantizeLinear", ["x", *GRID], ["qx"]), *nodes, node("DequantizeLinear", [out, *GRID], ["y"])]


MS = "com.microsoft"
#: name: (shape of a sample, shape of the output, nodes)
CASES = {
    "QLinearConv": (
        (3, 6, 6), (4, 6, 6),
        quantised(node("QLinearConv", ["qx", *GRID, "w4", "ws4", "wz4", *GRID, "b4"], ["q"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])),
    ),
    "QLinearMatMul": ((12,), (5,), quantised(node("QLinearMatMul", ["qx", *GRID, "w2", "ws5", "wz5", *GRID], ["q"]))),
    "QGemm": ((12,), (5,), quantised(node("QGemm", ["qx", *GRID, "w2", "ws", "wz", "b5", *GRID], ["q"], MS, alpha=1.0))),
    "QLinearAdd": ((12,), (12,), quantised(node("QLinearAdd", ["qx", *GRID, "qx", *GRID, *GRID], ["q"], MS))),
    "QLinearMul": ((12,), (12,), quantised(node("QLinearMul", ["qx", *GRID, "qx", *GRID, *GRID], ["q"], MS))),
    "QLinearSigmoid": ((12,), (12,), quantised(node("QLinearSigmoid", ["qx", *GRID, *GRID], ["q"], MS))),
    "QLinearConcat": (
        (12,), (24,), quantised(node("QLinearConcat", [*GRID, "qx", *GRID, "qx", *GRID], ["q"], MS, axis=1)),
    ),
    "QLinearGlobalAveragePool": (
        (3, 6, 6), (3, 1, 1), quantised(node("QLinearGlobalAveragePool", ["qx", *GRID, *GRID], ["q"], MS, channels_last=0)),
    ),
    "MatMulInteger": (
        (12,), (5,),
        [
            node("DynamicQuantizeLinear", ["x"], ["qx", "qs", "qz"]), node("MatMulInteger", ["qx", "u2", "qz", "uz"], ["i"]),
            node("Cast", ["i"], ["c"], to=TensorProto.FLOAT), node("Mul", ["qs", "ws"], ["t"]), node("Mul", ["c", "t"], ["y"]),
        ],
    ),
    "ConvInteger": (
        (3, 6, 6), (4, 4, 4),
        [
            node("DynamicQuantizeLinear", ["x"], ["qx", "qs", "qz"]), node("ConvInteger", ["qx", "w4", "qz"], ["i"]),
            node("Cast", ["i"], ["c"], to=TensorProto.FLOAT), node("Mul", ["qs", "ws"], ["t"]), node("Mul", ["c", "t"], ["y"]),
        ],
    ),
    "DynamicQuantizeMatMul": ((12,), (5,), [node("DynamicQuantizeMatMul", ["x", "w2", "ws", "wz", "bias"], ["y"], MS)]),
    "MatMulIntegerToFloat": (
        (12,), (5,),
        [
            node("DynamicQuantizeLinear", ["x"], ["qx", "qs", "qz"]),
            node("MatMulIntegerToFloat", ["qx", "w2", "qs", "ws", "qz", "wz", "bias"], ["y"], MS),
        ],
    ),
}  # fmt: skip


def file_of(shape, out, nodes):
    used = {i for n in nodes for i in n.input}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *out])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in CONSTANTS.items() if k in used],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)])
    model.ir_version = 8
    return model


def run(model, outputs, **feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(outputs, feeds)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_slopes(name):
    shape, out, nodes = CASES[name]
    model = file_of(shape, out, nodes)
    assert any(name in op or op in ("QuantizeLinear", "DynamicQuantizeLinear") for op in rounding_operators(model))
    x = RNG.uniform(-1.2, 1.2, (4, *shape)).astype(np.float32)
    (truth,) = run(model, ["y"], x=x)
    graph = derivative_graph(model, input_name="x", output_name="y", kind="jvp", sample_shape=shape, surrogate="clip")
    h = 1.0
    v = RNG.uniform(-h, h, (1, 4, *shape)).astype(np.float32)
    z, w = run(graph, ["z", "w"], x=x, v=v)
    # Half a level of each of up to 108 inputs, times weights of at most 0.24 on average 0.1, and one of the output.
    assert_allclose(z.reshape(truth.shape), truth, atol=4 * S)
    assert np.abs(w).max() > 0
    if name not in ("QLinearMul", "QLinearSigmoid"):  # the rest is linear where nothing clips
        moved = run(graph, ["z"], x=x + v[0] / 4, v=v)[0]
        inside = np.abs(z) < 2.4
        assert_allclose(
            (moved - z)[inside & (np.abs(moved) < 2.4)], (w[0].reshape(z.shape) / 4)[inside & (np.abs(moved) < 2.4)], atol=1e-4
        )


def test_computed_weights_have_no_twin():
    nodes = quantised(
        node("QuantizeLinear", ["x", *GRID], ["other"]), node("Transpose", ["other"], ["turned"], perm=[1, 0]),
        node("QLinearMatMul", ["qx", *GRID, "w2", "scale", "wz", *GRID], ["q"]),
    )  # fmt: skip
    nodes.insert(0, node("ReduceMax", ["x"], ["scale"], keepdims=0))
    model = file_of((12,), (5,), nodes)
    with pytest.raises(UnsupportedOperator, match="QLinearMatMul with a computed 'scale' has no clip surrogate"):
        derivative_graph(model, input_name="x", output_name="y", kind="vjp", sample_shape=(12,), surrogate="clip")


def test_weights_as_integers_alone_do_not_round():
    nodes = [node("DequantizeLinear", ["w2", "ws", "wz"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    assert rounding_operators(file_of((12,), (5,), nodes)) == ()
