"""How a command ends: errors in one line, and the exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from onnxfim.cli.console import Console

F = TypeVar("F", bound=Callable[..., Any])


def errors_in_one_line(function: F) -> F:
    """Turn library errors into one red line and exit code 2, and an interrupt into exit code 130."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from onnxfim.errors import OnnxFimError

        try:
            return function(*args, **kwargs)
        except OnnxFimError as error:
            Console().error(str(error))
            sys.exit(2)
        except KeyboardInterrupt:
            Console().error("interrupted before anything was measured.")
            sys.exit(130)

    return wrapped  # type: ignore[return-value]
