"""Data of another machine, such as ``s3://bucket/samples.npz``: fetched through fsspec, and kept here while the process runs."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path, PurePosixPath

from onnxfim.errors import InputError, in_one_line

_ADDRESS = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_elsewhere(path: str) -> bool:
    """Whether a path is an address that fsspec may read: ``scheme://…``, but not ``http://`` or ``https://``."""
    return _ADDRESS.match(path) is not None


def called(address: str) -> str:
    """An address as messages and reports have it: what stands between its scheme and its last name may hold a key."""
    return f"{address.partition('://')[0]}://…{PurePosixPath(address).name}"


@lru_cache(maxsize=8)
def fetched(address: str) -> Path:
    """The file or folder at an address, copied to this machine; it is removed when the process ends.

    Raises:
        InputError: fsspec or the filesystem is not installed, nothing is there, or it cannot be read or kept.
    """
    scheme, where = address.partition("://")[0], called(address)
    try:
        import fsspec
    except ImportError as error:
        raise InputError(f"{where}: needs fsspec and its filesystem. pip install fsspec (with s3fs, gcsfs, …).") from error
    folder = Path(tempfile.mkdtemp(prefix="onnxfim-data-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        system, root = fsspec.core.url_to_fs(address)
        if not system.exists(root):
            raise InputError(f"{where}: nothing is there, expected a file or a folder of samples. Check the address.")
        target = folder / (PurePosixPath(root).name or "data")
        if not system.isdir(root):
            system.get_file(root, str(target))
            return target
        for found in system.find(root):
            inside = PurePosixPath(found.removeprefix(root).lstrip("/"))
            to = (target / inside).resolve()
            if inside.is_absolute() or not to.is_relative_to(target.resolve()):
                raise InputError(f"{where}: holds a file called {str(inside)!r}, which leads out of the folder. Rename it.")
            to.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(found, str(to))
        return target
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{where}: {in_one_line(error)}. Install the filesystem that fsspec needs for {scheme}.") from error
    except Exception as error:  # each filesystem has errors of its own
        raise InputError(f"{where}: cannot be read ({in_one_line(error) or type(error).__name__}). Check the address.") from error


__all__ = ["called", "fetched", "is_elsewhere"]
