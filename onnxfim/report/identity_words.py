"""What a report says of itself, in words: title, id, date, command, host, note and the author's own facts."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping

from onnxfim.record.dates import is_date
from onnxfim.record.foreign_text import one_line, visible
from onnxfim.record.identity import Identity
from onnxfim.record.settings import SETTINGS, Settings

#: Digits of the report id that tell reports apart for a reader.
SHORT_ID = 12
_UNKNOWN = "not recorded"


def command_text(identity: Identity) -> str:
    """The command in one line, quoted as a POSIX shell reads it; empty where none made the report."""
    return shlex.join(identity.command)


def date_text(identity: Identity) -> str:
    """The date in print, ``2026-11-28 19:41:07 UTC``; empty without one."""
    date = identity.date or ""
    return f"{date[:10]} {date[11:19]} UTC" if is_date(date) else date


def identity_facts(identity: Identity | None, *, without: Collection[str] = ()) -> tuple[tuple[str, str], ...]:
    """Names and values of what a report says of itself, made visible; what was not given is left out, but for id and date.

    So are those named in ``without``; a fact of the author's own stays, whatever its name is.
    """
    known = identity or Identity("")
    own = (fact for fact in _facts(known) if fact[0] not in without)
    return tuple((visible(name), visible(value)) for name, value in (*own, *known.meta))


def _facts(identity: Identity) -> Iterator[tuple[str, str]]:
    if identity.title:
        yield "Title", identity.title
    yield "Report id", identity.report_id or _UNKNOWN
    yield "Date", date_text(identity) or _UNKNOWN
    if identity.command:
        yield "Command", command_text(identity)
    if identity.host:
        yield "Host", identity.host
    if identity.note:
        yield "Note", one_line(identity.note)


def note_lines(identity: Identity | None) -> str:
    """The note in its own lines, made visible; empty where there is none."""
    return "\n".join(map(visible, ((identity and identity.note) or "").splitlines())).strip()


def identity_properties(identity: Identity | None) -> Iterator[tuple[str, str]]:
    """The same by the names of the record, for formats of names and values; what was not given is left out."""
    if identity is None:
        return
    named = {
        "report_id": identity.report_id,
        "date": identity.date,
        "title": identity.title,
        "note": one_line(identity.note or ""),
        "host": identity.host,
        "command": command_text(identity),
    }
    yield from ((name, visible(value)) for name, value in named.items() if value)
    yield from ((f"meta.{visible(name)}", visible(value)) for name, value in identity.meta)


def identity_line(identity: Identity | None, versions: Mapping[str, str]) -> str:
    """One line that tells the report from others: its id in short, the date, the versions that made it."""
    parts = [f"report {identity.report_id[:SHORT_ID]}"] if identity is not None and identity.report_id else []
    if identity is not None and identity.date:
        parts.append(date_text(identity))
    parts += [f"{name} {versions[name]}" for name in ("onnxfim", "onnxruntime") if name in versions]
    return visible(" · ".join(parts))


def running_line(title: str, identity: Identity | None) -> str:
    """What every printed sheet repeats at its foot: whose it is, of which report, of when."""
    return " · ".join(filter(None, (visible(title), identity_line(identity, {}))))


def changed_settings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Names and values of the settings that are not at their defaults, made visible."""
    for setting in SETTINGS:
        value = getattr(settings, setting.name)
        if value != setting.default:
            yield setting.name, visible(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
