"""What counts as a failure of a case, looked for in how it ended, what it printed and what lies in its folder."""

from __future__ import annotations

import functools
import itertools
import json
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.fuzz.child import OWN, SEEN, TEMPORARY
from tests.fuzz.harness import Case, Ended, Outcome, Task
from tests.fuzz.watching import contents

_CODES = (0, 1, 2, 3, 4)
_ERROR = "onnxfim: "
_INTERNAL = "internal error"
#: Control characters of terminals, and what turns the direction of text.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_FRAME = re.compile(r'File "[^"]*?((?:onnxfim|tests)/[^"]+)", line (\d+),? in (\S+)')
#: What ONNX Runtime itself leaves in the folder for temporary files.
_LIBRARIES = (".ses",)
_NO_AUDIT = (b"the time limit came before", b"merge: shard", b"samples are there")  # there is none to write
_DEFAULTS = {"audit": [("html", "report.html")], "convert": [("html", "report.html")], "compare": [("html", "comparison.html")]}
_GATES = ("--fail-on", "--baseline", "--max-regression")


def judged(task: Task, case: Case, ended: Ended, folder: Path, before: Mapping[str, str], touched: Sequence[str]) -> Outcome:
    """The outcome of a case: every failure in words, the frame that it came from, the findings of a written audit."""
    stdout, stderr = (text.decode("utf-8", "backslashreplace") for text in (ended.stdout, ended.stderr))
    trace = stderr + _saved_trace(stderr, folder)
    problems = [*_how_it_ended(case, ended), *_printed(stdout, stderr, ended), *_left_behind(case, folder, before), *touched]
    seen = folder / SEEN
    problems += seen.read_text("utf-8", "replace").splitlines()[:5] if seen.is_file() else ["the child did not start"]
    found: list[str] = []
    for problem, findings in _outputs(case, ended, folder, before):
        problems += [problem] if problem else []
        found += findings
    return Outcome(
        task, case, ended, tuple(dict.fromkeys(problems)), _last_frame(trace, ended), tuple(found), tuple(_remarks(stderr))
    )


def _how_it_ended(case: Case, ended: Ended) -> Iterator[str]:
    if ended.hung:
        yield f"hung: killed after {ended.seconds:.0f} s"
    elif ended.signal is not None:
        yield f"died by {signal.Signals(ended.signal).name}"
    elif ended.code not in _CODES:
        yield f"exit code {ended.code}, expected one of {_CODES}"
    elif ended.code == 1 and not any(a.startswith(_GATES) for a in case.argv):
        yield "exit code 1 (a gate failed) where no gate is set"


def _printed(stdout: str, stderr: str, ended: Ended) -> Iterator[str]:
    for name, text in (("stdout", stdout), ("stderr", stderr)):
        if "Traceback (most recent call last)" in text:
            yield f"a traceback on {name}"
        if _INTERNAL in text:
            yield f"an {_INTERNAL} on {name}"
        hidden = _HIDDEN.search(text)
        if hidden:
            around = text[max(0, hidden.start() - 30) : hidden.end() + 30]
            yield f"a control character on {name}: {around!r}"
    if ended.code != 2:
        return
    errors = [line for line in stderr.splitlines() if line.startswith((_ERROR, "Error: "))]
    if len(errors) != 1:
        yield f"{len(errors)} error lines, expected one"
    elif stderr.rstrip("\n").splitlines()[-1] != errors[0]:
        yield "the error line is not the last line, or goes on in another"
    elif not re.search(r"\S", errors[0].removeprefix(_ERROR)) or len(errors[0]) < len(_ERROR) + 10:
        yield "the error line says nothing"


def _left_behind(case: Case, folder: Path, before: Mapping[str, str]) -> Iterator[str]:
    after = {p: what for p, what in contents(folder).items() if p != OWN and not p.startswith(OWN + "/")}
    written = {path for _, path in outputs_of(case.argv)}
    assets = {a for flag, a in zip(case.argv, case.argv[1:], strict=False) if flag in ("--html-assets", "--cache-dir")}
    ours = written | assets
    for path in sorted({*before, *after}):
        if path in ours or any(path.startswith(a + "/") for a in assets):
            continue
        if path not in after:
            yield f"{path!r} was removed"
        elif path not in before:
            yield f"{path!r} was left behind"
        elif before[path] != after[path]:
            yield f"{path!r} was changed"
    for path in sorted((folder / TEMPORARY).rglob("*")):
        if path.name not in _LIBRARIES:
            yield f"a temporary file was left behind: {path.name!r}"


