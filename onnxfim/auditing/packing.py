"""A task as files, for a fresh interpreter: JSON and arrays, nothing that runs when it is read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.in_flight import Orders
from onnxfim.auditing.jobs import Task
from onnxfim.data import Samples, Skipped
from onnxfim.data.lazy_rows import LazyRows, lazy
from onnxfim.data.telling_rows import opened, told, write_rows
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
    if is_dataclass(value):
        return "fields", [*_named(value), to_plain(value)]
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
        case "fields":
            module, name, plain = value
            return from_plain(_class(module, name), plain)
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
