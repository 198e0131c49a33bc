"""From values as the data hold them to the model's layout, units and element type, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxfim.data.lazy_rows import Indices, RowReader
from onnxfim.data.preprocessing import Preprocessing
from onnxfim.data.samples import Array, SampleShape
from onnxfim.errors import InputError


@dataclass(frozen=True)
class Target:
    """What the model takes: shape of one sample (None: any sizes, None as a size: any), element type, preprocessing."""

    shape: SampleShape | None
    dtype: np.dtype
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if self.dtype.kind not in "fiu":
            raise InputError(f"model: its input takes {self.dtype}, expected numbers. Audit a model with a numeric input.")
        if self.dtype.kind != "f" and self.preprocessing.rescales:
            raise InputError(
                f"model: its input takes {self.dtype}, expected floats where mean, std or an input range is given. "
                "Leave these out: the values go in as they are."
            )


class Conversion:
    """Brings finite samples to the model's layout, units and element type; overflow of the type becomes infinity.

    Whether all values can be brought there is asked of `check`, once all were seen.

    Args:
        where: What holds them, for messages.
        dtype: Their element type.
        axes: The order in which a sample's axes are taken.
        target: What the model takes.
    """

    def __init__(self, where: str, dtype: np.dtype, axes: tuple[int, ...], target: Target) -> None:
        self.where, self.raw, self.axes, self.target = where, dtype, axes, target
        self._pixels = dtype == np.uint8
        given = target.preprocessing
        limited = given.input_range is not None and not self._pixels
        self._looks = limited if given.rescales else dtype != target.dtype
        self._least: Any = None
        self._most: Any = None
        self._whole = True

    @property
    def nothing(self) -> bool:
        """Whether rows are as the model takes them."""
        straight = self.axes == tuple(range(len(self.axes)))
        return straight and not self.target.preprocessing.rescales and self.raw == self.target.dtype

    def see(self, raw: Array) -> None:
        """Take note of values, (n, …), for `check`."""
        if not self._looks or not raw.size:
            return
        least, most = raw.min().item(), raw.max().item()
        self._least = least if self._least is None else min(least, self._least)
        self._most = most if self._most is None else max(most, self._most)
        if self.target.dtype.kind != "f" and raw.dtype.kind == "f":
            self._whole &= not np.any(np.rint(raw) != raw)

    def check(self) -> None:
        """Refuse values that were seen and that the model's type or the range given does not hold.

        Raises:
            InputError: so it is.
        """
        if self._least is None:
            return
        least, most, dtype, given = self._least, self._most, self.target.dtype, self.target.preprocessing
        if given.rescales:
            assert given.input_range is not None
            low, high = given.input_range
            if least < low - 1e-5 * (high - low) or most > high + 1e-5 * (high - low):  # rounding of float32 and of a resize
                raise InputError(
                    f"{self.where}: values run from {least:g} to {most:g}, but the input range says {low:g} to {high:g}. "
                    "Pass the --input-range of the data as they are before mean and std, or leave it out."
                )
        elif dtype.kind != "f":
            limits = np.iinfo(dtype)
            if least < limits.min or most > limits.max or not self._whole:
                raise InputError(
                    f"{self.where}: holds {self.raw} values from {least:g} to {most:g}, but the model takes {dtype}. "
                    f"Pass whole numbers from {limits.min} to {limits.max}."
                )
        elif self.raw.kind != "f" and max(-int(least), int(most)) > 2 ** (np.finfo(dtype).nmant + 1):
            raise InputError(
                f"{self.where}: holds whole numbers up to {max(-int(least), int(most))}, but the model's {dtype} is exact only to "
                f"{2 ** (np.finfo(dtype).nmant + 1)}. Scale the data, or save them as floating-point numbers."
            )

    def shape(self, raw: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of samples whose raw shape (N, …) is this."""
        return (raw[0], *(raw[a + 1] for a in self.axes))

    def __call__(self, raw: Array) -> Array:
        """Finite samples (n, …) as the model takes them, (n, *shape)."""
        X, preprocessing = np.transpose(raw, (0, *(a + 1 for a in self.axes))), self.target.preprocessing
        if not preprocessing.rescales:
            if X.dtype == self.target.dtype:
                return np.ascontiguousarray(X)
            with np.errstate(over="ignore", invalid="ignore"):  # values that no type holds: `check` refuses them
                return np.ascontiguousarray(X).astype(self.target.dtype)
        out = np.empty(X.shape, self.target.dtype)
        with np.errstate(over="ignore"):
            for i, x in enumerate(X):
                out[i] = preprocessing.normalise(preprocessing.from_pixels(x) if self._pixels else x.astype(np.float64))
        return out


@dataclass(frozen=True)
class ConvertedRows:
    """Rows of a reader as the model takes them."""

    raw: RowReader
    conversion: Conversion

    @property
    def costly(self) -> bool:
        return self.raw.costly

    @property
    def shape(self) -> tuple[int, ...]:
        return self.conversion.shape(self.raw.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.conversion.target.dtype

    def read(self, at: Indices) -> Array:
        """The rows at ``at``, (n, *shape)."""
        return self.conversion(self.raw.read(at))
