"""Planning, measuring a shard and merging as jobs of another process, which a crash of ONNX Runtime ends alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.jobs import Job
from onnxfim.auditing.meter import Report
from onnxfim.data import Samples
from onnxfim.fleet.making_plans import plan
from onnxfim.fleet.measuring_shards import PlannedWork
from onnxfim.fleet.merging import merge
from onnxfim.record.audit import Audit
from onnxfim.record.plan import Plan
from onnxfim.record.reading_data import DataReading
from onnxfim.record.shard import Shard
from onnxfim.runtime.stopping import Stop


def _samples(candidate: Candidate) -> Samples:
    assert isinstance(candidate.inputs, Samples)
    return candidate.inputs


@dataclass(frozen=True)
class PlanJob(Job[Plan]):
    """The plan of an audit."""

    candidate: Candidate
    cache_dir: Path | None = None
    reading: DataReading | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.candidate,)

    def run(self, report: Report, stop: Stop) -> Plan:
        c = self.candidate
        return plan(
            c.model, _samples(c), settings=c.settings, progress=report, cache_dir=self.cache_dir, stop=stop, reading=self.reading
        )

    def written(self, result: Plan) -> str:
        return result.to_json()

    def read(self, text: str) -> Plan:
        return Plan.from_json(text)

    def of(self, change: Callable[[Candidate], Candidate]) -> PlanJob:
        return replace(self, candidate=change(self.candidate))


@dataclass(frozen=True)
class ShardJob(Job[Shard]):
    """Results of some of a plan's samples; ``batch`` is the rows of a call, where those are not the plan's."""

    plan: Plan
    candidate: Candidate
    indices: tuple[int, ...]
    part: tuple[int, int] | None = None
    cache_dir: Path | None = None
    batch: int | None = None
    resumes = True

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.candidate,)

    def run(self, report: Report, stop: Stop) -> Shard:
        c = self.candidate
        with PlannedWork(self.plan, c.model, _samples(c), progress=report, cache_dir=self.cache_dir, batch=self.batch) as work:
            return work.measure(self.indices, part=self.part, stop=stop)

    def written(self, result: Shard) -> str:
        return result.to_json()

    def read(self, text: str) -> Shard:
        return Shard.from_json(text)

    def of(self, change: Callable[[Candidate], Candidate]) -> ShardJob:
        return replace(self, candidate=change(self.candidate))

    def kept_in(self, folder: Path) -> ShardJob:
        return self if self.cache_dir is not None else replace(self, cache_dir=folder)


@dataclass(frozen=True)
class MergeJob(Job[Audit]):
    """The audit that shards make, with what looks at all results and at the model again."""

    plan: Plan
    candidate: Candidate
    shards: tuple[Shard, ...]
    partial: bool = False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.candidate,)

    def run(self, report: Report, stop: Stop) -> Audit:
        c = self.candidate
        return merge(self.plan, self.shards, finish=(c.model, _samples(c)), partial=self.partial, progress=report, stop=stop)

    def written(self, result: Audit) -> str:
        return result.to_json(indent=None)

    def read(self, text: str) -> Audit:
        return Audit.from_json(text)

    def of(self, change: Callable[[Candidate], Candidate]) -> MergeJob:
        return replace(self, candidate=change(self.candidate))
