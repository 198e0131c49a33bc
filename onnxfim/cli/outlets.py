"""The standard streams as nothing can break them: any encoding, closed, full, or left by their reader."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from onnxfim.record.foreign_text import escaped, one_line, visible

_READABLE = "onnxfim-readable"  # the name of the codec error handler
# What stands for our own symbols where a stream's encoding has none; any other character is spelled by its code.
_STAND_INS = {
    "λ": "lambda", "σ": "sigma", "ε": "epsilon", "δ": "delta", "μ": "mu", "ξ": "xi", "ρ": "rho", "Π": "prod", "Σ": "sum",
    "×": "x", "·": ".", "−": "-",
    "–": "-", "—": "-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "±": "+/-", "√": "sqrt", "∞": "inf", "→": "->", "…": "...",
    "‖": "||", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "½": "1/2", "\u00a0": " ", "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ᵀ", "0123456789-+T", strict=True))  # ``10⁻³`` becomes ``10^-3``
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))  # ``log₁₀`` becomes ``log_10``


def _readable(error: UnicodeError) -> tuple[str, int]:
    """A codec error handler: readable ASCII for what an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text, made = error.object, ""
    for at in range(error.start, error.end):
        for sign, digits in (("^", _RAISED), ("_", _LOWERED)):
            if text[at] in digits:
                made += ("" if at and text[at - 1] in digits else sign) + digits[text[at]]
                break
        else:
            made += _STAND_INS.get(text[at]) or escaped(text[at])
    return made, error.end


codecs.register_error(_READABLE, _readable)


class Outlet(io.TextIOBase):
    """A standard stream to which writing never raises; what was lost, and why, is told afterwards.

    Attributes:
        fault: Why nothing more is delivered, or None.
        abandoned: Whether the fault is that the reader went away: a pipe that was closed at its other end.
        undelivered: Whether text was lost that is a command's whole result.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.fault = "it is closed" if stream is None else None
        self.abandoned = self.undelivered = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def spelled(self, text: str) -> str:
        """Text in characters that the encoding has, as `write` writes it."""
        return _encodable(text, self.encoding)

    def write(self, text: str) -> int:
        """Write text in characters that the encoding has; lost text counts as undelivered."""
        shown = _encodable(text, self.encoding)
        if self._stream is not None and self.fault is None:
            with self._watched():
                self._stream.write(shown)
                self._stream.flush()
        self.undelivered |= self.fault is not None and bool(text)
        return len(text)

    def deliver(self, content: bytes) -> bool:
        """Write bytes as they are, whatever the encoding; whether they were delivered."""
        if self._stream is not None and self.fault is None:
            with self._watched():
                self._stream.flush()
                buffer = getattr(self._stream, "buffer", None)
                if buffer is None:
                    self._stream.write(content.decode("utf-8", "replace"))
                else:
                    buffer.write(content)
                    buffer.flush()
                self._stream.flush()
        return self.fault is None

    def flush(self) -> None:
        """Flush the stream; a failure is remembered."""
        if self._stream is not None and self.fault is None:
            with self._watched():
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """The stream's descriptor."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def writable(self) -> bool:
        """True: writing never fails."""
        return True

    def close(self) -> None:
        """Nothing: the stream belongs to the process."""

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream was closed in Python
            self.abandoned = isinstance(error, BrokenPipeError)
            self.fault = (error.strerror if isinstance(error, OSError) else None) or str(error) or "it is closed"
            self._quieten()

    def _quieten(self) -> None:
        """Let what is left in the stream's buffer go nowhere, so that the interpreter does not fail on it when it ends."""
        if self._stream in (sys.__stdout__, sys.__stderr__):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)


def _encodable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, _READABLE).decode(encoding)
    except LookupError:
        return text.encode("ascii", _READABLE).decode("ascii")
    return text


def outlet(*, to_stderr: bool = False) -> Outlet:
    """Stdout or stderr, as it is now."""
    stream = sys.stderr if to_stderr else sys.stdout
    return stream if isinstance(stream, Outlet) else Outlet(stream)


@contextmanager
def unbreakable() -> Iterator[Outlet]:
    """While the block runs both standard streams are outlets; gives that of stdout.

    A descriptor that is closed is held open, so that no file of ours gets its number and with it what libraries print. Python's
    warnings, and logs that nobody handles, are made visible.
    """
    _hold_descriptors()
    streams, formatwarning, last = (sys.stdout, sys.stderr), warnings.formatwarning, logging.lastResort
    out, err = outlet(), outlet(to_stderr=True)
    formatter = None if last is None else last.formatter
    sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
    warnings.formatwarning = _warning
    if last is not None:
        last.setFormatter(_VisibleLog())
    try:
        yield out
    finally:
        if last is not None:
            last.setFormatter(formatter)
        warnings.formatwarning = formatwarning
        sys.stdout, sys.stderr = streams


def _hold_descriptors() -> None:
    """Open the null device at each of the descriptors 0 to 2 that is closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                held = os.open(os.devnull, os.O_RDWR)
                if held != descriptor:
                    os.dup2(held, descriptor)
                    os.close(held)


def _warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning of Python on one line."""
    return f"warning: {category.__name__}: {one_line(str(message))}\n"


class _VisibleLog(logging.Formatter):
    """A log's message on one line, made visible; the traceback is left out."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(one_line(record.getMessage()))
