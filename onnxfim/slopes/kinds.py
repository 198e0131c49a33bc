"""How outputs become scores: one small class per kind of output distribution.

Raw outputs have shape (..., K, P): K classes at P positions (P = 1 for a plain classifier). Scores along a direction are
``y = A v`` with ``F = AᵀA``, so every kind ends in the same estimators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from scipy.special import expit, log_softmax, logsumexp, softmax

Array: TypeAlias = np.ndarray[Any, Any]


class OutputReader(Protocol):
    """Reads raw outputs of one kind; everything is float64."""

    @property
    def has_classes(self) -> bool:
        """True where a prediction, a confidence and a decision boundary exist."""

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        """Probabilities at a temperature, in the shape of ``outputs`` (..., K, P)."""

    def log_loss(self, outputs: Array, labels: Array, temperature: float) -> float:
        """Mean negative log-likelihood of integer ``labels`` (N,) under ``outputs`` (N, K, 1), in nats."""

    def scores(self, base: Array, plus: Array, minus: Array, h: float, temperature: float = 1.0) -> Array:
        """Scores ``y(v)`` (m, K·P) from outputs (m, K, P) at the two ends of steps of length ``h``; ``base`` (K, P) at x."""

    def slopes(self, plus: Array, minus: Array, h: float) -> Array:
        """Slopes of the logits ``Jv`` (m, K, P) over the same steps."""


def softmax_scores(p: Array, D: Array, temperature: float = 1.0) -> Array:
    """``√p ⊙ (D − pᵀD) / T`` without cancellation when p is saturated.

    Slopes are first taken relative to the dominant class c, so that ``Σ p_j (D_j − D_c)`` is a sum of small terms and not
    the difference of large ones (values of 1e-35 are then true values).

    Args:
        p: Probabilities at the same temperature, (K, P).
        D: Slopes of the logits, (m, K, P).
        temperature: T of ``softmax(z / T)``.

    Returns:
        Scores, (m, K·P).
    """
    c = p.argmax(axis=-2, keepdims=True)  # (1, P)
    E = D - np.take_along_axis(D, np.broadcast_to(c, (*D.shape[:-2], *c.shape[-2:])), axis=-2)  # (m, K, P)
    Y = np.sqrt(p) * (E - (p * E).sum(axis=-2, keepdims=True)) / temperature
    return Y.reshape(*D.shape[:-2], -1)  # (m, K·P)


@dataclass(frozen=True)
class SoftmaxLogits:
    """Logits of a categorical distribution (log-probabilities too: a constant added to them changes nothing)."""

    has_classes: bool = True

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        return np.asarray(softmax(outputs / temperature, axis=-2))

    def log_loss(self, outputs: Array, labels: Array, temperature: float) -> float:
        picked = log_softmax(outputs[..., 0] / temperature, axis=-1)[np.arange(len(labels)), labels]
        return float(-picked.mean())

    def scores(self, base: Array, plus: Array, minus: Array, h: float, temperature: float = 1.0) -> Array:
        return softmax_scores(self.probabilities(base, temperature), self.slopes(plus, minus, h), temperature)

    def slopes(self, plus: Array, minus: Array, h: float) -> Array:
        return (plus - minus) / h


@dataclass(frozen=True)
class Probabilities:
    """Probabilities whose logits cannot be read: ``y(v) = 2 ∂√p/∂v``, no logarithm needed."""

    has_classes: bool = True

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        log_p = self._log(outputs) / temperature
        return np.asarray(np.exp(log_p - logsumexp(log_p, axis=-2, keepdims=True)))

    def log_loss(self, outputs: Array, labels: Array, temperature: float) -> float:
        return SoftmaxLogits().log_loss(self._log(outputs), labels, temperature)

    def scores(self, base: Array, plus: Array, minus: Array, h: float, temperature: float = 1.0) -> Array:
        change = np.sqrt(self.probabilities(plus, temperature)) - np.sqrt(self.probabilities(minus, temperature))
        return (2.0 / h * change).reshape(*plus.shape[:-2], -1)

    def slopes(self, plus: Array, minus: Array, h: float) -> Array:
        return (self._log(plus) - self._log(minus)) / h

    @staticmethod
    def _log(p: Array) -> Array:
        # A probability that underflowed to 0 has no logarithm; the smallest float32 keeps it finite and last.
        return np.log(np.maximum(p, np.finfo(np.float32).smallest_subnormal))


@dataclass(frozen=True)
class SigmoidLogits:
    """Logits of independent Bernoulli outputs: ``C = diag(p(1 − p))``."""

    has_classes: bool = True

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        return np.asarray(expit(outputs / temperature))

    def log_loss(self, outputs: Array, labels: Array, temperature: float) -> float:
        z = outputs[..., 0] / temperature  # (N, K)
        target = labels[:, None] == (np.arange(z.shape[1]) if z.shape[1] > 1 else 1)
        return float(np.logaddexp(0.0, np.where(target, -z, z)).sum(axis=1).mean())

    def scores(self, base: Array, plus: Array, minus: Array, h: float, temperature: float = 1.0) -> Array:
        z = base / temperature
        # √(p(1−p)) = exp(−|z|/2) / (1 + exp(−|z|)): no 1 − p to cancel.
        weight = np.exp(-np.abs(z) / 2) / (1 + np.exp(-np.abs(z)))
        return (weight * self.slopes(plus, minus, h) / temperature).reshape(*plus.shape[:-2], -1)

    def slopes(self, plus: Array, minus: Array, h: float) -> Array:
        return (plus - minus) / h


@dataclass(frozen=True)
class SigmoidProbabilities:
    """Independent Bernoulli probabilities whose logits cannot be read: ``y = 2 ∂ arcsin √p / ∂v``."""

    has_classes: bool = True

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        return SigmoidLogits().probabilities(self._logit(outputs), temperature)

    def log_loss(self, outputs: Array, labels: Array, temperature: float) -> float:
        return SigmoidLogits().log_loss(self._logit(outputs), labels, temperature)

    def scores(self, base: Array, plus: Array, minus: Array, h: float, temperature: float = 1.0) -> Array:
        angle_plus, angle_minus = (np.arcsin(np.sqrt(self.probabilities(p, temperature))) for p in (plus, minus))
        return (2.0 / h * (angle_plus - angle_minus)).reshape(*plus.shape[:-2], -1)

    def slopes(self, plus: Array, minus: Array, h: float) -> Array:
        return (self._logit(plus) - self._logit(minus)) / h

    @staticmethod
    def _logit(p: Array) -> Array:
        tiny = float(np.finfo(np.float32).eps) / 2
        p = np.clip(p, tiny, 1 - tiny)
        return np.log(p) - np.log1p(-p)


@dataclass(frozen=True)
class Gaussian:
    """Means of a Gaussian with fixed standard deviation: ``F = JᵀJ / σ²``. Temperature has no meaning here."""

    sigma: float = 1.0
    has_classes: bool = False

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        raise NotImplementedError("a Gaussian output has no class probabilities")

    def log_loss(self, outputs: Array, labels: Array, temperature: float) -> float:
        raise NotImplementedError("a Gaussian output has no class labels")

    def scores(self, base: Array, plus: Array, minus: Array, h: float, temperature: float = 1.0) -> Array:
        return (self.slopes(plus, minus, h) / self.sigma).reshape(*plus.shape[:-2], -1)

    def slopes(self, plus: Array, minus: Array, h: float) -> Array:
        return (plus - minus) / h
