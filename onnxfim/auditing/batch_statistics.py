"""What a model's first BatchNormalization remembers of its training, against what these samples give there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Ground
from onnxfim.errors import OnnxFimError
from onnxfim.graph.graph import Graph, Node
from onnxfim.graph.held import POSITION
from onnxfim.graph.load import value_type
from onnxfim.graph.surgery import read_from
from onnxfim.runtime.session import open_session, run

Array: TypeAlias = np.ndarray[Any, Any]

_ROWS = 32
_DEVIATION = 3.0  # times the remembered one, or a part of it, that the samples' deviation must be: half of the channels
_SHIFT = 4.0  # remembered deviations that the samples' mean may lie from the remembered one: half of the channels


@dataclass(frozen=True)
class BatchStatistics:
    """Medians over the channels of a BatchNormalization's input.

    Attributes:
        node: The node.
        deviation: The samples' standard deviation over the remembered one.
        shift: Distance of the means, in remembered deviations.
    """

    node: str
    deviation: float
    shift: float

    @property
    def contradiction(self) -> str | None:
        """What they say against the inputs, in words; None where they fit."""
        if 1 / _DEVIATION <= self.deviation <= _DEVIATION and self.shift <= _SHIFT:
            return None
        return (
            f"its first BatchNormalization ({self.node!r}) remembers other values from training: these samples' standard deviation "
            f"there is {self.deviation:.2g} times that one, and their means are {self.shift:.2g} such deviations off"
        )


def batch_statistics(ground: Ground) -> BatchStatistics | None:
    """The first BatchNormalization behind linear nodes alone, on a few samples; None where the file has none of its own.

    What stands before it has then the inputs' units. A file whose BatchNormalizations are folded into weights has none left.
    """
    file, hardware, info = ground.subject.file, ground.hardware, ground.subject.info
    if file is None or hardware is None:
        return None
    node = _first(file.graph, info.input)
    element = None if node is None else value_type(file, node.inputs[0])
    remembered = None if node is None else [file.graph.constant(name) for name in node.inputs[3:5]]
    if node is None or element is None or remembered is None or any(r is None for r in remembered):
        return None
    at = ground.clean.audited[:_ROWS]
    rows = ground.X[at]
    try:
        copy = read_from(file.proto, node.inputs[0], element).SerializeToString()
        session, _ = open_session(copy, hardware, base_dir=file.path.parent.resolve())
        places = {POSITION: at} if any(i.name == POSITION for i in file.graph.inputs) else {}
        given = run(session, [node.inputs[0]], {info.input: rows.astype(info.input_dtype), **places})[0]
    except OnnxFimError:
        return None  # a batch size that the model insists on, or a provider without such a copy
    ground.meter.spent(len(rows))
    mean, variance = (np.asarray(r, np.float64) for r in remembered)
    return _compared(node.label, np.asarray(given, np.float64), mean, variance)


def _compared(label: str, given: Array, mean: Array, variance: Array) -> BatchStatistics | None:
    """Statistics of values ``given`` (N, C, …) beside the remembered ones (C,)."""
    if given.ndim < 2 or given.shape[1] != len(mean) or not np.isfinite(given).all():
        return None
    axes = (0, *range(2, given.ndim))
    known = np.sqrt(np.maximum(variance, 0.0))
    good = known > 1e-3 * float(known.max(initial=0.0))  # a channel that was always the same says nothing
    if not good.any():
        return None
    deviation = given.std(axis=axes)[good] / known[good]
    shift = np.abs(given.mean(axis=axes)[good] - mean[good]) / known[good]
    return BatchStatistics(label, float(np.median(deviation)), float(np.median(shift)))


_LINEAR = frozenset(
    ("Add", "Cast", "Conv", "Div", "Flatten", "Gemm", "Identity", "MatMul", "Mul", "Pad", "Reshape", "Sub", "Transpose")
)


def _first(graph: Graph, input_name: str) -> Node | None:
    """The first BatchNormalization that only linear nodes lie before."""
    reached = {input_name}
    for node in graph.nodes:
        if not reached & set(node.inputs):
            continue
        if node.op == "BatchNormalization" and len(node.inputs) >= 5 and node.inputs[0] in reached:
            return node
        if node.op in _LINEAR:
            reached |= set(node.outputs)
    return None
