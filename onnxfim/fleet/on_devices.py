"""One audit by several devices of a machine: planned once, measured by a process for each device, merged."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.isolation import Isolation, OutOfTime, Showing, WorkerEnded, isolated
from onnxfim.auditing.jobs import without
from onnxfim.auditing.meter import Progress, Report, of_one_stage
from onnxfim.fleet.claims import Claims
from onnxfim.fleet.devices import Device
from onnxfim.fleet.fleet_jobs import MergeJob, PlanJob
from onnxfim.fleet.lots_job import LotsJob
from onnxfim.fleet.merging import merge
from onnxfim.record.audit import Audit
from onnxfim.record.plan import Plan
from onnxfim.record.running import TIME_LIMIT, UNMEASURED, UNSHARDED, Restart
from onnxfim.record.shard import Shard
from onnxfim.runtime.stopping import Stop, Stopped, current_stop
from onnxfim.verdict.judge import judge

#: Lots for each device, so that one that is slower, or lost, leaves its part to the others; and samples of a lot at least.
LOTS, LEAST = 8, 16
_LOOKS = 0.1  # seconds between two looks at what the devices do
_TELLING = 0.05  # share of the work from which on the pace so far tells the time that is left
_COSTS = "left out"  # of what became of a restart: numbers are missing for it
_ENDS = (WorkerEnded, KeyboardInterrupt)  # a device is lost, or its work was asked to end
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Divided:
    """An audit by several devices.

    Attributes:
        audit: What one process would have found, times apart.
        notes: What happened to processes that moved no number, in words.
    """

    audit: Audit
    notes: tuple[str, ...] = ()


def audited_on(
    devices: Sequence[Device], candidate: Candidate, isolation: Isolation, *, cache_dir: Path | None = None,
    show: Showing | None = None, level: int = logging.WARNING,
) -> Divided:  # fmt: skip
    """The audit of a model whose samples are divided among devices, each in a process of its own.

    Lots of samples are taken from a folder until none is left, so that the faster device measures more of them. A process that dies
    is started again; a device that is lost leaves its lots to the others. Where it is asked to end, or its time is up, the audit is
    of the lots that are done.

    Args:
        devices: At least one.
        candidate: The model's file, its samples and settings.
        isolation: How far each process may go.
        cache_dir: Where answers are kept.
        show: Shows progress.
        level: Level from which messages of their log are handed on.

    Raises:
        OnnxFimError: as `isolated_audit`; or all devices were lost, or one runs the model otherwise than the first.
        KeyboardInterrupt: it was interrupted before a lot was done.
    """
    with (current_stop() or Stop()).current() as stop:
        folder = Path(tempfile.mkdtemp(prefix="onnxfim-"))
        try:
            return _Division(tuple(devices), candidate, isolation, cache_dir, show or _unseen, level, stop, folder).audited()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Division:
    """How the work of one audit is divided."""

    devices: tuple[Device, ...]
    candidate: Candidate
    isolation: Isolation
    cache_dir: Path | None
    show: Showing
    level: int
    stop: Stop
    folder: Path
    restarts: list[Restart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def audited(self) -> Divided:
        with _shown(self.devices[0]):  # the first plans and looks at all results
            planned = isolated(PlanJob(self.candidate, self.cache_dir), self.isolation, show=self._begun, level=self.level)
            self.restarts += planned.restarts
            if planned.left_out:
                self.candidate = without(self.candidate, planned.left_out)
            plan = planned.result
            lots = max(1, len(self.devices), min(LOTS * len(self.devices), len(plan.audited) // LEAST))
            (self.folder / "plan.json").write_text(plan.to_json(), "utf-8")
            claims = Claims.make(self.folder / "lots", lots)
            ended = self._measured(plan, claims, lots)
            shards = tuple(Shard.from_json(text, where=f"lot {number}") for number, text in claims.results().items())
            audit = self._merged(plan, shards, ended)
        restarts = tuple(dict.fromkeys((*self.restarts, *audit.run.restarts)))
        if restarts != audit.run.restarts:
            audit = judge(replace(audit, run=replace(audit.run, restarts=restarts)))
        return Divided(audit, tuple(self.notes))

    def _merged(self, plan: Plan, shards: tuple[Shard, ...], ended: str | None) -> Audit:
        if ended is None:
            outcome = isolated(MergeJob(plan, self.candidate, shards), self.isolation, show=self.show, level=self.level)
            self.restarts += outcome.restarts
            return outcome.result
        audit = merge(plan, shards, partial=True)  # without the model: nothing more is measured
        skipped = tuple(replace(s, reason=UNMEASURED) if s.reason == UNSHARDED else s for s in audit.skipped)
        return judge(replace(audit, skipped=skipped, run=replace(audit.run, partial=True, interrupted_by=ended)))

    @contextmanager
    def _begun(self) -> Iterator[Report]:
        """Progress of the plan: what it foretells is one process's time."""
        with self.show() as report:
            yield lambda p: report(replace(p, forecast=None, seconds_left=None))

    def _measured(self, plan: Plan, claims: Claims, lots: int) -> str | None:
        """Let the devices do the lots; what ended it early, None where all are done.

        Raises:
            OnnxFimError: lots are left that no device can do. KeyboardInterrupt: interrupted before one was done.
        """
        devices = self.devices
        while True:
            with self.show() as report, self._asked() as stop:
                together = _Together(report, claims, lots, len(plan.audited), len(devices))
                works = [_Work(self, device, lots, stop, together) for device in devices]
                self._wait(works, stop)
            failed = [w for w in works if w.failed is not None]
            for work in failed:
                claims.release(work.device.name)
            if claims.done == lots:
                self.notes += [f"device {w.device.name} was given up: {w.failed}" for w in failed]
                return None
            errors = [w.failed for w in failed if w.failed is not None]
            if wrong := next((e for e in errors if not isinstance(e, _ENDS)), None):
                raise wrong
            timed_out = next((e for e in errors if isinstance(e, OutOfTime)), None)
            if self.stop.asked or timed_out is not None:
                if claims.done:
                    return TIME_LIMIT if timed_out is not None and not self.stop.asked else self.stop.by or "SIGINT"
                raise timed_out or Stopped(self.stop.by)
            devices = tuple(w.device for w in works if w.failed is None)
            if not devices:
                raise errors[0]
            self.notes += [f"device {w.device.name} was given up: {w.failed}" for w in failed]

    def _wait(self, works: Sequence[_Work], stop: Stop) -> None:
        """Wait for all; where one cannot run the model as planned the others need not go on."""
        asked = False
        for work in works:
            work.thread.start()
        while any(w.thread.is_alive() for w in works):
            try:
                time.sleep(_LOOKS)
            except KeyboardInterrupt:  # where no handler takes signals
                self.stop.ask("SIGINT")
            if not asked and any(w.failed is not None and not isinstance(w.failed, _ENDS) for w in works):
                asked = True
                stop.ask()

    @contextmanager
    def _asked(self) -> Iterator[Stop]:
        """What the devices heed: who asks this audit to end asks them; lots that are done are kept, so that there is a result."""
        inner = Stop()
        self.stop.when_asked(lambda _: inner.ask(self.stop.by))
        with self.stop.unbroken():
            for _ in range(self.stop.asked):
                inner.ask(self.stop.by)
            yield inner


