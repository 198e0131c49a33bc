"""Says in the files that CI reads that an audit did not run, and why; nothing else is written or overwritten."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from onnxfim.cli.files import is_stdout
from onnxfim.cli.signals import code_of
from onnxfim.errors import OnnxFimError, in_one_line
from onnxfim.record.ended import ended_words
from onnxfim.record.identity import Identity
from onnxfim.runtime.stopping import current_stop

# The option as it may be spelled, short ones without a value before it: ``-o``, ``-qo``, ``-ohtml=a``, ``--output-file=html=a``.
_ASKED = re.compile(r"-[hqv]*o(.+)?|--output-file(?:=(.*))?", re.DOTALL)


@contextmanager
def reasons_written(targets: Sequence[tuple[str, str]], model: str, identity: Identity | None = None) -> Iterator[None]:
    """Where what is inside ends in an error, write why to the outputs of `report.without_audit.STANDS`, and raise it again.

    Args:
        targets: Formats and their paths, as they were asked for.
        model: What was to be audited.
        identity: Date, title and facts of the run, as a report would bear them.
    """
    try:
        yield
    except click.ClickException:
        raise  # said by the program around all commands
    except KeyboardInterrupt:
        by = None if (stop := current_stop()) is None else stop.by
        write_reason(targets, model, f"{ended_words(by).capitalize()} before anything was measured.", code_of(by), identity)
        raise
    except OnnxFimError as error:
        write_reason(targets, model, str(error), 2, identity)
        raise
    except Exception as error:
        why = f"Internal error: {type(error).__name__}: {in_one_line(error) or 'it says nothing'}."
        write_reason(targets, model, why, 2, identity)
        raise


def write_reason(
    targets: Sequence[tuple[str, str]], model: str, reason: str, code: int, identity: Identity | None = None
) -> None:  # fmt: skip
    """Write why there is no audit, where a file of that format may be.

    A file that is there is replaced where it begins like an earlier report of the format, so that no old result is taken for this
    run's; any other is left as it is. What cannot be written is left out: the error itself has been said.
    """
    from onnxfim.record.writing import write_text
    from onnxfim.report.without_audit import STANDS, WithoutAudit

    for kind, path in targets:
        stand = STANDS.get(kind)
        if stand is None or is_stdout(path) or not _ours(path, stand.beginning):
            continue
        try:
            write_text(path, stand.render(WithoutAudit(reason, model, code, identity)))
        except (OnnxFimError, OSError):
            continue


def asked_for(arguments: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Formats and paths among the arguments of a command that could not be read."""
    found, words = [], iter(arguments)
    for word in words:
        asked = _ASKED.fullmatch(word)
        if asked is None:
            continue
        text = next((value for value in asked.groups() if value is not None), None)
        text = next(words, "") if text is None else text
        kind, equals, path = text.partition("=")
        if equals and path:
            found.append((kind, path))
    return tuple(found)


def _ours(path: str, beginning: re.Pattern[str]) -> bool:
    """Whether a path is free, or a plain file that begins like a report of its format."""
    try:
        if not os.path.lexists(path):
            return True
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            start = file.read(200).decode("utf-8", "replace")
    except (OSError, ValueError):
        return False
    return start == "" or beginning.match(start) is not None


__all__ = ["asked_for", "reasons_written", "write_reason"]
