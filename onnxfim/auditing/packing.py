"""A task as files, for a fresh interpreter: JSON and arrays, nothing that runs when it is read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.in_flight import Orders
from onnxfim.auditing.jobs import AttributionJob, AuditJob, Job, OutputsJob, StepJob, Task
from onnxfim.data import Samples, Skipped
from onnxfim.data.lazy_rows import LazyRows, lazy
from onnxfim.data.telling_rows import opened, told, write_rows
from onnxfim.errors import SettingsError
from onnxfim.graph.load import ModelFile
from onnxfim.record.audit import Audit
from onnxfim.record.fitting import from_plain
from onnxfim.record.plain import to_plain
from onnxfim.record.settings import Settings

Plain: TypeAlias = dict[str, Any]

_ARRAYS = ("inputs", "labels", "indices")
_HELD = "held"  # the values of other inputs, by name
_KINDS: dict[str, type[Job[Any]]] = {kind.__name__: kind for kind in (AuditJob, StepJob, OutputsJob, AttributionJob)}


def pack(task: Task, folder: Path) -> Path:
    """Write a task into files of a folder; the one that `unpack` reads.

    Raises:
        SettingsError: a model is a function of this process.
    """
    record: Plain = {"kind": type(task.job).__name__, "orders": to_plain(task.orders), "level": task.level}
    for f in fields(task.job):  # type: ignore[arg-type]  # every job is a dataclass
        value = getattr(task.job, f.name)
        if isinstance(value, Candidate):
            record[f.name] = _candidate(value, folder)
        elif f.name == "audits":
            record[f.name] = [audit.to_json(indent=None) for audit in value]
        else:
            record[f.name] = str(value) if isinstance(value, Path) else value
    path = folder / f"task-{secrets.token_hex(4)}.json"
    path.write_text(json.dumps(record), "utf-8")
    return path


def unpack(path: Path) -> Task:
    """The task that `pack` wrote."""
    record = json.loads(path.read_text("utf-8"))
    kind = _KINDS[record["kind"]]
    given: Plain = {}
    for f in fields(kind):  # type: ignore[arg-type]
        value = record[f.name]
        if isinstance(value, Mapping):
            value = _read_candidate(value, path.parent)
        elif f.name == "audits":
            value = tuple(Audit.from_json(text) for text in value)
        elif f.name == "cache_dir" and value is not None:
            value = Path(value)
        given[f.name] = value
    orders = record["orders"]
    left_out = tuple((stage, why) for stage, why in orders.pop("left_out"))
    return Task(kind(**given), Orders(**orders, left_out=left_out), record["level"])


def _candidate(candidate: Candidate, folder: Path) -> Plain:
    model, samples = candidate.model, candidate.inputs
    if not isinstance(model, (str, Path, ModelFile)):
        raise SettingsError(f"{model.name}: is a function of this process, which no other can call. Audit it without isolation.")
    assert isinstance(samples, Samples)
    record: Plain = {"model": str(model.path if isinstance(model, ModelFile) else model), "settings": to_plain(candidate.settings)}
    plain = {f.name: getattr(samples, f.name) for f in fields(samples) if f.name not in (*_ARRAYS, _HELD)}
    record["samples"] = to_plain(plain)
    for name in _ARRAYS:
        record[name] = _saved(getattr(samples, name), folder)
    record[_HELD] = {name: _saved(values, folder) for name, values in samples.held.items()}
    return record


def _saved(array: Any, folder: Path) -> str | Plain | None:
    """The name of the file that holds an array, or where its rows lie; None where there is none."""
    if array is None:
        return None
    if (rows := lazy(array)) is not None:
        return told(rows, lambda part: str(_saved(part, folder)), lambda own: _written(own, folder))
    name = f"{secrets.token_hex(8)}.npy"
    np.save(folder / name, array, allow_pickle=False)
    return name


def _written(rows: LazyRows, folder: Path) -> str:
    """The path of a file that holds the rows."""
    path = str(folder / f"{secrets.token_hex(8)}.npy")
    write_rows(path, rows)
    return path


def _loaded(saved: str | Plain | None, folder: Path) -> Any:
    """What `_saved` saved."""
    if saved is None:
        return None
    if isinstance(saved, dict):
        return opened(saved, lambda name: np.asarray(np.load(folder / name, allow_pickle=False)))
    return np.load(folder / saved, allow_pickle=False)


def _read_candidate(record: Mapping[str, Any], folder: Path) -> Candidate:
    plain = record["samples"]
    arrays: Plain = {name: _loaded(record[name], folder) for name in _ARRAYS}
    lists: Plain = {name: None if plain[name] is None else tuple(plain[name]) for name in ("names", "class_names", "feature_names")}
    lists["prepared"] = {name: tuple(v) if isinstance(v, list) else v for name, v in plain["prepared"].items()}
    skipped = tuple(Skipped(**s) for s in plain["skipped"])
    held = {name: np.load(folder / file, allow_pickle=False) for name, file in record[_HELD].items()}
    samples = Samples(**arrays, **{**plain, **lists, "skipped": skipped}, held=held)
    settings: Settings = from_plain(Settings, record["settings"])
    return Candidate(record["model"], samples, settings)
