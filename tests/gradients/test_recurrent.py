"""Recurrent operators with kinks, clips and lengths against a twin in float64; what control flow refuses, and how it says so."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from onnxfim.errors import ModelError, UnsupportedOperator
from onnxfim.gradients import derivative_graph
from tests.support.gradient_nets import Net, check_laws, run, session
from tests.support.recurrent_reference import DEFAULT, WITH_ALPHA, WITH_BETA, recurrent

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
T, N, WIDTH, H = 4, 3, 2, 3
ACTIVATIONS = ["Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign", "Softplus"]


def drawn(op: str, seed: int, *, layout: int = 0):
    """A model of one recurrent node with its outputs joined, (N, K), and the same as a function in float64."""
    rng = np.random.default_rng([seed, len(op)])
    direction = ["forward", "reverse", "bidirectional"][seed % 3]
    D = 2 if direction == "bidirectional" else 1
    attributes = {"direction": direction, "hidden_size": H}
    if layout:
        attributes["layout"] = 1
    if seed % 2:
        attributes["clip"] = float(rng.uniform(0.2, 0.8))
    if op == "GRU":
        attributes["linear_before_reset"] = int(rng.integers(2))
    if op == "LSTM":
        attributes["input_forget"] = int(rng.integers(2))
    if seed % 5:
        names = [str(n) for n in rng.choice(ACTIVATIONS, len(DEFAULT[op]) * D)]
        attributes["activations"] = names
        for key, takers in (("activation_alpha", WITH_ALPHA), ("activation_beta", WITH_BETA)):
            values = [float(v) for v in rng.uniform(0.2, 0.6, sum(n in takers for n in names))]
            attributes[key] = values[: len(values) - int(rng.integers(2))] or [0.3]
    weights = {"W": (D, GATES[op] * H, WIDTH), "R": (D, GATES[op] * H, H), "B": (D, 2 * GATES[op] * H), "h1": (D, 1, H), "c1": (D, 1, H),
               "P": (D, 3 * H)}  # fmt: skip
    values = {k: (0.6 * rng.standard_normal(s)).astype(np.float32) for k, s in weights.items()}
    if layout:
        values |= {k: np.ascontiguousarray(values[k].transpose(1, 0, 2)) for k in ("h1", "c1")}
    has = {"B": rng.random() < 0.7, "l": rng.random() < 0.5, "h": rng.random() < 0.6, "c": op == "LSTM" and rng.random() < 0.6,
           "P": op == "LSTM" and rng.random() < 0.5}  # fmt: skip
    names = ["t", "W", "R", *(k if has[k] else "" for k in ("B", "l", "h", "c", "P"))]
    while not names[-1]:
        names.pop()
    count = 3 if op == "LSTM" else 2
    outputs = ["Y", "Yh", "Yc"][:count]
    values |= {"first": np.asarray([D]), "one": np.asarray([1]), "corner": np.asarray([0, 0]), "ends": np.asarray([2, 1]),
               "axes": np.asarray([1, 2]), "zero": np.float32(0), "all": np.asarray([T], np.int32)}  # fmt: skip
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 2] if layout else [1, 0, 2]),
             helper.make_node("Shape", ["x"], ["batch"], end=1),  # states that are the same in every row of any batch
             helper.make_node("Concat", ["batch", "first", "one"] if layout else ["first", "batch", "one"], ["wide"], axis=0),
             helper.make_node("Expand", ["h1", "wide"], ["h"]), helper.make_node("Expand", ["c1", "wide"], ["c"]),
             # lengths: all steps, less one or two where the first entries are above zero
             helper.make_node("Greater", ["x", "zero"], ["above"]), helper.make_node("Cast", ["above"], ["counted"], to=TensorProto.INT32),
             helper.make_node("Slice", ["counted", "corner", "ends", "axes"], ["some"]),
             helper.make_node("ReduceSum", ["some", "axes"], ["less"], keepdims=0), helper.make_node("Sub", ["all", "less"], ["l"]),
             helper.make_node(op, names, outputs, **attributes)]  # fmt: skip
    for k, o in enumerate(outputs):
        perm = ([0, 1, 2] if k else [0, 1, 2, 3]) if layout else ([1, 0, 2] if k else [2, 0, 1, 3])
        nodes += [helper.make_node("Transpose", [o], [f"{o}t"], perm=perm), helper.make_node("Flatten", [f"{o}t"], [f"{o}f"])]
    nodes.append(helper.make_node("Concat", [f"{o}f" for o in outputs], ["y"], axis=1))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net", [info("x", TensorProto.FLOAT, ["N", T, WIDTH])], [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    given = {k: values[k] for k in "BP" if has[k]}

    def twin(x: np.ndarray) -> np.ndarray:
        axis = 0 if layout else 1
        for key, name in (("h0", "h"), ("c0", "c")):
            if has[name]:
                given[key] = np.repeat(values[f"{name}1"], N, axis=axis)
        if has["l"]:
            given["lens"] = T - (x[:, :2, 0] > 0).sum(1)
        found = recurrent(op, x if layout else x.transpose(1, 0, 2), values["W"], values["R"], **given, **attributes)[:count]
        if not layout:
            found = [f.transpose(1, 0, 2) if k else f.transpose(2, 0, 1, 3) for k, f in enumerate(found)]
        return np.concatenate([f.reshape(N, -1) for f in found], axis=1)

    return model, twin, rng.standard_normal((N, T, WIDTH)).astype(np.float32), rng


def slopes(twin, x, v, step=1e-6):
    return (twin(x + step * v) - twin(x - step * v)) / (2 * step)


def checked(model, twin, x, rng):
    """Outputs, Jv and Jᵀu against the twin; 2e-4: float32 sums over the steps of a net of few units."""
    v, u = rng.standard_normal((1, *x.shape)), rng.standard_normal((1, *twin(x).shape))
    options = {"input_name": "x", "output_name": "y"}
    z, w = run(derivative_graph(model, kind="jvp", **options), {"x": x, "v": v.astype(np.float32)}, ["z", "w"])
    g = run(derivative_graph(model, kind="vjp", **options), {"x": x, "u": u.astype(np.float32)}, ["g"])[0]
    want = slopes(twin, x.astype(np.float64), v[0])
    assert_allclose(z, twin(x), atol=2e-5 * max(1.0, np.abs(z).max()))
    assert_allclose(w[0], want, atol=2e-4 * np.abs(want).max() + 1e-6)
    assert_allclose(
        (g * v).reshape(N, -1).sum(1), (u[0] * want).sum(1), atol=2e-4 * (np.abs(u[0]) * np.abs(want)).sum(1).max() + 1e-6
    )


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_every_form_is_that_of_the_definition_in_float64(op, seed):
    model, twin, x, rng = drawn(op, seed)
    assert_allclose(session(model).run(None, {"x": x})[0], twin(x), rtol=1e-4, atol=2e-5)  # the twin is the runtime's operator
    checked(model, twin, x, rng)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_a_batch_in_front_is_that_of_the_definition_too(op, seed):
    """ONNX Runtime runs no such node; what is written out in its place it does."""
    checked(*drawn(op, seed, layout=1))


# what stays, and what is said of it


def _body(nodes, inputs, outputs, weights=()):
    made = [onnx.ValueInfoProto(name=o) for o in outputs]
    kinds = {"turn": (TensorProto.INT64, []), "going": (TensorProto.BOOL, [])}
    said = [helper.make_tensor_value_info(i, *kinds.get(i, (TensorProto.FLOAT, None))) for i in inputs]
    return helper.make_graph(nodes, "body", said, made, [numpy_helper.from_array(v, n) for n, v in weights])


def _turn(op="Identity", read="going"):
    nodes = [helper.make_node("Tanh", ["s"], ["s2"]), helper.make_node(op, [read], ["still"])]
    return _body(nodes, ["turn", "going", "s"], ["still", "s2"])


def _derived(net: Net, output: str, kind: str = "vjp"):
    return derivative_graph(net.model(output), input_name="x", output_name=output, kind=kind)


def test_a_number_of_turns_that_depends_on_values_is_refused_with_the_reason():
    net = Net((3,))
    count = net.op("Cast", net.op("ReduceMax", "x", keepdims=0), to=TensorProto.INT64)
    output = net.op("Loop", count, "", "x", body=_turn())
    with pytest.raises(UnsupportedOperator, match=r"Loop.*how many turns it takes is not known before the model runs"):
        _derived(net, output)


def test_a_condition_that_depends_on_values_is_refused_with_the_turn():
    body = _turn()
    nodes = [helper.make_node("Tanh", ["s"], ["s2"]), helper.make_node("ReduceMax", ["s2"], ["m"], keepdims=0),
             helper.make_node("Greater", ["m", "k"], ["still"])]  # fmt: skip
    body = _body(nodes, ["turn", "going", "s"], ["still", "s2"], [("k", np.float32(0.5))])
    net = Net((3,))
    output = net.op("Loop", np.asarray(5), np.asarray(True), "x", body=body)
    with pytest.raises(UnsupportedOperator, match=r"whether a turn follows turn 1 is not known before the model runs"):
        _derived(net, output)


def test_turns_that_depend_on_the_batch_are_refused():
    net = Net((3,))
    output = net.op("Loop", net.op("Gather", net.op("Shape", "x"), np.asarray(0)), "", "x", body=_turn())
    with pytest.raises(ModelError, match=r"a number of turns depends on it, and it depends on the batch size"):
        _derived(net, output)


def test_a_sequence_of_too_many_steps_is_refused_with_its_size():
    net = Net((9000, 2))
    x = net.op("Transpose", "x", perm=[1, 0, 2])
    y = net.ops("LSTM", x, np.ones((1, 4, 2)), np.ones((1, 4, 1)), outputs=2, hidden_size=1)[1]
    with pytest.raises(UnsupportedOperator, match=r"9,000 steps take about [\d,]+ nodes, over the [\d,]+ that are written"):
        _derived(net, net.op("Squeeze", y, np.asarray([0])))


def test_a_loop_of_too_many_turns_is_refused_with_its_size():
    net = Net((3,))
    output = net.op("Loop", np.asarray(10**6), "", "x", body=_turn())
    with pytest.raises(UnsupportedOperator, match=r"1,000,000 turns take about 2,000,000 nodes, over the [\d,]+"):
        _derived(net, output)


def test_a_function_may_hold_a_branch_and_give_it_its_attributes():
    """The branch captures the function's input, and a node in it takes the call's alpha."""
    net = Net((3,), opset=18)
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    alpha = leaky.attribute.add()
    alpha.name, alpha.ref_attr_name, alpha.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    branches = {"then_branch": _body([leaky], [], ["b"]), "else_branch": _body([helper.make_node("Neg", ["a"], ["b"])], [], ["b"])}
    nodes = [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.asarray(True))),
             helper.make_node("If", ["c"], ["out"], **branches)]  # fmt: skip
    function = helper.make_function("own", "F", ["a"], ["out"], nodes, [helper.make_opsetid("", 16)], ["slope"])
    output = net.op("F", "x", domain="own", slope=0.25)
    model = net.model(output)
    model.functions.append(function)
    x = np.asarray([[-2.0, 1.0, -3.0]], np.float32)
    got = derivative_graph(model, input_name="x", output_name=output, kind="jvp")
    z, w = run(got, {"x": x, "v": np.ones((1, 1, 3), np.float32)}, ["z", "w"])
    assert_allclose(z, session(model).run(None, {"x": x})[0])
    assert_allclose(w[0], [[0.25, 1.0, 0.25]])


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_a_batch_that_the_file_fixes_with_its_zero_states_is_freed(op):
    rng = np.random.default_rng(0)
    net = Net((T, WIDTH), batch=8)
    states = [np.zeros((1, 8, H))] * (2 if op == "LSTM" else 1)
    x = net.op("Transpose", "x", perm=[1, 0, 2])
    weights = [rng.standard_normal((1, GATES[op] * H, w)) for w in (WIDTH, H)]
    y = net.op("Squeeze", net.ops(op, x, *weights, "", "", *states, outputs=2, hidden_size=H)[1], np.asarray([0]))
    rows = rng.standard_normal((8, T, WIDTH)).astype(np.float32)
    z = run(_derived(net, y), {"x": rows[:3], "u": np.ones((1, 3, H), np.float32)}, ["z"])[0]
    assert_allclose(z, session(net.model(y)).run(None, {"x": rows})[0][:3], atol=1e-6)


def test_a_loop_that_begins_with_zeros_for_a_fixed_batch_is_freed():
    """As Keras writes a recurrent layer: the state is a constant of the batch's size, carried from turn to turn."""
    rng = np.random.default_rng(1)
    net = Net((T, WIDTH), batch=8)
    x = net.op("Transpose", "x", perm=[1, 0, 2])
    nodes = [helper.make_node("Gather", [x, "turn"], ["part"], axis=0), helper.make_node("MatMul", ["part", "W"], ["wx"]),
             helper.make_node("MatMul", ["s", "R"], ["rs"]), helper.make_node("Add", ["wx", "rs"], ["sum"]),
             helper.make_node("Sigmoid", ["sum"], ["z"]), helper.make_node("Mul", ["z", "s"], ["kept"]),
             helper.make_node("Tanh", ["sum"], ["new"]), helper.make_node("Add", ["kept", "new"], ["s2"]),
             helper.make_node("Identity", ["going"], ["still"])]  # fmt: skip
    weights = [("W", rng.standard_normal((WIDTH, H)).astype(np.float32)), ("R", rng.standard_normal((H, H)).astype(np.float32))]
    body = _body(nodes, ["turn", "going", "s"], ["still", "s2", "kept"], weights)
    y = net.ops("Loop", np.asarray(T), "", np.zeros((8, H)), outputs=2, body=body)[0]
    rows = rng.standard_normal((8, T, WIDTH)).astype(np.float32)
    z = run(_derived(net, y), {"x": rows[:3], "u": np.ones((1, 3, H), np.float32)}, ["z"])[0]
    assert_allclose(z, session(net.model(y)).run(None, {"x": rows})[0][:3], atol=1e-6)


