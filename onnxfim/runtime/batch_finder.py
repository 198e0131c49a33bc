"""Finds how many rows a call should have, by calls that are timed against each other."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from onnxfim.runtime.available_memory import highest_memory, resident_memory
from onnxfim.runtime.call_memory import took_much
from onnxfim.runtime.failures import OutOfMemory, ProviderFailed
from onnxfim.runtime.row_counts import FEWEST, sizes
from onnxfim.runtime.watching import current_watch

Clock: TypeAlias = Callable[[], float]

#: Rows of a call at most.
MAX_ROWS = 1024
#: Bytes of rows in one batch: past this no runtime gains, and memory is worth more.
MAX_BYTES = 2**26
_GROWTH = 4  # from a size to the next: what lies between two of them that cost the same costs no less
_GAIN = 1.10  # a size that gains less on the one before misses
_MISSES = 2  # in a row end the search
_TIE = 1.05  # times the least cost: among such sizes a large one wins, for each call has a cost of ours too
_USUAL, _USUAL_TIE = 64, 1.15  # rows up to which a larger size costs less for all that is known, and measured no more than this
_MANY = 256  # rows past which a size must cost less to be taken: its memory is worth more than a tie
_CHEAP = 5e-3  # seconds of a call up to which misses do not end the search: to look on costs little
_LONG = 0.025  # seconds of a call beside which our own cost is nothing: of equals no larger one is taken
_LONGEST = 0.5  # seconds that a call which is tried may take
_SHORT = 1e-3  # seconds that a size is called for at a time: less is within the clock's noise
_BUDGET = 0.15  # seconds in all, after which sizes are not repeated
_VISITS = 9  # of a size whose place is not clear
_NEAR = 1.25  # times the least cost: what may still be the best


class BatchFinder:
    """Raises the batch until throughput stops growing; halves it when memory runs out.

    Sizes take turns. In a turn each is called for as many rows as the largest of them, or for a millisecond where that is sooner,
    and the turn that took least counts: what other work does to a clock, it adds.

    Args:
        fixed: The batch, where it is not to be found.
        row_bytes: Size of a row.
        few_shapes: Each new batch size costs the provider: only the sizes that calls have anyway are tried.
    """

    def __init__(self, fixed: int | None, row_bytes: int, *, few_shapes: bool = False) -> None:
        self.searching = fixed is None
        limit = current_watch().most_rows
        self.most = min(most_rows(row_bytes), limit or MAX_ROWS)
        self.few_shapes = few_shapes
        self.batch = fixed or (min(FEWEST, self.most) if few_shapes else 1)
        if limit is not None:
            self.batch = min(self.batch, limit)
        self.calls = 0

    def remember(self, batch: int) -> bool:
        """Take a batch that was found before, where one is to be found and this one can be; whether it was taken."""
        if not self.searching or not 1 <= batch <= self.most:
            return False
        self.searching, self.batch = False, batch
        return True

    def search(self, call: Callable[[int], Any], clock: Clock = time.perf_counter, at_once: int = 1) -> None:
        """Find the batch, where it is to be found, by timing ``call(rows)``.

        Args:
            call: Runs the model on so many rows.
            clock: Seconds.
            at_once: Of such seconds that pass at a time: the threads of a call, where they are seconds of the processor.
        """
        if not self.searching:
            return
        self.searching = False
        if self.most < FEWEST and self.few_shapes:
            return
        turns = _Turns(call, clock, at_once)
        try:
            self._climb(turns)
            self._look_between(turns)
            turns.settle()
        except (OutOfMemory, ProviderFailed):  # one that is broken for good fails in the next call too, and is told then
            pass
        self.calls += turns.calls
        self.batch = chosen(turns.costs, _LONG * at_once)

    def _climb(self, turns: _Turns) -> None:
        """Call ever larger sizes, until they gain nothing or take too much."""
        before: int | None = None
        misses = 0
        long = _LONG * turns.at_once
        for size in self._sizes():
            if before is not None and turns.costs[before][-1] * size > _LONGEST * turns.at_once:
                return
            if self.few_shapes:
                turns.warm_up(size)
            cost = turns.visit(size, size) if self.few_shapes else turns.first(size, size)
            if cost is None:
                return
            if before is not None and cost * size < 2 * long:
                turns.visit(before, size)
                turns.visit(size, size)
            best = min((min(c) for n, c in turns.costs.items() if n < size), default=None)
            missed = best is not None and min(turns.costs[size]) * _GAIN > best
            misses = misses + 1 if missed else 0
            if (misses >= _MISSES and cost * size > _CHEAP) or (missed and cost * size > 2 * long):
                return
            if size >= _MANY and cost * size > 2 * _CHEAP * turns.at_once:  # our own cost is nothing beside it
                return
            before = size

    def _look_between(self, turns: _Turns) -> None:
        """Call the sizes between the best one and those next to it, which the climb left out."""
        if self.few_shapes or not turns.costs:
            return
        best = min(turns.costs, key=lambda n: min(turns.costs[n]))
        for size in (best // 2, best * 2):
            known = size in turns.costs or not 1 <= size <= self.most
            if known or min(turns.costs[best]) * size > _LONGEST * turns.at_once / _GROWTH:
                continue
            turns.first(size, max(size, best))

    def _sizes(self) -> Iterator[int]:
        """The sizes to try, from the smallest."""
        if self.few_shapes:
            yield from (n for n in sizes(MAX_ROWS)[:-1] if n <= self.most)
            return
        size = 1
        while size < self.most:
            yield size
            size *= _GROWTH
        yield self.most

    def halve(self) -> None:
        self.batch = max(1, self.batch // 2)


class _Turns:
    """What the sizes cost, turn by turn.

    Attributes:
        costs: Seconds a row, by size, of each of its turns.
        at_once: Of such seconds that pass at a time.
        calls: How many were made.
    """

    def __init__(self, call: Callable[[int], Any], clock: Clock, at_once: int) -> None:
        self._call, self._clock, self.at_once = call, clock, at_once
        self.costs: dict[int, list[float]] = {}
        self.calls, self._spent = 0, 0.0

    def warm_up(self, size: int) -> None:
        """A call that does not count."""
        self._spent += timed(self._call, size, self._clock)
        self.calls += 1

    def first(self, size: int, rows: int) -> float | None:
        """The same as `visit`, of a size that is new; None, and it is left out, where its calls took too much memory."""
        memory = highest_memory(), resident_memory()
        cost = self.visit(size, rows)
        if took_much(memory):
            del self.costs[size]
            return None
        return cost

    def visit(self, size: int, rows: int) -> float:
        """Seconds a row, of a turn of at most so many rows."""
        done, seconds = 0, 0.0
        while done < rows and seconds < _SHORT:
            seconds += timed(self._call, size, self._clock)
            done += size
            self.calls += 1
        self.costs.setdefault(size, []).append(seconds / done)
        self._spent += seconds
        return seconds / done

    def settle(self) -> None:
        """Turns of the sizes that may be the best, as many for each, while they cost little."""
        while self.costs and self._spent < _BUDGET:  # none where even one row took much of the memory that is left
            best = min(min(c) for c in self.costs.values())
            near = [n for n, c in self.costs.items() if min(c) <= _NEAR * best]
            fewest = min(len(self.costs[n]) for n in near)
            if len(near) < 2 or fewest >= _VISITS:
                return
            for size in near:
                if len(self.costs[size]) == fewest:
                    self.visit(size, max(near))


def chosen(costs: Mapping[int, list[float]], long: float = _LONG) -> int:
    """Of the sizes that cost as little as the best, the largest whose call is not long, else the smallest; 1 where none is known.

    Args:
        costs: Seconds a row, by size, of each of its turns.
        long: Seconds of a long call.
    """
    if not costs:
        return 1
    cost = {n: min(c) for n, c in costs.items()}
    fewer = min((c for n, c in cost.items() if n <= _MANY), default=math.inf)
    cost = {n: c for n, c in cost.items() if n <= _MANY or c * _TIE < fewer}
    best = min(cost.values())
    tied = sorted(n for n, c in cost.items() if c <= best * (_TIE if n > _USUAL else _USUAL_TIE))
    return max((n for n in tied if cost[n] * n <= long), default=min(n for n in tied if cost[n] <= best * _TIE))


def timed(call: Callable[[int], Any], rows: int, clock: Clock) -> float:
    """Seconds of one call."""
    start = clock()
    call(rows)
    return max(clock() - start, 1e-9)


def most_rows(row_bytes: int) -> int:
    """Rows of the largest batch that is tried."""
    return max(1, min(MAX_ROWS, MAX_BYTES // max(row_bytes, 1)))


def own_clock() -> Clock:
    """The processor time of this process, where the system tells it finely; else the time that passes.

    Others' work does not count in it. Of a thread that runs on another core just now it knows what the last tick told, some
    milliseconds ago: it tells nothing of short calls whose threads spin.
    """
    return time.perf_counter if sys.platform == "win32" else time.process_time
