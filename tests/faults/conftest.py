"""A folder in which something is wrong, and the commands that are run there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.record.audit import Audit
from tests.support import models
from tests.support.audits import make_audit
from tests.support.places import ROOT

MODEL = models.Linear.draw(4, 6)


@dataclass(frozen=True)
class Done:
    """What became of a command in a process of its own."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self):
        return self.stderr + self.stdout


class Place:
    """A working folder of a test's own, with a model, data and a saved audit in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        self.folder, self.monkeypatch, self._request = folder, monkeypatch, request
        monkeypatch.chdir(folder)
        for name in ("XDG_CACHE_HOME", "HOME"):
            monkeypatch.setenv(name, str(folder / "home"))
        (folder / "home").mkdir()
        models.save(MODEL.onnx(), folder / "model.onnx")
        X = MODEL.samples(12)
        np.savez(folder / "data.npz", inputs=X, labels=MODEL.logits(X).argmax(axis=1))
        (folder / "saved.json").write_text(make_audit().to_json(), "utf-8")

    # What is run.

    def run(self, *arguments):
        """A command, in this process."""
        done = CliRunner().invoke(main, [str(a) for a in arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        assert not list(self.folder.rglob(".*.tmp")), "a temporary file is left"
        return done

    def audit(self, *arguments, method="sketch"):
        """An audit of the model; it takes 50 directions a sample."""
        fixed = ("--data", "data.npz", "--provider", "cpu", "--budget", 50, "--method", method, "--no-flip", "--no-bounds")
        return self.run("audit", "model.onnx", *fixed, *arguments)

    def convert(self, *outputs):
        """The saved audit written in other formats, ``FORMAT=PATH`` each."""
        return self.run("convert", "saved.json", *(word for output in outputs for word in ("-o", output)))

    def process(self, *arguments, **how):
        """A command in a process of its own."""
        words = [sys.executable, "-m", "onnxfim", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **how.pop("env", {})}
        done = subprocess.run(words, capture_output=True, timeout=120, check=False, env=env, **how)
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    # What is wrong.

    def tmpfs(self, name, options):
        """A small disk of the test's own, mounted below its folder and unmounted after it."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return self.mount("-t", "tmpfs", "-o", options, "tmpfs", folder)

    def mount(self, *words):
        """Mount something at the last of the words, which lies in the test's folder; the test is skipped where that may not be."""
        at = Path(words[-1])
        assert at.is_relative_to(self.folder)
        try:
            done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, timeout=20, check=False)
        except OSError as error:
            pytest.skip(f"nothing can be mounted here ({error})")
        if done.returncode:
            pytest.skip(f"nothing can be mounted here ({done.stderr.strip()})")
        if not any("remount" in str(word) for word in words):
            self._request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(at)], check=True, timeout=20))
        return at

    def device(self, minor, kind=stat.S_IFCHR, major=1):
        """A node of the test's own; the test is skipped where none may be made or used."""
        path = self.folder / "device"
        try:
            os.mknod(path, 0o666 | kind, os.makedev(major, minor))
            if kind == stat.S_IFCHR:
                os.close(os.open(path, os.O_WRONLY))
        except OSError as error:
            pytest.skip(f"no device can be made here ({error})")
        return path

    @contextmanager
    def failing(self, name, code, *, where=lambda *_: True, times=1):
        """Let a function of `os` fail so many times with an error, for the arguments that ``where`` picks."""
        plain, left = getattr(os, name), [times]

        def fails(*arguments, **named):
            if left[0] and where(*arguments):
                left[0] -= 1
                raise OSError(code, os.strerror(code))
            return plain(*arguments, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, fails)
            yield
        assert left[0] < times, f"os.{name} never came to fail"

    @contextmanager
    def opening_fails(self, name, part, code, *, reading=False):
        """Let the system fail whenever a path that holds ``part`` is made (``mkdir``), listed or opened, to be written or read."""

        def fails(plain):
            def call(path, *arguments, **named):
                mode = next((a for a in arguments if isinstance(a, str)), "r")
                asked = name != "open" or ("r" in mode) == reading
                if asked and part in str(path):
                    raise OSError(code, os.strerror(code))
                return plain(path, *arguments, **named)

            return call

        # What pathlib calls differs between versions of Python: its own methods are the door.
        method = {"mkdir": "mkdir", "listdir": "iterdir", "open": "open"}[name]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, method, fails(getattr(Path, method)))
            yield

    # What came of it.

    def saved(self, name="a.json"):
        """The audit that a command wrote."""
        return Audit.from_json((self.folder / name).read_text("utf-8"))

    def files(self):
        """Everything in the folder, with what regular files hold."""
        found = sorted(p for p in self.folder.rglob("*") if "home" not in p.parts)
        return {str(p.relative_to(self.folder)): p.read_bytes() if p.is_file() else None for p in found}


def refused(done, *words):
    """The command ended before any work in one line that holds these words."""
    assert done.exit_code == 2, done.output
    lines = done.output.strip("\n").split("\n")
    assert len(lines) == 1, done.output
    assert lines[0].startswith("onnxfim: ")
    assert all(word in lines[0] for word in words), lines[0]
    return done


@pytest.fixture
def place(tmp_path, monkeypatch, request):
    """Where a fault is brought about."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("Windows has other faults")
    return Place(tmp_path, monkeypatch, request)
