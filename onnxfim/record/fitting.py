"""Records out of JSON values, each held against its type and limits before it is built; the first that does not fit is told."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from sys import intern
from typing import Any, TypeAlias

from onnxfim.errors import OnnxFimError
from onnxfim.record.as_it_is import AsItIs, as_it_is
from onnxfim.record.limits import Limits, in_64_bits

#: Builds a value from what JSON holds; raises `Misfit`.
Read: TypeAlias = Callable[[Any], Any]

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
_FOUND = {
    dict: "an object",
    list: "a list",
    str: "a text",
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
}
_LIMITS = ("least", "most", "over", "under")
_DEEPEST = 32  # lists in lists of values without a type of their own
_SHOWN = 40  # letters of a text in a message


class Misfit(Exception):
    """A value that does not fit: where it stands in the record, what was found and what was expected."""

    def __init__(self, found: str, expected: str = "") -> None:
        super().__init__(found)
        self.path: list[str | int] = []
        self.found, self.expected = found, expected

    def inside(self, key: str | int) -> Misfit:
        """The same one step further from the value."""
        self.path.insert(0, key)
        return self

    def __str__(self) -> str:
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{_key(key)}" for key in self.path).removeprefix(".")
        return f"{where or 'the whole'} {self.found}" + (f", expected {self.expected}" if self.expected else "")


def from_plain(kind: Any, value: Any, *, older: bool = False) -> Any:
    """A value of the type ``kind`` (dataclass, tuple, mapping, optional) from what `to_plain` made of it.

    Args:
        kind: The type.
        value: What JSON holds.
        older: Whether fields that have a default may be missing though today's files hold them, and others be there.

    Raises:
        Misfit: a value of another type or outside the field's limits, a field that is missing, or one too many.
    """
    return _reader(kind, older)(value)


@cache
def _reader(kind: Any, older: bool) -> Read:
    return _read(kind, Limits(), older, words(kind))


def words(kind: Any, limits: Limits | None = None) -> str:
    """What a value of the type ``kind`` is, for a message."""
    limits = limits or Limits()
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return words(arguments[0], arguments[1])
    if limits.choices or origin is typing.Literal:
        return f"one of {', '.join(map(repr, limits.choices or arguments))}"
    if origin in (typing.Union, types.UnionType):
        last = sorted(arguments, key=lambda a: a is type(None))
        return " or ".join(dict.fromkeys(words(a, limits) for a in last))
    if origin is tuple:
        return "a list" if arguments[-1] is Ellipsis else f"a list of {len(arguments)}"
    least, most = limits.least, limits.most
    if least is not None and most is None:
        ends = f" of {least:g} or more"
    else:
        told = (("from", least), ("to", most), ("above", limits.over), ("below", limits.under))
        ends = "".join(f" {word} {limit:g}" for word, limit in told if limit is not None)
    return _NAMES.get(kind, "an object") + ends


def _read(kind: Any, limits: Limits, older: bool, expected: str) -> Read:
    """The function that builds a value of the type ``kind``; ``expected`` is what its messages ask for."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _read(arguments[0], arguments[1], older, expected)
    if origin in (typing.Union, types.UnionType):
        return _any_of(arguments, limits, older, expected)
    if origin is typing.Literal:
        return _one_of(arguments, expected)
    if origin is tuple:
        return _many(arguments[0], older, expected) if arguments[-1] is Ellipsis else _so_many(arguments, older, expected)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(arguments[1], older, expected)
    if dataclasses.is_dataclass(kind):
        return _record(typing.cast(type, kind), older, expected)
    if limits.choices:
        return _one_of(limits.choices, expected)
    return {float: _number, int: _whole, Any: _free}.get(kind, _plain(kind))(limits, expected)


