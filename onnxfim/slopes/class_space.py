"""Products of many classes: what each measure weighs the outputs by, and one call of the derivative graph for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.special import log_softmax
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

_NOISE = 0.1  # of a start
_LARGEST = 700.0  # exponent of a float64


def passes_of_products(seeds: int) -> int:
    """Forward passes that a call of so many products ``u ↦ J Jᵀu`` costs a sample: values once, slopes both ways for each.

    By count: a product alone took 4.4 to 5.6 passes (tests/benchmarks/bench_large.py, which times calls of three and eight too).
    """
    return 2 + 3 * seeds


@dataclass(frozen=True)
class Weighing:
    """``A = diag(root)(I − 1pᵀ)J`` of n samples, or ``diag(root) J``, without its J and but for a factor.

    The factor is taken out so that products have the size of the slopes however saturated p is.

    Attributes:
        root: (n, K).
        p: Probabilities, (n, K); None where the outputs are independent.
        factor: What eigenvalues of ``A Aᵀ`` are to be multiplied by, (n,).
    """

    root: Array
    p: Array | None
    factor: Array

    @classmethod
    def of(cls, reader: OutputReader, z: Array, temperature: float) -> Weighing:
        """Of the Fisher information at outputs z (n, K, 1)."""
        diagonal = reader.weights(z, temperature)
        if diagonal is not None:
            return cls.diagonal(diagonal)
        log_p = log_softmax(reader.logits(z)[:, :, 0] / temperature, axis=1)
        others = log_p.copy()
        np.put_along_axis(others, log_p.argmax(axis=1)[:, None], -np.inf, axis=1)
        largest = others.max(axis=1)  # of the classes but the first: all of A is of the size of its root
        root = np.exp(np.minimum((log_p - largest[:, None]) / 2, _LARGEST))
        return cls(root, np.exp(log_p), np.exp(largest) / temperature**2)

    @classmethod
    def diagonal(cls, weights: Array) -> Weighing:
        """Of independent outputs with the weights (n, K)."""
        size = np.abs(weights).max(axis=1)
        return cls(weights / np.where(size > 0, size, 1.0)[:, None], None, size**2)

    @classmethod
    def none(cls, n: int, K: int) -> Weighing:
        """Of ``J`` itself."""
        return cls(np.ones((n, K)), None, np.ones(n))

    def cotangents(self, rows: Array, u: Array) -> Array:
        """``c`` with ``Aᵀu = Jᵀc`` at some of the samples, for u (n, S, K).

        The entry of the dominant class is what the others have, for their sum is 0: nothing cancels.
        """
        c = self.root[rows][:, None] * u
        if self.p is None:
            return c
        p = self.p[rows]
        top = np.broadcast_to(p.argmax(axis=1)[:, None, None], (*c.shape[:2], 1))
        c = c - p[:, None] * c.sum(axis=2, keepdims=True)
        np.put_along_axis(c, top, 0.0, axis=2)
        np.put_along_axis(c, top, -c.sum(axis=2, keepdims=True), axis=2)
        return np.asarray(c)

    def scores(self, rows: Array, slopes: Array) -> Array:
        """``A v`` of slopes ``J v`` (n, S, K), taken relative to the dominant class first."""
        if self.p is None:
            return np.asarray(self.root[rows][:, None] * slopes)
        p = self.p[rows]
        top = np.broadcast_to(p.argmax(axis=1)[:, None, None], (*slopes.shape[:2], 1))
        E = slopes - np.take_along_axis(slopes, top, axis=2)
        return np.asarray(self.root[rows][:, None] * (E - (p[:, None] * E).sum(axis=2, keepdims=True)))

    def starts(self, noise: Array) -> Array:
        """Starts for products with ``A Aᵀ`` from unit noise (n, S, K): what ``J Jᵀ = I`` would make of it, and a tenth of it.

        They lie where the probabilities do, which saves products and takes no pass through the network. The noise itself keeps a
        part along every eigenvector, whatever p and the slopes are.
        """
        rows = np.arange(len(noise))
        u = self.scores(rows, self.cotangents(rows, noise))
        size = np.linalg.norm(u, axis=2, keepdims=True)
        return np.asarray(u / np.where(size > 0, size, 1.0) + _NOISE * noise)


@dataclass
class JointProducts:
    """Products ``A Aᵀu`` of several measures of the same samples; those of one sample go through the network together.

    Operator ``m·n + k`` is that of weighing m at sample k.

    Args:
        model: The derivative graphs.
        x: The samples, (n, *shape).
        weighings: What each measure weighs the outputs by.
        of: Positions of the samples, (n,), for a model that needs them.

    Attributes:
        passes: Forward passes spent on each sample, (n,).
        cotangents, slopes: Each operator's vectors ``c`` and ``J Jᵀc`` so far, (S, K) a step.
    """

    model: DifferentiableModel
    x: Array
    weighings: list[Weighing]
    of: Array | None = None
    passes: Array = field(init=False)
    cotangents: dict[int, list[Array]] = field(default_factory=dict)
    slopes: dict[int, list[Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.passes = np.zeros(len(self.x), int)

    def __call__(self, operators: Array, u: Array) -> Array:
        """The products (n, S, K) of blocks of vectors u (n, S, K), one block for each of the operators."""
        samples, measures = operators % len(self.x), operators // len(self.x)
        c, w = np.zeros(u.shape), np.zeros(u.shape)
        for m, weighing in enumerate(self.weighings):
            c[measures == m] = weighing.cotangents(samples[measures == m], u[measures == m])
        scale = np.abs(c).max(axis=2, keepdims=True)
        c /= np.where(scale > 0, scale, 1.0)  # cotangents of unit size through the network, whatever the weights
        d = self._through(samples, c)
        for i, operator in enumerate(operators.tolist()):
            there = scale[i, :, 0] > 0
            self.cotangents.setdefault(operator, []).append(c[i, there])
            self.slopes.setdefault(operator, []).append(d[i, there])
        for m, weighing in enumerate(self.weighings):
            w[measures == m] = weighing.scores(samples[measures == m], d[measures == m])
        return w * scale

    def _through(self, samples: Array, c: Array) -> Array:
        """``J Jᵀc`` for cotangents c (n, S, K) at the samples (n,), which may repeat; no call for cotangents of zeros."""
        d = np.zeros(c.shape)
        block, seed = np.nonzero(c.any(axis=2))
        order = np.argsort(samples[block], kind="stable")
        block, seed = block[order], seed[order]
        which, first, counts = np.unique(samples[block], return_index=True, return_counts=True)
        for count in np.unique(counts).tolist():  # samples with as many vectors as one another share a call
            some = which[counts == count]
            at = first[counts == count] + np.arange(count)[:, None]  # (count, n)
            found = self.model.gram(self.x[some], c[block[at], seed[at]], None if self.of is None else self.of[some])
            d[block[at], seed[at]] = found.astype(np.float64)
            self.passes[some] += passes_of_products(count)
        return d
