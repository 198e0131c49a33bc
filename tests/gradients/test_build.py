"""The derivative graphs as wholes: kinds, awkward files, hostile files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from onnxfim.errors import ModelError, UnsupportedOperator
from onnxfim.gradients import derivative_graph
from onnxfim.gradients.build import RESERVED, DerivativeWriter
from onnxfim.gradients.nodewise import NodeTests
from onnxfim.graph.ends import ending
from onnxfim.graph.graph import Graph
from onnxfim.graph.prepare import prepare
from tests.support.gradient_nets import ROWS, SEEDS, Net, check_laws, run, session, spread
from tests.support.planted import NETS


def mlp(rng, *, K=5, scale=1.0, **options):
    net = Net((6,), **options)
    h = net.op("Tanh", net.op("Gemm", "x", rng.standard_normal((6, 8)), rng.standard_normal(8)))
    return net, net.op("Gemm", h, scale * rng.standard_normal((8, K)), rng.standard_normal(K))


def jacobian(model, x, K, output):
    """J by K cotangents, (N, K, d)."""
    u = np.repeat(np.eye(K, dtype=np.float32)[:, None], len(x), axis=1)
    graph = derivative_graph(model, input_name="x", output_name=output, kind="vjp")
    z, g = run(graph, {"x": x, "u": u}, ["z", "g"])
    return z.astype(np.float64), g.reshape(K, len(x), -1).transpose(1, 0, 2).astype(np.float64)


# kinds


@pytest.mark.parametrize("name", NETS)
def test_a_graph_that_is_prepared_serves_all_kinds_and_the_tests_of_rules(name):
    rng = np.random.default_rng(0)
    net, output = NETS[name](rng)
    model = net.model(output)
    prepared = prepare(model, input_name="x", output_name=output, reserved=RESERVED)
    before = [n.SerializeToString() for n in prepared.nodes]
    for kind in ("vjp", "gram", "jvp", "vjp"):
        anew = derivative_graph(model, input_name="x", output_name=output, kind=kind)
        assert DerivativeWriter(prepared).build(kind) == anew
    X, v = rng.standard_normal((2, ROWS, *net.shape)).astype(np.float32)
    both = [tests(evaluated, X, v) for tests in (NodeTests.of(prepared), NodeTests(model, input_name="x", output_name=output))]
    np.testing.assert_array_equal(both[0][0], both[1][0])
    assert [n.SerializeToString() for n in prepared.nodes] == before


def evaluated(model, feeds):
    return session(model).run([o.name for o in model.graph.output], dict(feeds))


def test_gram_is_the_product_with_its_transpose(rng):
    net, output = mlp(rng)
    model, x = net.model(output), spread(rng, ROWS, 6)
    _, J = jacobian(model, x, 5, output)
    u = rng.standard_normal((SEEDS, ROWS, 5)).astype(np.float32)
    graph = derivative_graph(model, input_name="x", output_name=output, kind="gram")
    g, w = run(graph, {"x": x, "u": u}, ["g", "w"])
    assert_allclose(g, np.einsum("nkd,snk->snd", J, u), rtol=1e-4, atol=1e-5)  # float32 sums
    assert_allclose(w, np.einsum("nkd,njd,snj->snk", J, J, u), rtol=1e-4, atol=1e-4)


def test_inner_value_becomes_the_input(rng):
    """From the embedding of an encoder: ids stay a graph input only where they are still needed."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "T"])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", "T"])
    net = Net((1,))
    net.nodes, E = [], rng.standard_normal((11, 4))
    e = net.op("Gather", E, "ids")
    q = net.op("MatMul", e, rng.standard_normal((4, 4)))
    scores = net.op("MatMul", q, net.op("Transpose", e, perm=[0, 2, 1]))
    bias = net.op("Mul", net.op("Sub", np.float32(1.0), net.op("Unsqueeze", "mask", np.asarray([1]))), np.float32(-1e4))
    h = net.op("MatMul", net.op("Softmax", net.op("Add", scores, bias), axis=-1), e)
    z = net.op("MatMul", net.op("Gather", h, np.asarray(0), axis=1), rng.standard_normal((4, 3)))
    out = helper.make_tensor_value_info(z, TensorProto.FLOAT, None)
    graph = helper.make_graph(net.nodes, "encoder", [ids, mask], [out], net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = {"input_name": e, "output_name": z, "dimensions": {"T": 5}}
    vjp = derivative_graph(model, kind="vjp", **options)
    assert {i.name for i in vjp.graph.input} == {"x", "u", "mask"}
    feeds = {"ids": rng.integers(0, 11, (2, 5)), "mask": np.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.float32)}
    x = E[feeds["ids"]].astype(np.float32)
    (got,) = run(vjp, {"x": x, "u": np.zeros((1, 2, 3), np.float32), "mask": feeds["mask"]}, ["z"])
    assert_allclose(got, run(model, feeds)[0], rtol=1e-5, atol=1e-6)
    v = rng.standard_normal((1, *x.shape)).astype(np.float32)
    u = rng.standard_normal((1, 2, 3)).astype(np.float32)
    (w,) = run(derivative_graph(model, kind="jvp", **options), {"x": x, "v": v, "mask": feeds["mask"]}, ["w"])
    (g,) = run(vjp, {"x": x, "u": u, "mask": feeds["mask"]}, ["g"])
    assert_allclose((u * w).sum(), (v * g).sum(), rtol=1e-4)
    assert not g[0, 1, 3:].any(), "masked tokens do not count"
    with pytest.raises(ModelError, match=r"input 'ids': dimension 1 \(T\) is open"):
        derivative_graph(model, kind="vjp", input_name=e, output_name=z)


