"""How commands end: what nobody foresaw in one line, and signals with what was measured."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import onnxfim
from onnxfim.auditing import jobs as command_module
from onnxfim.record.audit import Audit
from tests.support import models
from tests.support.faults import Unforeseen, break_stage
from tests.support.models import Mlp

MODEL = Mlp.draw(4, 40)
posix = pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    models.save(MODEL.onnx(), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", MODEL.samples(12))
    return tmp_path


GOOD = ("model.onnx", "--data", "x.npy", "--provider", "cpu", "--no-cache", "--batch", "8", "--no-bounds")


def tracebacks(here):
    return list((here / "tmp").glob("onnxfim-*.traceback.txt"))


class TestWhatNobodyForesaw:
    @pytest.mark.parametrize(
        ("arguments", "broken"),
        [
            (("audit", *GOOD, "-o", "json=a.json"), "onnxfim.auditing.jobs.audit"),
            (("inspect", "model.onnx"), "onnxfim.cli.inspect_command.describe"),
            (("bounds", "model.onnx"), "onnxfim.cli.bounds_command.read_graph"),
            (("compare", "model.onnx", "model.onnx", *GOOD[1:3]), "onnxfim.cli.audit_command.prepare"),
            (("convert", "a.json"), "onnxfim.cli.outputs.Audit.load"),
            (("doctor",), "onnxfim.cli.doctor_command.doctor_command"),
            (("schema",), "onnxfim.record.schema.audit_schema"),
            (("init",), "onnxfim.cli.files.write_new"),
        ],
        ids=lambda value: value[0] if isinstance(value, tuple) else "",
    )
    def test_it_is_one_line_and_a_private_file(self, here, command, monkeypatch, arguments, broken):
        def wild(*_, **__):
            raise Unforeseen("a wild\nvalue")

        monkeypatch.setattr(broken, wild)
        done = command(*arguments)
        assert done.exit_code == 2, done.output
        line = next(text for text in done.output.splitlines() if text.startswith("onnxfim: internal error"))
        (path,) = tracebacks(here)
        assert (
            line == f"onnxfim: internal error: Unforeseen: a wild value; the traceback is in {path}; please report it " + reported()
        )
        assert "Traceback" not in done.output
        assert path.read_text("utf-8").rstrip().endswith("Unforeseen: a wild\nvalue")
        if os.name == "posix":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (RecursionError("too deep"), "internal error: RecursionError: too deep"),
            (MemoryError(), "out of memory (MemoryError: it says nothing)"),
            (MemoryError("7 GiB"), "a smaller --batch"),
        ],
    )
    def test_depth_and_memory_too(self, here, command, monkeypatch, error, words):
        def wild(*_, **__):
            raise error

        monkeypatch.setattr(command_module, "audit", wild)
        done = command("audit", *GOOD)
        assert done.exit_code == 2
        assert words in done.output

    def test_without_a_folder_to_write_to_the_traceback_is_printed(self, here, command, monkeypatch):
        def wild(*_, **__):
            raise Unforeseen("a wild value")

        def full(**_):
            raise OSError("no folder")

        monkeypatch.setattr(command_module, "audit", wild)
        monkeypatch.setattr("tempfile.mkstemp", full)
        done = command("audit", *GOOD)
        assert done.exit_code == 2
        assert "the traceback follows" in done.output
        assert "Unforeseen: a wild value" in done.output.splitlines()[-2:][0] + done.output.splitlines()[-1]

    def test_what_was_measured_is_written(self, here, command, monkeypatch):
        def wild(*_, **__):
            raise Unforeseen("in the gates")

        monkeypatch.setattr("onnxfim.cli.gating.Checks.judge", wild)
        done = command("audit", *GOOD, "--fail-on", "lambda_max.mean > 1e9", "-o", "json=a.json", "-o", "csv=a.csv")
        assert done.exit_code == 2
        assert "internal error" in done.output
        found = Audit.load("a.json")
        assert len(found.samples) == 12
        assert found.verdict == "inconclusive"
        assert Path("a.csv").exists()

    def test_one_format_that_fails_leaves_the_others(self, here, command, monkeypatch):
        from onnxfim.report import formats

        def wild(*_, **__):
            raise Unforeseen("in a page")

        plain = formats.renderers
        monkeypatch.setattr("onnxfim.cli.outputs.renderers", lambda *a, **k: {**plain(*a, **k), "html": wild})
        done = command("audit", *GOOD, "-o", "html=a.html", "-o", "json=a.json")
        assert done.exit_code == 2
        assert "Unforeseen: in a page" in done.output
        assert not Path("a.html").exists()
        assert len(Audit.load("a.json").samples) == 12

    def test_a_stage_that_fails_exits_with_inconclusive(self, here, command, monkeypatch):
        break_stage(monkeypatch, "looking for flips")
        done = command("audit", *GOOD, "-o", "json=a.json")
        assert done.exit_code == 4
        assert "looking for flips (Unforeseen: a wild value)" in done.output
        assert Audit.load("a.json").verdict == "inconclusive"
        assert tracebacks(here) == []

    def test_usage_keeps_its_own_words(self, here, command):
        done = command("audit", "model.onnx", "--no-such-option")
        assert done.exit_code == 2
        assert "internal error" not in done.output


def reported():
    from onnxfim.errors import issue_tracker

    return issue_tracker()


def started(*arguments, code="from onnxfim.cli import main; main()", before=None, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before,
        env={**os.environ, "PYTHONPATH": str(Path(onnxfim.__file__).parents[1]), **environment},
    )  # fmt: skip


def as_of_a_terminal():
    """Signals as a terminal has them, whatever the tests run under: `nohup` and a shell's `&` ignore some, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


