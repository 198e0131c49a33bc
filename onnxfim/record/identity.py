"""What tells one report from another: its id, when and how it was made, and what its author says of it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.record.limits import closed


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
    """

    report_id: str
    date: str | None = None
    command: tuple[str, ...] = ()
    title: str | None = None
    note: str | None = None
    meta: tuple[tuple[str, str], ...] = ()
    host: str | None = None
    asked: str = ""
