"""Reads a large model file without its weights: each large one becomes a reference to its place in the file itself."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from onnxfim.graph.soundness import size_of

Array: TypeAlias = np.ndarray[Any, Any]

#: Bytes of a file from which its weights are left where they are, and of a weight that is.
LARGE_FILE, LARGE_WEIGHT = 2**25, 2**20
# Numbers of fields in onnx.proto, and protobuf's kinds of values on the wire.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: Types whose raw form is an array's own.
_PLAIN = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8}
)


class _Unusual(Exception):
    """Bytes that are no model, or one in a form that nobody writes: it is read whole."""


@dataclass(frozen=True)
class _Field:
    """One field of a message: its number, its kind, and where it and its value lie in the file."""

    number: int
    kind: int
    start: int
    value: int
    end: int


def referring(where: Path, content: mmap.mmap | bytes) -> bytes | None:
    """The bytes of a model with references in place of its large weights; None where it is to be read whole.

    References are external data of the file's own name, at the place of the weight in it. They are made only for what is in the
    form that every exporter writes, in a file that is itself, no link to one: old runtimes take references into such files alone.
    """
    name = where.name
    if len(content) < LARGE_FILE or not _plain_file(where) or not name.isascii() or not name.isprintable():
        return None
    try:
        return _message(content, 0, len(content), name)
    except (_Unusual, DecodeError, IndexError, ValueError, TypeError):
        return None


def _plain_file(where: Path) -> bool:
    return not where.is_symlink() and where.stat().st_nlink == 1


def _message(content: mmap.mmap | bytes, start: int, end: int, name: str) -> bytes | None:
    """A model with references; None where it has no large weight."""
    parts: list[bytes] = []
    graphs = 0
    found = False
    for field in _fields(content, start, end):
        if field.number == _GRAPH and field.kind == _BYTES:
            graphs += 1
            inner, some = _graph(content, field, name)
            parts.append(_told(_GRAPH, inner))
            found = found or some
        else:
            parts.append(content[field.start : field.end])
    if graphs != 1:  # several are merged into one when they are read
        raise _Unusual
    return b"".join(parts) if found else None


def _graph(content: mmap.mmap | bytes, graph: _Field, name: str) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    found = False
    for field in _fields(content, graph.value, graph.end):
        large = field.number == _INITIALIZER and field.kind == _BYTES and field.end - field.value >= LARGE_WEIGHT
        stub = _tensor(content, field, name) if large else None
        parts.append(content[field.start : field.end] if stub is None else _told(_INITIALIZER, stub))
        found = found or stub is not None
    return b"".join(parts), found


def _tensor(content: mmap.mmap | bytes, tensor: _Field, name: str) -> bytes | None:
    """A weight with a reference in place of its data; None where it stays as it is."""
    rest: list[bytes] = []
    data: list[_Field] = []
    for field in _fields(content, tensor.value, tensor.end):
        if field.number == _RAW_DATA and field.kind == _BYTES:
            data.append(field)
        else:
            rest.append(content[field.start : field.end])
    if len(data) != 1 or data[0].end - data[0].value < LARGE_WEIGHT:
        return None
    stub = TensorProto.FromString(b"".join(rest))
    length = data[0].end - data[0].value
    if stub.data_type not in _PLAIN or stub.HasField("data_location") or any(n < 0 for n in stub.dims) or size_of(stub) != length:
        return None  # what is wrong with it is told where it is read whole
    stub.data_location = TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", str(data[0].value)), ("length", str(length))):
        entry = stub.external_data.add()
        entry.key, entry.value = key, value
    return bytes(stub.SerializeToString())


def _fields(content: mmap.mmap | bytes, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message between two places."""
    at = start
    while at < end:
        first = at
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        value = at
        if kind == _VARINT:
            _, at = _varint(content, at)
        elif kind == _BYTES:
            length, value = _varint(content, at)
            at = value + length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise _Unusual
        if number == 0 or at > end:
            raise _Unusual
        yield _Field(number, kind, first, value, at)


def _varint(content: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    """A number on the wire, and the place behind it."""
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise _Unusual


def _told(number: int, value: bytes) -> bytes:
    """A field as it is written."""
    head, length = bytearray([number << 3 | _BYTES]), len(value)
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + value


def array_of(tensor: TensorProto, base_dir: str | os.PathLike[str]) -> Array:
    """The value of a weight; one that lies in another file is mapped, not read, where its form allows that.

    Raises:
        Exception: of many kinds, where it cannot be read.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    told, length = {e.key: e.value for e in tensor.external_data}, size_of(tensor)
    if length and "length" not in told:  # the runtime reads what the shape takes, onnx all that follows in the file
        stub = TensorProto()
        stub.CopyFrom(tensor)
        stub.external_data.add(key="length", value=str(length))
        return array_of(stub, base_dir)
    if tensor.data_type not in _PLAIN - {TensorProto.BFLOAT16}:
        return np.asarray(numpy_helper.to_array(tensor, base_dir=str(base_dir)))
    if not length or length < LARGE_WEIGHT or told.get("length") != str(length):
        return np.asarray(numpy_helper.to_array(tensor, base_dir=str(base_dir)))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
    where = Path(base_dir) / told["location"]
    if where.name != told["location"] or where.is_symlink():  # onnx sees to it that none leads out of the folder
        return np.asarray(numpy_helper.to_array(tensor, base_dir=str(base_dir)))
    return np.memmap(where, dtype, "r", int(told.get("offset", 0)), tuple(tensor.dims)).view(np.ndarray)


def let_go(array: Array) -> None:
    """Take the pages of a mapped weight out of this process's memory; the system gives them again when they are read."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        base.madvise(mmap.MADV_DONTNEED)


def refers(model: onnx.ModelProto) -> bool:
    """Whether many of a model's weights are left in files as what it computes with, so that they can be mapped from there."""
    held = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL and t.data_type == TensorProto.FLOAT]
    return sum(size_of(t) or 0 for t in held) >= LARGE_FILE


def whole(model: bytes, base_dir: Path) -> bytes | None:
    """The bytes of a model with the weights in it that it refers to; None where it refers to none."""
    proto = onnx.load_model_from_string(model)
    found = False
    for tensor in proto.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            array = array_of(tensor, base_dir)
            found = True
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            tensor.raw_data = array.tobytes()
    return bytes(proto.SerializeToString()) if found else None
