"""Random graphs for recurrent operators, control flow and sequences of tensors."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.gradients.cases import Case, Rng, ints, pick
from tests.support.gradient_nets import Net

CASES: list[Case] = []
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
#: Activation functions by name, with how many of alpha and beta each takes.
SMOOTH = {"Tanh": (0, 0), "Sigmoid": (0, 0), "Affine": (1, 1), "ScaledTanh": (1, 1), "Softplus": (0, 0)}

#: Of gates: with others, values grow beyond what differences can follow.
BOUNDED = ["Tanh", "Sigmoid", "ScaledTanh"]


def case(*ops: str, repeats: int = 2):
    def register(make):
        CASES.append(Case(ops, make.__name__, make, repeats))
        return make

    return register


def recurrent(rng: Rng, op: str, net: Net, x: str, hidden: int, **attributes) -> list[str]:
    """A node with the optional inputs that chance leaves; ``x`` is (time, batch, features). The first two outputs are read."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    features = net.shape[-1]

    def weight(*shape):
        return 0.5 * rng.standard_normal((directions, *shape))

    wide = GATES[op] * hidden
    inputs = [x, weight(wide, features), weight(wide, hidden)]
    inputs.append(weight(2 * wide) if rng.random() < 0.7 else "")
    lengths = rng.random()
    time = net.shape[0]
    if lengths < 0.25:  # of every sequence, from its shape
        batch = net.op("Shape", x, start=1, end=2)
        inputs.append(net.op("Expand", np.asarray([int(rng.integers(1, time + 1))], np.int32), batch))
    elif lengths < 0.5 and time > 1:  # of each, from its values
        first = net.op("Slice", "x", np.asarray([0, 0]), np.asarray([1, 1]), np.asarray([1, 2]))
        above = net.op("Cast", net.op("Greater", net.op("Squeeze", first, np.asarray([1, 2])), np.float32(0)), to=TensorProto.INT32)
        inputs.append(net.op("Sub", np.asarray([time], np.int32), above))
    else:
        inputs.append("")
    for _ in range(2 if op == "LSTM" else 1):
        inputs.append(_initial(rng, net, x, directions, hidden))
    if op == "LSTM" and rng.random() < 0.4:
        inputs.append(weight(3 * hidden))
    while isinstance(inputs[-1], str) and not inputs[-1]:
        inputs.pop()
    return net.ops(op, *inputs, outputs=3 if op == "LSTM" else 2, hidden_size=hidden, **attributes)


def _initial(rng: Rng, net: Net, x: str, directions: int, hidden: int):
    """An initial state: none, zeros or a constant of the batch's size, or one that varies with x."""
    kind = int(rng.integers(4))
    if kind == 0:
        return ""
    if kind == 3:
        last = net.op("Slice", x, np.asarray([0]), np.asarray([1]), np.asarray([0]))
        w = 0.5 * rng.standard_normal((directions, net.shape[-1], hidden))
        return net.op("MatMul", last, w)
    batch = net.op("Shape", x, start=1, end=2)
    shape = net.op("Concat", np.asarray([directions]), batch, np.asarray([hidden]), axis=0)
    value = np.float32(0) if kind == 1 else (0.5 * rng.standard_normal((directions, 1, hidden))).astype(np.float32)
    return net.op("Expand", value, shape)


def drawn(rng: Rng, op: str) -> tuple[Net, str]:
    """Any smooth form of a recurrent operator, some of its outputs joined; forms with kinks are tested in float64."""
    direction = str(pick(rng, ["forward", "reverse", "bidirectional"]))
    directions = 2 if direction == "bidirectional" else 1
    time, features, hidden = ints(rng, 1, 5, 3)
    net = Net((time, features), opset=int(pick(rng, [15, 18, 22])))
    attributes: dict = {"direction": direction}
    if op == "GRU" and rng.random() < 0.5:
        attributes["linear_before_reset"] = 1
    if op == "LSTM" and rng.random() < 0.25:
        attributes["input_forget"] = 1
    if rng.random() < 0.4:
        count = {"RNN": 1, "GRU": 2, "LSTM": 3}[op]
        names = [str(pick(rng, list(SMOOTH) if k % count else BOUNDED)) for k in range(count * directions)]
        attributes["activations"] = names
        for place, what in enumerate(("activation_alpha", "activation_beta")):
            values = [float(rng.uniform(0.3, 0.6)) for n in names if SMOOTH[n][place]]
            if values:
                attributes[what] = values
    x = net.op("Transpose", "x", perm=[1, 0, 2])
    outputs = recurrent(rng, op, net, x, hidden, **attributes)
    kept = [bool(k) for k in rng.integers(2, size=len(outputs))]
    kept[int(rng.integers(len(kept)))] = True
    last = max(k for k, keep in enumerate(kept) if keep) + 1
    node = net.nodes[-1]
    del node.output[:]
    node.output.extend(o if keep else "" for o, keep in zip(outputs[:last], kept, strict=False))
    flat = [
        net.op("Flatten", net.op("Transpose", o, perm=[1, 0, 2] if k else [2, 0, 1, 3])) for k, o in enumerate(outputs) if kept[k]
    ]
    return net, net.op("Concat", *flat, axis=1) if len(flat) > 1 else flat[0]


