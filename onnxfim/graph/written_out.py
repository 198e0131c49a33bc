"""A file that computes with integers, written with quantisers and float operators between them: the same rounding, each in a node.

Of static quantisation `integers.floated` writes it; here are dynamic quantisation and weights in blocks. Every rounding of the file
stands in a QuantizeLinear or DynamicQuantizeLinear then, with a DequantizeLinear behind it, so that one can be left out.

Source: the operators' definitions, https://onnx.ai/onnx/operators and onnxruntime's docs/ContribOperators.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper

from onnxfim.graph.emitter import Emitter
from onnxfim.graph.graph import Graph, reads
from onnxfim.graph.integers import floated
from onnxfim.graph.known_values import KnownValues

Array: TypeAlias = np.ndarray[Any, Any]


def written_out(model: onnx.ModelProto, *, base_dir: str | os.PathLike[str] = ".") -> onnx.ModelProto:
    """The model with every integer operator as float ones between quantisers; the model itself where it has none.

    Raises:
        UnsupportedOperator: an integer operator in a form that has no float twin.
    """
    if not any(n.op_type in _RULES or n.op_type.startswith("QLinear") for n in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    old = [_copied(n) for n in graph.node]
    emitter = Emitter([t.name for t in graph.initializer] + [v for n in old for v in (*n.input, *n.output)], prefix="w")
    pen = _Pen(copy, old, emitter, base_dir)
    nodes: list[onnx.NodeProto] = []
    for node in old:
        rule = _RULES.get(node.op_type)
        made = None if rule is None else rule(pen, node)
        nodes += [node] if made is None else made
    dynamic = ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
    held = [n for n in nodes if n.op_type in dynamic]
    rest = [n for n in nodes if n not in held]
    rest = _needed(floated(rest, [*graph.initializer, *emitter.constants], emitter, base_dir=base_dir), held, copy)
    del graph.node[:]
    del graph.value_info[:]
    graph.node.extend(rest)
    graph.initializer.extend(emitter.constants)
    ordered = [_copied(graph.node[n.index]) for n in Graph(copy, base_dir=base_dir).nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    return copy


def _needed(some: Sequence[onnx.NodeProto], others: Sequence[onnx.NodeProto], model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that the model's outputs need, in any order: what scaled an integer product computes nothing any more."""
    makers = {o: n for n in (*some, *others) for o in n.output if o}
    waiting, seen = [o.name for o in model.graph.output], set[str]()
    kept: dict[int, onnx.NodeProto] = {}
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        kept[id(node)] = node
        waiting += reads(node)
    return list(kept.values())


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


class _Pen:
    """What is known of a model's constants, and where new ones go."""

    def __init__(
        self, model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], emitter: Emitter, base_dir: str | os.PathLike[str]
    ) -> None:  # fmt: skip
        self.values = KnownValues(model, base_dir=base_dir)
        self.emitter = emitter
        self.makers = {o: n for n in nodes for o in n.output if o}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def constant(self, node: onnx.NodeProto, at: int) -> Array | None:
        return self.values.value(node.input[at]) if at < len(node.input) and node.input[at] else None

    def dequantised(self, q: str, scale: str, zero: str, into: list[onnx.NodeProto], axis: int | None = None) -> str:
        """Name of an integer value as floats."""
        name = self.emitter.fresh("dequantised")
        given = dict[str, int]() if axis is None else {"axis": axis}
        into.append(helper.make_node("DequantizeLinear", [q, scale, *([zero] if zero else [])], [name], name=name, **given))
        return name

    def weight(self, node: onnx.NodeProto, at: int, axis: int, into: list[onnx.NodeProto]) -> str:
        """Name of a stored weight as floats; its scale and zero point are the two inputs after it.

        It stays stored as it is: the runtime would quantise a weight of floats behind rounded inputs in its own way.
        """
        scale = self.constant(node, at + 1)
        q, its_scale, zero = node.input[at : at + 3]
        return self.dequantised(q, its_scale, zero, into, axis if scale is not None and scale.size > 1 else None)

    def bias(self, node: onnx.NodeProto, at: int, factor: float = 1.0) -> list[str]:
        """Name of a stored bias as floats, in units of both scales; nothing where there is none."""
        value = self.constant(node, at)
        if value is None:
            return []
        unit = np.asarray(factor)
        for scale in (self.constant(node, 1), self.constant(node, 4)):
            unit = unit * (1.0 if scale is None else scale.astype(np.float64).ravel())
        return [self.emitter.constant((value.astype(np.float64) * unit).astype(np.float32))]

    def weights(self, q: Array, scale: Array, zero: Array | None, axis: int) -> str:
        """Name of a weight as floats; scales along ``axis`` where there are several."""

        def spread(a: Array | None) -> Array:
            if a is None or a.size == 1:
                return np.asarray(0.0 if a is None else a.reshape(()), np.float64)
            shape = [1] * q.ndim
            shape[axis] = a.size
            return a.reshape(shape).astype(np.float64)

        return self.emitter.constant(((q.astype(np.float64) - spread(zero)) * spread(scale)).astype(np.float32))


