"""The stores in a cache's folder: which are there, which are in use, and which go where they take too much of the disk."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl

#: Bytes that the stores of a folder may take between two runs, and the variable that sets others.
LIMIT, LIMIT_VARIABLE = 2**30, "ONNXFIM_CACHE_LIMIT"
#: What a run leaves free on the disk: so many bytes, or the share where that is more; a quarter of a small disk.
LEAST_FREE, FREE_SHARE, MOST_SHARE = 2**30, 1 / 20, 1 / 4
#: Ends the name of a store of outputs: what was computed from them is kept elsewhere, so that they are the first to go.
OUTPUTS = "-outputs"
#: Names of the folders in a cache that hold what is kept, and of the files in them: stores, and engines of TensorRT.
_FOLDERS = re.compile(rf"[0-9a-f]{{32}}({OUTPUTS})?|tensorrt(-tf32)?")
_FILES = re.compile(r"[0-9a-f]{16}\.(bin|jsonl)|.+\.(engine|profile|timing)")
_FRESH = 600.0  # seconds since it was used, within which a store counts as in use where no file can be locked


@dataclass(frozen=True)
class Kept:
    """A folder of a cache: the files in it that are ours, their bytes, and when it was used last."""

    folder: Path
    files: tuple[Path, ...]
    bytes: int
    used: float

    @property
    def luxury(self) -> bool:
        """Whether it holds outputs, which only other settings could still use."""
        return self.folder.name.endswith(OUTPUTS)

    def remove(self) -> bool:
        """Remove the files, and the folder where it holds no others; what cannot be removed, or is in use, stays."""
        if _in_use(self):
            return False
        with contextlib.suppress(OSError):
            for file in self.files:
                file.unlink(missing_ok=True)
            self.folder.rmdir()
        return True


def kept_below(folder: Path) -> list[Kept]:
    """What a cache holds, outputs first, then what was used longest ago; whatever else lies there is not ours to count or touch."""
    found = []
    with contextlib.suppress(OSError, ValueError):  # nothing there yet
        for store in folder.iterdir():
            with contextlib.suppress(OSError):  # another process removes it
                if _FOLDERS.fullmatch(store.name) and not store.is_symlink() and store.is_dir():
                    files = tuple(p for p in store.iterdir() if _FILES.fullmatch(p.name))
                    size = sum(p.lstat().st_size for p in files)
                    found.append(Kept(store, files, size, store.stat().st_mtime))
    return sorted(found, key=lambda kept: (not kept.luxury, kept.used))


def prune(folder: Path, limit: int, own: Collection[str], spared: Callable[[str], bool] = lambda name: False) -> None:
    """Remove stores, outputs first and then those used longest ago, until all together take at most ``limit`` bytes.

    Those named ``own`` stay, and leave the others half of the limit at least; so do those that are ``spared`` by their name, and
    those that another process uses.
    """
    stores = kept_below(folder)
    others = [kept for kept in stores if kept.folder.name not in own]
    total = sum(kept.bytes for kept in others)
    room = max(limit - sum(kept.bytes for kept in stores if kept.folder.name in own), limit // 2)
    for kept in others:
        if total <= room:
            return
        if not spared(kept.folder.name) and kept.remove():
            total -= kept.bytes


def make_room(folder: Path, own: Collection[str], size: int) -> None:
    """Remove stores of outputs that nobody uses until the disk has room for so many bytes more."""
    for kept in kept_below(folder):
        if not kept.luxury or why_no_room(folder, size) is None:
            return
        if kept.folder.name not in own:
            kept.remove()


def why_no_room(folder: Path, size: int) -> str | None:
    """Why so many bytes more may not be written below ``folder``, which need not be there yet; None where they may."""
    with contextlib.suppress(OSError, ValueError):  # the writing itself tells
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        total, _, free = shutil.disk_usage(folder)
        least = min(max(LEAST_FREE, int(total * FREE_SHARE)), int(total * MOST_SHARE))
        if free - size < least:
            return f"its disk has {free:,} bytes left, of which {least:,} stay free"
    return None


def mark_in_use(file: IO[Any]) -> None:
    """Mark the store of an open file as in use, as long as the file is open; it ends with the process, however that ends."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _in_use(kept: Kept) -> bool:
    """Whether a living process has marked a store: by a lock, else by the time of its folder."""
    if sys.platform != "win32":
        try:
            for path in kept.files:
                with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except OSError:
            pass
    return time.time() - kept.used < _FRESH


def touch(folder: Path) -> None:
    """Mark a store as used just now."""
    with contextlib.suppress(OSError, ValueError):  # not there yet, or not ours to touch
        os.utime(folder)
