"""Operators on constants, computed once: what exporters leave behind of shape arithmetic and of stored weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfim.errors import ModelError
from onnxfim.graph.graph import Node

Inputs: TypeAlias = "Sequence[np.ndarray | None]"


def fold(node: Node, inputs: Inputs, opsets: Mapping[str, int]) -> list[np.ndarray]:
    """The outputs of ``node`` on constant inputs.

    Raises:
        ModelError: the node cannot be computed, for instance because of wrong shapes.
    """
    rule = _RULES.get(node.op)
    try:
        with np.errstate(all="ignore"):
            if rule is not None:
                return [np.asarray(rule(node, inputs))]
            return _by_reference(node, inputs, opsets)
    except Exception as error:  # NumPy and the reference evaluator raise many kinds for a malformed node
        text = str(error).strip().splitlines()
        why = text[0][:200] if text else type(error).__name__
        raise ModelError(f"node {node.label!r}: {node.op} on constants cannot be computed ({why}). Re-export the model.") from error


def axes_of(node: Node, inputs: Inputs) -> tuple[int, ...] | None:
    """The axes of a squeeze-like node, from its attribute (old opsets) or its second input."""
    value = node.attributes.get("axes")
    if value is None and len(inputs) > 1 and inputs[1] is not None:
        value = inputs[1]
    return None if value is None else tuple(int(a) for a in np.atleast_1d(np.asarray(value)))


def slices_of(node: Node, inputs: Inputs, rank: int) -> tuple[slice, ...] | None:
    """The index expression of a Slice node, or None when its bounds are not constants."""
    if "starts" in node.attributes:
        starts, ends = node.attributes["starts"], node.attributes["ends"]
        axes, steps = node.attributes.get("axes"), None
    else:
        if any(i is None for i in inputs[1:3]):
            return None
        starts, ends = inputs[1], inputs[2]
        axes = inputs[3] if len(inputs) > 3 else None
        steps = inputs[4] if len(inputs) > 4 else None
    first, last = np.atleast_1d(np.asarray(starts)), np.atleast_1d(np.asarray(ends))
    where = np.arange(first.size) if axes is None else np.atleast_1d(np.asarray(axes))
    step = np.ones(first.size, int) if steps is None else np.atleast_1d(np.asarray(steps))
    index = [slice(None)] * rank
    for axis, a, b, s in zip(where.tolist(), first.tolist(), last.tolist(), step.tolist(), strict=True):
        stop = None if (s < 0 and b < -(1 << 30)) else b
        index[int(axis) % rank] = slice(int(a), None if stop is None else int(stop), int(s))
    return tuple(index)


def reshape_target(shape: np.ndarray, source: Sequence[int | None], *, allowzero: bool = False) -> tuple[int, ...]:
    """The target of a Reshape with zeros replaced by the source's dimension (-1 stays)."""
    wanted = [int(v) for v in shape]
    return tuple(int(source[i] or 0) if v == 0 and not allowzero and i < len(source) else v for i, v in enumerate(wanted))


def _need(inputs: Inputs, index: int) -> np.ndarray:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise ValueError(f"input {index} is missing")
    return value


def _cast(node: Node, inputs: Inputs) -> np.ndarray:
    to = node.attributes["to"]
    return _need(inputs, 0).astype(helper.tensor_dtype_to_np_dtype(int(to)))  # type: ignore[arg-type]


def _divide(node: Node, inputs: Inputs) -> np.ndarray:
    a, b = _need(inputs, 0), _need(inputs, 1)
    return np.asarray(np.trunc(a / b).astype(a.dtype) if np.issubdtype(a.dtype, np.integer) else a / b)


def _dequantize(node: Node, inputs: Inputs) -> np.ndarray:
    x, scale = _need(inputs, 0), _need(inputs, 1)
    if node.attributes.get("block_size", 0):
        raise ValueError("blocked quantisation")
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros((), np.int32)
    axis = _axis(node, 1)
    along = [1] * x.ndim
    if scale.size > 1:
        along[axis] = scale.size
    s, z = (scale.reshape(along), zero.reshape(along)) if scale.size > 1 else (scale.reshape(()), zero.reshape(-1)[:1].reshape(()))
    return np.asarray((x.astype(np.int32) - z.astype(np.int32)).astype(scale.dtype) * s)


def _filled(node: Node, inputs: Inputs) -> np.ndarray:
    value = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return np.full([int(v) for v in _need(inputs, 0)], fill.reshape(-1)[0])


def _unsqueeze(node: Node, inputs: Inputs) -> np.ndarray:
    return np.expand_dims(_need(inputs, 0), axes_of(node, inputs) or ())


