"""Tells whether other work shares the cores with a model's calls: threads that spin then cost more than they save."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

_SHARED = 0.85  # of the time of a call, the share that its own thread runs, where the cores are its own
_EVIDENCE = 0.02  # seconds of calls that tell it


def usable_cores() -> int:
    """Cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


class SharedCores:
    """Whether other work shares the cores with a model's calls, told by the calls themselves.

    A pool that spins keeps the calling thread running throughout a call. Where it runs less, another has its core: spinning threads
    then hold up those that they wait for (measured on two cores with two busy loops: 1.5 to 2 times the processor time).

    Attributes:
        seconds: That the calls took.
        rows: That they had.
    """

    def __init__(self) -> None:
        self.seconds, self.rows, self._ran = 0.0, 0, 0.0

    def during(self, call: Callable[[], object], rows: int) -> None:
        """Make a call of so many rows, and add up its times."""
        passed, ran = time.perf_counter(), time.thread_time()
        call()
        self.seconds += time.perf_counter() - passed
        self._ran += time.thread_time() - ran
        self.rows += rows

    @property
    def enough(self) -> bool:
        """Whether the calls so far tell it."""
        return self.seconds >= _EVIDENCE

    def seen(self) -> bool:
        """Whether the cores are seen to be shared; False where too little was, or the system tells it too coarsely."""
        return sys.platform != "win32" and self.enough and self._ran < _SHARED * self.seconds
