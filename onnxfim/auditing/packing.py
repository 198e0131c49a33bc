"""A task as files, for a fresh interpreter: JSON and arrays, nothing that runs when it is read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.in_flight import Orders
from onnxfim.auditing.jobs import Task
from onnxfim.data import Samples, Skipped
from onnxfim.errors import SettingsError
from onnxfim.graph.load import ModelFile
from onnxfim.record.fitting import from_plain
from onnxfim.record.plain import to_plain
from onnxfim.record.settings import Settings

Plain: TypeAlias = dict[str, Any]

_ARRAYS = ("inputs", "labels", "indices")
_HELD = "held"  # the values of other inputs, by name


def pack(task: Task, folder: Path) -> Path:
    """Write a task into files of a folder; the one that `unpack` reads.

    Raises:
        SettingsError: a model is a function of this process.
    """
    told = {f.name: _packed(getattr(task.job, f.name), folder) for f in fields(task.job)}  # type: ignore[arg-type]  # a dataclass
    record: Plain = {"job": [*_named(task.job), told], "orders": to_plain(task.orders), "level": task.level}
    path = folder / f"task-{secrets.token_hex(4)}.json"
    path.write_text(json.dumps(record), "utf-8")
    return path


def unpack(path: Path) -> Task:
    """The task that `pack` wrote."""
    record = json.loads(path.read_text("utf-8"))
    module, name, told = record["job"]
    given = {field: _unpacked(kind, value, path.parent) for field, (kind, value) in told.items()}
    orders = record["orders"]
    left_out = tuple((stage, why) for stage, why in orders.pop("left_out"))
    return Task(_class(module, name)(**given), Orders(**orders, left_out=left_out), record["level"])


def _packed(value: Any, folder: Path) -> tuple[str, Any]:
    """A field of a job: its kind, and what JSON holds of it."""
    if isinstance(value, Candidate):
        return "candidate", _candidate(value, folder)
    if isinstance(value, Path):
        return "path", str(value)
    if isinstance(value, tuple):
        return "tuple", [_packed(one, folder) for one in value]
    if hasattr(value, "to_json"):  # records know their own layout
        return "record", [*_named(value), value.to_json()]
    return "plain", to_plain(value)


def _unpacked(kind: str, value: Any, folder: Path) -> Any:
    """What `_packed` made this of."""
    match kind:
        case "candidate":
            return _read_candidate(value, folder)
        case "path":
            return Path(value)
        case "tuple":
            return tuple(_unpacked(of, one, folder) for of, one in value)
        case "record":
            module, name, text = value
            return _class(module, name).from_json(text)
    return value


def _named(value: object) -> tuple[str, str]:
    """Where the class of a job or a record stands."""
    return type(value).__module__, type(value).__name__


def _class(module: str, name: str) -> Any:
    """The class that stands there: of whichever wing, for all ask for work; the file is this package's own."""
    return getattr(import_module(module), name)


def _candidate(candidate: Candidate, folder: Path) -> Plain:
    model, samples = candidate.model, candidate.inputs
    if not isinstance(model, (str, Path, ModelFile)):
        raise SettingsError(f"{model.name}: is a function of this process, which no other can call. Audit it without isolation.")
    assert isinstance(samples, Samples)
    record: Plain = {"model": str(model.path if isinstance(model, ModelFile) else model), "settings": to_plain(candidate.settings)}
    told = {f.name: getattr(samples, f.name) for f in fields(samples) if f.name not in (*_ARRAYS, _HELD)}
    record["samples"] = to_plain(told)
    for name in _ARRAYS:
        record[name] = _saved(getattr(samples, name), folder)
    record[_HELD] = {name: _saved(values, folder) for name, values in samples.held.items()}
    return record


def _saved(array: Any, folder: Path) -> str | None:
    """The name of the file that holds an array; None where there is none."""
    if array is None:
        return None
    name = f"{secrets.token_hex(8)}.npy"
    np.save(folder / name, array, allow_pickle=False)
    return name


def _read_candidate(record: Mapping[str, Any], folder: Path) -> Candidate:
    told = record["samples"]
    arrays: Plain = {n: None if record[n] is None else np.load(folder / record[n], allow_pickle=False) for n in _ARRAYS}
    lists = {name: None if told[name] is None else tuple(told[name]) for name in ("names", "class_names", "feature_names")}
    skipped = tuple(Skipped(**s) for s in told["skipped"])
    held = {name: np.load(folder / file, allow_pickle=False) for name, file in record[_HELD].items()}
    samples = Samples(**arrays, **{**told, **lists, "skipped": skipped}, held=held)
    settings: Settings = from_plain(Settings, record["settings"])
    return Candidate(record["model"], samples, settings)
