"""Parts of files, read at need: a file is still the one that was first seen, in any process, or it is refused."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from onnxfim.errors import InputError

#: What tells a file from another of its name: size in bytes, and when it was last written, in nanoseconds.
Stamp: TypeAlias = tuple[int, int]

_OPEN = 16  # files at a time


def stamp_of(path: str | Path) -> Stamp:
    """The stamp of a file as it is now; OSError where it cannot be looked at."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class FileRanges:
    """Files of which parts are read; they are opened when they are needed, in each process anew.

    Nothing is mapped into memory: pages of a mapped file count as this process's own, and one that is cut short ends it.

    Attributes:
        files: Their paths.
        stamps: Of each, as it was when its data were checked.
    """

    files: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    _opened: _Opened = field(default_factory=lambda: _Opened(), init=False, repr=False, compare=False)

    @classmethod
    def of(cls, files: Sequence[str | Path]) -> FileRanges:
        """These files as they are now."""
        return cls(tuple(map(str, files)), tuple(map(stamp_of, files)))

    def read(self, which: int, start: int, size: int) -> bytearray:
        """So many bytes of a file from ``start`` on.

        Raises:
            InputError: it is gone, or another than it was.
        """
        found = bytearray(size)
        self.read_into(memoryview(found), which, start)
        return found

    def read_into(self, view: memoryview, which: int, start: int) -> None:
        """Fill ``view`` (bytes) from a file, as `read`."""
        path = self.files[which]
        try:
            self._opened.fill(path, self.stamps[which], start, view)
        except EOFError:
            raise InputError(
                f"{path}: was changed while it was read, expected the data as they were when the audit began. Run it again."
            ) from None
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read any more ({error.strerror or error}), expected the data to stay until the audit ends. "
                "Run it again."
            ) from error


class _Opened:
    """Files that are open in this process, the last ones used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, Any] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Opened, ()

    def fill(self, path: str, stamp: Stamp, start: int, view: memoryview) -> None:
        """Fill ``view``; EOFError where the file is another than it was, or shorter."""
        with self._lock:
            file = self._file(path)
            found = os.fstat(file.fileno())
            if (found.st_size, found.st_mtime_ns) != tuple(stamp):
                raise EOFError
            done = 0
            while done < len(view):
                part = _part(file, start + done, view[done:])
                if not part:
                    raise EOFError
                done += part

    def _file(self, path: str) -> Any:
        file = self._files.pop(path, None)
        if file is None:
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - it stays open
        self._files[path] = file
        while len(self._files) > _OPEN:
            self._files.popitem(last=False)[1].close()
        return file


def _part(file: Any, start: int, view: memoryview) -> int:
    """Read at a place, as much as comes at once; processes that share the file by a fork do not move it for one another."""
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [view], start)
    file.seek(start)
    return int(file.readinto(view) or 0)
