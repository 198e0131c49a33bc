"""An array as a record: its bytes in Base64 beside type and shape, the same number for number when it is read."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.errors import OutputError
from onnxfim.record.limits import Count, closed

Array: TypeAlias = np.ndarray[Any, Any]


@closed
@dataclass(frozen=True)
class PackedArray:
    """Numbers of one type and shape, little-endian and in the order of C, in Base64."""

    dtype: Literal["<f4", "<f8", "|b1"]
    shape: tuple[Count, ...]
    content: str

    @staticmethod
    def of(array: Array) -> PackedArray:
        """The array, in float32 where that holds every number of it."""
        if array.dtype == bool:
            dtype: Literal["<f4", "<f8", "|b1"] = "|b1"
        else:
            with np.errstate(over="ignore"):
                narrow = np.array_equal(array.astype(np.float32).astype(np.float64), array.astype(np.float64), equal_nan=True)
            dtype = "<f4" if narrow else "<f8"
        content = np.ascontiguousarray(array, dtype).tobytes()
        return PackedArray(dtype, tuple(int(n) for n in array.shape), base64.b64encode(content).decode("ascii"))

    def array(self) -> Array:
        """The array, float64 or bool.

        Raises:
            OutputError: the bytes are not those of such an array.
        """
        dtype = np.dtype(self.dtype)
        try:
            content = base64.b64decode(self.content.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            content = b""
        if len(content) != math.prod(self.shape) * dtype.itemsize:
            raise OutputError(f"plan: {len(content):,} bytes of an array {self.shape}, expected others. Make the plan again.")
        found = np.frombuffer(content, dtype).reshape(self.shape)
        return found if self.dtype == "|b1" else found.astype(np.float64)
