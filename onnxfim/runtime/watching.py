"""Who is told of every call of ONNX Runtime while it is in flight: another process learns there what this one died of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.graph.held import POSITION

Array: TypeAlias = np.ndarray[Any, Any]
#: What a call does: it answers rows, or it opens a session.
Kind: TypeAlias = Literal["call", "opening"]


class Watch:
    """Is told what is in flight, and does nothing with it.

    Attributes:
        tries: Whether every row is tried alone before a call of several: so that it shows on which one the runtime dies.
        most_rows: Rows of a call at most, or None.
    """

    tries = False
    most_rows: int | None = None

    def enter(self, stage: str) -> None:
        """A stage begins."""

    def begins(self, kind: Kind, rows: int) -> None:
        """A call of so many rows is in flight."""

    def ended(self) -> None:
        """It came back."""

    def trying(self, row: Array, position: int | None = None) -> None:
        """The next call is of this row alone, (*shape); the position of its sample, where that is known."""

    def tried(self) -> None:
        """All rows of a call were tried."""

    def knows(self, X: Array, positions: Array) -> None:
        """The samples are these from here on: values inside the model, (N, *shape), and the positions that they had, (N,)."""

    @contextmanager
    def about(self, positions: Sequence[int]) -> Iterator[None]:
        """What runs meanwhile is about the samples at these positions."""
        yield

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this what `current_watch` tells, in this thread."""
        before = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(before)


_CURRENT: ContextVar[Watch] = ContextVar("onnxfim_watch", default=Watch())  # noqa: B039 - it holds no state


def current_watch() -> Watch:
    """Who is told of the calls of this thread."""
    return _CURRENT.get()


@contextmanager
def watched(kind: Kind, rows: int = 0) -> Iterator[None]:
    """Tell who watches that a call is in flight."""
    watch = _CURRENT.get()
    watch.begins(kind, rows)
    try:
        yield
    finally:
        watch.ended()


def try_rows(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array], along: Mapping[str, int] | None = None) -> None:
    """Run every row of a call alone, where who watches asks for it; what comes out does not matter.

    Args:
        session: Where.
        outputs: Names of its outputs.
        feeds: What the call of all rows is fed.
        along: Axis of each array that the rows lie along; None where they lie along the first of the only one.
    """
    watch = _CURRENT.get()
    if not watch.tries:
        return
    along = along or (dict.fromkeys(feeds, 0) if len(feeds) == 1 else {})
    rows = {name: feeds[name] for name, axis in along.items() if name in feeds and axis == 0}
    if not rows:
        return
    main = next(iter(rows.values()))
    for k in range(len(main)):
        if k and all(np.array_equal(a[k], a[k - 1]) for a in rows.values()):
            continue
        watch.trying(main[k], int(feeds[POSITION][k]) if POSITION in feeds else None)
        one = {name: np.take(a, [k], along[name]) if name in along else a for name, a in feeds.items()}
        filled = {name: np.take(a, [k] * len(main), along[name]) if name in along else a for name, a in feeds.items()}
        for fed in (one, filled):  # a model that insists on its number of rows is given the row that often
            with suppress(Exception), watched("call", 1):
                session.run(list(outputs), dict(fed))
                break
    watch.tried()
