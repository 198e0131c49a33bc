"""What the measuring of one sample takes from all samples together, where a plan tells it and not the samples at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.input_pictures import InputKind
from onnxfim.slopes.flips import ValidRange

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Coupling:
    """What all samples together decide of the measuring of each; a part of them is measured with it as all of them are.

    Attributes:
        samples: How many are audited in all.
        low, high: Smallest and largest number of all inputs.
        box: The valid range of inputs, in which flips are looked for.
        kind: What the inputs are.
        moves: By how much each coordinate is moved, (*shape), where all of them are; else None.
        grain: What rounding leaves of such moves, relative to the inputs' size.
        step_error: What rounding leaves of derivatives, relative; None where samples are measured otherwise.
        added: Directions that refining adds to those of the first round, by a sample's index.
    """

    samples: int
    low: float
    high: float
    box: ValidRange
    kind: InputKind
    moves: Array | None = None
    grain: float = 0.0
    step_error: float | None = None
    added: Mapping[int, int] = field(default_factory=dict)
