"""Files that are right in form and odd in what they compute: random graphs of one type, and edits of small nets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.families import _odd
from tests.fuzz.families._bases import Base, command, pick
from tests.fuzz.families._odd import one
from tests.fuzz.harness import Case

Rng: TypeAlias = np.random.Generator
Model: TypeAlias = onnx.ModelProto

_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}


def case(rng: Rng, folder: Path) -> Case:
    """Half are random graphs, half are edited nets."""
    if rng.random() < 0.5:
        base, note = _random_graph(rng)
    else:
        base = pick(rng, of_real=0.1)
        proto, notes = base.proto(), []
        for _ in range(int(rng.choice([1, 1, 2, 3]))):
            edit = one(rng, _EDITS)
            try:
                notes.append(f"{edit.__name__.strip('_')} {edit(rng, proto) or ''}"[:120])
            except IndexError:
                notes.append(f"{edit.__name__.strip('_')}, nothing there")
        note = "; ".join(notes)
        base = Base(base.name, proto.SerializeToString(), base.shape, base.dtype)
    (folder / "m.onnx").write_bytes(base.content)
    return command(rng, folder, base, note=f"{base.name}: {note}")


# random graphs

_UNARY = (
    "Relu", "Tanh", "Sigmoid", "Abs", "Exp", "Log", "Sqrt", "Neg", "Identity", "Erf", "Softplus", "Elu", "LeakyRelu", "HardSigmoid", "HardSwish", "Reciprocal",
    "Sign", "Floor", "Round", "Sin", "Cos", "Selu", "Celu", "ThresholdedRelu", "Softsign", "Ceil", "Atan", "Asinh",
)  # fmt: skip
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Mean", "PRelu")


class _Writer:
    """A graph being written; values of one floating type, each of a known shape at a batch of unknown size."""

    def __init__(self, rng: Rng, shape: tuple[int, ...], dtype: str) -> None:
        self.rng, self.dtype, self.nodes, self.weights = rng, dtype, list[onnx.NodeProto](), list[onnx.TensorProto]()
        self.values: list[tuple[str, tuple[int, ...]]] = [("x", shape)]

    def weight(self, shape: Sequence[int], value: Any = None) -> str:
        if value is None:
            value = self.rng.standard_normal(tuple(shape)).astype(self.dtype)
            odd = self.rng.random()
            if odd < 0.06:
                value = np.full_like(value, one(self.rng, _odd.REALS))
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def write(self, op: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{op}_{len(self.nodes)}", **attributes))
        self.values.append((name, tuple(shape)))

    def step(self) -> None:
        rng = self.rng
        x, shape = self.values[-1] if rng.random() < 0.75 else one(rng, self.values)
        kind = int(rng.integers(15))
        rank = len(shape)
        if kind <= 3:
            self.write(one(rng, _UNARY), [x], shape)
        elif kind <= 5:
            same = [v for v, s in self.values if s == shape]
            other = one(rng, same) if rng.random() < 0.5 else self.weight(shape if rng.random() < 0.5 else (1,) * rank)
            op = one(rng, _BINARY)
            self.write(op, [x, other] if op == "PRelu" or rng.random() < 0.7 else [other, x], shape)
        elif kind == 6 and rank >= 1:
            out = int(rng.integers(1, 5))
            self.write("MatMul", [x, self.weight((shape[-1], out))], (*shape[:-1], out))
        elif kind == 7 and rank == 1:
            out = int(rng.integers(1, 5))
            self.write(
                "Gemm",
                [x, self.weight((out, shape[0])), self.weight((out,))],
                (out,),
                transB=1,
                alpha=float(one(rng, (1.0, 0.5, 0.0, -1.0))),
            )
        elif kind == 7 and rank == 3:
            out, k = int(rng.integers(1, 4)), int(rng.choice([1, 1, 3]))
            self.write("Conv", [x, self.weight((out, shape[0], k, k))], (out, *shape[1:]), pads=[k // 2] * 4)
        elif kind == 8 and rank >= 1:
            axis = int(rng.integers(1, rank + 1))
            keep = int(one(rng, (0, 1, 1, -(1 << 63), 2)))
            left = shape[: axis - 1] + ((1,) if keep else ()) + shape[axis:]
            self.write(
                one(rng, ("ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceMin", "ReduceProd")),
                [x],
                left,
                axes=[axis],
                keepdims=keep,
            )
        elif kind == 9 and rank >= 1:
            order = [0, *(int(a) + 1 for a in rng.permutation(rank))]
            self.write("Transpose", [x], [shape[a - 1] for a in order[1:]], perm=order)
        elif kind == 10 and rank >= 1:
            self.write(one(rng, ("Softmax", "LogSoftmax", "Hardmax")), [x], shape, axis=int(rng.integers(-1, rank + 1)))
        elif kind == 11:
            flat = int(np.prod(shape))
            target = one(rng, [(flat,), (1, flat), (flat, 1), (1,) * 4 + (flat,)])
            self.write("Reshape", [x, self.weight((), np.int64([0, *target]))], target)
        elif kind == 12 and rank >= 1:
            axis, start, end = (
                int(rng.integers(1, rank + 1)),
                int(rng.integers(-3, 3)),
                int(rng.choice([1, 2, 100, -1, (1 << 63) - 1])),
            )
            length = len(range(shape[axis - 1])[slice(start, end)])
            extra = [self.weight((), np.int64([v])) for v in (start, end, axis)]
            self.write("Slice", [x, *extra], [*shape[: axis - 1], length, *shape[axis:]])
        elif kind == 13:
            name = f"c{len(self.nodes)}"
            self.nodes.append(
                helper.make_node(one(rng, ("Greater", "Less")), [x, self.weight((), np.zeros((), self.dtype))], [name])
            )
            self.write("Where", [name, x, self.weight((1,) * len(shape))], shape)
        elif kind == 14 and rank >= 1:
            axis = int(rng.integers(1, rank + 1))
            self.write("Concat", [x, x], [*shape[: axis - 1], 2 * shape[axis - 1], *shape[axis:]], axis=axis)
        else:
            other = one(rng, [t for t in _TYPES if t != self.dtype])
            self.write("Cast", [x], shape, to=_TYPES[other])
            self.write("Cast", [self.values.pop()[0]], shape, to=_TYPES[self.dtype])


def _random_graph(rng: Rng) -> tuple[Base, str]:
    """A chain with branches; its end is made (batch, classes), or left as it is."""
    shape = tuple(int(n) for n in one(rng, [(5,), (3,), (2, 3), (2, 4, 4), (1,), (2, 2, 2, 2), (1, 1, 1, 1, 3)]))
    dtype = str(rng.choice(["float32", "float32", "float32", "float64", "float16"]))
    w = _Writer(rng, shape, dtype)
    for _ in range(int(rng.integers(1, 12))):
        w.step()
    last, final = w.values[-1]
    if rng.random() < 0.85:
        size = int(np.prod(final))
        w.write("Reshape", [last, w.weight((), np.int64([-1, size]))], (size,))
        w.write("MatMul", [w.values[-1][0], w.weight((size, 3))], (3,))
        if rng.random() < 0.4:
            w.write(one(rng, ("Softmax", "LogSoftmax", "Sigmoid")), [w.values[-1][0]], (3,))
        last, final = w.values[-1]
    batch = one(rng, ["N", "N", "N", 1, 2])
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        w.nodes,
        "random",
        [info("x", _TYPES[dtype], [batch, *shape])],
        [info(last, _TYPES[dtype], None if rng.random() < 0.2 else [batch, *final])],
        w.weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return Base("random", made.SerializeToString(), shape, dtype), " ".join(n.op_type for n in w.nodes)[:150]


# edits of nets


def _float_value(rng: Rng, m: Model) -> str:
    """A value on the way from the input."""
    nodes = [n for n in m.graph.node if n.output and n.op_type not in ("Shape", "Gather", "Constant", "QuantizeLinear", "Concat")]
    return one(rng, [m.graph.input[0].name, *(n.output[0] for n in nodes)])


def _spliced(m: Model, value: str, make: Callable[[str, str], Sequence[onnx.NodeProto]]) -> None:
    """Put nodes between a value and all that read it; an output keeps its name."""
    new = f"{value}_new"
    is_output = any(o.name == value for o in m.graph.output)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in m.graph.node]
    if is_output:
        for node in nodes:
            for k, name in enumerate(node.output):
                node.output[k] = new if name == value else name
        extra = make(new, value)
    else:
        for node in nodes:
            for k, name in enumerate(node.input):
                node.input[k] = new if name == value else name
        extra = make(value, new)
    place = next((i + 1 for i, n in enumerate(nodes) if (new if is_output else value) in n.output), 0)
    del m.graph.node[:]
    m.graph.node.extend([*nodes[:place], *extra, *nodes[place:]])


def _insert(rng: Rng, m: Model) -> str:
    value = _float_value(rng, m)
    op, attributes, more = one(rng, [
        ("Identity", {}, ()), ("Cast", {"to": TensorProto.FLOAT}, ()), ("Cast", {"to": TensorProto.DOUBLE}, ()), ("Cast", {"to": TensorProto.INT64}, ()),
        ("ReduceMean", {"axes": [0], "keepdims": 1}, ()), ("ReduceMean", {"axes": [1], "keepdims": -(1 << 63)}, ()), ("ReduceMean", {"keepdims": 0}, ()),
        ("ReduceSum", {"keepdims": -(1 << 63)}, ()), ("Flatten", {"axis": 0}, ()), ("Flatten", {"axis": -1}, ()), ("Dropout", {}, ()), ("Shape", {}, ()),
        ("Size", {}, ()), ("NonZero", {}, ()), ("ArgMax", {"axis": 1}, ()), ("Transpose", {}, ()), ("Squeeze", {}, ()), ("Unsqueeze", {}, (np.int64([0]),)),
        ("Reshape", {}, (np.int64([-1]),)), ("Reshape", {}, (np.int64([0, -1]),)), ("Reshape", {}, (np.int64([]),)), ("Expand", {}, (np.int64([3, 1]),)),
        ("Tile", {}, (np.int64([1, 0]),)), ("Pad", {}, (np.int64([0, 0, 0, 2]),)), ("TopK", {"axis": 1}, (np.int64([1]),)), ("CumSum", {}, (np.int64(1),)),
        ("Softmax", {"axis": 0}, ()), ("Mul", {}, (np.float32(np.nan),)), ("Add", {}, (np.float32(np.inf),)), ("Mul", {}, (np.float32(0),)),
        ("Clip", {}, (np.float32(1), np.float32(-1))), ("Pow", {}, (np.float32(0.5),)), ("Div", {}, (np.float32(0),)), ("Gather", {}, (np.int64([0, -1, 7]),)),
        ("MeanVarianceNormalization", {}, ()), ("LpNormalization", {}, ()), ("Einsum", {"equation": "ij->ji"}, ()), ("Resize", {}, ()), ("Hardmax", {}, ()),
        ("Trilu", {}, ()), ("Compress", {}, (np.bool_([True, False]),)), ("OneHot", {}, (np.int64(3), np.float32([0, 1]))), ("Mod", {"fmod": 1}, (np.float32(2),)),
    ])  # fmt: skip
    names = []
    for k, extra in enumerate(more):
        names.append(f"extra_{len(m.graph.initializer)}_{k}")
        m.graph.initializer.append(numpy_helper.from_array(np.asarray(extra), names[-1]))
    _spliced(m, value, lambda a, b: [helper.make_node(op, [a, *names], [b], **attributes)])
    return f"{op} {attributes or ''} after {value}"


def _swap(rng: Rng, m: Model) -> str:
    """Another operator of as many inputs."""
    node = one(rng, [n for n in m.graph.node if len(n.input) in (1, 2)])
    del node.attribute[:]
    node.op_type = one(rng, _UNARY if len(node.input) == 1 else (*_BINARY, "MatMul", "Gemm", "Mod", "Equal"))
    return node.op_type


def _remove(rng: Rng, m: Model) -> str:
    node = one(rng, [n for n in m.graph.node if n.input and n.output])
    old, new, op = node.output[0], node.input[0], node.op_type
    if any(o.name == old for o in m.graph.output):
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]
        del node.input[1:]
        return f"{op} made an Identity"
    m.graph.node.remove(node)
    for other in m.graph.node:
        for k, name in enumerate(other.input):
            other.input[k] = new if name == old else name
    return op


def _output(rng: Rng, m: Model) -> str:
    """An output that is something else: the input, a weight, an inner value, several."""
    g = m.graph
    how = one(rng, ["input", "weight", "inner", "both", "float after integers"])
    if how == "input":
        g.output[0].CopyFrom(g.input[0])
    elif how == "weight":
        tensor = one(rng, list(g.initializer))
        g.output[0].CopyFrom(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    elif how == "inner":
        g.output[0].name = one(rng, [o for n in g.node for o in n.output])
        g.output[0].type.tensor_type.ClearField("shape")
    elif how == "both":
        g.output.add().CopyFrom(g.input[0])
    else:
        g.node.append(helper.make_node("ArgMax", [g.output[0].name], ["label"], axis=-1))
        g.output.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, None))
    return how


def _input(rng: Rng, m: Model) -> str:
    g = m.graph
    how = one(rng, ["unused float", "unused int", "defaulted", "fixed batch", "no shape", "dynamic", "zero", "weights as inputs"])
    info = helper.make_tensor_value_info
    if how == "unused float":
        g.input.append(info("extra", TensorProto.FLOAT, ["N", 2]))
    elif how == "unused int":
        g.input.insert(0, info("extra", TensorProto.INT64, []))
    elif how == "defaulted":
        g.input.append(info(one(rng, list(g.initializer)).name, TensorProto.FLOAT, None))
    elif how == "weights as inputs":
        g.input.extend(info(t.name, t.data_type, list(t.dims)) for t in g.initializer)
    elif how == "no shape":
        g.input[0].type.tensor_type.ClearField("shape")
    else:
        dims = g.input[0].type.tensor_type.shape.dim
        chosen = dims[0] if how != "dynamic" else one(rng, list(dims))
        chosen.Clear()
        if how != "dynamic":
            chosen.dim_value = {"fixed batch": int(rng.integers(1, 6)), "zero": 0}[how]
    return how


def _values(rng: Rng, m: Model) -> str:
    tensor = one(rng, [t for t in m.graph.initializer if t.data_type == TensorProto.FLOAT])
    value = np.array(numpy_helper.to_array(tensor))
    odd = one(rng, [*_odd.REALS, 1e20, -1e20])
    if rng.random() < 0.5 and value.size:
        value.reshape(-1)[int(rng.integers(value.size))] = odd
    else:
        value = np.full_like(value, odd)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return f"{odd} in {tensor.name}"


def _classes(rng: Rng, m: Model) -> str:
    """The last product with no class, one, or many."""
    stored = {t.name: t for t in m.graph.initializer}
    node = one(rng, [n for n in m.graph.node if n.op_type in ("Gemm", "MatMul") and len(n.input) > 1 and n.input[1] in stored][-1:])
    tensor = stored[node.input[1]]
    value = np.array(numpy_helper.to_array(tensor))
    axis = 0 if any(a.name == "transB" and a.i for a in node.attribute) else value.ndim - 1
    count = one(rng, (0, 1, 2, 50))
    value = (
        np.resize(value, (*value.shape[:axis], count, *value.shape[axis + 1 :]))
        if count
        else np.zeros((*value.shape[:axis], 0, *value.shape[axis + 1 :]), value.dtype)
    )
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    del node.input[2:]
    for output in m.graph.output:
        output.type.tensor_type.ClearField("shape")
    return f"{count} classes"


def _body(rng: Rng, value: str, name: str, kind: str, ops: Sequence[str]) -> onnx.GraphProto:
    info = helper.make_tensor_value_info
    if kind == "If":
        return helper.make_graph(
            [helper.make_node(ops[0], [value], [f"{name}_o"])], name, [], [info(f"{name}_o", TensorProto.FLOAT, None)]
        )
    if kind == "Scan":
        return helper.make_graph(
            [helper.make_node(ops[0], ["s"], ["t"])],
            name,
            [info("s", TensorProto.FLOAT, None)],
            [info("t", TensorProto.FLOAT, None)],
        )
    nodes = [helper.make_node(ops[0], ["s"], ["t"]), helper.make_node("Identity", ["c"], ["d"])]
    ins = [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("s", TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, name, ins, [info("d", TensorProto.BOOL, []), info("t", TensorProto.FLOAT, None)])


def _control(rng: Rng, m: Model) -> str:
    value, kind = _float_value(rng, m), one(rng, ("If", "Loop", "Scan", "If on data"))
    ops = [one(rng, ("Identity", "Relu", "Neg", "Tanh")) for _ in range(2)]
    m.graph.initializer.append(numpy_helper.from_array(np.bool_(rng.random() < 0.5), "yes"))
    m.graph.initializer.append(numpy_helper.from_array(np.int64(one(rng, (0, 1, 3, -1))), "trips"))

    def make(a: str, b: str) -> list[onnx.NodeProto]:
        if kind == "Loop":
            return [
                helper.make_node(
                    "Loop", ["trips", "yes" if rng.random() < 0.7 else "", a], [b], body=_body(rng, a, "body", kind, ops)
                )
            ]
        if kind == "Scan":
            return [helper.make_node("Scan", [a], [b], body=_body(rng, a, "body", kind, ops), num_scan_inputs=1)]
        before: list[onnx.NodeProto] = []
        condition = "yes"
        if kind == "If on data":
            condition = "decided"
            m.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nought"))
            before = [
                helper.make_node("ReduceSum", [a], ["total"], keepdims=0),
                helper.make_node("Greater", ["total", "nought"], ["decided"]),
            ]
        branches = {n: _body(rng, a, n, "If", [op]) for n, op in zip(("then_branch", "else_branch"), ops, strict=True)}
        return [*before, helper.make_node("If", [condition], [b], **branches)]

    _spliced(m, value, make)
    return f"{kind} after {value}"


def _quantise(rng: Rng, m: Model) -> str:
    value = _float_value(rng, m)
    scale = np.float32(one(rng, (0.05, 0.0, -1.0, np.nan, 1e-30, 1e30)))
    kind = one(rng, (np.uint8, np.int8))
    m.graph.initializer.append(numpy_helper.from_array(np.asarray(scale), "q_scale"))
    m.graph.initializer.append(numpy_helper.from_array(np.asarray(kind(3)), "q_zero"))
    ends = ["q_scale", "q_zero"]
    _spliced(
        m,
        value,
        lambda a, b: [
            helper.make_node("QuantizeLinear", [a, *ends], ["q_mid"]),
            helper.make_node("DequantizeLinear", ["q_mid", *ends], [b]),
        ],
    )
    return f"scale {scale} after {value}"


def _rank(rng: Rng, m: Model) -> str:
    """A value of another rank, from none to six."""
    value, rank = _float_value(rng, m), int(rng.integers(0, 7))
    target = [-1, *[1] * (rank - 1)] if rank else []
    m.graph.initializer.append(numpy_helper.from_array(np.array(target, np.int64), "rank"))
    _spliced(m, value, lambda a, b: [helper.make_node("Reshape", [a, "rank"], [b])])
    return f"{rank} after {value}"


def _dead(rng: Rng, m: Model) -> str:
    """Nodes that nothing reads, a value that is read twice, a node that is there twice."""
    value = _float_value(rng, m)
    m.graph.node.append(helper.make_node(one(rng, ("Relu", "Shape", "RandomNormalLike")), [value], ["nobody"]))
    _spliced(m, _float_value(rng, m), lambda a, b: [helper.make_node(one(rng, ("Add", "Mul", "Sub", "Div", "Max")), [a, a], [b])])
    return ""


_EDITS: tuple[Callable[[Rng, Model], str], ...] = (
    _insert, _insert, _insert, _swap, _swap, _remove, _output, _output, _input, _input, _values, _classes, _control, _control, _quantise, _rank, _dead,
)  # fmt: skip
