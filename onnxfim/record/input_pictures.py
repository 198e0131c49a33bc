"""What the inputs are, and what a report shows of those that are no pictures: curves of a series, directions over features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from onnxfim.record.limits import Count, NotNegative, Part, Positive, closed

InputKind: TypeAlias = Literal["image", "spectrogram", "series", "tabular", "text", "other"]


@closed
@dataclass(frozen=True)
class Curve:
    """Values at places of a series, in their order: all of a short one, the lowest and the highest of each part of a long one."""

    at: tuple[Count, ...]
    values: tuple[float, ...]


@closed
@dataclass(frozen=True)
class SeriesTrace:
    """One channel of a series at one sample: the input and the worst direction.

    ``share`` is the channel's part of the direction's squared length, ``length`` the number of its values.
    """

    channel: Count
    length: Positive
    share: Part
    input: Curve
    direction: Curve


@closed
@dataclass(frozen=True)
class DirectionSummary:
    """The mean of the worst directions' entries without their signs, one for each number of the input, over ``samples``."""

    samples: Positive
    mean: tuple[NotNegative, ...]
