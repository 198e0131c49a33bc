"""Builds the distribution onnxfim-core of onnxfim's own tree: the same package, and no ONNX Runtime among its dependencies.

A copy of the tree gets a rewritten pyproject.toml and goes to the ordinary backend. The source archive holds that copy and so is an
ordinary project: this file is needed in a checkout alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml  # hatchling brings it

TREE = Path(__file__).resolve().parents[1]
NAME = "onnxfim-core"
_FILES = ("README.md", "LICENSE", "CHANGELOG.md", "onnxfim", "templates")


def core_project(text: str) -> str:
    """The text of onnxfim's pyproject.toml, made that of onnxfim-core.

    Another name; the requirements of ONNX Runtime gone from the dependencies; an extra `cpu` with the plain build.

    Raises:
        ValueError: a place that is to change is not there exactly once.
    """
    project = toml.loads(text)["project"]
    kept = [r for r in project["dependencies"] if not _is_runtime(r)]
    plain = [r.partition(";")[0] for r in project["dependencies"] if re.match(r"onnxruntime\b(?!-)", r)]
    described = f"{project['description']}; without an ONNX Runtime of its own"
    for pattern, new in (
        (r'^name = "onnxfim"$', f'name = "{NAME}"'),
        (r"^description = .*$", f"description = {json.dumps(described)}"),
        (r"^dependencies = \[\n(?:  .*\n)*\]$", f"dependencies = {json.dumps(kept, indent=2)}"),
        (r"^\[project\.optional-dependencies\]$", f"[project.optional-dependencies]\ncpu = {json.dumps(plain)}"),
    ):
        text, count = re.subn(pattern, lambda _, new=new: new, text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"pyproject.toml: {count} places fit {pattern}; exactly one was expected")
    return text


def _is_runtime(requirement: str) -> bool:
    return requirement.startswith("onnxruntime")


@contextmanager
def _copied_tree() -> Iterator[None]:
    """Work in a copy of the tree that is the project onnxfim-core."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for name in _FILES:
            if (TREE / name).is_dir():
                shutil.copytree(TREE / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(TREE / name, folder)
        Path(folder, "pyproject.toml").write_text(core_project((TREE / "pyproject.toml").read_text("utf-8")), "utf-8")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: object = None) -> str:
    """The name of the wheel, by PEP 517."""
    with _copied_tree():
        from hatchling.build import build_wheel as build

        return str(build(wheel_directory, config_settings))


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """The name of the source archive, by PEP 517."""
    with _copied_tree():
        from hatchling.build import build_sdist as build

        return str(build(sdist_directory, config_settings))
