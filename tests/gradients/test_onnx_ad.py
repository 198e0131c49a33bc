"""Against onnx-ad, an independent differentiator; skipped where it is not installed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper

from onnxfim.gradients import derivative_graph
from tests.support.gradient_nets import Net, run, spread
from tests.support.places import DEV

onnx_ad = DEV.load("onnx_ad")


def dense(net, rng):
    h = net.op("Gelu", net.op("Gemm", "x", rng.standard_normal((6, 8)), rng.standard_normal(8)))
    return net.op("Softmax", net.op("MatMul", h, rng.standard_normal((8, 5))), axis=-1)


def norms(net, rng):
    h = net.op("LayerNormalization", "x", rng.uniform(0.5, 1.5, 6), rng.standard_normal(6), axis=-1)
    return net.op("Mul", net.op("Sigmoid", h), net.op("Tanh", h))


def attention(net, rng):
    h = net.op("Reshape", "x", np.asarray([3, 3, 2]))
    q, k = (net.op("MatMul", h, rng.standard_normal((2, 4))) for _ in range(2))
    a = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    return net.op("ReduceMean", net.op("MatMul", a, h), np.asarray([1]), keepdims=0)


def moves(net, rng):
    h = net.op("Concat", net.op("Exp", "x"), net.op("Slice", "x", *(np.asarray([i]) for i in (0, 5, 1))), axis=1)
    return net.op("Mul", h, net.op("Sqrt", net.op("Softplus", h)))


@pytest.mark.parametrize("build", [dense, norms, attention, moves])
def test_adjoints_agree(build, rng):
    """Same float32 operations in another order of axes."""
    net = Net((6,), opset=20, batch=3)
    output = build(net, rng)
    model, x = net.model(output), spread(rng, 3, 6)
    (y,) = run(model, {"x": x})
    u = rng.standard_normal((2, *y.shape)).astype(np.float32)
    fixed = net.model(output)
    fixed.graph.output[0].CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, y.shape))
    theirs = onnx_ad.reverse(fixed, layout="onnx")
    (seed,) = [i.name for i in theirs.graph.input if i.name != "x"]
    (name,) = [o.name for o in theirs.graph.output if o.name != output]
    (want,) = run(theirs, {"x": x, seed: np.moveaxis(u, 0, -1).copy()}, [name])
    ours = derivative_graph(model, input_name="x", output_name=output, kind="vjp")
    (got,) = run(ours, {"x": x, "u": u.reshape(2, 3, -1)}, ["g"])
    assert_allclose(got, np.moveaxis(want, -1, 0), rtol=1e-4, atol=1e-5)
