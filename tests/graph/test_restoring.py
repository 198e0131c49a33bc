"""Nodes of deployed files restored: alignment by weights, and what is left when all, or all but one, are."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from onnxfim.graph.aligning import align, layers
from onnxfim.graph.known_values import KnownValues
from onnxfim.graph.restoring import restorable
from onnxfim.graph.written_out import block_weights, written_out
from tests.support.quantised_nets import FORMS, Dense, quantised_file
from tests.support.small_nets_float import float_file

NET = Dense.draw(12, 16, 16, 4, seed=3)
X = NET.samples(20)


def run(model, inputs=X):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


@pytest.mark.parametrize("form", FORMS)
def test_all_restored_is_the_trained_file(form):
    deployed = quantised_file(NET, X, form)
    found = restorable(deployed, float_file(NET))
    assert found.left == ()
    assert np.abs(run(deployed) - run(float_file(NET))).max() > 1e-3
    assert_allclose(run(found.restored(found.units)), run(float_file(NET)), atol=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("form", FORMS)
def test_nothing_restored_is_the_deployed_file(form):
    deployed = quantised_file(NET, X, form)
    # atol: sums of integers as floats may fall on the other side of a rounding, one level of a few outputs.
    apart = np.abs(run(written_out(deployed)) - run(deployed))
    assert np.median(apart) < 1e-5
    assert apart.mean() < 0.02


def test_one_left_alone_changes_less_than_all():
    deployed, trained = quantised_file(NET, X, "qdq"), run(float_file(NET))
    found = restorable(deployed, float_file(NET))
    all_of_it = np.abs(run(deployed) - trained).mean()
    for unit in found.units:
        alone = np.abs(run(found.restored([u for u in found.units if u is not unit])) - trained).mean()
        assert 0 < alone < 1.2 * all_of_it, unit.node  # a node may cancel another; none does more than a little


def test_layers_are_aligned_by_weights_not_by_name_or_order():
    trained = float_file(NET)
    renamed = quantised_file(NET, X, "qdq")
    names = {f"m{k}": f"m{(k + 1) % 3}" for k in range(3)}
    for node in renamed.graph.node:
        node.name = names.get(node.name, node.name)
    found = align(layers(renamed), layers(trained))
    by_index = {layer.index: layer for layer in layers(renamed)}
    told = {by_index[i].label: t.label for i, t in found.twins.items()}
    # The shapes (16, 16) stand alone; all the same, no name decides.
    assert told == {names[f"m{k}"]: f"m{k}" for k in range(3)}


def test_layers_of_one_shape_find_their_own():
    rng = np.random.default_rng(0)
    net = Dense(tuple(rng.standard_normal((8, 8)) for _ in range(4)))
    found = align(layers(quantised_file(net, net.samples(9), "qdq")), layers(float_file(net)))
    assert [t.label for _, t in sorted(found.twins.items())] == ["m0", "m1", "m2", "m3"]
    assert all(t.distance < 0.02 for t in found.twins.values())


def test_weights_that_are_no_numbers_are_told_from_the_others():
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((8, 8)) for _ in range(3)]
    whole, broken = (float_file(Dense((w, *weights[1:]))) for w in (weights[0], np.full((8, 8), np.nan)))
    found = align(layers(broken), layers(whole))
    assert {t.label for t in found.twins.values() if t.distance < 0.02} >= {"m1", "m2"}


def test_weights_that_are_nobodys_are_left_with_the_reason():
    rng = np.random.default_rng(0)
    net = Dense(tuple(rng.standard_normal((8, 8)) for _ in range(2)))
    other = Dense((net.weights[0], rng.standard_normal((8, 8))))
    model = quantised_file(other, other.samples(9), "qdq")
    for node in model.graph.node:
        if node.op_type == "MatMul":
            node.name = f"x{node.name}"
    (left,) = restorable(model, float_file(net)).left
    assert left[0] == "xm1"
    assert "its weights are no layer's of the trained file" in left[2]


def test_a_batch_normalisation_is_folded():
    rng = np.random.default_rng(1)
    W, scale, shift, mean = (rng.standard_normal(s).astype(np.float32) for s in ((3, 2, 3, 3), 3, 3, 3))
    variance = rng.uniform(0.5, 2, 3).astype(np.float32)
    value = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 5, 5])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]

    def model(nodes, tensors):
        made = [numpy_helper.from_array(v, k) for k, v in tensors.items()]
        return helper.make_model(helper.make_graph(nodes, "g", value, out, made), opset_imports=[helper.make_opsetid("", 17)])

    trained = model(
        [helper.make_node("Conv", ["x", "W"], ["c"], name="conv"), helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"])],
        {"W": W, "s": scale, "b": shift, "m": mean, "v": variance},
    )  # fmt: skip
    factor = scale / np.sqrt(variance + 1e-5)
    folded = model(
        [helper.make_node("Conv", ["x", "W", "B"], ["y"], name="fused")],
        {"W": (W * factor[:, None, None, None] * 1.01), "B": (shift - mean * factor).astype(np.float32)},
    )
    found = restorable(folded, trained)
    (unit,) = found.units
    assert (unit.node, unit.twin.label) == ("fused", "conv")
    assert_allclose(unit.twin.distance, 0.01, rtol=1e-3)
    x = rng.standard_normal((2, 2, 5, 5)).astype(np.float32)
    for m in (trained, folded):
        m.ir_version = 8
    assert_allclose(run(found.restored(found.units), x), run(trained, x), atol=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_blocks_are_unpacked(bits):
    rng = np.random.default_rng(2)
    K, N, size = 40, 3, 16
    blocks = -(-K // size)
    q = rng.integers(0, 2**bits, (N, blocks * size))
    scales = rng.uniform(0.1, 1, (N, blocks)).astype(np.float32)
    per = 8 // bits
    packed = sum(q[:, k::per] << (bits * k) for k in range(per)).astype(np.uint8).reshape(N, blocks, -1)
    node = helper.make_node("MatMulNBits", ["x", "B", "s"], ["y"], domain="com.microsoft", K=K, N=N, bits=bits, block_size=size)
    truth = np.zeros((K, N))
    for n in range(N):
        for k in range(K):
            truth[k, n] = (q[n, k] - 2 ** (bits - 1)) * scales[n, k // size]
    assert_allclose(block_weights(node, lambda _, at: {1: packed, 2: scales.ravel()}.get(at)), truth, rtol=1e-6)


def test_known_values_pass_what_only_stores():
    model = quantised_file(NET, X, "qdq")
    values = KnownValues(model)
    q, s = values.value("w0"), values.value("ws0")
    assert_allclose(values.value("f0"), q.astype(float) * s, rtol=1e-6)
    assert values.value("m0") is None
