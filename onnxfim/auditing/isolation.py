"""Does a job in another process, so that a crash or a hang of ONNX Runtime ends that process alone: it is started again."""

from __future__ import annotations

import json
import logging
import queue
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from onnxfim import errors
from onnxfim.auditing.in_flight import GROUND, NEEDED, OPENING, InFlight, Orders, during
from onnxfim.auditing.jobs import AuditJob, Gathered, Job, Task, without
from onnxfim.auditing.meter import Progress, Report
from onnxfim.auditing.process import Hurry, Worker, can_fork
from onnxfim.data import Samples
from onnxfim.errors import ModelError
from onnxfim.record.audit import Audit
from onnxfim.record.fitting import from_plain
from onnxfim.record.running import TIME_LIMIT, Restart
from onnxfim.runtime.available_memory import memory_kills
from onnxfim.runtime.stopping import Stop, Stopped, current_stop
from onnxfim.verdict.judge import judge

T = TypeVar("T")
Showing: TypeAlias = Callable[[], AbstractContextManager[Report]]

#: Restarts beside two for every sample that is left out: one that shows that a sample is at fault, one that shows which.
RESTARTS = 5
#: Share of the samples, and at least so many, that may be left out before a job is given up.
SHARE, LEAST = 0.1, 8
#: Samples that may be left out for a stage that an audit can do without; it is left out instead where there are more.
FEW = 3
#: Seconds that a call of the runtime may take, and how many times the longest call before it.
QUIET, LONGER = 300.0, 100.0
_LOOKS = 0.02  # seconds between two looks at the memory
_PATIENCE = 4.0  # seconds from a request to end to the end of a call that does not heed it
_SLOW = 30.0  # the same where the runtime is not at work
_HURRY = 3.0  # seconds from the second request: by the clock in a call, of a processor elsewhere, which others may keep busy
_FINISHING = 60.0  # seconds for making a result of what is kept
_MENDS = {
    "time": "Give a longer --timeout.", "request": "Run it again.", "memory": "Give it a smaller --batch, or more memory.",
    "hang": "Use another provider (--provider cpu), or give it more time with --call-timeout.",
}  # fmt: skip
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Isolation:
    """How far another process may go.

    Attributes:
        memory: Bytes that it and what it starts may hold, or None.
        deadline: When its work must be done, by `time.monotonic`, or None.
        quiet: Seconds that one call of the runtime may take, or `LONGER` times the longest so far.
    """

    memory: int | None = None
    deadline: float | None = None
    quiet: float = QUIET


class WorkerEnded(ModelError):
    """The process that ran the model ended, and starting it again does not help; ``restarts`` tell what was tried."""

    def __init__(self, message: str, restarts: tuple[Restart, ...] = ()) -> None:
        super().__init__(message)
        self.restarts = restarts


class OutOfTime(WorkerEnded):
    """The time limit came before there was any result."""


class WorkerFault(RuntimeError):
    """An error that nobody foresaw, in the process that ran the model; its cause holds the traceback from there."""


class _Traceback(Exception):
    """A traceback of another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a job.

    Attributes:
        result: Its result.
        left_out: Samples that were left out, by index, and why.
        restarts: How often the process was started again, and why.
    """

    result: T
    left_out: Mapping[int, str]
    restarts: tuple[Restart, ...]


#: Why a process was ended by us.
_Ended: TypeAlias = Literal["memory", "hang", "request", "time"]


@dataclass(frozen=True)
class _Death:
    """How a process ended that gave no result."""

    how: str
    at: InFlight
    by_us: _Ended | None = None
    for_memory: bool = False