# awkward files


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
def test_fixed_batch_of_one_is_freed(rng, opset):
    """Reshape targets and class tokens hold the batch of the export."""
    net = Net((3, 4, 4), opset=opset, batch=1, ir_version=4 if opset < 13 else 8)
    t = net.op("Conv", "x", rng.standard_normal((6, 3, 2, 2)), strides=[2, 2])
    t = net.op("Transpose", net.op("Reshape", t, np.asarray([1, 6, 4])), perm=[0, 2, 1])
    t = net.op("Concat", rng.standard_normal((1, 1, 6)), t, axis=1)  # (1, 5, 6)
    t = net.op("Transpose", net.op("Add", t, rng.standard_normal((1, 5, 6))), perm=[1, 0, 2])
    t = net.op("Reshape", t, np.asarray([5, 2, 3]))  # heads beside the batch: (5, 1·2, 3)
    t = net.op("Reshape", net.op("Tanh", t), np.asarray([5, 1, 6]))
    t = net.op("Transpose", t, perm=[1, 0, 2])
    t = net.op("Reshape", t, np.asarray([1, -1]))
    check_laws(net, net.op("Gemm", t, rng.standard_normal((30, 3)), rng.standard_normal(3)), rng, single=True)


def test_batch_that_cannot_be_freed_is_refused(rng):
    net = Net((4,), batch=1)
    output = net.op("Unsqueeze", net.op("Tanh", net.op("Squeeze", "x", np.asarray([0]))), np.asarray([0]))
    with pytest.raises(ModelError, match="Squeeze"):
        derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")


def test_half_precision_is_computed_in_float32(rng):
    net, output = mlp(rng)
    model = net.model(output)
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    half.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    half.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    x = spread(rng, ROWS, 6)
    _, J = jacobian(model, x, 5, output)
    _, J_half = jacobian(half, x, 5, output)
    assert_allclose(J_half, J, rtol=2e-2, atol=2e-2)  # weights rounded to 11 bits


