"""What an audit would take, from a few calls of everything that it does: nothing is measured to the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing import guaranteeing, planning
from onnxfim.auditing.cache import cache_limit
from onnxfim.auditing.context import Context, Found, Ground
from onnxfim.auditing.course import PlannedStage, Unit
from onnxfim.auditing.measuring import Way
from onnxfim.auditing.meter import Meter, Progress, Report
from onnxfim.auditing.run import Model, grounded, opened
from onnxfim.auditing.served_cost import ExpectedTraffic, expected_traffic, requests_of
from onnxfim.auditing.stages import bounding, by_gradients, choosing, crosscheck, flipping, unmeasurable
from onnxfim.data import Samples
from onnxfim.record.audit import GradientInfo
from onnxfim.record.settings import Settings
from onnxfim.runtime.available_memory import highest_memory
from onnxfim.runtime.stopping import Stop, current_stop
from onnxfim.runtime.threads import one_blas_thread
from onnxfim.slopes.exact import GradientRoute

Array: TypeAlias = np.ndarray[Any, Any]

_SAMPLES, _MEASURED = 64, 16  # that are read, and measured
_DIRECTIONS = 256  # of a sample
_LONGEST = 3.0  # seconds of a stage, after which it is broken off
_ONCE = ("trying rows against each other", "differentiating")  # that are tried whole
_CALLS = 4  # of the attack's gradient
_TIMED, _GUESSED = 0.25, 0.6  # relative, by which what was timed may be off, and what was guessed
_RESULT_BYTES = 4096  # of a sample's result and its flip on disk


@dataclass(frozen=True)
class ExpectedStage:
    """What a stage is expected to take: forward passes, and seconds."""

    stage: str
    passes: int
    seconds: float


@dataclass(frozen=True)
class DryRun:
    """What an audit is expected to take.

    Attributes:
        model: The file's name.
        method: How samples would be measured.
        reason: Why not by gradients, where they were not refused.
        scheme: How differences would be taken.
        provider: The ONNX Runtime provider.
        samples: Samples that would be audited.
        stages: What would be done, in order.
        passes: Forward passes in all.
        seconds, seconds_low, seconds_high: To the end, and a range for it; it tells of a machine that stays as busy as it is.
        at_most: Whether it may end long before, for a precision is to be reached.
        rows: Rows of a call.
        memory: Bytes in memory at most, about; None where the system does not tell.
        outputs: Bytes of outputs that all passes give.
        disk: Bytes that are kept in the cache, about, where there is one.
        traffic: What asking a served model takes; None of a file.
    """

    model: str
    method: str
    reason: str | None
    scheme: str
    provider: str
    samples: int
    stages: tuple[ExpectedStage, ...]
    passes: int
    seconds: float
    seconds_low: float
    seconds_high: float
    at_most: bool
    rows: int
    memory: int | None
    outputs: int
    disk: int
    traffic: ExpectedTraffic | None = None


class _Enough(KeyboardInterrupt):
    """A stage has run long enough to tell what the whole of it takes."""


class _Brief(Meter):
    """A meter that breaks a stage off between two calls when its time is up.

    Attributes:
        share: How much of it the last stage that counts had done.
    """

    def __init__(self, report: Report | None, stop: Stop | None) -> None:
        super().__init__(report, stop)
        self.share = 0.0
        self._deadline: float | None = None

    def check(self) -> None:
        super().check()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise _Enough

    def count(self, done: int, total: int, unit: Unit, share: float | None = None) -> None:
        self.share = done / max(total, 1) if share is None else share
        super().count(done, total, unit, share)

    def say(self, stage: str) -> None:
        if self._report is not None:
            self._report(Progress(f"timing: {stage}", 0, 0))

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """Break off what goes on longer than a few seconds."""
        self._deadline = time.monotonic() + _LONGEST
        try:
            with suppress(_Enough):
                yield
        finally:
            self._deadline = None


def dry_run(model: Model, inputs: Samples, settings: Settings, *, progress: Report | None = None) -> DryRun:
    """Open a model, time a few calls of all that an audit does with it, and tell what the audit would take.

    Args:
        model: As for `run.audit`.
        inputs: The samples.
        settings: What would be done.
        progress: Called as it goes on.

    Raises:
        OnnxFimError: as `run.audit`, where that would end at its beginning.
    """
    began = time.perf_counter()
    meter = _Brief(progress, current_stop())
    context = opened(model, inputs, None, settings, progress, None, meter=meter)
    if context.subject.info.served is not None:
        return _asked(context, time.perf_counter() - began)
    trial = _Trial(context, meter, time.perf_counter() - began)
    with one_blas_thread():
        return trial.told()


def _asked(context: Context, opening: float) -> DryRun:
    """What an audit of a served model takes: a few requests are timed, and no stage is tried, for each request is paid for."""
    stages = planning.by_sketch(context)
    n, rows = planning.audited(context), context.subject.forward.batch
    traffic = expected_traffic(context, stages)
    made = requests_of(stages, rows, n)
    told = [ExpectedStage("opening the model", 0, opening)]
    told += [
        ExpectedStage(p.stage, round(p.passes), made[p.stage] * traffic.seconds + p.seconds * (not made[p.stage])) for p in stages
    ]
    seconds = sum(s.seconds for s in told)
    info = context.subject.info
    outputs = round(sum(p.passes for p in stages)) * info.num_outputs * info.positions * 4
    at_most = any(p.at_most for p in stages)
    held = highest_memory()
    return DryRun(
        model=info.name, method="sketch", reason=context.subject.no_gradient, scheme=context.settings.scheme,
        provider=context.provider, samples=n, stages=tuple(told), passes=sum(s.passes for s in told), seconds=seconds,
        seconds_low=0.0 if at_most else seconds * (1 - _GUESSED), seconds_high=seconds * (1 + _GUESSED), at_most=at_most, rows=rows,
        memory=None if held is None else held + min(outputs, _kept(context)), outputs=outputs, disk=outputs, traffic=traffic,
    )  # fmt: skip


class _Trial:
    """An opened model whose stages are tried."""

    def __init__(self, context: Context, meter: _Brief, opening: float) -> None:
        self._context, self._meter = context, meter
        self._opening = opening
        self._bounding: float | None = None
        self._n = planning.audited(context)
        few = replace(
            context.settings, samples=min(self._n, _MEASURED), budget=min(context.settings.budget, _DIRECTIONS), precision=None
        )
        self._small = replace(context, samples=context.samples.first(max(_SAMPLES, _MEASURED)), settings=few)

    def told(self) -> DryRun:
        """Try all stages, and reckon what the whole takes."""
        ground, ended = grounded(self._small)
        if ended is not None:
            raise ended
        full = replace(ground, settings=self._context.settings, samples=self._context.samples)
        why = unmeasurable.why_unmeasurable(ground)
        if why is not None:
            parts, method = planning.of_nothing(full, self._n), "no values"
        else:
            derivative = by_gradients.differentiate(ground)
            why = derivative.info.reason
            if derivative.route is not None:
                self._by_gradients(ground, derivative, derivative.route)
                parts, method = planning.of_gradients(full, derivative.route, self._n), "gradient"
            else:
                again = ground.brief
                planning.fallen_back(ground)
                ground = choosing.with_care(ground)
                full = replace(ground, settings=self._context.settings, samples=self._context.samples)
                parts, method = self._by_differences(ground, full, derivative.info)
                if again:
                    parts.insert(0, planning.careful_ladder(full, self._n))
        self._bounded(ground)
        return self._reckoned(ground, [*planning.grounding(self._context, self._n), *parts], method, why)

    def _by_gradients(self, ground: Ground, derivative: by_gradients.Derivative, route: GradientRoute) -> None:
        found: Found | None = None
        with self._meter.briefly():
            found = by_gradients.measure(ground, derivative, route)
        if found is not None and ground.step.unchosen is None:
            with self._meter.briefly():
                crosscheck.cross_check(ground, found)
        self._after(Way(ground, derivative), found)
        if ground.settings.attack is not None:
            rows = min(self._n, ground.settings.attack_samples or self._n, route.model.rows_per_call(1), len(ground.X))
            X, of = ground.X[:rows], np.arange(rows)
            labels = np.zeros(rows, np.int64)
            with self._meter.briefly():
                for _ in range(_CALLS):
                    route.model.loss_gradient(X, labels, np.full(rows, -1), of)

    def _by_differences(self, ground: Ground, full: Ground, info: GradientInfo) -> tuple[list[PlannedStage], str]:
        from onnxfim.auditing.stages import by_differences

        plan = by_differences.plan(ground)
        done: by_differences.Round | None = None
        with self._meter.briefly():
            done = by_differences.first_round(ground, plan, info)
        if done is not None:
            self._after(Way(ground, by_gradients.Derivative(info), plan=plan), done.found)
        whole = by_differences.plan(full)
        return planning.of_differences(full, whole, self._n), "exact" if whole.exact else "sketch"

    def _after(self, way: Way, found: Found | None) -> None:
        """Try what looks at each sample after it was measured: for flips, and for what is guaranteed."""
        if found is None or not found.results:
            return
        whole = replace(found, interrupted=False)
        if way.looks_for_flips:
            with self._meter.briefly():
                flipping.flip(way.ground, whole, way.to_flips(whole))
        for stage in guaranteeing.of_each(way):
            with self._meter.briefly():
                stage(whole)

    def _outputs_kept(self, method: str, outputs: int) -> int:
        """Bytes of outputs on disk: of differences, all where a precision decides how many a sample gets, else a limited part."""
        if method == "gradient":
            return 0
        return outputs if self._context.settings.precision is not None else min(outputs, cache_limit() // 2)

    def _bounded(self, ground: Ground) -> None:
        """Time the bound; of a large file the first layers, by which the others are reckoned."""
        if ground.subject.file is None or not ground.settings.bounds:
            return
        self._meter.share = 0.0
        began, whole = time.perf_counter(), False
        with self._meter.briefly():
            bounding.read(ground)
            whole = True
        seconds, share = time.perf_counter() - began, self._meter.share
        self._bounding = seconds if whole else seconds / share if share else None

    def _reckoned(self, ground: Ground, parts: list[PlannedStage], method: str, reason: str | None) -> DryRun:
        course, context = self._meter.course, self._context
        once = {stage: course.took.get(stage) for stage in _ONCE} | {"bounding": self._bounding}
        stages = [ExpectedStage("opening the model", 0, self._opening)]
        low = high = stages[0].seconds
        for part in parts:
            timed = once.get(part.stage)
            seconds = timed if timed is not None else course.price_of(part) or 0.0
            off = _TIMED if timed is not None or part.passes else _GUESSED
            low, high = low + seconds * (1 - off), high + seconds * (1 + off)
            stages.append(ExpectedStage(part.stage, round(part.passes), seconds))
        passes = sum(s.passes for s in stages)
        at_most = any(p.at_most for p in parts)
        width = context.subject.info.num_outputs * context.subject.info.positions * 4
        outputs = passes * width
        held = highest_memory()
        return DryRun(
            model=context.subject.info.name, method=method, reason=None if method in ("gradient", "exact") else reason,
            scheme=ground.step.scheme, provider=context.provider, samples=self._n, stages=tuple(stages), passes=passes,
            seconds=sum(s.seconds for s in stages), seconds_low=0.0 if at_most else low, seconds_high=high, at_most=at_most,
            rows=context.subject.forward.batch, memory=None if held is None else held + min(outputs, _kept(context)),
            outputs=outputs, disk=self._n * _RESULT_BYTES + self._outputs_kept(method, outputs),
        )  # fmt: skip


def _kept(context: Context) -> int:
    """Bytes of outputs that an audit holds at a time: of all samples, and of those that may be refined."""
    from onnxfim.auditing.stages.by_differences import KEPT_BYTES

    return KEPT_BYTES + len(context.X) * context.subject.info.num_outputs * context.subject.info.positions * 8


__all__ = ["DryRun", "ExpectedStage", "dry_run"]
