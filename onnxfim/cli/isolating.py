"""How a command runs its models: each job in a process of its own, or all in this one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.isolation import Isolation, Outcome, OutOfTime, isolated, isolated_audit
from onnxfim.auditing.jobs import AuditJob, Job
from onnxfim.auditing.meter import Report
from onnxfim.auditing.process import can_fork
from onnxfim.cli.cache_folder import cache_folder
from onnxfim.cli.console import Console
from onnxfim.cli.waiting import Turn
from onnxfim.errors import SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.running import TIME_LIMIT, Restart
from onnxfim.runtime.stopping import Stop, current_stop

T = TypeVar("T")
_LONGEST = 1e6  # seconds that a timer is set to: eleven days, below what every system's clock takes


@dataclass(frozen=True)
class Runs:
    """Runs the jobs of one command.

    Attributes:
        console: Shows progress.
        apart: Whether each job gets a process of its own.
        isolation: How far that may go; the deadline counts for all jobs, and for those in this process too.
    """

    console: Console
    apart: bool
    isolation: Isolation

    def check_turn(self, name: str) -> None:
        """Raise where a job is not to begin.

        Raises:
            OutOfTime: the time is up. Stopped: the command was asked to end.
        """
        stop = current_stop()
        if stop is not None and stop.by != TIME_LIMIT:
            stop.check()
        if self.isolation.deadline is not None and time.monotonic() > self.isolation.deadline:
            raise OutOfTime(f"{name}: the time limit came before it was its turn. Give a longer --timeout.")

    def audit(
        self, candidate: Candidate, options: dict[str, Any], before: Sequence[Restart] = (), *, turn: Turn | None = None
    ) -> Audit:  # fmt: skip
        """The audit of a model; ``before`` are restarts that came before it, ``turn`` tells which of several jobs it is.

        Raises:
            OnnxFimError: as `isolation.isolated_audit`.
        """
        job = AuditJob(candidate, cache_folder(options))
        if self.apart:
            show = partial(self.console.progress, turn, apart=True)
            return isolated_audit(job, self.isolation, show=show, level=self._level, before=before)
        return self.here(job.run, turn)

    def do(self, job: Job[T], *, turn: Turn | None = None) -> Outcome[T]:
        """What comes of a job; ``turn`` tells which of several it is.

        Raises:
            OnnxFimError: as `isolation.isolated`.
        """
        if self.apart:
            return isolated(job, self.isolation, show=partial(self.console.progress, turn, apart=True), level=self._level)
        return Outcome(self.here(job.run, turn), {}, ())

    @property
    def _level(self) -> int:
        return logging.INFO if self.console.verbose else logging.WARNING

    def here(self, run: Callable[[Report, Stop], T], turn: Turn | None = None) -> T:
        """What comes of work in this process, which is asked to end when its time is up."""
        stop, timer = current_stop() or Stop(), None
        if self.isolation.deadline is not None:
            timer = threading.Timer(max(self.isolation.deadline - time.monotonic(), 0.0), stop.ask, (TIME_LIMIT,))
            timer.daemon = True
            timer.start()
        try:
            with self.console.progress(turn) as report:
                return run(report, stop)
        except KeyboardInterrupt:
            if stop.by == TIME_LIMIT:
                raise OutOfTime("the time limit came before anything was measured. Give a longer --timeout.") from None
            raise
        finally:
            if timer is not None:
                timer.cancel()


def runs(options: dict[str, Any], console: Console, *, started: float, several: bool) -> Runs:
    """How the options want the models run.

    Args:
        options: Those of the command.
        console: Shows progress.
        started: When the command began, by `time.monotonic`.
        several: Whether there are several models: one that crashes must then leave the others.

    Raises:
        SettingsError: limits that need a process of its own where that was refused.
    """
    asked, memory = options["isolate"], options["max_memory"]
    if asked == "off" and memory is not None:
        raise SettingsError("--max-memory: limits a process of its own, and --isolate off refuses one. Drop one of the two.")
    apart = asked == "on" or (
        asked == "auto" and (several or memory is not None or bool(options["custom_op_libraries"]) or can_fork())
    )
    deadline = None if options["timeout"] is None else started + min(options["timeout"], _LONGEST)
    return Runs(console, apart, Isolation(memory, deadline, options["call_timeout"]))
