"""Samples from a Python file that the user names on the command line, ``loader.py:function``: it is run as a program of theirs."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from importlib import util
from pathlib import Path
from typing import Any

from onnxfim.data import from_arrays
from onnxfim.data.class_labels import ClassOrder
from onnxfim.data.converting import Target
from onnxfim.data.iterables import from_iterable, is_whole, of_mapping
from onnxfim.data.samples import Array, Choice, Samples, one_line
from onnxfim.errors import InputError

#: The function that is called where none is named, as Polygraphy's data loader scripts have it.
FUNCTION = "load_data"
_MODULE = "onnxfim_user_loader"


def names_code(data: str) -> bool:
    """Whether ``--data`` names a Python file, which would be run."""
    return file_and_function(data) is not None


def read_from(data: str | None) -> str | None:
    """The file or folder that ``--data`` names, which no output may overwrite."""
    code = None if data is None else file_and_function(data)
    return data if code is None else code[0]


def file_and_function(data: str) -> tuple[str, str] | None:
    """The Python file and the function that ``--data`` names; None where it names data."""
    if data.lower().endswith(".py"):
        return data, FUNCTION
    path, _, function = data.rpartition(":")
    return (path, function) if path.lower().endswith(".py") and function else None


def load_by(
    data: str, target: Target, choice: Choice, *, input_name: str | None = None, held: Collection[str] = (),
    moved: Collection[str] = (), order: ClassOrder | None = None,
) -> Samples:  # fmt: skip
    """What a function of a Python file gives: all arrays at once, ``(inputs, labels)``, or an iterable as of `from_iterable`.

    Args:
        data: ``FILE.py:FUNCTION``, or ``FILE.py`` for ``load_data``.
        target, choice, input_name, held, moved, order: As of `from_iterable`.

    Raises:
        InputError: no such file or function, an error in it, by its line, or what it gives are no samples.
    """
    path, function = file_and_function(data) or (data, FUNCTION)
    file = Path(path)
    if not file.is_file():
        raise InputError(
            f"{path}: no such file, expected a Python file whose function {function!r} gives the samples. Check the path."
        )
    with running(file):
        found = function_of(file, function)()
        if isinstance(found, Samples):
            return found
        return _samples(found, data, target, choice, input_name=input_name, held=held, moved=moved, order=order)


def _samples(found: Any, data: str, target: Target, choice: Choice, *, order: ClassOrder | None, **inputs: Any) -> Samples:
    labels = None
    if isinstance(found, tuple) and len(found) == 2:  # (X, y)
        found, labels = found
    if found is None:
        raise InputError(
            f"{data}: gives nothing, expected samples: an array, (inputs, labels), or an iterable of them. Return them."
        )
    held: dict[str, Array] = {}
    if isinstance(found, Mapping):
        found, own, held = of_mapping(found, data, inputs["input_name"], inputs["held"])
        labels = labels if own is None else own
    if is_whole(found):
        return from_arrays(
            found, labels, shape=target.shape, dtype=target.dtype, preprocessing=target.preprocessing, limit=choice.limit,
            held=held, moved=inputs["moved"], class_names=None if order is None else order.names, source=data,
        )  # fmt: skip
    if labels is not None:
        raise InputError(f"{data}: gives an iterable beside its labels, expected each step to hold its own. Yield (x, y).")
    if not hasattr(found, "__iter__") and not hasattr(found, "__getitem__"):
        raise InputError(
            f"{data}: gives something of type {type(found).__name__}, expected an array, (inputs, labels), or an iterable of "
            "samples. Return one."
        )
    return from_iterable(found, target, choice, source=data, order=order, **inputs)


def function_of(file: Path, name: str, that: str = "that gives the samples") -> Any:
    """The function of a Python file, which is run; ``that`` says what it is to do.

    Raises:
        InputError: it has none of that name.
    """
    spec = util.spec_from_file_location(_MODULE, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file}: is no Python file, expected one. Check the path.")
    module = util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # what dataclasses and workers of a DataLoader look it up by
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        own = [
            n
            for n, v in vars(module).items()
            if callable(v) and getattr(v, "__module__", None) == _MODULE and not n.startswith("_")
        ]
        raise InputError(
            f"{file}: has no function {name!r}, expected one {that} (it has {', '.join(own) or 'none'}). Name it as {file}:NAME."
        )
    return function


@contextlib.contextmanager
def running(file: Path, what: str = "a function that gives the samples") -> Iterator[None]:
    """Run the user's code as `python FILE` would: beside its own modules, what it prints on stderr, its errors by their line."""
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be a report
            yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        own = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == file.resolve()]
        line = own[-1].lineno if own else error.lineno if isinstance(error, SyntaxError) else None
        said = one_line(error)[:300]
        raise InputError(
            f"{file}{'' if line is None else f', line {line}'}: {type(error).__name__}{f': {said}' if said else ''}, expected "
            f"{what}. Mend it."
        ) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
