"""A saved audit with values of wrong types, without keys, or broken as a file; converted, compared, taken as a baseline."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.data import load
from onnxfim.record.audit import Audit
from tests.fuzz.families._bases import Base, bases
from tests.fuzz.families._odd import NAMES, one
from tests.fuzz.harness import Case
from tests.support.audits import gated, make_audit, with_bound, with_flips, with_nulls, with_replay
from tests.support.places import SUPPORT

Place: TypeAlias = "tuple[str | int, ...]"

#: Stands for words that Python's writer of JSON would not write.
_RAW = {"<nan>": "NaN", "<-inf>": "-Infinity", "<1e400>": "1e400", "<-1e-400>": "-1e-400", "<long>": "9" * 5000}
_VALUES: tuple[Any, ...] = (
    "text", "", "1", -1, 0, 1, 2, 3, 0.5, -0.5, 1.5, 1e308, -1e308, 5e-324, 1e-300, 10**400, -(10**400), 2**63 - 1, 2**63, -(2**63), 2**31, True, False, None,
    [], {}, [None], ["x"], [1.0], [1, 2, 3], [[]], {"a": 1}, {"value": 1.0}, "x" * 5000, "\ud800", *_RAW, *NAMES,
)  # fmt: skip
_FORMATS = ("html", "json", "csv", "junit", "sarif", "markdown", "comment")
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"


def case(rng: np.random.Generator, folder: Path) -> Case:
    """Three quarters of the cases change values of the record, the others the file."""
    name, text = one(rng, _subjects())
    if rng.random() < 0.75:
        notes = []
        record = json.loads(text)
        for _ in range(int(one(rng, (1, 1, 1, 2, 4)))):
            record, note = changed_record(rng, record)
            notes.append(note)
        content = json.dumps(record, ensure_ascii=bool(rng.random() < 0.8))
        for word, raw in _RAW.items():
            content = content.replace(f'"{word}"', raw)
        (folder / "a.json").write_bytes(content.encode("utf-8", "surrogatepass"))
        return _command(rng, folder, text, f"{name}: {'; '.join(notes)}")
    return _command(rng, folder, text, f"{name}: {broken_file(rng, folder, text)}")


@functools.cache
def _mlp() -> tuple[Base, np.ndarray]:
    return bases()[0], np.random.default_rng(11).standard_normal((4, 5)).astype(np.float32)


@functools.cache
def _subjects() -> tuple[tuple[str, str], ...]:
    """Saved audits of all sorts, small."""
    full = with_bound(with_replay(with_flips(make_audit(4))), layers=2)
    made = {
        "plain": make_audit(3), "full": full, "gated": gated(full), "tabular": _per_coordinate(make_audit(3)),
        "nothing measured": with_nulls(make_audit(3)), "few measured": with_nulls(make_audit(4), share=0.5),
    }  # fmt: skip
    return (*((name, audit.to_json()) for name, audit in made.items()), ("old", (SUPPORT / "audit-1.0.json").read_text("utf-8")))


def _per_coordinate(audit: Audit) -> Audit:
    samples = tuple(replace(s, lambda_max_standardised=s.lambda_max) for s in audit.samples)
    return replace(
        audit,
        samples=samples,
        step=replace(audit.step, per_coordinate=True),
        aggregates={**audit.aggregates, "lambda_max_standardised": audit.aggregates["lambda_max"]},
    )


def _places(record: Any, at: Place = ()) -> list[Place]:
    """Every value and container of a record."""
    inner = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    return [at, *(p for key, value in inner for p in _places(value, (*at, key)))]


def _at(record: Any, place: Place) -> Any:
    for key in place:
        record = record[key]
    return record


def changed_record(rng: np.random.Generator, record: Any) -> tuple[Any, str]:
    """The record with one place changed, in this very object, and what was done to it."""
    place = one(rng, _places(record))
    if not place:
        value = one(rng, _VALUES)
        return (value, f"the whole is {str(value)[:20]!r}") if rng.random() < 0.1 else (record, "nothing")
    inside, key, old = _at(record, place[:-1]), place[-1], _at(record, place)
    how = str(rng.choice(["value", "value", "value", "near", "drop", "longer", "other", "extra"]))
    if how == "drop":
        del inside[key]
    elif how == "longer" and isinstance(old, list):
        inside[key] = (old * 3)[: int(rng.integers(0, 3 * len(old) + 1))] if old else [0]
    elif how == "other":
        inside[key] = json.loads(json.dumps(_at(record, one(rng, [p for p in _places(record) if p]))))
    elif how == "extra" and isinstance(old, dict):
        old[one(rng, NAMES)] = one(rng, _VALUES)
    elif how == "near" and isinstance(old, (int, float)) and not isinstance(old, bool):
        inside[key] = old * one(rng, (-1, 0, 10, 1e6, 1e-6, 1e30, 1e-30)) + one(rng, (0, 1, -1))
    else:
        inside[key] = one(rng, _VALUES)
        how = f"{str(inside[key])[:20]!r}"
    return record, f"{'.'.join(map(str, place))[:80]}: {how}"


def broken_file(rng: np.random.Generator, folder: Path, text: str, name: str = "a.json") -> str:
    """Put a broken file of a record there, and say in which way it is."""
    path, content = folder / name, text.encode()
    at = int(rng.integers(len(content)))
    made = {
        "a flipped byte": lambda: content[:at] + bytes([content[at] ^ int(rng.integers(1, 256))]) + content[at + 1 :],
        "the beginning": lambda: content[:at],
        "empty": lambda: b"",
        "white space": lambda: b" \n\t",
        "with a mark of its order": lambda: b"\xef\xbb\xbf" + content,
        "UTF-16": lambda: text.encode("utf-16"),
        "UTF-32": lambda: text.encode("utf-32-be"),
        "Latin 1": lambda: content[:at] + b"\xff\xfe" + content[at:],
        "deep lists": lambda: b"[" * 100_000,
        "deep objects": lambda: b'{"schema_version": "2.0", "x": ' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}",
        "deep times": lambda: content.replace(b'"times": {', b'"times": {"a": ' + b"[" * 900 + b"]" * 900 + b", ", 1),
        "two of a key": lambda: content.replace(b'"verdict":', b'"verdict": "pass", "verdict":', 1),
        "two records": lambda: content + content,
        "LFS pointer": lambda: _POINTER,
        "LFS pointer with CRLF": lambda: _POINTER.replace(b"\n", b"\r\n"),
        "comparison": lambda: b'{"measure": "lambda_max", "entries": [], "schema_version": "1.0"}',
        "bounds": lambda: b'{"architecture": {"family": "mlp", "evidence": []}, "bound": {"available": false}}',
        "no version": lambda: b'{"a": 1}',
        "odd version": lambda: content.replace(b'"schema_version": "2.0"', b'"schema_version": ' + one(rng, (b"2", b"null", b'"3.0"', b'"1.x"', b'"\\u001b[31m"', b"[]", b'"2"', b"1e999")), 1),
        "a number": lambda: b"1",
        "a word": lambda: b"null",
        "noise": lambda: rng.bytes(int(rng.integers(1, 400))),
        "zero bytes": lambda: b"\0" * 1000,
        "HTML": lambda: b"<!DOCTYPE html><html></html>",
        "zip": lambda: b"PK\x03\x04" + b"\0" * 60,
    }  # fmt: skip
    kind = str(rng.choice([*made, "folder", "pipe", "nothing", "ring of links", "dangling link", "link"]))
    if kind in made:
        path.write_bytes(made[kind]())
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "ring of links":
        path.symlink_to(name)
    elif kind == "dangling link":
        path.symlink_to("nowhere.json")
    elif kind == "link":
        (folder / "real.json").write_text(text, "utf-8")
        path.symlink_to("real.json")
    return kind


def _command(rng: np.random.Generator, folder: Path, text: str, note: str) -> Case:
    """Convert to some formats, compare with the audit as it was, or take it as a baseline."""
    which = str(rng.choice(["convert", "convert", "compare", "baseline"]))
    (folder / "b.json").write_text(text, "utf-8")
    if which == "convert":
        kinds = rng.choice(_FORMATS, int(rng.integers(1, len(_FORMATS) + 1)), replace=False)
        return Case(("convert", "a.json", *(a for k in kinds for a in ("-o", f"{k}=out.{k}"))), note)
    if which == "compare":
        files = one(rng, (("a.json", "b.json"), ("b.json", "a.json"), ("a.json", "a.json"), ("b.json", "a.json", "b.json")))
        kinds = rng.choice(["html", "json", "markdown"], int(rng.integers(1, 4)), replace=False)
        return Case(("compare", *files, *(a for k in kinds for a in ("-o", f"{k}=out.{k}"))), note)
    base, inputs = _mlp()
    (folder / "m.onnx").write_bytes(base.content)
    np.savez(folder / "d.npz", inputs=inputs, labels=np.array([0, 1, 2, 0]))
    _fit(folder)
    common = ("--data", "d.npz", "--provider", "cpu", "--replay", "0", "--budget", "12", "-o", "json=out.json")
    return Case(
        ("audit", "m.onnx", *common, "--baseline", "a.json", "--regression-over", one(rng, ("samples", "population"))), note
    )


def _fit(folder: Path) -> None:
    """Make the file, where it is a record, one of the very data and of a model of the same outputs."""
    path = folder / "a.json"
    if not path.is_file() or path.stat().st_size > 2**20:
        return
    try:
        record = json.loads(path.read_bytes())
        record["data"] |= {"sha256": load(folder / "d.npz").sha256, "shape": [5]}
        record["model"] |= {"num_outputs": 3}
        record["settings"] |= {"samples": 4}
        path.write_text(json.dumps(record), "utf-8")
    except (ValueError, TypeError, KeyError, RecursionError):
        return
