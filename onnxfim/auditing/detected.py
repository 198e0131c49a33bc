"""A detector's scores: the part of its output, or the value before its suppression, that holds them alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.finding_axes import OutputAxes
from onnxfim.auditing.opening_heads import Trials, View, as_it_is, boxes_apart, copied, read_head
from onnxfim.auditing.reproducing import same
from onnxfim.errors import InputError
from onnxfim.graph.before_sigmoid import logits_of
from onnxfim.graph.detections import SideBySide, boxes_beside_scores, located_scores, suppression
from onnxfim.graph.flow import followed
from onnxfim.graph.graph import Node
from onnxfim.graph.head_copies import Pen
from onnxfim.graph.heads import Head
from onnxfim.graph.load import value_type
from onnxfim.graph.surgery import read_from
from onnxfim.record.settings import Settings

Array: TypeAlias = np.ndarray[Any, Any]

_NUMBERS = 4  # of a box


def scores_of(trials: Trials, head: Head, settings: Settings) -> View:
    """The scores of a detector: of one output, beside its boxes or apart from them, or as its suppression reads them.

    Raises:
        InputError: the scores' place in the output is not known, or a copy does not give them.
    """
    graph = trials.file.graph
    last = suppression(graph, head.value.name)
    if last is not None:
        return _before_suppression(trials, head, last, settings)
    beside = boxes_beside_scores(graph, head.value.name)
    if beside is not None:
        return _part(trials, head, beside, settings)
    z = read_head(trials, head)
    if (place := located_scores(z)) is not None:
        return _cut(trials, head, *place, settings)
    shape = z.shape
    if len(shape) == 2:  # one score for each box
        pen = Pen(trials.file.proto)
        boxes = pen.reshaped(head.value.name, 0, 1, -1)
        view = copied(
            trials, pen, boxes, head.value.dtype, lambda: read_head(trials, head)[:, None], head, settings, "an axis for its boxes"
        )
        return replace(view, axes=OutputAxes(1, 0, "one score for each box"))
    view = as_it_is(trials.file, head, settings)
    if settings.class_axis is None and (axis := _class_axis(trials, shape)) is not None:
        return replace(view, axes=OutputAxes(axis, 0, f"scores on axis {axis}, beside that of the boxes"))
    return view


def _class_axis(trials: Trials, shape: Sequence[int]) -> int | None:
    """The axis of an output (N, boxes, K) or (N, K, boxes) that is not that of the boxes; None where shapes do not tell it."""
    if len(shape) != 3:
        return None
    for boxes in boxes_apart(trials):
        lengths = {n for n in np.shape(trials.of_file([boxes])[0])[1:] if n != _NUMBERS}
        fitting = [k for k in (1, 2) if shape[k] in lengths]
        if len(fitting) == 1:
            return 3 - fitting[0]
    return None


def _part(trials: Trials, head: Head, beside: SideBySide, settings: Settings) -> View:
    """The scores beside boxes in one tensor: the value that was joined to them where that is one, else a cut of the output."""
    if beside.scores is None:
        place = located_scores(read_head(trials, head))
        if place is not None and place[0] == beside.axis:
            return _cut(trials, head, *place, settings)
        raise InputError(
            f"{trials.file.path}: output {head.name!r} holds {beside.words}, and where the scores lie in it is not known. Export "
            "the scores as an output of their own."
        )
    start, stop = beside.scores
    parts = [p for p in beside.parts if p.scores]
    moved = beside.moved
    if len(parts) > 1 or moved is None or None in moved or moved[0] != 0:
        return _cut(trials, head, beside.axis, start, stop, settings)
    order, axis = np.argsort([k for k in moved if k is not None]), moved[beside.axis]
    assert axis is not None
    where, what = _place(head, beside.axis, start, stop)
    view = copied(
        trials, Pen(trials.file.proto), parts[0].value, head.value.dtype,
        lambda: _entries(read_head(trials, head), beside.axis, start, stop).transpose(order), head, settings, what,
    )  # fmt: skip
    return replace(view, axes=OutputAxes(axis, 0, where))


def _cut(trials: Trials, head: Head, axis: int, start: int, stop: int | None, settings: Settings) -> View:
    """Some entries of the output: made again from their logits where these lie behind joins and moves alone, else cut out of it."""
    where, what = _place(head, axis, start, stop)

    def read(pen: Pen, value: str) -> View:
        return copied(
            trials, pen, value, head.value.dtype, lambda: _entries(read_head(trials, head), axis, start, stop), head, settings, what
        )

    pen = Pen(trials.file.proto)
    logits = logits_of(pen, followed(trials.file.graph, head.value.name), head.value.name, axis, start, stop)
    view = None
    if logits is not None:
        with suppress(InputError):
            view = read(pen, pen.emit("Sigmoid", logits))
    if view is None:
        pen = Pen(trials.file.proto)
        view = read(pen, pen.cut(head.value.name, axis, start, stop))
    return replace(view, axes=OutputAxes(axis, 0, where))


def _place(head: Head, axis: int, start: int, stop: int | None) -> tuple[str, str]:
    where = f"scores at entries {start} to {'the last' if stop is None else stop - 1} of axis {axis}"
    return where, f"the {where} of output {head.name!r}, without what stands beside them"


def _entries(z: Array, axis: int, start: int, stop: int | None) -> Array:
    return np.asarray(np.take(z, np.arange(z.shape[axis])[start:stop], axis))


def _before_suppression(trials: Trials, head: Head, last: Node, settings: Settings) -> View:
    """The scores (N, K, boxes) that a NonMaxSuppression reads: after it there are as many boxes as it leaves."""
    file, what = trials.file, f"the scores that {last.op} (node {last.label!r}) reads"
    if last.op != "NonMaxSuppression" or len(last.inputs) < 2:
        raise InputError(
            f"{file.path}: output {head.name!r} comes after {last.op} (node {last.label!r}), whose scores are not known, expected "
            "NonMaxSuppression. Export the model without it, and with the scores as an output."
        )
    scores = last.inputs[1]
    kind = value_type(file, scores)
    inside = read_from(file.proto, scores, kind or 1)
    pen = Pen(file.proto)

    def expected() -> Array:
        whole = Trials(replace(file, proto=inside), trials.into, trials.X, trials.hardware)
        given = trials.of_file([o.name for o in file.graph.outputs])
        again = [whole.of_copy(inside, o.name) for o in file.graph.outputs]
        if not all(same(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(again, given, strict=True)):
            raise ValueError("a copy with one more output gives other outputs")
        return whole.of_copy(inside, scores)

    view = copied(trials, pen, scores, "float32", expected, head, settings, what)
    return replace(view, axes=OutputAxes(1, 0, f"classes on axis 1 of {what}"))
