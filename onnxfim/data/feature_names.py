"""Names of the numbers of one sample, as a user gives them."""

from __future__ import annotations

import math
from pathlib import Path

from onnxfim.errors import InputError

_MOST_BYTES = 2**22


def feature_names(given: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The names in a file, one a line, or with commas between them; of samples of this shape.

    Args:
        given: Path of a text file, or the names themselves with commas between them.
        shape: Sizes of one sample.

    Raises:
        InputError: the file cannot be read, or there are not as many names as numbers.
    """
    path = Path(given)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a list of names may be too long for a path
        is_file = False
    where = f"{given}" if is_file else "--feature-names"
    text = _text(path) if is_file else given
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = [name.strip() for name in lines[0].split(",")] if len(lines) == 1 else lines
    wanted = math.prod(shape)
    if len(names) != wanted or not all(names):
        hint = "" if is_file or "," in given else " No file has this name."
        raise InputError(
            f"{where}: {len([n for n in names if n])} names, expected {wanted}, one for each number of a sample.{hint} "
            "Give one name a line, or all with commas between them."
        )
    return tuple(names)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: more than {_MOST_BYTES // 2**20} MiB, expected a text of names. Give another file.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: cannot be read ({why}). Give a text file of names, one a line.") from error
