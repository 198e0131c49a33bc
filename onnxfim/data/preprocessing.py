"""From raw values to the model's input: range, mean and deviation per channel, layout; and the units of the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxfim.data.samples import Array, SampleShape, shape_text
from onnxfim.errors import InputError
from onnxfim.record.limits import SIZES, sized

Layout: TypeAlias = Literal["NCHW", "NHWC"]
Floats: TypeAlias = npt.NDArray[np.float64]

CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Preprocessing:
    """What is done to raw samples before the model sees them; what is not given is not done.

    Pixels (images, and uint8 arrays when ``mean``, ``std`` or ``input_range`` is given) are mapped from 0…255 to
    ``input_range``, by default 0…1. Every other array is taken to be in ``input_range`` already, and is checked against
    it where it is given. Then ``(x − mean) / std`` per channel.

    Attributes:
        mean: One number, or one for each channel, in units of ``input_range``.
        std: One number, or one for each channel, in units of ``input_range``.
        input_range: Lowest and highest value a raw sample can have before ``mean`` and ``std``.
        layout: Axis order that the model takes; arrays in the other order are transposed.
        resize: For images: length of the shorter side, or (height, width); bilinear with antialiasing.
        crop: For images: central square, or (height, width), cut out after resizing.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_range: tuple[float, float] | None = None
    layout: Layout | None = None
    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std), ("input range", self.input_range)):
            if values is not None and not (values and all(math.isfinite(v) for v in values)):
                raise InputError(f"{name}: found {_listed(values)}, expected finite numbers. Pass one, or one for each channel.")
            if wild := [v for v in values or () if not sized(v)]:
                least, most = SIZES
                raise InputError(f"{name}: found {wild[0]:.3g}, expected 0 or {least:g} to {most:g}. Change the unit.")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"std: found {_listed(self.std)}, expected numbers above 0. Pass the training data's deviations.")
        if self.mean and self.std and len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise InputError(
                f"mean and std: found {len(self.mean)} and {len(self.std)} numbers, expected as many of each. "
                "Pass one, or one for each channel."
            )
        if self.input_range is not None and (len(self.input_range) != 2 or self.input_range[0] >= self.input_range[1]):
            raise InputError(
                f"input range: found {_listed(self.input_range)}, expected a low and a higher number. Pass 0,1 or 0,255."
            )
        if self.layout not in (None, "NCHW", "NHWC"):
            raise InputError(f"layout: found {self.layout!r}, expected NCHW or NHWC. Pass the order that the model takes.")
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None and min(size if isinstance(size, tuple) else (size,)) < 1:
                raise InputError(f"{name}: found {size}, expected at least 1 pixel. Pass one length, or height and width.")

    @property
    def given(self) -> dict[str, Any]:
        """What is done, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def rescales(self) -> bool:
        """Whether values change, apart from their order and element type."""
        return not (self.mean is None and self.std is None and self.input_range is None)

    def scale(self, shape: SampleShape) -> Floats | None:
        """Derivative of the model's input by the raw input, (hi − lo) / std, where hi − lo is one raw unit.

        A raw unit is the whole range from lo to hi (for pixels: black to white, 255 levels); without ``input_range``
        an array's own unit. F in raw units is ``scale · F · scale``.

        Args:
            shape: Shape of one sample as the model takes it.

        Returns:
            Float64, broadcastable to ``shape``, or None where raw and model units are the same.
        """
        low, high = self.input_range or (0.0, 1.0)
        if self.std is None and high - low == 1:
            return None
        return (high - low) / self._per_channel("std", self.std or (1.0,), shape)

    def from_pixels(self, pixels: Array) -> Floats:
        """Pixels 0…255 mapped to ``input_range``."""
        low, high = self.input_range or (0.0, 1.0)
        return low + pixels.astype(np.float64) * ((high - low) / 255)

    def normalise(self, x: Array) -> Floats:
        """``(x − mean) / std`` of one sample in the model's layout."""
        mean = self._per_channel("mean", self.mean or (0.0,), x.shape)
        return np.asarray((x - mean) / self._per_channel("std", self.std or (1.0,), x.shape), dtype=np.float64)

    def _per_channel(self, name: str, values: Sequence[float], shape: SampleShape) -> Floats:
        """The values laid along the channel axis of a sample."""
        along = [1] * len(shape)
        if len(values) > 1:
            along[self._channel_axis(name, len(values), shape)] = len(values)
        return np.array(values, np.float64).reshape(along)

    def _channel_axis(self, name: str, channels: int, shape: SampleShape) -> int:
        """The axis, first or last, that holds the channels: by the layout for images, else by its size."""
        ends = sorted({0, len(shape) - 1})
        if len(shape) == 3 and self.layout is not None:
            ends = [0 if self.layout == "NCHW" else 2]
        fitting = [axis for axis in ends if shape and shape[axis] in (channels, None)]
        if len(fitting) != 1:
            found = "more than one axis of that size" if fitting else "no channel axis of that size"
            raise InputError(
                f"{name}: found {channels} numbers, but samples of shape {shape_text(shape)} have {found}. "
                "Pass one number for each channel, and --layout to say which axis holds the channels."
            )
        return fitting[0]


def order_of(shape: SampleShape) -> Layout | None:
    """The layout of an image-like sample as its shape shows it, None where it does not."""
    first, last = len(shape) == 3 and shape[0] in CHANNELS, len(shape) == 3 and shape[-1] in CHANNELS
    return None if first == last else "NCHW" if first else "NHWC"


def turn(layout: Layout) -> tuple[int, ...]:
    """The transposition of a sample's axes that leads from the other layout to this one."""
    return (2, 0, 1) if layout == "NCHW" else (1, 2, 0)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "nothing"
