"""A crew of workers measures a plan's samples: ranges go out, answers come in, who is lost is replaced, progress is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from onnxfim.auditing.isolation import LEAST, RESTARTS, SHARE, WorkerEnded
from onnxfim.auditing.meter import Report, of_one_stage
from onnxfim.errors import ModelError, OnnxFimError, ProviderError
from onnxfim.fleet.ranges import IN_HAND, RangeQueue
from onnxfim.fleet.seat import heard
from onnxfim.record.audit import Audit
from onnxfim.record.plan import Plan
from onnxfim.record.running import UNMEASURED, Restart
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.record.shard import Shard
from onnxfim.runtime.stopping import Stop, Stopped
from onnxfim.verdict.judge import judge

_STAGE = "measuring"
_LOOK = 0.2  # seconds that an answer is waited for
_RECRUIT = 2.0  # seconds between two looks at how many workers there may be
_IDLE = 0.5  # seconds after which a worker without a range asks again
_TELL = 0.2  # seconds between two words of how far it is
_PATIENCE = 6.0  # seconds that ranges in flight are given once the run is asked to end: a little more than one lasts
_ALONE = 60.0  # seconds without any worker after which a run is given up
_STILLBORN = 3  # workers that die while they open the model, before that is given up
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerAnswer:
    """What came of something that a worker was asked.

    Attributes:
        worker: Which.
        text: Its answer, which `seat.heard` reads; None where it is gone.
        ended: How it ended, in words that follow "the worker".
        machine: Whether the whole machine is lost.
    """

    worker: Hashable
    text: str | None
    ended: str = ""
    machine: bool = False


class Backend(Protocol):
    """Where workers live; each is a `seat.Seat` that does what it is asked, one thing after another."""

    def places(self) -> int:
        """How many workers there may be now."""

    def start(self) -> Hashable:
        """A new worker, asked to open the model for the plan."""

    def measure(self, worker: Hashable, number: int, indices: Sequence[int]) -> None:
        """Ask a worker for a range."""

    def answers(self, timeout: float) -> Iterable[WorkerAnswer]:
        """What was answered; it waits so many seconds for the first. Of a worker that is gone there is one answer, the last."""

    def end(self, worker: Hashable) -> None:
        """End a worker, whatever it does; there is no answer of it afterwards."""


@dataclass(frozen=True)
class Crewed:
    """What a crew measured.

    Attributes:
        shards: Results, one shard for each worker, and one of the samples that could not be measured.
        restarts: Workers that died, and what was done about it.
        lost: Machines that were lost, in words.
        workers: How many measured at most at a time.
        ranges: How many were handed out.
        seconds: From the first worker's start to the last answer.
        busy: Seconds that all workers measured.
        stopped: Why it ended early where nobody asked for it.
        by: What asked it to end.
    """

    shards: tuple[Shard, ...]
    restarts: tuple[Restart, ...] = ()
    lost: tuple[str, ...] = ()
    workers: int = 0
    ranges: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    stopped: str | None = None
    by: str | None = None

    @property
    def whole(self) -> bool:
        """Whether it came to its end."""
        return self.stopped is None and self.by is None


@dataclass
class Crew:
    """Workers, and what they do for one plan.

    Args:
        backend: Where they live.
        plan: The plan.
        indices: Samples that are to be measured.
        report: Told of the progress.
        stop: What asks it to end.
        quiet: Seconds after which a range is taken for hung, or 100 times what is expected of it.
        share: Share of the run that was done before.
        clock: Seconds, by which all is told.
    """

    backend: Backend
    plan: Plan
    indices: Sequence[int]
    report: Report = field(default=lambda _: None)
    stop: Stop = field(default_factory=Stop)
    quiet: float = 300.0
    share: float = 0.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._queue = RangeQueue(self.indices)
        self._opening: set[Hashable] = set()
        self._hungry: set[Hashable] = set()
        self._shards: dict[Hashable, list[Shard]] = {}
        self._restarts: list[Restart] = []
        self._lost: list[str] = []
        self._refused: list[OnnxFimError] = []
        self._stillborn = self._most = self._deaths = 0
        self._stopped: str | None = None
        self._recruited = self._told = self._asked = -1e9
        self._company = self.clock()  # when there was a worker last

    def run(self) -> Crewed:
        """Measure all samples, or what there was time for.

        Raises:
            OnnxFimError: no worker can measure them. Stopped: it was asked to end before anything was measured.
        """
        started = self.clock()
        while not self._queue.over and self._stopped is None and not self.stop.asked:
            self._recruit()
            self._hear(_LOOK)
            self._feed()
            self._end_the_overdue()
            self._tell()
        if self.stop.asked:
            self._last_answers()
        if not self._shards and not self._queue.over:
            if self.stop.asked:
                raise Stopped(self.stop.by)
            raise WorkerEnded(f"{self._stopped}. Nothing was measured.", tuple(self._restarts))
        return Crewed(
            shards=(*(_joined(shards) for shards in self._shards.values()), *self._unmeasured()),
            restarts=tuple(self._restarts),
            lost=tuple(self._lost),
            workers=self._most,
            ranges=self._queue.handed,
            seconds=self.clock() - started,
            busy=sum(s.seconds for shards in self._shards.values() for s in shards),
            stopped=self._stopped,
            by=(self.stop.by or "SIGINT") if self.stop.asked and not self._queue.over else None,
        )

    def _recruit(self) -> None:
        """Start as many workers as there is room for.

        Raises:
            OnnxFimError: none can open the model.
        """
        now, crew = self.clock(), len(self._opening) + len(self._queue.workers)
        if crew:
            self._company = now
        if now - self._recruited < _RECRUIT:
            return
        self._recruited = now
        room = self.backend.places() - len(self._refused) - self._stillborn
        for _ in range(min(room, len(self._queue.missing)) - crew):
            self._opening.add(self.backend.start())
            crew += 1
        if crew:
            return
        if self._refused:
            raise self._refused[0]
        if now - self._company > _ALONE:
            self._stopped = f"no worker was left for {_ALONE:.0f} s"

    def _hear(self, timeout: float) -> None:
        for answer in self.backend.answers(timeout):
            if answer.text is None:
                self._gone(answer.worker, answer.ended, machine=answer.machine)
            elif answer.worker in self._opening:
                self._opened(answer.worker, answer.text)
            else:
                self._measured(answer.worker, answer.text)

    def _opened(self, worker: Hashable, text: str) -> None:
        self._opening.discard(worker)
        try:
            heard(text)
        except OnnxFimError as error:
            _log.warning("a worker cannot take part: %s", error)
            self._refused.append(error)
            self.backend.end(worker)
            self._recruited = -1e9
            return
        self._queue.joins(worker)
        self._hungry.add(worker)
        self._asked = -1e9  # who comes asks at once
        self._most = max(self._most, len(self._queue.workers))

    def _measured(self, worker: Hashable, text: str) -> None:
        try:
            message = heard(text)
        except ProviderError as error:  # a device of one machine: others may do it
            self.backend.end(worker)
            self._gone(worker, f"failed ({error})", machine=False)
            return
        fresh = self._queue.answered(worker, message["number"], message["seconds"], self.clock())
        self._hungry.add(worker)
        if not fresh:
            return
        shard = Shard.from_json(message["shard"], where=f"worker {worker}")
        if shard.plan != self.plan.id or shard.indices != set(fresh):
            raise ModelError(f"worker {worker}: answered for other samples than it was asked for. Install one onnxfim everywhere.")
        self._shards.setdefault(worker, []).append(shard)

    def _gone(self, worker: Hashable, ended: str, *, machine: bool) -> None:
        """A worker is gone: what it had in hand is measured by another.

        Raises:
            WorkerEnded: too many die.
        """
        self._hungry.discard(worker)
        self._recruited = -1e9
        if machine:
            self._lost.append(f"a worker {ended}")
        if worker in self._opening:
            self._opening.discard(worker)
            self._stillborn += not machine
            if self._stillborn >= _STILLBORN and not self._most:
                raise WorkerEnded(
                    f"{self._name}: the worker {ended} while opening the model, and so did others. Nothing was measured."
                )
            return
        loss = self._queue.lost(worker, ended, machine=machine)
        _log.info("the worker %s %s: %d samples are measured again", worker, ended, loss.again)
        if machine:
            return
        then = "the sample was left out" if loss.blamed is not None else "its samples were measured by another worker"
        self._restarts.append(Restart(_STAGE, ended, loss.blamed, then))
        self._deaths += 1
        skipped = len(self._queue.skipped)
        if skipped > max(LEAST, SHARE * len(self.indices)):
            raise WorkerEnded(f"{self._name}: workers died of {skipped} samples: the last {ended}.", tuple(self._restarts))
        if self._deaths > RESTARTS + 3 * self._most + 6 * skipped:
            self._stopped = f"{self._deaths} workers died, and no sample is at fault: the last {ended}"

    def _feed(self) -> None:
        """Hand ranges to all who have a hand free."""
        now, queue = self.clock(), self._queue
        if not queue.waiting and now - self._asked < _IDLE:
            return
        self._asked = now
        for _ in range(IN_HAND):  # one for each, before there is a second for anybody
            for worker in sorted(self._hungry, key=queue.busy):
                found = queue.take(worker, now)
                if found is None:
                    break  # nor is there any for the others
                self.backend.measure(worker, found.number, found.indices)
                if queue.full(worker):
                    self._hungry.discard(worker)

    def _end_the_overdue(self) -> None:
        for worker in self._queue.overdue(self.clock(), self.quiet):
            self.backend.end(worker)
            self._gone(worker, f"was ended in a range that took over {self.quiet:.0f} s", machine=False)

    def _last_answers(self) -> None:
        """Take in what is in flight, for a while; a second request ends that."""
        until = self.clock() + _PATIENCE
        for worker in tuple(self._opening):
            self.backend.end(worker)
        self._opening.clear()
        self._say("taking in what is in flight", _PATIENCE)
        while not self.stop.hurried and self.clock() < until and any(map(self._queue.busy, self._queue.workers)):
            self._hear(_LOOK)

    def _unmeasured(self) -> Sequence[Shard]:
        """A shard of the samples that have no result."""
        reasons = {**self._queue.skipped, **dict.fromkeys(self._queue.missing, UNMEASURED)}
        if not reasons:
            return ()
        like = next((s for shards in self._shards.values() for s in shards), None)
        run = self.plan.audit.run
        skipped = tuple(Skipped(i, reasons[i]) for i in sorted(reasons))
        nothing = Shard(
            plan=self.plan.id, samples=(), skipped=skipped, ratios=(), evaluations=0, thumbnails=(), failed_stages=(),
            provider=run.provider, platform=run.platform, versions=run.versions, seconds=0.0, batch=self.plan.batch,
        )  # fmt: skip
        return (nothing if like is None else replace(nothing, platform=like.platform),)

    def _tell(self) -> None:
        now, queue = self.clock(), self._queue
        if now - self._told < _TELL:
            return
        self._told = now
        crew, rate = len(queue.workers), queue.rate
        left = rate * len(queue.missing) / crew if rate is not None and crew else None
        self._say(f"measuring on {crew} worker{'s' * (crew != 1)}" if crew else "waiting for workers", left)

    def _say(self, stage: str, left: float | None) -> None:
        queue = self._queue
        share = self.share + (1.0 - self.share) * queue.done / max(queue.total, 1)
        self.report(of_one_stage(stage, queue.done, queue.total, "samples", share, left))

    @property
    def _name(self) -> str:
        return self.plan.audit.model.name


def with_crew(audit: Audit, crewed: Crewed, seconds: float, restarts: Sequence[Restart] = ()) -> Audit:
    """The merged audit with what became of its workers, ``restarts`` those of planning and merging; it took so many seconds in all.

    A machine that is lost changes no number and speaks against no model: it stands among the times, as all that hangs on the hour.
    """
    run = audit.run
    times = {
        **run.times, "workers": crewed.workers, "ranges": crewed.ranges, "workers_seconds": round(crewed.seconds, 3),
        "workers_busy_seconds": round(crewed.busy, 3),
    }  # fmt: skip
    if crewed.lost:
        times["lost_machines"] = len(crewed.lost)
    failed = run.failed_stages if crewed.whole else tuple(f for f in run.failed_stages if f.error != "Missing")
    run = replace(
        run, seconds=seconds, times=times, restarts=(*restarts, *run.restarts, *crewed.restarts), failed_stages=failed,
        partial=run.partial or not crewed.whole, stopped=crewed.stopped, interrupted_by=crewed.by,
    )  # fmt: skip
    return judge(replace(audit, run=run))


def _joined(shards: Sequence[Shard]) -> Shard:
    """Shards of one worker as one."""
    samples: list[SampleResult] = sorted((r for s in shards for r in s.samples), key=lambda r: r.index)
    return replace(
        shards[0],
        samples=tuple(samples),
        skipped=tuple(sorted((k for s in shards for k in s.skipped), key=lambda k: k.index)),
        ratios=tuple(sorted(pair for s in shards for pair in s.ratios)),
        evaluations=sum(s.evaluations for s in shards),
        thumbnails=tuple(t for s in shards for t in s.thumbnails),
        failed_stages=tuple(dict.fromkeys(f for s in shards for f in s.failed_stages)),
        restarts=tuple(r for s in shards for r in s.restarts),
        seconds=sum(s.seconds for s in shards),
    )


__all__ = ["Backend", "Crew", "Crewed", "WorkerAnswer", "with_crew"]
