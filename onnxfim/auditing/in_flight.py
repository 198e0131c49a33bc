"""What is in flight in a process that runs a model: a small record in memory that another process reads when it has died."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.runtime.stopping import Stopped
from onnxfim.runtime.watching import Kind, Watch

Array: TypeAlias = np.ndarray[Any, Any]

_CALL = struct.Struct("<ddiiii")  # time of the last event, longest call, kind, rows, whether a row is tried alone, its position
_KINDS: dict[int, Kind | None] = {0: None, 1: "call", 2: "opening"}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_STAGE = 128  # bytes of the stage's name, after the call
#: Bytes of the record.
SIZE = _CALL.size + _STAGE
_COMPARED = 512  # coordinates by which the sample that a row lies beside is told
#: The stage before the first.
OPENING = "opening the model"
#: Stages that an audit which measures nothing new still needs.
GROUND = (
    OPENING, "trying rows against each other", "clean pass", "looking for ties", "calibration", "choosing the step",
    "differentiating",
)  # fmt: skip

#: Stages that an audit cannot do without.
NEEDED = (*GROUND, "measuring by gradients", "measuring by differences", "refining")


class RuntimeEnded(RuntimeError):
    """The process that ran a stage has ended in it; the stage is left out."""


@dataclass(frozen=True)
class InFlight:
    """What a process was doing when it was last heard of.

    Attributes:
        stage: The stage of the audit.
        kind: What was in flight: a call, the opening of a session, or None where the runtime was not at work.
        rows: Rows of the call.
        tried: Whether it was the one row of a call that was tried alone.
        position: Position of the sample that this row belongs to, or None.
        since: When that began, by `time.monotonic`.
        longest: Seconds of the longest call that came back.
    """

    stage: str
    kind: Kind | None
    rows: int
    tried: bool
    position: int | None
    since: float
    longest: float


def read_record(memory: mmap.mmap) -> InFlight:
    """The record as it stands; of a process that has not come to write it, the opening of the model."""
    since, longest, kind, rows, tried, position = _CALL.unpack_from(memory, 0)
    stage = bytes(memory[_CALL.size : SIZE]).split(b"\0", 1)[0].decode("utf-8", "replace")
    return InFlight(stage or OPENING, _KINDS.get(kind), rows, bool(tried), None if position < 0 else position, since, longest)


def during(stage: str) -> str:
    """When something happened, in words."""
    return f"while {stage}" if stage.split(maxsplit=1)[0].endswith("ing") else f"in the {stage}"


@dataclass(frozen=True)
class Orders:
    """How a process that is started again goes about its work.

    Attributes:
        careful: The stage in which every row is tried alone before a call of several, or None.
        left_out: Stages that are left out, and why.
        most_rows: Rows of a call at most, or None.
        finish: Measure nothing new and make a result of what is kept already, ended by this; None goes on.
    """

    careful: str | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    most_rows: int | None = None
    finish: str | None = None


class Recorder(Watch):
    """Writes what is in flight into a record.

    Args:
        memory: The record, of `SIZE` bytes.
        orders: How the work is gone about.
        X: The samples, (N, *shape), by which a row's is told; None where there are none.
    """

    def __init__(self, memory: mmap.mmap, orders: Orders, X: Array | None = None) -> None:
        self._memory, self._orders, self._X = memory, orders, X
        self.most_rows = orders.most_rows
        self._stage, self._began, self._longest = "", 0.0, 0.0
        self._trying, self._position = 0, -1
        self._scope: tuple[int, ...] = ()
        self._looked_at: tuple[Array, Array] | None = None
        self._positions: Array | None = None
        self._name(OPENING)
        self._write(None, 0)

    @property
    def tries(self) -> bool:  # type: ignore[override]
        """Whether rows are tried alone in this stage."""
        return self._stage == self._orders.careful

    def enter(self, stage: str) -> None:
        self._name(stage)
        for name, why in self._orders.left_out:
            if name == stage:
                raise RuntimeEnded(why)

    def begins(self, kind: Kind, rows: int) -> None:
        if self._orders.finish is not None and self._stage not in GROUND:
            raise Stopped(self._orders.finish)
        self._began = time.monotonic()
        self._write(kind, rows)

    def ended(self) -> None:
        self._longest = max(self._longest, time.monotonic() - self._began)
        self._write(None, 0)

    def knows(self, X: Array, positions: Array) -> None:
        self._X, self._positions, self._looked_at = X, positions, None

    def trying(self, row: Array, position: int | None = None) -> None:
        found = self._position_of(row) if position is None else position
        self._trying, self._position = 1, found if found < 0 or self._positions is None else int(self._positions[found])

    def tried(self) -> None:
        self._trying, self._position = 0, -1

    @contextmanager
    def about(self, positions: Sequence[int]) -> Iterator[None]:
        self._scope = tuple(positions)
        try:
            yield
        finally:
            self._scope = ()

    def _name(self, stage: str) -> None:
        self._stage = stage
        name = stage.encode()[: _STAGE - 1]
        self._memory[_CALL.size : SIZE] = name + bytes(_STAGE - len(name))

    def _write(self, kind: Kind | None, rows: int) -> None:
        now = self._began if kind is not None else time.monotonic()
        _CALL.pack_into(self._memory, 0, now, self._longest, _NUMBERS[kind], rows, self._trying, self._position)

    def _position_of(self, row: Array) -> int:
        """Position of the sample that a row lies on or beside; -1 where that is not known."""
        if len(self._scope) == 1:
            return self._scope[0]
        X = self._X
        if X is None or row.shape != X.shape[1:]:
            return -1
        where, compared = self._looked_at = self._looked_at or _telling(X)
        among = np.array(self._scope, int) if self._scope else np.arange(len(X))
        apart = np.abs(compared[among] - row.reshape(-1)[where].astype(np.float64)).sum(axis=1)
        return int(among[np.argmin(np.where(np.isfinite(apart), apart, np.inf))])


def _telling(X: Array) -> tuple[Array, Array]:
    """The coordinates that differ most between samples, and the samples there, (N, n) float64."""
    flat = X.reshape(len(X), -1)
    where = np.argsort(-flat.astype(np.float32).std(axis=0), kind="stable")[:_COMPARED]
    return where, flat[:, where].astype(np.float64)
