"""The job of one of several processes that measure an audit: lots of its samples, one after another until none is free."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.jobs import Job
from onnxfim.auditing.meter import Report
from onnxfim.auditing.stages.conclusion import in_order
from onnxfim.data import Samples
from onnxfim.fleet.claims import Claims
from onnxfim.fleet.grounding import planned_samples
from onnxfim.fleet.measuring_shards import PlannedWork
from onnxfim.record.plan import Plan
from onnxfim.record.sample import Skipped
from onnxfim.record.shard import Shard
from onnxfim.runtime.stopping import Stop
from onnxfim.runtime.watching import current_watch


@dataclass(frozen=True)
class LotsJob(Job[int]):
    """Lots of a plan's samples, taken from a folder until none is free; the result is how many it did.

    Attributes:
        candidate: The model with all samples of the plan, and the audit's settings.
        plan_file: The plan.
        folder: The lots, as `Claims` holds them.
        taker: Who takes them.
        lots: How many there are in all.
        shown: Variable of the environment that shows the process its device, and the value; empty for all of them.
        providers: Where the model runs, where that tells the device; empty for the settings' own.
        cores: Those that the process keeps to; empty for all.
        cache_dir: Where answers are kept.
        left_out: Samples at which a process ended before: pairs of index and reason.
    """

    candidate: Candidate
    plan_file: str
    folder: str
    taker: str
    lots: int
    shown: tuple[str, str] | tuple[()] = ()
    providers: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()
    cache_dir: Path | None = None
    left_out: tuple[tuple[int, str], ...] = ()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.candidate,)

    def run(self, report: Report, stop: Stop) -> int:
        if self.shown:
            os.environ.update([self.shown])  # before the driver is asked for the first time
        if self.cores:
            with suppress(AttributeError, OSError):  # macOS, Windows: all cores are everybody's
                os.sched_setaffinity(0, set(self.cores))
        plan = Plan.from_json(Path(self.plan_file).read_bytes(), where=self.plan_file)
        done, claims = 0, Claims(Path(self.folder), self.taker)
        work: PlannedWork | None = None
        try:
            for number in claims:
                work = work or self._opened(plan, report)
                lot = plan.lot(number, self.lots)
                shard = work.measure([i for i in lot if i not in self._reasons], part=(number, self.lots), stop=stop)
                claims.finish(number, self._whole(shard, lot).to_json())
                done += 1
        finally:
            if work is not None:
                work.close()
        return done

    def _opened(self, plan: Plan, report: Report) -> PlannedWork:
        c = self.candidate
        assert isinstance(c.inputs, Samples)
        samples = planned_samples(plan, c.inputs)
        kept = [i for i in c.inputs.indices.tolist() if i not in self._reasons]
        places = {index: place for place, index in enumerate(kept)}  # as who started this process counts them
        current_watch().knows(samples.inputs, np.array([places.get(i, -1) for i in samples.indices.tolist()]))
        return PlannedWork(plan, c.model, samples, progress=report, cache_dir=self.cache_dir, providers=self.providers or None)

    @cached_property
    def _reasons(self) -> Mapping[int, str]:
        return dict(self.left_out)

    def _whole(self, shard: Shard, lot: Sequence[int]) -> Shard:
        """The shard with the samples that were left out."""
        lost = [Skipped(i, self._reasons[i]) for i in lot if i in self._reasons]
        return replace(shard, skipped=in_order((*shard.skipped, *lost))) if lost else shard

    def written(self, result: int) -> str:
        return str(result)

    def read(self, text: str) -> int:
        return int(text)

    def of(self, change: Callable[[Candidate], Candidate]) -> LotsJob:
        """The same without the samples that the change takes away; the others are measured as if those were there."""
        before, after = self.candidate.inputs, change(self.candidate).inputs
        assert isinstance(before, Samples)
        assert isinstance(after, Samples)
        gone = set(before.indices.tolist()) - set(after.indices.tolist())
        lost = tuple((s.index, s.reason) for s in after.skipped if s.index in gone)
        return replace(self, left_out=(*self.left_out, *lost))

    def kept_in(self, folder: Path) -> LotsJob:
        return self if self.cache_dir is not None else replace(self, cache_dir=folder)


__all__ = ["LotsJob"]
