"""Files that are deep or wide: chains of thousands of nodes, fans, doubling sums, subgraphs in subgraphs, functions that call on."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.families._bases import Base, command
from tests.fuzz.families._odd import one
from tests.fuzz.harness import Case

Rng: TypeAlias = np.random.Generator

_FEATURES = 4


def case(rng: Rng, folder: Path) -> Case:
    """One of the forms; audits take the smaller of them, so that most cases end soon."""
    form = one(rng, (_chain, _chain, _fan, _doubling, _nested, _functions, _concat, _many_outputs))
    only = str(rng.choice(["audit", "bounds", "bounds", "inspect"]))
    most = 300 if only == "audit" else 3000
    size = int(np.exp(rng.uniform(np.log(10), np.log(most))))
    model, note = form(rng, size)
    base = Base(form.__name__.strip("_"), model.SerializeToString(), (_FEATURES,))
    (folder / "m.onnx").write_bytes(base.content)
    return command(rng, folder, base, note=note, only=only)


def _model(
    nodes: list[onnx.NodeProto], last: str, weights: list[onnx.TensorProto], *, functions: list[onnx.FunctionProto] | None = None
) -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    weights = [*weights, numpy_helper.from_array(rng.standard_normal((_FEATURES, 3)).astype(np.float32), "end")]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", [last, "end"], ["z"])], "deep", [info("x", TensorProto.FLOAT, ["N", _FEATURES])],
        [info("z", TensorProto.FLOAT, ["N", 3])], weights,
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made = helper.make_model(graph, opset_imports=imports, functions=functions or [])
    made.ir_version = 8
    return made


def _square(rng: Rng, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.linalg.qr(rng.standard_normal((_FEATURES, _FEATURES)))[0].astype(np.float32), name)


def _chain(rng: Rng, size: int) -> tuple[onnx.ModelProto, str]:
    """One operator after the other, each of one kind or of a few in turn; backwards in the file now and then."""
    kinds = [
        one(rng, ("Relu", "Tanh", "Add", "MatMul", "Mul", "Identity", "Residual", "Transpose"))
        for _ in range(int(rng.integers(1, 4)))
    ]
    nodes, weights, x = [], [_square(rng, "w"), numpy_helper.from_array(np.float32([1, 1, -1, 1]), "b")], "x"
    for k in range(size):
        kind, y = kinds[k % len(kinds)], f"v{k}"
        if kind == "Residual":
            nodes += [helper.make_node("Tanh", [x], [f"t{k}"]), helper.make_node("Add", [x, f"t{k}"], [y])]
        elif kind == "Transpose":
            nodes += [helper.make_node(kind, [x], [f"t{k}"], perm=[1, 0]), helper.make_node(kind, [f"t{k}"], [y], perm=[1, 0])]
        else:
            more = {"Add": ["b"], "Mul": ["b"], "MatMul": ["w"]}.get(kind, [])
            nodes.append(helper.make_node(kind, [x, *more], [y]))
        x = y
    if rng.random() < 0.2:
        nodes.reverse()
    return _model(nodes, x, weights), f"a chain of {size} {'/'.join(kinds)}"


def _fan(rng: Rng, size: int) -> tuple[onnx.ModelProto, str]:
    """Many nodes that read one value, and one sum of all."""
    op = one(rng, ("Relu", "Tanh", "Neg"))
    nodes = [helper.make_node(op, ["x"], [f"v{k}"]) for k in range(size)]
    nodes.append(helper.make_node("Sum", [f"v{k}" for k in range(size)], ["s"]))
    return _model(nodes, "s", []), f"a fan of {size} {op}"


def _doubling(rng: Rng, size: int) -> tuple[onnx.ModelProto, str]:
    """A value added to itself again and again: two to the size paths."""
    op, x, nodes = one(rng, ("Add", "Mul", "Max", "Sub")), "x", []
    for k in range(size):
        nodes.append(helper.make_node(op, [x, x], [f"v{k}"]))
        x = f"v{k}"
    return _model(nodes, x, []), f"{size} doublings by {op}"


def _nested(rng: Rng, size: int) -> tuple[onnx.ModelProto, str]:
    """An ``If`` in an ``If``, nearly as deep as a file can be parsed."""
    depth = int(rng.integers(1, 30))
    info = helper.make_tensor_value_info("o0", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["o0"])], "g", [], [info])
    for k in range(1, depth + 1):
        node = helper.make_node("If", ["yes"], [f"o{k}"], then_branch=graph, else_branch=graph if k < 4 else helper.make_graph(
            [helper.make_node("Identity", ["x"], [f"e{k}"])], "e", [], [helper.make_tensor_value_info(f"e{k}", TensorProto.FLOAT, None)]))  # fmt: skip
        graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info(f"o{k}", TensorProto.FLOAT, None)])
    return _model([*graph.node], f"o{depth}", [numpy_helper.from_array(np.bool_(True), "yes")]), f"{depth} subgraphs in one another"


def _functions(rng: Rng, size: int) -> tuple[onnx.ModelProto, str]:
    """Functions that each call the one before, twice where ``twice``: the written-out graph then has two to the depth nodes."""
    twice = rng.random() < 0.5
    depth = int(rng.integers(1, 25 if twice else 60))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made = [helper.make_function("own", "F0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)]
    for k in range(1, depth + 1):
        body = [
            helper.make_node(f"F{k - 1}", ["a"], ["m"], domain="own"),
            helper.make_node(f"F{k - 1}" if twice else "Identity", ["m"], ["b"], domain="own" if twice else ""),
        ]
        made.append(helper.make_function("own", f"F{k}", ["a"], ["b"], body, opsets))
    call = helper.make_node(f"F{depth}", ["x"], ["y"], domain="own")
    return _model([call], "y", [], functions=made), f"functions {depth} deep, {'two calls' if twice else 'one call'} each"


def _concat(rng: Rng, size: int) -> tuple[onnx.ModelProto, str]:
    """Values joined to a long one, which a slice makes short again."""
    size = min(size, 400)
    weights = [numpy_helper.from_array(np.int64([v]), n) for n, v in (("start", 0), ("stop", _FEATURES), ("axis", 1))]
    nodes, x = [], "x"
    for k in range(size):
        nodes.append(helper.make_node("Concat", [x, "x"], [f"c{k}"], axis=1))
        x = f"c{k}"
    nodes.append(helper.make_node("Slice", [x, "start", "stop", "axis"], ["s"]))
    return _model(nodes, "s", weights), f"{size} values joined one by one"


def _many_outputs(rng: Rng, size: int) -> tuple[onnx.ModelProto, str]:
    """A split into many, each an output of the file too."""
    nodes = [
        helper.make_node("Split", ["x"], [f"p{k}" for k in range(_FEATURES)], axis=1),
        helper.make_node("Concat", [f"p{k}" for k in range(_FEATURES)], ["c"], axis=1),
    ]
    made = _model(nodes, "c", [])
    made.graph.output.extend(helper.make_tensor_value_info(f"p{k}", TensorProto.FLOAT, ["N", 1]) for k in range(_FEATURES))
    for k in range(min(size, 500)):
        made.graph.node.append(helper.make_node("Neg", [f"p{k % _FEATURES}"], [f"q{k}"]))
        made.graph.output.append(helper.make_tensor_value_info(f"q{k}", TensorProto.FLOAT, ["N", 1]))
    return made, f"{len(made.graph.output)} outputs"
