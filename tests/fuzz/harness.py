"""Runs the command line on made-up cases, each in a child process of a warm parent, and says which of them went wrong.

A family is a module ``tests/fuzz/families/NAME.py`` with one function

    def case(rng: numpy.random.Generator, folder: Path) -> Case

that writes its files below ``folder`` and says which arguments to run there (``folder`` is the working folder, so paths are
relative). Case i of seed k of a family is always the same. `checks.py` says what counts as a failure.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import select
import shutil
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from tests.fuzz import families
from tests.fuzz.child import OWN, be_child
from tests.fuzz.watching import Watch, contents

#: Seconds after which a case counts as hung; those do not count in which it could go on and no processor was free.
LIMIT = 60.0


@dataclass(frozen=True)
class Case:
    """What to run: the arguments after ``onnxfim``, and in words what is odd about the files."""

    argv: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Task:
    """Names one case for ever: its family, the seed, its number."""

    family: str
    seed: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.family}-{self.seed}-{self.number}"

    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.number, zlib.crc32(self.family.encode())])


@dataclass(frozen=True)
class Ended:
    """How a child ended: ``code`` is None where a signal did it, and ``hung`` where the signal was ours, after the limit.

    ``seconds`` is what the clock says, ``processor`` what the child took of a processor.
    """

    code: int | None
    signal: int | None
    hung: bool
    seconds: float
    processor: float
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Outcome:
    """One case, run: what was found wrong (nothing, where all is well), and where."""

    task: Task
    case: Case
    ended: Ended
    problems: tuple[str, ...]
    frame: str = ""
    findings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    kept: str | None = field(default=None)


def names() -> list[str]:
    """All families, by the modules in their folder; a module whose name begins with ``_`` helps others."""
    return sorted(m.name for m in pkgutil.iter_modules(families.__path__) if not m.name.startswith("_"))


def family(name: str) -> ModuleType:
    """The module of a family."""
    return importlib.import_module(f"tests.fuzz.families.{name}")


def starved(pid: int) -> float:
    """Seconds in which a process could run and waited for a processor; 0 where the system does not count them."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


class Runner:
    """Runs cases below ``root``, which holds one folder a case and a folder beside them that none may touch."""

    def __init__(self, root: Path, *, program: Callable[[], object] | None = None, limit: float = LIMIT) -> None:
        self.root, self._program, self._limit = root, program, limit
        self._outside = root / "outside"
        self._outside.mkdir(parents=True, exist_ok=True)
        for name in ("weights.bin", "data.npz", "secret.txt", "audit.json", "onnxfim.toml"):
            (self._outside / name).write_bytes(b"nobody may read this\n" * 200)

    def run(self, task: Task) -> Outcome:
        """One case of a family, made and run; its folder stays until `drop`."""
        folder = self._fresh(task.name)
        try:
            case = family(task.family).case(task.rng(), folder)
        except Exception as error:
            none = Ended(None, None, False, 0.0, 0.0, b"", traceback.format_exc().encode())
            return Outcome(task, Case((), "no case was made"), none, (f"the family itself failed: {error!r}",))
        return self.run_case(task, case, folder)

    def run_case(self, task: Task, case: Case, folder: Path) -> Outcome:
        """A case whose files are in ``folder`` already."""
        from tests.fuzz.checks import judged

        before, beside = contents(folder), sorted(os.listdir(self.root))
        with Watch(self._outside) as watch:
            ended = self._run(case.argv, folder)
            touched = [*watch.touched(), *(f"{n} appeared" for n in sorted(os.listdir(self.root)) if n not in beside)]
        return judged(task, case, ended, folder, before, touched)

    def folder(self, task: Task) -> Path:
        return self.root / task.name

    def drop(self, task: Task) -> None:
        shutil.rmtree(self.folder(task), ignore_errors=True)

    def adopt(self, task: Task, source: Path) -> Path:
        """A copy of a kept case's files, to be run again."""
        folder = self._fresh(task.name)
        shutil.copytree(source, folder, symlinks=True, dirs_exist_ok=True)
        return folder

    def _fresh(self, name: str) -> Path:
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _run(self, argv: Sequence[str], folder: Path) -> Ended:
        """Fork, run, wait; a child that outlives the limit is asked where it is and killed with all that it started."""
        own = folder / OWN
        own.mkdir()
        sys.stdout.flush()
        sys.stderr.flush()
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            be_child(argv, folder, self._program, limit=self._limit)
        hung = False
        watched = os.pidfd_open(pid)
        try:
            while not select.select([watched], [], [], max(0.0, start + self._limit + starved(pid) - time.monotonic()))[0]:
                if time.monotonic() < start + self._limit + starved(pid):
                    continue
                hung = True
                os.kill(pid, signal.SIGUSR1)  # the child's handler writes where it is to stderr
                select.select([watched], [], [], 0.5)
                break
        finally:
            os.close(watched)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status, used = os.wait4(pid, 0)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) and not hung else None
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        stdout, stderr = ((own / name).read_bytes() for name in ("stdout", "stderr"))
        return Ended(code, ended, hung, time.monotonic() - start, used.ru_utime + used.ru_stime, stdout, stderr)
