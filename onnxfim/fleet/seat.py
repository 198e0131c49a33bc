"""A worker's inside: the model and the samples as they came, opened once, and ranges of them measured one after another."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeAlias

import numpy as np

import onnxfim
from onnxfim import errors
from onnxfim.auditing.summary import package_versions
from onnxfim.data import Samples
from onnxfim.errors import ModelError, OnnxFimError, in_one_line
from onnxfim.fleet.measuring_shards import PlannedWork
from onnxfim.graph.external import located
from onnxfim.graph.load import ModelFile, load_model
from onnxfim.record.plan import Plan
from onnxfim.runtime.shared_cores import given_cores

Array: TypeAlias = np.ndarray[Any, Any]
P = ParamSpec("P")

_FOLDER, _USED = "onnxfim-", ".in-use"  # of a run's files on a machine, and what is locked in it
_ABANDONED = 60.0  # seconds: younger folders may be about to be used


@dataclass(frozen=True, eq=False)
class Materials:
    """What a worker measures with; arrays, so that all workers of a machine read one copy in shared memory.

    Attributes:
        run: Name of the run: 32 hexadecimal digits that nobody can foresee.
        files: The model's file and those that hold its weights, by their path from the model's folder; the model's is the first.
        samples: The plan's samples.
    """

    run: str
    files: Mapping[str, Array]
    samples: Samples


def materials(run: str, model: ModelFile, samples: Samples) -> Materials:
    """What workers of this run are given.

    Raises:
        ModelError: a file cannot be read, or is another one by now.
    """
    if model.changed:
        raise ModelError(f"{model.path}: was written to since it was opened. Run it again when it is written to the end.")
    own = model.path.resolve()
    beside = {name: path for name, path in located(model.path, model.proto).items() if path != own}
    files = {}
    for name, path in {model.path.name: own, **beside}.items():
        inside = os.path.normpath(name)
        if inside.startswith("..") or os.path.isabs(inside):
            raise ModelError(f"{model.path}: keeps weights in {name!r}, beyond its folder. Copy both into one folder.")
        try:
            files[inside] = np.fromfile(path, np.uint8)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror}). Check its name and permissions.") from error
    return Materials(run, files, replace(samples, inputs=np.ascontiguousarray(samples.inputs)))


def told(method: Callable[P, dict[str, Any]]) -> Callable[P, str]:
    """The method with its answer as JSON text; an error is an answer too, so that no exception of ours has to travel."""

    @wraps(method)
    def answer(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return json.dumps(method(*args, **kwargs))
        except OnnxFimError as error:
            kind = next(c.__name__ for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c)
            return json.dumps({"error": kind, "text": str(error)})

    return answer


def heard(text: str) -> dict[str, Any]:
    """What a worker answered.

    Raises:
        OnnxFimError: it answered with an error.
    """
    message: dict[str, Any] = json.loads(text)
    if "error" in message:
        raise getattr(errors, message["error"])(message["text"])
    return message


class Seat:
    """One worker of a run. Its methods answer with JSON text, which `heard` reads.

    Args:
        given: The model and the samples.
        cores: Cores that are its own; None for all of the machine.
    """

    def __init__(self, given: Materials, cores: int | None = None) -> None:
        self._given, self._cores = given, cores
        self._work: PlannedWork | None = None
        self._plan: Plan | None = None
        self._folder = Path(tempfile.gettempdir()) / f"{_FOLDER}{given.run}"
        self._used: object = None
        self._writing, self._left = threading.Lock(), False

    @told
    def about(self) -> dict[str, Any]:
        """What is installed here, and where it is."""
        return {
            "version": onnxfim.__version__, "versions": package_versions(), "process": os.getpid(), "machine": platform.node(),
        }  # fmt: skip

    @told
    def open(self, plan: str) -> dict[str, Any]:
        """Open the model for a plan."""
        started = time.perf_counter()
        with given_cores(self._cores):
            self._plan = Plan.from_json(plan)
            self._work = PlannedWork(self._plan, load_model(self._model()), self._given.samples)
        return {"seconds": time.perf_counter() - started}

    @told
    def measure(self, number: int, indices: Sequence[int]) -> dict[str, Any]:
        """Results of a range of samples, as the text of a shard."""
        started = time.perf_counter()
        assert self._work is not None
        with given_cores(self._cores):
            shard = self._work.measure(indices)
        return {"number": number, "shard": shard.to_json(), "seconds": time.perf_counter() - started}

    @told
    def leave(self) -> dict[str, Any]:
        """Remove the model's files from this machine, and write none any more; this may be asked while a range is measured."""
        with self._writing:
            self._left = True
        shutil.rmtree(self._folder, ignore_errors=True)
        return {}

    def _model(self) -> Path:
        """The model's file on this machine, written by the first worker that comes to it."""
        with self._writing:
            if self._left:
                raise ModelError("the run is over.")
            return self._written()

    def _written(self) -> Path:
        where = self._folder / next(iter(self._given.files))
        _remove_abandoned(self._folder.parent)
        with suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        if os.name != "nt" and os.lstat(self._folder).st_uid != os.getuid():
            raise ModelError(f"{self._folder}: is another user's folder. Remove it.")
        self._used = _in_use(self._folder)
        for name, content in reversed(tuple(self._given.files.items())):  # the model last: where it is, all is
            path = self._folder / name
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    content.tofile(file)
                os.replace(part, path)
            except OSError as error:
                with suppress(OSError):
                    os.unlink(part)
                raise ModelError(f"{path}: cannot be written ({in_one_line(error)}). Make room on that machine.") from error
        return where


def _in_use(folder: Path, *, alone: bool = False) -> IO[bytes] | None:
    """Hold a folder as long as the file that comes back is open, whatever ends the process; None where that cannot be had."""
    try:
        import fcntl
    except ImportError:  # Windows, where files that are open are not removed anyway
        return None
    file = None
    with suppress(OSError):
        file = (folder / _USED).open("ab")
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return file
    if file is not None:
        file.close()
    return None


def _remove_abandoned(parent: Path) -> None:
    """Remove what runs left that were killed: folders of some age that nobody holds."""
    for folder in parent.glob(f"{_FOLDER}{'[0-9a-f]' * 32}"):
        with suppress(OSError):
            if time.time() - folder.lstat().st_mtime > _ABANDONED and (held := _in_use(folder, alone=True)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                held.close()


__all__ = ["Materials", "Seat", "heard", "materials"]
