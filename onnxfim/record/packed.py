"""Records as bytes and back, exactly: numbers as they are in memory, the rest as JSON; nothing that runs when it is read.

The bytes are three lists in the order of the fields: a letter for each value (what it is), the numbers, and everything else.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import typing
from collections.abc import Callable, Iterator
from functools import cache
from operator import attrgetter
from typing import Any, TypeAlias

from onnxfim.record.fitting import Misfit, from_plain

#: The letters, the numbers and the other values that are still to be read.
Lists: TypeAlias = tuple[Iterator[str], Iterator[float], Iterator[Any]]

_HEAD = struct.Struct("<II")  # letters, numbers
_NUMBER, _NONE, _OTHER, _LIST, _RECORD = "dnvtr"
_LEAVES = {float: _NUMBER, type(None): _NONE, str: _OTHER, int: _OTHER, bool: _OTHER}


def packed(record: Any) -> bytes | None:
    """The record as bytes, or None where it holds a number that is not finite: no record that is read may."""
    letters: list[str] = []
    numbers: list[float] = []
    others: list[Any] = []
    _put(record, letters, numbers, others)
    if not all(map(math.isfinite, numbers)):
        return None
    told = json.dumps(others, separators=(",", ":")).encode()
    return _HEAD.pack(len(letters), len(numbers)) + "".join(letters).encode() + struct.pack(f"<{len(numbers)}d", *numbers) + told


@cache
def layout_of(kind: Any) -> str:
    """The names of a record's fields with those of the records in it: bytes of another layout were written by another version."""
    if not dataclasses.is_dataclass(kind):
        return "".join(map(layout_of, typing.get_args(kind)))
    hints = typing.get_type_hints(kind)
    return f"({' '.join(f.name + layout_of(hints[f.name]) for f in dataclasses.fields(kind))})"


def unpacked(kind: Any, content: bytes) -> Any:
    """The record of the type ``kind`` that `packed` made bytes of, each value held against its type and limits.

    Raises:
        Misfit: the bytes are something else.
    """
    try:
        count, numbers = _HEAD.unpack_from(content)
        start, end = _HEAD.size + count, _HEAD.size + count + 8 * numbers
        if end > len(content):
            raise Misfit("is cut short")
        others = json.loads(content[end:])
        if not isinstance(others, list):
            raise Misfit("is no list", "a list")
        values = struct.unpack_from(f"<{numbers}d", content, start)
        lists = iter(content[_HEAD.size : start].decode("ascii")), iter(values), iter(others)
        plain = _reader(kind)(lists)
        if any(next(each, None) is not None for each in lists):
            raise Misfit("holds more than a record")
    except (ValueError, struct.error, StopIteration, RecursionError) as error:
        raise Misfit(f"is no packed record ({type(error).__name__})") from None
    return from_plain(kind, plain)


@cache
def _values(kind: Any) -> Callable[[Any], tuple[Any, ...]] | None:
    """What gives the values of a record type's fields, or None for another type."""
    if not dataclasses.is_dataclass(kind):
        return None
    names = [f.name for f in dataclasses.fields(kind)]
    return attrgetter(*names) if len(names) > 1 else lambda record: tuple(getattr(record, name) for name in names)


def _put(value: Any, letters: list[str], numbers: list[float], others: list[Any]) -> None:
    """Add a record, a list or a value of NumPy to the lists."""
    own: Any = type(value)
    values = _values(own)
    if values is not None:
        letters.append(_RECORD)
        inner = values(value)
    elif isinstance(value, (tuple, list)):
        letters.append(_LIST)
        others.append(len(value))
        inner = tuple(value)
    else:  # a number of NumPy
        inner = (value.item(),)
    for one in inner:
        kind = type(one)
        letter = _LEAVES.get(kind)
        if letter is None:
            _put(one, letters, numbers, others)
            continue
        letters.append(letter)
        if letter == _NUMBER:
            numbers.append(one)
        elif letter == _OTHER:
            others.append(one)


@cache
def _reader(kind: Any) -> Callable[[Lists], Any]:
    """What takes a value of this type from the lists, as plain values."""
    each = [a for a in _alternatives(kind) if a is not type(None)]
    record: Any = next((a for a in each if dataclasses.is_dataclass(a)), None)
    many = next((a for a in each if typing.get_origin(a) is tuple), None)

    def read(lists: Lists) -> Any:
        letters, numbers, others = lists
        letter = next(letters)
        if letter == _NUMBER:
            return next(numbers)
        if letter == _NONE:
            return None
        if letter == _OTHER:
            return next(others)
        if letter == _RECORD and record is not None:
            return {name: one(lists) for name, one in _fields(record)}
        if letter == _LIST and many is not None:
            inner = typing.get_args(many)
            count = next(others)
            if type(count) is not int:
                raise Misfit("is no length", "a whole number")
            # Each takes a letter, so that the count of these bounds a length that is no list's.
            return [_reader(inner[0] if inner[-1] is Ellipsis else inner[min(at, len(inner) - 1)])(lists) for at in range(count)]
        raise Misfit(f"is marked {letter!r}", "another mark")

    return read


@cache
def _fields(kind: Any) -> tuple[tuple[str, Callable[[Lists], Any]], ...]:
    hints = typing.get_type_hints(kind)  # without what limits them
    return tuple((f.name, _reader(hints[f.name])) for f in dataclasses.fields(kind))


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The types that a value of this one may have."""
    if typing.get_origin(kind) in (typing.Union, type(int | None)):
        return typing.get_args(kind)
    return (kind,)
