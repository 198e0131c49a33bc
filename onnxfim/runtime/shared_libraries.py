"""Finds the shared libraries that ONNX Runtime loads for CUDA: on the loader's way, or in NVIDIA's pip packages."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Library:
    """A shared library: the version it reports, and the file found; or why none was."""

    name: str
    version: str | None
    file: str | None
    reason: str | None


def find_library(name: str, files: Sequence[str], symbol: str | None = None) -> Library:
    """The first of the files that the loader takes, and the version that its function ``symbol`` tells."""
    reasons: list[str] = []
    for file in (f for f in files if f.endswith(".dll") == (sys.platform == "win32")):
        for path in (file, *_in_packages(file)):
            try:
                library = ctypes.CDLL(path)
            except OSError as error:
                reasons.append(str(error))
                continue
            return Library(name, None if symbol is None else library_version(library, symbol), path, None)
    return Library(name, None, None, reasons[0] if reasons else "not made for this platform")


def _in_packages(file: str) -> Iterable[str]:
    """Where NVIDIA's pip packages would hold a library."""
    for folder in sys.path:
        root = Path(folder) / "nvidia"
        if root.is_dir():
            yield from (str(p) for depth in ("*/*", "*/*/*") for p in root.glob(f"{depth}/{file}"))


def library_version(library: ctypes.CDLL, symbol: str) -> str | None:
    """What a library's own function tells of its version; None where it has no such function or the function fails."""
    try:
        function: Callable[..., int] = getattr(library, symbol)
    except AttributeError:
        return None
    if symbol == "cudnnGetVersion":
        number = function() & 0xFFFFFFFF
        return (
            f"{number // 10000}.{number // 100 % 100}.{number % 100}"
            if number >= 90000
            else f"{number // 1000}.{number // 100 % 10}"
        )
    told = ctypes.c_int()
    return f"{told.value // 1000}.{told.value % 1000 // 10}" if function(ctypes.byref(told)) == 0 else None
