"""A model that fails on single rows: those become NaN, so that one sample cannot end an audit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from onnxfim.runtime.failures import RowsFailed
from onnxfim.runtime.rows import AroundForward, Forward, Rows, taken

Array: TypeAlias = np.ndarray[Any, Any]


class ForgivingForward(AroundForward):
    """A forward whose rows are NaN where the runtime fails on them; the others of their batch are found by halving it.

    Args:
        forward: The model.
        outputs: Its (K, P).
    """

    def __init__(self, forward: Forward, outputs: tuple[int, int]) -> None:
        super().__init__(forward)
        self._outputs = outputs

    def outputs(self, X: Array, of: Array | None = None) -> Array:
        return self._halved(lambda part: self._forward.outputs(X[part], None if of is None else of[part]), np.arange(len(X)))

    def stream(self, X: Array, batches: Iterable[Rows], of: Array | None = None) -> Iterator[Array]:
        source, given = iter(batches), deque[Rows]()

        def noted() -> Iterator[Rows]:
            yield from list(given)  # those that were drawn ahead when the one before them failed
            for rows in source:
                given.append(rows)
                yield rows

        while True:
            try:
                for z in self._forward.stream(X, noted(), of):
                    given.popleft()
                    yield z
                return
            except RowsFailed:
                failed = given.popleft()
                yield self._halved(partial(self._some, X, of, failed), np.arange(len(failed.sample)))

    def _some(self, X: Array, of: Array | None, rows: Rows, part: Array) -> Array:
        return np.concatenate(list(self._forward.stream(X, [taken(rows, part)], of)))

    def _halved(self, call: Callable[[Array], Array], part: Array) -> Array:
        """Outputs at the rows ``part``; in halves where some of them fail."""
        try:
            return call(part)
        except RowsFailed:
            if len(part) == 1:
                return np.full((1, *self._outputs), np.nan)
            half = len(part) // 2
            return np.concatenate([self._halved(call, part[:half]), self._halved(call, part[half:])])


def rows_that_run(call: Callable[[Array, Array], object], X: Array, count: int, most: int = 64) -> Array:
    """Positions of the first ``count`` samples of X that the model takes, of all of those where they are fewer, (n,) int64.

    Args:
        call: Runs the model on rows, whose positions it is told.
        X: Samples, (N, *shape).
        count: How many are wanted.
        most: Samples to try one by one where the first ``count`` fail together.

    Raises:
        RowsFailed: it takes none of them.
    """
    first = np.arange(min(count, len(X)))
    try:
        call(X[first], first)
    except RowsFailed:
        tried = np.arange(min(most, len(X)))
        good = [i for i in tried if why_not(lambda row: call(row, tried[i : i + 1]), X[i : i + 1]) is None][:count]  # noqa: B023
        if not good:
            raise
        return np.array(good)
    return first


def why_not(call: Callable[[Array], object], row: Array) -> str | None:
    """What the runtime says where it fails on a row (1, *shape); None where it does not."""
    try:
        call(row)
    except RowsFailed as error:
        return error.said
    return None
