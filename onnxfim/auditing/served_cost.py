"""What an audit of a served model would take, from a few requests that are timed: requests, rows, bytes, seconds."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxfim.auditing import planning
from onnxfim.auditing.context import Context
from onnxfim.runtime.rows import Forward

if TYPE_CHECKING:
    from onnxfim.auditing.course import PlannedStage

Array: TypeAlias = np.ndarray[Any, Any]

_BATCHES = 2  # that are timed for each request that may be under way
_SECONDS = 5.0  # after which no more of them are
_OPENING, _TRYING = 5, 10  # requests that find how outputs are read, and that try rows against each other
_RUNG = 96  # rows of a step of the ladder
_ROUNDS = 16  # in which flips are looked for, one after the other
_SCALINGS = 7


@dataclass(frozen=True)
class ExpectedTraffic:
    """What asking is expected to take.

    Attributes:
        requests: In all, where none has to be made again.
        rows: In them.
        sent, received: Bytes of their bodies.
        seconds: Of one request, where as many as may be are under way.
        max_qps, max_queries: Limits that were set, or None.
    """

    requests: int
    rows: int
    sent: int
    received: int
    seconds: float
    max_qps: float | None
    max_queries: int | None


def expected_traffic(context: Context, stages: list[PlannedStage]) -> ExpectedTraffic:
    """Time a few requests, and reckon what all of them take.

    Raises:
        OnnxFimError: the model does not answer.
    """
    forward: Any = context.subject.forward
    batch, reach = forward.batch, forward.reach
    forward.reach = replace(reach, max_queries=None)  # of the run itself
    X, many = context.X, _BATCHES * reach.concurrency
    before = forward.traffic.requests, forward.traffic.rows, forward.traffic.sent, forward.traffic.received
    began, done = time.monotonic(), 0
    while done < many and time.monotonic() - began < _SECONDS:
        some = min(reach.concurrency, many - done)
        _ask(forward, X, some * batch)
        done += some
    each = (time.monotonic() - began) / max(done, 1)
    if reach.max_qps is not None:
        each = max(each, 1 / reach.max_qps)
    rows = round(sum(p.passes for p in stages))
    t = forward.traffic
    asked = max(t.rows - before[1], 1)
    up, down = (t.sent - before[2]) / asked, (t.received - before[3]) / asked
    return ExpectedTraffic(
        all_requests(context, stages), rows, round(up * rows), round(down * rows), each, reach.max_qps, reach.max_queries
    )  # fmt: skip


def all_requests(context: Context, stages: list[PlannedStage]) -> int:
    """Requests of a whole audit, about, where none has to be made again."""
    return _OPENING + sum(requests_of(stages, context.subject.forward.batch, planning.audited(context)).values())


def _requests(part: PlannedStage, batch: int, samples: int) -> int:
    """Requests that a stage makes, about."""
    if part.stage == "trying rows against each other":
        return _TRYING
    if part.stage == "choosing the step":
        return math.ceil(part.passes / min(batch, _RUNG))
    if part.stage.startswith("looking for flips"):
        return _ROUNDS * math.ceil(samples / batch)
    if part.stage == "checking the scaling" and part.passes:
        return _SCALINGS * math.ceil(part.passes / _SCALINGS / batch)
    return math.ceil(part.passes / batch)


def requests_of(stages: list[PlannedStage], batch: int, samples: int) -> dict[str, int]:
    """Requests of each stage, about."""
    return {p.stage: _requests(p, batch, samples) for p in stages}


def _ask(forward: Forward, X: Array, rows: int) -> None:
    """Ask so many rows that differ from those that were asked before, by which nothing is answered from a store of the server's."""
    at = np.resize(np.arange(len(X)), rows)
    forward.outputs(X[at], at)


__all__ = ["ExpectedTraffic", "all_requests", "expected_traffic", "requests_of"]
