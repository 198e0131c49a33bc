"""Finds the files that hold a model's weights, and holds them against what the model says of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import Message

from onnxfim.errors import ModelError, lfs_pointer
from onnxfim.graph.soundness import shown, size_of

_AGAIN = "Export the model again."
_HEAD = 200  # bytes that tell a pointer


@dataclass(frozen=True)
class _Place:
    """Where a tensor's data lie: the file as the model names it, the first byte, the number of bytes where it is told."""

    location: str
    offset: int
    length: int | None


def external_files(where: Path, proto: onnx.ModelProto) -> Iterator[Path]:
    """The files that hold weights, sorted by what the model calls them; as `located`."""
    yield from located(where, proto).values()


def located(where: Path, proto: onnx.ModelProto) -> dict[str, Path]:
    """The files that hold weights by what the model calls them, sorted; each holds what the model says, none lies elsewhere.

    Where the model itself is a link, as in a cache of downloads, the folder of the file that it names counts too. Old runtimes
    follow links out of the folder, so links are resolved here.

    Raises:
        ModelError: which weight or file, and what is wrong with it; the model's name is for the caller to add.
    """
    files: dict[str, Path | None] = {}
    for tensor in _stored(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = _place(tensor)
        if place.location not in files:
            files[place.location] = _inside(where, place.location)
        file = files[place.location]
        if file is not None:
            _check_length(tensor, place, file)
    return {location: found for location in sorted(files) if (found := files[location]) is not None}


def _place(tensor: onnx.TensorProto) -> _Place:
    told: dict[str, str] = {}
    weight = f"weight {shown(tensor.name)}"
    for entry in tensor.external_data:
        if entry.key in told:
            raise ModelError(f"{weight}: its external data give {shown(entry.key)} twice, expected once. {_AGAIN}")
        told[entry.key] = entry.value
    if not told.get("location"):
        raise ModelError(f"{weight}: is kept outside the model, which does not say where. {_AGAIN}")
    numbers: dict[str, int] = {}
    for key in ("offset", "length"):
        text = told.get(key)
        if text is not None:
            if not (text.isascii() and text.isdigit()) or len(text) > 19:
                raise ModelError(f"{weight}: the {key} of its external data is {shown(text)}, expected a number of bytes. {_AGAIN}")
            numbers[key] = int(text)
    return _Place(told["location"], numbers.get("offset", 0), numbers.get("length"))


def _inside(where: Path, location: str) -> Path | None:
    """The file of that name, which must lie in the model's folder; None where there is none."""
    named = shown(location)
    folders = (where.parent.resolve(), where.resolve().parent)
    try:
        found = (where.parent / location).resolve()
    except (OSError, ValueError, RuntimeError):  # a zero byte, a ring of links
        found = None
    if found is None or not any(found.is_relative_to(folder) for folder in folders):
        raise ModelError(f"weights are in {named}, outside the model's folder, expected beside the model. Move them there.")
    if not os.path.lexists(found):  # a model can be looked at without its weights; who needs one says that it is not there
        return None
    if not os.path.isfile(found):
        raise ModelError(f"weights are in {named}, which is no file, expected a file beside the model. Move them there.")
    try:
        head = _head(found)
    except OSError as error:
        raise ModelError(f"weights are in {named}, which cannot be read ({error.strerror}). Check its permissions.") from error
    if (pointer := lfs_pointer(head)) is not None:
        raise ModelError(f"weights are in {named}, which {pointer}")
    return found


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_HEAD)


def _check_length(tensor: onnx.TensorProto, place: _Place, file: Path) -> None:
    needed, size = size_of(tensor), file.stat().st_size
    if needed is None:
        return
    if place.length is not None and place.length != needed:
        raise ModelError(
            f"weight {shown(tensor.name)}: its external data are said to be {place.length:,} bytes long, "
            f"expected {needed:,} for its shape. {_AGAIN}"
        )
    if place.offset + needed > size:
        raise ModelError(
            f"weights are in {shown(place.location)}, which has {size:,} bytes, expected {place.offset + needed:,} at least. "
            "It is cut short: copy it again."
        )


def _stored(message: Message) -> Iterator[onnx.TensorProto]:
    """All tensors that a model holds: initializers and attributes, in subgraphs and functions too."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for part in value if isinstance(value, Iterable) else (value,):
            if isinstance(part, onnx.TensorProto):
                yield part
            else:
                yield from _stored(part)
