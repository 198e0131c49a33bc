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
from functools import cached_property
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from onnxfim.data.file_ranges import FileRanges
from onnxfim.data.lazy_rows import Array, Indices, RowReader, is_large
from onnxfim.data.samples import check_bytes, listed, one_line
from onnxfim.data.stored_rows import ArrayRows, FileRows, Spool, bytes_of
from onnxfim.errors import InputError

#: What reading a damaged or hostile file raises, from zipfile, its decompressors and the parser of .npy headers.
NOT_AN_ARRAY = (
    OSError, EOFError, ValueError, TypeError, SyntaxError, RuntimeError, OverflowError, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
_CHUNK = 16 * 2**20
_LOCAL = struct.Struct("<4s22xHH")  # of a member in a zip archive: signature, lengths of its name and of its extra fields


class RowSource(Protocol):
    """An array of which rows can be taken; ``where`` names it in messages.

    ``lasting`` tells where the rows at ``indices`` can be read when the source is closed, and at which places; None where nowhere.
    """

    @property
    def where(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def take(self, indices: Indices) -> Array: ...
    def take_all(self) -> Array: ...
    def lasting(self, indices: Indices) -> tuple[RowReader, Indices] | None: ...


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
        return self.array[indices]

    def take_all(self) -> Array:
        return self.array

    def lasting(self, indices: Indices) -> tuple[RowReader, Indices] | None:
        return ArrayRows(self.array), indices


@dataclass(frozen=True)
class ChosenRows:
    """Rows at ``indices`` of an array that has ``total``: what a reader that goes through its data once hands over."""

    where: str
    array: Array | FileRows
    indices: Indices
    total: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.total, *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def take(self, indices: Indices) -> Array:
        return self.array.read(self._places(indices)) if isinstance(self.array, FileRows) else self.array[self._places(indices)]

    def take_all(self) -> Array:
        return self.array.read(np.arange(self.array.shape[0])) if isinstance(self.array, FileRows) else self.array

    def lasting(self, indices: Indices) -> tuple[RowReader, Indices] | None:
        return self.array if isinstance(self.array, FileRows) else ArrayRows(self.array), self._places(indices)

    def _places(self, indices: Indices) -> Indices:
        return np.searchsorted(self.indices, indices)


@dataclass(frozen=True)
class StoredRows:
    """Rows of an array in a file, read when asked for.

    ``start`` is where its numbers begin in the stream, ``begin`` where the stream begins in the file at ``path``; None where the
    file holds it compressed.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    stream: IO[bytes]
    start: int
    column_major: bool
    path: Path
    begin: int | None

    def take(self, indices: Indices) -> Array:
        """The rows at increasing ``indices``."""
        with _readable(self.where):
            if self.column_major and is_large(self.shape[0], _row_bytes(self)):
                return self._across(indices)
            if self.column_major:
                turned = np.empty(self.shape[::-1], self.dtype)
                self._fill(turned, self.start)
                return np.ascontiguousarray(turned.T[indices])
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

    def lasting(self, indices: Indices) -> tuple[RowReader, Indices] | None:
        if self.column_major or self.begin is None:
            return None
        return FileRows(FileRanges.of([self.path]), self.begin + self.start, self.shape, self.dtype), indices

    def _across(self, indices: Indices) -> Array:
        """Rows of an array that lies column by column."""
        ranges, begin, _ = self._plain
        count, item = self.shape[0], self.dtype.itemsize
        out = np.empty((len(indices), math.prod(self.shape[1:])), self.dtype)
        filled = 0
        for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1):
            column = np.empty(len(run), self.dtype)
            view = bytes_of(column)
            for k in range(out.shape[1]):
                ranges.read_into(view, 0, begin + (k * count + int(run[0])) * item)
                out[filled : filled + len(run), k] = column
            filled += len(run)
        return np.ascontiguousarray(out.reshape(len(out), *self.shape[:0:-1]).transpose(0, *range(len(self.shape) - 1, 0, -1)))

    @cached_property
    def _plain(self) -> tuple[FileRanges, int, object]:
        """A file that holds the numbers as they are, where they begin in it, and what keeps it."""
        if self.begin is not None:
            return FileRanges.of([self.path]), self.begin + self.start, None
        spool, part = Spool(self.where), np.empty(_CHUNK, np.uint8)
        size = math.prod(self.shape) * self.dtype.itemsize
        for start in range(0, size, _CHUNK):
            here = part[: min(_CHUNK, size - start)]
            self._fill(here, self.start + start)
            spool.write(here.data)
        return spool.done(), 0, spool

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
            begin = _data_start(self.path, member)
        return _parse(where, stream, member.file_size, self.path, begin)


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
        yield _parse(str(path), stream, path.stat().st_size, path, 0)


def _data_start(path: Path, member: zipfile.ZipInfo) -> int | None:
    """Where an archive holds the bytes of a member as they are; None where it has them compressed."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        head = file.read(_LOCAL.size)
        signature, name, extra = _LOCAL.unpack(head) if len(head) == _LOCAL.size else (b"", 0, 0)
        if signature != b"PK\3\4":
            return None
        start = member.header_offset + _LOCAL.size + name + extra
        file.seek(start)
        return start if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX else None


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it lies column by column, and element type of an array; one of `NOT_AN_ARRAY` where there is none."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"its format version is {version}")
    return readers[version](stream)


def _parse(where: str, stream: IO[bytes], size: int, path: Path, begin: int | None) -> StoredRows:
    """Read the header of an array of ``size`` bytes in all, and hold it against that size."""
    with _readable(where):
        shape, column_major, dtype = read_header(stream)
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
    return StoredRows(where, shape, dtype, stream, start, column_major, path, begin)


def _row_bytes(rows: RowSource) -> int:
    return math.prod(rows.shape[1:]) * rows.dtype.itemsize


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Turn what a damaged file raises into one line."""
    try:
        yield
    except NOT_AN_ARRAY as error:
        raise InputError(
            f"{where}: cannot be read ({one_line(error) or type(error).__name__}), expected an array in NumPy's format. "
            "Copy the file again, or save it again with numpy.save or numpy.savez."
        ) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be opened ({error.strerror or error}), expected a readable file. Check the permissions.")
