"""Exact measures from the derivative graph: whole Jacobians for few classes, Lanczos iteration for many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record import streams
from onnxfim.record.sample import Estimate, SampleResult, with_temperature_error
from onnxfim.slopes.blocks import WORK, Block, measurable, results
from onnxfim.slopes.differences import Ends, Request, Sample
from onnxfim.slopes.flips import ValidRange
from onnxfim.slopes.krylov import Product, TopEigenpairs, confirmed, lanczos
from onnxfim.slopes.leads import output_weights
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
_KEPT_BYTES = 2**26  # of worst directions that are kept for who asks again
_HELD_BYTES = 2**24  # of directions that are made where the Jacobian is at hand


class GradientRoute:
    """Measures samples through the derivative graph.

    Args:
        model: The derivative graphs.
        measurer: Turns slopes into results.
        seed: Seed of the Lanczos starts.
        box: The valid range of inputs, for the choice of the nearest boundary; None where it is not asked for.

    Attributes:
        leads: Weights of the outputs whose slopes are the `directions` of a sample, (2, K), by its position; left there by
            `measure`.
        held: The `directions` themselves, (2, d) float32, by position, of the first samples of the data; left there by `measure`.
    """

    def __init__(self, model: DifferentiableModel, measurer: Measurer, seed: int, box: ValidRange | None = None) -> None:
        self.model, self.measurer, self.seed, self._box = model, measurer, seed, box
        self.leads: dict[int, Array] = {}
        self.held: dict[int, Array] = {}
        self._worst: dict[int, Array] = {}  # float32, by position

    def apart(self) -> GradientRoute:
        """A route that leaves its leads elsewhere: for points that are no samples, whatever their positions."""
        return GradientRoute(self.model, self.measurer, self.seed, self._box)

    @property
    def few(self) -> bool:
        """Whether whole Jacobians are computed."""
        # A bracket by the extreme scales says nothing where features differ in scale: all coordinates do.
        return self.model.num_outputs <= FEW_CLASSES or self.measurer.features is not None

    @property
    def samples_per_call(self) -> int:
        """Samples that are measured together."""
        return self.model.rows_per_call(self.model.num_outputs if self.few else 2)

    def measure(self, X: Array, base: Array, samples: Sequence[Sample]) -> Iterator[tuple[int, SampleResult]]:
        """Results of the samples as they come, with their positions."""
        rows = self.samples_per_call
        for start in range(0, len(samples), rows):
            block = samples[start : start + rows]
            measured = self._few(X, base, block) if self.few else self._many(X, base, block)
            yield from zip((s.position for s in block), measured, strict=True)

    def _few(self, X: Array, base: Array, block: Sequence[Sample]) -> Iterator[SampleResult]:
        for part, J in self._jacobians(X, block):
            x, z = self._at(X, base, part)
            good = measurable(J)
            which = np.flatnonzero(good).tolist()
            made: dict[int, SampleResult] = {}
            if which:
                chosen = [part[k] for k in which]
                found, leads = results(self.measurer, Block(self.measurer.reader, x[good], z[good], J[good], self._box), chosen)
                made = dict(zip(which, found, strict=True))
                self.leads |= {s.position: lead for s, lead in zip(chosen, leads, strict=True)}
                self.held |= self._held(chosen, leads, J[good])
            for k, s in enumerate(part):
                yield made[k] if k in made else self._without_slopes(s, z[k], finite=not J[k].any())

    def _held(self, samples: Sequence[Sample], leads: Array, J: Array) -> dict[int, Array]:
        """Directions of the samples by their positions, from leads (n, 2, K) and Jacobians (n, K, d).

        Which samples these are depends on their positions alone, so that a resumed audit takes its directions from where the first
        took them.
        """
        first = _HELD_BYTES // (8 * J.shape[2])
        made = ((s.position, lead @ slopes.astype(np.float64)) for s, lead, slopes in zip(samples, leads, J, strict=True))
        return {p: _units(g).astype(np.float32) for p, g in made if p < first}

    def _jacobians(self, X: Array, block: Sequence[Sample]) -> Iterator[tuple[Sequence[Sample], Array]]:
        """Slopes of the logits along all coordinates, (n, K, d), of so many samples as are worked on together."""
        J = self.model.jacobian(X[[s.position for s in block]])
        count = max(1, WORK // J.shape[1] ** 2)
        for start in range(0, len(block), count):
            yield block[start : start + count], J[start : start + count]

    @staticmethod
    def _at(X: Array, base: Array, samples: Sequence[Sample]) -> tuple[Array, Array]:
        positions = [s.position for s in samples]
        return X[positions], base[positions]

    def _without_slopes(self, sample: Sample, base: Array, *, finite: bool) -> SampleResult:
        """The result of a sample whose slopes are all zero, or not all numbers: lambda_max is no number then."""
        K, d = self.model.num_outputs, math.prod(self.model.shape)
        still = np.zeros((1, K, 1))
        result = self.measurer(sample, base, [Ends(Request(sample, 0, d), np.zeros((d, K, 1)), still, 1.0)])
        return result if finite else replace(result, lambda_max=replace(result.lambda_max, value=math.nan))

    def directions(self, X: Array, base: Array, samples: Sequence[Sample], temperature: float = 1.0) -> Array:
        """Directions of each sample, (n, 2, d): the unit worst direction, and the slope towards the nearest boundary.

        Those that `measure` held cost nothing, others three passes where their leads are known, else the sample is measured again.
        A sample without a slope has zeros.
        """
        held = self.held if temperature == 1.0 else {}
        some = [s for s in samples if s.position not in held]
        made = dict(zip((s.position for s in some), self._by_passes(X, base, some, temperature), strict=True)) if some else {}
        return np.stack([held[p] if (p := s.position) in held else made[p] for s in samples]).astype(np.float64)

    def _by_passes(self, X: Array, base: Array, samples: Sequence[Sample], temperature: float) -> Array:
        """Directions of each sample, (n, 2, d), by passes backwards."""
        missing = [s for s in samples if s.position not in self.leads] if temperature == 1.0 else list(samples)
        leads = self.leads if temperature == 1.0 else {}
        rows = self.model.rows_per_call(self.model.num_outputs if self.few else 2)
        for start in range(0, len(missing), rows):
            leads.update(self._found_leads(X, base, missing[start : start + rows], temperature))
        found = []
        for start in range(0, len(samples), rows):
            block = samples[start : start + rows]
            U = np.stack([leads[s.position] for s in block], axis=1)  # (2, n, K)
            g = self.model.vjp(X[[s.position for s in block]], U)[1].reshape(2, len(block), -1).astype(np.float64)
            g = np.where(np.isfinite(g).all(axis=2, keepdims=True), g, 0.0)  # the runtime failed there
            found.append(np.moveaxis(_units(g), 0, 1))
            if temperature == 1.0:
                room = max(0, _KEPT_BYTES // (4 * found[-1].shape[2]) - len(self._worst))
                self._worst |= {s.position: v[0].astype(np.float32) for s, v in zip(block[:room], found[-1], strict=False)}
        return np.concatenate(found)

    def _found_leads(self, X: Array, base: Array, block: Sequence[Sample], temperature: float) -> dict[int, Array]:
        if self.few:
            found = {s.position: np.zeros((2, self.model.num_outputs)) for s in block}
            for part, J in self._jacobians(X, block):
                x, z = self._at(X, base, part)
                good = measurable(J)
                if good.any():
                    leads = Block(self.measurer.reader, x[good], z[good], J[good], self._box).leads(temperature)
                    found |= {part[k].position: lead for k, lead in zip(np.flatnonzero(good).tolist(), leads, strict=True)}
            return found
        positions = [s.position for s in block]
        x, z = X[positions], base[positions]
        vectors = self._lanczos(x, z, block, temperature, None).vectors
        nearest = self._nearest(x, z)[1]
        reader = self.measurer.reader
        return {s.position: output_weights(reader, z[k], vectors[k], nearest[k], temperature) for k, s in enumerate(block)}

    def worst_directions(self, X: Array, base: Array, samples: Sequence[Sample], temperature: float = 1.0) -> Array:
        """Unit worst direction of each sample, (n, d), rounded to float32; those that `directions` found before cost nothing more.

        Its sign is free; the entry of largest magnitude is made positive.
        """
        held = {s.position: self._worst[s.position] for s in samples if s.position in self._worst and temperature == 1.0}
        missing = [s for s in samples if s.position not in held]
        if missing:
            found = self.directions(X, base, missing, temperature)[:, 0].astype(np.float32)
            held |= {s.position: v for s, v in zip(missing, found, strict=True)}
        v = np.stack([held[s.position] for s in samples]).astype(np.float64)
        return np.asarray(v * np.where(np.take_along_axis(v, np.abs(v).argmax(axis=1)[:, None], 1) < 0, -1.0, 1.0))

    # many classes

    def _many(self, X: Array, base: Array, block: Sequence[Sample]) -> Iterator[SampleResult]:
        positions = [s.position for s in block]
        x, z = X[positions], base[positions]
        reader = self.measurer.reader
        raw = self._lanczos(x, z, block, 1.0, None)
        hot = None if self.measurer.temperature is None else self._lanczos(x, z, block, self.measurer.temperature, raw.vectors)
        shares = None if hot is None else self._shares_at_ends(x, z, hot)
        stretch = self._stretch(x, block)
        distances, nearest = self._nearest(x, z)
        for k, sample in enumerate(block):
            self.leads[sample.position] = output_weights(reader, z[k], raw.vectors[k], nearest[k])
            products = int(raw.products[k])
            spent = PASSES_PER_PRODUCT * (products + (int(hot.products[k]) if hot is not None else 0))
            spent += 1 + min(_RUNNERS_UP, self.model.num_outputs - 1) if reader.has_classes else 0
            spent += PASSES_PER_PRODUCT * (int(stretch.products[k]) + (3 if shares is not None and shares.shape[1] else 0))
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
                calibrated=None
                if hot is None or shares is None
                else with_temperature_error(_estimate(hot, k, spent, error), tuple(shares[k])),
                raw_units=self.measurer.in_units(self.measurer.raw, lam),
                standardised=self.measurer.in_units(self.measurer.standardised, lam),
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
        return lambda rows, u: self.model.fisher(x[rows], u[None], temperature)[0]

    def _diagonal_product(self, x: Array, weights: Array) -> Product:
        """``A = W J`` with the diagonal W (n, K) of independent outputs."""

        def product(rows: Array, u: Array) -> Array:
            c = weights[rows] * u  # (n, K)
            scale = np.abs(c).max(axis=1, keepdims=True)
            scale[scale == 0] = 1.0  # cotangents of unit size through the network, whatever the weights
            return weights[rows] * scale * self.model.gram(x[rows], (c / scale)[None])[0].astype(np.float64)

        return product

    def _shares_at_ends(self, x: Array, z: Array, top: TopEigenpairs) -> Array:
        """lambda_max at the ends of the temperature's interval over that at the temperature, (n, 2); (n, 0) where it has no error.

        From the direction that is the worst at the temperature: its slopes ``Jv`` give the scores at any other, and one product
        there turns them towards its own worst direction. Below the truth, by 1 to 7 % on a spectrum without a gap.
        """
        reader, temperature = self.measurer.reader, self.measurer.temperature
        if temperature is None or not self.measurer.temperature_ends:
            return np.empty((len(x), 0))
        w, root = self._product_at(x, z, temperature, top.vectors)
        slopes = np.divide(w, root, out=np.zeros_like(w), where=root > 0)  # of the logits, up to a constant and a factor, (n, K)
        still, found = np.zeros((1, z.shape[1], 1)), []
        for end in self.measurer.temperature_ends:
            y = np.array([reader.scores(z[k], D[None, :, None], still, 1.0, end)[0] for k, D in enumerate(slopes)])  # (n, K)
            size = np.linalg.norm(y, axis=1, keepdims=True)
            y = np.divide(y, size, out=np.zeros_like(y), where=size > 0)
            found.append(np.linalg.norm(self._product_at(x, z, end, y)[0], axis=1))
        return np.divide(np.array(found).T, top.values[:, None], out=np.ones((len(x), 2)), where=top.values[:, None] > 0)

    def _product_at(self, x: Array, z: Array, temperature: float, u: Array) -> tuple[Array, Array]:
        """``A Aᵀ u`` at a temperature, (n, K), and what the rows of A hold beside the slopes, (n, K)."""
        weights, rows = self.measurer.reader.weights(z, temperature), np.arange(len(x))
        if weights is None:
            root = np.sqrt(self.measurer.reader.probabilities(z, temperature)[:, :, 0])
            return self._softmax_product(x, temperature)(rows, u), root
        return self._diagonal_product(x, weights)(rows, u), weights

    def _stretch(self, x: Array, block: Sequence[Sample]) -> TopEigenpairs:
        """Top eigenpairs of ``J Jᵀ``, whose root is the logit sensitivity."""

        def product(rows: Array, u: Array) -> Array:
            return self.model.gram(x[rows], u[None])[0].astype(np.float64)

        return confirmed(product, self._noise(block), tolerance=_TOLERANCE, most=_MOST_PRODUCTS)

    def _nearest(self, x: Array, z: Array) -> tuple[list[Estimate], list[Array] | list[None]]:
        """Boundary distances, and the weights of the logits whose sum rises towards the nearest boundary."""
        if not self.measurer.reader.has_classes:
            return [Estimate(None, reason=NO_CLASSES)] * len(x), [None] * len(x)
        return self._distances(x, z)

    def _distances(self, x: Array, base: Array) -> tuple[list[Estimate], list[Array]]:
        """Boundary distances to the classes with the largest logits, and the ways there (K,); no others: an upper bound."""
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
            ratios = np.where(norms.T > 0, gaps / norms.T, np.inf)  # (n, 9)
        d = ratios.min(axis=1)
        kind = "exact" if order.shape[1] == z.shape[1] else "upper bound"
        method = f"first-order, over the {order.shape[1] - 1} classes next in logit"
        none = Estimate(None, reason="no slope towards another class")
        estimates = [Estimate(float(v), None, float(v), kind, method) if math.isfinite(v) else none for v in d]  # type: ignore[arg-type]
        return estimates, list(-U[ratios.argmin(axis=1), rows])


def _units(g: Array) -> Array:
    """Unit vectors along the last axis; zeros stay."""
    g = g / (np.abs(g).max(axis=-1, keepdims=True) + np.finfo(float).tiny)
    return np.asarray(g / np.maximum(np.linalg.norm(g, axis=-1, keepdims=True), np.finfo(float).tiny))


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
