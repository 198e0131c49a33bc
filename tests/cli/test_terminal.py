"""What reaches a terminal: hostile names made visible, in every encoding and on narrow screens, by every command."""

from __future__ import annotations

import io
import itertools
import json
import logging
import sys
import threading
import time
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from click.testing import CliRunner

from onnxfim.auditing.run import Progress
from onnxfim.cli import main
from onnxfim.cli.console import Console
from onnxfim.cli.outlets import Outlet
from tests.support import models
from tests.support.hostile import ALL, FORBIDDEN, TRICKS, hostile_model, unknown_operator

NAME = TRICKS["colour"] + TRICKS["turned"] + TRICKS["c1"] + TRICKS["markup"].replace("/", "") + "\tλ\n"
RUN = ("--provider", "cpu", "--budget", "16", "--samples", "6")
AUDIT = ("m.onnx", "--data", "d.npz", *RUN, "--no-cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A hostile model under a plain name and under a hostile one, its data, and a saved audit of it."""
    here = tmp_path_factory.mktemp("hostile")
    for name in ("m.onnx", f"{NAME}.onnx"):
        models.save(hostile_model(extra="λ≤é漢字"), here / name)
    models.save(unknown_operator(), here / "operator.onnx")
    X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    for name in ("d.npz", f"{NAME}.npz"):
        np.savez(here / name, inputs=X, labels=np.arange(6) % 3)
    (here / "bad.toml").write_text(f"step = {json.dumps(NAME)}\n")
    (here / "key.toml").write_text(f"{json.dumps(NAME)} = 1\n")
    (here / "table.toml").write_text(f"[{json.dumps(NAME)}]\na = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        done = CliRunner().invoke(main, ["audit", f"{NAME}.onnx", "--data", f"{NAME}.npz", *RUN, "-o", "json=a.json", "--no-cache"])
    assert done.exit_code in (0, 4), done.output
    return here


@pytest.fixture
def hostile(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


#: Arguments of each command, and its exit code.
COMMANDS = {
    "audit": (("audit", f"{NAME}.onnx", "--data", f"{NAME}.npz", *RUN, "--no-cache", "-v", "-o", f"html={NAME}.html"), 4),
    "audit to stdout": (("audit", *AUDIT, "-o", "csv=-"), 4),
    "audit of an unknown operator": (("audit", "operator.onnx", "--data", "d.npz"), 2),
    "inspect": (("inspect", f"{NAME}.onnx"), 0),
    "inspect as JSON": (("inspect", f"{NAME}.onnx", "--json"), 0),
    "inspect nothing": (("inspect", NAME), 2),
    "bounds": (("bounds", f"{NAME}.onnx", "-o", "html=b.html"), 0),
    "bounds as JSON": (("bounds", f"{NAME}.onnx", "--json"), 0),
    "compare": (("compare", "a.json", "a.json", "-o", f"html={NAME}.html"), 0),
    "compare as JSON": (("compare", "a.json", "a.json", "-o", "json=-"), 0),
    "convert": (("convert", "a.json", "-o", f"html={NAME}.html"), 0),
    "convert nothing": (("convert", NAME), 2),
    "doctor": (("doctor",), 0),
    "schema": (("schema",), 0),
    "init": (("init", f"{NAME}.toml", "--force"), 0),
    "init over a file": (("init", "bad.toml"), 2),
    "help": (("audit", "--help"), 0),
    "no command": ((NAME,), 2),
    "no option": (("audit", *AUDIT, f"--{NAME}"), 2),
    "an argument too many": (("inspect", "m.onnx", NAME), 2),
    "no choice": (("audit", *AUDIT, "--layout", NAME), 2),
    "no number": (("audit", *AUDIT, "--step", NAME), 2),
    "no format": (("audit", *AUDIT, "-o", NAME), 2),
    "no input": (("audit", *AUDIT, "--input", NAME), 2),
    "no gate": (("audit", *AUDIT, "--fail-on", NAME), 2),
    "no provider": (("audit", *AUDIT, "--provider", NAME), 2),
    "an option of a provider": (("audit", *AUDIT, "--provider-option", f"cpu:{NAME}={NAME}"), 4),
    "no data": (("audit", "m.onnx", "--data", f"none{NAME}.npz"), 2),
    "no array": (("audit", "m.onnx", "--data", "d.npz", "--inputs-key", NAME), 2),
    "no baseline": (("audit", *AUDIT, "--baseline", NAME), 2),
    "no configuration": (("audit", *AUDIT, "--config", NAME), 2),
    "a value in a file": (("audit", *AUDIT, "--config", "bad.toml"), 2),
    "a key in a file": (("audit", *AUDIT, "--config", "key.toml"), 2),
    "a table in a file": (("audit", *AUDIT, "--config", "table.toml"), 2),
}
#: Commands with text of every kind, for what is tried with each encoding and width.
TALKING = ("inspect", "bounds", "compare", "convert nothing", "doctor", "schema", "help", "no option")

ENCODINGS = ("ascii", "cp1252", "latin-1", "cp437", "shift_jis", "utf-16", "utf-8")


def ended_as(done, code):
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert done.exit_code == code, done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_no_name_steers_the_terminal(hostile, name):
    arguments, code = COMMANDS[name]
    done = CliRunner().invoke(main, arguments)
    ended_as(done, code)
    assert not FORBIDDEN & set(done.stdout + done.stderr)
    assert not [line for line in done.output.splitlines() if line.startswith("onnxfim: pass")], "a name made a line of its own"
    if any(NAME in a for a in arguments) and code == 2:
        assert "\\u001b" in done.stderr or "\\x1b" in done.stderr
        assert "\\\\u" not in done.stderr, "made visible twice"


def test_ordinary_names_print_as_they_are(hostile):
    done = CliRunner().invoke(main, ["inspect", "m.onnx"])
    assert "λ≤é漢字" in done.stdout.replace("\n", "").replace(" ", "")
    assert "[bold red]markup[/]" in done.stdout


def test_environment_variables_are_visible_too(hostile, monkeypatch):
    monkeypatch.setenv(f"ONNXFIM_{NAME}", "1")
    done = CliRunner().invoke(main, ["convert", "a.json", "-o", "csv=c.csv"])
    ended_as(done, 0)
    assert "no option has this variable" in done.stderr
    assert not FORBIDDEN & set(done.stderr)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("audit", "ascii"), ("audit", "cp1252"), *itertools.product(TALKING, ENCODINGS)],
)
def test_any_encoding_takes_what_is_printed(hostile, name, encoding):
    arguments, code = COMMANDS[name]
    done = CliRunner(charset=encoding).invoke(main, arguments)
    ended_as(done, code)
    if name == "schema":
        json.loads(done.stdout_bytes)
    else:
        assert done.stdout_bytes.decode(encoding) + done.stderr_bytes.decode(encoding)
        assert "\ufffd" not in done.output


@pytest.mark.parametrize("arguments", [("inspect", "m.onnx", "--json"), ("bounds", "m.onnx", "--json"), ("doctor", "--json"), ("schema",),
                                       ("compare", "a.json", "a.json", "-o", "json=-"), ("convert", "a.json", "-o", "json=-"),
                                       ("bounds", "m.onnx", "-o", "json=-")])  # fmt: skip
@pytest.mark.parametrize("encoding", ["ascii", "utf-16"])
def test_json_on_stdout_is_json_and_nothing_else(hostile, arguments, encoding):
    done = CliRunner(charset=encoding).invoke(main, arguments)
    ended_as(done, 0)
    assert done.stdout_bytes.isascii()
    assert json.loads(done.stdout_bytes)


def test_stdout_is_not_taken_twice(hostile):
    done = CliRunner().invoke(main, ["bounds", "m.onnx", "--json", "-o", "json=-"])
    ended_as(done, 2)
    assert "--json: prints to stdout, which -o takes too" in done.stderr


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("λ_max × 1.2 ≤ 3 … −4", "ascii", "lambda_max x 1.2 <= 3 ... -4"),
        ("λ_max × 1.2 ≤ 3 … −4", "cp1252", "lambda_max × 1.2 <= 3 … -4"),
        ("3.2×10⁻³⁵", "ascii", "3.2x10^-35"),
        ("5\u00a0%", "ascii", "5 %"),
        ("é", "cp437", "é"),
        ("漢字", "cp1252", "\\u6f22\\u5b57"),
        ("🔬", "ascii", "\\U0001f52c"),
        ("é", "no-such-encoding", "\\u00e9"),
        ("漢字 λ", "utf-8", "漢字 λ"),
    ],
)
def test_what_an_encoding_lacks_stays_readable(text, encoding, shown):
    class Sink(io.StringIO):
        encoding = ""

    sink = Sink()
    sink.encoding = encoding
    Outlet(sink).write(text)
    assert sink.getvalue() == shown