def test_external_data_stays_where_it_is(rng, tmp_path):
    net, output = mlp(rng)
    model, x = net.model(output), spread(rng, ROWS, 6)
    want = derivative_graph(model, input_name="x", output_name=output, kind="vjp")
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    loaded = onnx.load(path, load_external_data=False)
    graph = derivative_graph(loaded, input_name="x", output_name=output, kind="vjp", base_dir=tmp_path)
    places = [t for t in graph.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    assert len(places) == 4
    assert not any(t.raw_data for t in places)
    onnx.load_external_data_for_model(graph, str(tmp_path))
    u = rng.standard_normal((1, ROWS, 5)).astype(np.float32)
    assert_allclose(run(graph, {"x": x, "u": u}, ["g"]), run(want, {"x": x, "u": u}, ["g"]), rtol=1e-6)


def test_local_functions_are_written_out(rng):
    net, body_out = Net((6,)), "y"
    nodes = [
        helper.make_node("Constant", [], ["a"], value_float=0.5),
        helper.make_node("LeakyRelu", ["t"], ["l"]),
        helper.make_node("Mul", ["l", "a"], [body_out]),
    ]
    nodes[1].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    function = helper.make_function("local", "Half", ["t"], [body_out], nodes, [helper.make_opsetid("", 18)], ["slope"])
    net.x = spread(rng, ROWS, 6)
    net.step = 1e-3
    output = net.op("Half", net.op("Half", "x", domain="local", slope=0.2), domain="local", slope=0.3)
    model = net.model(output)
    model.functions.append(function)
    u = np.ones((1, ROWS, 6), np.float32)
    (g,) = run(derivative_graph(model, input_name="x", output_name=output, kind="vjp"), {"x": net.x, "u": u}, ["g"])
    assert_allclose(g[0], np.where(net.x > 0, 0.25, 0.25 * 0.06), rtol=1e-6)


def test_a_scikit_learn_file_is_differentiated_at_its_logits(rng):
    """Labels and the map of probabilities stand beside the path."""
    net = Net((4,))
    scaled = net.op("Scaler", net.op("Cast", "x", to=1), domain="ai.onnx.ml", offset=[0.1] * 4, scale=[2.0] * 4)
    hidden = net.op("Relu", net.op("Add", net.op("MatMul", scaled, rng.standard_normal((4, 6))), rng.standard_normal((1, 6))))
    z = net.op("Add", net.op("MatMul", hidden, rng.standard_normal((6, 3))), rng.standard_normal((1, 3)))
    p = net.op("Softmax", z, axis=1)
    net.op("ArrayFeatureExtractor", np.arange(3), net.op("ArgMax", p, axis=1, keepdims=0), domain="ai.onnx.ml")
    maps = net.op("ZipMap", p, domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    model = net.model(maps)
    assert ending(Graph(model), maps).logits == z
    net.step, net.rtol = 1e-3, 5e-2  # kinks may lie within the step
    check_laws(net, z, rng)


def test_sparse_weights_are_refused(rng):
    net = Net((4,))
    output = net.op("Mul", "x", "sparse")
    model = net.model(output)
    values, indices = numpy_helper.from_array(np.ones(1, np.float32), "sparse"), numpy_helper.from_array(np.zeros(1, np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    with pytest.raises(ModelError, match="weight 'sparse': sparse weights"):
        derivative_graph(model, input_name="x", output_name=output, kind="vjp")


def test_the_model_is_not_changed_and_weights_are_not_converted(rng):
    net = Net((1024,))
    t = "x"
    for _ in range(7):
        t = net.op("Relu", net.op("MatMul", t, np.zeros((1024, 4096), np.float32)))
        t = net.op("ReduceMean", net.op("Reshape", t, np.asarray([0, 1024, 4])), np.asarray([2]), keepdims=0)
    model = net.model(t)
    before = model.SerializeToString(deterministic=True)
    derivative_graph(model, input_name="x", output_name=t, kind="vjp")
    assert model.SerializeToString(deterministic=True) == before


def test_ties_go_to_the_first_maximum():
    x = np.zeros((1, 1, 4), np.float32)
    for op, attributes in (("MaxPool", {"kernel_shape": [2], "strides": [2]}), ("ReduceMax", {})):
        net = Net((1, 4))
        output = net.op(op, "x", *([np.asarray([2])] if op == "ReduceMax" else []), **attributes)
        graph = derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")
        (z,) = run(net.model(output), {"x": x})
        (g,) = run(graph, {"x": x, "u": np.ones((1, 1, z.size), np.float32)}, ["g"])
        assert_allclose(g.reshape(-1), [1, 0, 1, 0] if op == "MaxPool" else [1, 0, 0, 0])


# hostile files: right or refused


def refused(net, output, match):
    for kind in ("vjp", "jvp"):
        with pytest.raises(UnsupportedOperator, match=match):
            derivative_graph(net.model(output), input_name="x", output_name=output, kind=kind)


def test_rounding_is_refused():
    """What is rounded stands for a real number, as in a quantiser: finite steps see its slope."""
    net = Net((4,))
    stepped = net.op("Round", "x")
    refused(net, net.op("Add", stepped, "x"), r"node 'n0': Round \(opset 18\).*zero almost everywhere.*sketch")


@pytest.mark.parametrize("op", ["Floor", "Ceil", "Sign", "Hardmax"])
def test_steps_that_every_way_passes_are_refused(op):
    net = Net((4,))
    stepped = net.op(op, net.op("Tanh", "x"))
    refused(net, net.op("Add", stepped, np.float32(1)), rf"node 'n1': {op} \(opset 18\).*zero almost everywhere.*sketch")


@pytest.mark.parametrize("moved", ["Reshape", "Transpose"])
def test_what_rounds_is_named_not_what_moves_it(moved):
    """As converters from TensorFlow write it: whole numbers are moved before they are dequantised."""
    net = Net((2, 4))
    scale, zero = np.float32(0.1), np.int8(0)
    t = net.op("QuantizeLinear", net.op("Tanh", "x"), scale, zero)
    t = net.op("Reshape", t, np.array([0, -1])) if moved == "Reshape" else net.op("Transpose", t, perm=[0, 2, 1])
    refused(net, net.op("DequantizeLinear", t, scale, zero), r"QuantizeLinear \(opset 18\).*zero almost everywhere.*sketch")


def test_a_sequence_of_rows_is_refused():
    net = Net((4,))
    parts = net.op("SplitToSequence", net.op("Tanh", "x"), axis=0)
    refused(net, net.op("ConcatFromSequence", parts, axis=0), "SplitToSequence makes a sequence of the rows of the batch")


def test_random_values_are_refused():
    net = Net((4,))
    refused(net, net.op("Add", net.op("RandomNormalLike", "x"), "x"), r"RandomNormalLike.*it is random")


def test_dropout_in_training_mode_is_refused():
    net = Net((4,))
    refused(net, net.op("Dropout", "x", np.float32(0.5), np.asarray(True)), r"Dropout.*in training mode it is random")


def test_rounding_by_a_cast_is_refused():
    net = Net((4,))
    refused(
        net,
        net.op("Add", net.op("Cast", net.op("Cast", "x", to=7), to=1), "x"),
        "rounded to an integer.*zero almost everywhere",
    )


def test_a_round_off_the_path_does_no_harm(rng):
    net = Net((4,))
    net.op("Round", "x")
    constant = net.op("Round", rng.standard_normal(4))
    check_laws(net, net.op("Mul", net.op("Tanh", "x"), net.op("Add", constant, np.float32(3))), rng)


def test_comparisons_are_masks(rng):
    """A Relu by hand: the mask is constant almost everywhere."""
    net = Net((4,), x=np.where(rng.random((ROWS, 4)) < 0.5, -1.0, 1.0).astype(np.float32))
    mask = net.op("Cast", net.op("Greater", "x", np.float32(0)), to=1)
    check_laws(net, net.op("Mul", mask, net.op("Exp", "x")), rng)


def test_quantised_activations_are_refused_and_weights_are_not(rng):
    net, W = Net((4,)), rng.integers(-100, 100, (4, 3)).astype(np.int8)
    scale, zero = np.asarray([0.01, 0.02, 0.03], np.float32), np.asarray([3, 0, -4], np.int8)
    w = net.op("DequantizeLinear", W, scale, zero, axis=1)
    output = net.op("MatMul", "x", w)
    z, J = jacobian(net.model(output), np.ones((2, 4), np.float32), 3, output)
    exact = (W - zero.astype(float)) * scale
    assert_allclose(J[0], exact.T, rtol=1e-6)  # not the runtime's fused product, which rounds activations to 8 bits
    assert_allclose(z[0], exact.sum(axis=0), rtol=1e-5)
    q = net.op("QuantizeLinear", "x", np.float32(0.01), np.uint8(128))
    refused(
        net,
        net.op("MatMul", net.op("DequantizeLinear", q, np.float32(0.01), np.uint8(128)), w),
        "QuantizeLinear.*clip surrogate",
    )


def test_clip_surrogate_is_the_range_of_the_integers():
    net = Net((4,))
    q = net.op("Reshape", net.op("QuantizeLinear", "x", np.float32(0.01), np.uint8(100)), np.asarray([-1, 2, 2]))
    output = net.op("DequantizeLinear", q, np.float32(0.01), np.uint8(100))
    graph = derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp", surrogate="clip")
    x = np.asarray([[-1.5, -0.5, 1.5, 1.6]], np.float32)  # range −1.00 … 1.55
    z, g = run(graph, {"x": x, "u": np.ones((1, 1, 4), np.float32)}, ["z", "g"])
    assert_allclose(z, [[-1.0, -0.5, 1.5, 1.55]], rtol=1e-6)
    assert_allclose(g[0], [[0, 1, 1, 0]])


def test_control_flow_is_refused(rng):
    net = Net((4,))
    condition = net.op("Greater", net.op("ReduceSum", "x", keepdims=0), np.float32(0))
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["x"], [f"{op}_out"])], op, [], [helper.make_tensor_value_info(f"{op}_out", 1, None)]
        )
        for op in ("Tanh", "Exp")
    ]
    output = net.op("If", condition, then_branch=branches[0], else_branch=branches[1])
    refused(net, output, r"If \(opset 18\).*which branch it takes is not known before the model runs")


