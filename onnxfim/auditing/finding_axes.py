"""Finds the axes of the outputs that hold the batch and the classes: as asked, from the graph, from values; else it asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import ModelError
from onnxfim.graph.graph import Graph, TensorInfo
from onnxfim.graph.output_axes import Clue, class_clues, named_axes, open_axes
from onnxfim.record.settings import Settings
from onnxfim.slopes.kinds.base import simplex

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class OutputAxes:
    """Axes of the raw output, counted from 0, and how they are known."""

    classes: int
    batch: int
    how: str


def find_axes(
    raw: Callable[[Array], Array], few: Array, settings: Settings, *, graph: Graph | None = None, output: TensorInfo | None = None,
    fixed: int | None = None, independent: bool = False, num_outputs: int | None = None,
) -> OutputAxes:  # fmt: skip
    """The axes of an output.

    Args:
        raw: Calls the model on some rows, at most ``fixed`` of them, and returns the output as it is.
        few: Some samples, (n, *shape).
        settings: The axes that were asked for.
        graph, output: The file's graph and the output's name and shape; None for a function.
        fixed: Rows that the model insists on, or None.
        independent: Whether every output stands for itself, so that no class axis is needed to read them.
        num_outputs: Length of the class axis where it is known.

    Raises:
        ModelError: an axis that was asked for cannot be, or several may hold the classes and nothing tells which.
    """
    rows = few if len(few) > 1 else np.concatenate([few, few / 2]).astype(few.dtype)
    z = raw(rows[:fixed])
    if z.ndim < 2:
        raise ModelError(f"output has shape {z.shape}, expected a batch axis and a class axis. Export one score per class.")
    if z.size == 0:
        raise ModelError(f"output has shape {z.shape} and holds no numbers, expected a class at least. Export one score per class.")
    shape = None if output is None else output.shape
    batch, known = _batch_axis(raw, rows, z, settings.batch_axis, named_axes(shape, "batch"), fixed)
    candidates = [k for k in range(z.ndim) if k != batch]
    if settings.class_axis is not None:
        axis = settings.class_axis + z.ndim if settings.class_axis < 0 else settings.class_axis
        if axis not in candidates:
            raise ModelError(
                f"--class-axis {settings.class_axis}: the output has shape {z.shape} with the batch on axis {batch}, expected one "
                f"of the axes {_listed(candidates)}. Name the axis of the classes."
            )
        return OutputAxes(axis, batch, f"classes on axis {axis} as given by --class-axis{known}")
    if len(candidates) == 1:
        return OutputAxes(candidates[0], batch, f"the only axis beside the batch{known}")
    clues = () if graph is None or output is None else class_clues(graph, output.name, z.ndim)
    closed = [k for k in candidates if graph is None or output is None or k not in open_axes(graph, output.name)]
    axis, how = _class_axis(z, candidates, closed, clues, independent=independent, num_outputs=num_outputs, batch=batch)
    return OutputAxes(axis, batch, f"classes on axis {axis}: {how}{known}")


def _batch_axis(
    raw: Callable[[Array], Array], rows: Array, z: Array, asked: int | None, named: Sequence[int], fixed: int | None
) -> tuple[int, str]:
    """The batch's axis and, where it is not the first, how that is known."""
    fed = fixed or len(rows)
    grown = [k for k in range(z.ndim) if z.shape[k] == fed]
    if fixed is None:
        one = raw(rows[:1])
        if one.ndim == z.ndim:
            grown = [k for k in range(z.ndim) if (one.shape[k], z.shape[k]) == (1, fed)]
    if asked is not None:
        axis = asked + z.ndim if asked < 0 else asked
        if axis not in grown:
            raise ModelError(
                f"--batch-axis {asked}: the output has shape {z.shape} for {fed} samples, expected {fed} along its batch. "
                f"{'Name axis ' + _listed(grown) if grown else 'Export the model with one row of scores per sample'}."
            )
        return axis, f"; batch on axis {axis} as given by --batch-axis" if axis else ""
    if not grown:
        raise ModelError(
            f"output has shape {z.shape} for {fed} samples, expected one row per sample. Export the scores of each sample."
        )
    told = [k for k in grown if k in named]
    if len(told) == 1:
        grown = told
    if len(grown) > 1 and grown[0] != 0:
        raise ModelError(
            f"output of shape {z.shape}: the batch of {fed} may lie on axis {_listed(grown)}, and nothing tells which. "
            "Say --batch-axis."
        )
    return grown[0], f"; batch on axis {grown[0]}, which grows with the samples" if grown[0] else ""


def _class_axis(
    z: Array, candidates: Sequence[int], closed: Sequence[int], clues: Sequence[Clue], *, independent: bool,
    num_outputs: int | None, batch: int,
) -> tuple[int, str]:  # fmt: skip
    """The classes' axis among several, by what speaks loudest, and how it is known."""
    for clue in (c for c in clues if c.firm and c.axis in candidates):
        return clue.axis, clue.how
    fitting = [k for k in candidates if z.shape[k] == num_outputs]
    if num_outputs is not None and (1 in fitting or len(fitting) == 1):
        if len(fitting) > 1:
            raise ModelError(_question(z, fitting, batch))
        return fitting[0], f"it has the {num_outputs} outputs that were said"
    sums = [k for k in candidates if z.shape[k] > 1 and simplex(np.moveaxis(z, k, 1).astype(np.float64))]
    if len(sums) == 1:
        return sums[0], "the outputs are non-negative and sum to 1 along it"
    long = [k for k in candidates if z.shape[k] > 1]
    for clue in (c for c in clues if c.axis in candidates and (z.shape[c.axis] > 1 or independent)):
        if clue.axis in closed or not closed:
            return clue.axis, clue.how
        raise ModelError(_question(z, [clue.axis, *closed], batch))  # a length that the file leaves open is no number of classes
    if len(long) == 1:
        return long[0], "no other is longer than 1"
    if len(closed) == 1:
        return closed[0], "no other has a fixed length"
    if independent or not long:
        return candidates[0], "each output stands for itself"
    raise ModelError(_question(z, long, batch))


def _question(z: Array, axes: Sequence[int], batch: int) -> str:
    readings = " or ".join(
        f"{z.shape[k]} classes (axis {k}) at {_positions(z, k, batch)}" for k in axes
    )  # fmt: skip
    return f"output of shape {z.shape} may be {readings}, and nothing in the file tells which. Say --class-axis {_listed(axes)}."


def _positions(z: Array, axis: int, batch: int) -> str:
    return f"{int(np.prod([n for k, n in enumerate(z.shape) if k not in (axis, batch)]))} positions"


def _listed(axes: Sequence[int]) -> str:
    return " or ".join(map(str, axes))


__all__ = ["OutputAxes", "find_axes"]
