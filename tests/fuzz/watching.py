"""What a folder holds, and who touched it meanwhile."""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import struct
from pathlib import Path
from types import TracebackType

_ACCESS, _MODIFY, _OPEN, _CREATE, _DELETE, _MOVED = 0x1, 0x2, 0x20, 0x100, 0x200, 0xC0
_EVENT = struct.Struct("iIII")


def contents(folder: Path) -> dict[str, str]:
    """A digest of everything below a folder, by its path; links and special files by what they are."""
    found: dict[str, str] = {}
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(base, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    what = hashlib.blake2b(file.read()).hexdigest()
            elif stat.S_ISLNK(mode):
                what = f"link to {os.readlink(path)}"
            else:
                what = f"{stat.S_IFMT(mode):o}"
            found[os.path.relpath(path, folder)] = what
    return found


class Watch:
    """Tells, by inotify, what of a folder was opened or changed, by Python or by any library."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = -1

    def __enter__(self) -> Watch:
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = _ACCESS | _MODIFY | _OPEN | _CREATE | _DELETE | _MOVED
        if self._fd < 0 or self._libc.inotify_add_watch(self._fd, os.fsencode(self._folder), mask) < 0:
            raise OSError(ctypes.get_errno(), f"{self._folder}: cannot be watched by inotify")
        return self

    def touched(self) -> list[str]:
        """The names of what was touched, each once."""
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return []
        found, at = [], 0
        while at < len(data):
            _, _, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0").decode("utf-8", "replace")
            found.append(f"{self._folder.name}/{name} was touched")
            at += _EVENT.size + length
        return list(dict.fromkeys(found))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)