@case("LSTM", repeats=40)
def lstm(rng: Rng) -> tuple[Net, str]:
    return drawn(rng, "LSTM")


@case("GRU", repeats=40)
def gru(rng: Rng) -> tuple[Net, str]:
    return drawn(rng, "GRU")


@case("RNN", repeats=30)
def rnn(rng: Rng) -> tuple[Net, str]:
    return drawn(rng, "RNN")


# control flow


def _float(name: str, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape) or None)


def _graph(nodes, inputs, outputs, weights=()):
    """A subgraph; inputs and outputs by name, or as they are declared."""
    said = [i if isinstance(i, onnx.ValueInfoProto) else helper.make_tensor_value_info(i, TensorProto.FLOAT, None) for i in inputs]
    made = [onnx.ValueInfoProto(name=o) for o in outputs]
    return helper.make_graph(nodes, "body", said, made, [numpy_helper.from_array(v, n) for n, v in weights])


_node = helper.make_node
_TURN = [helper.make_tensor_value_info("turn", TensorProto.INT64, []), helper.make_tensor_value_info("going", TensorProto.BOOL, [])]


@case("If", repeats=12)
def branches(rng: Rng) -> tuple[Net, str]:
    """A condition that is a constant or follows from shapes; what is captured, nested or handed on."""
    net = Net((3, 4), opset=int(pick(rng, [13, 18, 21])))
    outer = net.op("Tanh", "x")
    inner = _graph([_node("Mul", [outer, "k"], ["b"])], [], ["b"], [("k", np.float32(rng.uniform(0.5, 2)))])
    then = _graph(
        [_node("Sigmoid", ["x"], ["a"]), _node("If", ["inside"], ["i"], then_branch=inner, else_branch=_graph([_node("Identity", [outer], ["b"])], [], ["b"])),
         _node("Add", ["a", "i"], ["s"])],
        [], ["s"], [("inside", np.asarray(bool(rng.integers(2))))],
    )  # fmt: skip
    other = (
        _graph([_node("Neg", [outer], ["s"])], [], ["s"])
        if rng.random() < 0.5
        else _graph([_node("Identity", ["x"], ["s"])], [], ["s"])
    )
    if rng.random() < 0.5:
        size = net.op("Gather", net.op("Shape", "x"), np.asarray(int(rng.integers(1, 3))))
        condition = net.op("Equal", size, np.asarray(int(rng.integers(3, 5))))
    else:
        condition = net.weight(np.asarray(bool(rng.integers(2))))
    return net, net.op("If", condition, then_branch=then, else_branch=other)


@case("Loop", repeats=20)
def turns(rng: Rng) -> tuple[Net, str]:
    """A number of turns, a condition on what is counted, or both; a value carried, what it was, and a nested loop."""
    net = Net((3, 4), opset=int(pick(rng, [13, 18, 21])))
    count = int(rng.integers(1, 5))
    kind = int(rng.integers(4))
    nested = _graph(
        [_node("Mul", ["h", "half"], ["h2"]), _node("Tanh", ["h2"], ["h3"]), _node("Identity", ["going2"], ["still2"])],
        [helper.make_tensor_value_info("turn2", TensorProto.INT64, []), helper.make_tensor_value_info("going2", TensorProto.BOOL, []),
         _float("h")],
        ["still2", "h3"], [("half", np.float32(0.7))],
    )  # fmt: skip
    nodes = [_node("Loop", ["two", "going", "s"], ["deep"], body=nested), _node("MatMul", ["deep", "W"], ["m"]), _node("Add", ["m", "x"], ["s2"]),
             _node("Cast", ["turn"], ["t"], to=1), _node("Mul", ["t", "deep"], ["weighted"]), _node("Add", ["i", "one"], ["i2"])]  # fmt: skip
    nodes.append(_node("Less", ["i2", "most"], ["still"]) if kind in (1, 2) else _node("Identity", ["going"], ["still"]))
    inputs = [*_TURN, _float("s"), helper.make_tensor_value_info("i", TensorProto.INT64, [])]
    weights = [
        ("W", rng.standard_normal((4, 4)).astype(np.float32) / 2),
        ("one", np.asarray(1)),
        ("most", np.asarray(count)),
        ("two", np.asarray(2)),
    ]
    body = _graph(nodes, inputs, ["still", "s2", "i2", "weighted"], weights)
    trips = {
        0: np.asarray(count),
        1: "",
        2: np.asarray(2**62),
        3: net.op("Gather", net.op("Shape", "x"), np.asarray(1)) if kind == 3 else "",
    }[kind]
    condition = pick(rng, ["", "true"]) if kind != 1 else "true"
    condition = net.weight(np.asarray(True)) if condition else ""
    state, _, seen = net.ops("Loop", trips, condition, "x", np.asarray(0), outputs=3, body=body)
    if rng.random() < 0.4:
        return net, state
    return net, net.op("Add", state, net.op("ReduceSum", seen, np.asarray([0]), keepdims=0))


