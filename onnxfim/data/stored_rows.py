"""Rows of numbers in a file or in memory, and the temporary file for those that cannot be read at their places where they are."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxfim.data.file_ranges import FileRanges
from onnxfim.data.lazy_rows import Array, Indices, blocks, is_large
from onnxfim.errors import InputError


@dataclass(frozen=True)
class FileRows:
    """Rows one after another in a file, as NumPy writes them; ``start`` is where the first begins, ``owner`` keeps the file."""

    ranges: FileRanges
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype
    owner: object = None
    costly = False

    def __reduce__(self) -> tuple[object, ...]:
        return FileRows, (self.ranges, self.start, self.shape, self.dtype)

    def read(self, at: Indices) -> Array:
        """The rows at ``at``, (n, …); those that follow one another are read at once."""
        out = np.empty((len(at), *self.shape[1:]), self.dtype)
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        view = bytes_of(out)
        ends = np.flatnonzero(np.diff(at) != 1) + 1
        for first, stop in zip([0, *ends.tolist()], [*ends.tolist(), len(at)], strict=True):
            if stop > first:
                self.ranges.read_into(view[first * size : stop * size], 0, self.start + int(at[first]) * size)
        return out


@dataclass(frozen=True)
class ArrayRows:
    """Rows of an array in memory, or of one that the user mapped."""

    array: Array
    costly = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def read(self, at: Indices) -> Array:
        """The rows at ``at``, (n, …)."""
        return np.asarray(self.array[at])


class Spool:
    """A temporary file of this process, gone with what refers to it.

    Args:
        where: What is written to it, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where, self.size = where, 0
        with self._told():
            descriptor, self.path = tempfile.mkstemp(prefix="onnxfim-rows-")
            self._file = os.fdopen(descriptor, "wb")
        weakref.finalize(self, _remove, self.path, os.getpid())

    def write(self, content: bytes | bytearray | memoryview) -> int:
        """Append bytes; where they begin.

        Raises:
            InputError: the disk does not take them.
        """
        start = self.size
        with self._told():
            self._file.write(content)
        self.size += len(content)
        return start

    def done(self) -> FileRanges:
        """The file, for reading; nothing is written after that."""
        with self._told():
            self._file.close()
            return FileRanges.of([self.path])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self._where}: is too large for memory and cannot be written to a temporary file ({error.strerror or error} in "
                f"{tempfile.gettempdir()}), expected room for {self.size / 2**30:.1f} GiB and more there. Name a folder by TMPDIR, "
                "save the samples with numpy.savez, or pass a smaller --samples."
            ) from error


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:  # not in a fork of it
        with contextlib.suppress(OSError):
            Path(path).unlink()


class Collected:
    """Rows that come part by part, once: held in memory, or in a temporary file from where on they are many.

    Args:
        where: What they are of, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._held: list[Array] = []
        self.bytes = self.count = 0
        self._spool: Spool | None = None
        self._written: list[tuple[np.dtype, int]] = []

    def add(self, part: Array) -> None:
        """The next rows, (n, …), all of one shape.

        Raises:
            InputError: the disk does not take them.
        """
        self.count += len(part)
        self.bytes += part.nbytes
        self._held.append(part)
        if self._spool is None and is_large(1, self.bytes):
            self._spool = Spool(self._where)
        if self._spool is not None:
            self._write(self._spool)

    def _write(self, spool: Spool) -> None:
        for part in self._held:
            spool.write(bytes_of(part))
            self._written.append((part.dtype, len(part)))
        self._held = [part[:0] for part in self._held[:1]]

    def rows(self, dtype: npt.DTypeLike | None = None) -> Array | FileRows:
        """All of them, in the type that holds them all, or in this one: an array, or rows in a file."""
        if self._spool is None:
            found = np.concatenate(self._held)
            with np.errstate(over="ignore"):
                return found if dtype is None else found.astype(dtype, copy=False)
        shape = self._held[0].shape[1:]
        kinds = {kind for kind, _ in self._written}
        common = np.result_type(*kinds) if dtype is None else np.dtype(dtype)
        here = FileRows(self._spool.done(), 0, (self.count, *shape), common, self._spool)
        return here if kinds == {common} else self._of_one_type(here)

    def _of_one_type(self, here: FileRows) -> FileRows:
        """The rows of a file whose parts are of several types, or of another, written anew."""
        spool, start = Spool(self._where), 0
        for kind, count in self._written:
            part = FileRows(here.ranges, start, (count, *here.shape[1:]), kind)
            one = math.prod(here.shape[1:]) * kind.itemsize
            for some in blocks(count, one):
                with np.errstate(over="ignore"):
                    spool.write(bytes_of(part.read(np.arange(some.start, some.stop)).astype(here.dtype)))
            start += count * one
        return FileRows(spool.done(), 0, here.shape, here.dtype, spool)


def bytes_of(part: Array) -> memoryview:
    """The bytes of rows, in their order; those of the array itself where it is contiguous."""
    return memoryview(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
