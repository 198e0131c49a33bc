"""Rows of numbers in a file or in memory, and the temporary file for those that cannot be read at their places where they are."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxfim.data.file_ranges import FileRanges
from onnxfim.data.lazy_rows import Array, Indices
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
        view = memoryview(out.reshape(-1).view(np.uint8))
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
        """Append bytes; where they begin."""
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


def spooled(where: str, parts: Iterable[Array], count: int) -> FileRows:
    """Rows that come part by part, (n, …) each and ``count`` in all, written to a temporary file from which they can be read.

    Raises:
        InputError: the disk does not take them.
    """
    spool = Spool(where)
    first: Array | None = None
    for part in parts:
        first = part[:0] if first is None else first
        spool.write(memoryview(np.ascontiguousarray(part).reshape(-1).view(np.uint8)))
    assert first is not None
    return FileRows(spool.done(), 0, (count, *first.shape[1:]), first.dtype, spool)
