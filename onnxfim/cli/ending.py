"""How a command ends: errors in one line, defects with a saved traceback, and the exit code."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click

from onnxfim.cli.console import Console

F = TypeVar("F", bound=Callable[..., Any])

_MEMORY = "Use fewer --samples, a smaller --batch, or a machine with more memory"


def errors_in_one_line(function: F) -> F:
    """Turn library errors into one red line and exit code 2, and signals into 128 and their number; no error ends in a traceback.

    An error that nobody foresaw is one line too; its traceback goes to a private file.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from onnxfim.cli.signals import code_of
        from onnxfim.errors import OnnxFimError
        from onnxfim.record.ended import ended_words
        from onnxfim.runtime.stopping import current_stop

        try:
            return function(*args, **kwargs)
        except OnnxFimError as error:
            Console().error(str(error))
            sys.exit(2)
        except KeyboardInterrupt:
            by = None if (stop := current_stop()) is None else stop.by
            Console().error(f"{ended_words(by)} before anything was measured.")
            sys.exit(code_of(by))
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own endings
        except Exception as error:  # noqa: BLE001 - whatever nobody foresaw
            internal_error(error)
            sys.exit(2)

    return wrapped  # type: ignore[return-value]


def internal_error(error: Exception) -> None:
    """Say in one line what failed where nobody foresaw it, and where its traceback is."""
    from onnxfim.errors import in_one_line, issue_tracker

    text = "".join(traceback.format_exception(error))
    path = _saved(text)
    where = "the traceback follows" if path is None else f"the traceback is in {path}"
    said = f"{type(error).__name__}: {in_one_line(error) or 'it says nothing'}"
    if isinstance(error, MemoryError):
        Console().error(f"out of memory ({said}); {where}. {_MEMORY}.")
    else:
        Console().error(f"internal error: {said}; {where}; please report it {issue_tracker()}")
    if path is None:
        Console().block(text)


def _saved(text: str) -> str | None:
    """The path of a private file that holds the text; None where no folder for temporary files can be written to."""
    try:
        descriptor, path = tempfile.mkstemp(prefix="onnxfim-", suffix=".traceback.txt")  # readable by its owner alone
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError:
        return None
    return path
