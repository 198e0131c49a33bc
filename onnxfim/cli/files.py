"""Checks where outputs go before any work, and writes them whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from onnxfim.cli.console import Console
from onnxfim.data.images import SUFFIXES
from onnxfim.data.tar_index import SUFFIX as TAR
from onnxfim.data.tar_index import stands_for
from onnxfim.errors import OutputError
from onnxfim.record.writing import destination, write_text
from onnxfim.record.writing_folders import write_folder
from onnxfim.report.dossier import SUMS, check_dossier
from onnxfim.report.formats import FOLDERS
from onnxfim.runtime.stopping import Stop, current_stop

#: What is written: the text of a file, what gives it in parts, or the texts of a folder's files by their names.
Made: TypeAlias = "str | Callable[[], Iterable[str]] | dict[str, str]"

#: Configuration files of the current folder.
_READ_ANYWAY = ("onnxfim.toml", "pyproject.toml")


def is_stdout(path: str) -> bool:
    """Whether a path is stdout: ``-``, or another name of where stdout goes, such as ``/dev/stdout``."""
    if path == "-":
        return True
    try:
        return os.path.samestat(os.stat(path), os.fstat(1))
    except (OSError, ValueError):
        return False


def check_writable(path: str) -> None:
    """Raise before any work where ``path`` cannot be written (``-`` is stdout).

    Raises:
        OutputError: a folder, a socket, a missing parent folder, or no permission.
    """
    if not is_stdout(path):
        destination(path)


def check_outputs(targets: Sequence[tuple[str, str]]) -> None:
    """Raise before any work where a path cannot be written, or two formats go to one file, however it is spelled.

    Args:
        targets: Formats and their paths.

    Raises:
        OutputError: which path, and why.
    """
    seen: dict[object, tuple[str, str]] = {}
    folders = [(path, check_dossier(path)) for kind, path in targets if kind in FOLDERS]
    for kind, path in targets:
        if kind not in FOLDERS and (inside := within(path, folders)) is not None:
            raise OutputError(f"{path}: lies in the dossier {inside}, which holds its own files alone. Write elsewhere.")
        identity = check_dossier(path) if kind in FOLDERS else "-" if is_stdout(path) else destination(path).identity
        if identity in seen:
            other, first = seen[identity]
            same = "it" if first == path else f"it, which is {first} too"
            raise OutputError(
                f"{path}: {other} and {kind} would both be written to {same}, expected one format. Give each its own path."
            )
        seen[identity] = kind, path


def within(path: str, folders: Sequence[tuple[str, str]]) -> str | None:
    """The first of the folders (as given, and behind all links) that a path lies in, or None."""
    if path == "-" or not folders:
        return None
    real = Path(os.path.realpath(path))
    return next((given for given, folder in folders if real.is_relative_to(folder)), None)


def check_apart(paths: Iterable[str], inputs: Iterable[str | os.PathLike[str] | None]) -> None:
    """Raise where an output would overwrite what is read.

    Args:
        paths: Where outputs go.
        inputs: Files that are read, and folders of them; None for those that are not given.

    Raises:
        OutputError: which output, and what it would overwrite.
    """
    read = [os.fspath(p) for p in inputs if p is not None]
    for path in paths:
        if is_stdout(path):
            continue
        for one in (*read, *_READ_ANYWAY):
            if _overwrites(path, one):
                raise OutputError(f"{path}: would overwrite {one}, which is read, expected another file. Write elsewhere.")


def _overwrites(path: str, read: str) -> bool:
    """Whether a file that is read is the one at ``path``, or an image or a shard there, of a folder or a pattern that is read."""
    try:
        if os.path.isdir(read):
            inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(read))
            return inside and Path(path).suffix.lower() in (*SUFFIXES, TAR) and os.path.exists(path)
        if stands_for(read, path):
            return True
        return os.path.samefile(path, read)
    except (OSError, ValueError):  # one of them is not there
        return False


def write(path: str, made: Made) -> None:
    """Write a text file whole (`record.writing.write_text`), a text that comes in parts, or a folder of files; ``-`` is stdout.

    Raises:
        OutputError: the file cannot be written.
    """
    stop = current_stop() or Stop()
    with stop.unbroken():
        if isinstance(made, dict):
            write_folder(path, made, SUMS)
        elif is_stdout(path):
            Console().document(made if isinstance(made, str) else "".join(made()))
        else:
            write_text(path, made, hurried=lambda: stop.asked > 0)


def write_new(path: str, text: str, *, force: bool) -> None:
    """Write a text file where none is, or with ``force`` over one that is.

    Raises:
        OutputError: there is one, or it cannot be written.
    """
    check_writable(path)
    if path != "-" and os.path.exists(path) and not force:
        raise OutputError(f"{path}: is there already, expected a new file. Pass --force to overwrite it.")
    write(path, text)