def _squeeze(node: Node, inputs: Inputs) -> np.ndarray:
    return np.squeeze(_need(inputs, 0), axes_of(node, inputs))


def _reshape(node: Node, inputs: Inputs) -> np.ndarray:
    x = _need(inputs, 0)
    return x.reshape(reshape_target(_need(inputs, 1), x.shape, allowzero=bool(node.attributes.get("allowzero", 0))))


def _slice(node: Node, inputs: Inputs) -> np.ndarray:
    x = _need(inputs, 0)
    index = slices_of(node, inputs, x.ndim)
    if index is None:
        raise ValueError("its bounds are missing")
    return x[index]


def _axis(node: Node, default: int = 0) -> int:
    axis = node.attributes.get("axis", default)
    return axis if isinstance(axis, int) else default


_RULES: dict[str, Callable[[Node, Inputs], np.ndarray]] = {
    "Identity": lambda n, i: _need(i, 0),
    "Dropout": lambda n, i: _need(i, 0),
    "Cast": _cast,
    "Gather": lambda n, i: np.take(_need(i, 0), _need(i, 1).astype(np.int64), axis=_axis(n)),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": lambda n, i: np.concatenate([_need(i, k) for k in range(len(i))], axis=_axis(n)),
    "Slice": _slice,
    "Reshape": _reshape,
    "Flatten": lambda n, i: _need(i, 0).reshape(int(np.prod(_need(i, 0).shape[: _axis(n, 1)])), -1),
    "Transpose": lambda n, i: np.transpose(_need(i, 0), n.attributes.get("perm")),  # type: ignore[arg-type]
    "Expand": lambda n, i: _need(i, 0) * np.ones([int(v) for v in _need(i, 1)], _need(i, 0).dtype),
    "Add": lambda n, i: _need(i, 0) + _need(i, 1),
    "Sub": lambda n, i: _need(i, 0) - _need(i, 1),
    "Mul": lambda n, i: _need(i, 0) * _need(i, 1),
    "Div": _divide,
    "Neg": lambda n, i: -_need(i, 0),
    "Sqrt": lambda n, i: np.sqrt(_need(i, 0)),
    "Reciprocal": lambda n, i: 1 / _need(i, 0),
    "Pow": lambda n, i: np.power(_need(i, 0), _need(i, 1)),
    "Equal": lambda n, i: _need(i, 0) == _need(i, 1),
    "Where": lambda n, i: np.where(_need(i, 0), _need(i, 1), _need(i, 2)),
    "Range": lambda n, i: np.arange(_need(i, 0).item(), _need(i, 1).item(), _need(i, 2).item(), dtype=_need(i, 0).dtype),
    "ConstantOfShape": _filled,
    "DequantizeLinear": _dequantize,
}

#: Operators without randomness or sub-graphs whose result on constants is worth having.
FOLDABLE = frozenset(_RULES) | frozenset(
    [
        "Abs",
        "And",
        "Ceil",
        "Clip",
        "CumSum",
        "Erf",
        "Exp",
        "EyeLike",
        "Floor",
        "GatherElements",
        "GatherND",
        "Gemm",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Log",
        "MatMul",
        "Max",
        "Min",
        "Mod",
        "Not",
        "Or",
        "Pad",
        "QuantizeLinear",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Relu",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Sigmoid",
        "Sign",
        "Size",
        "Softmax",
        "Split",
        "Sum",
        "Tanh",
        "Tile",
        "Trilu",
        "Xor",
    ]
)


def node_proto(op: str, inputs: tuple[str, ...], outputs: tuple[str, ...], attributes: Mapping[str, object]) -> onnx.NodeProto:
    """A node of the standard domain with the given attributes; empty and unknown ones are left out."""
    kept = {
        k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v
        for k, v in attributes.items()
        if v is not None and not (isinstance(v, tuple) and not v)
    }
    return helper.make_node(op, inputs, outputs, **kept)


def _by_reference(node: Node, inputs: Inputs, opsets: Mapping[str, int]) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.inputs if name]
    feeds = {name: value for name, value in zip(node.inputs, inputs, strict=True) if name and value is not None}
    protos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(feeds[n].dtype), None) for n in dict.fromkeys(names)]
    outputs = [o for o in node.outputs if o]
    graph = helper.make_graph(
        [node_proto(node.op, node.inputs, node.outputs, node.attributes)],
        "fold",
        protos,
        [helper.make_empty_tensor_value_info(o) for o in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_operatorsetid("", opsets.get("ai.onnx", 17))])
    results = dict(zip(outputs, ReferenceEvaluator(model).run(None, feeds), strict=True))
    return [np.asarray(results[o]) if o else np.zeros(0) for o in node.outputs]
