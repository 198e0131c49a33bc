"""The one walk over a graph: shapes, element types and the values of constants, for every batch size or for one sample.

To be differentiated, a graph is walked at two batch sizes. With numbers in place of symbols every exporter's
Shape/Gather/Concat chain is a constant, so all shapes are known; what differs between the two walks is what depends on
the batch. To be bounded, it is walked once for one sample, and what cannot be told stays open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxfim.errors import ModelError

STANDARD = ("", "ai.onnx")
_SMALL = 65_536  # elements of a value that is worth computing ahead
#: Larger results of constant folding are left alone: a hostile file must not fill the memory.
MAX_FOLDED = 1 << 26
_HINT = 4096  # elements of a constant that shape inference may look at
#: Left to the runtime: random, or slow or differing from the runtime in the reference evaluator (its LRN skips channels).
_AT_RUN_TIME = frozenset(
    [
        *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"),
        *("LRN", "AveragePool", "MaxPool", "LpPool", "Conv", "ConvTranspose", "Resize"),
    ]
)
#: Operators whose evaluation is one array operation, so that large results are worth having (stored weights, their layout).
_CHEAP = frozenset(
    [
        *("Abs", "Add", "Cast", "Clip", "Concat", "ConstantOfShape", "DequantizeLinear", "Div", "Exp", "Expand", "Flatten"),
        *("Floor", "Gather", "Gemm", "Identity", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Pad", "Pow", "Reciprocal"),
        *("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Sigmoid"),
        *("Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze"),
        "Where",
    ]
)
#: Operators whose first output has the shape of their first input though inference does not say so: the runtime's own, and
#: those that the standard defines by a body.
_LIKE_INPUT = frozenset(
    [
        *("SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "MultiHeadAttention"),
        "RotaryEmbedding",
        *("Gelu", "HardSwish", "Mish", "Celu", "ThresholdedRelu", "GroupNormalization", "RMSNormalization"),
        *("MeanVarianceNormalization", "LpNormalization", "Normalizer", "Imputer"),
    ]
)


@dataclass(frozen=True)
class Batch:
    """A dimension that is ``factor`` times the batch size."""

    factor: int


Dim: TypeAlias = "int | Batch"
Shape: TypeAlias = "tuple[Dim, ...]"
OpenShape: TypeAlias = "tuple[int | None, ...]"


class TraceError(ModelError):
    """A shape does not work out at the batch size that was tried; ``node`` is the name of the one whose inference says so."""

    def __init__(self, message: str, node: str | None = None) -> None:
        super().__init__(message)
        self.node = node


@dataclass
class Walk:
    """What one walk found: shapes in numbers, ONNX element types, values of constants.

    ``open`` holds the shapes of which only some dimensions are known. ``origin`` tells for each node walked which of the
    nodes given it was written out from. ``read`` gives the value of a weight that is not in ``values``. ``unrolled`` counts the
    nodes that control flow and recurrent operators were written out to, ``room`` the elements that constants may take from there.
    """

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    open: dict[str, OpenShape] = field(default_factory=dict)
    elem: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    origin: list[int] = field(default_factory=list)
    read: Callable[[str], np.ndarray | None] | None = None
    weights: set[str] = field(default_factory=set)
    unrolled: int = 0
    room: int = MAX_FOLDED

    def put(self, name: str, value: np.ndarray) -> None:
        self.values[name] = value
        self.shapes[name] = value.shape
        self.elem[name] = helper.np_dtype_to_tensor_dtype(value.dtype)

    def shape(self, name: str) -> OpenShape | None:
        """The shape as far as it is known; None where not even the rank is."""
        found = self.shapes.get(name)
        return self.open.get(name) if found is None else found

    def put_shape(self, name: str, shape: Sequence[int | None]) -> None:
        known = tuple(d for d in shape if d is not None)
        if len(known) == len(shape):
            self.shapes[name] = known
        else:
            self.open[name] = tuple(shape)

    def known(self, name: str) -> bool:
        """Whether the value is known before the model runs."""
        return name in self.values or name in self.weights

    def value(self, name: str) -> np.ndarray | None:
        """The value of a constant, a large weight read from the file."""
        found = self.values.get(name)
        return self.read(name) if found is None and self.read is not None and name in self.weights else found


@dataclass(frozen=True)
class Trace:
    """Shapes with their dependence on the batch, element types, and values that do not depend on the batch."""

    shapes: Mapping[str, Shape]
    elem: Mapping[str, int]
    values: Mapping[str, np.ndarray]


Expand: TypeAlias = "Callable[[onnx.NodeProto, Walk], list[onnx.NodeProto] | None]"


def walk(
    nodes: Iterable[onnx.NodeProto],
    initializers: Iterable[onnx.TensorProto],
    inputs: Mapping[str, tuple[int, Sequence[int | None] | None]],
    *,
    opset: int,
    expand: Expand | None = None,
    read: Callable[[str], np.ndarray | None] | None = None,
) -> tuple[Walk, list[onnx.NodeProto]]:
    """Infer every shape, compute constants, and replace nodes on the way.

    Args:
        nodes: Nodes in topological order.
        initializers: Weights; the values of small ones are read.
        inputs: Element type and shape of each graph input.
        opset: Version of the standard operators.
        expand: Gives the nodes to walk in place of a node, or None to keep it.
        read: Reads any weight by name. With it the walk folds large constants too, takes open dimensions, and leaves what does
            not work out unknown.

    Raises:
        TraceError: shapes do not fit each other (never where weights can be read).
    """
    found = Walk(read=read)
    for tensor in initializers:
        found.shapes[tensor.name] = tuple(tensor.dims)
        found.elem[tensor.name] = tensor.data_type
        if read is not None:
            found.weights.add(tensor.name)
        elif math.prod(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            found.put(tensor.name, numpy_helper.to_array(tensor))
    for name, (elem_type, shape) in inputs.items():
        found.elem[name] = elem_type
        if shape is not None:
            found.put_shape(name, shape)
    todo = list(enumerate(nodes))[::-1]
    done: list[onnx.NodeProto] = []
    while todo:
        origin, node = todo.pop()
        instead = expand(node, found) if expand else None
        if instead is not None:
            todo.extend((origin, n) for n in instead[::-1])
            continue
        try:
            _visit(node, found, opset)
        except Exception:  # a malformed node: what it makes is unknown, and a rule that needs it will say so
            if read is None:
                raise
        found.origin.append(origin)
        done.append(node)
    return found, done


def _visit(node: onnx.NodeProto, found: Walk, opset: int) -> None:
    if node.op_type == "Constant" and node.domain in STANDARD:
        value = constant_value(node, most=_SMALL if found.read is None else MAX_FOLDED) if node.attribute else None
        if value is not None:
            found.put(node.output[0], value)
            return
    lenient = found.read is not None
    if not lenient and any(i and i not in found.shapes for i in node.input):
        return
    if node.op_type == "Shape" and node.domain in STANDARD:
        _measure(node, found)
        return
    _infer(node, found, opset)
    output = node.output[0] if node.output else ""
    if node.op_type in ("AveragePool", "MaxPool", "LpPool") and found.shape(output) is not None:
        _drop_windows(node, found)
    if not lenient and node.op_type == "Reshape" and output in found.shapes:
        before, after = (math.prod(found.shapes[n]) for n in (node.input[0], output))
        if before != after:
            raise TraceError(f"node {node.name!r}: {before} elements cannot be reshaped to {found.shapes[output]}.")
    _evaluate(node, found, opset)


def _measure(node: onnx.NodeProto, found: Walk) -> None:
    attributes = {a.name: a.i for a in node.attribute}
    whole = found.shape(node.input[0])
    shape = (None,) if whole is None else whole[attributes.get("start", 0) : attributes.get("end")]
    if None not in shape:
        found.put(node.output[0], np.asarray(shape, np.int64))


def _infer(node: onnx.NodeProto, found: Walk, opset: int) -> None:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain if node.domain not in STANDARD else "")
    except onnx.defs.SchemaError:
        _infer_alone(node, found)
        return
    lenient = found.read is not None
    if lenient and any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return
    names = [i for i in node.input if i]
    types = {n: helper.make_tensor_type_proto(found.elem.get(n, TensorProto.FLOAT), found.shape(n)) for n in names}
    hints = (n for n in dict.fromkeys(names) if found.known(n) and math.prod(found.shapes[n]) <= _HINT)
    imports = [helper.make_opsetid("", opset)]
    try:
        data = {n: numpy_helper.from_array(value, n) for n in hints if (value := found.value(n)) is not None}
        outputs = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
    except onnx.shape_inference.InferenceError as error:
        if lenient:
            return
        why = str(error).splitlines()[0]
        raise TraceError(f"node {node.name or node.output[0]!r} ({node.op_type}): {why}", node.name or None) from error
    except Exception:  # noqa: BLE001 - inference has no answer here (a subgraph, a missing schema); a rule will say so if it matters
        return
    for name, kind in outputs.items():
        if not name or not kind.HasField("tensor_type"):
            continue
        found.elem[name] = kind.tensor_type.elem_type
        if kind.tensor_type.HasField("shape"):
            found.put_shape(name, [d.dim_value if d.HasField("dim_value") else None for d in kind.tensor_type.shape.dim])
    if node.output and found.shape(node.output[0]) is None:
        _infer_alone(node, found)


def _infer_alone(node: onnx.NodeProto, found: Walk) -> None:
    """Shapes that the standard's inference does not tell."""
    if node.domain not in (*STANDARD, "com.microsoft", "ai.onnx.ml") or not node.input or not node.output:
        return
    x = found.shape(node.input[0])
    if node.op_type == "Attention" and x is not None and len(node.input) > 1:
        weight = found.shape(node.input[1])
        widths = next((list(a.ints) for a in node.attribute if a.name == "qkv_hidden_sizes"), [])
        total = weight[1] if weight is not None and len(weight) == 2 else None
        x = (*x[:-1], widths[2] if len(widths) > 2 else None if total is None else total // 3)
    elif node.op_type not in _LIKE_INPUT:
        return
    if node.input[0] in found.elem:
        found.elem[node.output[0]] = found.elem[node.input[0]]
    if x is not None:
        found.put_shape(node.output[0], x)


def _drop_windows(node: onnx.NodeProto, found: Walk) -> None:
    """With ceil_mode, no window starts behind the cells and the padding in front; shape inference counts those too."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if not attributes.get("ceil_mode") or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return
    x, y = found.shape(node.input[0]) or (), found.shape(node.output[0]) or ()
    rank = len(x) - 2
    if "kernel_shape" not in attributes or len(y) != len(x):
        return
    ones = [1] * rank
    strides, pads = attributes.get("strides", ones), attributes.get("pads", [0] * 2 * rank)
    extent = [(k - 1) * d + 1 for k, d in zip(attributes["kernel_shape"], attributes.get("dilations", ones), strict=True)]
    out: list[int | None] = []
    for h, s, e, begin, end in zip(x[2:], strides, extent, pads[:rank], pads[rank:], strict=True):
        count = None if h is None else -(-(h + begin + end - e) // s) + 1
        out.append(count - 1 if h is not None and count is not None and (count - 1) * s >= h + begin else count)
    for name in node.output:
        if name:
            found.put_shape(name, (*y[:2], *out))


def _evaluate(node: onnx.NodeProto, found: Walk, opset: int) -> None:
    """Compute the outputs of a node whose inputs are all known, where they are small or cheap to have."""
    names = [i for i in node.input if i]
    if not names or node.op_type in _AT_RUN_TIME or node.domain not in STANDARD or not all(map(found.known, names)):
        return
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return
    outputs = [o for o in node.output if o]
    most = MAX_FOLDED if found.read is not None and node.op_type in _CHEAP else _SMALL
    if found.unrolled:  # a turn that makes a large constant makes one in each turn
        most = min(most, max(found.room, _SMALL))
    if any(math.prod(found.shapes[n]) > most for n in (*names, *outputs) if n in found.shapes):
        return
    if any(o not in found.shapes for o in outputs) and node.op_type not in ("NonZero", "Slice", "Reshape"):
        return
    from onnx.reference import ReferenceEvaluator  # here: many models have nothing to compute ahead

    try:
        copy = node.op_type == "Sum"  # the evaluator adds into the first of them
        feeds = {n: np.array(found.value(n), copy=True) if copy else found.value(n) for n in names}
        results = ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)
    except Exception:  # noqa: BLE001 - not computed ahead; the runtime computes it
        return
    for name, value in zip(node.output, results, strict=False):
        if name and isinstance(value, (np.ndarray, np.generic)) and value.size <= most:
            found.put(name, np.asarray(value))
            found.room -= value.size if found.unrolled else 0


def constant_value(node: onnx.NodeProto, *, most: int = _SMALL) -> np.ndarray | None:
    """The value of a Constant node, or None for kinds that are not tensors and for more elements than ``most``."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        if math.prod(attribute.t.dims) > most or attribute.t.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return np.asarray(numpy_helper.to_array(attribute.t))
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(helper.get_attribute_value(attribute), np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(helper.get_attribute_value(attribute), np.int64)
    return None


def merge(first: Walk, second: Walk, *, first_batch: int, second_batch: int) -> Trace:
    """Join two walks at different batch sizes into what holds for every batch size.

    Raises:
        TraceError: a shape that does not grow in proportion to the batch.
    """
    shapes: dict[str, Shape] = {}
    for name, a in first.shapes.items():
        b = second.shapes.get(name)
        if b is None:
            continue
        if len(a) != len(b):
            raise TraceError(f"value {name!r}: its rank depends on the batch size ({a} against {b}).")
        shapes[name] = tuple(
            _dim(name, i, j, first_batch=first_batch, second_batch=second_batch) for i, j in zip(a, b, strict=True)
        )
    values = {n: v for n, v in first.values.items() if n in second.values and _same(v, second.values[n])}
    return Trace(shapes, first.elem, values)


def _dim(name: str, a: int, b: int, *, first_batch: int, second_batch: int) -> Dim:
    if a == b:
        return a
    factor, rest = divmod(b - a, second_batch - first_batch)
    if rest or factor <= 0 or a != factor * first_batch:
        raise TraceError(f"value {name!r}: a dimension is {a} at batch {first_batch} and {b} at batch {second_batch}.")
    return Batch(factor)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