def _static_product(pen: _Pen, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """QLinearConv, QLinearMatMul and QGemm on stored weights: the float operator between a quantiser and its inverse."""
    if pen.constant(node, 3) is None:
        return None
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "channels_last"}
    if any(a.name == "channels_last" and a.i for a in node.attribute):
        return None
    into: list[onnx.NodeProto] = []
    x = pen.dequantised(node.input[0], node.input[1], node.input[2], into)
    twin, axis, bias_at, grid = _STATIC[node.op_type]
    if node.op_type == "QGemm":
        axis = 0 if given.get("transB") else 1
    weight = pen.weight(node, 3, axis, into)
    bias = pen.bias(node, bias_at, float(given.get("alpha", 1.0))) if bias_at else []
    out = pen.emitter.fresh("float")
    into.append(helper.make_node(twin, [x, weight, *bias], [out], name=node.name, **given))
    if not any(node.input[grid : grid + 2]):  # QGemm may hand on floats
        into[-1].output[0] = node.output[0]
        return into
    into.append(
        helper.make_node("QuantizeLinear", [out, *node.input[grid : grid + 2]], list(node.output), name=f"{node.name}_rounded")
    )
    return into


#: The float operator, the axis of the weight's scales, and where the bias and the output's scale stand.
_STATIC = {"QLinearConv": ("Conv", 0, 8, 6), "QLinearMatMul": ("MatMul", 1, 0, 6), "QGemm": ("Gemm", 1, 6, 7)}