@case("Scan", repeats=20)
def steps(rng: Rng) -> tuple[Net, str]:
    """Any axes and directions of what goes in and comes out; two inputs, one of them fixed; opsets from 9 on."""
    net = Net((3, 4), opset=int(pick(rng, [9, 11, 13, 18, 21])), ir_version=8)
    axis, reverse, out, back = int(pick(rng, [1, 2, -1])), *ints(rng, 0, 1, 2), 0
    out, back = int(pick(rng, [0, 1, 2, -1])), int(rng.integers(2))
    width, length = (4, 3) if axis == 1 else (3, 4)
    nodes = [_node("MatMul", ["s", "W"], ["m"]), _node("Mul", ["part", "factor"], ["p"]), _node("Add", ["m", "p"], ["a"]),
             _node("Tanh", ["a"], ["s2"]), _node("Mul", ["s2", "part"], ["gathered"])]  # fmt: skip
    body = _graph(
        nodes, [_float("s"), _float("part"), _float("factor")], ["s2", "gathered"],
        [("W", rng.standard_normal((width, width)).astype(np.float32) / 2)],
    )  # fmt: skip
    first = net.op("Mul", net.op("Gather", "x", np.asarray(0), axis=axis), np.float32(0.5))
    factors = rng.uniform(0.5, 1.5, (length, 1))
    options: dict = {"scan_input_axes": [axis, 0], "scan_input_directions": [reverse, int(rng.integers(2))]}
    if rng.random() < 0.7:
        options |= {"scan_output_axes": [out], "scan_output_directions": [back]}
    last, gathered = net.ops("Scan", first, "x", factors, outputs=2, body=body, num_scan_inputs=2, **options)
    if "scan_output_axes" not in options:
        out = 0
    if out == 0:
        gathered = net.op("Transpose", gathered, perm=[1, 0, 2])
    return net, net.op("Concat", net.op("Flatten", gathered), last, axis=1)


@case("SplitToSequence", "SequenceAt", "SequenceInsert", "SequenceErase", "SequenceLength", "ConcatFromSequence", repeats=15)
def sequences(rng: Rng) -> tuple[Net, str]:
    """A value taken apart, entries exchanged, and put together again."""
    net = Net((6, 4), opset=int(pick(rng, [13, 18])))
    split = [np.asarray(2), np.asarray([2, 2, 2]), "", None][int(rng.integers(4))]
    if split is None:
        parts = net.op("SplitToSequence", "x", axis=1, keepdims=0)
    else:
        parts = net.op("SplitToSequence", "x", *([split] if not isinstance(split, str) else []), axis=1)
    taken = net.op("SequenceAt", parts, np.asarray(int(rng.integers(-2, 2))))
    shorter = net.op("SequenceErase", parts, *([np.asarray(1)] if rng.random() < 0.5 else []))
    longer = net.op("SequenceInsert", shorter, net.op("Tanh", taken), *([np.asarray(0)] if rng.random() < 0.5 else []))
    count = net.op("Cast", net.op("SequenceLength", longer), to=TensorProto.FLOAT)
    joined = net.op("ConcatFromSequence", longer, axis=1, new_axis=int(split is None))
    return net, net.op("Mul", net.op("Sin", joined), count)


@case("SequenceEmpty", "SequenceConstruct", "SequenceMap", repeats=6)
def gathered(rng: Rng) -> tuple[Net, str]:
    """A loop that appends to a sequence, and a subgraph for each of its entries."""
    net = Net((3, 4), opset=18)
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    body = _graph(
        [_node("Tanh", ["s"], ["s2"]), _node("SequenceInsert", ["q", "s2"], ["q2"]), _node("Identity", ["going"], ["still"])],
        [*_TURN, _float("s"), helper.make_value_info("q", kind)], ["still", "s2", "q2"],
    )  # fmt: skip
    begun = net.op("SequenceEmpty") if rng.random() < 0.5 else net.op("SequenceConstruct", "x", net.op("Neg", "x"))
    _, found = net.ops("Loop", np.asarray(3), "", "x", begun, outputs=2, body=body)
    each = _graph([_node("Mul", ["e", "f"], ["g"]), _node("Sigmoid", ["g"], ["h"])], [_float("e"), _float("f")], ["h"])
    mapped = net.op("SequenceMap", net.op("Identity", found), rng.uniform(0.5, 1.5, (4,)), body=each)
    return net, net.op("ConcatFromSequence", mapped, axis=-1)
