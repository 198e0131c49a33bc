"""Which JSON values are a field's value already, so that they need no reader: most of a file."""

from __future__ import annotations

import math
import sys
import types
import typing
from typing import Any

from onnxfim.record.limits import LARGEST, LEAST, Limits


class AsItIs(typing.NamedTuple):
    """JSON values that are taken as they are: of these types, words among these, numbers and whole numbers between these."""

    types: frozenset[type]
    among: frozenset[str]
    low: float
    high: float
    least: float
    most: float


_NOTHING = AsItIs(frozenset(), frozenset(), math.inf, -math.inf, math.inf, -math.inf)


def as_it_is(kind: Any, limits: Limits) -> AsItIs:
    """What a field of the type ``kind`` takes as it is; whatever it does not name here goes to the field's reader."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return as_it_is(arguments[0], arguments[1])
    if origin in (typing.Union, types.UnionType):
        return _any_of([as_it_is(a, limits) for a in arguments])
    if origin is typing.Literal and all(isinstance(a, str) for a in arguments):
        return _NOTHING._replace(among=frozenset(arguments))
    if limits.choices or limits.over is not None or limits.under is not None:
        return _NOTHING
    least, most = limits.least, limits.most
    if kind is float:
        largest = sys.float_info.max
        return _NOTHING._replace(low=-largest if least is None else least, high=largest if most is None else most)
    if kind is int:
        return _NOTHING._replace(least=LEAST if least is None else least, most=LARGEST if most is None else most)
    return _NOTHING._replace(types=frozenset({kind})) if kind in (str, bool, type(None)) else _NOTHING


def _any_of(each: list[AsItIs]) -> AsItIs:
    """What one of several types takes; nothing where two of them take numbers, for these are the business of one."""
    numbers = [e for e in each if e.low <= e.high or e.least <= e.most]
    if len(numbers) > 1:
        return _NOTHING
    first = numbers[0] if numbers else _NOTHING
    kinds, words = (e.types for e in each), (e.among for e in each)
    return first._replace(types=frozenset().union(*kinds), among=frozenset().union(*words))
