"""Classes that exclude one another: logits of a softmax, and its probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxfim.errors import ModelError
from onnxfim.graph.ends import Ending
from onnxfim.record.settings import OutputKind
from onnxfim.record.special import log_softmax, logsumexp
from onnxfim.slopes.kinds.base import Array, OutputReader, Recognition, blocks, common_total, simplex, unit
from onnxfim.slopes.kinds.embedding import one_length

_MANY = 100  # values of one sign that no logits have by chance
_SOME = 8  # the same where the graph is known to end in no layer
_UNDERFLOW = 1e-30
_ROUNDED = 0.25  # of the sum of probabilities: what a file that rounds or clips them may be off by


class Categorical(OutputReader):
    """A categorical distribution over K classes at each position, ``C = diag(p) − ppᵀ``."""

    spread_formula: ClassVar[str] = "max 2p(1−p)·L²"

    def log_losses(self, outputs: Array, labels: Array, temperature: float) -> Array:
        return np.asarray(-log_softmax(self.logits(outputs)[..., 0] / temperature, axis=-1)[np.arange(len(labels)), labels])

    def divergence(self, base: Array, outputs: Array) -> Array:
        return softmax_divergence(self.logits(base), self.logits(outputs))

    def classes(self, outputs: int) -> int:
        return outputs  # one number of a softmax is no choice at all

    def log10_spread(self, outputs: Array) -> float:
        """``λ_max(C) ≤ max_k 2p_k(1 − p_k)``, in logarithms: no ``1 − p`` to cancel, no p to underflow."""
        return float(self.log10_spreads(outputs[None])[0])

    def log10_spreads(self, outputs: Array) -> Array:
        log_p = log_softmax(self.logits(outputs)[:, :, 0], axis=1)  # (n, K)
        if log_p.shape[1] < 2:
            return np.full(len(log_p), -math.inf)
        top = np.argpartition(-log_p, 1, axis=1)[:, :2]  # p(1 − p) is largest for one of the two most probable
        found = []
        for k in top.T:
            others = log_p.copy()
            np.put_along_axis(others, k[:, None], -math.inf, axis=1)
            own = np.take_along_axis(log_p, k[:, None], axis=1)[:, 0]
            found.append(math.log(2) + own + logsumexp(others, axis=1))
        return np.asarray(np.maximum(*found) / math.log(10))

    @property
    def log10_largest_spread(self) -> float:
        return math.log10(0.5)


@dataclass(frozen=True)
class SoftmaxLogits(Categorical):
    """Logits of a categorical distribution (log-probabilities too: a constant added to them changes nothing)."""

    name: ClassVar[OutputKind] = "logits"
    scores_from_slopes: ClassVar[bool] = True

    @classmethod
    def recognise(cls, end: Ending, z: Array) -> Recognition | None:
        if z.shape[1] == 1:
            return None
        doubt = None
        if end.normalised is not None or one_length(z) is not None:
            told = f"node {end.normalised!r} divides them by their length" if end.normalised else "all rows have the same length"
            doubt = f"{told}: embeddings? If so, say --output-kind embedding; if they are logits, --output-kind logits"
        elif not end.linear and unit(z):
            doubt = (
                "all outputs lie between 0 and 1 but do not sum to 1: independent probabilities? If so, say --output-kind sigmoid; "
                "if they are logits, --output-kind logits"
            )
        elif not end.linear and z.min() >= 0 and z.size >= (_MANY if end.linear is None else _SOME):
            doubt = (
                "no output is negative, and no last layer makes scores: counts, rates, or probabilities that were not divided by "
                "their sum? Export probabilities or logits; if they are logits, say --output-kind logits"
            )
        return Recognition("the graph's last nodes make no probabilities, nor do the values look like any", doubt)

    def doubt(self, z: Array) -> str | None:
        if simplex(z):
            return "the outputs sum to 1 like probabilities, though --output-kind says logits: a second softmax would be wrong"
        return None

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        shares = np.exp((z := outputs / temperature) - z.max(axis=-2, keepdims=True))
        return np.asarray(shares / shares.sum(axis=-2, keepdims=True))

    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        return self.scores_of(base, self.slopes(plus, minus, h), temperature)

    def scores_of(self, base: Array, slopes: Array, temperature: float = 1.0) -> Array:
        return softmax_scores(self.probabilities(base, temperature), slopes, temperature)

    def weights(self, outputs: Array, temperature: float = 1.0) -> Array | None:
        return None


@dataclass(frozen=True)
class Probabilities(Categorical):
    """Probabilities whose logits cannot be read: ``y(v) = 2 ∂√p/∂v``, no logarithm needed."""

    name: ClassVar[OutputKind] = "probabilities"
    reads_logits: ClassVar[bool] = False
    differentiated: ClassVar[str] = "differentiated through 2 ∂√p"

    @classmethod
    def recognise(cls, end: Ending, z: Array) -> Recognition | None:
        total = common_total(z)
        made = end.kind == cls.name
        off = np.abs(z.sum(axis=1) / end.total - 1).max()
        if total is None and made and (end.clipped or end.rounding) and z.shape[1] > 1 and z.min() >= 0 and off <= _ROUNDED:
            total = end.total
        if total is None:
            return None
        if side := blocks(z, total):
            ranges = ", ".join(f"{first} to {last}" for first, last in side)
            raise ModelError(
                f"output holds {len(side)} distributions side by side (entries {ranges} sum to 1 each), expected one. Export one "
                "of them as an output of its own, and name it with --output."
            )
        how = f"the graph ends in Softmax (node {end.node!r})" if made else f"the outputs are non-negative and sum to {total:.4g}"
        if abs(total - 1) > 1e-3:
            how += f"; read as probabilities after division by {total:.4g}"
        elif off > 1e-3:
            how += "; divided by their sum, which is not 1"
        if made and end.clipped:
            how += f"; a Clip to {end.clipped[0]:.4g} … {end.clipped[1]:.4g} follows, where entries at its ends have no slope"
        return Recognition(how)

    def doubt(self, z: Array) -> str | None:
        return (
            None if simplex(z) else "the outputs are not rows of probabilities (they do not sum to 1), though --output-kind says so"
        )

    def before_activation(self) -> OutputReader:
        return SoftmaxLogits()

    def of_logarithm(self, outputs: Array) -> OutputReader | None:
        """Log-probabilities are logits, where none of the probabilities is zero."""
        return SoftmaxLogits() if float(outputs.min()) > _UNDERFLOW else None

    def logits(self, outputs: Array) -> Array:
        # A probability that underflowed to 0 has no logarithm; the smallest float32 keeps it finite and last.
        return np.asarray(np.log(np.maximum(outputs, np.finfo(np.float32).smallest_subnormal)))

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        log_p = self.logits(outputs) / temperature
        return np.asarray(np.exp(log_p - logsumexp(log_p, axis=-2, keepdims=True)))

    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        change = np.sqrt(self.probabilities(plus, temperature)) - np.sqrt(self.probabilities(minus, temperature))
        return np.asarray((2.0 / h * change).reshape(*plus.shape[:-2], -1))


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
    c = p.argmax(axis=0)  # (P,)
    E = D - D[..., c, np.arange(len(c))][..., None, :]  # (m, K, P)
    Y = np.sqrt(p) * (E - (p * E).sum(axis=-2, keepdims=True)) / temperature
    return np.asarray(Y.reshape(*D.shape[:-2], -1))  # (m, K·P)


def softmax_divergence(base: Array, moved: Array) -> Array:
    """KL between softmax distributions: ``log1p Σ p (e^t − 1 − t)`` with ``t`` the change of the logits less its mean under p.

    Args:
        base: Logits at x, (K, P); the distributions at the positions are independent, and their divergences add up.
        moved: Logits at the moved points, (R, K, P).
    """
    p = np.exp(base - base.max(axis=0))
    p /= p.sum(axis=0)
    change = moved - base  # (R, K, P)
    t = change - np.take_along_axis(change, p.argmax(axis=0)[None, None], axis=1)
    t = t - (t * p).sum(axis=1, keepdims=True)
    return np.asarray(np.log1p((p * _excess(t)).sum(axis=1)).sum(axis=-1))


def _excess(t: Array) -> Array:
    """``e^t − 1 − t``, by its series where t is small."""
    small = np.abs(t) < 1e-3
    clipped = np.where(small, 0.0, np.minimum(t, 700.0))
    return np.where(small, t**2 / 2 * (1 + t / 3 * (1 + t / 4)), np.expm1(clipped) - clipped)
