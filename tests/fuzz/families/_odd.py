"""Odd values for whatever a file can say: numbers, names, shapes, types, attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

T = TypeVar("T")

NUMBERS = (
    0,
    1,
    -1,
    2,
    -2,
    3,
    7,
    127,
    128,
    255,
    1 << 16,
    -(1 << 31),
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    -(1 << 63),
    (1 << 63) - 1,
    1000,
    10**6,
)
REALS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, -1e38, float("inf"), -float("inf"), float("nan"))
NAMES = (
    "", " ", "x", "z", "é", "\x1b[31mred", "a\nb", "a\r", "\u202eabc", "\x00", "a\tb", "<script>alert(1)</script>", "[/bold]", "{{ 7*7 }}", "%s%n", "../../etc",
    "n" * 3000, "\ufeff", "\x9b31m", "=1+1", "|", "`", "_", "GH-1", "😀", "a'b\"c", "\\", "\x7f", "a b", "\u2028", "名前",
)  # fmt: skip
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "org.nowhere", "\x1b[1m", "ai.onnx.training", "own")
DIMS = (0, 1, 2, 3, 5, -1, -(1 << 63), (1 << 63) - 1, 1 << 31, 10**9, 1 << 20)
OPERATORS = (
    "Add", "Relu", "Identity", "MatMul", "Gemm", "Conv", "Cast", "Reshape", "Transpose", "Concat", "Split", "Slice", "Gather", "Where", "ReduceMean", "Softmax",
    "Constant", "Shape", "Expand", "Loop", "If", "Scan", "LSTM", "MaxPool", "Clip", "Pad", "Einsum", "TopK", "NonZero", "Resize", "QuantizeLinear",
    "DequantizeLinear", "LayerNormalization", "BatchNormalization", "InstanceNormalization", "Dropout", "ConstantOfShape", "Range", "Squeeze", "Unsqueeze",
    "Flatten", "Pow", "Frobnicate", "", "\x1b[31m", "ArgMax", "OneHot", "CumSum", "ScatterND", "GatherND", "SequenceConstruct", "StringNormalizer", "Optional",
    "DepthToSpace", "Tile", "Trilu", "Mod", "BitShift", "Sqrt", "Log", "Reciprocal", "HardSwish", "PRelu", "Upsample", "AveragePool", "ConvTranspose", "GRU",
    "NonMaxSuppression", "Bernoulli", "RandomNormal", "EyeLike", "Size", "Compress", "Unique", "Gelu", "Mish", "GroupNormalization", "Hardmax", "LRN", "MeanVarianceNormalization",
)  # fmt: skip


def one(rng: np.random.Generator, among: Sequence[T]) -> T:
    """Any of these."""
    if not among:
        raise IndexError("nothing to choose from")
    return among[int(rng.integers(len(among)))]


def name(rng: np.random.Generator, proto: onnx.ModelProto) -> str:
    """A name: one of the graph's own, or an odd one."""
    known = [n for node in proto.graph.node for n in (*node.input, *node.output)] + [t.name for t in proto.graph.initializer]
    return one(rng, known) if known and rng.random() < 0.6 else one(rng, NAMES)


def tensor(rng: np.random.Generator) -> onnx.TensorProto:
    """A tensor: right, of an odd type or shape, or with more or less data than its shape says."""
    shape = tuple(int(n) for n in rng.integers(0, 4, int(rng.integers(0, 4))))
    kind = int(rng.integers(9))
    made = numpy_helper.from_array(
        rng.standard_normal(shape).astype(one(rng, ["float32", "float64", "float16", "int64", "bool", "int8"])), "t"
    )
    if kind == 0:
        made.data_type = int(rng.integers(0, 30))
    elif kind == 1:
        made.dims.append(one(rng, DIMS))
    elif kind == 2 and made.dims:
        made.dims[0] = one(rng, DIMS)
    elif kind == 3:
        made.raw_data = made.raw_data[: int(rng.integers(len(made.raw_data) + 1))]
    elif kind == 4:
        made.float_data.extend([1.0, 2.0])
    elif kind == 5:
        made.string_data.append(b"\xff\xfe")
    elif kind == 6:
        made = TensorProto()
    elif kind == 7:
        made.CopyFrom(numpy_helper.from_array(np.array([b"a", b"\xff"], dtype=object), "s"))
    return made


def attribute(rng: np.random.Generator, called: str) -> onnx.AttributeProto:
    """An attribute of any type; often its type and its value do not fit."""
    made = AttributeProto()
    made.name = called
    made.type = int(rng.integers(0, 15))
    fill: list[Callable[[], object]] = [
        lambda: setattr(made, "i", one(rng, NUMBERS)),
        lambda: setattr(made, "f", one(rng, REALS)),
        lambda: setattr(
            made, "s", one(rng, [b"", b"\xff\xfe", b"SAME_UPPER", b"NOTSET", b"linear", b"\x1b[31m", b"ij,jk->ik", b"x" * 3000])
        ),
        lambda: made.ints.extend(one(rng, NUMBERS) for _ in range(int(rng.integers(0, 5)))),
        lambda: made.floats.extend(one(rng, REALS) for _ in range(int(rng.integers(0, 5)))),
        lambda: made.strings.extend([b"\xff", b"Tanh", b""]),
        lambda: made.t.CopyFrom(tensor(rng)),
        lambda: made.g.CopyFrom(helper.make_graph([], "g", [], [])),
        lambda: made.sparse_tensor.CopyFrom(onnx.SparseTensorProto(values=tensor(rng), indices=tensor(rng), dims=[2, 3])),
        lambda: made.tensors.append(tensor(rng)),
        lambda: made.graphs.append(helper.make_graph([], "g", [], [])),
        lambda: setattr(made, "ref_attr_name", "alpha"),
        lambda: made.tp.CopyFrom(helper.make_tensor_type_proto(1, [2])),
        lambda: None,
    ]
    which = int(rng.integers(len(fill)))
    fill[which]()
    fits = (AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING, AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS,
            AttributeProto.TENSOR, AttributeProto.GRAPH, AttributeProto.SPARSE_TENSOR, AttributeProto.TENSORS, AttributeProto.GRAPHS)  # fmt: skip
    if which < len(fits) and rng.random() < 0.7:
        made.type = fits[which]
    return made


CONSTANTS = (
    "value",
    "value_float",
    "value_floats",
    "value_int",
    "value_ints",
    "value_string",
    "value_strings",
    "sparse_value",
    "nothing",
    "",
)
ATTRIBUTES = (
    "axis", "axes", "keepdims", "perm", "alpha", "beta", "transA", "transB", "to", "kernel_shape", "pads", "strides", "dilations", "group", "auto_pad", "epsilon",
    "mode", "value", "shape", "split", "num_outputs", "then_branch", "else_branch", "body", "ceil_mode", "noop_with_empty_axes", "exclusive", "equation", "blocksize",
    "stash_type", "broadcast", "min", "max", "hidden_size", "direction", "num_scan_inputs", "saturate", "block_size", "domain", "nodes_values", "consumed_inputs",
)  # fmt: skip
