"""Outputs that a service rounds to a few digits before it sends them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxfim.graph.ends import Ending
from onnxfim.record.settings import OutputKind, Settings
from onnxfim.slopes.kinds.base import Array, Lost, OutputReader, Recognition, unit
from onnxfim.slopes.kinds.sigmoid import SigmoidProbabilities
from onnxfim.slopes.kinds.softmax import Categorical, softmax_scores

_DIGITS = range(7)  # that are looked for; float32 tells seven
_NEAR = 0.01  # of a unit of the last digit, by which a number that has so many may be off, and float32's own rounding
_CHANCE = 1e-9  # that numbers which were not rounded have so few digits
_LEAST = 0.5  # units: a probability whose mean lies below is not told from none
_TOTALS = (1.0, 100.0)  # what probabilities are shares of


def unit_of(z: Array) -> float | None:
    """What all outputs z (N, K, P) are multiples of, where they were rounded to digits; None where nothing shows that they were.

    The fewest digits that all of them have, where it is no chance: of a number that was not rounded a share of twice the slack lies
    so near to one that was. All may be multiples of more than one of the last digit, such as 0.05.
    """
    values = np.abs(z[np.isfinite(z) & (z != 0)])
    for digits in _DIGITS if len(values) else ():
        units = values * 10.0**digits
        slack = _NEAR + units * float(np.finfo(np.float32).eps)
        if slack.max() >= 0.25:
            return None
        if bool((np.abs(units - np.round(units)) <= slack).all()):
            if float(np.log(2 * slack).sum()) > math.log(_CHANCE):
                return None
            return float(np.gcd.reduce(np.round(units).astype(np.int64))) * 10.0**-digits
    return None


def of_few_digits(end: Ending, z: Array, settings: Settings) -> tuple[OutputReader, Recognition] | None:
    """The reader of probabilities that were rounded to digits, and how they are known; None where outputs z (N, K, P) are none.

    Only of a model without a graph: a graph tells itself what it does.
    """
    found = unit_of(z) if has_no_graph(end) else None
    if found is None:
        return None
    if settings.output_kind == SigmoidProbabilities.name:
        if not unit(z) or found >= 1:
            return None
        return RoundedSigmoid(found), Recognition(f"as given by --output-kind, multiples of {found:g}", unit=found)
    if settings.output_kind not in ("auto", RoundedProbabilities.name) or z.shape[1] < 2 or z.min() < 0:
        return None
    for total in (t for t in _TOTALS if found < t / 4):
        off = float(np.abs(z.sum(axis=1) - total).max())
        # K roundings, each even over a unit: their sum is off by √(K/12) units, and never by more than K/2.
        if off <= min(z.shape[1] / 2, 6 * math.sqrt(z.shape[1] / 12) + 1) * found + 1e-6:
            how = f"the outputs are non-negative multiples of {found:g}, and sum to {total:g} within their rounding"
            return RoundedProbabilities(found / total, total), Recognition(how, unit=found)
    return None


def rounded_to(end: Ending, reader: OutputReader, z: Array) -> float:
    """What outputs that are read as they are are multiples of, where they were rounded to digits behind the point; else 0.

    Whole numbers are votes or counts: such a function has steps of its own.
    """
    found = unit_of(z) if reader.reads_logits and has_no_graph(end) else None
    return found if found is not None and found < 1 else 0.0


def has_no_graph(end: Ending) -> bool:
    """Whether the outputs are those of a model that is no file."""
    return end.linear is None and end.node is None


@dataclass(frozen=True)
class RoundedProbabilities(Categorical):
    """Probabilities of a categorical distribution, each rounded to a multiple of ``step``; outputs are ``total`` times as large.

    Their square roots are no use where a probability is of the order of the step, so that scores are made of differences:
    ``y(v) = √p (D − pᵀD)`` with ``D = ∂p/∂v / p``, p the mean over all rows that were measured about the sample. A probability
    that is 0 in all of them has no slope that can be told.
    """

    step: float
    total: float = 1.0
    name: ClassVar[OutputKind] = "probabilities"
    reads_logits: ClassVar[bool] = False
    differentiated: ClassVar[str] = "differentiated through ∂p/√p"

    def logits(self, outputs: Array) -> Array:
        return np.asarray(np.log(np.maximum(outputs / self.total, self.step / 4)))

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        log_p = self.logits(outputs) / temperature
        shares = np.exp(log_p - log_p.max(axis=-2, keepdims=True))
        return np.asarray(shares / shares.sum(axis=-2, keepdims=True))

    def slopes(self, plus: Array, minus: Array, h: float | Array) -> Array:
        return self._slopes(self._told(plus.mean(axis=0) / 2 + minus.mean(axis=0) / 2), plus, minus, h)

    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        p = self._around(base, plus, minus)
        shares = np.where(p > 0, p ** (1.0 / temperature), 0.0)
        total = np.maximum(shares.sum(axis=-2, keepdims=True), self.step / 4)
        return softmax_scores(shares / total, self._slopes(p, plus, minus, h), temperature)

    def lost(self, base: Array, plus: Array, minus: Array, h: float, unit: float) -> Lost:
        """As of every kind; classes that are 0 in every row hold a mass ``q``.

        With slopes of their logarithms no larger than those of the others, ``‖D‖``, they add ``q ‖D‖²`` to λ at most.
        """
        p = self._around(base, plus, minus)
        known = p > 0
        noise = self.step**2 / (6.0 * h**2)  # of ∂p, two roundings of a variance of a twelfth each
        D = self._slopes(p, plus, minus, h)[:, known]
        slopes = np.square(D).mean(axis=0) - noise / p[known] ** 2
        unseen = (~known).sum(axis=0)
        hidden = np.clip(1.0 - p.sum(axis=0), 0.0, self.step / 2 * unseen) + self.step / 2 * (unseen > 0)
        steepest = max(float(slopes.max(initial=0.0)), 0.0)
        return Lost(float(np.max(noise / p[known], initial=0.0)), float(hidden.sum()) * steepest, int(known.sum()))

    def _around(self, base: Array, plus: Array, minus: Array) -> Array:
        """Mean probabilities (K, P) at a sample and about it, 0 where they are not told from it.

        The steps spread them over the multiples of the unit, so that their mean knows them finer than it.
        """
        return self._told((2 * base + plus.mean(axis=0) + minus.mean(axis=0)) / 4 if len(plus) else base)

    def _told(self, outputs: Array) -> Array:
        """Probabilities, 0 where they are too small to be told from it."""
        p = outputs / self.total
        return np.where(p >= _LEAST * self.step, p, 0.0)

    def _slopes(self, p: Array, plus: Array, minus: Array, h: float | Array) -> Array:
        """Slopes of the logarithms, 0 of what is not told from 0."""
        return np.asarray(np.where(p > 0, (plus - minus) / self.total / h / np.where(p > 0, p, 1.0), 0.0))


@dataclass(frozen=True)
class RoundedSigmoid(SigmoidProbabilities):
    """Independent probabilities, each rounded to a multiple of ``step``: ``y = ∂p/√(p(1 − p))``, p as in `RoundedProbabilities`."""

    step: float = 0.0
    differentiated: ClassVar[str] = "differentiated through ∂p/√(p(1 − p))"

    def logits(self, outputs: Array) -> Array:
        p = np.clip(outputs, self.step / 4, 1 - self.step / 4)
        return np.asarray(np.log(p) - np.log1p(-p))

    def slopes(self, plus: Array, minus: Array, h: float | Array) -> Array:
        return self._slopes(plus.mean(axis=0) / 2 + minus.mean(axis=0) / 2, plus, minus, h)

    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        p = self._around(base, plus, minus)
        at = self.probabilities(p, temperature)
        found = np.sqrt(at * (1 - at)) * self._slopes(p, plus, minus, h) / temperature
        return np.asarray(found.reshape(*plus.shape[:-2], -1))

    def lost(self, base: Array, plus: Array, minus: Array, h: float, unit: float) -> Lost:
        """As of every kind; an output that is 0 or 1 in every row holds half a step, as rounded probabilities do."""
        p = self._around(base, plus, minus)
        known = self._told(p)
        noise = self.step**2 / (6.0 * h**2)
        spread = (p * (1 - p))[known]
        slopes = np.square(self._slopes(p, plus, minus, h)[:, known]).mean(axis=0) - noise / spread**2
        hidden = self.step / 2 * int((~known).sum())
        return Lost(float(np.max(noise / spread, initial=0.0)), hidden * max(float(slopes.max(initial=0.0)), 0.0), int(known.sum()))

    def _around(self, base: Array, plus: Array, minus: Array) -> Array:
        return np.asarray((2 * base + plus.mean(axis=0) + minus.mean(axis=0)) / 4 if len(plus) else base)

    def _told(self, p: Array) -> Array:
        """Which probabilities are told from 0 and 1."""
        return np.asarray((p >= _LEAST * self.step) & (p <= 1 - _LEAST * self.step))

    def _slopes(self, p: Array, plus: Array, minus: Array, h: float | Array) -> Array:
        known = self._told(p)
        return np.asarray(np.where(known, (plus - minus) / h / np.where(known, p * (1 - p), 1.0), 0.0))
