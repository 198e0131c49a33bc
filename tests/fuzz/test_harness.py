"""The fuzzer sees what it is there to see: each kind of failure is planted once, and what is right passes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.fuzz import harness
from tests.fuzz.harness import Case, Runner, Task

_AUDIT = ("audit", "m.onnx", "-o", "json=a.json")


def _fails():
    raise ValueError("planted")


def _dies():
    os.kill(os.getpid(), signal.SIGSEGV)


def _hangs():
    time.sleep(60)


def _ends(code, text="", *, out=""):
    def program():
        sys.stderr.write(text)
        sys.stdout.write(out)
        sys.exit(code)

    return program


def _writes(path, text="{", code=0):
    def program():
        with open(path, "w") as file:
            file.write(text)
        sys.exit(code)

    return program


def _reads_below_python():
    assert ctypes.CDLL(None).open(b"../outside/secret.txt", os.O_RDONLY) >= 0


def _connects():
    import socket

    socket.create_connection(("127.0.0.1", 9), timeout=1)


PLANTED = {
    "traceback": (_fails, "a traceback on stderr"),
    "crash": (_dies, "died by SIGSEGV"),
    "hang": (_hangs, "hung: killed"),
    "code": (_ends(7), "exit code 7"),
    "gate": (_ends(1), "a gate failed"),
    "internal error": (_ends(2, "onnxfim: internal error, see t.txt\n"), "an internal error"),
    "two errors": (_ends(2, "onnxfim: this is one line\nonnxfim: this is another\n"), "2 error lines"),
    "an error of two lines": (_ends(2, "onnxfim: this begins here\nand ends here\n"), "goes on in another"),
    "no error": (_ends(2), "0 error lines"),
    "escape": (_ends(0, out="\x1b[31mred"), "a control character on stdout"),
    "direction": (_ends(0, "\u202edlrow\n"), "a control character on stderr"),
    "wrote outside": (_writes("../outside/weights.bin"), "weights.bin was touched"),
    "made outside": (_writes("../new.txt"), "new.txt appeared"),
    "read outside": (_reads_below_python, "secret.txt was touched"),
    "connected": (_connects, "socket.connect"),
    "left behind": (_writes(".a.json.tmp"), "was left behind"),
    "input changed": (_writes("m.onnx"), "'m.onnx' was changed"),
    "input removed": (lambda: os.remove("m.onnx"), "'m.onnx' was removed"),
    "temporary": (lambda: open(os.path.join(os.environ["TMPDIR"], "t"), "w").close(), "a temporary file was left behind"),
    "no output": (_ends(0), "a.json: exit code 0, but not written"),
    "half an output": (_writes("a.json"), "a.json: not a whole json"),
    "an empty output": (_writes("a.json", ""), "a.json: not a whole json"),
    "no audit": (_writes("a.json", "{}"), "a.json: not a whole json"),
}


def _outcome(tmp_path, program, case):
    runner = Runner(tmp_path, program=program, limit=2.0)
    task = Task("planted", 0, 0)
    folder = runner.folder(task)
    folder.mkdir()
    (folder / "m.onnx").write_bytes(b"a model")
    return runner.run_case(task, case, folder)


@pytest.mark.parametrize("name", PLANTED)
def test_each_kind_of_failure_is_seen(tmp_path, name):
    program, problem = PLANTED[name]
    outcome = _outcome(tmp_path, program, Case(_AUDIT, name))
    assert any(problem in p for p in outcome.problems), outcome.problems


def test_a_failure_has_its_place(tmp_path):
    outcome = _outcome(tmp_path, _fails, Case(_AUDIT, ""))
    assert outcome.frame == f"tests/fuzz/test_harness.py:{_fails.__code__.co_firstlineno + 1} _fails: ValueError: planted"


@pytest.mark.parametrize("program", [_ends(2, "onnxfim: m.onnx: is broken. Mend it.\n"), _ends(0, "a warning\n", out="done\n")])
def test_what_is_right_passes(tmp_path, program):
    assert _outcome(tmp_path, program, Case(("inspect", "m.onnx"), "")).problems == ()


@pytest.mark.parametrize("family", harness.names())
def test_a_case_is_always_the_same(tmp_path, family):
    module, made = harness.family(family), []
    for k in range(2):
        folder = tmp_path / str(k)
        folder.mkdir()
        case = module.case(Task(family, 3, 1).rng(), folder)
        files = {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".npz"}
        made.append((case, files))
    assert made[0] == made[1]


@pytest.mark.parametrize(("waited", "hung"), [(0.0, True), (60.0, False)], ids=["of its own", "for a processor"])
def test_time_without_a_processor_is_no_hang(tmp_path, monkeypatch, waited, hung):
    monkeypatch.setattr(harness, "starved", lambda pid: waited)
    assert _outcome(tmp_path, lambda: time.sleep(2.5), Case(_AUDIT, "")).ended.hung is hung


def test_waiting_for_a_processor_is_counted():
    """Two loops on one processor each wait for the other; what sleeps waits for none."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for loop in loops:
            os.sched_setaffinity(loop.pid, {min(os.sched_getaffinity(0))})
        before = [harness.starved(loop.pid) for loop in loops]
        time.sleep(1.0)
        assert sum(harness.starved(loop.pid) for loop in loops) - sum(before) > 0.5
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert harness.starved(os.getpid()) >= 0
