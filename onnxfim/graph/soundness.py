"""Says what is wrong with a file that protobuf can parse: text, tensors, attributes and nodes that no ONNX file may hold."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, numpy_helper

from onnxfim.errors import ModelError

_AGAIN = "Export the model again."
_LONGEST = 80  # characters of a foreign name within a message
_STANDARD = ("", "ai.onnx")
_SCHEMAS = (*_STANDARD, "ai.onnx.ml")
#: Text that only describes: where it is no UTF-8, what can be read of it is kept.
_REMARKS = frozenset({"doc_string", "producer_name", "producer_version", "denotation", "key", "value"})
#: The field that holds an attribute's value, by its type.
_FIELDS = {
    AttributeProto.AttributeType.Value(name): field
    for name, field in (
        ("FLOAT", "f"), ("INT", "i"), ("STRING", "s"), ("TENSOR", "t"), ("GRAPH", "g"), ("SPARSE_TENSOR", "sparse_tensor"),
        ("TYPE_PROTO", "tp"), ("FLOATS", "floats"), ("INTS", "ints"), ("STRINGS", "strings"), ("TENSORS", "tensors"),
        ("GRAPHS", "graphs"), ("SPARSE_TENSORS", "sparse_tensors"), ("TYPE_PROTOS", "type_protos"),
    )
}  # fmt: skip
_VALUES = frozenset(_FIELDS.values())
#: Fields of these types cannot be left out; an empty list and a zero may be.
_OBJECTS = (AttributeProto.TENSOR, AttributeProto.GRAPH, AttributeProto.SPARSE_TENSOR, AttributeProto.TYPE_PROTO)
#: Bits of one element in raw form, by the name of its type; types of later versions are not looked at.
_BITS = {
    "STRING": 0, "BOOL": 8, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "UINT32": 32, "INT32": 32, "UINT64": 64, "INT64": 64,
    "FLOAT16": 16, "BFLOAT16": 16, "FLOAT": 32, "DOUBLE": 64, "COMPLEX64": 64, "COMPLEX128": 128, "FLOAT8E4M3FN": 8,
    "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8, "FLOAT8E5M2FNUZ": 8, "FLOAT8E8M0": 8, "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4,
    "UINT2": 2, "INT2": 2,
}  # fmt: skip
_MOST_NODES = 15_000  # that the file's own functions may stand for: larger graphs take minutes to differentiate
#: Axes and numbers of the largest array that NumPy can make; it counts those of an empty one without its zeros.
_MOST_AXES, _MOST_NUMBERS = 64, 2**59
_CONSTANTS = frozenset(
    {"value", "sparse_value", "value_int", "value_ints", "value_float", "value_floats", "value_string", "value_strings"}
)


def check(model: onnx.ModelProto) -> None:
    """Raise where a file is not what ONNX allows, and the runtime or a reader of its graph would stumble.

    What the format leaves to operators (shapes and types that must fit each other) is not looked at. Text that only describes the
    model and is no UTF-8 is mended in place.

    Raises:
        ModelError: what, where, and what was expected; the file's name is for the caller to add.
    """
    _check_calls(model)
    own = frozenset((f.domain, f.name) for f in model.functions)
    stack: list[tuple[Message, str, _Scope]] = [(model, "model", _Scope(_opsets(model), own, False))]
    while stack:
        message, where, scope = stack.pop()
        if isinstance(message, onnx.FunctionProto):
            where, scope = f"function {shown(message.name)}", _Scope(_opsets(message), own, True)
        elif isinstance(message, onnx.NodeProto):
            where = _node_place(message)
        for part in _parts(message, where):
            if isinstance(part, TensorProto):
                check_tensor(part, where)
            else:
                stack.append((part, where, scope))
        if isinstance(message, onnx.NodeProto):
            _check_node(message, where, scope)


@dataclass(frozen=True)
class _Scope:
    """What holds around a node: versions by domain, the file's own operators, and whether attributes may be those of a function."""

    opsets: Mapping[str, int]
    own: frozenset[tuple[str, str]]
    in_function: bool


def shown(name: object) -> str:
    """A foreign name within a message: quoted, in visible characters, not endless."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    return repr(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _opsets(holder: Any) -> dict[str, int]:
    return {("" if o.domain in _STANDARD else o.domain): o.version for o in holder.opset_import}


def _node_place(node: onnx.NodeProto) -> str:
    label = node.name or next((o for o in node.output if o), "")
    return f"node {shown(label)}, op {shown(node.op_type)}"


def _parts(message: Message, where: str) -> Iterator[Message]:
    """The messages within one; its text is checked on the way."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from (value,) if isinstance(value, Message) else value
        elif field.type == FieldDescriptor.TYPE_STRING:
            for k, text in enumerate((value,) if isinstance(value, (str, bytes)) else value):
                if isinstance(text, bytes):
                    _mend(message, field.name, k, text, where)


