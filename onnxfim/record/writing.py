"""Writes text files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from onnxfim.errors import OutputError


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in one move: readers see the old file or the whole new one.

    A character that no encoding holds (half of a surrogate pair) is written as its JSON escape.

    Raises:
        OutputError: the file cannot be written.
    """
    where = Path(path)
    try:
        with tempfile.NamedTemporaryFile("wb", dir=where.parent, prefix=f".{where.name}.", delete=False) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        # A temporary file is private; a report has the permissions of any new file.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(file.name, 0o666 & ~mask)
        os.replace(file.name, where)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}). Write elsewhere.") from error