def test_unknown_operators_are_refused():
    net = Net((4,))
    refused(net, net.op("Strange", "x", domain="elsewhere"), r"elsewhere.Strange.*no derivative rule.*sketch")


def test_unsorted_nodes_and_equal_names(rng):
    net, output = mlp(rng)
    model = net.model(output)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    for node in nodes:
        node.name = "same"
    model.graph.node.extend(nodes)
    sorted_net, sorted_output = mlp(np.random.default_rng(0))
    x, u = spread(rng, ROWS, 6), rng.standard_normal((1, ROWS, 5)).astype(np.float32)
    got = run(derivative_graph(model, input_name="x", output_name=output, kind="vjp"), {"x": x, "u": u})
    want = run(
        derivative_graph(sorted_net.model(sorted_output), input_name="x", output_name=sorted_output, kind="vjp"),
        {"x": x, "u": u},
    )
    for a, b in zip(got, want, strict=True):
        assert_allclose(a, b, rtol=1e-6)


def test_a_value_written_twice_is_refused(rng):
    net, output = mlp(rng)
    net.nodes.append(helper.make_node("Tanh", ["x"], [output]))
    with pytest.raises(ModelError, match="written twice"):
        derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")


def test_names_of_the_derivative_graph_may_be_taken(rng):
    """Inner values called u, g, z, w and temperature are renamed."""
    net = Net((4,))
    names = ["u", "g", "z", "w", "v", "temperature"]
    previous = "x"
    for name in names:
        net.nodes.append(helper.make_node("Tanh", [previous], [name], name=name))
        previous = name
    check_laws(net, previous, rng)


