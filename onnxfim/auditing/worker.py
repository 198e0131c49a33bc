"""The process that does a job: it runs the model, tells what is in flight, and hands back the result as text."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import logging
import mmap
import os
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from onnxfim import errors
from onnxfim.auditing.in_flight import SIZE, Recorder
from onnxfim.auditing.jobs import Task
from onnxfim.auditing.meter import Progress
from onnxfim.auditing.packing import unpack
from onnxfim.data import Samples
from onnxfim.errors import OnnxFimError
from onnxfim.record.plain import to_plain
from onnxfim.runtime.stopping import SIGNALS, Stop

HEAD = struct.Struct("<I")  # bytes of a message, before it
_OFTEN = 0.1  # seconds between two messages of progress
_FIRST_TO_DIE = "700"  # of 1000: where memory runs out, the system ends this process and not the one that writes the results
_PARENT_DIES = 1  # PR_SET_PDEATHSIG


def serve(task: Task, memory: mmap.mmap, given: BinaryIO, back: BinaryIO) -> None:
    """Do the job and write messages to ``back``, the last of them its result or its error.

    Args:
        task: What to do.
        memory: The record of what is in flight.
        given: Requests to end come from here, a line each; where it ends, nobody waits for the result.
        back: Messages go here: 4 bytes of length and JSON.
    """
    stop = Stop()
    tell = _Messages(back, lambda: stop.heeded)
    threading.Thread(target=_heed, args=(given, stop), daemon=True, name="onnxfim-requests").start()
    inputs = task.job.candidates[0].inputs
    log = logging.getLogger("onnxfim")
    log.handlers, log.propagate = [_Forwarded(tell)], False
    log.setLevel(task.level)
    try:
        with Recorder(memory, task.orders, inputs.inputs if isinstance(inputs, Samples) else inputs).current():
            result = task.job.run(tell.progress, stop)
        for text in task.job.parts(result):
            tell(part=text)
        tell(done=True)
    except OnnxFimError as error:
        tell(error=_public(error), text=str(error))
    except KeyboardInterrupt:
        tell(interrupted=stop.by)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        tell(bug=type(error).__name__, text=str(error), traceback="".join(traceback.format_exception(error)))


def _public(error: OnnxFimError) -> str:
    """Name of the first of an error's classes that everybody knows."""
    return next(c.__name__ for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c)


def _heed(given: BinaryIO, stop: Stop) -> None:
    """Hand on requests to end; end at once where the other side has gone."""
    for line in given:
        stop.ask(line.decode().strip() or None)
    os._exit(1)


class _Messages:
    """Writes messages; from any thread."""

    def __init__(self, back: BinaryIO, heeded: Callable[[], bool]) -> None:
        self.heeded = heeded
        self._back, self._lock = back, threading.Lock()
        self._last, self._stage = 0.0, ""

    def __call__(self, **message: Any) -> None:
        text = json.dumps({**message, "heeded": self.heeded()}).encode()
        with self._lock:
            self._back.write(HEAD.pack(len(text)) + text)
            self._back.flush()

    def progress(self, told: Progress) -> None:
        """Hand on how far it is, a few times a second."""
        now = time.monotonic()
        if told.stage == self._stage and now - self._last < _OFTEN:
            return
        self._last, self._stage = now, told.stage
        self(progress=to_plain(told))


class _Forwarded(logging.Handler):
    """Hands messages of the log on."""

    def __init__(self, tell: _Messages) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        lines = [] if error is None else "".join(traceback.format_exception(error)).splitlines()
        for text in (record.getMessage(), *lines):
            self._tell(log=record.name, level=record.levelno, text=text)


def settle_signals() -> None:
    """Leave signals to the process that started this one: it alone is asked to end."""
    signal.set_wakeup_fd(-1)
    for name in SIGNALS:
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)


def settle() -> None:
    """Make this process one that another one looks after: this one goes when it goes."""
    settle_signals()
    faulthandler.disable()  # the other process says what happened
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_DIE)


def main() -> None:
    """A fresh interpreter's way here, with the files of the task and of the record: messages go to stdout."""
    settle()
    task, record = sys.argv[1:]
    back = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the runtime prints goes to stderr
    with open(record, "r+b") as file:
        memory = mmap.mmap(file.fileno(), SIZE)
    serve(unpack(Path(task)), memory, sys.stdin.buffer, back)
    _leave(back)


def forked(work: Callable[[], None], back: BinaryIO) -> None:
    """A forked process's way: do the work, and never come back."""
    try:
        settle()
        work()
    finally:
        _leave(back)


def _leave(back: BinaryIO) -> None:
    """End without the clean-up that may hang, or is another process's."""
    with contextlib.suppress(OSError, ValueError):
        back.flush()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
