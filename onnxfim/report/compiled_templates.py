"""Keeps compiled templates where Python keeps its compiled modules: compiling them takes longer than filling them in."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path

from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

_HERE = Path(__file__)


class CompiledTemplates(BytecodeCache):
    """Compiled templates in this folder's ``__pycache__``, or where Python was told to keep such files.

    None is written where Python is told to write none, or cannot; one that was made of another text, or by another version of
    Python or Jinja, is made anew.
    """

    def load_bytecode(self, bucket: Bucket) -> None:
        try:
            with _place(bucket.key).open("rb") as file:
                bucket.load_bytecode(file)
        except Exception:  # noqa: BLE001 - there is none, or what there is was cut off or is another's
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        if sys.dont_write_bytecode:
            return
        with suppress(OSError, NotImplementedError):
            place = _place(bucket.key)
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor, made = tempfile.mkstemp(dir=place.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    bucket.write_bytecode(file)
                os.replace(made, place)
            except OSError:
                os.unlink(made)
                raise

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        return name


def _place(name: str) -> Path:
    return Path(cache_from_source(str(_HERE.with_name(f"{name}.py"))))
