"""A function of the user's own that answers rows, ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``: it is run as a program of theirs."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.served_model import of_endpoint
from onnxfim.auditing.subject import CallableModel
from onnxfim.data.user_loader import file_and_function, function_of, running
from onnxfim.errors import InputError
from onnxfim.record.served import Served
from onnxfim.served.asking import Asker, FunctionAsker
from onnxfim.served.endpoint import Endpoint
from onnxfim.served.terms import Reach

Array: TypeAlias = np.ndarray[Any, Any]

_FORM = "MODULE:FUNCTION or FILE.py:FUNCTION"


def from_function(text: str, shape: tuple[int | None, ...], reach: Reach, *, name: str = "input") -> CallableModel:
    """The model that a function stands for, which takes a batch (B, *shape) and returns (B, K).

    Args:
        text: ``MODULE:FUNCTION`` of what can be imported, the working folder among it, or ``FILE.py:FUNCTION``.
        shape: Shape of one sample.
        reach: How it is called; its requests are calls of the function.
        name: What its input is called.

    Raises:
        InputError: there is none, or an error in it, by its line.
    """
    function, source = _found(text)

    def opens(batch_axis: int) -> Asker:
        return FunctionAsker(function, text, batch_axis)

    served = Served(text, text, None, None, None, _hash(source), "a function")
    return of_endpoint(Endpoint(served, reach, name, None, shape, np.dtype(np.float32), opens))


def _found(text: str) -> tuple[Callable[[Array], Any], str | None]:
    """The function, and the file that its module is in."""
    code = file_and_function(text)
    if code is not None and text != code[0]:
        file = Path(code[0])
        if not file.is_file():
            raise InputError(f"--predict {text}: there is no file {code[0]}, expected {_FORM}. Check the path.")
        with running(file, "a function that answers rows"):
            return function_of(file, code[1], "that answers rows"), str(file)
    module, colon, function = text.rpartition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), function)):
        raise InputError(f"--predict {text}: names no function, expected {_FORM}. Name one.")
    found = getattr(_imported(text, module), function, None)
    if not callable(found):
        raise InputError(f"--predict {text}: module {module!r} has no function {function!r}, expected one. Check the name.")
    return found, getattr(sys.modules[module], "__file__", None)


def _imported(text: str, module: str) -> ModuleType:
    """A module, looked for in the working folder too."""
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        said = " ".join(str(error).split())[:300]
        why = f"there is no module {module!r}" if missing else f"{module!r} cannot be imported ({type(error).__name__}: {said})"
        raise InputError(f"--predict {text}: {why}, expected {_FORM}. Check the name.") from error
    finally:
        with suppress(ValueError):
            sys.path.remove(os.getcwd())


def _hash(source: str | None) -> str:
    """SHA-256 of the file that holds the function; of nothing where there is none."""
    content = b""
    if source is not None:
        with suppress(OSError):
            content = Path(source).read_bytes()
    return hashlib.sha256(content).hexdigest()
