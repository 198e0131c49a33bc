"""Calls of derivative graphs: of as many rows as memory holds, filled up for a device, NaN where the runtime fails on a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxfim.graph.held import POSITION
from onnxfim.graph.prepare import Prepared
from onnxfim.graph.shapes import Batch
from onnxfim.runtime.call_memory import CallCost, CallMemory
from onnxfim.runtime.failures import OutOfMemory, RowsFailed
from onnxfim.runtime.halving import counts, rejoined, stretch
from onnxfim.runtime.row_counts import filled

Array: TypeAlias = np.ndarray[Any, Any]
Run: TypeAlias = Callable[[Any, Sequence[str], Mapping[str, Array]], list[Array]]

#: Which axis of a graph's inputs and outputs the samples lie along; the temperature has none.
SAMPLES = {"x": 0, "z": 0, "target": 0, "aside": 0, POSITION: 0, "u": 1, "v": 1, "g": 1, "w": 1}
_BYTES = 4  # of a number: graphs compute in float32
_AT_ONCE = 3  # cotangents of one size that are held together: what comes in, what goes out, a product or a branch


def cost_of(prepared: Prepared) -> CallCost:
    """What a call of a derivative graph takes, from the shapes of the graph: all values of a sample, and cotangents of a seed.

    Values are kept until their derivative was taken; of cotangents the largest decide. Measured on convolutional networks it is
    one to two times what a call takes.
    """
    shapes = prepared.trace.shapes
    sizes = [_size(shapes[o]) for n in prepared.nodes for o in n.output if o in shapes]
    largest = max([*sizes, _size(shapes.get(prepared.x, ()))])
    weights = sum(math.prod(t.dims) for t in prepared.initializers)
    return CallCost(_BYTES * sum(sizes), _BYTES * _AT_ONCE * largest, _BYTES * weights)


def _size(shape: Sequence[Any]) -> int:
    """Numbers of one row; a value without the batch among its axes is there once, and little."""
    if not any(isinstance(d, Batch) for d in shape):
        return 0
    return int(np.prod([d.factor if isinstance(d, Batch) else d for d in shape], dtype=np.float64))


class BoundedCalls:
    """Calls the sessions of derivative graphs in parts that memory holds, one after the other.

    Args:
        memory: Bounds the parts.
        classes: Outputs of the model, K.
        shape: Shape of one sample.
        run: Runs a session on feeds.
    """

    def __init__(self, memory: CallMemory, classes: int, shape: tuple[int, ...], run: Run) -> None:
        self.memory, self._run = memory, run
        self._classes, self._shape = classes, shape

    def __call__(
        self, session: Any, outputs: Sequence[str], feeds: Mapping[str, Array], padded: Callable[[int, int], int] | None = None
    ) -> list[Array]:
        """The outputs of one call.

        Args:
            session: Of the graph.
            outputs: Which.
            feeds: Arrays by name, as in `SAMPLES`.
            padded: Rows that a call of so many, with so many seeds each, is filled up to; None where any number will do.

        Raises:
            OutOfMemory: one sample with one seed has no memory.
        """
        rows, seeds = counts(feeds, SAMPLES)
        parts, start = [], 0
        while start < rows:
            stop = min(rows, start + self.memory.rows(seeds, rows - start))
            part = dict(feeds) if stop - start == rows else stretch(feeds, SAMPLES, 1, start, stop)
            try:
                parts.append(self._forgiving(session, outputs, part, padded))
            except OutOfMemory:
                if (stop - start) * seeds == 1:
                    raise
                self.memory.failed((stop - start) * seeds)
                continue
            start = stop
        return parts[0] if len(parts) == 1 else rejoined(1, parts, outputs, SAMPLES)

    def _forgiving(
        self, session: Any, outputs: Sequence[str], feeds: Mapping[str, Array], padded: Callable[[int, int], int] | None
    ) -> list[Array]:
        """Outputs of rows that memory holds; NaN at those that the runtime fails on, which are found by halving."""
        rows, seeds = counts(feeds, SAMPLES)
        try:
            return self._seeds(session, outputs, feeds, padded)
        except RowsFailed:
            if rows == 1:
                sizes = {"z": (1, self._classes), "g": (seeds, 1, *self._shape), "w": (seeds, 1, self._classes)}
                return [np.full(sizes[name], np.nan, feeds["x"].dtype) for name in outputs]
            parts = [stretch(feeds, SAMPLES, 1, *ends) for ends in ((0, rows // 2), (rows // 2, rows))]
            return rejoined(1, [self._forgiving(session, outputs, p, padded) for p in parts], outputs, SAMPLES)

    def _seeds(
        self, session: Any, outputs: Sequence[str], feeds: Mapping[str, Array], padded: Callable[[int, int], int] | None
    ) -> list[Array]:
        """Outputs of the rows, the seeds of a single one in parts where there is no memory for all."""
        rows, seeds = counts(feeds, SAMPLES)
        parts, start = [], 0
        while start < seeds:
            stop = seeds if rows > 1 else min(seeds, start + self.memory.seeds(seeds))
            part = feeds if stop - start == seeds else stretch(feeds, SAMPLES, 0, start, stop)
            try:
                with self.memory.watched(rows, stop - start):
                    parts.append(self._filled(session, outputs, part, rows, rows if padded is None else padded(rows, stop - start)))
            except OutOfMemory:
                if rows > 1 or stop - start == 1:
                    raise
                self.memory.failed(stop - start)
                continue
            start = stop
        return parts[0] if len(parts) == 1 else rejoined(0, parts, outputs, SAMPLES)

    def _filled(self, session: Any, outputs: Sequence[str], feeds: Mapping[str, Array], rows: int, size: int) -> list[Array]:
        """One call of ``size`` rows; the outputs of those that were fed."""
        if size == rows:
            return self._run(session, outputs, feeds)
        whole = {name: filled(a, size, SAMPLES[name]) if name in SAMPLES else a for name, a in feeds.items()}
        return [
            z[(slice(None),) * SAMPLES[name] + (slice(rows),)]
            for name, z in zip(outputs, self._run(session, outputs, whole), strict=True)
        ]
