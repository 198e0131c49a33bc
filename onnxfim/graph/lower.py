"""Write composite operators out in simpler ones, so that they need no derivative rule of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, cast

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfim.errors import UnsupportedOperator
from onnxfim.graph.emitter import AttributeValue, Emitter, Operand
from onnxfim.graph.shapes import STANDARD, Walk
from onnxfim.graph.upgrade import TARGET, attributes_of


class Scratch:
    """A node to write out: its attributes, what is known of its inputs, and a pen."""

    def __init__(self, node: onnx.NodeProto, found: Walk, emitter: Emitter, opset: int) -> None:
        self.node = node
        self.opset = opset
        self.found = found
        self.emitter = emitter
        self.attributes = attributes_of(node)
        self.inputs = list(node.input)
        self.further: dict[int, str] = {}  # outputs behind the first, where written
        elem = next((found.elem[i] for i in node.input if i in found.elem), TensorProto.FLOAT)
        self.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(elem))

    def get(self, index: int) -> str:
        return self.inputs[index] if index < len(self.inputs) else ""

    def real(self, name: str, default: float) -> float:
        return float(cast("float", self.attributes.get(name, default)))

    def integer(self, name: str, default: int) -> int:
        return int(cast("int", self.attributes.get(name, default)))

    def shape(self, index: int = 0) -> tuple[int, ...]:
        try:
            return self.found.shapes[self.inputs[index]]
        except (KeyError, IndexError):
            raise self.refuse(f"the shape of {self.get(index)!r} cannot be worked out") from None

    def rank(self, index: int = 0) -> int:
        found = self.found.shape(self.get(index))
        if found is None:
            raise self.refuse(f"the rank of {self.get(index)!r} cannot be worked out")
        return len(found)

    def kept(self, *names: str) -> dict[str, AttributeValue]:
        """Those of the attributes that the node has."""
        return {k: cast("AttributeValue", v) for k, v in self.attributes.items() if k in names}

    def refuse(self, reason: str) -> UnsupportedOperator:
        return UnsupportedOperator(f"node {self.node.name!r}: {self.node.op_type} cannot be written out: {reason}.")

    def write(self, op_type: str, *inputs: Operand, **attributes: AttributeValue) -> str:
        names = [self.emitter.operand(i, self.dtype) for i in inputs]
        while names and not names[-1]:
            names.pop()
        return self.emitter.emit(op_type, *names, **attributes)

    def split(self, x: str, sizes: Sequence[int], *, axis: int) -> tuple[str, ...]:
        """``x`` cut along ``axis`` into parts of these sizes."""
        if len(sizes) == 1:
            return (x,)
        return self.emitter.emit_many("Split", (x, self.emitter.operand(sizes, self.dtype)), {"axis": axis}, outputs=len(sizes))


_MIRRORS: dict[str, Literal["reflect", "edge", "wrap"]] = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
_FACTORS = 256  # of a product that is written out
Lowering: TypeAlias = "Callable[[Scratch], str | None]"
LOWERINGS: dict[str, Lowering] = {}


def lowering(*ops: str) -> Callable[[Lowering], Lowering]:
    """Register a function that writes an operator's first output ("" where nothing reads it); None leaves the node as it is."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(ops, function))
        return function

    return register


