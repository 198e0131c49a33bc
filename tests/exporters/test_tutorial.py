"""The tutorial runs as it stands, in order, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.support.places import ROOT
from tests.support.snippets import blocks_of

pytest.importorskip("torch", reason="torch is not installed: pip install '.[exporters]'")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install '.[exporters]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install '.[exporters]'")


@pytest.mark.slow
@pytest.mark.untraced
def test_the_tutorial_runs(tmp_path):
    """The Python blocks are one session, the commands between them each a process; a block says its own exit code where that is not 0."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "200"}
    said, script = [], []
    for block in blocks_of("docs/tutorial.md"):
        if "network" in block.needs:
            continue
        if block.language == "python":
            script.append(block.text)
            continue
        if script:
            _run([sys.executable, "-c", "\n".join(script)], tmp_path, environment, 0)
            script = []
        for line in block.text.splitlines():
            expected = re.search(r"exit: (\d)", block.needs)
            words = [sys.executable, "-m", "onnxfim", *shlex.split(line)[1:]]
            said.append(_run(words, tmp_path, environment, int(expected[1]) if expected else 0))
    _run([sys.executable, "-c", "\n".join(script)], tmp_path, environment, 0)
    compared = next(text for text in said if text.startswith("-m onnxfim compare"))
    assert compared.splitlines()[1].startswith("robust is more robust")
    assert {"standard.html", "comparison.html", "baseline.json"} <= {p.name for p in tmp_path.iterdir()}


def _run(words, folder, environment, code):
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return f"{shlex.join(words[1:])}\n{done.stdout}"
