"""Outputs as the rest of the audit takes them: samples, classes, positions."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import ModelError

Array: TypeAlias = np.ndarray[Any, Any]


def as_classes(z: Array, class_axis: int | None = None, batch_axis: int = 0) -> Array:
    """Outputs (N, K), (N, K, 1, …) or (N, K, H, W) as (N, K, P) float64; axes that lie elsewhere are moved into N's and K's place.

    Raises:
        ModelError: outputs without a class axis.
    """
    if z.ndim < 2:
        raise ModelError(f"output has shape {z.shape}, expected a batch axis and a class axis. Export one score per class.")
    if z.size == 0:
        raise ModelError(f"output has shape {z.shape} and holds no numbers, expected a class at least. Export one score per class.")
    places = (batch_axis % z.ndim, (1 if class_axis is None else class_axis) % z.ndim)
    if places != (0, 1):
        z = np.moveaxis(z, places, (0, 1))
    return z.reshape(len(z), z.shape[1], -1).astype(np.float64)
