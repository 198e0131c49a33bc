"""Chosen rows of NumPy arrays, in memory or in .npy and .npz files; nothing is unpickled and no header is trusted."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from onnxfim.data.samples import Array, Indices, check_bytes, listed, one_line
from onnxfim.errors import InputError

# What reading a damaged or hostile file raises, from zipfile, its decompressors and the parser of .npy headers.
_READ_ERRORS = (
    OSError, EOFError, ValueError, TypeError, SyntaxError, RuntimeError, OverflowError, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
_CHUNK = 16 * 2**20


class RowSource(Protocol):
    """An array of which rows can be taken; ``where`` names it in messages."""

    @property
    def where(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def take(self, indices: Indices) -> Array: ...
    def take_all(self) -> Array: ...


@dataclass(frozen=True)
class HeldRows:
    """Rows of an array in memory."""

    where: str
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def take(self, indices: Indices) -> Array:
        check_bytes(self.where, len(indices) * _row_bytes(self))
        return self.array[indices]

    def take_all(self) -> Array:
        return self.array


@dataclass(frozen=True)
class ChosenRows:
    """Rows at ``indices`` of an array that has ``total``: what a reader that goes through its data once hands over."""

    where: str
    array: Array
    indices: Indices
    total: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.total, *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def take(self, indices: Indices) -> Array:
        return self.array[np.searchsorted(self.indices, indices)]

    def take_all(self) -> Array:
        return self.array


@dataclass(frozen=True)
class StoredRows:
    """Rows of an array in a file, read when asked for; ``start`` is where its numbers begin in the stream."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    stream: IO[bytes]
    start: int
    column_major: bool

    def take(self, indices: Indices) -> Array:
        """The rows at increasing ``indices``."""
        with _readable(self.where):
            if self.column_major:
                check_bytes(self.where, math.prod(self.shape) * self.dtype.itemsize)
                turned = np.empty(self.shape[::-1], self.dtype)
                self._fill(turned, self.start)
                return np.ascontiguousarray(turned.T[indices])
            check_bytes(self.where, len(indices) * _row_bytes(self))
            out = np.empty((len(indices), *self.shape[1:]), self.dtype)
            filled = 0
            for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1):
                self._fill(out[filled : filled + len(run)], self.start + int(run[0]) * _row_bytes(self))
                filled += len(run)
            return out

    def take_all(self) -> Array:
        """The whole array."""
        check_bytes(self.where, math.prod(self.shape) * self.dtype.itemsize)
        with _readable(self.where):
            turned = np.empty(self.shape[::-1] if self.column_major else self.shape, self.dtype)
            self._fill(turned, self.start)
        return np.ascontiguousarray(turned.T) if self.column_major else turned

    def _fill(self, out: Array, offset: int) -> None:
        """Fill a contiguous array from the stream's bytes at ``offset``."""
        view = out.reshape(-1).view(np.uint8).data
        self.stream.seek(offset)
        done = 0
        while done < len(view):
            part = self.stream.read(min(_CHUNK, len(view) - done))
            if not part:
                raise EOFError("it ends early")
            view[done : done + len(part)] = part
            done += len(part)


@dataclass(frozen=True)
class Archive:
    """The arrays of an open .npz file, by key."""

    path: Path
    file: zipfile.ZipFile
    streams: ExitStack

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(name.removesuffix(".npy") for name in self.file.namelist() if name.endswith(".npy"))

    def rows(self, key: str, *, option: str) -> StoredRows:
        """The array under ``key``; ``option`` is what the user passes to name another one."""
        if key not in self.keys:
            import difflib  # for a message alone

            nearest = difflib.get_close_matches(key, self.keys, 1) or self.keys[:1]
            raise InputError(
                f"{self.path}: has no array {key!r}, expected one of its own: {listed(self.keys) or 'it holds none'}. "
                + (f"Pass {option} {nearest[0]!r} or another of them." if nearest else "Save the arrays with numpy.savez.")
            )
        if self.keys.count(key) > 1:
            raise InputError(
                f"{self.path}: holds {self.keys.count(key)} arrays called {key!r}, expected one. Save it again with numpy.savez."
            )
        where = f"{self.path}[{key}]"
        with _readable(where):
            member = self.file.getinfo(f"{key}.npy")
            stream = self.streams.enter_context(self.file.open(member))
        return _parse(where, stream, member.file_size)


@contextmanager
def open_npz(path: Path) -> Iterator[Archive]:
    """Open an .npz file; its arrays can be read until the context ends."""
    with ExitStack() as streams:
        try:
            file = streams.enter_context(zipfile.ZipFile(path))
        except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, struct.error) as error:
            raise InputError(
                f"{path}: is not a complete zip archive ({one_line(error)}), expected an .npz file. "
                "Copy it again, or save it again with numpy.savez."
            ) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        yield Archive(path, file, streams)


@contextmanager
def open_npy(path: Path) -> Iterator[StoredRows]:
    """Open an .npy file; its rows can be read until the context ends."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    with stream:
        yield _parse(str(path), stream, path.stat().st_size)


def _parse(where: str, stream: IO[bytes], size: int) -> StoredRows:
    """Read the header of an array of ``size`` bytes in all, and hold it against that size."""
    with _readable(where):
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(stream)
        if version not in readers:
            raise ValueError(f"its format version is {version}")
        shape, column_major, dtype = readers[version](stream)
        start = stream.tell()
    if dtype.hasobject:
        raise InputError(
            f"{where}: holds Python objects, expected numbers; objects are never unpickled. "
            "Save a rectangular numeric array, for example numpy.stack(list).astype('float32')."
        )
    needed = start + math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape) or needed > size:
        raise InputError(
            f"{where}: is truncated or damaged, found {size} bytes where its header announces {needed}. "
            "Copy the file again, or save it again."
        )
    return StoredRows(where, shape, dtype, stream, start, column_major)


def _row_bytes(rows: RowSource) -> int:
    return math.prod(rows.shape[1:]) * rows.dtype.itemsize


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Turn what a damaged file raises into one line."""
    try:
        yield
    except _READ_ERRORS as error:
        raise InputError(
            f"{where}: cannot be read ({one_line(error) or type(error).__name__}), expected an array in NumPy's format. "
            "Copy the file again, or save it again with numpy.save or numpy.savez."
        ) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be opened ({error.strerror or error}), expected a readable file. Check the permissions.")
