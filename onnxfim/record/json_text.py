"""JSON from outside: a regular file of bounded size, without NaN and without a key that stands twice."""

from __future__ import annotations

import gc
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from onnxfim.errors import OutputError, lfs_pointer

_MOST = 2**30  # bytes of a file: 100,000 samples take about half
_ADVICE = "Give a file that onnxfim wrote with -o json=…"


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises:
        OutputError: no regular file, too large, not readable, or no JSON (`parsed`).
    """
    return parsed(read_text(path, _ADVICE), where=str(path))


def read_text(path: str | os.PathLike[str], advice: str) -> bytes:
    """The bytes of a file that is to hold JSON; ``advice`` is what to do about one that does not.

    Raises:
        OutputError: no regular file, too large, or not readable.
    """
    where = Path(path)
    try:
        about = where.stat()
        if not stat.S_ISREG(about.st_mode):
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
            raise OutputError(f"{path}: is {kind}, expected a file. {advice}")
        if about.st_size > _MOST:
            raise OutputError(f"{path}: {about.st_size:,} bytes, expected at most {_MOST:,}. {advice}")
        return where.read_bytes()
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror}). {advice}") from error
    except ValueError as error:  # a zero byte in the path
        raise OutputError(f"{str(path)!r}: is no path ({error}). {advice}") from error


def versioned(text: str | bytes, *, where: str, field: str, version: str, what: str) -> dict[str, Any]:
    """The object that JSON text holds, without the ``field`` that tells its layout.

    Args:
        text: The text.
        where: What messages call it.
        field: The name of the field.
        version: What stands in it.
        what: What the text should be, and what to give instead, in words.

    Raises:
        OutputError: no JSON, no object, or another layout.
    """
    record = parsed(text, where=where)
    if not isinstance(record, dict) or field not in record:
        raise OutputError(f"{where}: no {field!r} field, expected {what}")
    found = record.pop(field)
    if found != version:
        raise OutputError(f"{where}: {field} is {json.dumps(found)[:40]}, expected {version!r}. Use the onnxfim that wrote it.")
    return record


def parsed(text: str | bytes, *, where: str) -> Any:
    """What JSON text holds; ``where`` is what messages call it.

    Raises:
        OutputError: a Git LFS pointer, empty, no JSON, a number that is not finite, a key twice, nested too deeply for Python.
    """
    head = text[:200].encode("utf-8", "replace") if isinstance(text, str) else text[:200]
    if (pointer := lfs_pointer(head)) is not None:
        raise OutputError(f"{where}: {pointer}")
    if not head.strip():
        raise OutputError(f"{where}: is empty, expected JSON. {_ADVICE}")
    try:
        with uncollected():
            return _loaded(text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass"))
    except RecursionError as error:
        raise OutputError(f"{where}: cannot be parsed (it is nested too deeply). {_ADVICE}") from error
    except MemoryError as error:
        raise OutputError(f"{where}: cannot be parsed (it does not fit in memory). {_ADVICE}") from error
    except ValueError as error:
        raise OutputError(f"{where}: cannot be parsed ({error}). {_ADVICE}") from error


@contextmanager
def uncollected() -> Iterator[None]:
    """Without searches for cycles: what is read has none, and its objects are so many that the searches took half of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _loaded(text: str) -> Any:
    """What the text holds; keys that stand twice are told by their number where no space stands before a colon.

    Every key then ends in ``":``, and so may a text with a quote in it: there are no more keys than these. As many in the objects
    means that none got lost.
    """
    if not any(f"{space}:" in text for space in " \t\n\r"):
        keys = 0

        def counted(found: dict[str, Any]) -> dict[str, Any]:
            nonlocal keys
            keys += len(found)
            return found

        value = json.loads(text, object_hook=counted, parse_constant=_refused)
        if keys == text.count('":'):
            return value
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refused)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice in one object")
    return found


def _refused(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")
