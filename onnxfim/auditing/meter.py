"""Counts what an audit costs and how far it is, and ends it between two calls: the one place where forward passes are added up."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx

from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.gradients.nodewise import PASSES, NodeError
from onnxfim.runtime.rows import AroundForward, Forward, Rows
from onnxfim.runtime.stopping import Stop
from onnxfim.slopes.class_space import passes_of_products

Array: TypeAlias = np.ndarray[Any, Any]
Unit: TypeAlias = Literal["passes", "samples"]


@dataclass(frozen=True)
class Progress:
    """How far an audit is: the stage, and how much of the measuring is done of the total known so far.

    Differences are measured in forward passes, gradients in samples; ``unit`` says which.
    """

    stage: str
    done: int
    total: int
    unit: Unit = "passes"


Report: TypeAlias = Callable[[Progress], None]


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
        self._unit: Unit = "passes"
        self._report = report

    def spent(self, passes: int) -> None:
        """So many passes ran."""
        self.passes += passes

    def remembered(self, passes: int) -> None:
        """So many passes ran in an earlier audit, and the cache held what they gave."""
        self.passes += passes
        self.cached += passes

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

    def say(self, stage: str) -> None:
        """Report the progress."""
        if self._report is not None:
            self._report(Progress(stage, self.done, self.total, self._unit))


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
            z = self._forward.outputs(X[part], None if of is None else of[part])
            self._meter.spent(len(z))
            found.append(z)
            start += len(z)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def stream(self, X: Array, batches: Iterable[Rows], of: Array | None = None) -> Iterator[Array]:
        self._meter.check()
        answers = self._forward.stream(X, batches, of)
        try:
            for z in answers:
                self._meter.spent(len(z))
                yield z
                self._meter.check()
        finally:  # at once where this ends early: a thread of it draws the next batch
            if isinstance(answers, Generator):
                answers.close()


class MeteredModel(DifferentiableModel):
    """The derivative graphs, whose calls are counted."""

    def __init__(self, proto: onnx.ModelProto, *, meter: Meter, **options: Any) -> None:
        super().__init__(proto, **options)
        self._meter = meter

    def vjp(self, X: Array, U: Array, of: Array | None = None) -> tuple[Array, Array]:
        self._meter.check()
        found = super().vjp(X, U, of)
        self._meter.spent(len(X) * (1 + len(U)))
        return found

    def that_run(self, X: Array, of: Array | None = None) -> Array:
        found = super().that_run(X, of)
        self._meter.spent(2 * len(X))
        return found

    def jvp(self, X: Array, V: Array, of: Array | None = None) -> tuple[Array, Array]:
        self._meter.check()
        found = super().jvp(X, V, of)
        self._meter.spent(len(X) * (1 + len(V)))
        return found

    def gram(self, X: Array, U: Array, of: Array | None = None) -> Array:
        self._meter.check()
        found = super().gram(X, U, of)
        self._meter.spent(len(X) * passes_of_products(len(U)))
        return found

    def rule_errors(self, X: Array, v: Array, of: Array | None = None) -> tuple[Array, list[NodeError]]:
        self._meter.check()
        found = super().rule_errors(X, v, of)
        self._meter.spent(len(found[0]) * PASSES)
        return found

    def loss_gradient(self, X: Array, labels: Array, rivals: Array, of: Array | None = None) -> tuple[Array, Array]:
        self._meter.check()
        found = super().loss_gradient(X, labels, rivals, of)
        self._meter.spent(2 * len(X))
        return found
