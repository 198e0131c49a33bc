"""Asks a verifier about boxes: each in a process of its own, with limits, several at a time; whatever comes of it is an answer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxfim.errors import SettingsError
from onnxfim.verifiers.answers import Said, in_short, read_answer
from onnxfim.verifiers.properties import StaysInBox
from onnxfim.verifiers.verifier_commands import VerifierCommand

_WARDEN = Path(__file__).with_name("warden.py")
#: Seconds beside its timeout that a verifier has to start and to end, and the share of the timeout that is added.
GRACE, GRACE_SHARE = 15.0, 0.1
_MOST_OUTPUT = 2**26  # bytes that it may print, or write as its answer
_READ = 2**25  # bytes of them that are read
_LAST = 4000  # bytes of its errors that are looked at
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_TELLS = re.compile(r"(?i)not supported|unsupported|not implemented|NotImplemented|Error\b|failed|cannot")
_WAIT = 10.0  # seconds for a warden to end what it stands over


@dataclass(frozen=True)
class BoxLimits:
    """What a verifier may take for one box.

    Attributes:
        seconds: Its timeout; it is ended a little after.
        memory: Bytes that it and what it starts may hold; None sets no limit.
        cores: How many cores it may keep busy, as far as it heeds the usual variables.
    """

    seconds: float
    memory: int | None = None
    cores: int = 1


class Question:
    """One box that a verifier is asked about: it runs from here on until `answer` tells, or `close` ends it.

    Args:
        command: The verifier.
        onnx: The network's file.
        about: The box.
        limits: What it may take.
        folder: Where its files go, in a folder of its own that is gone afterwards.

    Raises:
        SettingsError: nothing can be started or written here.
    """

    def __init__(self, command: VerifierCommand, onnx: Path, about: StaysInBox, limits: BoxLimits, folder: Path) -> None:
        self._command, self._about, self._limits = command, about, limits
        self._seconds = 0.0
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="box-", dir=folder))
            self._start(onnx)
        except OSError as error:
            raise SettingsError(f"--verifier: cannot be run here ({error.strerror or error}). Free space, or processes.") from error

    def _start(self, onnx: Path) -> None:
        folder, command, limits = self._folder, self._command, self._limits
        vnnlib = folder / "property.vnnlib"
        vnnlib.write_text(self._about.text(command.version), encoding="ascii")
        self._result, self._out, self._err, self._told = (
            folder / n for n in ("result.txt", "stdout.txt", "stderr.txt", "told.json")
        )
        work = folder / "work"
        work.mkdir()
        values = {
            "onnx": str(onnx), "vnnlib": str(vnnlib), "vnnlib2": str(vnnlib), "timeout": f"{limits.seconds:g}",
            "result": str(self._result),
        }  # fmt: skip
        job = {
            "command": command.filled(values), "folder": str(work), "whole": str(folder), "stdout": str(self._out),
            "stderr": str(self._err),
            "told": str(self._told), "seconds": limits.seconds * (1 + GRACE_SHARE) + GRACE, "memory": limits.memory,
            "output": _MOST_OUTPUT, "result": str(self._result), "environment": self._environment(work),
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WARDEN)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self.close()
            raise

    def _environment(self, work: Path) -> Mapping[str, str]:
        found = {k: v for k, v in os.environ.items() if k not in ("TMPDIR", "PYTHONSAFEPATH")}
        found |= {"TMPDIR": str(work), "NO_COLOR": "1", "TERM": "dumb"}
        for name in _THREADS:
            found.setdefault(name, str(self._limits.cores))
        if self._command.own_python:
            found["PYTHONPATH"] = os.pathsep.join(os.path.abspath(p) for p in sys.path if p)
        return found

    def answer(self) -> tuple[Said, float] | None:
        """What it said, and the seconds that it took; None while it is at it. Its files are gone then."""
        if self._process.poll() is None:
            return None
        told: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(self._told.read_text(encoding="utf-8"))
        self._seconds = float(told.get("seconds", 0.0))
        said = self._said(told)
        self.close()
        return said, self._seconds

    def _said(self, told: Mapping[str, Any]) -> Said:
        if not told:
            return Said("error", note="the process that stood over it died")
        if told["failed"] is not None:
            return Said("error", note=f"cannot be run ({in_short(str(told['failed']))})")
        if told["ended"] == "output":
            return Said("error", note=f"printed more than {_MOST_OUTPUT / 2**20:.0f} MB, and was ended")
        if told["ended"] == "memory":
            assert self._limits.memory is not None
            return Said("error", note=f"held more than {self._limits.memory / 2**30:.3g} GiB of memory, and was ended")
        text = _text(self._result) if self._command.writes else ""
        read = read_answer(text if text.strip() else _text(self._out), self._about.low.shape)
        if told["ended"] == "time":
            # What it had written by then is whole only where it says no more than that it gave up.
            return Said("timeout", note=f"did not end {told['seconds']:.0f} s after its start, and was ended")
        if read.answer == "unknown" and not read.note:
            return replace(read, note=in_short(_reason(self._err, telling=True)))
        if read.answer != "error":
            return read
        return Said("error", note=self._trouble(told["code"], read.note))

    def _trouble(self, code: int | None, note: str) -> str:
        """What is told of a run without an answer: how it ended, and the last line of its errors."""
        errors = _reason(self._err)
        ended = "" if code in (0, None) else f"ended by signal {-code}; " if code < 0 else f"ended with code {code}; "
        return f"{ended}{in_short(errors) if errors and code else note}"

    def close(self) -> None:
        """End it where it still runs, and remove its files."""
        process = getattr(self, "_process", None)
        if process is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(_WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(_READ).decode("utf-8", "replace")
    return ""


def _reason(path: Path, *, telling: bool = False) -> str:
    """The last line of a file that says why something was not done, else, unless it must, the last one that says anything."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST))
        lines = [line for line in file.read(_LAST).decode("utf-8", "replace").splitlines() if line.strip()]
        why = [line for line in lines if _TELLS.search(line)]
        return (why or ([] if telling else lines) or [""])[-1].strip()
    return ""


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    """A folder for the files of questions, which is gone afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="onnxfim-verifier-"))
    except OSError as error:
        raise SettingsError(f"--verifier: no folder for its files can be made ({error.strerror or error}). Set TMPDIR.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ask(command: VerifierCommand, onnx: Path, about: StaysInBox, limits: BoxLimits) -> tuple[Said, float]:
    """Ask about one box and wait for the answer: what it said, and the seconds that it took."""
    with a_folder() as folder:
        question = Question(command, onnx, about, limits, folder)
        try:
            while (found := question.answer()) is None:
                time.sleep(0.01)
            return found
        finally:
            question.close()
