"""Products with weights of a few bits, written out: the runtime's own kernel gives the same, and so does float64 from the definition."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import helper, numpy_helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.gradients import derivative_graph
from onnxfim.graph.quantised import dequantised, rounding_operators, rounds_inside_products
from tests.support.gradient_nets import Net, optimised, run
from tests.support.packed_weights import MS, Packed, four_bit_floats, n_bits, packed

#: All options of MatMulNBits but types of half precision: name, arguments of `n_bits`.
OPTIONS = {
    "4 bits": {},
    "8 bits": {"bits": 8},
    "2 bits": {"bits": 2},
    "blocks of 16": {"block": 16},
    "blocks of 128, the last one short": {"block": 128, "k": 150},
    "a K of no whole block": {"k": 70},
    "an odd N and odd blocks": {"n": 7, "k": 96, "zeros": "packed"},
    "packed zeros": {"zeros": "packed"},
    "packed zeros of 8 bits": {"zeros": "packed", "bits": 8},
    "float zeros": {"zeros": "float"},
    "a bias": {"bias": True},
    "float accuracy": {"accuracy": 1},
}


def net_of(form: Packed, k: int, op: str = "MatMulNBits", dtype: type = np.float32) -> tuple[Net, str]:
    net = Net((3, k), dtype=dtype)
    return net, net.op(op, "x", *("" if i is None else i for i in form.inputs), domain=MS, **form.attributes)


def written_out(net: Net, output: str, x: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and slopes of the graph that is differentiated."""
    graph = derivative_graph(net.model(output), input_name="x", output_name=output, kind="jvp")
    assert not {n.op_type for n in graph.graph.node} & {"MatMulNBits", "MatMulBnb4"}
    z, w = run(graph, {"x": x.astype(np.float32), "v": v[None].astype(np.float32)}, ["z", "w"])
    return z, w[0]


def compare(form: Packed, k: int, op: str = "MatMulNBits", *, kernel: bool = True) -> None:
    rng = np.random.default_rng(1)
    net, output = net_of(form, k, op)
    x, v = (rng.standard_normal((2, 3, k)).astype(np.float32) for _ in range(2))
    z, w = written_out(net, output, x, v)
    bias = 0.0 if op != "MatMulNBits" or form.inputs[4] is None else form.inputs[4].astype(np.float64)
    truth, slope = x.astype(np.float64) @ form.weights.T + bias, v.astype(np.float64) @ form.weights.T
    size = np.abs(truth).max()
    assert_allclose(z.reshape(truth.shape), truth, rtol=1e-5, atol=2e-6 * size)  # float32 sums of up to 150 terms
    assert_allclose(w.reshape(slope.shape), slope, rtol=1e-5, atol=2e-6 * size)
    if kernel:
        assert_allclose(run(net.model(output), {"x": x})[0], truth, rtol=1e-4, atol=1e-5 * size)


@pytest.mark.parametrize("name", OPTIONS)
def test_n_bits(name):
    given = {"n": 6, "k": 64, **OPTIONS[name]}
    compare(n_bits(np.random.default_rng(0), **given), given["k"])


def test_blocks_in_another_order():  # the runtime has given the input up
    compare(n_bits(np.random.default_rng(0), 6, 96, grouped=True, zeros="packed"), 96, kernel=False)


def test_half_precision():  # computed in float32 here, by the runtime in float16 where it has such a kernel
    form = n_bits(np.random.default_rng(0), 6, 64, zeros="packed", dtype=np.float16)
    net, output = net_of(form, 64, dtype=np.float16)
    x = np.random.default_rng(1).standard_normal((2, 3, 64)).astype(np.float16)
    z, _ = written_out(net, output, x, np.zeros((2, 3, 64)))
    truth = x.astype(np.float64) @ form.weights.T
    assert_allclose(z.reshape(truth.shape), truth, rtol=1e-5, atol=2e-6 * np.abs(truth).max())
    kernel = run(net.model(output), {"x": x})[0].astype(np.float64)
    assert_allclose(kernel, truth, atol=4 * np.finfo(np.float16).eps * np.abs(truth).max())


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("n", [4, 5])
def test_four_bit_floats(kind, n):
    compare(four_bit_floats(np.random.default_rng(0), n, 32, block=32, kind=kind), 32, "MatMulBnb4")