#: Says when the model is open, so that a test needs no guess.
TOLD = """
import sys
import onnxfim.auditing.run as run
plain = run.batch_rows.try_rows
def told(context):
    print("open", file=sys.stderr, flush=True)
    return plain(context)
run.batch_rows.try_rows = told
from onnxfim.cli import main
main()
"""
LONG = ("model.onnx", "--data", "x.npy", "--provider", "cpu", "--no-cache", "--batch", "8", "--no-bounds", "--method", "sketch",
        "--budget", "20000", "--max-budget", "20000")  # fmt: skip


@posix
class TestSignals:
    @pytest.mark.parametrize(
        ("number", "times", "code"), [("SIGTERM", 1, 143), ("SIGINT", 2, 130), ("SIGHUP", 1, 129)], ids=["term", "int twice", "hup"]
    )
    def test_what_is_there_is_written(self, here, number, times, code):
        process = started("audit", *LONG, "-o", "json=a.json", code=TOLD, before=as_of_a_terminal)
        while process.stderr.readline() != "open\n":
            assert process.poll() is None
        time.sleep(0.3)
        for _ in range(times):
            process.send_signal(getattr(signal, number))
        began = time.monotonic()
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert time.monotonic() - began < 15, "under five seconds on an idle machine"
        assert "Traceback" not in err
        assert re.match(r"verdict: inconclusive \(\w.*, partial: \d+ of 12 samples", out)
        found = Audit.load("a.json")
        assert found.run.partial
        assert found.run.interrupted_by == number
        assert len(found.samples) + len(found.skipped) == 12

    @pytest.mark.parametrize(("number", "words"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated")])
    def test_before_the_model_is_open_it_is_one_line(self, here, number, words):
        code = (
            "import time\nimport onnxfim.cli.audit_command as command\nfrom onnxfim.cli import main\n"
            "def reading(*_):\n    print('here', flush=True)\n    time.sleep(60)\n"
            "command.prepare = reading\nmain()"
        )
        process = started("audit", "model.onnx", "--data", "data.npz", "-o", "json=a.json", code=code, before=as_of_a_terminal)
        assert process.stdout.readline() == "here\n"
        process.send_signal(getattr(signal, number))
        _, err = process.communicate(timeout=60)
        assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[number], err
        assert err.splitlines()[-1] == f"onnxfim: {words} before anything was measured."
        assert set(err.splitlines()[:-1]) <= {"reading the model and the samples"}  # where the machine is slow
        assert not (here / "a.json").exists()

    def test_what_is_ignored_stays_so(self, here):
        code = (
            "import signal\nfrom onnxfim.cli.signals import ended_by_signals\nfrom onnxfim.runtime.stopping import Stop\n"
            "before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}\n"
            "with ended_by_signals(Stop()):\n"
            "    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN\n"
            "    assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]\n"
            "assert before == {n: signal.getsignal(n) for n in before}\n"
        )  # fmt: skip
        process = started(code=code, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