def outputs_of(argv: Sequence[str]) -> list[tuple[str, str]]:
    """Formats and paths that arguments ask for, or that a command writes where nothing is asked for."""
    pairs = [value.partition("=") for flag, value in itertools.pairwise(argv) if flag in ("-o", "--output-file")]
    asked = [(kind, path) if equals else ("shard", kind) for kind, equals, path in pairs if path != "-"]
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--suggest-gates=") else [word])]
    gates = [("gates", path) for flag, path in itertools.pairwise(words) if flag == "--suggest-gates" and path != "-"]
    return [*(asked if pairs or not argv else _DEFAULTS.get(argv[0], [])), *gates]


def _outputs(case: Case, ended: Ended, folder: Path, before: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is wrong with each output, and the findings of an audit."""
    asked = outputs_of(case.argv)
    dry = "--dry-run" in case.argv and ended.code == 0
    for kind, path in asked:
        where = folder / path
        if dry:  # no report is written
            if where.is_file() and path not in before:
                yield f"{path}: written by a dry run", ()
            continue
        if not where.is_file():
            nothing = ended.code == 3 and any(why in ended.stderr for why in _NO_AUDIT)
            if ended.code in (0, 1, 3, 4) and not nothing:
                yield f"{path}: exit code {ended.code}, but not written", ()
            continue
        if path in before and ended.code == 2:
            continue
        try:
            yield "", _whole(case.argv[0], kind, where.read_bytes())
        except Exception as error:
            yield f"{path}: not a whole {kind}: {type(error).__name__}: {str(error)[:300]}", ()


def _whole(command: str, kind: str, content: bytes) -> tuple[str, ...]:
    text = content.decode("utf-8")
    assert text.strip(), "empty"
    if kind == "html":
        assert text.rstrip().endswith("</html>"), "it does not end"
    elif kind == "junit":
        ElementTree.fromstring(text)
    elif kind == "sarif":
        _strict(text)
    elif kind == "json":
        record = _strict(text)
        if command in ("audit", "convert"):
            return _audit(text, record)
    return ()


def _strict(text: str) -> Any:
    """JSON without NaN, which no other parser takes."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


def _audit(text: str, record: Any) -> tuple[str, ...]:
    from onnxfim.record.audit import Audit

    again = Audit.from_json(text)
    error = next(_schema().iter_errors(record), None)
    assert error is None, f"the schema refuses it: {error.message if error else ''}"
    assert _strict(again.to_json()) == record, "read and written again, it is another"
    return tuple(f"{f['id']}: {f['message']}" for f in record["findings"] if f["id"] == "stage-failed")


@functools.cache
def _schema() -> Any:
    from jsonschema import Draft202012Validator

    from onnxfim.record.schema import audit_schema

    return Draft202012Validator(audit_schema())


def _saved_trace(stderr: str, folder: Path) -> str:
    """The traceback that an internal error names, where it lies in the case's folder."""
    if _INTERNAL not in stderr:
        return ""
    texts = [
        p.read_text("utf-8", "replace")
        for p in sorted((folder / OWN).rglob("*"))
        if p.is_file() and p.name not in ("stdout", "stderr")
    ]
    return "".join(t for t in texts if "Traceback" in t)


def _last_frame(trace: str, ended: Ended) -> str:
    """Where a failure came from: the last frame of the product's own code, and the exception."""
    if ended.hung or "Fatal Python error" in trace:  # faulthandler writes the innermost frame first
        found = _FRAME.search(trace)
        return f"{found[1]}:{found[2]} {found[3]}" if found else ""
    if "Traceback" not in trace:
        return ""
    frames = _FRAME.findall(trace)
    last = next(
        (line for line in reversed(trace.rstrip().splitlines()) if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit|\b)", line)), ""
    )
    where = [f for f in frames if f[0].startswith("onnxfim/")] or frames
    return (f"{where[-1][0]}:{where[-1][1]} {where[-1][2]}: " if where else "") + last[:160]


def _remarks(stderr: str) -> Iterator[str]:
    """Warnings of Python and of libraries: no failure, and yet not meant for a reader."""
    for line in stderr.splitlines():
        if re.search(r"\w+Warning: ", line) or "[W:onnxruntime" in line or "[E:onnxruntime" in line:
            yield line[:200]