@dataclass
class _Course:
    """How a job goes: what was tried so far, and how the next process goes about it."""

    job: Job[Any]
    orders: Orders = field(default_factory=Orders)
    restarts: list[Restart] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)

    blamed: int = 0

    @property
    def now(self) -> Job[Any]:
        """The job without the samples that are left out."""
        return self.job.of(lambda c: without(c, self.left_out)) if self.left_out else self.job

    @property
    def samples(self) -> Samples:
        """All samples, those that are left out among them."""
        inputs = self.job.candidates[0].inputs
        assert isinstance(inputs, Samples)
        return inputs

    @property
    def names(self) -> str:
        return " and ".join(dict.fromkeys(_name(c.model) for c in self.job.candidates))


def isolated_audit(
    job: AuditJob, isolation: Isolation, *, show: Showing | None = None, level: int = logging.WARNING,
    before: Sequence[Restart] = (), fork: bool | None = None,
) -> Audit:  # fmt: skip
    """The audit of a job, done in another process; what happened there stands in ``run.restarts``, after those ``before`` it.

    Raises:
        OnnxFimError: as `audit`; or the process ended and no sample is at fault. KeyboardInterrupt: it was interrupted.
    """
    outcome = isolated(job, isolation, show=show, level=level, fork=fork)
    audit, restarts = outcome.result, (*before, *outcome.restarts)
    return judge(replace(audit, run=replace(audit.run, restarts=restarts))) if restarts else audit


def isolated(
    job: Job[T], isolation: Isolation, *, show: Showing | None = None, level: int = logging.WARNING, fork: bool | None = None
) -> Outcome[T]:
    """Do a job in another process, which is started again where it dies: without the sample at fault, where one is.

    A process that dies while several samples are in flight is started again with each of their rows tried alone first, until it
    shows which is at fault; what was finished before comes from the store of answers (a temporary one where the job has none).

    Args:
        job: What to do; its candidates' inputs are `Samples`.
        isolation: How far it may go.
        show: Shows progress, while a process runs.
        level: Level from which messages of its log are handed on.
        fork: Whether processes are forks of this one; None finds out whether they can be.

    Raises:
        WorkerEnded: the process ended, and no sample is at fault or too many are.
        OutOfTime: nothing was measured before the deadline.
        OnnxFimError: as the job.
        KeyboardInterrupt: it was interrupted before there was a result.
    """
    with (current_stop() or Stop()).current() as stop:
        return _isolated(job, isolation, show or _unseen, level, stop, forks=can_fork() if fork is None else fork)


def _isolated(job: Job[T], isolation: Isolation, show: Showing, level: int, stop: Stop, *, forks: bool) -> Outcome[T]:
    folder = Path(tempfile.mkdtemp(prefix="onnxfim-"))
    try:
        kept = job.kept_in(folder / "store")
        course = _Course(kept)
        if forks:
            import scipy.special  # noqa: F401 - once for this process and those it forks, all of which need it
        while True:
            worker = Worker(Task(course.now, course.orders, level), fork=forks, folder=folder, memory=isolation.memory)
            try:
                with show() as report:
                    found = _watched(worker, course, isolation, report, stop)
            finally:
                worker.kill()
                worker.close()
            if not isinstance(found, _Death):
                return Outcome(found.result(), course.left_out, tuple(course.restarts))
            _go_on(course, found, stop)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unseen() -> AbstractContextManager[Report]:
    return nullcontext(lambda _: None)


