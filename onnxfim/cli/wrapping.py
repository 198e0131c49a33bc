"""Text in lines of at most so many columns, broken between words, as a terminal counts columns."""

from __future__ import annotations

import unicodedata

_WIDE = frozenset("WF")  # East Asian characters that take two columns
_NONE = frozenset(("Mn", "Me", "Cf"))  # marks on the character before them


def columns(text: str) -> int:
    """How many columns of a terminal a line of text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.category(c) in _NONE else 2 if unicodedata.east_asian_width(c) in _WIDE else 1 for c in text)


def wrapped(text: str, width: int, *, first: int | None = None, folded: bool = False) -> list[str]:
    """One line of text as lines of at most ``width`` columns; at least one line.

    Lines break at spaces alone, but not before a percent sign; a no-break space breaks nowhere, and comes out as a space.

    Args:
        text: What is broken; it holds no line breaks.
        width: Columns of a line.
        first: Columns of the first line, where something stands before it.
        folded: Whether a word longer than a line is cut; else it stands on a line of its own, whole.
    """
    room = max(1, width if first is None else first)
    lines: list[str] = []
    line = ""
    for word in text.replace(" %", "\u00a0%").split(" "):
        joined = f"{line} {word}" if line else word
        if columns(joined) <= room:
            line = joined
            continue
        if line:
            lines.append(line)
            room = max(1, width)
        while folded and columns(word) > room:
            head = _head(word, room)
            lines.append(head)
            word = word[len(head) :]
            room = max(1, width)
        line = word
    lines.append(line)
    return [found.replace("\u00a0", " ") for found in lines]


def _head(word: str, width: int) -> str:
    """As much of a word as so many columns take, one character at least."""
    taken = 1
    while taken < len(word) and columns(word[: taken + 1]) <= width:
        taken += 1
    return word[:taken]
