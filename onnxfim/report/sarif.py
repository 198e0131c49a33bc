"""An audit as SARIF 2.1.0: its findings and undecided or failed gates, located in the model file."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from onnxfim import __version__
from onnxfim.record.audit import Audit
from onnxfim.record.dates import is_date
from onnxfim.record.foreign_text import visible
from onnxfim.record.identity import Identity
from onnxfim.record.plain import to_plain
from onnxfim.report.decisions import DecidedGate, gates
from onnxfim.report.guarantee_words import shown_brackets
from onnxfim.report.identity_words import command_text, identity_properties
from onnxfim.verdict.findings import CHECKS, Check, check_of

#: The tool, without its rules.
DRIVER = {"name": "onnxfim", "version": __version__, "semanticVersion": __version__}
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_GATE = "gate"
_NODE = re.compile(r"\bnode '([^']+)'")


def render_sarif(audit: Audit) -> str:
    """``audit`` as SARIF 2.1.0 text. Passed gates and checks are not results; numbers stand in the run's properties."""
    shown = [g for g in gates(audit) if g.verdict != "pass"]
    rules = {**CHECKS, **{f.id: check_of(f) for f in audit.findings}}
    return as_text(
        {
            "tool": {"driver": {**DRIVER, "rules": _rules(rules)}},
            "automationDetails": _automation(audit),
            "invocations": [{"executionSuccessful": not audit.run.partial, **identified(audit.identity)}],
            "columnKind": "unicodeCodePoints",
            "artifacts": [_artifact(audit)],
            "results": [*(_of_gate(audit, g) for g in shown), *_of_findings(audit)],
            "properties": {
                "verdict": audit.verdict,
                **dict(identity_properties(audit.identity)),
                "settings": to_plain(audit.settings),
                "versions": to_plain(audit.run.versions),
                "provider": audit.run.provider,
                "placement": to_plain(audit.run.placement),
                "units": audit.units,
                "clean_accuracy": audit.calibration.accuracy,
                "aggregates": to_plain(audit.aggregates),
                **_guarantees(audit),
            },
        }
    )


def _guarantees(audit: Audit) -> dict[str, Any]:
    """What is guaranteed, and found beside it, where it was asked for."""
    parts = {"bracket": shown_brackets(audit), "noise": audit.noise, "smoothing": audit.smoothing, "verifier": audit.verifier}
    return {name: to_plain(part) for name, part in parts.items() if part}


def as_text(run: dict[str, Any]) -> str:
    """The file of one run."""
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, allow_nan=False, ensure_ascii=True)


def identified(identity: Identity | None) -> dict[str, Any]:
    """What an invocation says of itself: its command, when it ended and on which host, where that is known."""
    found: dict[str, Any] = {}
    if identity is None:
        return found
    if identity.command:
        found |= {"commandLine": visible(command_text(identity)), "arguments": [visible(w) for w in identity.command[1:]]}
    if is_date(identity.date):
        found["endTimeUtc"] = identity.date
    if identity.host:
        found["machine"] = visible(identity.host)
    return found


def _automation(audit: Audit) -> dict[str, Any]:
    """What the run is to others: ``guid`` is its own, ``correlationGuid`` that of all runs that asked the same."""
    found: dict[str, Any] = {"id": f"onnxfim/{visible(audit.model.name)}"}
    identity = audit.identity
    if identity is None or not identity.report_id:
        return found
    if identity.title:
        found["description"] = {"text": _text(identity.title)}
    asked = f"onnxfim report {visible(identity.report_id)}"
    return {**found, "guid": _guid(f"{asked} {visible(identity.date or '')}"), "correlationGuid": _guid(asked)}


def _guid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _rules(rules: dict[str, Check]) -> list[dict[str, Any]]:
    told = [(_GATE, "A gate was not passed", "error"), *((visible(r.id), visible(r.title), r.level) for r in rules.values())]
    return [
        {"id": name, "shortDescription": {"text": title}, "defaultConfiguration": {"level": level}} for name, title, level in told
    ]


def _artifact(audit: Audit) -> dict[str, Any]:
    return {
        "location": {"uri": _uri(audit)},
        "length": audit.model.bytes,
        "hashes": {"sha-256": visible(audit.model.sha256)},
        "roles": ["analysisTarget"],
    }


def _uri(audit: Audit) -> str:
    """The model's path as a relative reference, or as a file URI where it is absolute."""
    path = visible(audit.model.path or audit.model.name).replace("\\", "/")
    absolute = path.startswith("/") or re.match(r"[A-Za-z]:/", path)
    # A colon in the first segment would be read as a scheme, so none is left bare.
    return ("file:///" if absolute else "") + quote(path.lstrip("/"), safe="/")


def _of_findings(audit: Audit) -> Iterator[dict[str, Any]]:
    for finding in audit.findings:
        yield _result(audit, visible(finding.id), finding.message, {"level": finding.level}, finding.id)


def _of_gate(audit: Audit, gate: DecidedGate) -> dict[str, Any]:
    # SARIF's word for a rule that was evaluated and not decided is `open`; its level is then `none`.
    kind = {"kind": "fail", "level": "error"} if gate.verdict == "fail" else {"kind": "open", "level": "none"}
    message = f"{gate.text}: {gate.message}" if gate.message else f"{gate.text}: {gate.verdict}"
    return _result(audit, _GATE, message, kind, gate.text)


def _result(audit: Audit, rule: str, message: str, kind: dict[str, str], key: str) -> dict[str, Any]:
    location: dict[str, Any] = {
        # Code hosts want a line; a model file has none.
        "physicalLocation": {"artifactLocation": {"uri": _uri(audit), "index": 0}, "region": {"startLine": 1}}
    }
    node = _NODE.search(message)
    if node:
        location["logicalLocations"] = [{"name": visible(node.group(1)), "kind": "object"}]
    print_ = hashlib.sha256(f"{rule}\n{audit.model.name}\n{key}".encode("utf-8", "backslashreplace")).hexdigest()
    return {
        "ruleId": rule,
        **kind,
        "message": {"text": _text(message)},
        "locations": [location],
        "partialFingerprints": {"onnxfim/v1": print_},
    }


def _text(message: str) -> str:
    """A message in which no foreign name makes a link (`[text](target)`) or a placeholder (`{0}`)."""
    return re.sub(r"\{(\d+)\}", r"{ \1 }", visible(message).replace("](", "] ("))
