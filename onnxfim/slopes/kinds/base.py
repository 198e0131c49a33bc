"""What an output kind tells of itself: all that others need to know of a distribution, asked in one place."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from onnxfim.graph.ends import Ending
from onnxfim.record.settings import OUTPUT_FAMILIES, OutputKind, Settings

Array: TypeAlias = np.ndarray[Any, Any]
Takes: TypeAlias = Literal["all", "directions", "scores"]


@dataclass(frozen=True)
class Recognition:
    """How outputs are known to be of a kind, and what speaks against it: values of a wrong kind are no values.

    ``unit`` is what all outputs are multiples of, where they were rounded to digits; else 0.
    """

    how: str
    doubt: str | None = None
    unit: float = 0.0


@dataclass(frozen=True)
class Lost:
    """What rounding of outputs leaves of a value of λ.

    Attributes:
        added: What it adds to λ at most, as one direction's variance.
        hidden: What outputs that never move may add that is not seen.
        outputs: How many outputs move.
    """

    added: float
    hidden: float
    outputs: int


class OutputReader(ABC):
    """Reads raw outputs of one kind; everything is float64.

    Raw outputs have shape (..., K, P): K classes at P positions (P = 1 for a plain classifier). Scores along a direction are
    ``y = A v`` with ``F = AᵀA``, so every kind ends in the same estimators. A subclass is a frozen dataclass; its fields are the
    distribution's fixed parameters.

    Attributes:
        name: The published name. Two readers share it where outputs of that name may be read in two ways.
        has_classes: A prediction, a confidence and a decision boundary exist.
        independent: Every output stands for itself, whichever axis it lies on.
        takes: What of an output it reads: all of it, its ``directions`` (divided by its length), or a detector's ``scores``.
        reads_logits: The outputs are what is differentiated, so that their Jacobian in the graph is that of `slopes`.
        differentiated: How slopes come about where they are not those of the outputs, in words.
        scores_from_slopes: Scores are made of the slopes of the logits alone, see `scores_of`.
        no_temperature: Why a temperature has no meaning, in words; None where it has one.
        spread_formula: The largest eigenvalue of C, in symbols, times ``L²``.
    """

    name: ClassVar[OutputKind]
    has_classes: ClassVar[bool] = True
    independent: ClassVar[bool] = False
    takes: ClassVar[Takes] = "all"
    reads_logits: ClassVar[bool] = True
    differentiated: ClassVar[str] = ""
    scores_from_slopes: ClassVar[bool] = False
    no_temperature: ClassVar[str | None] = None
    spread_formula: ClassVar[str]

    @property
    def family(self) -> str:
        """What the outputs are a distribution of; audits of one family can be compared."""
        return OUTPUT_FAMILIES[self.name]

    @property
    def identity(self) -> str:
        """The reader with its parameters, for the cache: results of readers with another identity are not the same."""
        return repr(self)

    # which outputs are of this kind

    @classmethod
    def of(cls, settings: Settings) -> OutputReader:
        """The reader with the parameters that the settings give it."""
        return cls()

    @classmethod
    def recognise(cls, end: Ending, z: Array) -> Recognition | None:
        """How the graph's end and the outputs z (N, K, P) tell this kind, None where they do not."""
        return None

    @classmethod
    def fits(cls, z: Array) -> bool:
        """Whether outputs z (N, K, P) that were said to be of this name can be read in this way."""
        return True

    def doubt(self, z: Array) -> str | None:
        """What speaks against the kind, where it was said to be this one."""
        return None

    def made_by(self, end: Ending) -> bool:
        """Whether the activation that the graph ends in is what made outputs of this kind."""
        return end.kind == self.name

    def before_activation(self) -> OutputReader | None:
        """Reads the value before the activation that made these outputs; None where they were not made by one."""
        return None

    def of_logarithm(self, outputs: Array) -> OutputReader | None:
        """Reads the logarithm of these outputs (N, K, P), where that tells the same distribution; None where it does not."""
        return None

    # what they mean

    def classes(self, outputs: int) -> int:
        """How many classes so many outputs tell apart: one number may be the chance of the second of two."""
        return max(outputs, 2)

    def logits(self, outputs: Array) -> Array:
        """The natural parameters, in the shape of ``outputs``: what slopes and decision boundaries are taken of."""
        return outputs

    def probabilities(self, outputs: Array, temperature: float = 1.0) -> Array:
        """Probabilities at a temperature, in the shape of ``outputs`` (..., K, P)."""
        raise NotImplementedError(f"a {self.name} output has no class probabilities")

    def log_losses(self, outputs: Array, labels: Array, temperature: float) -> Array:
        """Negative log-likelihood of each of the integer ``labels`` (N,) under ``outputs`` (N, K, 1), in nats, (N,)."""
        raise NotImplementedError(f"a {self.name} output has no class labels")

    def predictions(self, outputs: Array) -> Array:
        """Class of each sample at the first position from ``outputs`` (N, K, P), (N,)."""
        return np.asarray(outputs[:, :, 0].argmax(axis=1))  # every kind's probabilities rise with its outputs

    def confidences(self, outputs: Array) -> Array:
        """Probability of the predicted class of each sample, averaged over the positions, (N,)."""
        return np.asarray(self.probabilities(outputs).max(axis=1).mean(axis=1))

    def contest(self, outputs: Array, slopes: Array) -> tuple[Array, Array]:
        """Values (C,), the largest of which decides the class of a sample, and their slopes (m, C).

        Args:
            outputs: The sample's outputs, (K, 1).
            slopes: Slopes of its logits, (m, K, 1).
        """
        return self.logits(outputs)[:, 0], slopes[:, :, 0]

    # how far the distribution moves

    def slopes(self, plus: Array, minus: Array, h: float | Array) -> Array:
        """Slopes of the logits ``Jv`` (m, K, P) from outputs (m, K, P) at the ends of steps of length ``h``, one or (m, 1, 1)."""
        return np.asarray((self.logits(plus) - self.logits(minus)) / h)

    @abstractmethod
    def scores(self, base: Array, plus: Array, minus: Array, h: float | Array, temperature: float = 1.0) -> Array:
        """Scores ``y(v)`` (m, K·P) over the same steps; ``base`` (K, P) are the outputs at x."""

    def scores_of(self, base: Array, slopes: Array, temperature: float = 1.0) -> Array:
        """The same from slopes of the logits (m, K, P), where ``scores_from_slopes``."""
        raise NotImplementedError(f"scores of a {self.name} output are not made of its slopes")

    def lost(self, base: Array, plus: Array, minus: Array, h: float, unit: float) -> Lost:
        """What rounding of the outputs to multiples of ``unit`` adds to λ and hides from it.

        Slopes are off by a variance of ``unit²/(6h²)`` each. Scores are linear in them, and the square of the norm of that map,
        bounded by its largest sums of rows and columns, is what λ takes of it.

        Args:
            base: Outputs at the sample, (K, P).
            plus, minus: At the ends of steps about it, (m, K, P).
            h: Distance between the ends.
            unit: What the outputs are multiples of.
        """
        ends = np.eye(base.size).reshape(base.size, *base.shape) * (h / 2)
        with np.errstate(invalid="ignore"):
            S = np.abs(self.scores(base, base + ends, base - ends, h))  # (K·P, K·P)
        return Lost(unit**2 / (6.0 * h**2) * float(S.sum(axis=0).max() * S.sum(axis=1).max()), 0.0, base.size)

    def weights(self, outputs: Array, temperature: float = 1.0) -> Array | None:
        """The diagonal W of ``A = W J``, (n, K·P), for ``outputs`` (n, K, P), where the outputs are independent.

        None where they are not: the product with ``A Aᵀ`` is then the softmax's.
        """
        ones = np.ones(outputs.shape)
        return self.scores(outputs, ones, 0 * ones, 1.0, temperature)  # of slopes that are all 1

    @abstractmethod
    def divergence(self, base: Array, outputs: Array) -> Array:
        """``KL(p ‖ q)`` in nats, (R,), from outputs (K, P) at x and (R, K, P) at moved points, without cancellation."""

    @abstractmethod
    def log10_spread(self, outputs: Array) -> float:
        """log10 of the largest eigenvalue of C, ``F = JᵀCJ``, at one sample's ``outputs`` (K, 1); -inf where it is 0."""

    def log10_spreads(self, outputs: Array) -> Array:
        """`log10_spread` at each of ``outputs`` (n, K, 1), (n,)."""
        return np.array([self.log10_spread(z) for z in outputs])

    @property
    @abstractmethod
    def log10_largest_spread(self) -> float:
        """log10 of the largest eigenvalue of C that any outputs have; inf where there is no such limit."""


