"""Numbers to be predicted: means of a Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxfim.record.settings import OutputKind, Settings
from onnxfim.slopes.kinds.base import Array, OutputReader


@dataclass(frozen=True)
class Gaussian(OutputReader):
    """Means of a Gaussian with fixed standard deviation: ``F = JᵀJ / σ²``."""

    sigma: float = 1.0

    name: ClassVar[OutputKind] = "gaussian"
    has_classes: ClassVar[bool] = False
    independent: ClassVar[bool] = True
    no_temperature: ClassVar[str | None] = "a Gaussian output has no classes and no temperature"
    spread_formula: ClassVar[str] = "L²/σ²"

    @classmethod
    def of(cls, settings: Settings) -> OutputReader:
        return cls(settings.sigma)

    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        return np.asarray((self.slopes(plus, minus, h) / self.sigma).reshape(*plus.shape[:-2], -1))

    def divergence(self, base: Array, outputs: Array) -> Array:
        return np.asarray(((outputs - base) ** 2).sum(axis=(1, 2)) / (2 * self.sigma**2))

    def log10_spread(self, outputs: Array) -> float:
        return self.log10_largest_spread

    @property
    def log10_largest_spread(self) -> float:
        return -2 * math.log10(self.sigma)
