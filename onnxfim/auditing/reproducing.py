"""When a copy of a model gives what the file gives: what its values may differ by, and whether two arrays hold the same."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

SAME = 1e-5  # relative to the values' scale: what float32 kernels may differ by between two graphs
SAME_IN_HALF = 2e-3  # the same in float16


def same(got: Array, truth: Array, *, half: bool = False) -> bool:
    """Whether two arrays hold the same values but for rounding, in float16 where ``half`` or an array says so."""
    if got.shape != truth.shape:
        return False
    scale = float(np.abs(np.where(np.isfinite(truth), truth, 0)).max(initial=0.0)) or 1.0
    slack = SAME_IN_HALF if half or np.float16 in (got.dtype, truth.dtype) else SAME
    return bool(np.allclose(got, truth, rtol=0, atol=slack * scale, equal_nan=True))