@pytest.mark.parametrize("op", ["Loop", "Scan", "If"])
def test_weights_that_only_a_body_reads_are_there(op):
    """PyTorch and Keras leave the weights of a loop's body in the graph around it."""
    rng = np.random.default_rng(2)
    net = Net((T, H))
    R = net.weight(rng.normal(0, 0.4, (H, H)))
    x = net.op("Transpose", "x", perm=[1, 0, 2])
    first = net.op("Gather", x, np.asarray(0), axis=0)
    if op == "Loop":
        nodes = [helper.make_node("MatMul", ["s", R], ["m"]), helper.make_node("Tanh", ["m"], ["s2"]),
                 helper.make_node("Identity", ["going"], ["still"])]  # fmt: skip
        y = net.op("Loop", np.asarray(T), "", first, body=_body(nodes, ["turn", "going", "s"], ["still", "s2"]))
    elif op == "Scan":
        nodes = [helper.make_node("MatMul", ["s", R], ["m"]), helper.make_node("Add", ["m", "part"], ["a"]),
                 helper.make_node("Tanh", ["a"], ["s2"])]  # fmt: skip
        y = net.op("Scan", first, x, body=_body(nodes, ["s", "part"], ["s2"]), num_scan_inputs=1)
    else:
        then, other = (
            _body([helper.make_node(o, [first, R][: 2 if o == "MatMul" else 1], ["b"])], [], ["b"]) for o in ("MatMul", "Neg")
        )
        y = net.op("Tanh", net.op("If", np.asarray(True), then_branch=then, else_branch=other))
    check_laws(net, y, rng)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_a_fixed_batch_with_a_length_for_each_row_is_freed(op, batch):
    rng = np.random.default_rng(3)
    net = Net((T, WIDTH), batch=batch)
    x = net.op("Transpose", "x", perm=[1, 0, 2])
    lengths = net.op("Cast", net.op("Add", net.op("Sign", net.op("ReduceSum", "x", np.asarray([1, 2]), keepdims=0)), np.float32(2)),
                     to=TensorProto.INT32)  # fmt: skip
    weights = [rng.standard_normal((1, GATES[op] * H, w)) for w in (WIDTH, H)]
    y = net.op("Squeeze", net.ops(op, x, *weights, "", lengths, outputs=2, hidden_size=H)[1], np.asarray([0]))
    rows = rng.standard_normal((8, T, WIDTH)).astype(np.float32)
    z = run(_derived(net, y), {"x": rows, "u": np.ones((1, 8, H), np.float32)}, ["z"])[0]
    own = session(net.model(y))
    want = np.concatenate([own.run(None, {"x": rows[i : i + batch]})[0] for i in range(0, 8, batch)])
    assert_allclose(z, want, atol=1e-6)