def _watched(worker: Worker, course: _Course, isolation: Isolation, report: Report, stop: Stop) -> Gathered[Any] | _Death:
    """The result of a process, or how it died.

    Raises:
        OnnxFimError, KeyboardInterrupt: what it ended with.
    """
    asked = stop.asked if course.orders.finish is not None else 0
    since, timed_out, started = 0.0, False, time.monotonic()
    hurried: Hurry | None = None
    kills, gathered = memory_kills(), course.job.gathered()
    while True:
        try:
            wait = _LOOKS if isolation.memory is not None else 0.1
            with suppress(queue.Empty):
                text = worker.messages.get(timeout=wait)
                if text is None:
                    return _death(worker, kills)
                if _heard(text, report, stop, gathered):
                    return gathered
            now = time.monotonic()
            if stop.asked > asked:
                asked, since = stop.asked, since or now
                hurried = Hurry(now, worker.spent) if stop.hurried else None
                worker.ask(stop.by)
            if isolation.deadline is not None and now > isolation.deadline and not since and course.orders.finish is None:
                since, timed_out = now, True
                worker.ask(TIME_LIMIT)
            ended = _overdue(worker, course, isolation, since=since, hurried=hurried, started=started)
            if ended is not None:
                at = worker.in_flight
                worker.kill()
                worker.close()
                return _Death(ended[1], at, "time" if timed_out and ended[0] == "request" else ended[0], ended[0] == "memory")
        except KeyboardInterrupt:  # where no handler takes signals
            stop.ask("SIGINT")


def _heard(text: bytes, report: Report, stop: Stop, gathered: Gathered[Any]) -> bool:
    """Take a message in; whether the result is whole with it.

    Raises:
        OnnxFimError, KeyboardInterrupt, WorkerFault: what the process ended with.
    """
    message = json.loads(text)
    stop.heeded = stop.heeded or message["heeded"]
    if "progress" in message:
        report(from_plain(Progress, message["progress"]))
    elif "log" in message:
        logging.getLogger(message["log"]).log(message["level"], "%s", message["text"])
    elif "part" in message:
        gathered.take(message["part"])
    elif "error" in message:
        raise getattr(errors, message["error"])(message["text"])
    elif "bug" in message:
        fault = WorkerFault(f"{message['bug']}: {message['text']}")
        raise fault from _Traceback(message["traceback"])
    elif "interrupted" in message:
        if message["interrupted"] == TIME_LIMIT:
            raise OutOfTime("the time limit came before anything was measured. Give a longer --timeout.")
        raise Stopped(message["interrupted"])
    return "done" in message


def _overdue(
    worker: Worker, course: _Course, isolation: Isolation, *, since: float, hurried: Hurry | None, started: float
) -> tuple[_Ended, str] | None:
    """Why a process is to be ended now, and in words; None where it may go on."""
    at, now = worker.in_flight, time.monotonic()
    if isolation.memory is not None and (held := worker.resident or 0) > isolation.memory:
        return "memory", f"was ended at {_size(held)} of memory (--max-memory {_size(isolation.memory)})"
    quiet = max(isolation.quiet, LONGER * at.longest)
    if at.kind == "call" and now - at.since > quiet:
        return "hang", f"was ended in a call that took over {quiet:.0f} s"
    patience = _PATIENCE if at.kind is not None and at.since < since else _SLOW
    if (since and now - since > patience) or (hurried is not None and hurried.over(worker, at, now, soon=_HURRY, late=_SLOW)):
        return "request", "was asked to end, and did not"
    if course.orders.finish is not None and now - started > _FINISHING:
        return "request", "was asked to end, and did not"
    return None


def _death(worker: Worker, kills: int | None) -> _Death:
    """How a process ended by itself, or by the system."""
    at, code = worker.in_flight, worker.close()
    if code >= 0:
        return _Death(f"ended with exit code {code}", at)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        now = memory_kills()
        for_memory = kills is not None and now is not None and now > kills
        return _Death("was killed for want of memory" if for_memory else "was killed, probably for want of memory", at, None, True)
    return _Death(f"ended with {name}", at)


