"""Independent yes-or-no outputs: logits of sigmoids, and their probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxfim.graph.ends import Ending
from onnxfim.record.settings import OutputKind
from onnxfim.record.special import expit
from onnxfim.slopes.kinds.base import Array, OutputReader, Recognition, unit
from onnxfim.slopes.kinds.softmax import softmax_divergence


class _Bernoulli(OutputReader):
    """Independent Bernoulli distributions, ``C = diag(p(1 − p))``; a single one decides between two classes."""

    name: ClassVar[OutputKind] = "sigmoid"
    independent: ClassVar[bool] = True
    spread_formula: ClassVar[str] = "max p(1−p)·L²"

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        return np.asarray(expit(self.logits(outputs) / temperature))

    def log_losses(self, outputs: Array, labels: Array, temperature: float) -> Array:
        z = self.logits(outputs)[..., 0] / temperature  # (N, K)
        target = labels[:, None] == (np.arange(z.shape[1]) if z.shape[1] > 1 else 1)
        return np.asarray(np.logaddexp(0.0, np.where(target, -z, z)).sum(axis=1))

    def predictions(self, outputs: Array) -> Array:
        if outputs.shape[1] == 1:
            return np.asarray(self.probabilities(outputs)[:, 0, 0] > 0.5).astype(np.int64)
        return super().predictions(outputs)

    def confidences(self, outputs: Array) -> Array:
        if outputs.shape[1] == 1:
            p = self.probabilities(outputs)
            return np.asarray(np.maximum(p, 1 - p)[:, 0].mean(axis=1))
        return super().confidences(outputs)

    def contest(self, outputs: Array, slopes: Array) -> tuple[Array, Array]:
        z, D = super().contest(outputs, slopes)
        if len(z) == 1:  # its logit against one of 0
            return np.array([z[0], 0.0]), np.concatenate([D, np.zeros_like(D)], axis=1)
        return z, D

    def divergence(self, base: Array, outputs: Array) -> Array:
        """The sum over the outputs; each is a softmax against a logit of 0."""
        z, moved = self.logits(base).ravel(), self.logits(outputs).reshape(len(outputs), -1)
        return softmax_divergence(np.stack([z, 0 * z]), np.stack([moved, 0 * moved], axis=1))

    def log10_spread(self, outputs: Array) -> float:
        nearest = float(np.abs(self.logits(outputs)).min())  # p(1 − p) falls with |z|
        return (-nearest - 2 * math.log1p(math.exp(-nearest))) / math.log(10)

    @property
    def log10_largest_spread(self) -> float:
        return math.log10(0.25)


@dataclass(frozen=True)
class SigmoidLogits(_Bernoulli):
    """Logits of independent Bernoulli outputs."""

    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        z = base / temperature
        # √(p(1−p)) = exp(−|z|/2) / (1 + exp(−|z|)): no 1 − p to cancel.
        weight = np.exp(-np.abs(z) / 2) / (1 + np.exp(-np.abs(z)))
        return np.asarray((weight * self.slopes(plus, minus, h) / temperature).reshape(*plus.shape[:-2], -1))


@dataclass(frozen=True)
class SigmoidProbabilities(_Bernoulli):
    """Independent Bernoulli probabilities whose logits cannot be read: ``y = 2 ∂ arcsin √p / ∂v``."""

    reads_logits: ClassVar[bool] = False
    differentiated: ClassVar[str] = "differentiated through 2 ∂ arcsin √p"

    @classmethod
    def recognise(cls, end: Ending, z: Array) -> Recognition | None:
        if end.kind != cls.name or not unit(z):
            return None
        clip = f"; a Clip to {end.clipped[0]:.4g} … {end.clipped[1]:.4g} follows" if end.clipped else ""
        return Recognition(f"the graph ends in Sigmoid (node {end.node!r}){clip}")

    @classmethod
    def fits(cls, z: Array) -> bool:
        return not (float(z.min()) < 0 or float(z.max()) > 1)  # logits leave 0 to 1

    def before_activation(self) -> OutputReader:
        return SigmoidLogits()

    def logits(self, outputs: Array) -> Array:
        tiny = float(np.finfo(np.float32).eps) / 2
        p = np.clip(outputs, tiny, 1 - tiny)
        return np.asarray(np.log(p) - np.log1p(-p))

    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        angle_plus, angle_minus = (np.arcsin(np.sqrt(self.probabilities(p, temperature))) for p in (plus, minus))
        return np.asarray((2.0 / h * (angle_plus - angle_minus)).reshape(*plus.shape[:-2], -1))