@pytest.mark.parametrize("columns", ["1", "20", "40"])
@pytest.mark.parametrize("name", ["inspect", "bounds", "compare", "doctor", "help", "no option"])
def test_narrow_screens(hostile, monkeypatch, name, columns):
    monkeypatch.setenv("COLUMNS", columns)
    arguments, code = COMMANDS[name]
    ended_as(CliRunner().invoke(main, arguments), code)


class Screen(io.StringIO):
    """A terminal that keeps what it is shown."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
@pytest.mark.parametrize("columns", ["1", "20", "100"])
def test_bars_show_names_as_text(monkeypatch, columns, encoding):
    screen = Screen()
    screen.encoding = encoding
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", screen)
    console = Console()
    with console.progress() as told:
        told(Progress(ALL, 3, 10, ALL))
        told(Progress("[/]", 10, 10, "[/]"))
    with console.layers() as told:
        told(1, 2, 0.0)
        told(2, 2, 0.5)
    shown = screen.getvalue()
    assert shown.encode(encoding)
    # The bar's own sequences begin with ESC [; a name's are spelled out.
    assert not {"\x1b]", "\x9b", "\u202e", "\x07", "\u200b"} & {*shown, *(shown[i : i + 2] for i in range(len(shown)))}


def test_a_terminal_gets_colours_and_no_others(hostile, monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    Console().say(TRICKS["colour"], colour="red")
    assert screen.getvalue() == "\x1b[31m\\u001b[31mcolour\\u001b[0m\x1b[0m\n"


def test_heartbeats_are_visible(monkeypatch):
    monkeypatch.setattr("onnxfim.cli.waiting.SILENT", 0.0)
    monkeypatch.setattr("onnxfim.cli.waiting.CLOSER_HEARTBEAT", 60.0)
    sink = io.StringIO()
    monkeypatch.setattr("sys.stderr", sink)
    with Console().progress() as told:
        told(Progress(ALL, 3, 10, ALL))
    assert len(sink.getvalue().splitlines()) == 1
    assert not FORBIDDEN & set(sink.getvalue())


def test_warnings_and_logs_of_others_are_visible(monkeypatch):
    """Those that nobody handles go to stderr in one line."""

    def noisy(*_):
        sys.stderr.write(warnings.formatwarning(ALL, UserWarning, "file.py", 1))  # what Python prints of one that is not recorded
        logging.getLogger("someone.else").warning("%s", ALL)
        logging.lastResort.handle(logging.makeLogRecord({"msg": ALL, "levelno": logging.WARNING}))

    monkeypatch.setattr("onnxfim.cli.doctor_command.doctor_command", noisy)
    done = CliRunner().invoke(main, ["doctor"])
    ended_as(done, 0)
    assert len(done.stderr.splitlines()) >= 2
    assert not FORBIDDEN & set(done.stderr)


def test_a_line_comes_where_reading_is_slow_alone(capsys):
    console, before = Console(), set(threading.enumerate())  # a thread of an earlier test may still be ending
    with console.said_where_slow("reading", after=60.0):
        pass
    assert capsys.readouterr().err == ""
    with console.said_where_slow("reading", after=0.01):
        time.sleep(0.3)
    assert capsys.readouterr().err == "reading\n"
    assert set(threading.enumerate()) <= before
    with console.said_where_slow("loading", after=0.01):  # counted from when the command began
        time.sleep(0.1)
    assert capsys.readouterr().err == "loading\n"


def test_an_audit_says_that_it_loads_before_it_imports_what_is_slow(monkeypatch):
    seen = []
    monkeypatch.setattr(Console, "said_where_slow", lambda self, text: seen.append(text) or nullcontext())
    assert CliRunner().invoke(main, ["audit", "none.onnx", "--data", "none.npz"]).exit_code == 2
    assert seen == ["loading ONNX Runtime", "reading the model and the samples"]


def test_a_stage_that_begins_tells_no_count_of_the_one_before(monkeypatch, capsys):
    monkeypatch.setattr("onnxfim.cli.waiting.SILENT", 0.0)
    with Console().progress() as told:
        told(Progress("measuring", 1, 500, "samples", stage_done=1, stage_total=500, stage_unit="samples"))
        told(Progress("bounding", 500, 500, "samples"))
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("; ")[0] for line in said] == ["measuring: 1 of 500 samples", "bounding"]
