"""A slice of the fuzzer's cases, of all families; `.ci/run` runs a longer one, `python -m tests.fuzz --cases 20000` a long one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.fuzz import harness
from tests.support.places import ROOT

#: Seconds that the suite's own slice takes.
SECONDS = float(os.environ.get("ONNXFIM_FUZZ_SECONDS", "20"))
SEED = 11

pytestmark = pytest.mark.untraced

_PLANTED = """
import sys
from tests.fuzz.__main__ import main
from tests.fuzz.child import warm
warm()
import onnxfim.graph.load
def planted(proto):
    raise KeyError("planted")
onnxfim.graph.load.check = planted
sys.exit(main(["--family", "deep", "--cases", "2", "--keep", sys.argv[1]]))
"""


def run(*arguments, timeout):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=env, timeout=timeout)


@pytest.mark.slow
def test_a_slice_of_all_families(tmp_path):
    arguments = ["-m", "tests.fuzz", "--seconds", str(SECONDS), "--seed", str(SEED), "--keep", str(tmp_path)]
    done = run(*arguments, timeout=300 + SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in harness.names():
        assert f"  {name}: " in done.stdout, "every family had its turn"


@pytest.mark.slow
def test_a_planted_traceback_is_found(tmp_path):
    done = run("-c", _PLANTED, str(tmp_path), timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED (2)" in done.stdout
    assert "KeyError" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep-0-0", "deep-0-1"], "both are kept"
