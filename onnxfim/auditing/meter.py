"""Counts what an audit costs and how far it is, and ends it between two calls: the one place where forward passes are added up."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.course import Course, Kind, PlannedStage, Unit
from onnxfim.gradients.build import DerivativeKind
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.gradients.nodewise import PASSES, NodeError
from onnxfim.runtime.rows import AroundForward, Forward, Rows
from onnxfim.runtime.stopping import Stop
from onnxfim.slopes.class_space import passes_of_products

Array: TypeAlias = np.ndarray[Any, Any]

_FRESH = 0.05  # seconds for which the time left is not reckoned anew
_OFTEN = 0.5  # seconds without a word after which a call that came back is one


@dataclass(frozen=True)
class Forecast:
    """What a whole run is expected to take.

    Attributes:
        seconds: From its beginning to its end.
        passes: Forward passes, a row through a derivative graph counted as one for each seed.
        method: How the samples are measured.
        provider: The ONNX Runtime provider.
        samples: Samples that are audited.
        at_most: Whether the run may end long before: a precision is to be reached.
        sure: Whether the method is settled: derivative graphs passed their test, or there are none.
    """

    seconds: float
    passes: int
    method: str
    provider: str
    samples: int
    at_most: bool = False
    sure: bool = True


@dataclass(frozen=True)
class Progress:
    """How far an audit is.

    Attributes:
        stage: What it does.
        done: How much of the measuring is done, of the ``total`` known so far: forward passes of differences, samples of gradients.
        total: The same in all; 0 where that is not known.
        unit: What the two count.
        share: Share of the run that is done, 0 to 1; it never falls. 0 as long as the time left is not known.
        seconds_left: To the end of the run; None as long as that is not known.
        stage_seconds_left: To the end of the stage, of those.
        at_most: Whether the run may end long before, for a precision is to be reached.
        step: Number of the stage, from 1; 0 where it is not known how many there are.
        steps: How many there are.
        stage_done: How much of the stage itself is done.
        stage_total: Of so much; 0 where nothing is counted in it.
        stage_unit: What these count.
        forecast: What the whole run is expected to take; None as long as that is not known.

    Examples:
        >>> import numpy as np
        >>> import onnxfim
        >>> told = []
        >>> X = np.load("digits.npz")["inputs"][:20]
        >>> audit = onnxfim.audit("digits_mlp.onnx", X, progress=told.append)
        >>> {p.stage_unit for p in told if p.stage == "measuring"}, told[-1].stage
        ({'samples'}, 'concluding')
    """

    stage: str
    done: int
    total: int
    unit: Unit = "passes"
    share: float = 0.0
    seconds_left: float | None = None
    stage_seconds_left: float = 0.0
    at_most: bool = False
    step: int = 0
    steps: int = 0
    stage_done: int = 0
    stage_total: int = 0
    stage_unit: Unit = "passes"
    forecast: Forecast | None = None


Report: TypeAlias = Callable[[Progress], None]


def of_one_stage(stage: str, done: int, total: int, unit: Unit, share: float, left: float | None) -> Progress:
    """How far a run is that is one stage: so much of the total is done, ``share`` of the work, and ``left`` seconds remain."""
    return Progress(stage, done, total, unit, share, left, left or 0.0, stage_done=done, stage_total=total, stage_unit=unit)


@dataclass(frozen=True)
class Outlook:
    """What a run does, for its `Forecast`."""

    method: str
    provider: str
    samples: int
    sure: bool


class Meter:
    """Forward passes that an audit's figures rest on, and its progress.

    What counts:

    - a row through the audited model is one pass. The first few rows, by which a model is opened and its batch size found, and
      the rows that fill a batch up to a size the model insists on, measure nothing and do not count;
    - a call of a derivative graph with S cotangents or tangents is ``1 + S`` passes a sample: the forward pass that the graph
      makes, and one for each seed, which costs about as much (tests/benchmarks/bench_gradients.py);
    - a call of S products with ``J Jᵀ`` is `passes_of_products` passes a sample: ``2 + 3S``;
    - the test of derivative rules at their own nodes is one pass for the values of a row, one for its tangents, and one for every
      evaluation of all nodes; looking for ties is two passes a sample, at the sample and beside it;
    - rows of the ladder that serve as measurements too ran once and count once;
    - what a cache answered counts as if it had run now, so that a resumed audit equals an uninterrupted one; ``cached`` tells how
      many of ``passes`` these are.

    Args:
        report: Told of the progress.
        stop: Whether the audit is asked to end; looked at before every call that is counted here.
    """

    def __init__(self, report: Report | None = None, stop: Stop | None = None) -> None:
        self.stop = Stop() if stop is None else stop
        self.passes = self.cached = 0
        self.done = self.total = 0
        self.course = Course(work=time.thread_time)
        self._outlook: Outlook | None = None
        self._unit: Unit = "passes"
        self._report = report
        self._stage, self._said = "", 0.0
        self._told: Progress | None = None  # as it was reckoned last, and when that was
        self._reckoned = 0.0

    def plan(self, parts: Iterable[PlannedStage], outlook: Outlook) -> None:
        """What is to come from here on."""
        self._outlook = outlook
        self.course.plan(tuple(parts))

    def spent(self, passes: int, kind: Kind | None = None, seconds: float = 0.0) -> None:
        """So many passes ran; in so many seconds, where it is told what they went through."""
        self.passes += passes
        self.course.spent(passes, kind, seconds)
        if self._report is not None and self._stage and time.monotonic() - self._said > _OFTEN:
            self.say(self._stage)

    def remembered(self, passes: int) -> None:
        """So many passes ran in an earlier audit, and the cache held what they gave."""
        self.passes += passes
        self.cached += passes
        self.course.spared(passes)

    def check(self) -> None:
        """Raise where the audit is asked to end: to be called between two pieces of work that are kept.

        Raises:
            Stopped: it is.
        """
        self.stop.check()

    def expect(self, total: int, unit: Unit = "passes") -> None:
        """The measuring takes so much in all; what was done in another unit is no part of it."""
        if unit != self._unit:
            self.done = 0
        self.total, self._unit = total, unit

    def further(self, more: int) -> None:
        """So many passes are still to come."""
        self.expect(0)
        self.total = self.done + more

    def advance(self, done: int) -> None:
        """So much more of the measuring is done."""
        self.done += done

    def begins(self, stage: str) -> bool:
        """A stage begins; whether it is one of its own, and no part of another."""
        own = self.course.enter(stage)
        if own:
            self._stage, self._told = stage, None
        return own

    def over(self) -> None:
        """The stage that began is over."""
        self.course.leave()

    def count(self, done: int, total: int, unit: Unit, share: float | None = None) -> None:
        """So much of the stage that runs is done, as for `Course.count`."""
        self.course.count(done, total, unit, share)

    def measured(self, total: int, together: int) -> None:
        """So many samples are measured as `advance` told, of so many; ``together`` are always measured at once."""
        self.course.count(self.done, total, "samples")
        if self.done % together == 0 or self.done == total:
            self.course.expect_as(self.done, total)

    def say(self, stage: str) -> None:
        """Report the progress."""
        if self._report is None:
            return
        now = time.monotonic()
        if self._told is None or stage != self._stage or now - self._reckoned > _FRESH:
            self._told, self._reckoned = self._standing(stage), now
        told = replace(self._told, done=self.done, total=self.total, unit=self._unit)
        self._stage, self._said = stage, now
        self._report(told)

    def _standing(self, stage: str) -> Progress:
        """How far it is, reckoned anew."""
        at = self.course.standing()
        return Progress(
            stage, self.done, self.total, self._unit, at.share, at.left, at.stage_left, at.at_most, at.step, at.steps, at.done,
            at.total, at.unit, self._forecast(at.left, at_most=at.at_most),
        )  # fmt: skip

    def _forecast(self, left: float | None, *, at_most: bool) -> Forecast | None:
        look = self._outlook
        if left is None or look is None:
            return None
        seconds = self.course.passed + left
        return Forecast(seconds, self.course.passes, look.method, look.provider, look.samples, at_most, look.sure)


class MeteredForward(AroundForward):
    """The audited model, whose rows are counted."""

    def __init__(self, forward: Forward, meter: Meter) -> None:
        super().__init__(forward)
        self._meter = meter

    def outputs(self, X: Array, of: Array | None = None) -> Array:
        found: list[Array] = []
        start = 0
        while start < len(X) or not found:  # a batch at a time, so that an audit can end between two
            self._meter.check()
            part = slice(start, start + self.batch)
            started = time.perf_counter()
            z = self._forward.outputs(X[part], None if of is None else of[part])
            self._meter.spent(len(z), "rows", time.perf_counter() - started)
            found.append(z)
            start += len(z)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def stream(self, X: Array, batches: Iterable[Rows], of: Array | None = None) -> Iterator[Array]:
        self._meter.check()
        answers = self._forward.stream(X, batches, of)
        try:
            started = time.perf_counter()
            for z in answers:
                self._meter.spent(len(z), "differences", time.perf_counter() - started)
                yield z
                self._meter.check()
                started = time.perf_counter()
        finally:  # at once where this ends early: a thread of it draws the next batch
            if isinstance(answers, Generator):
                answers.close()


class MeteredModel(DifferentiableModel):
    """The derivative graphs, whose calls are counted."""

    def __init__(self, proto: onnx.ModelProto, *, meter: Meter, **options: Any) -> None:
        super().__init__(proto, **options)
        self._meter, self._readying = meter, 0.0

    def _derive(self, kind: DerivativeKind) -> onnx.ModelProto:
        started = time.perf_counter()
        found = super()._derive(kind)
        self._readied(time.perf_counter() - started)
        return found

    def _open(self, model: onnx.ModelProto) -> Any:
        started = time.perf_counter()
        session = super()._open(model)
        self._readied(time.perf_counter() - started)
        return session

    def _readied(self, seconds: float) -> None:
        self._readying += seconds
        self._meter.course.beside(seconds)

    def _begins(self) -> float:
        """When a call begins, by a clock that stands while a graph is derived and opened."""
        self._meter.check()
        return time.perf_counter() - self._readying

    def _ended(self, passes: int, kind: Kind, began: float) -> None:
        self._meter.spent(passes, kind, time.perf_counter() - self._readying - began)

    def vjp(self, X: Array, U: Array, of: Array | None = None) -> tuple[Array, Array]:
        began = self._begins()
        found = super().vjp(X, U, of)
        self._ended(len(X) * (1 + len(U)), "derivatives", began)
        return found

    def that_run(self, X: Array, of: Array | None = None) -> Array:
        found = super().that_run(X, of)
        self._meter.spent(2 * len(X))
        return found

    def jvp(self, X: Array, V: Array, of: Array | None = None) -> tuple[Array, Array]:
        began = self._begins()
        found = super().jvp(X, V, of)
        self._ended(len(X) * (1 + len(V)), "derivatives", began)
        return found

    def gram(self, X: Array, U: Array, of: Array | None = None) -> Array:
        began = self._begins()
        found = super().gram(X, U, of)
        self._ended(len(X) * passes_of_products(len(U)), "derivatives", began)
        return found

    def rule_errors(self, X: Array, v: Array, of: Array | None = None) -> tuple[Array, list[NodeError]]:
        self._meter.check()
        found = super().rule_errors(X, v, of)
        self._meter.spent(len(found[0]) * PASSES)
        return found

    def loss_gradient(self, X: Array, labels: Array, rivals: Array, of: Array | None = None) -> tuple[Array, Array]:
        began = self._begins()
        found = super().loss_gradient(X, labels, rivals, of)
        self._ended(2 * len(X), "attack", began)
        return found
