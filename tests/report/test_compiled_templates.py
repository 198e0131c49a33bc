"""Compiled templates are kept as Python keeps its modules, and never serve another text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from jinja2 import DictLoader, Environment

from onnxfim.report import compiled_templates
from onnxfim.report.compiled_templates import CompiledTemplates


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(compiled_templates, "_HERE", tmp_path / "compiled_templates.py")
    return tmp_path / "__pycache__"


def rendered(text: str, compiled: list[str]) -> str:
    class Counting(Environment):
        def _generate(self, *args: Any, **kwargs: Any) -> str:
            compiled.append(text)
            return super()._generate(*args, **kwargs)

    return (
        Counting(loader=DictLoader({"page.html": text}), bytecode_cache=CompiledTemplates()).get_template("page.html").render(x=1)
    )


def test_a_template_is_compiled_once_and_again_when_it_changes(kept: Path) -> None:
    compiled: list[str] = []
    assert [rendered("a {{ x }}", compiled) for _ in range(2)] == ["a 1", "a 1"]
    assert rendered("b {{ x }}", compiled) == "b 1"
    assert compiled == ["a {{ x }}", "b {{ x }}"]
    assert len(list(kept.iterdir())) == 1


def test_a_damaged_file_is_made_anew(kept: Path) -> None:
    compiled: list[str] = []
    rendered("a {{ x }}", compiled)
    (file,) = kept.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert rendered("a {{ x }}", compiled) == "a 1"
    assert len(compiled) == 2


def test_nothing_is_written_where_python_writes_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert rendered("a {{ x }}", []) == "a 1"
    assert not kept.exists()


def test_a_folder_that_takes_no_file_costs_nothing_else(kept: Path) -> None:
    kept.write_text("in the way")
    assert rendered("a {{ x }}", []) == "a 1"
