"""Quantised graphs: weights dequantised ahead; on request a surrogate with a Clip for each quantise-dequantise pair.

The surrogate is not the audited file: results from it must be labelled as the surrogate's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.graph import reads
from onnxfim.graph.referring import array_of
from onnxfim.graph.shapes import constant_value

#: Operators that round what they are given, beside QuantizeLinear and those whose names begin with QLinear or end with Integer.
_ROUNDING = frozenset(
    {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM", "QGemm", "QAttention"}
)
_EIGHT_BITS = 4  # the accuracy level
_FEW_BITS = frozenset(
    value
    for name in ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2")
    if (value := getattr(onnx.TensorProto, name, None)) is not None  # older releases of onnx have none of 2 bits
)
_HALF = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})


def rounding_operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """Types of the operators that round computed values to integers, in order; none where only weights are integers."""
    fixed = {t.name for t in model.graph.initializer} | {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    nodes = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    return tuple(
        sorted({n.op_type for n in nodes if _rounds(n.op_type) and not (n.op_type == "QuantizeLinear" and n.input[0] in fixed)})
    )


def _rounds(op: str) -> bool:
    return op == "QuantizeLinear" or op in _ROUNDING or op.startswith("QLinear") or op.endswith("Integer")


def takes_scales_from_the_batch(model: onnx.ModelProto) -> bool:
    """Whether an operator quantises by the range of all values that it is given, those of other rows among them."""
    nodes = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    return any(n.op_type.startswith("DynamicQuantize") for n in nodes)


def rounds_inside_products(model: onnx.ModelProto) -> str | None:
    """What makes the runtime round the activations of products with weights of few bits, in words; None where nothing does.

    The scale is each row's own, and takes its largest number: what is rounded stays near the float product, and the graph tells its
    slope. At accuracy level 4 a kernel may take 8-bit activations; for weights of up to 8 bits before a MatMul, in blocks, with one
    scale or one for each column, which it fuses, level 4 is ONNX Runtime's default (``session.qdq_matmulnbits_accuracy_level``).
    """
    stored = {t.name: t for t in model.graph.initializer}
    fused = {o for n in model.graph.node if _fuses(n, stored) for o in n.output}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits" and any(a.name == "accuracy_level" and a.i == _EIGHT_BITS for a in node.attribute):
            return "MatMulNBits at accuracy level 4 takes its activations in 8 bits"
        if node.op_type == "MatMul" and fused.intersection(node.input):
            return "the runtime fuses weights of few bits with MatMul, and takes its activations in 8 bits"
    return None


def _fuses(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether it makes floats of weights that the runtime may fuse with the MatMul behind it."""
    if node.op_type != "DequantizeLinear" or node.input[0] not in stored:
        return False
    weight, scale = stored[node.input[0]], stored.get(node.input[1])
    if _block_size(node):
        return True
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 1)
    whole = scale is not None and math.prod(scale.dims) == 1
    return weight.data_type in _FEW_BITS and len(weight.dims) == 2 and (whole or axis in (1, -1))


def computes_in_half(model: onnx.ModelProto) -> bool:
    """Whether the graph holds float16 or bfloat16 weights, constants, inputs or casts, those in its functions among them."""
    graph = model.graph
    nodes = [*graph.node, *(n for f in model.functions for n in f.node)]
    typed = [t.data_type for t in graph.initializer] + [i.type.tensor_type.elem_type for i in graph.input]
    typed += [a.t.data_type for n in nodes for a in n.attribute if a.type == onnx.AttributeProto.TENSOR]
    casts = [a.i for n in nodes if n.op_type == "Cast" for a in n.attribute if a.name == "to"]
    return bool(_HALF & {*typed, *casts})


