"""Stands over one foreign program: a script of its own that needs nothing of onnxfim.

It reads one line of JSON from its input, runs the command in a group of processes of its own, and ends all of it when its time or
its memory is up, when it writes too much, or when whoever asked is gone: its input ends then. What was the case is written to a
file. So nothing is left behind, however the asking process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

_LOOK = 0.02  # seconds between two looks; memory is looked at less often
_MEMORY_LOOK = 0.1
_GRACE = 1.0  # seconds from the request to end to the end
_SUBREAPER, _DEATH_SIGNAL = 36, 1  # of Linux' prctl


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _before() -> None:
    """In the child, before the program begins: no core dumps, and its end with ours."""
    with contextlib.suppress(Exception):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _descendants(pid: int) -> Iterator[int]:
    """Processes that this one, or one of its own, has started and that still run; none where the system does not tell."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as told:
                for child in told.read().split():
                    yield int(child)
                    yield from _descendants(int(child))


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", encoding="ascii") as told:
        return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _gone(stream: int) -> bool:
    """Whether whoever asked has closed our input."""
    ready, _, _ = select.select([stream], [], [], 0)
    return bool(ready) and os.read(stream, 4096) == b""


def _send(child: subprocess.Popen[bytes], signal_number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal_number)
    for pid in set(_descendants(os.getpid())) - {child.pid}:
        with contextlib.suppress(OSError):
            os.kill(pid, signal_number)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the program and all that it started: asked first, then at once."""
    if child.poll() is None:
        _send(child, signal.SIGTERM)
        until = time.monotonic() + _GRACE
        while child.poll() is None and time.monotonic() < until:
            time.sleep(_LOOK)
    for _ in range(50):
        _send(child, signal.SIGKILL)
        child.poll()
        with contextlib.suppress(OSError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not list(_descendants(os.getpid())):
            break
        time.sleep(_LOOK)
    with contextlib.suppress(Exception):
        child.wait(_GRACE)


def _watched(child: subprocess.Popen[bytes], job: dict[str, Any], began: float) -> str | None:
    """Why the program must end; None where it ended by itself."""
    looked = began
    while child.poll() is None:
        if _gone(0):
            return "left alone"
        now = time.monotonic()
        if now - began > job["seconds"]:
            return "time"
        if any(
            os.path.getsize(path) > job["output"] for path in (job["stdout"], job["stderr"], job["result"]) if os.path.exists(path)
        ):
            return "output"
        if job["memory"] is not None and now - looked > _MEMORY_LOOK:
            looked = now
            if sum(map(_resident, {child.pid, *_descendants(os.getpid())})) > job["memory"]:
                return "memory"
        time.sleep(_LOOK)
    return None


def main() -> None:
    """Do the job on the first line of our input."""
    os.close(1)
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 2**16)
        if not more:
            return
        line += more
    job = json.loads(line)
    if sys.platform == "linux":
        _prctl(_SUBREAPER, 1)  # what it leaves behind becomes ours
    told: dict[str, Any] = {"code": None, "ended": None, "failed": None}
    began = time.monotonic()
    with open(job["stdout"], "wb") as out, open(job["stderr"], "wb") as err:
        try:
            child = subprocess.Popen(
                job["command"], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=job["folder"], env=job["environment"],
                start_new_session=True, preexec_fn=_before,
            )  # fmt: skip
        except OSError as error:
            told["failed"] = error.strerror or str(error)
        else:
            told["ended"] = _watched(child, job, began)
            _end(child)
            told["code"] = child.returncode
    told["seconds"] = time.monotonic() - began
    if told["ended"] == "left alone" or _gone(0):
        shutil.rmtree(job["whole"], ignore_errors=True)
        return
    with open(job["told"] + ".part", "w", encoding="utf-8") as file:
        json.dump(told, file)
    os.replace(job["told"] + ".part", job["told"])


if __name__ == "__main__":
    main()
