"""Writes results whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from onnxfim.cli.console import Console
from onnxfim.errors import OutputError
from onnxfim.record.writing import write_text


def check_writable(path: str) -> None:
    """Raise OutputError before any work where ``path`` cannot be written (``-`` is stdout).

    Raises:
        OutputError: a folder, a missing parent folder, or no permission.
    """
    if path == "-":
        return
    where = Path(path)
    folder = where.parent
    if where.is_dir():
        raise OutputError(f"{path}: is a folder, expected a file to write. Give a file name in it.")
    if not folder.is_dir():
        raise OutputError(f"{path}: the folder {str(folder)!r} does not exist. Make it first, or write elsewhere.")
    if not os.access(folder, os.W_OK) or (where.exists() and not os.access(where, os.W_OK)):
        raise OutputError(f"{path}: cannot be written (no permission). Write elsewhere.")


def write(path: str, text: str) -> None:
    """Write a text file whole (`record.writing.write_text`); ``-`` is stdout.

    Raises:
        OutputError: the file cannot be written.
    """
    if path == "-":
        Console().document(text)
        return
    write_text(path, text)


def write_new(path: str, text: str, *, force: bool) -> None:
    """Write a text file where none is, or with ``force`` over one that is.

    Raises:
        OutputError: there is one, or it cannot be written.
    """
    check_writable(path)
    if Path(path).exists() and not force:
        raise OutputError(f"{path}: is there already, expected a new file. Pass --force to overwrite it.")
    write(path, text)
