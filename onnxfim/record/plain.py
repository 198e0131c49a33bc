"""Frozen dataclasses as plain dicts and lists, and back."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any


def to_plain(value: Any) -> Any:
    """Frozen dataclasses, tuples and mappings as dicts and lists; numbers that are not finite become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(v) for v in value]
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of a dataclass's fields; thousands of samples ask for the same ones."""
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def from_plain(kind: Any, value: Any) -> Any:
    """Rebuild a value of type ``kind`` (dataclass, tuple, mapping, optional) from what `to_plain` made of it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return from_plain(next(a for a in arguments if a is not type(None)), value)
    if dataclasses.is_dataclass(kind):
        hints = _hints(typing.cast(type, kind))
        return kind(**{k: from_plain(hints[k], v) for k, v in value.items() if k in hints})  # type: ignore[operator]
    if origin is tuple:
        inner = arguments[0]
        return tuple(from_plain(inner, v) for v in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {k: from_plain(arguments[1], v) for k, v in value.items()}
    if kind is float:
        return float(value)
    return value
