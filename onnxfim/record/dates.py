"""The date that a report bears: now, or the one that SOURCE_DATE_EPOCH says."""

from __future__ import annotations

import os
import re
from datetime import datetime, timezone

from onnxfim.errors import SettingsError

_VARIABLE = "SOURCE_DATE_EPOCH"
_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ", re.ASCII)
_LATEST = 253_402_300_799  # the last second of the year 9999


def report_date() -> str:
    """The date in UTC as ISO 8601 with seconds, ``2026-11-28T19:41:07Z``; SOURCE_DATE_EPOCH stands for now where it is set.

    Source: https://reproducible-builds.org/specs/source-date-epoch/, which asks to fail where the value is malformed.

    Raises:
        SettingsError: SOURCE_DATE_EPOCH is no whole number of seconds from 1970 on.
    """
    given = os.environ.get(_VARIABLE)
    if given is None or not given.strip():
        moment = datetime.now(timezone.utc)
    elif re.fullmatch(r"[0-9]{1,12}", given, re.ASCII) and int(given) <= _LATEST:
        moment = datetime.fromtimestamp(int(given), timezone.utc)
    else:
        shown = given if len(given) <= 40 else f"{given[:40]}…"
        raise SettingsError(
            f"{_VARIABLE}: found {shown!r}, expected whole seconds since 1970 in UTC, such as 1700000000. Correct it, or unset it."
        )
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_date(text: str | None) -> bool:
    """Whether a text is a date as `report_date` writes it; that of a file which was read may be anything."""
    return text is not None and _DATE.fullmatch(text) is not None