def op_name(node: onnx.NodeProto) -> str:
    """Operator type, with its domain in front where that is not the standard one."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def lowered(node: onnx.NodeProto, found: Walk, emitter: Emitter, opset: int = TARGET) -> list[onnx.NodeProto] | None:
    """The nodes of the standard operators of set ``opset`` to put in place of a node, or None to keep it."""
    function = LOWERINGS.get(op_name(node))
    if function is None:
        return None
    emitter.forget()
    start = len(emitter.nodes)
    scratch = Scratch(node, found, emitter, opset)
    result = function(scratch)
    further = {i: o for i, o in enumerate(node.output) if i and o}
    if result is None or not scratch.further.keys() >= further.keys():
        return None
    nodes = emitter.nodes[start:]
    for written in nodes:
        written.name = node.name  # what they compute is what the file's node computes
    if node.output[0]:
        nodes.append(helper.make_node("Identity", [result], [node.output[0]], name=node.name))
    nodes.extend(helper.make_node("Identity", [scratch.further[i]], [o], name=node.name) for i, o in further.items())
    return nodes


# normalisations


def _standardised(s: Scratch, x: str, axes: Sequence[int], epsilon: float) -> str:
    """(x − mean) / √(variance + ε) over ``axes``."""
    centred = s.write("Sub", x, s.write("ReduceMean", x, list(axes)))
    variance = s.write("ReduceMean", s.write("Mul", centred, centred), list(axes))
    return s.write("Div", centred, s.write("Sqrt", s.write("Add", variance, epsilon)))


def _channelwise(s: Scratch, x: str, scale: str, bias: str, rank: int) -> str:
    columns = [s.write("Reshape", t, [-1, *[1] * (rank - 2)]) for t in (scale, bias)]
    return s.write("Add", s.write("Mul", x, columns[0]), columns[1])


@lowering("InstanceNormalization")
def _instance(s: Scratch) -> str:
    rank = s.rank()
    unit = _standardised(s, s.inputs[0], range(2, rank), s.real("epsilon", 1e-5))
    return _channelwise(s, unit, s.inputs[1], s.inputs[2], rank)


@lowering("GroupNormalization")
def _group(s: Scratch) -> str:
    """Scale and bias per group before set 21, per channel since."""
    x, scale, bias = s.inputs
    groups, channels = s.integer("num_groups", 1), s.shape()[1]
    spread = s.write("Reshape", x, [0, groups, -1])
    unit = _standardised(s, spread, [2], s.real("epsilon", 1e-5))
    unit = s.write("Reshape", unit, s.write("Shape", x))
    if s.shape(1)[0] != channels:
        share = channels // groups
        scale, bias = (
            s.write("Reshape", s.write("Expand", s.write("Reshape", t, [-1, 1]), [groups, share]), [-1]) for t in (scale, bias)
        )
    return _channelwise(s, unit, scale, bias, len(s.shape()))


def root_mean_square(s: Scratch, x: str, scale: str, axis: int, epsilon: float) -> str:
    """x / √(mean of x² + ε) · scale over the axes from ``axis`` on."""
    rank = s.rank()
    mean = s.write("ReduceMean", s.write("Mul", x, x), list(range(axis % rank - rank, 0)))
    return s.write("Mul", s.write("Div", x, s.write("Sqrt", s.write("Add", mean, epsilon))), scale)


@lowering("RMSNormalization", "SimplifiedLayerNormalization")
def _rms(s: Scratch) -> str:
    return root_mean_square(s, s.inputs[0], s.inputs[1], s.integer("axis", -1), s.real("epsilon", 1e-5))


@lowering("LRN")
def _local_response(s: Scratch) -> str:
    """x / (bias + α · mean of squares over neighbouring channels)^β."""
    x, size, channels = s.inputs[0], s.integer("size", 1), s.shape()[1]
    squares = s.write("Reshape", s.write("Mul", x, x), [0, 1, channels, -1])
    before = (size - 1) // 2
    mean = s.write("AveragePool", squares, kernel_shape=[size, 1], pads=[before, 0, size - 1 - before, 0], count_include_pad=1)
    scaled = s.write("Mul", s.write("Reshape", mean, s.write("Shape", x)), s.real("alpha", 1e-4))
    return s.write("Div", x, s.write("Pow", s.write("Add", scaled, s.real("bias", 1.0)), s.real("beta", 0.75)))


@lowering("LpNormalization")
def _lp(s: Scratch) -> str:
    """x over its norm; ONNX Runtime's zero where that is zero."""
    norm = s.write("ReduceL1" if s.integer("p", 2) == 1 else "ReduceL2", s.inputs[0], [s.integer("axis", -1)])
    return s.write("Div", s.inputs[0], s.write("Where", s.write("Equal", norm, 0.0), 1.0, norm))


# shapes


@lowering("GlobalMaxPool")
def _global_max(s: Scratch) -> str:
    return s.write("ReduceMax", s.inputs[0], list(range(2, s.rank())))