def simplex(z: Array, slack: float = 1e-3) -> bool:
    """Whether outputs (N, K, P) are rows of probabilities; ``slack`` is what float16 files are off by."""
    return bool(z.shape[1] > 1 and z.min() >= -slack and np.abs(z.sum(axis=1) - 1).max() <= slack)


def common_total(z: Array, slack: float = 1e-3) -> float | None:
    """What non-negative outputs (N, K, P) sum to over the classes, where that is the same in all rows; None where it is not.

    One row sums to something always: only 1 and 100 are believed of it.
    """
    sums = z.sum(axis=1)
    total = float(sums.mean())
    if z.shape[1] < 2 or not 0 < total < math.inf or z.min() < -slack * total or np.abs(sums - total).max() > slack * total:
        return None
    told = sums.size > 1 or any(abs(total - c) <= slack * c for c in (1, 100))
    return total if told else None


def blocks(z: Array, total: float, slack: float = 1e-3) -> list[tuple[int, int]]:
    """First and last entries of blocks side by side that sum to 1 each, where ``total`` is their number; empty where it is not."""
    count = round(total)
    if not 2 <= count <= z.shape[1] // 2 or abs(total - count) > slack * count:
        return []
    running = z.cumsum(axis=1)  # (N, K, P)
    found, start = [], 0
    for n in range(1, count + 1):
        ends = [k for k in range(start, z.shape[1]) if np.abs(running[:, k] - n).max() <= slack * count]
        if not ends:
            return []
        found.append((start, z.shape[1] - 1 if n == count else ends[0]))
        start = ends[0] + 1
    return found


def unit(z: Array) -> bool:
    """Whether all outputs lie between 0 and 1."""
    return bool(z.min() >= 0 and z.max() <= 1)
