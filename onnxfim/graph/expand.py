"""Write functions, composites and fused nodes out in operators that the reader of the graph has rules for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import onnx
from onnx import TensorProto, numpy_helper

import onnxfim.graph.blocked_channels
import onnxfim.graph.fused
import onnxfim.graph.fused_attention
import onnxfim.graph.lower_geometry
import onnxfim.graph.lower_ml
import onnxfim.graph.packed_weights
import onnxfim.graph.recurrent  # noqa: F401 - their operators can be written out too
from onnxfim.errors import ModelError, OnnxFimError, UnsupportedOperator
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.inline import inlined, local_functions, schema_function
from onnxfim.graph.lower import lowered, op_name
from onnxfim.graph.shapes import STANDARD, Expand, Walk
from onnxfim.graph.unrolled import Unroller
from onnxfim.graph.upgrade import TARGET, settled

F = TypeVar("F", bound=Callable[..., Any])

_MOST = 1_000_000  # nodes that functions may expand to; a few short functions that call each other can ask for any number
HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def expansion(
    model: onnx.ModelProto, opset: int, emitter: Emitter, unroller: Unroller, *, keeps: Collection[str] = (), wide: bool = False
) -> Expand:
    """What `walk` asks for the nodes to put in place of a node.

    Args:
        model: The model, for its local functions.
        opset: Version of the standard operators that is written.
        emitter: Gives names and constants.
        unroller: Writes control flow out.
        keeps: Operators that the reader has rules for: they are not written out.
        wide: Whether half precision is computed in float32, in the bodies of functions too.

    Raises:
        ModelError: a function that calls itself.
        UnsupportedOperator: by the result, for a node that has no simpler form.
    """
    functions = local_functions(model)
    written = 0

    def expand(node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        nonlocal written
        before = len(emitter.constants)
        body = functions.get((node.domain, node.op_type, node.overload))
        kept = op_name(node) in keeps
        if body is None and not kept:
            body = schema_function(node, found, opset)
        if body is not None:
            written += len(body.node)
            if written > _MOST:
                raise ModelError(f"node {node.name!r}: functions expand to over {_MOST:,} nodes. Export without them.")
            inside = inlined(node, body, opset, emitter)
            for inner in inside if wide else ():
                widen(inner)
            unroller.written_for(inside, _version(body, opset))
            instead: list[onnx.NodeProto] | None = inside
        elif (instead := unroller(node, found)) is None:
            instead = settled(node, found, emitter)
            if instead is None and not kept:
                instead = lowered(node, found, emitter, opset)
        for tensor in emitter.constants[before:]:
            found.put(tensor.name, numpy_helper.to_array(tensor))
        return instead

    return expand


def unroller_of(model: onnx.ModelProto, emitter: Emitter, *, wide: bool = False) -> Unroller:
    """What writes the control flow of a model out; ``wide`` is as in `expansion`."""
    return Unroller(_version(model, TARGET), emitter, wide=wide, widen=widen)


def _version(holder: onnx.ModelProto | onnx.FunctionProto, default: int) -> int:
    """The operator set that a model or a function is written in."""
    return next((int(o.version) for o in holder.opset_import if o.domain in STANDARD), default)


def tolerant(expand: Expand, problems: dict[str, str]) -> Expand:
    """The same, but a node that has no simpler form stays as it is, and the reason is entered under its first output."""

    def attempt(node: onnx.NodeProto, found: Walk) -> list[onnx.NodeProto] | None:
        try:
            return expand(node, found)
        except OnnxFimError as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - a malformed node: the reason is told where it matters
            why = unfit(node, error)
        problems.update(dict.fromkeys(node.output[:1], why))
        return None

    return attempt


def unfit(node: onnx.NodeProto, error: Exception) -> str:
    """What to say of a node that its operator does not allow."""
    text = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return f"node {node.name!r}, op {op_name(node)}: its inputs or attributes do not fit it ({text})"


def told_unfit(function: F) -> F:
    """The function, which tells of a graph whose nodes do not fit one another as of an operator that it has no rule for.

    Rules read shapes and attributes as the operators' definitions give them. A file may break those and still be run, or be refused
    by the runtime alone.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except (OnnxFimError, MemoryError):
            raise
        except Exception as error:
            text = (str(error).splitlines() or [""])[0][:200]
            raise UnsupportedOperator(
                f"graph: its nodes' shapes or attributes do not fit one another ({type(error).__name__}: {text})"
            ) from error

    return wrapped  # type: ignore[return-value]


def widen(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node with float32 in place of half precision in its attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in HALF:
            value = numpy_helper.to_array(attribute.t).astype("float32")
            attribute.t.CopyFrom(numpy_helper.from_array(value))
        elif attribute.name in ("to", "dtype") and attribute.i in HALF:
            attribute.i = TensorProto.FLOAT
    return node
