"""The JSON schema of an audit, made of the records' types, limits and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from onnxfim.record import sample
from onnxfim.record.audit import SCHEMA_VERSION, Audit
from onnxfim.record.layout import LEADING, TOLD
from onnxfim.record.limits import Limits
from onnxfim.record.measures import MEASURES, Measure
from onnxfim.record.sample import Estimate, SampleResult

Schema: TypeAlias = dict[str, Any]

_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_LIMITS = {"least": "minimum", "most": "maximum", "over": "exclusiveMinimum", "under": "exclusiveMaximum"}
_ATTRIBUTE = re.compile(r"^    (\w[\w, ]*): ")


def audit_schema() -> Schema:
    """The schema (JSON Schema 2020-12) of what `Audit.to_json` writes and `Audit.from_json` reads."""
    definitions: dict[str, Schema] = {}
    audit = _record(Audit, definitions)
    major = SCHEMA_VERSION.split(".", maxsplit=1)[0]
    audit["properties"]["schema_version"]["pattern"] = rf"^{major}\."
    audit["properties"]["measures"] = _measures()
    audit["required"].append("measures")
    audit["properties"] = {k: audit["properties"][k] for k in dict.fromkeys((*LEADING, *audit["properties"]))}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:onnxfim:schema:audit:{major}",
        "title": "onnxfim audit",
        **audit,
        "description": f"{audit['description']} Numbers are never NaN or infinite; null means not known, with a reason beside it.",
        "$defs": dict(sorted(definitions.items())),
    }


def _record(kind: type, definitions: dict[str, Schema]) -> Schema:
    """The schema of one record; those of the records in it are added to ``definitions``."""
    hints = typing.get_type_hints(kind, include_extras=True)
    description, attributes = _told(kind)
    properties: dict[str, Schema] = {}
    required: list[str] = []
    rules: list[Schema] = []
    for f in dataclasses.fields(kind):
        properties[f.name] = _of(hints[f.name], definitions)
        _limit(properties[f.name], Limits(**{k: f.metadata[k] for k in _LIMITS if k in f.metadata}))
        if f.name in attributes:
            properties[f.name]["description"] = attributes[f.name]
        if f.metadata.get("always") or (f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING):
            required.append(f.name)
        if "needed_where" in f.metadata:
            rules.append(_needed(f.name, *f.metadata["needed_where"]))
    if kind is SampleResult:
        required = _as_laid_out(properties, required)
    found: Schema = {"description": description, "type": "object", "required": required, "properties": properties}
    if getattr(kind, "takes_no_other_field", False):
        found["additionalProperties"] = False
    for rule in rules:
        found.update(rule)
    return found


def _as_laid_out(properties: dict[str, Schema], required: list[str]) -> list[str]:
    """Measures of a sample as the layout has them: left out where the audit has none, never null; returns what is required."""
    for measure in MEASURES:
        properties[measure.name] = {"$ref": f"#/$defs/{Estimate.__name__}"}
    optional = {m.name for m in MEASURES if m.optional}
    return [name for name in required if name not in optional]


def _needed(name: str, other: str, value: object) -> Schema:
    return {
        "if": {"required": [other], "properties": {other: {"const": value}}},
        "then": {"required": [name], "properties": {name: {"type": "string", "minLength": 1}}},
    }


def _of(hint: Any, definitions: dict[str, Schema]) -> Schema:
    """The schema of one type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        found = _of(arguments[0], definitions)
        for limits in arguments[1:]:
            _limit(found, limits)
        return found
    if origin in (typing.Union, types.UnionType):
        return _any_of([_of(a, definitions) for a in arguments])
    if origin is typing.Literal:
        return {"type": _NAMES[type(arguments[0])], "enum": list(arguments)}
    if origin is tuple:
        return _array(arguments, definitions)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = _of(arguments[1], definitions)
        return {"type": "object", "additionalProperties": inner} if inner else {"type": "object"}
    if dataclasses.is_dataclass(hint):
        kind = typing.cast(type, hint)
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}  # a record may hold its own kind
            definitions[kind.__name__] = _record(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    return {} if hint is Any else {"type": _NAMES[hint]}


def _array(arguments: tuple[Any, ...], definitions: dict[str, Schema]) -> Schema:
    if arguments[-1] is Ellipsis:
        return {"type": "array", "items": _of(arguments[0], definitions)}
    each = [_of(a, definitions) for a in arguments]
    return {"type": "array", "prefixItems": each, "items": False, "minItems": len(each)}


def _any_of(members: list[Schema]) -> Schema:
    """One schema for what may be any of several: of plain types a list of them, else a choice."""
    null = {"type": "null"}
    others = [m for m in members if m != null]
    if len(others) > 1 and all("enum" in m for m in others):
        others = [{**others[0], "enum": [value for m in others for value in m["enum"]]}]
    if any("type" not in m for m in others) or (len(others) > 1 and any(len(m) > 1 for m in others)):
        return {"anyOf": [*others, *([null] if null in members else [])]}
    found = dict(others[0])
    names = [m["type"] for m in others] + (["null"] if null in members else [])
    found["type"] = names if len(names) > 1 else names[0]
    if "enum" in found and null in members:
        found["enum"] = [*found["enum"], None]
    return found


def _limit(found: Schema, limits: Limits) -> None:
    for name, keyword in _LIMITS.items():
        if (value := getattr(limits, name)) is not None:
            found[keyword] = value
    if limits.choices:
        found["enum"] = list(limits.choices)


def _measures() -> Schema:
    """What the layout tells of each measure."""
    told: dict[str, Schema] = {}
    # Some of its types are named for the type checker alone: they are those of a sample.
    hints, (_, attributes) = typing.get_type_hints(Measure, localns=vars(sample)), _told(Measure)
    for name in TOLD:
        told[name] = {**_of(hints[name], {}), "description": attributes[name]}
    inner = {"type": "object", "required": list(TOLD), "properties": told}
    return {"description": "What each measure is.", "type": "object", "additionalProperties": inner}


def _told(kind: type) -> tuple[str, dict[str, str]]:
    """What a record's docstring says of it, and of each of its fields."""
    text, _, attributes = (inspect.getdoc(kind) or "").partition("\nAttributes:\n")
    return " ".join(text.split()), dict(_attributes(attributes.splitlines()))


def _attributes(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(name, text) of each entry such as ``low, high: Ends of the interval.``; later lines of it are indented further."""
    names: list[str] = []
    parts: list[str] = []
    for line in [*lines, "    end: "]:
        if match := _ATTRIBUTE.match(line):
            yield from ((name, " ".join(parts)) for name in names)
            names, parts = match.group(1).split(", "), [line[match.end() :].strip()]
        elif line.strip():
            parts.append(line.strip())


__all__ = ["audit_schema"]
