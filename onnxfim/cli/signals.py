"""Signals that end a command: a thread takes them, so that nothing is raised in the middle of a write or of a call."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from onnxfim.record.ended import ended_words
from onnxfim.runtime.stopping import SIGNALS, Stop

_SHOW_CURSOR = b"\x1b[?25h"  # a bar of progress hides it


def code_of(name: str | None) -> int:
    """The exit code of a command that this signal ended: 128 and its number; 130, as of Ctrl-C, where it is not known."""
    return 128 + int(getattr(signal, name or "SIGINT", signal.SIGINT))


@contextmanager
def ended_by_signals(stop: Stop) -> Iterator[None]:
    """Signals ask ``stop`` to end; where it is not heeded, they end the process at once, in one line.

    Handlers do nothing by themselves: the number of a signal goes to a thread, which sees it whatever the main thread is in. They
    are put back at the end. Outside the main thread, where handlers cannot be set, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # One that is ignored when a command starts stays so: ``nohup``, a shell's ``&``.
    numbers = [n for name in SIGNALS if (n := getattr(signal, name, None)) is not None and signal.getsignal(n) != signal.SIG_IGN]
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    woken = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, _nothing) for number in numbers}
    watcher = threading.Thread(target=_watch, args=(reader, frozenset(numbers), stop), name="onnxfim-signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(woken)
        writer.close()  # the end of what the watcher reads
        watcher.join()
        reader.close()


def _nothing(number: int, frame: FrameType | None) -> None:
    """The handler: what is to be done, the watcher does."""


def _watch(reader: socket.socket, numbers: frozenset[int], stop: Stop) -> None:
    while seen := reader.recv(1):
        if seen[0] not in numbers:
            continue
        name = signal.Signals(seen[0]).name
        heeded = stop.heeded
        stop.ask(name)
        if not heeded:
            _leave(name)
        elif stop.asked == 1:
            with suppress(OSError):
                os.write(2, f"onnxfim: {name}: ending after the batch in flight; a second signal ends it at once\n".encode())


def _leave(name: str) -> None:
    """End the process, whatever it is in: nothing was measured, and nothing is being written."""
    shown = _SHOW_CURSOR if sys.__stderr__ is not None and sys.__stderr__.isatty() else b""
    with suppress(OSError):
        os.write(2, shown + f"onnxfim: {ended_words(name)} before anything was measured.\n".encode())
    os._exit(code_of(name))
