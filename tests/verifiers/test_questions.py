"""A verifier as a program of another's: whatever it does, its answer is one of five, and nothing of it is left."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from onnxfim.errors import SettingsError
from onnxfim.verifiers import questions
from onnxfim.verifiers.properties import StaysInBox, box_around
from onnxfim.verifiers.questions import BoxLimits, Question, a_folder, ask
from onnxfim.verifiers.verifier_commands import KNOWN, verifier_command
from tests.support import models
from tests.support.models import Linear
from tests.support.places import SUPPORT

FAKE = SUPPORT / "fake_verifier.py"
MODEL = Linear.draw(4, 6)
X = MODEL.samples(1)[0]
CLASS = int(MODEL.logits(X[None])[0].argmax())


def told(mode, *, result="-", vnnlib="{vnnlib}"):
    """The command line of a fake."""
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(FAKE))} {shlex.quote(mode)} {{onnx}} {vnnlib} {{timeout}} {result}"


def radius():
    """The exact L∞ distance to another class."""
    z = MODEL.logits(X[None])[0]
    return min((z[CLASS] - z[j]) / np.abs(MODEL.W[CLASS] - MODEL.W[j]).sum() for j in range(4) if j != CLASS)


def about(epsilon):
    low, high = box_around(X, epsilon, low=-10.0, high=10.0)
    return StaysInBox(low, high, CLASS, 4, output_shape=(1, 4))


@pytest.fixture
def network(tmp_path):
    return models.save(MODEL.onnx(batch=1), tmp_path / "a network.onnx")


def asked(network, mode, epsilon=0.1, *, seconds=20.0, memory=None, **how):
    return ask(verifier_command(told(mode, **how)), network, about(epsilon), BoxLimits(seconds, memory))[0]


@pytest.mark.parametrize("mode", ["exact", "standard", "holds and violated", "colours"])
@pytest.mark.parametrize(("result", "vnnlib"), [("-", "{vnnlib}"), ("{result}", "{vnnlib}"), ("-", "{vnnlib2}")])
def test_answers_and_counterexamples_come_back(network, mode, result, vnnlib):
    assert asked(network, mode, 0.99 * radius(), result=result, vnnlib=vnnlib).answer == "unsat"
    said = asked(network, mode, 1.01 * radius(), result=result, vnnlib=vnnlib)
    assert said.answer == "sat"
    assert about(1.01 * radius()).holds(said.point)
    assert MODEL.logits(said.point[None])[0].argmax() != CLASS


@pytest.mark.parametrize(
    ("mode", "note"),
    [
        ("crash", r"ended with code 1; Traceback: it fell over"),
        ("signal", r"ended by signal 11"),
        ("garbage", r"printed '.*I do not know what.*', expected sat, unsat, unknown or timeout"),
        ("floods", r"printed more than 1 MB, and was ended"),
    ],
)
def test_what_is_no_answer_is_told_in_one_line(network, mode, note, monkeypatch):
    monkeypatch.setattr(questions, "_MOST_OUTPUT", 2**20)
    said = asked(network, mode)
    assert said.answer == "error"
    assert re.search(note, said.note), said.note
    assert said.note.isprintable()


def test_a_reason_for_not_knowing_is_told(network):
    said = asked(network, "unknown")
    assert (said.answer, said.note) == ("unknown", "net not supported: I know no Gemm")


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells no process's memory")
def test_one_that_hoards_memory_is_ended(network):
    said = asked(network, "hoards", memory=2**29)
    assert said.answer == "error"
    assert said.note == "held more than 0.5 GiB of memory, and was ended"


def alive(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def gone(pids, seconds=10.0):
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, pids))


@pytest.fixture
def pids(tmp_path, monkeypatch):
    path = tmp_path / "pids"
    monkeypatch.setenv("FAKE_PIDS", str(path))

    def read():
        until = time.monotonic() + 20
        while not (path.exists() and len(path.read_text().split()) == 2):
            assert time.monotonic() < until
            time.sleep(0.02)
        return [int(p) for p in path.read_text().split()]

    return read


def test_one_that_hangs_is_ended_with_all_that_it_started(network, monkeypatch, pids):
    monkeypatch.setattr(questions, "GRACE", 0.5)
    said = asked(network, "hang with children", seconds=1.0)
    assert said.answer == "timeout"
    assert re.fullmatch(r"did not end \d+ s after its start, and was ended", said.note)
    assert gone(pids()), "a process is left"


def test_an_interrupt_leaves_nothing(network, pids, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(KeyboardInterrupt), a_folder() as folder:  # noqa: PT012 - the end of the whole block is tested
        question = Question(verifier_command(told("hang with children")), network, about(0.1), BoxLimits(60.0), folder)
        try:
            found = pids()
            raise KeyboardInterrupt
        finally:
            question.close()
    assert gone(found)
    assert not list(tmp_path.glob("onnxfim-verifier-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_process_that_is_killed_takes_its_verifier_along(network, pids, tmp_path):
    script = f"""