def _integer_product(pen: _Pen, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """ConvInteger, MatMulInteger: behind it a Cast, and a Mul by the product of both scales, which the float form absorbs."""
    conv = node.op_type == "ConvInteger"
    q = pen.constant(node, 1)
    found = _scaled(pen, node)
    if q is None or found is None:
        return None
    last, input_scale, weight_scale = found
    into: list[onnx.NodeProto] = []
    x = pen.dequantised(node.input[0], input_scale, node.input[2] if len(node.input) > 2 else "", into)
    axis = 0 if conv else q.ndim - 1
    several = weight_scale.size > 1
    zero = pen.constant(node, 3)
    shape = (weight_scale.size,) if several else ()
    stored = [pen.emitter.constant(weight_scale.reshape(shape))]
    stored.append(
        "" if zero is None else pen.emitter.constant(np.broadcast_to(zero.ravel() if several else zero.reshape(()), shape).copy())
    )
    weights = pen.dequantised(node.input[1], stored[0], stored[1], into, axis if several else None)
    kept = {a.name: helper.get_attribute_value(a) for a in node.attribute} if conv else {}
    out = pen.emitter.fresh("product")
    into.append(helper.make_node("Conv" if conv else "MatMul", [x, weights], [out], name=node.name, **kept))
    # The nodes behind it stay as they are but for the last, which hands the product on.
    del last.input[:], last.attribute[:]
    last.op_type = "Identity"
    last.input.append(out)
    return into


def _scaled(pen: _Pen, node: onnx.NodeProto) -> tuple[onnx.NodeProto, str, Array] | None:
    """The Mul that gives an integer product its scale, the name of the input's scale, and the weights' scale."""
    casts = [n for n in pen.readers.get(node.output[0], []) if n.op_type == "Cast"]
    muls = [n for c in casts for n in pen.readers.get(c.output[0], []) if n.op_type == "Mul"]
    if len(casts) != 1 or len(muls) != 1:
        return None
    scales = next(i for i in muls[0].input if i != casts[0].output[0])
    maker = pen.makers.get(scales)
    if maker is None or maker.op_type != "Mul":
        return None
    values = [pen.values.value(i) for i in maker.input]
    for at in (0, 1):
        weight = values[1 - at]
        if values[at] is None and weight is not None:
            return muls[0], maker.input[at], weight
    return None


def _dynamic_product(pen: _Pen, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """DynamicQuantizeMatMul (A, B, scale, zero point, bias)."""
    q, scale = pen.constant(node, 1), pen.constant(node, 2)
    if q is None or scale is None:
        return None
    rounded, its_scale, zero = (pen.emitter.fresh(word) for word in ("rounded", "scale", "zero"))
    into = [helper.make_node("DynamicQuantizeLinear", [node.input[0]], [rounded, its_scale, zero], name=rounded)]
    x = pen.dequantised(rounded, its_scale, zero, into)
    return _product(pen, node, x, pen.weights(q, scale, pen.constant(node, 3), -1), 4, into)


def _integer_to_float(pen: _Pen, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """MatMulIntegerToFloat (A, B, A's scale, B's scale, A's zero point, B's zero point, bias)."""
    q, scale = pen.constant(node, 1), pen.constant(node, 3)
    if q is None or scale is None:
        return None
    into: list[onnx.NodeProto] = []
    x = pen.dequantised(node.input[0], node.input[2], node.input[4] if len(node.input) > 4 else "", into)
    return _product(pen, node, x, pen.weights(q, scale, pen.constant(node, 5), -1), 6, into)


def _blockwise(pen: _Pen, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """MatMulNBits (A, B, scales, zero points, group indices, bias): weights of a few bits, in blocks along their input."""
    weights = block_weights(node, pen.constant)
    return None if weights is None else _product(pen, node, node.input[0], pen.emitter.constant(weights), 5, [])


def block_weights(node: onnx.NodeProto, constant: Callable[[onnx.NodeProto, int], Array | None]) -> Array | None:
    """The weights of a MatMulNBits node as floats, (K, N); None where they are not constants, or their columns are regrouped."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    K, N, bits, size = (int(given.get(name, default)) for name, default in (("K", 0), ("N", 0), ("bits", 4), ("block_size", 32)))
    packed, scales, zeros = (constant(node, at) for at in (1, 2, 3))
    if packed is None or scales is None or (len(node.input) > 4 and node.input[4]) or 8 % bits:
        return None
    blocks = math.ceil(K / size)
    q = _unpacked(packed.reshape(N, -1), bits)[:, : blocks * size].reshape(N, blocks, size)
    if zeros is None:
        offset = np.full((N, blocks), float(2 ** (bits - 1)))
    elif zeros.dtype == np.uint8:
        offset = _unpacked(zeros.reshape(N, -1), bits)[:, :blocks].astype(np.float64)
    else:
        offset = zeros.reshape(N, blocks).astype(np.float64)
    value = (q - offset[:, :, None]) * scales.astype(np.float64).reshape(N, blocks, 1)
    return np.ascontiguousarray(value.reshape(N, -1)[:, :K].T, dtype=np.float32)


def _unpacked(packed: Array, bits: int) -> Array:
    """Numbers of a few bits from bytes, the lowest bits first, (n, m) to (n, m·8/bits)."""
    parts = [(packed >> (bits * k)) & (2**bits - 1) for k in range(8 // bits)]
    return np.stack(parts, axis=-1).reshape(len(packed), -1)


def _product(
    pen: _Pen, node: onnx.NodeProto, left: str, right: str, bias_at: int, into: list[onnx.NodeProto]
) -> list[onnx.NodeProto]:  # fmt: skip
    """A MatMul with the node's name and output, and the Add of its bias where it has one."""
    bias = node.input[bias_at] if len(node.input) > bias_at else ""
    out = pen.emitter.fresh("product") if bias else node.output[0]
    into.append(helper.make_node("MatMul", [left, right], [out], name=node.name))
    if bias:
        into.append(helper.make_node("Add", [out, bias], [node.output[0]], name=f"{node.name}_bias"))
    return into


_Rule: TypeAlias = Callable[[_Pen, onnx.NodeProto], "list[onnx.NodeProto] | None"]
_RULES: dict[str, _Rule] = {
    "ConvInteger": _integer_product, "MatMulInteger": _integer_product, "DynamicQuantizeMatMul": _dynamic_product,
    "MatMulIntegerToFloat": _integer_to_float, "MatMulNBits": _blockwise, **dict.fromkeys(_STATIC, _static_product),
}  # fmt: skip
