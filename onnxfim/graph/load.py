"""Loads and checks a classifier file, and what its inputs say of themselves."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from onnxfim.errors import ModelError
from onnxfim.graph import referring
from onnxfim.graph.external import external_files
from onnxfim.graph.graph import Dimension, Graph, TensorInfo
from onnxfim.graph.held import POSITION, InputRole
from onnxfim.graph.inner import Place
from onnxfim.graph.mistaken import what_it_is
from onnxfim.graph.soundness import check

Array: TypeAlias = np.ndarray[Any, Any]
_PIECE = 2**20  # bytes of a file that are hashed at a time
_MAX_FILE = 2**31  # protobuf's own limit; larger models keep their weights in external data


@dataclass(frozen=True)
class ModelFile:
    """A model file as read: its bytes' hash, the parsed model (not to be changed) and its graph.

    The model refers to large weights in a large file (`referring`), so that copies of it hold none of them. ``seen`` tells the file
    as it was read from what may later stand in its place. Where inputs are held, model and graph are a copy's, whose only input is
    the one that is perturbed (and `POSITION`); ``held`` then tells what the copy is needed for, ``held_hash`` what they are held
    at, and ``roles`` what became of each input of the file. ``at`` is set where the copy begins at an inner value of the file,
    which is then its first input; ``own_input`` is what the file takes in its place, and ``holds_its_own`` tells whether nodes
    behind the value read that too, so that it is held. ``copied`` is
    set of other copies. ``digests`` are the hashes of the file alone and of each file that holds its weights; ``sha256`` is that of
    all of them in this order.
    """

    path: Path
    sha256: str
    bytes: int
    proto: onnx.ModelProto
    graph: Graph
    seen: tuple[int, ...] = ()
    held: str | None = None
    held_hash: str | None = None
    roles: tuple[InputRole, ...] = ()
    at: Place | None = None
    own_input: TensorInfo | None = None
    holds_its_own: bool = False
    copied: bool = False
    digests: tuple[tuple[Path, str], ...] = ()

    @property
    def source(self) -> Any:
        """What to open to run it: the file, or the copy."""
        own = self.held is None and self.at is None and not self.copied
        return self.path if own else bytes(self.proto.SerializeToString())

    @property
    def placed(self) -> bool:
        """Whether its rows need the positions of their samples."""
        return any(i.name == POSITION for i in self.graph.inputs)

    @property
    def producer(self) -> str:
        return f"{self.proto.producer_name} {self.proto.producer_version}".strip()

    @property
    def files(self) -> tuple[Path, ...]:
        """The file itself, and those that hold its weights."""
        return (self.path, *_others(self.path, self.proto))

    @property
    def changed(self) -> bool:
        """Whether the file is another one now, or was written to: what was computed may then be of either."""
        return bool(self.seen) and _seen(self.path) != self.seen


def load_model(path: str | os.PathLike[str]) -> ModelFile:
    """Read and check an ONNX file.

    Raises:
        ModelError: missing, not a file, not ONNX, truncated, or a broken graph.
    """
    if re.match("(?i)https?:/", os.fspath(path)):  # not told: it may hold credentials
        raise ModelError(
            "model: is an address, expected an ONNX file. A served model has no graph to read here; onnxfim audit asks it."
        )
    where = Path(path)
    size = _size(where)
    seen = _seen(where)
    proto = _parsed(where, size)
    digest = hashlib.sha256()
    try:
        _hash(where, digest)
        digests = [(where, digest.hexdigest())]
        check(proto)
        for external in _others(where, proto):
            _hash(external, digest, own := hashlib.sha256())
            digests.append((external, own.hexdigest()))
            size += external.stat().st_size
        graph = Graph(proto, base_dir=where.parent)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    return ModelFile(where, digest.hexdigest(), size, proto, graph, seen, digests=tuple(digests))


def _others(where: Path, proto: onnx.ModelProto) -> Iterator[Path]:
    """The files besides the model's own that hold its weights."""
    own = where.resolve()
    return (file for file in external_files(where, proto) if file != own)


def _seen(where: Path) -> tuple[int, ...]:
    """What tells a file from another of its name, and from itself with other content; nothing where there is none."""
    try:
        now = where.stat()
    except OSError:
        return (0,)
    return (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)


def _hash(file: Path, *digests: Any) -> None:
    """Take a file's bytes in, a piece at a time."""
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE):
            for digest in digests:
                digest.update(piece)


def _parsed(where: Path, size: int) -> onnx.ModelProto:
    """The model in a file of that size, with references to its large weights where it is large."""
    try:
        with where.open("rb") as stream:
            if size < referring.LARGE_FILE:
                return _model(where, stream.read())
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _model(where, referring.referring(where, content) or content[:])
    except OSError as error:
        raise _unreadable(where, error) from error


def _model(where: Path, content: bytes) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, TypeError, RuntimeError) as error:
        told = what_it_is(content) or "is not ONNX, or is truncated (protobuf cannot parse it). Export it again."
        raise ModelError(f"{where}: {told}") from error
    if not proto.graph.node or not proto.opset_import:
        told = what_it_is(content) or "holds no ONNX graph (no nodes or no opset). Give a complete ONNX model."
        raise ModelError(f"{where}: {told}")
    return proto


def _size(where: Path) -> int:
    """The size of a file that can be a model by its kind and size."""
    try:
        if not where.exists():
            raise ModelError(f"{where}: no such file. Give the path of an ONNX model.")
        if not where.is_file():
            raise ModelError(f"{where}: is not a file. Give the path of an ONNX model.")
        size = where.stat().st_size
        if size == 0:
            raise ModelError(f"{where}: the file is empty, expected an ONNX model. Export it again.")
        if size >= _MAX_FILE:
            raise ModelError(f"{where}: {size:,} bytes, more than protobuf's 2 GiB. Save the weights as external data.")
        return size
    except OSError as error:  # no permission, a name that is too long, a ring of links
        raise _unreadable(where, error) from error
    except ValueError as error:
        raise ModelError(f"{where}: is no path of this system ({error}). Give the path of an ONNX model.") from error


def _unreadable(where: Path, error: OSError) -> ModelError:
    return ModelError(f"{where}: cannot be read ({error.strerror}). Check its name and permissions.")


def sample_shape(info: TensorInfo) -> tuple[int | None, ...]:
    """Shape of one sample, with None for a free dimension."""
    return tuple(n if isinstance(n, int) else None for n in (info.shape or ())[1:])


def fixed_batch(info: TensorInfo) -> int | None:
    """The batch size that the file insists on, or None."""
    first: Dimension = (info.shape or (None,))[0]
    return first if isinstance(first, int) else None


def value_type(file: ModelFile, tensor: str) -> int | None:
    """ONNX element type of an inner value, by shape inference."""
    try:
        inferred = onnx.shape_inference.infer_shapes(file.proto)
    except Exception:  # noqa: BLE001 - inference is a convenience: without it the value is simply not read
        return None
    for v in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input):
        if v.name == tensor:
            return int(v.type.tensor_type.elem_type)
    return None