class _Work:
    """What one device does, in a process that a thread looks after.

    Attributes:
        device: Which.
        thread: The thread; to be started.
        failed: What it ended with where lots may be left, or None.
    """

    def __init__(self, of: _Division, device: Device, lots: int, stop: Stop, together: _Together) -> None:
        self.device = device
        self.failed: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True, name=f"onnxfim-device-{device.name}")
        self._of, self._stop, self._together = of, stop, together
        self._job = LotsJob(
            of.candidate, str(of.folder / "plan.json"), str(of.folder / "lots"), device.name, lots, device.shown or (),
            device.providers or (), device.cores, of.cache_dir,
        )  # fmt: skip

    def _run(self) -> None:
        of = self._of
        try:
            with self._stop.current():
                outcome = isolated(self._job, of.isolation, show=lambda: self._together.of(self.device.name), level=of.level)
        except BaseException as error:  # noqa: BLE001 - whatever it is, who waits for this thread judges it
            self.failed = error
            _log.info("device %s: %s", self.device.name, error)
        else:
            self._told(outcome.restarts)

    def _told(self, restarts: Sequence[Restart]) -> None:
        """Keep what became of the process: on record where it cost something, else in words."""
        for restart in restarts:
            if restart.sample is None and _COSTS not in restart.then:
                self._of.notes.append(f"the process of device {self.device.name} {restart.ended}, and was started again")
            else:
                self._of.restarts.append(restart)


class _Together:
    """The progress of all devices as that of one run."""

    def __init__(self, report: Report, claims: Claims, lots: int, samples: int, devices: int) -> None:
        self._report, self._claims, self._lots, self._samples = report, claims, lots, samples
        self._stage = f"on {devices} devices" if devices > 1 else "on one device"
        self._began, self._lock = time.monotonic(), threading.Lock()
        self._shares: dict[str, float] = {}
        self._share = 0.0
        report(of_one_stage("starting devices", 0, samples, "samples", 0.0, None))

    def of(self, name: str) -> AbstractContextManager[Report]:
        """What one device tells."""
        return nullcontext(lambda progress: self._heard(name, progress))

    def _heard(self, name: str, progress: Progress) -> None:
        with self._lock:
            self._shares[name] = min(progress.share, 0.9)
            whole = (self._claims.done + sum(self._shares.values())) / self._lots
            self._share = max(self._share, min(whole, 0.99))
            passed, share = time.monotonic() - self._began, self._share
            left = passed * (1 - share) / share if share > _TELLING else None
            self._report(of_one_stage(self._stage, round(share * self._samples), self._samples, "samples", share, left))


@contextmanager
def _shown(device: Device) -> Iterator[None]:
    """Processes that are started meanwhile see this device alone, where the environment tells that."""
    if device.shown is None:
        yield
        return
    name, value = device.shown
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _unseen() -> AbstractContextManager[Report]:
    return nullcontext(lambda _: None)


__all__ = ["Divided", "audited_on"]
