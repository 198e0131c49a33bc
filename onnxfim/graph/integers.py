"""Operators that compute with integers, written as float ones between quantise-dequantise pairs: for the surrogate alone.

``QLinear…`` and ``QGemm`` become DequantizeLinear, the float operator and QuantizeLinear. Dynamic quantisation has no range of its
own: its quantiser hands on its input with a scale of 1, and the integer product becomes one of floats.

Source: the operators' definitions, https://onnx.ai/onnx/operators and onnxruntime's docs/ContribOperators.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.referring import array_of
from onnxfim.graph.shapes import constant_value

Array: TypeAlias = np.ndarray[Any, Any]

# Operators of one integer input: their float twins.
_OF_ONE = {
    "QLinearAveragePool": "AveragePool", "QLinearGlobalAveragePool": "GlobalAveragePool", "QLinearSigmoid": "Sigmoid",
    "QLinearLeakyRelu": "LeakyRelu", "QLinearSoftmax": "Softmax", "QLinearReduceMean": "ReduceMean",
}  # fmt: skip
_OF_TWO = {"QLinearAdd": "Add", "QLinearMul": "Mul", "QLinearMatMul": "MatMul"}
_OURS = frozenset({"channels_last", "opset"})  # attributes that the float twins do not have


def floated(
    nodes: Sequence[onnx.NodeProto], initializers: Iterable[onnx.TensorProto], emitter: Emitter, *,
    base_dir: str | os.PathLike[str] = ".",
) -> list[onnx.NodeProto]:  # fmt: skip
    """The nodes with integer operators written as float ones; others stay as they are.

    Raises:
        UnsupportedOperator: an integer operator on weights that are computed, or in a form that has no float twin.
    """
    writer = _Writer(nodes, initializers, emitter, base_dir)
    done: list[onnx.NodeProto] = []
    for node in nodes:
        rule = _RULES.get(node.op_type)
        done += [node] if rule is None else rule(writer, node)
    return done


class _Writer:
    """Makes float nodes from the constants of a graph."""

    def __init__(
        self, nodes: Sequence[onnx.NodeProto], initializers: Iterable[onnx.TensorProto], emitter: Emitter,
        base_dir: str | os.PathLike[str],
    ) -> None:  # fmt: skip
        self._tensors = {t.name: t for t in initializers}
        self._constants = {n.output[0]: n for n in nodes if n.op_type == "Constant"}
        self._emitter, self._base_dir = emitter, str(base_dir)

    def value(self, node: onnx.NodeProto, at: int) -> Array | None:
        """The constant that input ``at`` of a node is, or None where it has no such input.

        Raises:
            UnsupportedOperator: it is computed.
        """
        if len(node.input) <= at or not node.input[at]:
            return None
        name = node.input[at]
        if name in self._tensors:
            return array_of(self._tensors[name], self._base_dir)
        found = constant_value(self._constants[name]) if name in self._constants else None
        if found is None:
            raise UnsupportedOperator(f"node {node.name!r}: {node.op_type} with a computed {name!r} has no clip surrogate.")
        return np.asarray(found)

    def is_constant(self, name: str) -> bool:
        return name in self._tensors or name in self._constants

    def weights(self, node: onnx.NodeProto, at: int, scale: Array | None, zero: Array | None, axis: int) -> str:
        """Name of a weight as floats; scales along ``axis`` where there are several."""
        q = self.value(node, at)
        assert q is not None

        def spread(a: Array | None, otherwise: float) -> Array:
            if a is None or a.size == 1 or a.ndim > 1:
                return np.asarray(otherwise if a is None else a.reshape(()) if a.size == 1 else a, np.float64)
            shape = [1] * q.ndim
            shape[axis] = a.size
            return a.reshape(shape).astype(np.float64)

        return self.constant((q.astype(np.float64) - spread(zero, 0.0)) * spread(scale, 1.0))

    def constant(self, value: Array) -> str:
        return self._emitter.constant(np.asarray(value, np.float32))

    def dequantised(self, node: onnx.NodeProto, at: int, into: list[onnx.NodeProto]) -> str:
        """Name of input ``at`` as floats; its scale and zero point are the two inputs after it."""
        if self.is_constant(node.input[at]):
            return self.weights(node, at, self.value(node, at + 1), self.value(node, at + 2), 0)
        name = self._emitter.fresh("dequantised")
        into.append(helper.make_node("DequantizeLinear", list(node.input[at : at + 3]), [name], name=name))
        return name

    def computed(
        self, node: onnx.NodeProto, op: str, inputs: Sequence[str], grid: Sequence[str], into: list[onnx.NodeProto],
        attributes: Mapping[str, Any] | None = None,
    ) -> list[onnx.NodeProto]:  # fmt: skip
        """The float operator, and a quantiser behind it where ``grid`` names its scale and zero point."""
        kept = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name not in _OURS}
        if any(a.name == "channels_last" and a.i for a in node.attribute):
            raise UnsupportedOperator(f"node {node.name!r}: {node.op_type} with channels last has no clip surrogate.")
        grid = [g for g in grid if g]
        out = self._emitter.fresh("float") if grid else node.output[0]
        into.append(helper.make_node(op, list(inputs), [out], name=node.name, **(kept if attributes is None else attributes)))
        if grid:
            into.append(helper.make_node("QuantizeLinear", [out, *grid], list(node.output[:1]), name=f"{node.name}_quantised"))
        return into


def _of_one(w: _Writer, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    into: list[onnx.NodeProto] = []
    return w.computed(node, _OF_ONE[node.op_type], [w.dequantised(node, 0, into)], node.input[3:5], into)


def _of_two(w: _Writer, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    into: list[onnx.NodeProto] = []
    first = w.dequantised(node, 0, into)
    if node.op_type == "QLinearMatMul" and w.is_constant(node.input[3]):
        second = w.weights(node, 3, w.value(node, 4), w.value(node, 5), -1)
    else:
        second = w.dequantised(node, 3, into)
    return w.computed(node, _OF_TWO[node.op_type], [first, second], node.input[6:8], into)


def _concat(w: _Writer, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    into: list[onnx.NodeProto] = []
    parts = [w.dequantised(node, at, into) for at in range(2, len(node.input), 3)]
    return w.computed(node, "Concat", parts, node.input[:2], into)


def _convolution(w: _Writer, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    into: list[onnx.NodeProto] = []
    x = w.dequantised(node, 0, into)
    inputs = [x, w.weights(node, 3, w.value(node, 4), w.value(node, 5), 0)]
    bias = w.value(node, 8)
    if bias is not None:
        inputs.append(w.constant(bias * _scale(w, node, 1) * _scale(w, node, 4)))
    return w.computed(node, "Conv", inputs, node.input[6:8], into)


def _gemm(w: _Writer, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    columns = 0 if given.get("transB") else 1
    into: list[onnx.NodeProto] = []
    inputs = [w.dequantised(node, 0, into), w.weights(node, 3, w.value(node, 4), w.value(node, 5), columns)]
    bias = w.value(node, 6)
    if bias is not None:
        inputs.append(w.constant(bias * float(given.get("alpha", 1.0)) * _scale(w, node, 1) * _scale(w, node, 4)))
    return w.computed(node, "Gemm", inputs, node.input[7:9], into)


def _scale(w: _Writer, node: onnx.NodeProto, at: int) -> Array:
    scale = w.value(node, at)
    assert scale is not None
    return scale.astype(np.float64)


def _dynamic_quantiser(w: _Writer, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Its input itself, with a scale of 1 and a zero point of 0."""
    made = [helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name)]
    for output, value in zip(node.output[1:], (np.float32(1), np.uint8(0)), strict=False):
        made.append(helper.make_node("Constant", [], [output], name=output, value=numpy_helper.from_array(np.asarray(value))))
    return made