def _mend(message: Message, field: str, place: int, text: bytes, where: str) -> None:
    if field not in _REMARKS:
        raise ModelError(
            f"{where}: the {field} {shown(text)} is no UTF-8 text, expected UTF-8. Rename it, or export the model again."
        )
    readable = text.decode("utf-8", "replace")
    if isinstance(getattr(message, field), (str, bytes)):
        setattr(message, field, readable)
    else:
        getattr(message, field)[place] = readable


def check_tensor(tensor: TensorProto, where: str) -> None:
    """Raise where a tensor's type, shape and data do not fit one another; data in other files are not looked at.

    Raises:
        ModelError: what does not fit.
    """
    place = f"{where}: tensor {shown(tensor.name)}" if tensor.name else f"{where}: its tensor"
    if isinstance(tensor.name, bytes):
        raise ModelError(f"{place} has a name that is no UTF-8 text, expected UTF-8. Rename it, or export the model again.")
    if tensor.data_type == TensorProto.UNDEFINED or tensor.data_type not in TensorProto.DataType.values():
        raise ModelError(f"{place} has element type {tensor.data_type}, which ONNX does not know. {_AGAIN}")
    if any(n < 0 for n in tensor.dims):
        raise ModelError(f"{place} has shape {_dims(tensor)}, expected no negative length. {_AGAIN}")
    if len(tensor.dims) > _MOST_AXES or math.prod(n for n in tensor.dims if n) > _MOST_NUMBERS:  # zeros do not make it less
        raise ModelError(
            f"{place} has shape {_dims(tensor)}, expected at most {_MOST_AXES} axes and {_MOST_NUMBERS:.1e} numbers. {_AGAIN}"
        )
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    count, bits = math.prod(tensor.dims), _BITS.get(TensorProto.DataType.Name(tensor.data_type))
    if bits is None:  # of a later version
        _check_readable(tensor, place)
        return
    if tensor.HasField("raw_data"):
        found, expected, what = len(tensor.raw_data), -(-count * bits // 8), "bytes"
        if bits == 0:
            raise ModelError(f"{place} holds text as raw bytes, expected a list of texts. {_AGAIN}")
    elif 0 < bits < 8:  # packed in ways that differ between versions
        _check_readable(tensor, place)
        return
    else:
        field, each = _typed(tensor.data_type)
        found, expected, what = len(getattr(tensor, field)), count * each, f"numbers in {field}"
    if found != expected:
        wanted = f"expected {expected:,} for shape {_dims(tensor)}"
        raise ModelError(f"{place} holds {found:,} {what}, {wanted}. The file is damaged: export it again.")
    if tensor.data_type == TensorProto.STRING and not all(_is_utf8(text) for text in tensor.string_data):
        raise ModelError(f"{place} holds text that is no UTF-8, expected UTF-8. {_AGAIN}")


def _check_readable(tensor: TensorProto, place: str) -> None:
    """Raise where a tensor's data cannot be read as its type and shape say, as onnx reads them."""
    try:
        numpy_helper.to_array(tensor)
    except Exception as error:
        kind = TensorProto.DataType.Name(tensor.data_type)
        reason = " ".join(str(error).split()).rstrip(".")
        wanted = f"expected numbers of type {kind} for shape {_dims(tensor)}"
        raise ModelError(f"{place} cannot be read ({reason}), {wanted}. The file is damaged: export it again.") from error


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def size_of(tensor: TensorProto) -> int | None:
    """Bytes of a tensor's data in raw form; None where its type has none, or is of a later version."""
    bits = _BITS.get(TensorProto.DataType.Name(tensor.data_type))
    return -(-math.prod(tensor.dims) * bits // 8) if bits else None


def _typed(data_type: int) -> tuple[str, int]:
    """The field that holds numbers of a type, and how many make one element."""
    fields = {
        TensorProto.FLOAT: ("float_data", 1), TensorProto.COMPLEX64: ("float_data", 2), TensorProto.DOUBLE: ("double_data", 1),
        TensorProto.COMPLEX128: ("double_data", 2), TensorProto.INT64: ("int64_data", 1), TensorProto.UINT32: ("uint64_data", 1),
        TensorProto.UINT64: ("uint64_data", 1), TensorProto.STRING: ("string_data", 1),
    }  # fmt: skip
    return fields.get(data_type, ("int32_data", 1))


def _dims(tensor: TensorProto) -> str:
    dims = list(tensor.dims)
    return f"({', '.join(map(str, dims[:8]))}{', …' if len(dims) > 8 else ''})"


def _check_calls(model: onnx.ModelProto) -> None:
    """Raise where functions call themselves, or by calling twice again and again stand for more nodes than anything could hold."""
    calls = {(f.domain, f.name): _called(f.node) for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    while len(sizes) < len(calls):
        ready = [k for k, called in calls.items() if k not in sizes and not (called.keys() & calls.keys()) - sizes.keys()]
        if not ready:
            name = ".".join(min(calls.keys() - sizes.keys()))
            raise ModelError(f"function {shown(name)}: calls itself, so it cannot be written out. {_AGAIN}")
        sizes.update({k: _size(calls[k], sizes) for k in ready})
    count = _size(_called(model.graph.node), sizes)
    if sizes and count > _MOST_NODES:
        raise ModelError(f"graph: its functions stand for {count:,} nodes, expected {_MOST_NODES:,} at most. {_AGAIN}")


def _called(nodes: Iterable[onnx.NodeProto]) -> Counter[tuple[str, str]]:
    """How often each operator stands among nodes and in their subgraphs."""
    counts: Counter[tuple[str, str]] = Counter()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        counts[node.domain, node.op_type] += 1
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting.extend(graph.node)
    return counts


def _size(called: Mapping[tuple[str, str], int], sizes: Mapping[tuple[str, str], int]) -> int:
    return sum(times * sizes.get(op, 1) for op, times in called.items())


def _check_node(node: onnx.NodeProto, where: str, scope: _Scope) -> None:
    if not node.op_type:
        raise ModelError(f"{where}: names no operator. {_AGAIN}")
    if not any(node.output):
        raise ModelError(f"{where}: has no output, expected one at least. {_AGAIN}")
    seen: set[str] = set()
    for attribute in node.attribute:
        if attribute.name in seen:
            raise ModelError(f"{where}: attribute {shown(attribute.name)} is there twice, expected once. {_AGAIN}")
        seen.add(attribute.name)
        _check_attribute(attribute, where, scope)
    if node.op_type == "Constant" and node.domain in _STANDARD:
        _check_constant(node, where)
    schema = None if (node.domain, node.op_type) in scope.own else _schema_of(node, scope.opsets)
    if schema is None:
        return
    for what, found, (least, most) in (("inputs", len(node.input), schema.inputs), ("outputs", len(node.output), schema.outputs)):
        if not least <= found <= most:
            wanted = f"{least}" if least == most else f"{least} at least" if found < least else f"{most} at most"
            raise ModelError(f"{where}: has {found} {what}, expected {wanted}. {_AGAIN}")
    for name, (kind, required) in schema.attributes.items():
        if required and name not in seen:
            raise ModelError(f"{where}: lacks attribute {name!r}, which the operator needs. {_AGAIN}")
        given = next((a.type for a in node.attribute if a.name == name), kind)
        if given != kind:
            found_kind, wanted = (AttributeProto.AttributeType.Name(k) for k in (given, kind))
            raise ModelError(f"{where}: attribute {name!r} is of type {found_kind}, expected {wanted}. {_AGAIN}")


def _check_attribute(attribute: AttributeProto, where: str, scope: _Scope) -> None:
    place = f"{where}: attribute {shown(attribute.name)}"
    if attribute.ref_attr_name:
        if not scope.in_function:
            raise ModelError(f"{place} refers to one of a function, and the node is in none. {_AGAIN}")
        return
    own = _FIELDS.get(attribute.type)
    if own is None:
        raise ModelError(f"{place} is of no type that ONNX knows. {_AGAIN}")
    held = {field.name for field, _ in attribute.ListFields()} & _VALUES
    if held - {own} or (attribute.type in _OBJECTS and not held):
        found, kind = " and ".join(sorted(held)) or "nothing", AttributeProto.AttributeType.Name(attribute.type)
        raise ModelError(f"{place} is of type {kind} and holds {found}, expected {own}. {_AGAIN}")


def _check_constant(node: onnx.NodeProto, where: str) -> None:
    names = [a.name for a in node.attribute]
    if len(names) != 1 or names[0] not in _CONSTANTS:
        found = ", ".join(map(shown, names[:4])) or "none"
        raise ModelError(f"{where}: has as value {found}, expected one of {', '.join(sorted(_CONSTANTS))}. {_AGAIN}")


@dataclass(frozen=True)
class _Schema:
    """How many inputs and outputs an operator may have, and the type of each attribute, with whether it must be there."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    attributes: Mapping[str, tuple[int, bool]]


def _schema_of(node: onnx.NodeProto, opsets: Mapping[str, int]) -> _Schema | None:
    domain = "" if node.domain in _STANDARD else node.domain
    return _schema(domain, node.op_type, opsets.get(domain, 0)) if domain in _SCHEMAS else None


@functools.lru_cache(maxsize=4096)
def _schema(domain: str, op: str, version: int) -> _Schema | None:
    """The operator's rules in a version of its set; None where this build of onnx does not know them."""
    newest = onnx.defs.onnx_ml_opset_version() if domain == "ai.onnx.ml" else onnx.defs.onnx_opset_version()
    if not 0 < version <= newest:
        return None
    try:
        found = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None
    attributes = {name: (int(a.type.value), bool(a.required)) for name, a in found.attributes.items()}
    return _Schema((found.min_input, found.max_input), (found.min_output, found.max_output), attributes)
