"""Directions of embeddings: rows of length 1, compared by their cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxfim.record.settings import OutputKind
from onnxfim.slopes.kinds.base import Array, Takes
from onnxfim.slopes.kinds.gaussian import Gaussian

_SAME_LENGTH = 2e-3  # relative: what float16 files are off by


@dataclass(frozen=True)
class Embedding(Gaussian):
    """Embeddings divided by their length, as means of a Gaussian: ``F = JᵀJ / σ²`` of ``z/‖z‖``, which is ``JᵀP_zJ / (σ²‖z‖²)``.

    What is read is divided already; the copy of the file that does so is made where it is opened. ``KL = (1 − cos) / σ²``.
    """

    name: ClassVar[OutputKind] = "embedding"
    takes: ClassVar[Takes] = "directions"
    no_temperature: ClassVar[str | None] = "an embedding has no classes and no temperature"

    def doubt(self, z: Array) -> str | None:
        if one_length(z):
            return None
        return "the embeddings that are read are not of length 1"


def one_length(z: Array) -> float | None:
    """The length that all rows of outputs (N, K, P) have along K, where they differ otherwise; None where they have not one."""
    lengths = np.sqrt((z**2).sum(axis=1))
    length = float(lengths.mean())
    if z.shape[1] < 2 or not 0 < length < np.inf or np.abs(lengths - length).max() > _SAME_LENGTH * length:
        return None
    rows = np.moveaxis(z, 1, -1).reshape(-1, z.shape[1])
    told = len(rows) > 2 or abs(length - 1) <= _SAME_LENGTH
    return length if told and np.ptp(rows, axis=0).max() > _SAME_LENGTH * length else None
