"""The models of one comparison: each is measured, and one that fails leaves the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from onnxfim.auditing.common_step import Candidate, at_common_step
from onnxfim.auditing.isolation import OutOfTime, WorkerEnded
from onnxfim.auditing.jobs import AttributionJob, Job, OutputsJob, StepJob, without
from onnxfim.cli.console import Console
from onnxfim.cli.isolating import Runs
from onnxfim.cli.waiting import Turn
from onnxfim.errors import OnnxFimError
from onnxfim.record.audit import Audit
from onnxfim.record.deployment import Attribution, MovedOutput
from onnxfim.record.running import TIME_LIMIT, Restart
from onnxfim.record.steps import StepChoice
from onnxfim.runtime.stopping import Stopped

T = TypeVar("T")


@dataclass
class Field:
    """The models to compare, by their place among the subjects.

    Attributes:
        how: Runs what is to be done with them.
        console: Shows what is done.
        outputs: Of exactly two models, their outputs on all samples; ``evaluations`` is what they took.
        more: Whether a job is to come after the audits, of which nobody knows how long it takes.
        missing: Why models have no audit.
    """

    how: Runs
    console: Console
    more: bool = False
    outputs: tuple[MovedOutput, ...] | None = None
    evaluations: int = 0
    missing: list[OnnxFimError] = field(default_factory=list)
    _names: dict[int, str] = field(default_factory=dict)
    _candidates: dict[int, Candidate] = field(default_factory=dict)
    _audits: dict[int, Audit] = field(default_factory=dict)
    _restarts: dict[int, tuple[Restart, ...]] = field(default_factory=dict)
    _seconds: dict[int, float] = field(default_factory=dict)  # that the choice of each model's step took
    _taken: dict[int, float] = field(default_factory=dict)  # the same of the audits
    _turns: int = 0
    _jobs: int = 0

    def enter(self, place: int, name: str, candidate: Candidate) -> None:
        """Put a model in."""
        self._names[place], self._candidates[place] = name, candidate

    def measured(self, saved: Mapping[int, Audit]) -> dict[int, Audit]:
        """The audits of the models, by their place; those whose process ends are left out, and said to be ``missing``.

        Raises:
            OnnxFimError: a model that cannot be audited; none of two or more is left.
        """
        several = len(self._candidates) > 1 and not saved
        self._jobs = len(self._candidates) * (2 if several else 1) + (several and len(self._candidates) == 2) + self.more
        if len(self._candidates) == 2 and not saved:
            self._compare_outputs()
        chosen: dict[int, StepChoice] = {}
        if several:
            for place in list(self._candidates):
                began = time.monotonic()
                turn = self._turn(f"step of {self._name(place)}")
                step = self._of_one(place, partial(self._step_of, turn=turn))
                self._seconds[place] = time.monotonic() - began
                if step is not None:
                    chosen[place] = step
        places = list(self._candidates)
        known = [chosen[p] for p in places] if len(chosen) > 1 and not saved else None
        settings = at_common_step([self._candidates[p] for p in places], list(saved.values()), known)
        for place, ours in zip(places, settings, strict=True):
            told = "a step of its own" if ours.step is None else f"step {ours.step:.3g}"
            self.console.detail(f"measuring {self._names[place]} at {told}, {ours.scheme} differences, seed {ours.seed}")
            self._candidates[place] = replace(self._candidates[place], settings=ours)
            turn, began = self._turn(self._name(place), self._later(place), self._expected(place)), time.monotonic()
            audit = self._of_one(place, partial(self._audit_of, turn=turn))
            if audit is not None:
                self._audits[place] = audit
                self._taken[place] = time.monotonic() - began
        return self._audits

    def attribution(self, samples: int) -> Attribution | None:
        """Which nodes carry the change from the first to the second; None where one is missing or its process ended."""
        if len(self._audits) != 2:
            return None
        (first, second), (a, b) = self._candidates.values(), self._audits.values()
        self.console.detail(f"restoring the nodes of {b.model.name} one at a time")
        try:
            return self._done(AttributionJob(first, second, (a, b), samples), self._turn("attribution"))
        except WorkerEnded as error:
            self.console.say(f"no attribution: {error}", colour="yellow")
            return None

    def _compare_outputs(self) -> None:
        self.console.detail("comparing the outputs of both models on all samples")
        try:
            self.outputs, self.evaluations = self._done(OutputsJob(*self._candidates.values()), self._turn("outputs"))
        except WorkerEnded as error:
            self.console.say(f"the outputs were not compared: {error}", colour="yellow")

    def _of_one(self, place: int, do: Callable[[int], T]) -> T | None:
        """What comes of one model; None, and the model is left out, where its process ended."""
        try:
            self.how.check_turn(self._names[place])
            found = do(place)
            if isinstance(found, Audit) and found.run.interrupted_by == TIME_LIMIT and not found.measured:
                raise OutOfTime(f"{self._names[place]}: the time limit came before a sample was measured. Give a longer --timeout.")
            return found
        except Stopped as ended:
            error = WorkerEnded(
                f"{self._names[place]}: ended by {ended.by or 'an interrupt'} before a sample was measured. Run it again."
            )
        except WorkerEnded as ended:
            error = ended
        del self._candidates[place]
        self.missing.append(error)
        self.console.say(f"onnxfim: {error}", colour="red")
        return None

    def _step_of(self, place: int, turn: Turn | None) -> StepChoice:
        """The step that a model would choose."""
        return self._done(StepJob(self._candidates[place]), turn)

    def _audit_of(self, place: int, turn: Turn | None) -> Audit:
        """A model's audit."""
        return self.how.audit(self._candidates[place], {}, self._restarts.get(place, ()), turn=turn)

    def _turn(self, name: str, later: float | None = None, expected: float | None = None) -> Turn | None:
        """The next job's turn; None where there is one job alone."""
        self._turns += 1
        return Turn(self._turns, max(self._jobs, self._turns), name, later, expected) if self._jobs > 1 else None

    def _expected(self, place: int) -> float | None:
        """Seconds that a model's audit takes by the last one before it, as the choices of their steps took."""
        before = max((p for p in self._taken if p < place), default=None)
        if before is None or place not in self._seconds or before not in self._seconds:
            return None
        return self._taken[before] * self._seconds[place] / self._seconds[before]

    def _name(self, place: int) -> str:
        """The model's file."""
        return Path(self._names[place]).name

    def _later(self, place: int) -> float | None:
        """What the audits after this one take, in units of its own, as the choices of steps took; None where more comes."""
        own = self._seconds.get(place)
        after = [p for p in self._candidates if p > place]
        if self.more:
            return None
        return sum(1.0 if own is None else self._seconds.get(p, own) / own for p in after)

    def _done(self, job: Job[T], turn: Turn | None) -> T:
        """The result of a job; samples that it could not do are left out of what follows."""
        outcome = self.how.do(job, turn=turn)
        if outcome.left_out:
            for place, candidate in self._candidates.items():
                if any(candidate is c for c in job.candidates):
                    self._restarts[place] = (*self._restarts.get(place, ()), *outcome.restarts)
                    self._candidates[place] = without(candidate, outcome.left_out)
        return outcome.result
