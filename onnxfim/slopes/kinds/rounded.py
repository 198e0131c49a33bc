"""Probabilities that a service rounds to a few digits before it sends them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxfim.graph.ends import Ending
from onnxfim.record.settings import OutputKind, Settings
from onnxfim.slopes.kinds.base import Array, OutputReader, Recognition
from onnxfim.slopes.kinds.softmax import Categorical, softmax_scores

_DIGITS = range(1, 7)  # that are looked for; float32 tells seven
_NEAR = 0.01  # of a unit of the last digit, by which a number that has so many may be off, and float32's own rounding
_CHANCE = 1e-9  # that numbers which were not rounded have so few digits
_LEAST = 0.5  # units: a probability whose mean lies below is not told from none


def digits_of(z: Array) -> int | None:
    """After how many digits outputs (N, K, P) between 0 and 1 were rounded; None where nothing shows that they were.

    The fewest that all of them have, where it is no chance: of a number that was not rounded a share of twice the slack lies so
    near to one that was.
    """
    inner = z[(z > 0) & (z < 1)]
    if not len(inner) or z.min() < 0 or z.max() > 1:
        return None
    for digits in _DIGITS:
        units = inner * 10.0**digits
        slack = _NEAR + units * float(np.finfo(np.float32).eps)
        if slack.max() >= 0.25:
            return None
        if bool((np.abs(units - np.round(units)) <= slack).all()):
            return digits if float(np.log(2 * slack).sum()) <= math.log(_CHANCE) else None
    return None


@dataclass(frozen=True)
class RoundedProbabilities(Categorical):
    """Probabilities of a categorical distribution, each rounded to a multiple of ``unit``.

    Their square roots are no use where a probability is of the order of the unit, so that scores are made of differences:
    ``y(v) = √p (D − pᵀD)`` with ``D = ∂p/∂v / p``, p the mean over all rows that were measured about the sample. A probability
    that is 0 in all of them has no slope that can be told.
    """

    unit: float = 0.0
    name: ClassVar[OutputKind] = "probabilities"
    reads_logits: ClassVar[bool] = False
    differentiated: ClassVar[str] = "differentiated through ∂p/√p"

    @classmethod
    def of_digits(cls, digits: int) -> RoundedProbabilities:
        """The reader of probabilities of so many digits."""
        return cls(10.0**-digits)

    @classmethod
    def of_values(cls, end: Ending, z: Array, settings: Settings) -> tuple[OutputReader, Recognition] | None:
        """The reader and how it is known, where outputs z (N, K, P) are rounded probabilities; None where they are not."""
        no_graph = end.linear is None and end.node is None  # a graph tells itself what it does
        if settings.output_kind not in ("auto", cls.name) or z.shape[1] < 2 or not no_graph:
            return None
        digits = digits_of(z)
        if digits is None:
            return None
        unit = 10.0**-digits
        off = float(np.abs(z.sum(axis=1) - 1).max())
        # K roundings, each even over a unit: their sum is off by √(K/12) units, and never by more than K/2.
        if off > min(z.shape[1] / 2, 6 * math.sqrt(z.shape[1] / 12) + 1) * unit + 1e-6:
            return None
        how = f"the outputs are non-negative, sum to 1 within their rounding, and have {digits} digit{'s' * (digits > 1)}"
        return cls(unit), Recognition(how)

    def logits(self, outputs: Array) -> Array:
        return np.asarray(np.log(np.maximum(outputs, self.unit / 4)))

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        log_p = self.logits(outputs) / temperature
        shares = np.exp(log_p - log_p.max(axis=-2, keepdims=True))
        return np.asarray(shares / shares.sum(axis=-2, keepdims=True))

    def slopes(self, plus: Array, minus: Array, h: float | Array) -> Array:
        return self._slopes(self.told(plus.mean(axis=0) / 2 + minus.mean(axis=0) / 2), plus, minus, h)

    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        p = self.around(base, plus, minus)
        shares = np.where(p > 0, p ** (1.0 / temperature), 0.0)
        total = np.maximum(shares.sum(axis=-2, keepdims=True), self.unit / 4)
        return softmax_scores(shares / total, self._slopes(p, plus, minus, h), temperature)

    def around(self, base: Array, plus: Array, minus: Array) -> Array:
        # The steps spread them over the multiples of the unit, so that their mean knows them finer than it.
        return self.told((2 * base + plus.mean(axis=0) + minus.mean(axis=0)) / 4 if len(plus) else base)

    def told(self, p: Array) -> Array:
        """Probabilities, 0 where they are too small to be told from it."""
        return np.where(p >= _LEAST * self.unit, p, 0.0)

    def _slopes(self, p: Array, plus: Array, minus: Array, h: float | Array) -> Array:
        """Slopes of the logarithms, 0 of what is not told from 0."""
        return np.asarray(np.where(p > 0, (plus - minus) / h / np.where(p > 0, p, 1.0), 0.0))
