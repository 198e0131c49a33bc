"""Another process for a job: how it is started, heard, asked to end and ended, and how much memory it holds."""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from onnxfim.auditing.in_flight import SIZE, InFlight, read_record
from onnxfim.auditing.jobs import Task
from onnxfim.auditing.packing import pack
from onnxfim.auditing.worker import HEAD, forked, serve, settle_signals
from onnxfim.runtime.available_memory import LIMIT, resident_memory

_MAIN = "from onnxfim.auditing.worker import main; main()"
_THREADS_TO_FORK_WITH = ("onnxfim-signals",)  # it waits for a signal, and holds nothing
_LONG_ENOUGH = 5.0  # seconds, for a process that has told its last to be gone


def can_fork() -> bool:
    """Whether a fork of this process can run ONNX Runtime: nothing of it, nor of CUDA, is loaded here, and no thread works."""
    if sys.platform != "linux" or any(name in sys.modules for name in ("onnxruntime", "torch", "tensorflow", "jax", "cupy")):
        return False
    main = threading.main_thread()
    return threading.current_thread() is main and all(t is main or t.name in _THREADS_TO_FORK_WITH for t in threading.enumerate())


class Worker:
    """One process that does one job.

    Args:
        task: What it does.
        fork: Fork this process (see `can_fork`); else a fresh interpreter is started, which takes the time of its imports.
        folder: A folder of its own, for a fresh interpreter's record.
        memory: Bytes that it is ended above; its calls are planned to stay below. None sets no limit.
    """

    def __init__(self, task: Task, *, fork: bool, folder: Path, memory: int | None = None) -> None:
        self._limits = {} if memory is None else {LIMIT: str(memory)}
        self.messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._code: int | None = None
        self._started: subprocess.Popen[bytes] | None = None
        if fork:
            self._forked(task)
        else:
            self._fresh(task, folder)
        self._reader = threading.Thread(target=self._read, daemon=True, name="onnxfim-messages")
        self._reader.start()

    def _forked(self, task: Task) -> None:
        self._memory = mmap.mmap(-1, SIZE)
        heard, back = os.pipe()
        given, asked = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: `can_fork` knows them
            self.pid = os.fork()
        if self.pid == 0:
            settle_signals()
            os.environ.update(self._limits)
            os.close(heard)
            os.close(asked)
            to = os.fdopen(back, "wb")
            forked(partial(serve, task, self._memory, os.fdopen(given, "rb"), to), to)
        os.close(back)
        os.close(given)
        self._heard: BinaryIO = os.fdopen(heard, "rb")
        self._asked: BinaryIO = os.fdopen(asked, "wb", buffering=0)

    def _fresh(self, task: Task, folder: Path) -> None:
        descriptor, path = tempfile.mkstemp(prefix="in-flight-", dir=folder)
        os.truncate(descriptor, SIZE)
        self._memory = mmap.mmap(descriptor, SIZE)
        os.close(descriptor)
        environment = {**os.environ, **self._limits, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._started = subprocess.Popen(
            [sys.executable, "-c", _MAIN, str(pack(task, folder)), path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip
        self.pid = self._started.pid
        assert self._started.stdin is not None
        assert self._started.stdout is not None
        self._heard, self._asked = self._started.stdout, self._started.stdin  # type: ignore[assignment]

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while len(head := self._heard.read(HEAD.size)) == HEAD.size:
                text = self._heard.read(*HEAD.unpack(head))
                self.messages.put(text)
        self.messages.put(None)

    def ask(self, by: str | None) -> None:
        """Ask it to end, as `Stop.ask`."""
        with contextlib.suppress(OSError, ValueError):
            self._asked.write(f"{by or ''}\n".encode())
            self._asked.flush()

    def kill(self) -> None:
        """End it at once."""
        if self._code is None and self.poll() is None:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def poll(self) -> int | None:
        """How it ended: its exit code, or minus the signal's number; None while it runs."""
        if self._code is not None:
            return self._code
        if self._started is not None:
            self._code = self._started.poll()
            return self._code
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else waited for it
            self._code = 0
            return self._code
        if pid:
            self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def close(self) -> int:
        """Wait for its end, hastened where it does not come; how it ended."""
        ended = threading.Event()
        for turn in range(int(_LONG_ENOUGH / 0.01)):
            if self.poll() is not None:
                break
            ended.wait(0.01 if turn else 0.001)
        while (code := self.poll()) is None:
            self.kill()
            ended.wait(0.01)
        self._reader.join(_LONG_ENOUGH)  # what it started may hold its end of the pipe
        for pipe in (self._asked, self._heard) if not self._reader.is_alive() else (self._asked,):
            with contextlib.suppress(OSError):
                pipe.close()
        return code

    @property
    def in_flight(self) -> InFlight:
        """What it was doing when it was last heard of."""
        return read_record(self._memory)

    @property
    def spent(self) -> float | None:
        """Seconds of a processor that it has taken; None where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError, AttributeError):
            return None

    @property
    def resident(self) -> int | None:
        """Bytes of memory that it and what it started hold; None where the system does not tell."""
        found = [resident_memory(pid) for pid in _with_children(self.pid)]
        known = [f for f in found if f is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class Hurry:
    """When a process was asked to end at once, and the seconds of a processor that it had taken by then, where they are told."""

    since: float
    spent: float | None

    def over(self, worker: Worker, at: InFlight, now: float, *, soon: float, late: float) -> bool:
        """Whether the process had its time to end, and did not.

        By the clock in a call of the runtime, which may sleep; elsewhere by the processor, for it may not have been its turn on a
        busy machine.

        Args:
            worker: The process.
            at: What it is doing.
            now: The time, by `time.monotonic`.
            soon: Seconds that it has, by the clock or of a processor.
            late: Seconds by the clock after which no more is asked.
        """
        spent = worker.spent if at.kind is None else None
        taken = now - self.since if spent is None or self.spent is None else spent - self.spent
        return taken > soon or now - self.since > late


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text().split():
                    yield from _with_children(int(child))


__all__ = ["Hurry", "Worker", "can_fork"]
