"""What tells one report from another: its id, when and how it was made, and what its author says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from onnxfim.record.limits import closed

_SHA256 = re.compile("[0-9a-f]{64}")


@closed
@dataclass(frozen=True)
class FileDigest:
    """A file that was read, and the SHA-256 of its bytes, as ``sha256sum`` gives it.

    ``role`` tells what it holds: the model, weights that the model keeps apart, samples or labels.
    """

    role: Literal["model", "weights", "samples", "labels"]
    path: str
    sha256: str


@closed
@dataclass(frozen=True)
class Identity:
    """Who a report is.

    Attributes:
        report_id: Hash of the model, the data and the settings, in hexadecimal digits: equal where the same was asked. Empty in
            what was read from a file that holds none.
        date: When the audit ended, as ISO 8601 in UTC; None where none is wanted.
        command: The words of the command that made it; empty where none did.
        title, note: What the author calls it, and says of it.
        meta: The author's own names and values, in their order.
        host: Name of the machine, where that is wanted.
        asked: The text whose SHA-256 is the report id (`record.report_id`); empty where there is none.
        files: The files that were read; a folder of images is none, nor are arrays in memory.
    """

    report_id: str
    date: str | None = None
    command: tuple[str, ...] = ()
    title: str | None = None
    note: str | None = None
    meta: tuple[tuple[str, str], ...] = ()
    host: str | None = None
    asked: str = ""
    files: tuple[FileDigest, ...] = ()

    def hashed(self, *roles: str) -> tuple[FileDigest, ...]:
        """The files of these roles, or of all where none is named, whose hash is one: a saved record may hold any text there."""
        return tuple(f for f in self.files if (not roles or f.role in roles) and _SHA256.fullmatch(f.sha256))
