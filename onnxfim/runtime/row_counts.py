"""Whose kernels run on a device of their own: what crosses the bus to it is packed, and its calls have few different shapes.

Each new number of rows costs such a provider a search for kernels (cuDNN), or an engine (TensorRT); a processor's kernels take any.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import ModelError

Array: TypeAlias = np.ndarray[Any, Any]

# Those that compute in the host's memory, wherever they run.
_HOST = frozenset(f"{name}ExecutionProvider" for name in ("CPU", "OpenVINO", "Dnnl", "Xnnpack", "XNNPACK", "ACL", "ArmNN", "Azure"))

#: Rows of the smallest call: a call of one row takes as long on such a device.
FEWEST = 8
_GROWTH = 8  # from a number of rows to the next


def has_own_device(provider: str) -> bool:
    """Whether a provider computes on a device of its own."""
    return provider not in _HOST


def sizes(most: int) -> tuple[int, ...]:
    """Numbers of rows that calls of at most ``most`` rows have: powers of eight, and ``most`` itself."""
    found = []
    size = FEWEST
    while size < most:
        found.append(size)
        size *= _GROWTH
    return (*found, most)


def padded_size(rows: int, most: int) -> int:
    """The least of `sizes` that holds so many rows; as many where ``most`` is exceeded."""
    return next((size for size in sizes(most) if size >= rows), rows)


def filled(rows: Array, count: int, axis: int = 0) -> Array:
    """Rows along an axis, filled up to ``count`` with the last.

    Raises:
        ModelError: so many rows that no memory holds them, as a file that insists on its batch may ask for.
    """
    missing = count - rows.shape[axis]
    if missing <= 0:
        return rows
    try:
        return np.concatenate([rows, np.repeat(np.take(rows, [-1], axis), missing, axis)], axis)
    except (MemoryError, ValueError) as error:  # numpy raises ValueError where the size is beyond its numbers
        raise ModelError(
            f"input: the model takes {count:,} rows at once, more than memory holds. Export it with a free or a smaller batch axis."
        ) from error