def dequantised(
    nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto], *, base_dir: str | os.PathLike[str] = "."
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Compute DequantizeLinear of weights ahead.

    Left in the graph, the runtime would fuse it with a MatMul into one that rounds the activations as well.
    """
    tensors = {t.name: t for t in initializers}
    kept, made = [], []
    for node in nodes:
        if node.op_type != "DequantizeLinear" or any(i and i not in tensors for i in node.input):
            kept.append(node)
            continue
        q, scale, *zeros = (array_of(tensors[i], base_dir) for i in node.input if i)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        zero = zeros[0] if zeros else np.zeros((), np.int32)
        if size := _block_size(node):
            scale, zero = (_of_blocks(a, q.shape[axis], size, axis) for a in (scale, zero))
        elif scale.size > 1:
            columns = [1] * q.ndim
            columns[axis] = scale.size
            scale, zero = scale.reshape(columns), zero.reshape(columns if zero.size > 1 else ())
        value = (q.astype(np.float64) - zero.astype(np.float64)) * scale.astype(np.float64)
        made.append(numpy_helper.from_array(value.astype(np.float32).reshape(q.shape), node.output[0]))
    used = {r for n in kept for r in reads(n)}
    return kept, [t for t in initializers if t.name in used] + made


def _block_size(node: onnx.NodeProto) -> int:
    """Numbers along the axis that share a scale; 0 where a scale is for a tensor or a channel."""
    return next((int(a.i) for a in node.attribute if a.name == "block_size"), 0)


def _of_blocks(values: np.ndarray, length: int, size: int, axis: int) -> np.ndarray:
    """One value for each number from one for each block; the last block may be short."""
    return values if values.ndim == 0 else np.repeat(values, size, axis=axis).take(np.arange(length), axis=axis)


_MOVES = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "MaxPool", "Gather", "Expand", "Identity"})


def clipped(
    nodes: Sequence[onnx.NodeProto],
    initializers: Iterable[onnx.TensorProto],
    emitter: Emitter,
    *,
    base_dir: str | os.PathLike[str] = ".",
) -> list[onnx.NodeProto]:
    """Replace QuantizeLinear on computed values by Clip, the DequantizeLinear behind it by nothing; weights stay dequantised.

    Operators that only move integers may stand between the two; they move floats then.

    Raises:
        UnsupportedOperator: scales per channel or computed, a pair with two scales, or integers used otherwise.
    """
    tensors = {t.name: t for t in initializers}
    constants = {n.output[0]: n for n in nodes if n.op_type == "Constant"}

    def value(name: str) -> np.ndarray | None:
        if name in tensors:
            return array_of(tensors[name], base_dir)
        return constant_value(constants[name]) if name in constants else None

    def grid(node: onnx.NodeProto) -> tuple[float, np.ndarray]:
        """Scale and zero point of a node with one of each."""
        scale = value(node.input[1])
        zero = value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros((), np.uint8)
        if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
            raise UnsupportedOperator(f"node {node.name!r}: {node.op_type} without one constant scale has no clip surrogate.")
        return float(scale.reshape(())), zero.reshape(())

    grids: dict[str, tuple[float, np.ndarray]] = {}  # of values that were integers
    done: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type == "QuantizeLinear" and node.input[0] not in tensors and node.input[0] not in constants:
            scale, zero = grids[node.output[0]] = grid(node)
            ends = np.iinfo(zero.dtype)
            bounds = [np.asarray((float(end) - float(zero)) * scale, np.float32) for end in (ends.min, ends.max)]
            names = [emitter.constant(b) for b in bounds]
            done.append(helper.make_node("Clip", [node.input[0], *names], list(node.output), name=node.name))
            continue
        integers = [i for i in node.input if i in grids]
        if integers and node.op_type == "DequantizeLinear":
            if grid(node) != grids[node.input[0]]:
                raise UnsupportedOperator(f"node {node.name!r}: DequantizeLinear with another scale than its QuantizeLinear.")
            node = helper.make_node("Identity", [node.input[0]], list(node.output), name=node.name)
        elif integers:
            if node.op_type not in _MOVES or integers != [node.input[0]]:
                raise UnsupportedOperator(f"node {node.name!r}: {node.op_type} computes with integers; it has no clip surrogate.")
            grids.update({o: grids[integers[0]] for o in node.output if o})
        done.append(node)
    return done