import pathlib, sys
sys.path[:0] = {[p for p in sys.path if p]!r}
from tests.verifiers.test_questions import *
with a_folder() as folder:
    Question(verifier_command(told("hang with children")), pathlib.Path({str(network)!r}), about(0.1), BoxLimits(60.0), folder)
    time.sleep(600)
"""
    running = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)})
    found = pids()
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert gone(found)
    until = time.monotonic() + 10
    while (left := list(tmp_path.glob("onnxfim-verifier-*/box-*"))) and time.monotonic() < until:
        time.sleep(0.02)
    assert not left


def test_no_shell_reads_a_command(network, tmp_path):
    marker = tmp_path / "marker"
    command = verifier_command(f"{told('exact')} '; touch {marker}' $(touch {marker}) `touch {marker}` > {marker}")
    ask(command, network, about(0.01), BoxLimits(20.0))
    assert not marker.exists()


def test_braces_of_files_are_no_places(tmp_path):
    odd = tmp_path / "{onnx} $(x) 'q' {timeout}"
    odd.mkdir()
    network = models.save(MODEL.onnx(batch=1), odd / "net work.onnx")
    assert asked(network, "exact", 0.01).answer == "unsat"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty, expected vibecheck, marabou, abcrown, or a command"),
        ("magic", r"'magic' is no known verifier, expected vibecheck"),
        ("'open", r"cannot be split into arguments \(No closing quotation\)"),
        ("no-such-tool {onnx} {vnnlib}", r"'no-such-tool' is not installed, or not on the PATH"),
        ("python3 {onnx}", r"has no place for {vnnlib}, expected both files in it"),
        ("python3 {vnnlib}", r"has no place for {onnx}"),
        ("python3 {onnx} {vnnlib} {vnnlib2}", r"names both {vnnlib} and {vnnlib2}"),
        ("python3 {onnx} {vnnlib} {model}", r"{model} is no place, expected {onnx}, {vnnlib}, {vnnlib2}, {timeout}, {result}"),
        ("python3 {onnx!r} {vnnlib}", r"{onnx!r} is no place"),
        ("python3 {onnx.__class__} {vnnlib}", r"{onnx.__class__} is no place"),
        ("python3 {onnx} {vnnlib} {", r"has a brace without its partner"),
    ],
)
def test_commands_that_cannot_be_are_refused(text, message):
    with pytest.raises(SettingsError, match=message) as refused:
        verifier_command(text)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_run_is_refused(tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    with pytest.raises(SettingsError, match="is no program that can be run"):
        verifier_command(f"{tmp_path}/tool {{onnx}} {{vnnlib}}")


def test_known_tools_that_are_not_there_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ABCROWN_HOME", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, message in zip(
        KNOWN, ("pipx install vibecheck-nn", r"pip install 'onnxfim\[verify\]'", "ABCROWN_HOME is not set"), strict=True
    ):
        with pytest.raises(SettingsError, match=message):
            verifier_command(name)


def test_abcrown_is_called_as_its_authors_say(monkeypatch, tmp_path):
    (tmp_path / "complete_verifier").mkdir()
    script = tmp_path / "complete_verifier" / "abcrown.py"
    script.write_text("")
    monkeypatch.setenv("ABCROWN_HOME", str(tmp_path))
    monkeypatch.setenv("ABCROWN_PYTHON", sys.executable)
    monkeypatch.setenv("ABCROWN_OPTIONS", "--device cpu --config 'my {own}.yaml'")
    command = verifier_command("abcrown")
    values = {"onnx": "n.onnx", "vnnlib": "p.vnnlib", "vnnlib2": "", "timeout": "30", "result": "r.txt"}
    assert command.filled(values)[1:] == [
        str(script), "--onnx_path", "n.onnx", "--vnnlib_path", "p.vnnlib", "--timeout", "30", "--results_file", "r.txt",
        "--save_adv_example", "--device", "cpu", "--config", "my {own}.yaml",
    ]  # fmt: skip
    assert (command.name, command.version, command.writes) == ("abcrown", 1, True)
    monkeypatch.setenv("ABCROWN_HOME", str(tmp_path / "complete_verifier" / "nowhere"))
    with pytest.raises(SettingsError, match=r"no abcrown\.py below"):
        verifier_command("abcrown")
