"""Writes a folder of files that belong together: all of them, or none; never over files of others."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Container, Mapping
from pathlib import Path

from onnxfim.errors import OutputError
from onnxfim.record.writing import reason, write_bytes

# Where the old folder cannot be moved away (it is mounted, or its parent is closed), its files are replaced one by one.
_NO_MOVE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST}


def folder_destination(path: str | os.PathLike[str], names: Container[str], mark: str, *, what: str = "dossier") -> str:
    """Where a folder is written, behind all links, and that it may be as far as that can be told before.

    Args:
        path: The folder: none that is there, an empty one, or one that was written before.
        names: The files that it may hold.
        mark: The file by which one that was written before is known.
        what: What the folder is, in a word.

    Raises:
        OutputError: no folder, one with files of others in it, a parent that is not there, or no permission.
    """
    try:
        return _destination(os.fspath(path), names, mark, what)
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        raise OutputError(f"{path}: cannot be written ({reason(error)}). Name another folder.") from error


def _destination(path: str, names: Container[str], mark: str, what: str) -> str:
    real = os.path.realpath(path)
    if os.path.lexists(real) and not os.path.isdir(real):
        raise OutputError(f"{path}: is no folder, expected one, or none yet. Name another.")
    if os.path.isdir(real):
        there = sorted(os.listdir(real))
        foreign = [name for name in there if name not in names or not os.path.isfile(os.path.join(real, name))]
        if foreign or (there and mark not in there):
            shown = (foreign or there)[0]
            raise OutputError(
                f"{path}: holds {shown!r} and is no {what}, expected an empty folder or an older {what}. Name another folder."
            )
        if not os.access(real, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no permission")
        return real
    parent = os.path.dirname(real)
    if not os.path.isdir(parent):
        raise OutputError(
            f"{path}: the folder {os.path.dirname(path) or parent!r} does not exist. Make it first, or write elsewhere."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission")
    return real


def write_folder(
    path: str | os.PathLike[str],
    files: Mapping[str, str | bytes],
    mark: str,
    *,
    names: Container[str] | None = None,
    what: str = "dossier",
) -> None:
    """Write files into a folder that holds them alone afterwards: readers see the old folder or the whole new one.

    Where the folder itself cannot be moved, its files are replaced one by one, the mark last: without it, or where it does not fit
    the others, the folder is not whole.

    Args:
        path: The folder, as `folder_destination` allows it.
        files: Their texts, or bytes, by their names, that of ``mark`` among them.
        mark: The file that is written last.
        names: The files that an older folder may hold; None where it holds the same ones.
        what: What the folder is, in a word.

    Raises:
        OutputError: it cannot be written; an old folder is left as it was then, as far as it could be moved.
    """
    real = folder_destination(path, files if names is None else names, mark, what=what)
    content = {name: text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace") for name, text in files.items()}
    try:
        if _is_working_folder(real) or not _moved(real, content):
            _one_by_one(real, content, mark)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({reason(error)}). Name another folder.") from error


def _is_working_folder(real: str) -> bool:
    """Whether somebody works inside: the folder would be pulled away under their feet."""
    try:
        return Path(os.getcwd()).is_relative_to(real)
    except FileNotFoundError:  # the working folder is gone
        return False


def _moved(real: str, content: Mapping[str, bytes]) -> bool:
    """Write a folder beside the one at ``real`` and move it there; False where it cannot be moved."""
    beside, before = (os.path.join(os.path.dirname(real), f".{secrets.token_hex(6)}.tmp") for _ in range(2))
    try:
        try:
            os.mkdir(beside)
        except OSError as error:
            if error.errno in _NO_MOVE and os.path.isdir(real):
                return False
            raise
        for name, data in content.items():
            write_bytes(os.path.join(beside, name), data)
        if not os.path.isdir(real):
            os.rename(beside, real)
            return True
        os.chmod(beside, stat.S_IMODE(os.stat(real).st_mode))
        try:
            os.rename(real, before)
        except OSError as error:
            if error.errno in _NO_MOVE:
                return False
            raise
        try:
            os.rename(beside, real)
        except BaseException:
            os.rename(before, real)
            raise
        shutil.rmtree(before, ignore_errors=True)
        return True
    finally:
        with contextlib.suppress(OSError):
            if os.path.isdir(beside):
                shutil.rmtree(beside)


def _one_by_one(real: str, content: Mapping[str, bytes], mark: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(real, mark))
    os.makedirs(real, exist_ok=True)
    for old in set(os.listdir(real)) - set(content):  # of an older folder with files of other names
        os.unlink(os.path.join(real, old))
    for name, data in content.items():
        if name != mark:
            write_bytes(os.path.join(real, name), data)
    write_bytes(os.path.join(real, mark), content[mark])
