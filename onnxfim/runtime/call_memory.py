"""How many rows a call may have for the memory that there is: from what its values take, and from what calls before took."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from onnxfim.runtime.available_memory import available_memory, highest_memory, resident_memory

#: Of the memory that the process may still take, what one call may take.
SHARE = 0.5
#: Bytes of one call's values at most, wherever it runs and however much there is: past this no call gains in time.
MOST = 2**28
#: Bytes of one call's cotangents on the CPU, or as many as the weights have where that is more: so many stay in the caches between
#: one operator and the next, and past them each is read from memory again (a ViT takes 1.14 times as long a row with eight rows a
#: call as with one, a DenseNet 1.27 times). Weights are read once a call, so that large ones want more rows.
CACHED = 2**23
_FIRST = 2**25  # bytes that the first call is planned for; each that went well doubles it
_NOISE = 2**24  # bytes by which a process grows for other reasons; smaller calls are not looked at
_MB = 10**6
_FRESH = 0.25  # seconds for which what is available is not asked for again


@dataclass(frozen=True)
class CallCost:
    """Bytes that a call takes beside its ``weights``: ``row`` for each sample, ``seed`` for each of its seeds."""

    row: int
    seed: int
    weights: int = 0

    def of(self, rows: int, seeds: int) -> int:
        """Bytes of a call."""
        return rows * (self.row + seeds * self.seed)


class CallMemory:
    """Bounds calls by memory: the values that they are known to hold, corrected by what calls were seen to take.

    A call is planned to take at most `MOST` bytes and at most `SHARE` of what is available, and to leave its cotangents in the
    caches (`CACHED`). The first is small; each that went
    well allows twice as much. What the process grew by is measured, and never makes a call larger than planned.

    Args:
        cost: Of a call, from the shapes of the graph.
        most: Rows of a call at most, or None.

    Attributes:
        measures: Whether calls take the process's own memory, as on the CPU. What a device has left ONNX Runtime does not tell:
            there calls are as large as they are asked for, until one fails.
    """

    def __init__(self, cost: CallCost, *, most: int | None = None) -> None:
        self.cost, self.measures = cost, True
        self._left: tuple[float, int | None] = (-math.inf, None)
        self._most_rows = most
        self._more = 1.0  # times what was planned
        self._planned = float(_FIRST)
        self._failed = math.inf  # rows times seeds that there was no memory for

    def short(self) -> str | None:
        """Why a call of one sample with one seed cannot go through; None where nothing speaks against it."""
        left, needed = self._available(), int(self.cost.of(1, 1) * self._more)
        if left is None or needed <= left:
            return None
        return f"one sample with one seed needs about {needed / _MB:,.0f} MB, and {left / _MB:,.0f} MB are available to the process"

    def rows(self, seeds: int, left: int) -> int:
        """Samples that the next call may have, of those ``left`` with so many seeds each; at least 1.

        Memory bounds them; for the caches they come in as many even calls as is nearest, so that no small rest is called for.
        """
        rows = self._bound() / max(self.cost.of(1, seeds) * self._more, 1.0)
        if self.measures:
            cached = max(CACHED, self.cost.weights) / max(self.cost.seed * seeds, 1)
            rows = min(rows, left // max(round(left / cached), 1))
        return int(max(1, min(rows, (self._failed - 1) // max(seeds, 1), self._most_rows or math.inf, 2**31)))

    def seeds(self, wanted: int) -> int:
        """Seeds that a call of one sample may have; at least 1."""
        left = self._bound() / self._more - self.cost.row
        return int(max(1, min(wanted, left // max(self.cost.seed, 1), self._failed - 1)))

    def at_most(self, wanted: int) -> int:
        """So many bytes, or the share of what is available where that is less."""
        left = self._available()
        return wanted if left is None else min(wanted, int(SHARE * left))

    def failed(self, units: int) -> None:
        """A call of so many rows times seeds had no memory: none is as large again."""
        self._failed = min(self._failed, max(units, 2))
        self._planned = max(self._planned / 4, 1.0)

    @contextmanager
    def watched(self, rows: int, seeds: int) -> Iterator[None]:
        """Around a call: what the process grew by tells of the next."""
        planned = self.cost.of(rows, seeds)
        looks = self.measures and planned > _NOISE
        before, high = (resident_memory(), highest_memory()) if looks else (None, None)
        yield
        if planned * self._more * 2 >= self._planned:  # it was about as large as it might be
            self._planned = min(2 * self._planned, float(MOST))
        if before is None or high is None:
            return
        now, highest = resident_memory() or 0, highest_memory() or 0
        grew = (highest if highest > high else now) - before
        if grew > planned + _NOISE:
            self._more = max(self._more, grew / planned)

    def _bound(self) -> float:
        if not self.measures:
            return math.inf
        left = self._available()
        return min(self._planned, math.inf if left is None else SHARE * left)

    def _available(self) -> int | None:
        if not self.measures:
            return None
        now = time.monotonic()
        if now - self._left[0] > _FRESH:
            self._left = now, available_memory()
        return self._left[1]


def took_much(before: tuple[int | None, int | None]) -> bool:
    """Whether the process grew by more than one call may take, or by more than that share of what is left.

    Args:
        before: `highest_memory` and `resident_memory` before the call.
    """
    (high, had), now, highest = before, resident_memory(), highest_memory()
    if high is None or had is None or now is None or highest is None:
        return False
    left = available_memory()
    grew = (highest if highest > high else now) - had
    return grew > MOST or (left is not None and grew > _NOISE and grew > SHARE * left)
