"""What the command line tells of a report: the command itself, title, note, facts, host; secrets are left out of all of them."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import click

from onnxfim.cli.program import WORDS
from onnxfim.record.dates import report_date
from onnxfim.record.identity import FileDigest, Identity
from onnxfim.record.redacting import value_without_secrets, without_secrets, words_without_secrets

_PIECE = 2**20  # bytes of a file that are hashed at a time


@dataclass(frozen=True)
class Told:
    """What the options say of a report.

    Attributes:
        command: The words of the command; empty where another one made the report.
        title, note, meta, host: As of `Identity`.
        dated: Whether the report bears a date.
    """

    command: tuple[str, ...] = ()
    title: str | None = None
    note: str | None = None
    meta: tuple[tuple[str, str], ...] = ()
    host: str | None = None
    dated: bool = True

    def of(self, identity: Identity | None) -> Identity | None:
        """That identity with what was told; what was not told stays, and where all is unknown there is none."""
        if identity is None and self in (Told(), Told(dated=False)):
            return None
        found = identity or Identity("")
        return replace(
            found,
            date=found.date if self.dated else None,
            command=self.command or found.command,
            title=found.title if self.title is None else self.title,
            note=found.note if self.note is None else self.note,
            meta=tuple(dict((*found.meta, *self.meta)).items()),
            host=self.host or found.host,
        )


def told_by(options: Mapping[str, Any], words: Sequence[str] = ()) -> Told:
    """What the options tell, without secrets; a date that cannot be is refused before any work.

    Args:
        options: Those of the command.
        words: Of the command, as typed.

    Raises:
        SettingsError: SOURCE_DATE_EPOCH is no date.
    """
    report_date()
    title, note = options.get("title"), options.get("note")
    return Told(
        words_without_secrets(words),
        None if title is None else without_secrets(title),
        None if note is None else without_secrets(note),
        tuple((name, value_without_secrets(name, value)) for name, value in options.get("meta") or ()),
        (platform.node() or "unknown") if options.get("host") else None,
        not options.get("no_date"),
    )


def with_data_files(identity: Identity, options: Mapping[str, Any]) -> Identity:
    """That identity with the files of samples and labels that the options name; a folder is none."""
    named: tuple[tuple[Literal["samples", "labels"], Any], ...] = (("samples", options["data"]), ("labels", options["labels_path"]))
    found = []
    for role, path in named:
        with suppress(OSError):  # one that is gone by now has no hash; the samples that were read have theirs
            if path is not None and os.path.isfile(path):
                found.append(FileDigest(role, str(path), _sha256(path)))
    return replace(identity, files=(*identity.files, *found))


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def words_given() -> tuple[str, ...]:
    """The words of the command that runs, as they were typed; none outside of one."""
    context = click.get_current_context(silent=True)
    words: tuple[str, ...] = () if context is None else context.meta.get(WORDS, ())
    return words