def _integer_product(w: _Writer, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """ConvInteger and MatMulInteger behind a dynamic quantiser, whose zero point is gone."""
    conv = node.op_type == "ConvInteger"
    weights = w.weights(node, 1, None, w.value(node, 3), 0 if conv else -1)
    return w.computed(node, "Conv" if conv else "MatMul", [node.input[0], weights], (), [])


def _dynamic_product(w: _Writer, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """DynamicQuantizeMatMul (A, B, scale, zero point, bias)."""
    weights = w.weights(node, 1, w.value(node, 2), w.value(node, 3), -1)
    return _with_bias(w, node, node.input[0], weights, 4)


def _integer_to_float(w: _Writer, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """MatMulIntegerToFloat (A, B, A's scale, B's scale, zero points, bias) behind a dynamic quantiser."""
    weights = w.weights(node, 1, w.value(node, 3), w.value(node, 5), -1)
    scaled = f"{node.output[0]}_scaled"
    first = helper.make_node("Mul", [node.input[0], node.input[2]], [scaled], name=scaled)
    return [first, *_with_bias(w, node, scaled, weights, 6)]


def _with_bias(w: _Writer, node: onnx.NodeProto, left: str, right: str, at: int) -> list[onnx.NodeProto]:
    out = node.output[0]
    bias = node.input[at] if len(node.input) > at and node.input[at] else ""
    product = f"{out}_product" if bias else out
    made = [helper.make_node("MatMul", [left, right], [product], name=node.name)]
    return made + ([helper.make_node("Add", [product, bias], [out], name=f"{node.name}_bias")] if bias else [])


_Rule: TypeAlias = Callable[[_Writer, onnx.NodeProto], list[onnx.NodeProto]]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(_OF_ONE, _of_one), **dict.fromkeys(_OF_TWO, _of_two), "QLinearConcat": _concat, "QLinearConv": _convolution,
    "QGemm": _gemm, "DynamicQuantizeLinear": _dynamic_quantiser, "ConvInteger": _integer_product,
    "MatMulInteger": _integer_product, "DynamicQuantizeMatMul": _dynamic_product, "MatMulIntegerToFloat": _integer_to_float,
}  # fmt: skip
