from __future__ import annotations

import subprocess
import sys

import pytest

from tests.gpu.lines import ROOT, Bench, Line, read

pytestmark = [pytest.mark.slow, pytest.mark.untraced]


def check(*flags):
    command = [sys.executable, ROOT / "tests" / "gpu" / "check.py", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)


def test_every_section_runs_on_the_cpu(tmp_path):
    found = check("--provider", "cpu", "--quick", "--out", tmp_path / "lines.json")
    assert found.returncode == 0, found.stdout + found.stderr
    lines = read(tmp_path / "lines.json")
    assert {line.section for line in lines} == {
        "machine", "placement", "values", "rows", "deployed", "speed", "search", "memory", "failures",
    }  # fmt: skip
    held = [line for line in lines if line.passed is not None]
    assert len(held) >= 20
    assert all(str(line) in found.stdout for line in lines)


def test_a_section_that_dies_fails(tmp_path):
    found = check("--provider", "snpe", "--quick", "--only", "rows", "--out", tmp_path / "lines.json")
    assert found.returncode == 1
    assert read(tmp_path / "lines.json")[-1] == Line("rows", "rows: the section", "exit 1", "comes to its end", False)


def test_lines_survive_the_death_of_their_section(tmp_path):
    bench = Bench("machine", "cpu", None, tmp_path, out=tmp_path / "lines.json")
    bench.hold("one", 1, "1", True)
    assert read(tmp_path / "lines.json") == [Line("machine", "one", "1", "1", True)]