@pytest.mark.parametrize(("scales", "axis", "fused"), [((), 1, True), ((6,), 1, True), ((8,), 0, False)])
def test_weights_of_8_bits_that_the_runtime_fuses(scales, axis, fused):
    """One scale, or one for each column; the runtime's own optimiser tells which."""
    rng = np.random.default_rng(0)
    net = Net((8,), opset=21)
    q = rng.integers(-127, 128, (8, 6)).astype(np.int8)
    weights = net.op("DequantizeLinear", q, rng.uniform(0.01, 0.02, scales).astype(np.float32), axis=axis)
    net = Net((8,), 21, nodes=net.nodes, weights=net.weights)
    output = net.op("MatMul", "x", weights)
    assert (rounds_inside_products(net.model(output)) is not None) == fused
    assert any(n.op_type == "MatMulNBits" for n in optimised(net, output)[0].nodes) == fused


def test_activations_in_8_bits_stay_near():
    """At level 4 the kernel rounds each block of a row to 8 bits of its largest number: half a level an entry, at random."""
    form = n_bits(np.random.default_rng(0), 6, 128, accuracy=4)
    net, output = net_of(form, 128)
    x = np.random.default_rng(1).standard_normal((2, 3, 128)).astype(np.float32)
    z, _ = written_out(net, output, x, np.zeros_like(x))
    kernel = run(net.model(output), {"x": x})[0]
    off = np.abs(kernel - z.reshape(kernel.shape)).max()
    assert off < 6 * np.abs(x).max() / 254 * np.linalg.norm(form.weights, axis=1).max() / np.sqrt(3)
    assert rounds_inside_products(net.model(output)) is not None
    assert rounding_operators(net.model(output)) == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [({"weight_prepacked": 1}, "packed for one provider's kernel"), ({"bits": 3}, "weights of 3 bits in blocks of 32")],
)
def test_forms_that_are_refused(change, why):
    form = n_bits(np.random.default_rng(0), 6, 64)
    net, output = net_of(Packed(form.inputs, {**form.attributes, **change}, form.weights), 64)
    with pytest.raises(UnsupportedOperator, match=f"MatMulNBits cannot be written out: .*{why}"):
        derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")


class TestBlockedWeights:
    """DequantizeLinear with a scale for each block, as set 21 has it."""

    @staticmethod
    def made(axis: int, kind: int) -> tuple[onnx.ModelProto, np.ndarray]:
        rng = np.random.default_rng(2)
        low, high = (-8, 8) if kind == onnx.TensorProto.INT4 else (0, 16)
        shape = [48, 6] if axis == 0 else [6, 48]
        blocks = [2 if n == 48 else n for n in shape]
        q = rng.integers(low, high, shape)
        scale, zero = rng.uniform(0.01, 0.05, blocks).astype(np.float32), rng.integers(low, high, blocks)
        tensors = [numpy_helper.from_array(scale, "s")]
        tensors += [
            helper.make_tensor(n, kind, a.shape, packed(a.reshape(-1) % 16, 4).tobytes(), raw=True)
            for n, a in (("q", q), ("z", zero))
        ]
        nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], name="w", axis=axis, block_size=32)]
        nodes += [helper.make_node("MatMul", ["x", "w"], ["y"], name="y")]
        k, n = shape
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", k])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", n])], tensors,
        )  # fmt: skip
        spread = [np.repeat(a.astype(np.float64), 32, axis=axis).take(np.arange(48), axis=axis) for a in (scale, zero)]
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), (q - spread[1]) * spread[0]

    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("kind", [onnx.TensorProto.INT4, onnx.TensorProto.UINT4])
    def test_weights_are_those_of_the_definition(self, axis, kind):
        model, W = self.made(axis, kind)
        kept, tensors = dequantised(model.graph.node, model.graph.initializer)
        assert [n.op_type for n in kept] == ["MatMul"]
        assert_allclose(numpy_helper.to_array(tensors[0]), W, rtol=1e-6)
        x = np.random.default_rng(3).standard_normal((4, len(W))).astype(np.float32)
        graph = derivative_graph(model, input_name="x", output_name="y", kind="jvp")
        z = run(graph, {"x": x, "v": x[None]}, ["z"])[0]
        assert_allclose(z, x @ W, rtol=1e-5, atol=1e-5)
        assert rounding_operators(model) == ()
        assert rounds_inside_products(model) is not None
