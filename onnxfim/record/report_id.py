"""The report id: a hash of what was asked, of which model and which data; where and when it ran is not in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from onnxfim.record.plain import to_plain
from onnxfim.record.redacting import pairs_without_secrets
from onnxfim.record.settings import SETTINGS, Settings

#: Of the definition: another one gives other ids for the same ask.
VERSION = 1


def asked_text(
    model: str,
    data: str,
    settings: Settings,
    *,
    prepared: Mapping[str, Any] | None = None,
    held: str | None = None,
    libraries: Sequence[str | None] = (),
) -> str:
    """What was asked, as one line of JSON: keys in order, no spaces, ASCII alone.

    Settings at their defaults are left out, so that a setting that a later version brings changes no id; so are those that move no
    number (`Facts.identifies`).

    Args:
        model: SHA-256 of the file and of the files that hold its weights.
        data: SHA-256 of the samples and labels that were selected, before they were prepared.
        settings: What was asked.
        prepared: What was done to raw values before the model saw them, by name.
        held: Hash of what other inputs were held at.
        libraries: SHA-256 of each library of custom operators.
    """
    left_out = {"max_budget"} if settings.precision is None else set()  # it is the budget then
    given = {
        s.name: to_plain(value)
        for s in SETTINGS
        if s.facts.identifies and s.name not in left_out and (value := getattr(settings, s.name)) != s.default
    }
    if "provider_options" in given:
        given["provider_options"] = list(pairs_without_secrets(settings.provider_options))  # the text is printed
    asked: dict[str, Any] = {"id": VERSION, "model": model, "data": data, "settings": given}
    others = {"prepared": dict(prepared or {}), "held": held, "libraries": list(libraries)}
    asked |= {name: value for name, value in others.items() if value}
    return canonical(asked)


def asked_of_several(ids: Sequence[str], **how: Any) -> str:
    """What a comparison was asked: the ids of its audits in their order, and how they were compared."""
    return canonical({"id": VERSION, "compared": list(ids), **how})


def asked_of_bounds(model: str, **how: Any) -> str:
    """What a reading of a model's weights alone was asked: the file's SHA-256, and what was said of its inputs and output."""
    return canonical({"id": VERSION, "bounds": model, **{name: to_plain(value) for name, value in how.items() if value}})


def report_id(asked: str) -> str:
    """The SHA-256 of what was asked, in hexadecimal digits."""
    return hashlib.sha256(asked.encode("utf-8")).hexdigest()


def canonical(value: Any) -> str:
    """A plain value as one line of JSON that any program writes alike: keys in order, no spaces, ASCII alone."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
