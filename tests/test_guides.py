"""The guides on data and on Python: every command and snippet in them runs, in its page's order."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import util

import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from tests.support.places import ROOT, SAMPLES
from tests.support.snippets import blocks_of, commands_in

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

_MODULES = {"pillow": "PIL"}
#: Guides, and what is written into a file of this name instead of being run.
GUIDES = {"data.md": {"def load_data": "loader.py"}, "python.md": {}}


def needed(block):
    """The module that a block needs, None where it needs none."""
    return block.needs.partition(" ")[0] or None


def run_blocks(page):
    return [b for b in blocks_of(f"docs/{page}") if b.language in ("python", "sh")]


@pytest.mark.parametrize("page", GUIDES)
def test_a_guide_runs_from_its_first_line_to_its_last(page, tmp_path, monkeypatch):
    shutil.copytree(SAMPLES, tmp_path / "sample_models", ignore=shutil.ignore_patterns("*.py", "*.png"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("ONNXFIM_SAMPLES", "12")
    ran = 0
    for block in run_blocks(page):
        needs, text = needed(block), block.text
        if needs is not None and util.find_spec(_MODULES.get(needs, needs)) is None:
            continue
        ran += 1
        if name := next((file for mark, file in GUIDES[page].items() if mark in text), None):
            (tmp_path / name).write_text(text, "utf-8")
        elif block.language == "python":
            done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{text}\n{done.stderr}"
        else:
            commands = commands_in([block])
            assert len(commands) == len(text.splitlines())
            for words in commands:
                result = CliRunner().invoke(main, words)
                assert result.exit_code == 0, f"{words}\n{result.output}"
    assert ran >= 3


def test_what_a_guide_needs_is_an_extra_or_another_framework():
    known = {"pyarrow", "pillow", "pandas", "matplotlib", "mlflow", "huggingface_hub", "torch", "datasets"}
    assert {needed(b) for page in GUIDES for b in run_blocks(page)} - {None} <= known
