"""Imports point one way, and the heavy libraries wait until they are needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import onnxfim

ROOT = Path(onnxfim.__file__).parent

#: A module may import from modules before it only. A name stands for a module, or a package with all that is in it.
ORDER = (
    "errors", "threads", "results", "graph", "session", "doctor", "model", "perturb", "jacobian", "forward", "surgery",
    "folding", "flow", "architecture", "bounds", "gradients", "differentiable", "krylov", "spectral", "outputs", "attacks", "replay",
    "subject", "data", "estimators", "stepping", "calibration", "measure", "exact", "cache", "aggregates", "summary", "findings",
    "pictures", "checks", "gradient_stage", "audit", "common_step", "verdict", "expect", "pytest_plugin", "report", "cli", "__main__",
)  # fmt: skip
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


def test_an_upward_import_is_seen(tmp_path):
    path = tmp_path / "low.py"
    path.write_text("def f():\n    from onnxfim.audit import audit\n    return audit\n")
    assert list(imports(path)) == [("audit", 2)]
    path.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from onnxfim.audit import audit\n")
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


def test_the_function_is_callable_after_its_module_was_imported():
    code = "import onnxfim.audit; import onnxfim; assert callable(onnxfim.audit); from onnxfim import audit; assert callable(audit)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)


def test_public_names_come_when_asked_for():
    assert {name for name in onnxfim.__all__ if callable(getattr(onnxfim, name))} >= {
        "audit",
        "from_callable",
        "render_html",
        "Settings",
    }
    assert callable(onnxfim.audit), "the function wins over the module of the same name"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = onnxfim.nothing
