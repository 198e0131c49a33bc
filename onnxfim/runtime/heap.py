"""Gives memory that was freed back to the system: the C library keeps blocks of up to 32 MiB, and pieces between others."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, from glibc's malloc.h
_APART = 2**20  # bytes of a block that gets pages of its own, which go back to the system when it is freed
_USUAL = 2**25  # where glibc's own threshold ends, which grows with the blocks that are freed


def give_back() -> None:
    """Return free pages to the system, where the C library can (glibc); takes milliseconds."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


@contextmanager
def weights_apart() -> Iterator[None]:
    """While a session of large weights opens: blocks of 1 MiB and more get pages of their own.

    Weights that the runtime packs, and the copies that it packs them from, are otherwise pieces of one heap, whose holes stay with
    the process. Afterwards blocks are shared again up to the size at which glibc's own threshold ends.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _APART)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _USUAL)
        library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library of this process, or None where it is another than glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    known = all(hasattr(library, name) for name in ("gnu_get_libc_version", "malloc_trim", "mallopt"))
    return library if known else None
