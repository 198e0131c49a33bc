"""Records as JSON text at once, without plain copies of them in between."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring_ascii as quoted
from operator import attrgetter
from typing import Any, TypeAlias

from onnxfim.record.plain import to_plain

#: By record type, the fields that are left out where they say nothing: None, a text or a list without content, a whole 0.
Unsaid: TypeAlias = Mapping[type, frozenset[str]]
_ITEM = ", "
_MANY = 256  # items of a list, that make a part
_EMPTY_OR_NOT = frozenset({type(None), str, tuple, list, dict, int, bool})  # of these, what is false says nothing


def as_json(value: Any, *, indent: int | None = None, unsaid: Unsaid | None = None) -> str:
    """The text that ``json.dumps(to_plain(value), indent=indent)`` gives, in a fraction of its time.

    Args:
        value: Records, mappings, lists and plain values; numbers that are not finite become null.
        indent: Spaces of each level, or None for one line.
        unsaid: What is left out.
    """
    return _JsonWriter(indent, unsaid or {}).text(value, 0)


def json_parts(value: Mapping[str, Any], *, indent: int | None = None, unsaid: Unsaid | None = None) -> Iterator[str]:
    """The text of `as_json`, part by part: no more than some items of a long list are held as text at a time.

    Args:
        value: By their names, values as of `as_json`; long lists among them come in parts.
        indent, unsaid: As of `as_json`.
    """
    return _JsonWriter(indent, unsaid or {}).parts(value)


class _JsonWriter:
    """Writes values; what it needs of a record type is looked up once."""

    def __init__(self, indent: int | None, unsaid: Unsaid) -> None:
        self._indent, self._unsaid = indent, unsaid
        self._begun: list[tuple[str, str, str]] = []  # by depth
        self._of_type: dict[type, Callable[[Any, int], str]] = {
            float: lambda value, _: float.__repr__(value) if math.isfinite(value) else "null",
            str: lambda value, _: quoted(value),
            int: lambda value, _: int.__repr__(value),
            bool: lambda value, _: "true" if value else "false",
            type(None): lambda value, _: "null",
            tuple: self._list,
            list: self._list,
            dict: self._mapping,
        }

    def text(self, value: Any, depth: int) -> str:
        write = self._of_type.get(type(value))
        if write is None:
            write = self._of_type[type(value)] = self._found(value)
        return write(value, depth)

    def parts(self, value: Mapping[str, Any]) -> Iterator[str]:
        """The text of a mapping, in parts."""
        if not value:
            yield "{}"
            return
        line, between, last = ("", _ITEM, "") if self._indent is None else self._lines(0)
        before = f"{{{line}"
        for key, one in value.items():
            head = f"{before}{quoted(str(key))}: "
            before = between
            if isinstance(one, (tuple, list)) and len(one) > _MANY:
                yield from self._in_parts(head, one)
            else:
                yield head + self.text(one, 1)
        yield f"{last}}}"

    def _in_parts(self, head: str, items: Sequence[Any]) -> Iterator[str]:
        line, between, last = ("", _ITEM, "") if self._indent is None else self._lines(1)
        yield f"{head}[{line}"
        for start in range(0, len(items), _MANY):
            some = [self.text(one, 2) for one in items[start : start + _MANY]]
            yield (between if start else "") + between.join(some)
        yield f"{last}]"

    def _found(self, value: Any) -> Callable[[Any, int], str]:
        """What writes values of this one's type, which is met for the first time."""
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._record(type(value))
        if isinstance(value, Mapping):
            return self._mapping
        if isinstance(value, (tuple, list)):
            return self._list
        if (base := next((b for b in (str, int, float) if isinstance(value, b)), None)) is not None:
            return self._of_type[base]
        return lambda value, depth: self.text(to_plain(value), depth)  # a number of NumPy

    def _within(self, parts: list[str], ends: str, depth: int) -> str:
        if not parts:
            return ends
        if self._indent is None:
            return f"{ends[0]}{_ITEM.join(parts)}{ends[1]}"
        line, between, last = self._begun[depth] if depth < len(self._begun) else self._lines(depth)
        return f"{ends[0]}{line}{between.join(parts)}{last}{ends[1]}"

    def _lines(self, depth: int) -> tuple[str, str, str]:
        """How a line begins before the first part of a value at a depth, between two, and after the last."""
        while len(self._begun) <= depth:
            line = "\n" + " " * ((self._indent or 0) * (len(self._begun) + 1))
            self._begun.append((line, f",{line}", line[: len(line) - (self._indent or 0)]))
        return self._begun[depth]

    def _list(self, value: Any, depth: int) -> str:
        if set(map(type, value)) == {float} and math.isfinite(sum(value)):  # most lists, at once
            return self._within(list(map(repr, value)), "[]", depth)
        return self._within([self.text(one, depth + 1) for one in value], "[]", depth)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> str:
        return self._within([f"{quoted(str(k))}: {self.text(v, depth + 1)}" for k, v in value.items()], "{}", depth)

    def _record(self, kind: type) -> Callable[[Any, int], str]:
        """What writes records of this type."""
        names = [f.name for f in dataclasses.fields(kind)]
        if not names:
            return lambda value, _: "{}"
        unsaid = self._unsaid.get(kind, frozenset())
        heads = [(f"{quoted(name)}: ", name in unsaid) for name in names]
        values = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
        known, isfinite = self._of_type, math.isfinite

        def write(value: Any, depth: int) -> str:
            parts = []
            for (head, optional), one in zip(heads, values(value), strict=True):
                kind = type(one)
                if kind is float:
                    if isfinite(one):
                        parts.append(head + repr(one))
                    elif not optional:
                        parts.append(head + "null")
                elif optional and (not one if kind in _EMPTY_OR_NOT else _nothing(one)):
                    continue
                elif kind is str:
                    parts.append(head + quoted(one))
                elif one is None:
                    parts.append(head + "null")
                else:
                    found = known.get(kind)
                    parts.append(head + (self.text(one, depth + 1) if found is None else found(one, depth + 1)))
            return self._within(parts, "{}", depth)

        return write


def _nothing(value: Any) -> bool:
    """Whether a value says nothing; a number that is not whole says something even where it is 0."""
    if value is None or (isinstance(value, (str, tuple, list, dict, int)) and not value):
        return True
    if not hasattr(value, "item"):
        return False
    plain = to_plain(value)  # of a number of NumPy
    return not plain and not isinstance(plain, float)
