"""Exact measures from the derivative graph: whole Jacobians for few classes, Lanczos iteration for many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record import streams
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.slopes.differences import Ends, Request, Sample
from onnxfim.slopes.estimators import worst_direction
from onnxfim.slopes.krylov import Product, TopEigenpairs, confirmed, lanczos
from onnxfim.slopes.measurer import NO_CLASSES, Measurer

Array: TypeAlias = np.ndarray[Any, Any]

#: Up to so many classes the whole Jacobian costs less than Lanczos iteration for all measures together: at 50 classes 73 passes
#: against 136 to 181 (without and with a temperature), at 100 148 against 130 to 172 (tests/benchmarks/bench_large.py).
FEW_CLASSES = 80
#: Forward passes that one product with the Fisher matrix costs (measured 4.4-5.6 at K = 1,000).
PASSES_PER_PRODUCT = 5
_TOLERANCE = 1e-4
_ROUGH = 1e-2  # of a start: better ones save no more products
_MOST_PRODUCTS = 60
_RUNNERS_UP = 9


class GradientRoute:
    """Measures samples through the derivative graph.

    Args:
        model: The derivative graphs.
        measurer: Turns slopes into results.
        seed: Seed of the Lanczos starts.
    """

    def __init__(self, model: DifferentiableModel, measurer: Measurer, seed: int) -> None:
        self.model, self.measurer, self.seed = model, measurer, seed

    @property
    def few(self) -> bool:
        """Whether whole Jacobians are computed."""
        return self.model.num_outputs <= FEW_CLASSES

    def measure(self, X: Array, base: Array, samples: Sequence[Sample]) -> Iterator[tuple[int, SampleResult]]:
        """Results of the samples as they come, with their positions."""
        rows = self.model.rows_per_call(self.model.num_outputs if self.few else 2)
        for start in range(0, len(samples), rows):
            block = samples[start : start + rows]
            measured = self._few(X, base, block) if self.few else self._many(X, base, block)
            yield from zip((s.position for s in block), measured, strict=True)

    def ends(self, X: Array, samples: Sequence[Sample]) -> Iterator[Ends]:
        """Slopes of the logits along all coordinates, as the ends of steps of length 1."""
        J = self.model.jacobian(X[[s.position for s in samples]]).astype(np.float64)  # (n, K, d)
        for s, rows in zip(samples, J, strict=True):
            yield Ends(Request(s, 0, rows.shape[1]), rows.T[:, :, None], np.zeros((1, len(rows), 1)), 1.0)

    def _few(self, X: Array, base: Array, block: Sequence[Sample]) -> Iterator[SampleResult]:
        for s, ends in zip(block, self.ends(X, block), strict=True):
            yield self.measurer(s, base[s.position], [ends])

    def worst_directions(self, X: Array, base: Array, samples: Sequence[Sample], temperature: float = 1.0) -> Array:
        """Unit worst direction of each sample, (n, d)."""
        if not self.few:
            return self._lanczos_directions(X, base, samples, temperature)
        reader = self.measurer.reader
        found = []
        rows = self.model.rows_per_call(self.model.num_outputs)
        for start in range(0, len(samples), rows):
            block = samples[start : start + rows]
            for s, ends in zip(block, self.ends(X, block), strict=True):
                found.append(worst_direction(reader.scores(base[s.position], ends.plus, ends.minus, 1.0, temperature)))
        return np.array(found)

    # many classes

    def _many(self, X: Array, base: Array, block: Sequence[Sample]) -> Iterator[SampleResult]:
        positions = [s.position for s in block]
        x, z = X[positions], base[positions]
        reader = self.measurer.reader
        raw = self._lanczos(x, z, block, 1.0, None)
        hot = None if self.measurer.temperature is None else self._lanczos(x, z, block, self.measurer.temperature, raw.vectors)
        stretch = self._stretch(x, block)
        distances = self._distances(x, z) if reader.has_classes else [Estimate(None, reason=NO_CLASSES)] * len(block)
        for k, sample in enumerate(block):
            products = int(raw.products[k])
            spent = PASSES_PER_PRODUCT * (products + (int(hot.products[k]) if hot is not None else 0))
            spent += 1 + min(_RUNNERS_UP, self.model.num_outputs - 1) if reader.has_classes else 0
            spent += PASSES_PER_PRODUCT * int(stretch.products[k])
            error = self.measurer.step_error
            lam = _estimate(raw, k, spent, error)
            total = float(np.maximum(raw.ritz[k], 0).sum())
            trace = Estimate(total, total, None, "lower bound", "sum of Ritz values", spent)
            s = _estimate(stretch, k, spent, error)
            roots = [None if v is None else math.sqrt(max(v, 0.0)) for v in (s.value, s.low, s.high)]
            yield self.measurer.result(
                sample,
                z[k],
                lambda_max=lam,
                calibrated=None if hot is None else _estimate(hot, k, spent, error),
                raw_units=self.measurer.raw_units_by_bracket(lam),
                trace=trace,
                boundary_distance=replace(distances[k], evaluations=spent),
                logit_sensitivity=replace(s, value=roots[0], low=roots[1], high=roots[2]),
                eigenvalues=tuple(float(v) for v in raw.ritz[k][:5]),
                evaluations=spent,
                directions=products,
            )

    def _noise(self, block: Sequence[Sample]) -> Array:
        """Three independent random starts, (3, n, K), each sample's from its own stream."""
        shape = (3, self.model.num_outputs)
        drawn = [np.random.default_rng([self.seed, s.index, streams.LANCZOS]).standard_normal(shape) for s in block]
        return np.stack(drawn, axis=1)

    def _lanczos(self, x: Array, z: Array, block: Sequence[Sample], temperature: float, start: Array | None) -> TopEigenpairs:
        """Top eigenpairs of ``A Aᵀ`` for samples x with outputs z (n, K, 1)."""
        noise = self._noise(block)
        weights = self.measurer.reader.weights(z, temperature)
        if weights is None:
            product = self._softmax_product(x, temperature)
            if start is None:
                start = isotropic_start(self.measurer.reader.probabilities(z, temperature)[:, :, 0], noise[0])
        else:
            product = self._diagonal_product(x, weights)
        return confirmed(product, noise, tolerance=_TOLERANCE, most=_MOST_PRODUCTS, start=start)

    def _softmax_product(self, x: Array, temperature: float) -> Product:
        return lambda rows, u: self.model.fisher(x[rows], u[None], temperature)[2][0]

    def _diagonal_product(self, x: Array, weights: Array) -> Product:
        """``A = W J`` with the diagonal W (n, K) of independent outputs."""

        def product(rows: Array, u: Array) -> Array:
            c = weights[rows] * u  # (n, K)
            scale = np.abs(c).max(axis=1, keepdims=True)
            scale[scale == 0] = 1.0  # cotangents of unit size through the network, whatever the weights
            return weights[rows] * scale * self.model.gram(x[rows], (c / scale)[None])[0].astype(np.float64)

        return product

    def _stretch(self, x: Array, block: Sequence[Sample]) -> TopEigenpairs:
        """Top eigenpairs of ``J Jᵀ``, whose root is the logit sensitivity."""

        def product(rows: Array, u: Array) -> Array:
            return self.model.gram(x[rows], u[None])[0].astype(np.float64)

        return confirmed(product, self._noise(block), tolerance=_TOLERANCE, most=_MOST_PRODUCTS)

    def _lanczos_directions(self, X: Array, base: Array, samples: Sequence[Sample], temperature: float) -> Array:
        """Unit worst directions, ``Aᵀu`` of the top Ritz vectors."""
        found = []
        rows = self.model.rows_per_call(2)
        for start in range(0, len(samples), rows):
            block = samples[start : start + rows]
            positions = [s.position for s in block]
            x, z = X[positions], base[positions]
            u = self._lanczos(x, z, block, temperature, None).vectors
            weights = self.measurer.reader.weights(z, temperature)
            if weights is None:
                g = self.model.fisher(x, u[None], temperature)[1][0]
            else:
                c = weights * u
                g = self.model.vjp(x, (c / (np.abs(c).max(axis=1, keepdims=True) + np.finfo(float).tiny))[None])[1][0]
            g = g.reshape(len(block), -1).astype(np.float64)
            g /= np.abs(g).max(axis=1, keepdims=True) + np.finfo(float).tiny
            found.append(g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), np.finfo(float).tiny))
        return np.concatenate(found)

    def _distances(self, x: Array, base: Array) -> list[Estimate]:
        """Boundary distances to the classes with the largest logits; further classes are not looked at: an upper bound."""
        z = base[:, :, 0]
        order = np.argsort(-z, axis=1)[:, : _RUNNERS_UP + 1]  # (n, 10)
        U = np.zeros((order.shape[1] - 1, *z.shape))
        rows = np.arange(len(z))
        for j in range(1, order.shape[1]):
            U[j - 1, rows, order[:, 0]] = 1.0
            U[j - 1, rows, order[:, j]] = -1.0
        norms = np.linalg.norm(self.model.vjp(x, U)[1].reshape(len(U), len(x), -1).astype(np.float64), axis=2)  # (9, n)
        gaps = np.take_along_axis(z, order[:, :1], 1) - np.take_along_axis(z, order[:, 1:], 1)  # (n, 9)
        with np.errstate(divide="ignore", invalid="ignore"):
            d = np.where(norms.T > 0, gaps / norms.T, np.inf).min(axis=1)
        kind = "exact" if order.shape[1] == z.shape[1] else "upper bound"
        method = f"first-order, over the {order.shape[1] - 1} classes next in logit"
        none = Estimate(None, reason="no slope towards another class")
        return [Estimate(float(v), None, float(v), kind, method) if math.isfinite(v) else none for v in d]  # type: ignore[arg-type]