def _takes(kind: Any) -> tuple[type, ...]:
    """The types of JSON values that may be a value of ``kind``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _takes(arguments[0])
    if origin is typing.Literal:
        return (type(arguments[0]),)
    if origin is tuple:
        return (list,)
    if kind in (float, int):
        return (float, int)
    return (kind,) if kind in _NAMES else (dict,)


def _any_of(kinds: tuple[Any, ...], limits: Limits, older: bool, expected: str) -> Read:
    """Of several types the one that the JSON value has; several lists of words count as one."""
    literals = [k for k in kinds if typing.get_origin(k) is typing.Literal]
    if len(literals) > 1:
        merged: Any = typing.Literal[tuple(a for k in literals for a in typing.get_args(k))]
        kinds = (merged, *(k for k in kinds if k not in literals))
        expected = " or ".join(words(k) for k in kinds)
    table = {taken: _read(kind, limits, older, expected) for kind in kinds for taken in _takes(kind)}
    null = table.pop(type(None), None)

    def read(value: Any) -> Any:
        if value is None and null is not None:
            return None
        chosen = table.get(type(value))
        if chosen is None:
            raise _misfit(value, expected)
        return chosen(value)

    return read


def _one_of(choices: tuple[Any, ...], expected: str) -> Read:
    allowed = {(type(choice), choice) for choice in choices}

    def read(value: Any) -> Any:
        if not isinstance(value, (str, int)) or (type(value), value) not in allowed:
            raise _misfit(value, expected, shown=True)
        return value

    return read


def _plain(kind: type) -> Callable[[Limits, str], Read]:
    def of(_: Limits, expected: str) -> Read:
        def read(value: Any) -> Any:
            if type(value) is not kind:
                raise _misfit(value, expected)
            return value

        return read

    return of


def _number(limits: Limits, expected: str) -> Read:
    within = _within(limits)

    def read(value: Any) -> float:
        if type(value) is not float:
            if type(value) is not int:
                raise _misfit(value, expected)
            if not in_64_bits(value):
                raise _misfit(value, expected, shown=True)
            value = float(value)
        if not math.isfinite(value) or not within(value):
            raise _misfit(value, expected, shown=True)
        return value

    return read


def _whole(limits: Limits, expected: str) -> Read:
    within = _within(limits)

    def read(value: Any) -> int:
        if type(value) is not int:
            if type(value) is not float:
                raise _misfit(value, expected)
            if not value.is_integer():
                raise _misfit(value, expected, shown=True)
            value = int(value)  # as other writers of JSON may put it
        if not in_64_bits(value) or not within(value):
            raise _misfit(value, expected, shown=True)
        return value

    return read


def _free(_: Limits, expected: str) -> Read:
    """Any value of finite numbers, not too deep."""

    def read(value: Any, deep: int = 0) -> Any:
        if deep > _DEEPEST:
            raise Misfit(f"is nested more than {_DEEPEST} deep", "plain values")
        if isinstance(value, dict):
            return {key: _inside(key, read, inner, deep + 1) for key, inner in value.items()}
        if isinstance(value, list):
            return [_inside(at, read, inner, deep + 1) for at, inner in enumerate(value)]
        if isinstance(value, (int, float)) and not (math.isfinite(value) if isinstance(value, float) else in_64_bits(value)):
            raise _misfit(value, "a number", shown=True)
        return value

    return read


def _inside(key: str | int, read: Callable[..., Any], *values: Any) -> Any:
    try:
        return read(*values)
    except Misfit as misfit:
        raise misfit.inside(key) from None


def _within(limits: Limits) -> Callable[[float], bool]:
    """Whether a number is within limits, as a function that costs nothing where there are none."""
    least, most, over, under = limits.least, limits.most, limits.over, limits.under
    if least is most is over is under is None:
        return lambda value: True
    low, high = (-math.inf if least is None else least), (math.inf if most is None else most)
    above, below = (-math.inf if over is None else over), (math.inf if under is None else under)
    return lambda value: low <= value <= high and above < value < below


def _many(kind: Any, older: bool, expected: str) -> Read:
    one = _reader(kind, older)
    # Lists of plain numbers are most of a file: they are looked at as a whole before they are looked at one by one.
    quick = kind is float

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _misfit(value, expected)
        if quick and set(map(type, value)) <= {float} and math.isfinite(sum(value)):
            return tuple(value)
        at = 0
        built = []
        try:
            for at, inner in enumerate(value):  # noqa: B007 - the place of the one that does not fit
                built.append(one(inner))
        except Misfit as misfit:
            raise misfit.inside(at) from None
        return tuple(built)

    return read


def _so_many(kinds: tuple[Any, ...], older: bool, expected: str) -> Read:
    each = [_reader(kind, older) for kind in kinds]

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _misfit(value, expected)
        if len(value) != len(each):
            raise Misfit(f"is a list of {len(value)}", expected)
        return tuple(_inside(at, one, inner) for at, (one, inner) in enumerate(zip(each, value, strict=True)))

    return read


def _mapping(kind: Any, older: bool, expected: str) -> Read:
    one = _reader(kind, older)

    def read(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _misfit(value, expected)
        return {key: _inside(key, one, inner) for key, inner in value.items()}

    return read


def _record(kind: type, older: bool, expected: str) -> Read:
    hints = typing.get_type_hints(kind, include_extras=True)
    readers: dict[str, Read] = {}
    plan: dict[str, tuple[Read, AsItIs]] = {}
    needed: dict[str, str] = {}
    reasons: list[tuple[str, str, object]] = []
    defaults: dict[str, Any] = {}
    for f in dataclasses.fields(kind):
        limits = Limits(**{k: f.metadata[k] for k in _LIMITS if k in f.metadata})
        wanted = words(hints[f.name], limits)
        readers[f.name] = _read(hints[f.name], limits, older, wanted)
        plan[f.name] = readers[f.name], as_it_is(hints[f.name], limits)
        if f.default is not dataclasses.MISSING:
            defaults[f.name] = f.default
        bare = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if bare or (f.metadata.get("always") and not older):
            needed[f.name] = wanted
        if "needed_where" in f.metadata:
            reasons.append((f.name, *f.metadata["needed_where"]))
    made = any(f.default_factory is not dataclasses.MISSING or not f.init for f in dataclasses.fields(kind))
    bare_of_checks = not made and not hasattr(kind, "__post_init__")
    # What the frozen __init__ does, in a fraction of its time.
    slots = [(name, getattr(kind, name).__set__) for name in readers] if bare_of_checks and hasattr(kind, "__slots__") else []
    closed = getattr(kind, "takes_no_other_field", False) and not older

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _misfit(value, expected)
        if closed and not value.keys() <= readers.keys():
            raise Misfit("is not a field that is known", "none of its name").inside(next(k for k in value if k not in readers))
        record: Any = object.__new__(kind) if bare_of_checks else None
        built: dict[str, Any] = {} if record is None or slots else record.__dict__
        built.update(defaults)
        name = ""
        try:
            for name, found in value.items():
                if name not in plan:
                    continue
                one, (types_, among, low, high, least, most) = plan[name]
                taken = type(found)
                if taken is float:
                    fits = low <= found <= high
                elif taken is int:
                    fits = least <= found <= most
                elif taken is str:
                    found = intern(found)  # most are the same in thousands of records
                    fits = taken in types_ or found in among
                else:
                    fits = taken in types_
                built[name] = found if fits else one(found)
        except Misfit as misfit:
            raise misfit.inside(name) from None
        if not needed.keys() <= value.keys():
            name = next(n for n in needed if n not in value)
            raise Misfit("is missing", needed[name]).inside(name)
        for name, other, reason_of in reasons:
            if other in value and built[other] is reason_of and not built.get(name):
                raise Misfit("says nothing", f"why {other} is {'null' if reason_of is None else str(reason_of).lower()}").inside(
                    name
                )
        for name, put in slots:
            put(record, built[name])
        if record is not None:
            return record
        try:
            return kind(**built)
        except OnnxFimError as error:  # what the record itself refuses
            raise Misfit(f"cannot be: {error}") from None

    return read


def _misfit(value: Any, expected: str, *, shown: bool = False) -> Misfit:
    """The error about a value; numbers and words are shown where their type is right."""
    if isinstance(value, int) and not isinstance(value, bool) and not in_64_bits(value):
        return Misfit(f"is a whole number of {value.bit_length():,} bits", f"{expected} that fits into 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        return Misfit("is not a finite number", expected)
    if shown and isinstance(value, (str, int, float)):
        return Misfit(f"is {_short(repr(value))}", expected)
    return Misfit(f"is {_FOUND.get(type(value), type(value).__name__)}", expected)


def _key(text: str) -> str:
    """A key of a file, short and printable."""
    return _short(text if text.isidentifier() else repr(text))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