def _go_on(course: _Course, death: _Death, stop: Stop) -> None:
    """Decide how the next process goes about the job.

    Raises:
        WorkerEnded: there is no use in another. Stopped: it was asked to end, and there is nothing to be kept.
    """
    at, orders = death.at, course.orders
    useless = not course.job.resumes or at.stage in GROUND
    if death.by_us == "request" and stop.hurried and (useless or orders.finish is not None):
        raise Stopped(stop.by)
    if orders.finish is not None or (death.by_us in ("request", "time") and useless):
        raise _given_up(course, death, "there is no result")
    if death.by_us in ("request", "time"):
        _note(course, death, None, "what was finished was kept")
        by = TIME_LIMIT if death.by_us == "time" else stop.by
        course.orders = replace(orders, finish=by or "SIGINT", careful=None)
        return
    if at.tried and at.position is not None:
        index = int([i for i in course.samples.indices.tolist() if i not in course.left_out][at.position])
        reason = f"ONNX Runtime {death.how} on this sample, or on a point beside it, {during(at.stage)}"
        _note(course, death, index, "the sample was left out")
        course.left_out[index], course.blamed = reason, course.blamed + 1
        course.orders = replace(orders, careful=None)
        if at.stage not in NEEDED and _laid(course, at.stage) > FEW:
            course.left_out = {i: why for i, why in course.left_out.items() if during(at.stage) not in why}
            _leave_out(course, death, "the stage was left out, and no sample for it")
        elif len(course.left_out) > max(LEAST, SHARE * len(course.samples)) or len(course.left_out) == len(course.samples):
            raise _given_up(course, death, f"{len(course.left_out)} samples are at fault")
    elif len(course.restarts) >= RESTARTS + 2 * course.blamed:
        raise _given_up(course, death, f"it was started again {len(course.restarts)} times")
    elif at.kind == "call" and orders.careful != at.stage:
        _note(course, death, None, "every row was tried alone in this stage")
        course.orders = replace(orders, careful=at.stage)
    elif at.kind == "call" and death.for_memory and at.rows > 1:
        _note(course, death, None, f"calls of at most {max(1, at.rows // 4)} rows")
        course.orders = replace(orders, careful=None, most_rows=max(1, at.rows // 4))
    elif at.kind is None and death.for_memory and at.stage not in course.repeated:
        course.repeated.add(at.stage)
        _note(course, death, None, "the stage was run again")
    elif at.stage == OPENING or any(name == at.stage for name, _ in orders.left_out):
        raise _given_up(course, death, "no sample is at fault")
    else:
        _leave_out(course, death, "the stage was left out")


def _laid(course: _Course, stage: str) -> int:
    """How many samples are left out for what happened in a stage."""
    return sum(during(stage) in why for why in course.left_out.values())


def _leave_out(course: _Course, death: _Death, then: str) -> None:
    """Go on without the stage in which a process ended."""
    _note(course, death, None, then)
    left_out = (*course.orders.left_out, (death.at.stage, f"ONNX Runtime {death.how}"))
    course.orders = replace(course.orders, careful=None, left_out=left_out)


def _note(course: _Course, death: _Death, sample: int | None, then: str) -> None:
    """Put the end of a process on record."""
    course.restarts.append(Restart(death.at.stage, death.how, sample, then))
    _log.info("the process of ONNX Runtime %s %s: %s", death.how, during(death.at.stage), then)


def _given_up(course: _Course, death: _Death, why: str) -> WorkerEnded:
    said = f"{course.names}: ONNX Runtime {death.how} {during(death.at.stage)}, and {why}: nothing was measured."
    mends = _MENDS.get(
        "memory" if death.for_memory else death.by_us or "", "Use another provider (--provider cpu) or another ONNX Runtime."
    )
    kind = OutOfTime if death.by_us == "time" or course.orders.finish == TIME_LIMIT else WorkerEnded
    return kind(f"{said} {mends}", tuple(course.restarts))


def _name(model: object) -> str:
    path = getattr(model, "path", None) or getattr(model, "name", None) or model
    return str(path)


def _size(count: int) -> str:
    """Bytes in print."""
    return next((f"{count / 2**k:.3g}{unit}" for unit, k in (("G", 30), ("M", 20), ("K", 10)) if count >= 2**k), f"{count}")


__all__ = ["Isolation", "OutOfTime", "Outcome", "WorkerEnded", "WorkerFault", "isolated", "isolated_audit"]