def isotropic_start(p: Array, noise: Array) -> Array:
    """Top eigenvectors of ``A Aᵀ`` if ``J Jᵀ`` were the identity, (n, K), for p (n, K): close enough to save products.

    No pass through the network is needed: ``A Aᵀ u = √p ⊙ (w − pᵀw)`` with ``w = c − p·1ᵀc``, ``c = √p ⊙ u``.
    """
    root = np.sqrt(p)

    def product(rows: Array, u: Array) -> Array:
        q, c = p[rows], root[rows] * u
        w = c - q * c.sum(axis=1, keepdims=True)
        return root[rows] * (w - (q * w).sum(axis=1, keepdims=True))

    return lanczos(product, noise, tolerance=_ROUGH, most=_MOST_PRODUCTS).vectors


def _estimate(pairs: TopEigenpairs, k: int, evaluations: int, rounding: float) -> Estimate:
    """A Ritz value with its residual bound; exact only where that is within the tolerance and two starts agree."""
    value, residual = float(pairs.values[k]), float(pairs.residuals[k])
    sharp = residual <= _TOLERANCE * value
    # float32 passes leave an error whatever the residual says.
    least = max(_TOLERANCE, rounding) * value
    return Estimate(
        value,
        value - least,
        value + max(residual, least),
        "exact" if sharp and pairs.starts[k] > 1 else "lower bound",
        "Lanczos iteration",
        evaluations,
    )
