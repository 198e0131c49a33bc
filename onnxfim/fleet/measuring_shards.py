"""Measures parts of a plan's samples: each as if all others were there."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing import planning
from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.measuring import Way, looked_over, measured, way_as_planned
from onnxfim.auditing.meter import Report
from onnxfim.auditing.pictures import PICTURED, at_ends, pictured, ranked_by
from onnxfim.auditing.run import Model, opened
from onnxfim.auditing.stages import conclusion
from onnxfim.auditing.summary import package_versions
from onnxfim.data import Samples
from onnxfim.errors import InputError, ProviderError
from onnxfim.fleet.grounding import ground_of, planned_samples, require_alike, require_same
from onnxfim.record.audit import Thumbnail
from onnxfim.record.plan import Plan
from onnxfim.record.running import FailedStage
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.record.shard import Shard
from onnxfim.runtime.stopping import Stop, Stopped, current_stop
from onnxfim.runtime.threads import one_blas_thread

Array: TypeAlias = np.ndarray[Any, Any]

_NOT_FINITE = "the model's output is not finite at this sample"


class PlannedWork:
    """A model opened for a plan's samples, which are measured in parts, in any order.

    Args:
        plan: The plan.
        model: The model: its file, or a function.
        samples: The data, the plan's samples among them.
        progress: Called as it goes on.
        cache_dir: As for `onnxfim.audit`.
        batch: Rows of a call, where they are not the plan's.
        providers: Where the model runs, as in `Settings.providers`, where the plan does not tell the device.

    Raises:
        OnnxFimError: model or data are not those of the plan, or open otherwise.
    """

    def __init__(
        self, plan: Plan, model: Model, samples: Samples, *, progress: Report | None = None, cache_dir: str | Path | None = None,
        batch: int | None = None, providers: tuple[str, ...] | None = None,
    ) -> None:  # fmt: skip
        self.plan = plan
        self._samples = planned_samples(plan, samples)
        self._audited = frozenset(plan.audited)
        self._gone = {s.index: s.reason for s in samples.skipped}
        settings = plan.audit.settings if batch is None else replace(plan.audit.settings, batch=batch)
        settings = settings if providers is None else replace(settings, providers=providers)
        # Opening looks at the first samples, which are therefore held against the plan before.
        first = [i for i in sorted({*plan.beside, *plan.read[:1]}) if i not in self._gone]
        require_same(plan, self._samples, first)
        context = opened(model, self._samples, None, settings, progress, cache_dir, batch=plan.batch if batch is None else None)
        require_alike(plan, context)
        if plan.one_shape:
            context.subject.forward.one_shape = True  # type: ignore[union-attr]
        ground = ground_of(plan, context)
        self._at = {int(i): p for p, i in enumerate(context.samples.indices)}
        self._known = np.zeros(len(context.samples), bool)
        self._ground = ground
        self._learn([self._at[i] for i in plan.beside if i in self._at])
        usable = np.flatnonzero(self._known)
        self._way = self._opened_way(replace(ground, clean=replace(ground.clean, usable=usable)))

    def __enter__(self) -> PlannedWork:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept on disk."""
        self._ground.memory.close()

    def measure(self, indices: Sequence[int], *, part: tuple[int, int] | None = None, stop: Stop | None = None) -> Shard:
        """Results of these samples: the same to the last bit whichever others are measured, before or with them.

        Args:
            indices: Which, among the plan's ``audited``.
            part: Which shard of how many it is.
            stop: What asks it to end.

        Raises:
            OnnxFimError: they cannot be measured as planned.
            Stopped: it was asked to end; what was measured is in the cache.
        """
        started, plan = time.perf_counter(), self.plan
        unknown = sorted(set(indices) - self._audited)
        if unknown:
            raise InputError(f"plan: sample {unknown[0]} is none of those that are to be measured. Name some of the plan's.")
        wanted = sorted(set(indices))
        require_same(plan, self._samples, [i for i in wanted if i not in self._gone])
        with self._running(stop):
            way, lost = self._way_of(wanted)
            before = way.ground.meter.passes
            found = _whole(lambda: measured(way)[1]) if len(way.ground.clean.audited) else Found("sketch", way.derivative.info)
            passes = way.ground.meter.passes - before
            samples = conclusion.told_samples(way.ground, found, plan.audit.bound)
        told = {s.index for s in samples}
        skipped = {s.index: s for s in (*lost, *found.skipped) if s.index not in told}
        return Shard(
            plan=plan.id,
            samples=samples,
            skipped=conclusion.in_order(skipped.values()),
            ratios=tuple(sorted(found.ratios.items())),
            evaluations=passes,
            thumbnails=self._pictures(samples),
            failed_stages=self.failed_stages,
            provider=way.ground.provider,
            platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            versions=package_versions(),
            seconds=time.perf_counter() - started,
            batch=way.ground.subject.forward.batch,
            part=part,
        )

    def look_over(self, results: Sequence[SampleResult], targets: Sequence[int], *, stop: Stop | None = None) -> tuple[Found, int]:
        """What looks at the results of all samples and at the model again: KL curves, attacks, the surrogate.

        Args:
            results: Of all samples.
            targets: Indices of those that are looked at.
            stop: What asks it to end.

        Returns:
            What was found of the targets, and the forward passes that it took.

        Raises:
            Stopped: it was asked to end.
        """
        require_same(self.plan, self._samples, [i for i in sorted(targets) if i not in self._gone])
        with self._running(stop):
            way, _ = self._way_of(sorted(targets))
            route, ground = way.derivative.route, way.ground
            if route is not None:  # slopes are at hand again, as they are where samples were just measured
                again = [ground.sample(p) for p in ground.clean.audited]
                for _ in route.measure(ground.X, ground.base, again):
                    pass
            everyone = np.array([p for i in self.plan.audited if (p := self._at.get(i)) is not None], np.int64)
            way = replace(way, ground=replace(ground, clean=replace(ground.clean, audited=everyone)))
            known = {self._at[r.index]: r for r in results if r.index in self._at}
            before = ground.meter.passes
            start = Found("gradient" if way.kind == "gradient" else "sketch", way.derivative.info, known)
            found = _whole(lambda: looked_over(way, start))
            return found, ground.meter.passes - before

    @property
    def failed_stages(self) -> tuple[FailedStage, ...]:
        """Stages that failed so far where nobody foresaw it."""
        return tuple(self._ground.faults.stages)

    @contextmanager
    def _running(self, stop: Stop | None) -> Iterator[None]:
        with (stop or current_stop() or Stop()).current() as heeded, one_blas_thread():
            self._ground.meter.stop = heeded
            before, heeded.heeded = heeded.heeded, True
            try:
                yield
            finally:
                heeded.heeded = before

    def _opened_way(self, ground: Ground) -> Way:
        gradient = self.plan.audit.gradient
        assert gradient is not None  # of every plan
        with one_blas_thread():
            return way_as_planned(ground, self.plan.way, gradient)

    def _learn(self, positions: Sequence[int]) -> None:
        """Clean outputs of these samples, where they are not known yet."""
        new = np.array([p for p in positions if not self._known[p]], np.int64)
        if not len(new):
            return
        base = self._ground.forward.outputs(self._ground.X[new], new)
        finite = np.isfinite(base).all(axis=(1, 2))
        self._ground.clean.base[new] = base
        self._known[new[finite]] = True

    def _way_of(self, indices: Sequence[int]) -> tuple[Way, tuple[Skipped, ...]]:
        """The way with these samples to be measured, and those of them that have no output."""
        at = [self._at[i] for i in indices if i in self._at]
        self._learn(at)
        lost = [i for i in indices if i not in self._at or not self._known[self._at[i]]]
        audited = np.array([p for p in at if self._known[p]], np.int64)
        ground = self._way.ground
        ground = replace(ground, clean=replace(ground.clean, audited=audited, usable=np.flatnonzero(self._known)))
        way = replace(self._way, ground=ground)
        if way.derivative.route is not None:
            planning.by_gradients(ground, way.derivative.route)
        elif way.plan is not None:
            planning.by_differences(ground, way.plan)
        return way, tuple(Skipped(i, self._gone.get(i, _NOT_FINITE)) for i in lost)

    def _pictures(self, samples: Sequence[SampleResult]) -> tuple[Thumbnail, ...]:
        """Pictures of the samples that may stand at an end of the ranking of all."""
        if self.plan.kind not in PICTURED:
            return ()
        shown = set().union(*(at_ends(ranked_by(samples, calibrated=c)) for c in (False, True)))
        X = self._ground.X
        return pictured({i: X[self._at[i]] for i in shown}, sorted(shown), self.plan.kind)


def _whole(measure: Callable[[], Found]) -> Found:
    """What was found, where nothing ended it early.

    Raises:
        Stopped: it was asked to end. ProviderError: the provider failed.
    """
    found = measure()
    if found.stopped is not None:
        raise ProviderError(found.stopped)
    if found.interrupted:
        raise Stopped(found.interrupted_by)
    return found
