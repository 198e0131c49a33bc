"""The composed bound: above what is measured, tighter than its naive twins, and honest on hostile graphs."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfim.errors import ModelError, OutputError
from onnxfim.graph.graph import Graph
from onnxfim.spectral import LOG10_ZERO, Bound, closed_forms, compose, spectral_bound
from tests.benchmarks.naive_bounds import naive_bounds
from tests.support import nets, trained
from tests.support.nets import Net


def model_of(nodes, weights=None, shape=("N", 4), *, kind=TensorProto.FLOAT, output="y", opset=17):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v, np.float32) if np.asarray(v).dtype == np.float64 else np.asarray(v), k) for k, v in (weights or {}).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_operatorsetid("", opset)], ir_version=8)


def bound_of(nodes, weights=None, **kwargs) -> Bound:
    return spectral_bound(Graph(model_of(nodes, weights, **kwargs)))


def node(op, inputs, output="y", **attributes):
    return helper.make_node(op, inputs, [output], name=f"n-{output}", **attributes)


@pytest.mark.parametrize("name", trained.each(lambda m: m.stored))
def test_bound_is_above_every_measured_sensitivity(name):
    found = trained.ALL[name]
    samples = found.exact["samples"]
    graph = Graph(onnx.load(found.path))
    bound = spectral_bound(graph)
    if name.startswith("cifar_vit"):  # BatchNormalization keeps no ball; on the box of the data there is one
        assert not bound.available
        assert "dot-product attention has no global Lipschitz constant" in bound.reason
        bound = spectral_bound(graph, input_range=(-3.0, 3.0))
        assert "[-3, 3]" in bound.assumptions[0]
    assert bound.log10_lipschitz is not None
    assert bound.log10_lipschitz >= math.log10(max(s["logit_sensitivity"] for s in samples))
    assert bound.log10_fisher >= math.log10(max(s["lambda_max"] for s in samples))
    assert bound.shares[-1].log10_total == pytest.approx(bound.log10_lipschitz)
    assert sum(s.log10_gain for s in bound.shares) == pytest.approx(bound.log10_lipschitz)


def _sensitivity(model, shape, rng) -> float:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = lambda X: session.run(None, {"x": X.astype(np.float32)})[0].astype(float)  # noqa: E731
    x, d = rng.standard_normal(shape), math.prod(shape)
    V, _ = np.linalg.qr(rng.standard_normal((d, 24)))
    best = 0.0
    for _ in range(3):  # a randomised subspace, then the directions its answer points to
        E = 1e-2 * V.T.reshape(-1, *shape)
        J = (run(x + E) - run(x - E)) / 2e-2
        best = max(best, float(np.linalg.norm(J, 2)))
        x = x + 0.5 * (V @ np.linalg.svd(J)[0][:, 0]).reshape(shape)
    return best


FINITE = [nets.mlp, nets.vgg, nets.resnet, nets.resnet50, nets.densenet, nets.mobilenet_v2, nets.convnext, nets.vit, nets.swin]


@pytest.mark.slow
@pytest.mark.parametrize("manner", ["dynamo", "torchscript", "ort"])
@pytest.mark.parametrize("make", FINITE, ids=lambda m: m.__name__)
def test_known_networks_have_a_finite_bound_above_their_slopes(make, manner):
    model = make(Net(manner))
    bound = spectral_bound(Graph(model))
    assert bound.available, bound.reason
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    assert 10**bound.log10_lipschitz >= _sensitivity(model, shape, np.random.default_rng(0))


@pytest.mark.parametrize("make", [nets.vit, nets.swin, nets.convnext], ids=lambda m: m.__name__)
@pytest.mark.slow
def test_exporters_agree_on_the_bound(make):  # 1 %: only the grouping of linear operators differs
    values = [spectral_bound(Graph(make(Net(manner, seed=3)))).log10_lipschitz for manner in ("dynamo", "torchscript")]
    assert values[0] == pytest.approx(values[1], rel=0.01)


def test_gates_have_no_global_bound_but_one_on_a_box():
    graph = Graph(nets.efficientnet(Net()))
    bound = spectral_bound(graph)
    assert not bound.available
    assert "op Mul: the product of two values that vary with the input" in bound.reason
    assert len(bound.factors) > 10  # the layers are shown all the same
    assert spectral_bound(graph, input_range=(0.0, 1.0)).available


def test_folding_batch_normalization_changes_nothing_and_beats_its_own_norm():
    model = nets.vgg(Net(seed=1))
    graph = Graph(model)
    bound, naive = spectral_bound(graph), naive_bounds(graph)
    assert bound.log10_lipschitz < naive.four_unfoldings < naive.frobenius
    assert any(f.op == "Conv+BatchNormalization" for f in bound.factors)


def test_constant_scales_and_consecutive_layers_are_one_operator():
    rng = np.random.default_rng(0)
    A, B, s = rng.standard_normal((4, 6)), rng.standard_normal((6, 3)), rng.standard_normal(6)
    nodes = [
        node("MatMul", ["x", "A"], "a"),
        node("Mul", ["a", "s"], "b"),
        node("Add", ["b", "s"], "c"),
        node("MatMul", ["c", "B"]),
    ]
    bound = bound_of(nodes, {"A": A, "B": B, "s": s})
    assert 10**bound.log10_lipschitz == pytest.approx(np.linalg.norm(A @ np.diag(s) @ B, 2), rel=1e-5)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("Add", ["x", "x"])], 2.0),
        ([node("Mul", ["x", "a"], "b"), node("Add", ["x", "b"])], 0.25),
        ([node("Sub", ["x", "x"])], 0.0),
        ([node("Neg", ["x"], "b"), node("Add", ["b", "x"], "c"), node("Add", ["c", "x"])], 1.0),
    ],
)
def test_sums_of_a_value_with_itself_are_combined(nodes, expected):
    bound = bound_of(nodes, {"a": np.float32(-0.75)})
    got = bound.log10_lipschitz
    assert got == LOG10_ZERO if expected == 0 else 10**got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [6, 40])
def test_linear_skip_is_one_operator(size):  # 15 %: the grid's norm above that of zero padding
    rng = np.random.default_rng(0)
    W = 0.2 * rng.standard_normal((3, 3, 3, 3))
    nodes = [node("Conv", ["x", "W"], "c", pads=[1, 1, 1, 1]), node("Add", ["c", "x"])]
    bound = bound_of(nodes, {"W": W}, shape=("N", 3, size, size))
    whole = W.copy()
    whole[range(3), range(3), 1, 1] += 1
    direct = bound_of([node("Conv", ["x", "W"], pads=[1, 1, 1, 1])], {"W": whole}, shape=("N", 3, size, size))
    assert bound.log10_lipschitz == pytest.approx(direct.log10_lipschitz, abs=1e-6)
    apart = bound_of([node("Conv", ["x", "W"], pads=[1, 1, 1, 1])], {"W": W}, shape=("N", 3, size, size))
    assert 10**bound.log10_lipschitz < 1 + 10**apart.log10_lipschitz


@pytest.mark.slow
@pytest.mark.parametrize("n", [9, 16, 24])
def test_padded_convolution_is_within_15_percent(n):
    rng = np.random.default_rng(n)
    for _ in range(5):
        W = rng.standard_normal((3, 2, 3, 3))
        from onnxfim.spectral.linear import Convolution
        from onnxfim.spectral.norms import ConvGeometry

        geometry = ConvGeometry((1, 1), (1, 1), (1, 1), ((n, n), (n, n)))
        conv = Convolution((), (1, 2, n, n), (1, 3, n, n), W, geometry, 1)
        dense = np.linalg.norm(conv.apply(np.eye(2 * n * n).reshape(-1, 1, 2, n, n)).reshape(2 * n * n, -1), 2)
        assert dense <= conv.norm.value <= 1.15 * dense


def test_dense_concatenation_is_exactly_the_root_of_one_plus_the_square():
    W = 3 * np.eye(4)
    nodes = [node("MatMul", ["x", "W"], "h"), node("Relu", ["h"], "r"), node("Concat", ["x", "r"], axis=1)]
    assert 10 ** bound_of(nodes, {"W": W}).log10_lipschitz == pytest.approx(math.sqrt(10), rel=1e-6)


def test_a_deep_network_does_not_overflow():
    nodes, weights, x = [], {}, "x"
    for k in range(200):
        weights[f"W{k}"] = 1e6 * np.eye(4)
        nodes += [node("MatMul", [x, f"W{k}"], f"h{k}"), node("Relu", [f"h{k}"], f"r{k}")]
        x = f"r{k}"
    bound = bound_of([*nodes, node("Add", [x, x])], weights)
    assert bound.log10_lipschitz == pytest.approx(1200 + math.log10(2), abs=1e-3)
    assert math.isfinite(bound.log10_fisher)


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("op", ["Relu", "Add", "Sub", "MatMul", "Identity"])
def test_ten_thousand_nodes_end(op):
    nodes, x = [], "x"
    for k in range(10_000):
        second = {"Add": [x], "Sub": [x], "MatMul": ["W"]}.get(op, [])
        nodes.append(node(op, [x, *second], f"v{k}"))
        x = f"v{k}"
    bound = bound_of(nodes, {"W": np.eye(4)}, output="v9999")
    assert bound.available


def test_zero_weights_give_a_finite_number_in_json():
    bound = bound_of([node("MatMul", ["x", "W"])], {"W": np.zeros((4, 2))})
    assert bound.available
    assert bound.log10_lipschitz == bound.log10_fisher == LOG10_ZERO
    json.dumps(bound.to_json(), allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("op", ["MatMul", "Conv", "Mul"])
def test_weights_that_are_not_finite_are_named(op, value):
    W = np.ones((4, 4, 1) if op == "Conv" else (4, 4) if op == "MatMul" else 4)
    W.flat[1] = value
    bound = bound_of([node(op, ["x", "W"])], {"W": W}, shape=("N", 4, 5) if op == "Conv" else ("N", 4))
    assert not bound.available
    assert "node 'n-y'" in bound.reason
    assert "infinite or NaN values were found" in bound.reason


def test_subgraphs_functions_and_unknown_operators_are_named():
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, None)])
    choose = helper.make_node("If", ["c"], ["h"], name="choice", then_branch=branch, else_branch=branch)
    above = [node("ReduceMax", ["x"], "m", keepdims=0), node("Greater", ["m", "k"], "c")]
    bound = bound_of([*above, choose, node("Relu", ["h"])], {"k": np.array(0.5)})
    assert not bound.available
    assert bound.reason == "node 'n-c', op Greater: jumps, so it has no Lipschitz constant"  # what decides the branch comes first
    assert bound_of([choose, node("Relu", ["h"])], {"c": np.array(True)}).available  # the branch that is taken, twice a slope of 1
    model = model_of(
        [helper.make_node("Mine", ["x"], ["h"], domain="local", name="call"), node("MatMul", ["h", "W"])], {"W": np.eye(4)}
    )
    model.opset_import.append(helper.make_operatorsetid("local", 1))
    bound = spectral_bound(Graph(model))
    assert bound.reason == "node 'call', op local.Mine: has no rule"
    assert [f.op for f in bound.factors] == ["MatMul"]  # what could be bounded is still shown


@pytest.mark.parametrize(
    ("nodes", "weights", "shape"),
    [
        ([node("Conv", ["x", "W"])], {"W": np.ones((2, 5, 3, 3))}, ("N", 3, 8, 8)),
        ([node("Conv", ["x", "W"], group=3)], {"W": np.ones((4, 1, 3, 3))}, ("N", 3, 8, 8)),
        ([node("MatMul", ["x", "W"])], {"W": np.ones((3, 3, 3, 0))}, ("N", 4)),
        ([node("Transpose", ["x"], perm=[0, 7])], {}, ("N", 4)),
        ([node("BatchNormalization", ["x", "s", "s", "s", "s"])], {"s": -np.ones(4)}, ("N", 4)),
        ([node("Gather", ["x", "s"], axis=9)], {"s": np.array([1])}, ("N", 4)),
    ],
)
def test_malformed_nodes_never_crash_or_pass(nodes, weights, shape):
    bound = bound_of(nodes, weights, shape=shape)
    assert not bound.available
    assert "n-y" in bound.reason


def test_whole_number_inputs_have_no_bound():
    bound = spectral_bound(Graph(nets.bert(Net())))
    assert not bound.available
    assert "whole numbers have no derivative" in bound.reason


def test_inputs_and_outputs_are_checked_by_name():
    graph = Graph(model_of([node("Relu", ["x"])]))
    with pytest.raises(ModelError, match="has no input 'z'; its inputs are 'x'"):
        spectral_bound(graph, input_name="z")
    with pytest.raises(ModelError, match="has no output 'q'; its outputs are 'y'"):
        spectral_bound(graph, output_name="q")


def test_final_softmax_is_left_out():
    nodes = [node("MatMul", ["x", "W"], "z"), node("Softmax", ["z"], "p"), node("Identity", ["p"])]
    graph = Graph(model_of(nodes, {"W": 4 * np.eye(4)}))
    assert 10 ** spectral_bound(graph).log10_lipschitz == pytest.approx(4, rel=1e-6)
    assert 10 ** spectral_bound(graph, logits=False).log10_lipschitz == pytest.approx(2, rel=1e-6)
    assert "The logits are 'z'" in " ".join(spectral_bound(graph).assumptions)


def test_weights_stored_as_int8_are_folded():
    weights = {"q": np.full((4, 4), 3, np.int8), "s": np.float32(0.5), "z": np.int8(1)}
    bound = bound_of([node("DequantizeLinear", ["q", "s", "z"], "W"), node("MatMul", ["x", "W"])], weights)
    assert 10**bound.log10_lipschitz == pytest.approx(4, rel=1e-6)


def test_json_round_trip_and_damage():
    bound = spectral_bound(Graph(nets.resnet(Net())))
    assert Bound.from_json(json.loads(json.dumps(bound.to_json(), allow_nan=False))) == bound
    with pytest.raises(OutputError, match="cannot be read back"):
        Bound.from_json({"available": True})


def test_closed_forms_are_in_alphabetical_order_and_ordered_as_they_must_be():
    forms = {f.family: f.log10_lipschitz for f in closed_forms(spectral_bound(Graph(nets.vgg(Net()))))}
    assert list(forms) == sorted(forms)
    assert forms["vgg"] < forms["densenet"]
    assert forms["vgg"] < forms["resnet"]
    assert forms["transformer"] is None
    assert closed_forms(spectral_bound(Graph(nets.vit(Net()))))[2].log10_lipschitz > 0


def test_progress_is_told_layer_by_layer():
    seen = []
    spectral_bound(Graph(nets.vgg(Net())), progress=lambda done, total, name: seen.append((done, total)))
    assert len(seen) >= 9
    assert all(d <= t for d, t in seen)


def test_a_rule_without_the_memory_it_needs_gives_no_bound_and_the_reason(monkeypatch):
    def greedy(ctx, node):
        raise MemoryError

    monkeypatch.setitem(compose.RULES, "Tanh", greedy)
    bound = bound_of([node("Tanh", ["x"])])
    assert not bound.available
    assert "its shapes take more memory than there is" in bound.reason


def test_the_first_cause_is_said():
    """What rounds comes first, whatever the operators behind it say of what they read."""
    weights = {"s": np.float32(0.1), "z": np.uint8(128), "again": np.array([3], np.int64)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="rounding"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="back"),
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("ConstantOfShape", ["n"], ["c"]),
        helper.make_node("Pow", ["d", "c"], ["y"], name="unknown power"),
    ]
    reason = bound_of(nodes, weights).reason
    assert reason.startswith("node 'rounding', op QuantizeLinear: rounds to steps")


def test_the_first_cause_is_said_where_a_normalisation_of_unknown_shape_follows():
    """As static quantisation writes a transformer: the shapes behind its operators are not known."""
    weights = {"s": np.float32(0.1), "z": np.uint8(128), "g": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="rounding"),
        helper.make_node("QLinearAdd", ["q", "s", "z", "q", "s", "z", "s", "z"], ["sum"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["sum", "s", "z"], ["d"], name="back"),
        helper.make_node("LayerNormalization", ["d", "g", "b"], ["y"], name="normalised"),
    ]
    reason = bound_of(nodes, weights).reason
    assert reason.startswith("node 'rounding', op QuantizeLinear: rounds to steps")
