"""The tests themselves: they mirror the package, none hides another, and what they skip is told in one line."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

import onnxfim
from tests.support.places import BROWSER, DEV, OTHERS, ROOT, TORCH, lacking
from tests.support.scheduling import LONG, long_first
from tests.support.tracing import CHILDREN, EVERY, PATIENCE, Saturation

pytest_plugins = ["pytester"]

TESTS = ROOT / "tests"
PACKAGE = Path(onnxfim.__file__).parent
WINGS = sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))
#: Folders that stand for no wing: what tests share, pages in a browser, another provider than the CPU, figures made by hand, what fails, odd files,
#: files of real exporters.
BESIDE = {"support", "browser", "openvino", "gpu", "benchmarks", "faults", "fuzz", "exporters"}
FILES = sorted(TESTS.rglob("test_*.py"))


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


# The tree.


@pytest.mark.parametrize("wing", WINGS)
def test_each_wing_has_its_folder_of_tests(wing):
    assert list((TESTS / wing).glob("test_*.py")), f"tests/{wing} holds no test of onnxfim/{wing}"


def test_each_folder_of_tests_has_its_wing():
    folders = {p.name for p in TESTS.iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    assert folders == {*WINGS, *BESIDE}


def test_no_module_hides_another():
    """Files of one name in two folders are two modules only where both folders are packages."""
    for path in FILES:
        found = importlib.util.find_spec(dotted(path))
        assert found is not None, f"{path} cannot be imported as {dotted(path)}"
        assert Path(found.origin) == path, f"{dotted(path)} is {found.origin}, which hides {path}"


def named_twice(tree):
    """Tests and classes of which a scope has two of one name: the first would never run."""
    for scope in ast.walk(tree):
        if isinstance(scope, ast.Module | ast.ClassDef):
            names = Counter(n.name for n in scope.body if isinstance(n, ast.FunctionDef | ast.ClassDef))
            yield from (name for name, count in names.items() if count > 1)


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_no_test_hides_another(path):
    assert list(named_twice(ast.parse(path.read_text("utf-8")))) == []


def test_a_hidden_test_is_seen():
    assert list(named_twice(ast.parse("class T:\n    def test_a(self): pass\n    def test_a(self): pass\n"))) == ["test_a"]


def test_every_file_of_tests_is_collected():
    """A file with tests whose name pytest does not look for is never run."""
    for path in set(TESTS.rglob("*.py")) - set(FILES):
        names = [n.name for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.FunctionDef)]
        assert not [n for n in names if n.startswith("test_")], path


def test_files_that_are_scheduled_by_name_are_there():
    assert [file for file in LONG if ROOT / file not in FILES] == []


def test_long_files_come_first_then_those_with_most_tests():
    files = ["tests/a.py", "tests/b.py", LONG[1], "tests/b.py", LONG[0], LONG[1]]
    items = [SimpleNamespace(path=ROOT / file, name=str(i)) for i, file in enumerate(files)]
    long_first(items)
    assert [item.name for item in items] == ["4", "2", "5", "1", "3", "0"]


# What is traced.


def test_cases_that_bring_nothing_new_are_traced_now_and_then():
    cases, traced = Saturation(), []
    for _ in range(PATIENCE + 2 * EVERY):
        traced.append(cases.traces("a"))
        cases.ran("a", new=False)
        assert cases.traces("b"), "another test has its own cases"
    assert traced == [k < PATIENCE or (k - PATIENCE + 1) % EVERY == 0 for k in range(PATIENCE + 2 * EVERY)]
    cases.ran("a", new=True)
    assert all(cases.traces("a") or cases.ran("a", new=False) for _ in range(PATIENCE)), "something new: all are again"


_TRACED = """
import os, coverage
from onnxfim.record.foreign_text import visible
from tests.support import tracing
measuring = coverage.Coverage(data_file=None, branch=True, source_pkgs=["onnxfim"])
measuring.start()
collects = tracing.collector()
os.environ[tracing.CHILDREN] = "config"
before = tracing.seen(collects)
with tracing.untraced(children=True):
    visible("a")
    assert tracing.CHILDREN not in os.environ
for _ in tracing.at_first(range(3), 0):
    visible("a")
assert tracing.seen(collects) == before and os.environ[tracing.CHILDREN] == "config"
for _ in tracing.at_first(range(3), 1):
    visible("a")
assert tracing.seen(collects) > before
"""


def test_what_is_traced_is_seen_and_what_is_not_is_not():
    """By what coverage keeps for itself: were it renamed, every test would be traced, and the checks take a quarter longer."""
    DEV.load("coverage")
    env = {k: v for k, v in os.environ.items() if k != CHILDREN}
    done = subprocess.run([sys.executable, "-c", _TRACED], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The benchmarks, which no test runs.

BENCHMARKS = sorted([*(TESTS / "benchmarks").glob("*.py"), *(TESTS / "benchmarks" / "paper").glob("*.py")])


def imported(path):
    """(module, name) of what a script imports from the project; the name is None where the module itself is."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("onnxfim", "tests"):
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, None) for a in node.names if a.name.split(".")[0] in ("onnxfim", "tests"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda p: p.stem)
def test_benchmarks_import_what_is_there(path):
    for module, name in imported(path):
        found = importlib.import_module(module)
        submodule = name is not None and importlib.util.find_spec(f"{module}.{name}") if hasattr(found, "__path__") else None
        assert name is None or submodule or hasattr(found, name), f"{path.name}: {module} has no {name}"


# What is skipped.


def test_one_line_tells_what_was_skipped_and_how_to_get_it():
    reasons = [BROWSER.reason, f"Skipped: {BROWSER.reason}", f"Skipped: {TORCH.reason}", "Skipped: this machine runs CUDA"]
    assert lacking(reasons) == (
        "skipped: 2 without Chromium and its driver (.ci/browser.sh), 1 without torch and onnxscript (pip install '.[train]'), "
        "1 not for this machine (pytest -rs tells why)"
    )
    assert lacking([]) == ""
    assert str(ROOT.parent / "shared" / "models") in OTHERS.reason


def test_the_line_ends_a_run(pytester):
    """In a run of its own, by this project's conftest: a test, and a whole file, that lack something."""
    pytester.makeconftest("from tests.conftest import pytest_terminal_summary")
    pytester.makepyfile(
        test_one=f"import pytest\ndef test_a(): pytest.skip({OTHERS.reason!r})\ndef test_b(): pass",
        test_two=f"import pytest\npytest.importorskip('no_such_module', reason={DEV.reason!r})",
    )
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, skipped=2)
    (line,) = [line for line in result.outlines if line.startswith("skipped: ")]
    assert f"1 {OTHERS.reason.replace('needs', 'without')}" in line
    assert f"1 {DEV.reason.replace('needs', 'without')}" in line


def test_scripts_that_get_things_are_there():
    assert (ROOT / BROWSER.how).is_file()
