"""Streams of random numbers are listed in one place, and no two share their numbers."""

from __future__ import annotations

import ast
from pathlib import Path

import onnxfim
from onnxfim.record import streams

ROOT = Path(onnxfim.__file__).parent
WORDS = {name: value for name, value in vars(streams).items() if name.isupper()}


def test_no_two_streams_are_one():
    assert len(WORDS) == len(set(WORDS.values())) >= 7


def test_no_other_module_names_a_word():
    hidden = {v for v in WORDS.values() if v > 1}
    for path in ROOT.rglob("*.py"):
        if path.name != "streams.py":
            numbers = {n.value for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Constant)}
            assert not hidden & {n for n in numbers if type(n) is int}, path
