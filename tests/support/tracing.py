"""Lets tests run at full speed where tracing them would measure nothing new.

Tracing lines and branches makes Python's own work take about twice its time. A parametrised test whose last cases all ran through lines
and branches that this process has seen before is traced now and then from there on, and at each case again as soon as something is new.
What is not traced can lower the coverage that is told, and never raises it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

PATIENCE = 3  # cases in a row that brought nothing new
EVERY = 4  # of the cases after them is traced
CHILDREN = "COVERAGE_PROCESS_CONFIG"  # tells a process that a test starts to measure itself

_paused: list[Any] = []  # the collector, while it rests


def collector() -> Any:
    """What collects the coverage of this process, or None.

    Coverage's own `stop` and `start` would look through all modules each time.
    """
    coverage = sys.modules.get("coverage")
    return getattr(coverage and coverage.Coverage.current(), "_collector", None)


def seen(collects: Any) -> int:
    """How many branches this process has run so far."""
    return sum(map(len, list(collects.data.values())))


@contextmanager
def untraced(*, children: bool = False) -> Iterator[None]:
    """Neither this process is measured nor, where ``children`` is set, those that it starts.

    As a decorator, for what tests compute themselves: parsers, validators, references written in Python.
    """
    collects = None if _paused else collector()
    config = os.environ.pop(CHILDREN, None) if children else None
    if collects:
        _paused.append(collects)
        collects.pause()
    try:
        yield
    finally:
        if collects:
            collects.resume()
            _paused.remove(collects)
        if config is not None:
            os.environ[CHILDREN] = config


def at_first(items: Iterable[T], count: int) -> Iterator[T]:
    """The items; what is done with those after the first ``count`` is not traced."""
    rest = iter(items)
    for _, item in zip(range(count), rest, strict=False):
        yield item
    with untraced():
        yield from rest


class Saturation:
    """Which cases of parametrised tests are traced."""

    def __init__(self) -> None:
        self._idle: dict[str, int] = {}

    def traces(self, function: str) -> bool:
        """Whether the next case of this test is traced."""
        return max(0, self._idle.get(function, 0) - PATIENCE + 1) % EVERY == 0

    def ran(self, function: str, new: bool) -> None:
        """A case has run, and has run through something new."""
        self._idle[function] = 0 if new else self._idle.get(function, 0) + 1


_SATURATION = Saturation()


@contextmanager
def as_needed(item: pytest.Item) -> Iterator[None]:
    """A test with its fixtures; what is marked ``untraced`` is not traced, nor a process that it starts.

    Where each case has a subject of its own, as rules of operators are, it is marked ``traced``.
    """
    collects = collector()
    before = seen(collects) if collects else 0
    function, case, _ = item.nodeid.partition("[")
    if not collects:
        yield
    elif item.get_closest_marker("untraced"):
        with untraced(children=True):
            yield
    elif case and not item.get_closest_marker("traced") and not _SATURATION.traces(function):
        with untraced():
            yield
        _SATURATION.ran(function, False)
    else:
        yield
        _SATURATION.ran(function, seen(collects) != before)