@pytest.mark.parametrize("kind", ["constant", "shape"])
def test_constant_output_is_refused(rng, kind):
    net = Net((4,))
    output = net.op("Tanh", rng.standard_normal((1, 4))) if kind == "constant" else net.op("Cast", net.op("Shape", "x"), to=1)
    with pytest.raises(ModelError, match="does not depend on 'x'"):
        derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")


def test_an_output_that_is_the_input_is_refused(rng):
    net, _ = mlp(rng)
    with pytest.raises(ModelError, match="output 'x' is the input itself: there is nothing to differentiate"):
        derivative_graph(net.model("x"), input_name="x", output_name="x", kind="vjp")


def test_integer_input_is_refused(rng):
    net = Net((1,))
    output = net.op("Gather", rng.standard_normal((5, 3)), net.op("Cast", "x", to=7))
    with pytest.raises((ModelError, UnsupportedOperator)):
        derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")


def test_a_row_mixing_output_is_refused(rng):
    """The batch summed away: no rows, no logits."""
    net = Net((4,))
    output = net.op("ReduceSum", "x", np.asarray([0]))
    with pytest.raises((ModelError, UnsupportedOperator), match="batch"):
        derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")


def test_missing_values_are_named(rng):
    net, output = mlp(rng)
    with pytest.raises(ModelError, match=r"input 'nothing': the graph has no such value; graph inputs are \['x'\]"):
        derivative_graph(net.model(output), input_name="nothing", output_name=output, kind="vjp")


def test_open_dimensions_need_a_sample_shape(rng):
    net = Net((3, "H", "W"))
    output = net.op("GlobalAveragePool", net.op("Conv", "x", rng.standard_normal((4, 3, 3, 3))))
    options = {"input_name": "x", "output_name": output, "kind": "vjp"}
    with pytest.raises(ModelError, match=r"input 'x': dimension 2 \(H\) is open. Give the shape of one sample"):
        derivative_graph(net.model(output), **options)
    graph = derivative_graph(net.model(output), sample_shape=(3, 8, 6), **options)
    g = run(graph, {"x": spread(rng, 2, 3, 8, 6), "u": np.ones((1, 2, 4), np.float32)}, ["g"])[0]
    assert g.shape == (1, 2, 3, 8, 6)


def test_dead_nodes_are_not_written(rng):
    net, output = mlp(rng)
    net.op("Exp", output)
    graph = derivative_graph(net.model(output), input_name="x", output_name=output, kind="vjp")
    assert "Exp" not in {n.op_type for n in graph.graph.node}
