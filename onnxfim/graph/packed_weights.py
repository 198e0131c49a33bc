"""Products with weights of a few bits, written out: the weights are unpacked to floats, and a MatMul takes them.

The activations stay as they are. Where the runtime rounds them inside such a product, that is not written.

Source: onnxruntime's docs/ContribOperators.md, and core/mlas/inc and contrib_ops/cpu/quantization for the packing.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from onnxfim.graph.lower import Scratch, lowering

# Values of 4-bit floats as bitsandbytes writes them: FP4, NF4.
_TABLES = (
    (0.0, 0.005208333333, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25,
     -0.0, -0.005208333333, -0.66666667, -1.0, -0.33333333, -0.5, -0.16666667, -0.25),
    (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)  # fmt: skip


@lowering("com.microsoft.MatMulNBits")
def _blocked_integers(s: Scratch) -> str:
    """``A Wᵀ + bias`` with ``W = (q − zero)·scale``, a zero and a scale for each block along K."""
    if s.integer("weight_prepacked", 0):
        raise s.refuse("its weights are packed for one provider's kernel")
    n, k, bits, size = (s.integer(name, default) for name, default in (("N", 0), ("K", 0), ("bits", 4), ("block_size", 32)))
    if min(n, k, size) < 1 or bits not in (1, 2, 4, 8):
        raise s.refuse(f"weights of {bits} bits in blocks of {size}")
    blocks = -(-k // size)
    q = _digits(s, s.inputs[1], bits, [n, blocks, size])
    scales = s.write("Reshape", s.inputs[2], [n, blocks])
    zeros = _zero_points(s, s.get(3), bits, n, blocks)
    if s.get(4):  # the block of each row of the weights, where they are not in order
        order = s.write("Cast", s.write("Slice", s.inputs[4], [0], [k], [0]), to=int(TensorProto.INT64))
        q = s.write("Slice", s.write("Reshape", q, [n, blocks * size]), [0], [k], [1])
        scales = s.write("Gather", scales, order, axis=1)
        zeros = zeros if isinstance(zeros, float) else s.write("Gather", zeros, order, axis=1)
        weights = s.write("Mul", s.write("Sub", q, zeros), scales)
    else:
        zeros = zeros if isinstance(zeros, float) else s.write("Unsqueeze", zeros, [2])
        whole = s.write("Mul", s.write("Sub", q, zeros), s.write("Unsqueeze", scales, [2]))
        weights = s.write("Slice", s.write("Reshape", whole, [n, blocks * size]), [0], [k], [1])
    product = s.write("MatMul", s.inputs[0], s.write("Transpose", weights, perm=[1, 0]))
    return s.write("Add", product, s.inputs[5]) if s.get(5) else product


@lowering("com.microsoft.MatMulBnb4")
def _blocked_floats(s: Scratch) -> str:
    """``A Wᵀ`` with entries of a table of 16 values, each block of the flattened W times its largest magnitude."""
    kind = s.integer("quant_type", 1)
    if kind not in (0, 1) or not s.integer("transB", 1):
        raise s.refuse(f"a quant_type of {kind}, or weights that are not transposed")
    n, k, size = (s.integer(name, 0) for name in ("N", "K", "block_size"))
    blocks = -(-n * k // size)
    index = s.write("Slice", _digits(s, s.inputs[1], 4, [-1], first="high"), [0], [n * k], [0])
    values = s.write("Gather", np.asarray(_TABLES[kind], s.dtype), s.write("Cast", index, to=int(TensorProto.INT64)))
    largest = s.write("Expand", s.write("Reshape", s.inputs[2], [blocks, 1]), [blocks, size])
    largest = s.write("Slice", s.write("Reshape", largest, [blocks * size]), [0], [n * k], [0])
    weights = s.write("Reshape", s.write("Mul", values, largest), [n, k])
    return s.write("MatMul", s.inputs[0], s.write("Transpose", weights, perm=[1, 0]))


def _zero_points(s: Scratch, name: str, bits: int, n: int, blocks: int) -> str | float:
    """Zero points (N, blocks), packed like the weights or as floats; the middle of the range where there are none."""
    if not name:
        return float(2 ** (bits - 1))
    if s.found.elem.get(name, TensorProto.UINT8) != TensorProto.UINT8:
        return s.write("Reshape", name, [n, blocks])
    packed = -(-blocks * bits // 8)
    return s.write("Slice", _digits(s, name, bits, [n, packed * 8 // bits]), [0], [blocks], [1])


def _digits(s: Scratch, name: str, bits: int, shape: list[int], *, first: str = "low") -> str:
    """The numbers of ``bits`` bits that bytes hold, as floats: exact, and by arithmetic that every provider has."""
    rest = s.write("Cast", s.write("Reshape", name, [-1, 1]), to=int(helper.np_dtype_to_tensor_dtype(s.dtype)))
    parts: list[str] = []
    for _ in range(8 // bits - 1):
        above = s.write("Floor", s.write("Mul", rest, 2.0**-bits))
        parts.append(s.write("Sub", rest, s.write("Mul", above, 2.0**bits)))
        rest = above
    parts.append(rest)
    ordered = parts if first == "low" else parts[::-1]
    return s.write("Reshape", s.write("Concat", *ordered, axis=1) if len(ordered) > 1 else rest, shape)
