"""The reference table: known classifiers by name, training and origin, with what was measured on them, in pixel units."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from onnxfim.record.fitting import from_plain
from onnxfim.record.limits import AboveZero, Count, Part
from onnxfim.record.robustness import Training

#: Where it is kept, beside this module; ``tests/benchmarks/make_reference.py`` writes it.
PLACE = Path(__file__).with_name("reference.json")


@dataclass(frozen=True)
class ReferenceFigure:
    """A statistic of a model's samples and its 95 % interval; None where it has none."""

    value: AboveZero | None
    low: AboveZero | None = None
    high: AboveZero | None = None


@dataclass(frozen=True)
class ReferenceModel:
    """One known classifier. Distances are L2 in pixel units (0 is black, 1 is white), λ in nats per squared one.

    Attributes:
        name: Of its file.
        sha256: Of its file: a model is not ranked against itself.
        training: What is known of its training, in words.
        group: Whether it was trained for robustness.
        architecture: Its kind.
        origin: Where it comes from.
        scale: How its inputs are made of pixels.
        variant_of: The model whose network it is, in other numbers; it is not counted again.
        samples: Samples of its audit.
        accuracy: Their clean accuracy.
        temperature: The fitted temperature.
        flip_radius: The distance at which half of the rightly classified ones have flipped.
        boundary_distance: The same by the first-order distance.
        lambda_mean: Mean calibrated λ_max.
        lambda_geometric_mean: Its geometric mean.
        lambda_median: Its median.
        attack_l2: Median smallest L2 attack on ``attacked`` rightly classified samples; an upper bound of each.
        attacked: How many these are.
    """

    name: str
    sha256: str
    training: str
    group: Training
    architecture: str
    origin: str
    scale: str
    variant_of: str | None
    samples: Count
    accuracy: Part
    temperature: AboveZero | None
    flip_radius: ReferenceFigure
    boundary_distance: ReferenceFigure
    lambda_mean: ReferenceFigure
    lambda_geometric_mean: ReferenceFigure
    lambda_median: ReferenceFigure
    attack_l2: AboveZero | None
    attacked: Count


@dataclass(frozen=True)
class ReferenceTask:
    """What some of them classify.

    Attributes:
        task: Its name.
        shapes: Shapes that one input may have.
        classes: How many classes there are.
        names: What they are called.
        words: Words in the name of a model or of its data that speak for it.
        models: The classifiers.
    """

    task: str
    shapes: tuple[tuple[int, ...], ...]
    classes: Count
    names: tuple[str, ...]
    words: tuple[str, ...]
    models: tuple[ReferenceModel, ...]

    @property
    def networks(self) -> tuple[ReferenceModel, ...]:
        """Its models, each network once."""
        return tuple(m for m in self.models if m.variant_of is None)

    def others(self, sha256: str) -> tuple[ReferenceModel, ...]:
        """Its networks without the one that a file holds."""
        own = {m.variant_of or m.name for m in self.models if m.sha256 == sha256}
        return tuple(m for m in self.networks if m.name not in own)


@dataclass(frozen=True)
class ReferenceTable:
    """All tasks, and how the figures were made; tasks with the same shapes stand in the order in which they are taken."""

    about: str
    made_by: str
    measured_with: str
    leads: Literal["flip_radius", "lambda_max_calibrated"]
    tasks: tuple[ReferenceTask, ...]


@cache
def reference_table() -> ReferenceTable:
    """The table that is shipped."""
    found: ReferenceTable = from_plain(ReferenceTable, json.loads(PLACE.read_text("utf-8")))
    return found


def tasks_of(shape: Sequence[int], classes: int) -> tuple[ReferenceTask, ...]:
    """The tasks whose inputs have this shape, and that have as many classes."""
    return tuple(t for t in reference_table().tasks if tuple(shape) in t.shapes and t.classes == classes)


def task_of(shape: Sequence[int], classes: int) -> ReferenceTask | None:
    """The first of `tasks_of`."""
    return next(iter(tasks_of(shape, classes)), None)
