"""What can be asked of another process: work on models and samples whose result comes back as text."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.dry_run import DryRun, dry_run
from onnxfim.auditing.in_flight import Orders
from onnxfim.auditing.meter import Report, of_one_stage
from onnxfim.auditing.run import audit, planned_step
from onnxfim.auditing.two_outputs import two_outputs
from onnxfim.data import Samples
from onnxfim.record.audit import Audit
from onnxfim.record.deployment import Attribution, MovedOutput
from onnxfim.record.fitting import from_plain
from onnxfim.record.layout import sample_parts, samples_of
from onnxfim.record.plain import to_plain
from onnxfim.record.sample import SampleResult
from onnxfim.record.steps import StepChoice
from onnxfim.runtime.stopping import Stop

T = TypeVar("T")
#: Outputs of two models on all samples, and the forward passes that they took.
TwoOutputs: TypeAlias = tuple[tuple[MovedOutput, ...], int]


class Gathered(Generic[T]):
    """A result that comes in texts: here in one."""

    def __init__(self, read: Callable[[str], T]) -> None:
        self._read, self._texts = read, list[str]()

    def take(self, text: str) -> None:
        """The next text."""
        self._texts.append(text)

    def result(self) -> T:
        """The result, when all texts have come."""
        return self._read("".join(self._texts))


class _GatheredAudit(Gathered[Audit]):
    """An audit without its samples, then these, some at a time: each becomes its record before the next ones come."""

    def __init__(self) -> None:
        super().__init__(lambda text: from_plain(Audit, json.loads(text)))
        self._samples: list[SampleResult] = []

    def take(self, text: str) -> None:
        if self._texts:
            self._samples += samples_of(text)
        else:
            self._texts.append(text)

    def result(self) -> Audit:
        return replace(super().result(), samples=tuple(self._samples))


class Job(ABC, Generic[T]):
    """Work that another process does."""

    #: Whether it goes on from a store of answers, and gives what it has where it is asked to end.
    resumes = False

    @property
    @abstractmethod
    def candidates(self) -> tuple[Candidate, ...]:
        """The models that it runs, each with its samples."""

    @abstractmethod
    def run(self, report: Report, stop: Stop) -> T:
        """Do it."""

    @abstractmethod
    def written(self, result: T) -> str:
        """The result as text."""

    @abstractmethod
    def read(self, text: str) -> T:
        """The result that `written` made the text of."""

    def parts(self, result: T) -> Iterator[str]:
        """The result as texts, one after another, none of them long; what `gathered` takes in."""
        yield self.written(result)

    def gathered(self) -> Gathered[T]:
        """What takes in the texts that `parts` gave, as they come."""
        return Gathered(self.read)

    @abstractmethod
    def of(self, change: Callable[[Candidate], Candidate]) -> Job[T]:
        """The same with each candidate changed."""

    def kept_in(self, folder: Path) -> Job[T]:
        """The same with its store of answers in this folder, where it has none and can use one."""
        return self


@dataclass(frozen=True)
class AuditJob(Job[Audit]):
    """An audit; ``cache_dir`` is where its answers are kept."""

    candidate: Candidate
    cache_dir: Path | None = None
    resumes = True

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.candidate,)

    def run(self, report: Report, stop: Stop) -> Audit:
        c = self.candidate
        return audit(c.model, c.inputs, settings=c.settings, progress=report, cache_dir=self.cache_dir, stop=stop)

    def written(self, result: Audit) -> str:
        return result.to_json(indent=None)

    def read(self, text: str) -> Audit:
        return Audit.from_json(text)

    def parts(self, result: Audit) -> Iterator[str]:
        yield self.written(replace(result, samples=()))
        yield from sample_parts(result.samples)

    def gathered(self) -> Gathered[Audit]:
        return _GatheredAudit()

    def of(self, change: Callable[[Candidate], Candidate]) -> AuditJob:
        return replace(self, candidate=change(self.candidate))

    def kept_in(self, folder: Path) -> AuditJob:
        return self if self.cache_dir is not None else replace(self, cache_dir=folder)


@dataclass(frozen=True)
class StepJob(Job[StepChoice]):
    """The step that an audit would choose."""

    candidate: Candidate

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.candidate,)

    def run(self, report: Report, stop: Stop) -> StepChoice:
        with stop.current():
            return planned_step(self.candidate.model, self.candidate.inputs, self.candidate.settings, report)

    def written(self, result: StepChoice) -> str:
        return json.dumps(to_plain(result))

    def read(self, text: str) -> StepChoice:
        found: StepChoice = from_plain(StepChoice, json.loads(text))
        return found

    def of(self, change: Callable[[Candidate], Candidate]) -> StepJob:
        return replace(self, candidate=change(self.candidate))


@dataclass(frozen=True)
class DryRunJob(Job[DryRun]):
    """What an audit would take."""

    candidate: Candidate

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.candidate,)

    def run(self, report: Report, stop: Stop) -> DryRun:
        c = self.candidate
        with stop.current():
            assert isinstance(c.inputs, Samples)
            return dry_run(c.model, c.inputs, c.settings, progress=report)

    def written(self, result: DryRun) -> str:
        return json.dumps(to_plain(result))

    def read(self, text: str) -> DryRun:
        found: DryRun = from_plain(DryRun, json.loads(text))
        return found

    def of(self, change: Callable[[Candidate], Candidate]) -> DryRunJob:
        return replace(self, candidate=change(self.candidate))


@dataclass(frozen=True)
class OutputsJob(Job[TwoOutputs]):
    """The outputs of two models on the same samples."""

    first: Candidate
    second: Candidate

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return self.first, self.second

    def run(self, report: Report, stop: Stop) -> TwoOutputs:
        with stop.current():
            return two_outputs(self.first, self.second, report)

    def written(self, result: TwoOutputs) -> str:
        return json.dumps(to_plain(result))

    def read(self, text: str) -> TwoOutputs:
        outputs, passes = json.loads(text)
        return tuple(from_plain(MovedOutput, o) for o in outputs), int(passes)

    def of(self, change: Callable[[Candidate], Candidate]) -> OutputsJob:
        return OutputsJob(change(self.first), change(self.second))


@dataclass(frozen=True)
class AttributionJob(Job[Attribution]):
    """Which nodes carry what changed between two models; progress is told in nodes."""

    first: Candidate
    second: Candidate
    audits: tuple[Audit, Audit]
    samples: int

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return self.first, self.second

    def run(self, report: Report, stop: Stop) -> Attribution:
        began = time.monotonic()

        def told(done: int, total: int, name: str) -> None:
            share = done / max(total, 1)
            left = None if not done else (time.monotonic() - began) * (total - done) / done
            report(of_one_stage(f"restoring {name}", done, total, "nodes", share, left))

        with stop.current():
            from onnxfim.auditing.attribution import attribute  # no other job needs it

            return attribute(self.first, self.second, self.audits, samples=self.samples, told=told)

    def written(self, result: Attribution) -> str:
        return json.dumps(to_plain(result))

    def read(self, text: str) -> Attribution:
        found: Attribution = from_plain(Attribution, json.loads(text))
        return found

    def of(self, change: Callable[[Candidate], Candidate]) -> AttributionJob:
        return replace(self, first=change(self.first), second=change(self.second))


def without(candidate: Candidate, reasons: Mapping[int, str]) -> Candidate:
    """The candidate without the samples of these indices, each listed as skipped for its reason."""
    assert isinstance(candidate.inputs, Samples)
    return replace(candidate, inputs=candidate.inputs.without(reasons))


@dataclass(frozen=True)
class Task:
    """A job, and how it is gone about.

    Attributes:
        job: The job.
        orders: How.
        level: Level from which messages of the log are handed on.
    """

    job: Job[Any]
    orders: Orders
    level: int
