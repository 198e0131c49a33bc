"""An in-toto Statement about an audit: which files, by their hashes, what was tested, and what came of it. It is not signed.

Its predicate is in-toto's own ``test-result``; what it says of an audit that decided nothing is on the safe side, as the exit code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Verdict
from onnxfim.record.foreign_text import visible
from onnxfim.report.decisions import gates
from onnxfim.report.dossier import RECORD, sha256_of
from onnxfim.report.dossier.checking import checked_statement
from onnxfim.verdict.findings import checks

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
#: What a policy reads: green only where a gate was set and decided.
RESULTS: Mapping[Verdict, str] = {"pass": "PASSED", "measured": "WARNED", "fail": "FAILED", "inconclusive": "FAILED"}
_MEDIA = {"html": "text/html", "json": "application/json", "md": "text/markdown"}


def render_statement(audit: Audit, files: Mapping[str, str]) -> str:
    """The statement as JSON; ``files`` are those of the dossier that it binds by their hashes.

    Raises:
        NotOfItsFormat: in-toto's library, where it is installed, refuses it.
    """
    text = json.dumps(statement(audit, files), indent=1, allow_nan=False, ensure_ascii=True) + "\n"
    checked_statement(text)
    return text


def statement(audit: Audit, files: Mapping[str, str]) -> dict[str, Any]:
    """The statement as plain values."""
    tests: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    for name, outcome in _tests(audit):
        tests[outcome].append(visible(name))
    predicate = {"result": RESULTS[audit.verdict], "configuration": [_bound(audit, *file) for file in files.items()], **tests}
    return {"_type": STATEMENT_TYPE, "subject": _subjects(audit), "predicateType": PREDICATE_TYPE, "predicate": predicate}


def _subjects(audit: Audit) -> list[dict[str, Any]]:
    """What the audit is about: the files that were read, and the samples as they were selected from theirs.

    ``sha256`` is of a file's bytes. Where no file is known, the model's hash is of several files in turn, and the samples' is of
    arrays: these have names of their own.
    """
    files = audit.identity.hashed() if audit.identity is not None else ()
    found: list[dict[str, Any]] = [
        {"name": visible(f.path), "digest": {"sha256": f.sha256}, "annotations": {"role": f.role}} for f in files
    ]
    if not any(f.role == "model" for f in files):
        name = visible(audit.model.path or audit.model.name)
        found.insert(0, {"name": name, "digest": {"onnxfimModel": visible(audit.model.sha256)}, "annotations": {"role": "model"}})
    samples = {"onnxfimSamples": visible(audit.data.sha256)}
    return [*found, {"name": f"{visible(audit.data.source)}, as selected", "digest": samples, "annotations": {"role": "samples"}}]


def _bound(audit: Audit, name: str, text: str) -> dict[str, Any]:
    """A file of the dossier; the record tells the verdict and the report id too."""
    found: dict[str, Any] = {"name": name, "digest": {"sha256": sha256_of(text)}, "mediaType": _MEDIA[name.rpartition(".")[2]]}
    if name == RECORD:
        report = audit.identity.report_id if audit.identity is not None else ""
        found["annotations"] = {"verdict": audit.verdict, "reportId": visible(report)}
    return found


def _tests(audit: Audit) -> Iterator[tuple[str, str]]:
    """Gates and checks by name, and their lists: what was not decided did not pass, what was not run is in none."""
    of_gate = {"pass": "passedTests", "fail": "failedTests", "inconclusive": "failedTests"}
    yield from ((f"gate: {gate.text}", of_gate[gate.verdict]) for gate in gates(audit))
    for check, found in checks(audit):
        if found:
            yield f"check: {check.id}", "failedTests" if any(f.level == "error" for f in found) else "warnedTests"
        elif check.obstacle(audit) is None:
            yield f"check: {check.id}", "passedTests"
