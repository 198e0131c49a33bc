"""Streams that are closed, full or abandoned: no traceback, and an exit code that says what was delivered."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys

import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.cli.console import Console
from onnxfim.cli.outlets import Outlet, unbreakable
from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from tests.support.places import ROOT

AUDIT = ("audit", "model.onnx", "--data", "data.npz", "--provider", "cpu", "--budget", "16", "--samples", "4", "--no-cache",
         "--allow-inconclusive")  # fmt: skip
TO_FILE, TO_STDOUT = (*AUDIT, "-o", "json=a.json"), (*AUDIT, "-o", "json=-")
NOT_ALL = "onnxfim: stdout: cannot be written"
UNTOUCHED = "warning: stdout cannot be written"


@pytest.fixture
def full(tmp_path):
    """A device of our own that takes nothing, to be written as stdout and stderr alone."""
    node = tmp_path / "full"
    try:
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        os.close(os.open(node, os.O_WRONLY))
    except (AttributeError, OSError):
        pytest.skip("devices cannot be made here")
    return node


def run(here, arguments, *, close=(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **environment):
    """A process of its own with descriptors closed; its code, what it printed, and that nothing broke."""
    redirections = " ".join(f"{d}{'<' if d == 0 else '>'}&-" for d in close)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "onnxfim", *arguments],
        cwd=here, stdout=stdout, stderr=stderr, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    told = (done.stderr or b"").decode("utf-8", "replace")
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    return done, told


def abandoned():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def audit_of(path):
    return Audit.from_json(path.read_text("utf-8"))


def test_an_audit_needs_no_stream(here):
    """Closed descriptors are held: no file gets their numbers, and with them what libraries print."""
    done, _ = run(here, TO_FILE, close=(0, 1, 2))
    assert done.returncode == 0
    assert len(audit_of(here / "a.json").samples) == 4


def test_an_audit_outlives_a_full_stdout_and_says_so(here, full):
    with full.open("wb") as sink:
        done, told = run(here, TO_FILE, stdout=sink)
    assert done.returncode == 0
    assert f"{UNTOUCHED} (No space left on device)" in told
    assert audit_of(here / "a.json").samples


def test_an_audit_outlives_its_readers(here):
    with open(abandoned(), "wb") as out, open(abandoned(), "wb") as err:
        done, _ = run(here, TO_FILE, stdout=out, stderr=err)
    assert done.returncode == 0
    assert audit_of(here / "a.json").samples


def test_a_report_that_its_reader_left_is_not_delivered(here):
    with open(abandoned(), "wb") as out:
        done, told = run(here, ("bounds", "model.onnx", "-o", "json=-"), stdout=out)
    assert done.returncode == 2
    assert f"{NOT_ALL} (its reader closed it before the end)" in told


@pytest.mark.parametrize(("arguments", "close"), [(TO_STDOUT, (1,)), (("inspect", "model.onnx"), (1,)), (("--help",), (1, 2))])
def test_a_closed_stdout_delivers_nothing(here, arguments, close):
    done, told = run(here, arguments, close=close)
    assert done.returncode == 2
    assert "Traceback" not in told
    assert told == "" if 2 in close else f"{NOT_ALL} (it is closed)" in told.splitlines()[-1]  # stages are told where they are slow


@pytest.mark.parametrize("arguments", [("bounds", "model.onnx"), ("inspect", "model.onnx", "--json")])
def test_a_full_stdout_delivers_nothing(here, full, arguments):
    with full.open("wb") as sink:
        done, told = run(here, arguments, stdout=sink)
    assert done.returncode == 2
    assert f"{NOT_ALL} (No space left on device)" in told


@pytest.mark.parametrize(("arguments", "code"), [(("inspect", "model.onnx"), 0), (("audit", "--help"), 0), (("schema",), 2)])
def test_a_reader_may_leave_text_but_not_a_document(here, arguments, code):
    with open(abandoned(), "wb") as out:
        done, told = run(here, arguments, stdout=out)
    assert done.returncode == code
    assert (NOT_ALL in told) == (code == 2)


def test_an_error_that_cannot_be_told_is_one_all_the_same(here, full):
    with full.open("wb") as sink:
        done, _ = run(here, ("inspect", "none.onnx"), stderr=sink)
    assert done.returncode == 2


def test_a_locale_of_plain_ascii(here):
    name = os.fsencode("modèle-λ-\udcff.onnx")
    os.rename(here / "model.onnx", os.path.join(os.fsencode(here), name))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done, told = run(here, ("bounds", name, "-o", "html=b.html"), **plain)
    assert done.returncode == 0, told
    assert done.stdout.isascii()
    assert "densenet, prodsqrt(1 + ||H_l||^2)" in done.stdout.decode()


# The same in this process, where a stream is an object that fails.


class Failing(io.StringIO):
    """A stream that takes ``room`` characters."""

    def __init__(self, error, room=0):
        super().__init__()
        self.error, self.room = error, room

    def write(self, text):
        if len(self.getvalue()) + len(text) > self.room:
            raise self.error
        return super().write(text)


FULL, LEFT, CLOSED = (
    OSError(28, "No space left on device"),
    BrokenPipeError(32, "Broken pipe"),
    ValueError("I/O operation on closed file"),
)


@pytest.mark.parametrize("error", [FULL, LEFT, CLOSED, OSError(5, "Input/output error")])
def test_an_outlet_never_raises_and_remembers(error):
    out = Outlet(Failing(error, room=5))
    assert out.write("12345") == 5
    assert (out.fault, out.undelivered) == (None, False)
    out.write("6")
    out.write("")
    out.flush()
    assert out.undelivered
    assert out.fault
    assert out.abandoned == (error is LEFT)
    assert not out.deliver(b"7")


def test_an_outlet_of_nothing():
    out = Outlet(None)
    out.write("a")
    out.flush()
    assert not out.isatty()
    assert (out.fault, out.undelivered, out.encoding) == ("it is closed", True, "utf-8")
    with pytest.raises(io.UnsupportedOperation):
        out.fileno()


def test_a_stream_closed_in_python_is_no_terminal():
    stream = io.StringIO()
    stream.close()
    out = Outlet(stream)
    assert not out.isatty()
    out.write("a")
    assert out.fault == "I/O operation on closed file"


@pytest.mark.parametrize("error", [FULL, LEFT, CLOSED])
def test_what_each_kind_of_text_does_with_a_fault(monkeypatch, error):
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    monkeypatch.setattr("sys.stdout", Failing(error))
    with unbreakable() as out:
        Console().result("the reports hold it")
        assert not out.undelivered
        Console().line("what the command is for")
        assert out.undelivered
        with pytest.raises(OutputError, match=r"stdout: cannot be written \(.*\), expected to print all of the report"):
            Console().document("{}")
    assert errors.getvalue().count(UNTOUCHED) == (error is not LEFT)


def test_a_report_for_a_closed_stdout_is_refused_before_any_work(monkeypatch, here):
    monkeypatch.setattr("sys.stdout", None)
    with unbreakable(), pytest.raises(OutputError, match=r"stdout: cannot be written \(it is closed\)"):
        Console().take_stdout()


def test_streams_are_put_back():
    before = sys.stdout, sys.stderr
    with unbreakable():
        assert isinstance(sys.stdout, Outlet)
        with unbreakable():
            pass
    assert (sys.stdout, sys.stderr) == before
    assert CliRunner().invoke(main, ["--version"]).exit_code == 0
    assert (sys.stdout, sys.stderr) == before


def test_a_command_within_a_program_returns(here):
    """Not standing alone, it neither exits nor hides errors."""
    assert main.main(["--version"], standalone_mode=False) == 0


def test_a_document_is_whole(here):
    done = CliRunner().invoke(main, ["inspect", "model.onnx", "--json"])
    assert json.loads(done.stdout)["file"] == "model.onnx"
