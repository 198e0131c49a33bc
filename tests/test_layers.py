"""Imports point one way, and the heavy libraries wait until they are needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import onnxfim
from tests.support.places import SAMPLES

pytestmark = pytest.mark.untraced

ROOT = Path(onnxfim.__file__).parent

#: A wing may import from itself and from wings before it only; modules of the top level stand as wings of their own.
ORDER = (
    "errors", "record", "graph", "runtime", "served", "data", "verdict", "gradients", "spectral", "relaxed", "slopes", "auditing",
    "fleet", "report", "pytest_plugin", "integrations", "cli", "__main__",
)  # fmt: skip
#: Wings that must not see one another although the order would let them.
APART = {
    "graph": {"record"},
    "runtime": {"record"},
    "data": {"graph", "runtime", "served"},
    "verdict": {"graph", "runtime", "data", "served"},
    "served": {"graph"},
}
MOST_LINES = 400
HEAVY = ("onnxruntime", "onnx", "scipy", "numpy", "jinja2", "rich", "PIL")


def layer(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path):
    """Layers of onnxfim that a file imports at run time, wherever the statement stands (a type checker's imports bind nothing)."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module] if node.module != "onnxfim" else [f"onnxfim.{a.name}" for a in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "onnxfim" and len(parts) > 1 and (ROOT / parts[1]).exists() | (ROOT / f"{parts[1]}.py").exists():
                yield parts[1], node.lineno


MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    mine = layer(path)
    assert mine in ORDER, f"{path.name}: a layer without a place in the order"
    for other, line in imports(path):
        assert other in ORDER, f"{path}:{line} imports onnxfim.{other}, which has no place in the order"
        assert ORDER.index(other) <= ORDER.index(mine), f"{path}:{line} imports onnxfim.{other} from a layer below it"
        assert other not in APART.get(mine, ()), f"{path}:{line} imports onnxfim.{other}, which {mine} knows nothing of"


def test_an_upward_import_is_seen(tmp_path):
    path = tmp_path / "low.py"
    path.write_text("def f():\n    from onnxfim.auditing.run import audit\n    return audit\n")
    assert list(imports(path)) == [("auditing", 2)]
    path.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from onnxfim.auditing.run import audit\n")
    assert list(imports(path)) == []


def loaded_by(code):
    text = f"import sys; {code}; import json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "code",
    [
        "import onnxfim",
        "import onnxfim.cli",
        "from click.testing import CliRunner; from onnxfim.cli import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0",
        "from click.testing import CliRunner; from onnxfim.cli import main; "
        "assert CliRunner().invoke(main, ['audit', '--help']).exit_code == 0",
    ],
)
def test_help_waits_for_no_heavy_library(code):
    assert loaded_by(code) == []


def test_help_waits_for_nothing_that_it_does_not_print():
    late = ("hashlib", "onnxfim.cli.waiting", "onnxfim.cli.identifying", "onnxfim.record.identity", "onnxfim.record.running")
    code = "from click.testing import CliRunner; from onnxfim.cli import main; CliRunner().invoke(main, ['audit', '--help'])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print([m for m in {late!r} if m in sys.modules])"],
        capture_output=True, text=True, check=True, cwd=ROOT.parent,
    )  # fmt: skip
    assert done.stdout.split() == ["[]"]


def test_an_audit_is_imported_without_scipy():
    assert "scipy" not in loaded_by("import onnxfim.auditing.run")


def test_an_audit_in_a_terminal_waits_for_no_templates():
    assert "jinja2" not in loaded_by("import onnxfim.cli.audit_command")


def test_what_one_audit_needs_not_is_imported_later():
    late = (
        "onnxfim.verdict.compare",
        "onnxfim.verdict.measure_tests",
        "onnxfim.spectral",
        "onnxfim.relaxed",
        "onnxfim.auditing.stages.refining",
        "onnxfim.runtime.cuda",
        "difflib",
    )
    code = f"import sys, onnxfim.auditing.run; print([m for m in {late!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.split() == ["[]"]


def test_an_audit_loads_no_library_that_few_audits_need():
    few = ("scipy.stats", "scipy.optimize", "scipy.linalg", "scipy.sparse", "PIL", "jinja2", "onnx.reference", "http", "rich")
    code = f"""import sys, onnxfim
model, data = {str(SAMPLES / "digits_mlp.onnx")!r}, {str(SAMPLES / "digits.npz")!r}
data = onnxfim.load_samples(data, model, limit=4)
assert onnxfim.audit(model, data, settings=onnxfim.Settings(samples=4)).samples
print([m for m in {few!r} if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_wing_says_its_job_in_one_line():
    for wing in ORDER:
        if (ROOT / wing).is_dir():
            first = (ast.get_docstring(ast.parse((ROOT / wing / "__init__.py").read_text("utf-8"))) or "").splitlines()[0]
            assert first.endswith("."), wing


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_is_too_long(path):
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


def test_public_names_come_when_asked_for():
    assert {name for name in onnxfim.__all__ if callable(getattr(onnxfim, name))} >= {
        "audit",
        "from_callable",
        "render_html",
        "Settings",
    }
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = onnxfim.nothing


def names_of(kind):
    """Where each class, or each module, of the product stands, by its name."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        if kind == "module" and path.stem != "__init__":
            found.setdefault(path.stem, set()).add(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))) if kind == "class" else ():
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("kind", ["class", "module"])
def test_one_name_for_one_thing(kind):
    assert {name: places for name, places in names_of(kind).items() if len(places) > 1} == {}


#: The door to the terminal, what lays out what goes through it, what makes the streams safe, and the one line of a signal before any
#: of it is imported: no other module prints.
DOOR = {"cli/console.py", "cli/painted.py", "cli/outlets.py", "cli/__init__.py"}
PRINTS = {"echo", "secho", "echo_via_pager", "progressbar", "prompt", "confirm", "pause", "clear"}


def printing(path):
    """Lines of a file that print, or reach for a standard stream to write to it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Name("print")):
                yield node.lineno
            case ast.Attribute(value=ast.Name("click"), attr=act) if act in PRINTS:
                yield node.lineno
            case ast.Attribute(value=ast.Attribute(value=ast.Name("sys"), attr=stream), attr=act) if (
                "stdin" not in stream
                and "std" in stream
                and act
                in (
                    "write",
                    "writelines",
                    "buffer",
                )
            ):
                yield node.lineno
            case ast.ImportFrom(module=module, names=names) if module == "sys" and any("std" in n.name for n in names):
                yield node.lineno
            case ast.ImportFrom(module=module, names=names) if module == "click" and any(n.name in PRINTS for n in names):
                yield node.lineno
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "rich":
                yield node.lineno
            case ast.Import(names=names) if any(n.name.split(".")[0] == "rich" for n in names):
                yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_one_door_to_the_terminal(path):
    if path.relative_to(ROOT).as_posix() not in DOOR:
        assert list(printing(path)) == [], f"{path}: prints; go through cli.console.Console"


@pytest.mark.parametrize(
    "text",
    ["print(1)", "import click\nclick.secho('a')", "import sys\nsys.stderr.write('a')", "import sys\nsys.stdout.buffer.write(b'')",
     "from sys import stdout", "from rich.table import Table", "import rich", "from click import echo"],
)  # fmt: skip
def test_another_door_is_seen(tmp_path, text):
    path = tmp_path / "m.py"
    path.write_text(text)
    assert list(printing(path))