@lowering("DepthToSpace")
def _depth_to_space(s: Scratch) -> str:
    _, c, h, w = s.shape()
    b = s.integer("blocksize", 1)
    column_first = s.attributes.get("mode", "DCR") == "DCR"
    split = [0, b, b, c // b**2, h, w] if column_first else [0, c // b**2, b, b, h, w]
    t = s.write(
        "Transpose", s.write("Reshape", s.inputs[0], split), perm=[0, 3, 4, 1, 5, 2] if column_first else [0, 1, 4, 2, 5, 3]
    )
    return s.write("Reshape", t, [0, c // b**2, h * b, w * b])


@lowering("SpaceToDepth")
def _space_to_depth(s: Scratch) -> str:
    _, c, h, w = s.shape()
    b = s.integer("blocksize", 1)
    t = s.write("Reshape", s.inputs[0], [0, c, h // b, b, w // b, b])
    return s.write("Reshape", s.write("Transpose", t, perm=[0, 3, 5, 1, 2, 4]), [0, c * b * b, h // b, w // b])


@lowering("Pad")
def _mirrored(s: Scratch) -> str | None:
    """Reflect, edge and wrap padding pick elements: one Gather per axis."""
    mode = str(s.attributes.get("mode", "constant"))
    pads = s.found.values.get(s.get(1))
    if mode not in _MIRRORS or pads is None:
        return None
    rank = len(s.shape())
    axes = s.found.values.get(s.get(3), np.arange(rank)) if s.get(3) else np.arange(rank)
    t: str = s.inputs[0]
    for axis, before, after in zip(axes, *pads.reshape(2, -1), strict=True):
        if before == 0 and after == 0:
            continue
        if before < 0 or after < 0:
            raise s.refuse("negative pads with a mirroring mode")
        index = np.arange(s.shape()[int(axis)])
        index = np.pad(index, (int(before), int(after)), mode=_MIRRORS[mode])
        t = s.write("Gather", t, [int(i) for i in index], axis=int(axis))
    return t


@lowering("MatMul")
def _vector_product(s: Scratch) -> str | None:
    """A one-dimensional operand becomes a matrix of one row or column."""
    a, b = s.inputs
    ranks = [len(s.found.shape(t) or (0, 0)) for t in (a, b)]
    if min(ranks) > 1:
        return None
    a = s.write("Unsqueeze", a, [0]) if ranks[0] == 1 else a
    b = s.write("Unsqueeze", b, [1]) if ranks[1] == 1 else b
    axes = [-1] * (ranks[1] == 1) + [-2] * (ranks[0] == 1)
    return s.write("Squeeze", s.write("MatMul", a, b), axes)


@lowering("Gather")
def _restrided(s: Scratch) -> str | None:
    """An exporter writes some reshapes as picking every element of the flattened value in order."""
    indices = s.found.values.get(s.inputs[1])
    shape = s.found.shapes.get(s.inputs[0], ())
    if indices is None or len(shape) != 1 or indices.size != shape[0] or (indices.reshape(-1) != np.arange(shape[0])).any():
        return None
    return s.write("Reshape", s.inputs[0], s.write("Shape", s.inputs[1]))


@lowering("CastLike")
def _cast_like(s: Scratch) -> str:
    return s.write("Cast", s.inputs[0], to=s.found.elem[s.inputs[1]])


@lowering("Dropout")
def _dropout(s: Scratch) -> str | None:
    training = s.found.values.get(s.get(2)) if s.get(2) else np.asarray(False)
    if training is None or training.any():
        return None
    if any(s.node.output[1:]):
        s.further[1] = s.write("Expand", np.asarray(True), s.write("Shape", s.inputs[0]))  # everything is kept
    return s.inputs[0]


@lowering("ReduceLogSum")
def _log_sum(s: Scratch) -> str:
    return s.write("Log", s.write("ReduceSum", *s.inputs, keepdims=int(s.integer("keepdims", 1) == 1)))


@lowering("ReduceProd")
def _product(s: Scratch) -> str | None:
    """The factors multiplied one by one: a quotient of the product has no value where a factor is zero."""
    x, rank = s.inputs[0], s.rank()
    axes = s.found.value(s.get(1)) if s.get(1) else np.arange(0 if s.integer("noop_with_empty_axes", 0) else rank)
    if axes is None:
        raise s.refuse("its axes are computed at run time")
    along = sorted(int(a) % rank for a in axes.reshape(-1))
    count = int(np.prod([s.shape()[a] for a in along]))
    if count > _FACTORS:
        raise s.refuse(f"it multiplies {count} numbers, at most {_FACTORS} are written out")
    for axis in along:
        factors = [s.write("Gather", x, [i], axis=axis) for i in range(s.shape()[axis])]
        x = functools.reduce(lambda a, b: s.write("Mul", a, b), factors)
    return x if s.integer("keepdims", 1) == 1 or not along else s.write("Squeeze", x, along)
