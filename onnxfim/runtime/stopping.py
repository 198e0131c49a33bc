"""How work is asked to end early: a flag that is looked at between batches, and the calls of ONNX Runtime that it breaks off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

#: Signals that end work, where the platform has them.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
#: Seconds that a call in flight is given after the first request; it is broken off between two nodes then.
PATIENCE = 2.0


class Stopped(KeyboardInterrupt):
    """Work ended because it was asked to; like Ctrl-C, no ``except Exception`` holds it up.

    Attributes:
        by: What asked, as the signal's name; None where it has none.
    """

    def __init__(self, by: str | None = None) -> None:
        super().__init__(by or "asked to end")
        self.by = by


class Stop:
    """A request to end, from a signal, another thread or another process; nothing is raised where it arrives.

    The first request lets the batch in flight run to its end, the second breaks it off and leaves out all that a result does not
    need. Whoever works looks at `asked` between batches, or calls `check`.

    Attributes:
        asked: 0, 1 or 2: how often it was asked to end.
        by: What asked first, as the signal's name; None where nothing did, or something without a name.
        heeded: Whether what is measured is kept, so that a request is answered with a result; a command ends at once otherwise.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.by: str | None = None
        self.heeded = False
        self._told: list[Callable[[int], None]] = []
        self._options: Any = None
        self._lock = threading.Lock()

    def ask(self, by: str | None = None) -> None:
        """Ask to end; the second time at once. From any thread."""
        with self._lock:
            self.asked = min(self.asked + 1, 2)
            self.by = self.by or by
            told = tuple(self._told)
        if self.asked == 1:
            timer = threading.Timer(PATIENCE, self._break_off)
            timer.daemon = True
            timer.start()
        else:
            self._break_off()
        for tell in told:
            tell(self.asked)

    def when_asked(self, tell: Callable[[int], None]) -> None:
        """Call ``tell`` with `asked` at every request, from the thread that makes it: to hand it on to another process."""
        self._told.append(tell)

    def check(self) -> None:
        """Raise where it was asked to end.

        Raises:
            Stopped: it was.
        """
        if self.asked:
            raise Stopped(self.by)

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Requests wait while this lasts: for writing what is to be whole."""
        before, self.heeded = self.heeded, True
        try:
            yield
        finally:
            self.heeded = before

    @property
    def hurried(self) -> bool:
        """Whether only what a result needs is to be done."""
        return self.asked > 1

    @property
    def run_options(self) -> Any:
        """ONNX Runtime's options of every call that this may break off."""
        if self._options is None:
            import onnxruntime

            self._options = onnxruntime.RunOptions()
            self._options.log_severity_level = 4  # that a call was broken off is no news
            if self.hurried:
                self._break_off()
        return self._options

    def _break_off(self) -> None:
        if self._options is not None:
            self._options.terminate = True

    @contextmanager
    def current(self) -> Iterator[Stop]:
        """Make this what `current_stop` tells, in this thread."""
        before = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(before)


_CURRENT: ContextVar[Stop | None] = ContextVar("onnxfim_stop", default=None)


def current_stop() -> Stop | None:
    """The request that work in this thread heeds; None where nothing asks it to end but an exception."""
    return _CURRENT.get()


def breakable() -> Any:
    """Options of a call of ONNX Runtime that may be broken off, or None.

    Raises:
        Stopped: it was asked to end at once already.
    """
    stop = _CURRENT.get()
    if stop is None:
        return None
    if stop.hurried:
        stop.check()
    return stop.run_options


def broken_off(error: BaseException) -> Stopped | None:
    """What a call's error means where `Stop` broke it off; None where that was not so."""
    stop = _CURRENT.get()
    if stop is None or not stop.asked or "terminate flag" not in str(error):
        return None
    return Stopped(stop.by)
