"""How many cores this process has, and whether other work shares them: threads that spin then cost more than they save."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from onnxfim.runtime import control_groups
from onnxfim.runtime.control_groups import lines

_SHARED = 0.85  # of the time of a call, the share that its own thread runs, where the cores are its own
_EVIDENCE = 0.02  # seconds of calls that tell it
_GIVEN: ContextVar[int | None] = ContextVar("onnxfim_cores", default=None)


@contextmanager
def given_cores(count: int | None) -> Iterator[None]:
    """So many cores are this thread's own while the block runs, whatever the machine has; None leaves all of them."""
    before = _GIVEN.set(count)
    try:
        yield
    finally:
        _GIVEN.reset(before)


def usable_cores() -> int:
    """Cores that this process may run on at a time: what its affinity leaves, and the quotas of the control groups around it.

    Where workers share a machine, each has those that it was given (`given_cores`).
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    return max(1, min([cores, _GIVEN.get() or cores, *(math.ceil(share) for share in _quotas())]))


def limited_cores() -> int | None:
    """`usable_cores` where they are fewer than the machine has, else None: ONNX Runtime counts those of the machine."""
    usable = usable_cores()
    return usable if usable < (os.cpu_count() or 1) else None


def _quotas() -> Iterator[float]:
    """Cores' worth of time that the control groups around this process give it."""
    for folder, unified in control_groups.around("cpu"):
        files = ("cpu.max",) if unified else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        told = [word for name in files for line in lines(folder / name) for word in line.split()]
        quota, period = (int(word) if word.isdecimal() else 0 for word in (*told, "", "")[:2])  # without one: max, or -1
        if quota and period:
            yield quota / period


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
