"""A detector's output in the graph: boxes beside scores in one tensor, boxes and scores apart, and suppression of boxes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from onnxfim.graph.flow import followed
from onnxfim.graph.graph import Dimension, Graph, Node
from onnxfim.graph.output_axes import AxisMap, back

T = TypeVar("T")
Array: TypeAlias = np.ndarray[Any, Any]

_BOXES = re.compile(r"(^|[^a-z])(pred_?)?(b?box(es)?|loc(s|ations?)?|dets?|detections?|rois?|anchors?)([^a-z]|$)", re.IGNORECASE)
_SCORES = re.compile(
    r"(^|[^a-z])(pred_?|class_?)?(scores?|conf(idences?)?|logits?|cls|class(es)?|prob(s|abilities)?)([^a-z]|$)", re.IGNORECASE
)
_MOVES = ("Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout")
_SHARES = ("Sigmoid", "HardSigmoid", "Softmax")  # results between 0 and 1
# Operators whose results are some of their first input's values.
_PICKS = frozenset({
    *_MOVES, "Slice", "Split", "Gather", "GatherElements", "GatherND", "TopK", "ReduceMax", "ReduceMin", "Clip", "Expand", "Tile",
    "Pad", "Compress", "Where",
})  # fmt: skip
_DEEP = 64  # nodes to look back: decoding takes fewer
_NUMBERS = 4  # of a box
_FEW, _MANY = 16, 64  # values that lie between 0 and 1 by no chance: of all entries behind the boxes, of some


@dataclass(frozen=True)
class Part:
    """Values of one make in an output: the entries ``start`` to ``stop`` along its axis, and the value that holds them alone."""

    value: str
    start: int | None
    stop: int | None
    scores: bool


@dataclass(frozen=True)
class SideBySide:
    """Values of several makes side by side along an ``axis`` of an output.

    ``moved`` tells where the output's axes lie in the value that ``node`` joins, None where more than moves stands between.
    """

    node: str
    axis: int
    parts: tuple[Part, ...]
    moved: AxisMap | None

    @property
    def scores(self) -> tuple[int, int | None] | None:
        """First entry of all scores and the one after their last, None at the end; None where they lie apart or nowhere known."""
        at = [k for k, part in enumerate(self.parts) if part.scores]
        start = self.parts[at[0]].start
        if start is None or at != list(range(at[0], at[-1] + 1)):
            return None
        last = self.parts[at[-1]].stop
        return None if last is None and at[-1] + 1 < len(self.parts) else (start, last)

    @property
    def words(self) -> str:
        """The parts, for a message."""
        return " beside ".join(
            f"{'scores' if p.scores else 'values of any size'}"
            + ("" if p.start is None or p.stop is None else f" (entries {p.start} to {p.stop - 1})")
            for p in self.parts
        )


def boxes_beside_scores(graph: Graph, output: str) -> SideBySide | None:
    """Where a Concat on the way to the output joins values between 0 and 1 with values that are not; None where none does."""
    graph = followed(graph, output)
    shape = graph.shapes.get(output)
    if shape is None:
        return None
    name, axes, whole = output, tuple[int | None, ...](range(len(shape))), True
    for _ in range(_DEEP):
        node = graph.producers.get(name)
        if node is None or not node.inputs:
            return None
        if node.op == "Concat":
            made = [_between_0_and_1(graph, i) for i in node.inputs]
            if any(made) and not all(made):
                return _beside(graph, node, made, axes, whole=whole)
        elif node.op not in _MOVES:
            return None
        step = back(graph, node, axes)
        if step is None:
            return None
        whole = whole and node.op in ("Identity", "Cast", "Transpose")
        name, axes = step
    return None


def _beside(graph: Graph, node: Node, made: Sequence[bool], axes: AxisMap, *, whole: bool) -> SideBySide | None:
    along, shape = node.attributes.get("axis", 1), graph.shapes.get(node.outputs[0])
    if not isinstance(along, int) or not shape or (along % len(shape)) not in axes:
        return None
    along %= len(shape)
    parts: list[Part] = []
    start: int | None = 0
    for name, scores in zip(node.inputs, made, strict=True):
        own = graph.shapes.get(name)
        size = own[along] if own is not None and len(own) == len(shape) else None
        stop = start + size if start is not None and isinstance(size, int) else None
        parts.append(Part(name, start, stop, scores))
        start = stop
    return SideBySide(node.label, axes.index(along), tuple(parts), axes if whole else None)


def _between_0_and_1(graph: Graph, name: str, deep: int = 0) -> bool:
    """Whether the graph says that all numbers of a value lie between 0 and 1."""
    node = graph.producers.get(name)
    if node is None or not node.inputs or deep > _DEEP:
        return False
    if node.op in _SHARES:
        return True
    if node.op in ("Concat", "Mul", "Max", "Min"):
        return all(_between_0_and_1(graph, i, deep + 1) for i in node.inputs)
    if node.op == "Sub":
        one = graph.constant(node.inputs[0])
        return one is not None and bool((one == 1).all()) and _between_0_and_1(graph, node.inputs[1], deep + 1)
    if node.op == "ScatterND":
        return all(_between_0_and_1(graph, node.inputs[k], deep + 1) for k in (0, 2))
    if node.op == "TopK" and name != node.outputs[0]:
        return False
    return node.op in _PICKS and _between_0_and_1(graph, node.inputs[1 if node.op == "Where" else 0], deep + 1)


def suppression(graph: Graph, output: str) -> Node | None:
    """The NonMaxSuppression that an output comes after; None where there is none."""
    if not any("NMS" in n.op or n.op == "NonMaxSuppression" for n in graph.nodes):
        return None
    wanted, last = {output}, None
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            if last is None and ("NMS" in node.op or node.op == "NonMaxSuppression"):
                last = node
    return last


def is_boxes(name: str, shape: Sequence[Dimension] | None) -> bool:
    """Whether an output is called like boxes and has an axis of their four numbers."""
    return bool(_BOXES.search(name)) and (shape is None or any(n == 4 for n in shape[1:]))


def boxes_by_shape(shapes: Mapping[T, Sequence[Dimension] | None]) -> list[T]:
    """Outputs (N, boxes, 4) beside others of as many boxes, which have another number of entries each; empty where none are."""
    known = {key: tuple(shape) for key, shape in shapes.items() if shape is not None and len(shape) == 3}
    fours = [key for key, shape in known.items() if shape[2] == _NUMBERS and isinstance(shape[1], int) and shape[1] > 1]
    others = [shape for key, shape in known.items() if key not in fours]
    return [key for key in fours if any(known[key][1] in shape[1:] for shape in others)] if others else []


def located_scores(z: Array) -> tuple[int, int, int] | None:
    """The axis of an output (N, …), and on it the first entry of scores and the one after their last, as the values tell them.

    Four entries that leave 0 to 1 are followed by some that never do, at many places; whole numbers at the end are class numbers.
    None where no axis is such.
    """
    for axis in range(z.ndim - 1, 0, -1):
        if z.ndim < 3 or z.shape[axis] <= _NUMBERS:
            continue
        rows = np.moveaxis(z, axis, 0).reshape(z.shape[axis], -1)
        inside = (rows.min(axis=1) >= 0) & (rows.max(axis=1) <= 1)
        end = len(rows)
        while end > _NUMBERS + 1 and bool((rows[end - 1] == np.round(rows[end - 1])).all()):
            end -= 1
        stop = next((k for k in range(_NUMBERS, end) if not inside[k]), end)
        count = rows[_NUMBERS:stop].size
        if not inside[:_NUMBERS].any() and count >= (_FEW if stop == end else _MANY):
            return axis, _NUMBERS, stop
    return None


def is_scores(name: str) -> bool:
    """Whether an output is called like a detector's scores."""
    return bool(_SCORES.search(name))
