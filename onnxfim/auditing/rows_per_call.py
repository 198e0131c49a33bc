"""How many rows a file takes in a call: any number, those that it declares, or those that it turns out to insist on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.finding_axes import OutputAxes, find_axes
from onnxfim.errors import ModelError
from onnxfim.graph.freeing import batches_named
from onnxfim.graph.graph import TensorInfo
from onnxfim.graph.load import ModelFile
from onnxfim.record.settings import Settings
from onnxfim.runtime.failures import RowsFailed
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.forward import OnnxForward

Array: TypeAlias = np.ndarray[Any, Any]

_FEW = 8  # samples that tell how the outputs are read


@dataclass(frozen=True)
class Opened:
    """A file that runs: its forward, some samples that it takes, its output's axes, and the rows that it insists on or None.

    ``of`` are these samples' positions. ``hidden`` is set where it insists on them without declaring it.
    """

    forward: OnnxForward
    few: Array
    of: Array
    axes: OutputAxes
    fixed: int | None
    hidden: bool = False

    @property
    def insists(self) -> str:
        """In words, what the file insists on."""
        rows = f"{self.fixed} row{'s' if self.fixed != 1 else ''}"
        return f"fails with other than {rows} in a call, though it declares none" if self.hidden else f"insists on {self.fixed}"


def opened_for_rows(
    opened: Callable[[int | None], OnnxForward], file: ModelFile, output: TensorInfo, X: Array, settings: Settings, *,
    fixed: int | None, independent: bool, known: OutputAxes | None = None, look: Callable[[Array], None] = lambda values: None,
) -> Opened:  # fmt: skip
    """The file opened for the rows that it takes.

    A file may leave its batch open and hold the one that it was exported for in a constant. Where it fails on several rows, or
    returns other than one row for each, the numbers that its shapes name are tried, one row first.

    Args:
        opened: Opens the file for calls of so many rows, or of any number.
        file: The file.
        output: The output that is read.
        X: Samples (N, *shape).
        settings: The axes that were asked for.
        fixed: Rows that the file declares, or None.
        independent: Whether every output stands for itself.
        known: The output's axes, where they are known.
        look: Called with what the file gives for some samples; raises where that is no output to read.

    Raises:
        ModelError, RowsFailed: it runs with no number of rows; what it said at first.
    """

    def attempt(rows: int | None) -> Opened:
        forward = opened(rows)
        of = rows_that_run(forward.raw, X, _FEW)
        few = X[of]

        def raw(some: Array) -> Array:
            """The outputs at the few rows, or as many of them as are given, over and over."""
            return forward.raw(some, np.resize(of, len(some)))

        look(raw(few[:rows]))
        axes = known or find_axes(raw, few, settings, graph=file.graph, output=output, fixed=rows, independent=independent)
        forward.class_axis, forward.batch_axis = axes.classes, axes.batch
        return Opened(forward, few, of, axes, rows)

    try:
        return attempt(fixed)
    except (RowsFailed, ModelError) as first:
        if fixed is not None:
            raise
        for rows in batches_named(file.graph, output.name):
            try:
                found = attempt(rows)
                found.forward.outputs(found.few[:1], found.of[:1])
            except (RowsFailed, ModelError):
                continue
            return replace(found, hidden=True)
        raise first


def telling_rows(few: Array, fixed: int) -> Array:
    """Rows, all different, of a number that a file's own batch does not divide: a copy that still holds it fails on them."""
    count = max(len(few), fixed + 1, 2)
    count += fixed > 1 and count % fixed == 0
    rounds = -(-count // len(few))
    return np.concatenate([few / (k + 1) for k in range(rounds)])[:count].astype(few.dtype)
