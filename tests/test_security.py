"""What SECURITY.md promises of an audit as a whole: no connection, no other program, nothing unpickled, nothing written elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "sample_models"

# Python tells an audit hook of everything that is to be watched; what native code does on its own it does not see.
WATCH = """
import os, sys
BANNED = ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto", "urllib.Request", "subprocess.Popen",
          "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "pickle.find_class")
seen, busy = [], False
def hook(event, args):
    if event.startswith(BANNED):
        seen.append([event, str(args[0])])
    elif event == "open" and isinstance(args[0], (str, os.PathLike)) and args[2] & (os.O_WRONLY | os.O_RDWR):
        seen.append([event, os.path.abspath(args[0])])
    elif event in ("os.mkdir", "os.remove"):
        seen.append([event, os.path.abspath(args[0])])
    elif event == "os.rename":
        seen.append([event, os.path.abspath(args[1])])
sys.addaudithook(hook)
"""


@pytest.fixture
def watched(tmp_path):
    """Run Python in an empty folder; the events that are banned, and those that write, with what they touch."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "work").mkdir()

    def run(code):
        environment = {
            **os.environ, "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "LOCALAPPDATA": str(tmp_path / "cache"), **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path / "tmp")),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }  # fmt: skip
        script = f"{WATCH}\n{code}\nimport json\nprint('SEEN ' + json.dumps(seen))"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path / "work", env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("SEEN ")[2])

    return run


def outside(seen, folder):
    """Events that are no write below the folder or to the null device."""
    kept = ("open", "os.mkdir", "os.remove", "os.rename")
    return [e for e in seen if e[0] not in kept or not (e[1] == os.devnull or Path(e[1]).is_relative_to(folder))]


@pytest.mark.slow
@pytest.mark.untraced
def test_an_audit_touches_nothing_else(watched, tmp_path):
    model, data = str(MODELS / "digits_mlp.onnx"), str(MODELS / "digits.npz")
    seen = watched(f"""
from onnxfim.cli import main
for words in (
    ["audit", {model!r}, "--data", {data!r}, "--samples", "8", "--attack", "l2", "--attack-range", "0,1",
     "-o", "html=report.html", "-o", "json=report.json", "-o", "sarif=report.sarif"],
    ["audit", {model!r}, "--data", {data!r}, "--samples", "8", "--baseline", "report.json"],
    ["convert", "report.json", "-o", "junit=junit.xml"],
    ["bounds", {model!r}],
    ["inspect", {model!r}],
):
    try:
        main(words, standalone_mode=False)
    except SystemExit as end:
        assert not end.code, words
""")
    written = {Path(path).name for event, path in seen if event == "os.rename"}
    assert {"report.html", "report.json", "report.sarif", "junit.xml"} <= written, "the watch sees the outputs"
    assert outside(seen, tmp_path.resolve()) == []


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("import socket\ntry: socket.create_connection(('127.0.0.1', 9), 0.1)\nexcept OSError: pass", "socket.getaddrinfo"),
        ("import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])", "subprocess.Popen"),
        ("import pickle\npickle.loads(pickle.dumps(Exception))", "pickle.find_class"),
        ("open('../../elsewhere', 'w').close()", "open"),
        ("import os\nos.mkdir('../../folder')", "os.mkdir"),
    ],
)  # fmt: skip
@pytest.mark.untraced
def test_the_watch_sees_it(watched, tmp_path, code, event):
    code = code.replace("../../", f"{(tmp_path / 'beside').as_posix()}")
    assert event in {e[0] for e in outside(watched(code), tmp_path.resolve() / "work")}
