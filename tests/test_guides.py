"""The guides on data and on Python: every command and snippet in them runs, in its page's order."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib import util

import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from tests.support.places import ROOT, SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

_BLOCK = re.compile(r"(?:^<!-- needs: (\S+)[^\n]*-->\n+)?^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MODULES = {"pillow": "PIL"}
#: Guides, and what is written into a file of this name instead of being run.
GUIDES = {"data.md": {"def load_data": "loader.py"}, "python.md": {}}


def blocks(page):
    """``(needs, language, text)`` of each block of a guide that is run."""
    return [m.groups() for m in _BLOCK.finditer((ROOT / "docs" / page).read_text("utf-8"))]


@pytest.mark.parametrize("page", GUIDES)
def test_a_guide_runs_from_its_first_line_to_its_last(page, tmp_path, monkeypatch):
    shutil.copytree(SAMPLES, tmp_path / "sample_models", ignore=shutil.ignore_patterns("*.py", "*.png"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("ONNXFIM_SAMPLES", "12")
    ran = 0
    for needs, language, text in blocks(page):
        if needs is not None and util.find_spec(_MODULES.get(needs, needs)) is None:
            continue
        ran += 1
        if name := next((file for mark, file in GUIDES[page].items() if mark in text), None):
            (tmp_path / name).write_text(text, "utf-8")
        elif language == "python":
            done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{text}\n{done.stderr}"
        else:
            for line in text.splitlines():
                words = shlex.split(line)
                assert words[0] == "onnxfim"
                result = CliRunner().invoke(main, words[1:])
                assert result.exit_code == 0, f"{line}\n{result.output}"
    assert ran >= 3


def test_what_a_guide_needs_is_an_extra_or_another_framework():
    known = {"pyarrow", "pillow", "pandas", "matplotlib", "mlflow", "huggingface_hub", "torch", "datasets"}
    assert {needs for page in GUIDES for needs, _, _ in blocks(page)} - {None} <= known
