"""Exact measures from the derivative graph: whole Jacobians for few classes, block Lanczos iteration for many."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record import streams
from onnxfim.record.sample import Estimate, SampleResult, with_temperature_error
from onnxfim.slopes.blocks import WORK, Block, measurable, results
from onnxfim.slopes.class_space import JointProducts, Weighing
from onnxfim.slopes.differences import Ends, Request, Sample
from onnxfim.slopes.estimators import trace_estimate, worst_direction
from onnxfim.slopes.flips import ValidRange
from onnxfim.slopes.krylov import TopEigenpairs, lanczos
from onnxfim.slopes.leads import output_weights
from onnxfim.slopes.measurer import NO_CLASSES, Measurer
from onnxfim.slopes.rivals import distances_to_rivals
from onnxfim.slopes.scored import Scored

Array: TypeAlias = np.ndarray[Any, Any]

#: Up to so many classes the whole Jacobian costs no more than Lanczos iteration for all measures together: 73 passes at 50 classes,
#: 148 at 100, against 94 to 130 of a trained net, however many classes it has (tests/benchmarks/bench_large.py).
FEW_CLASSES = 80
#: The same at many positions, whose eigenvalues lie closer: 257 passes with an exact trace, against 180 to 250 of two small U-nets.
_FEW_AT_POSITIONS = 256
_MOST_SLOPES = 2**25  # of one sample's whole Jacobian at many positions
_TOLERANCE = 1e-4
_MOST_PRODUCTS = 60  # with each start
#: Random starts: in three dimensions chance hides neither member of a pair of eigenvalues close together, which it did in 1 of 200
#: runs with two. An error of ‖J‖² is twice that of ‖J‖, for which two are enough.
_STARTS, _STARTS_OF_STRETCH = 3, 2
_INDEPENDENT = 1e-4  # of the longest: a direction, for slopes that float32 rounds
_DRAWN = 16  # random cotangents that tell the trace, at many positions
_VECTORS = 2 * _STARTS + _STARTS_OF_STRETCH  # of a step, at most
_STEPS = 20  # that bases are reckoned with
_BASES = 2**26  # bytes of the bases of the samples that are measured together
_KEPT_BYTES = 2**26  # of leads that are too long for the disk
_LONGEST_LEAD = 2**13  # outputs of a lead that goes to disk with its sample's result
_HELD_BYTES = 2**24  # of directions that are made where the Jacobian is at hand


class GradientRoute:
    """Measures samples through the derivative graph.

    Args:
        model: The derivative graphs.
        measurer: Turns slopes into results.
        seed: Seed of the Lanczos starts.
        box: The valid range of inputs, for the choice of the nearest boundary; None where it is not asked for.
        positions: At how many positions P the model decides; its K·P outputs are one vector of the derivative graph.
        beside: Position of the sample that all rows stand beside; None where they are the samples themselves.

    Attributes:
        leads: Weights of the outputs whose slopes are the `directions` of a sample, (2, K·P), by its position; left there by
            `measure`, but for long ones, which are kept apart as long as they are few.
        held: The `directions` themselves, (2, d) float32, by position, of the first samples of the data; left there by `measure`.
    """

    def __init__(
        self, model: DifferentiableModel, measurer: Measurer, seed: int, box: ValidRange | None = None,
        beside: int | None = None, *, positions: int = 1,
    ) -> None:  # fmt: skip
        self.model, self.measurer, self.seed, self._box, self._beside = model, measurer, seed, box, beside
        self._positions = positions
        self.leads: dict[int, Array] = {}
        self.held: dict[int, Array] = {}
        self._long: dict[int, Array] = {}  # leads of more than `_LONGEST_LEAD` outputs, the same

    def apart(self, position: int) -> GradientRoute:
        """A route that leaves its leads elsewhere: for points beside one sample, whatever they call their positions."""
        return GradientRoute(self.model, self.measurer, self.seed, self._box, position, positions=self._positions)

    def _of(self, samples: Sequence[Sample]) -> Array:
        """Positions of the samples that the rows of these are of, or beside, (n,)."""
        return np.array([s.position if self._beside is None else self._beside for s in samples], np.int64)

    @property
    def few(self) -> bool:
        """Whether whole Jacobians are computed."""
        # A bracket by the extreme scales says nothing where features differ in scale: all coordinates do.
        if self._positions == 1:
            return self._passes <= FEW_CLASSES or self.measurer.features is not None
        small = self.model.num_outputs * math.prod(self.model.shape) <= _MOST_SLOPES
        return (self._passes <= _FEW_AT_POSITIONS and small) or self.measurer.features is not None

    @property
    def _passes(self) -> int:
        """Of a whole Jacobian: backwards from each output or, at many positions, forwards from each coordinate if fewer."""
        K = self.model.num_outputs
        return K if self._positions == 1 else min(K, math.prod(self.model.shape))

    @property
    def samples_per_call(self) -> int:
        """Samples that are measured together."""
        if self.few:
            return self.model.rows_per_call(self._passes)
        return min(self.model.rows_per_call(_VECTORS), max(1, _BASES // bytes_of_bases(self.model.num_outputs)))

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
            if self._positions > 1:
                made = {k: self._at_positions(part[k], z[k], J[k]) for k in which}
            elif which:
                chosen = [part[k] for k in which]
                found, leads = results(self.measurer, Block(self.measurer.reader, x[good], z[good], J[good], self._box), chosen)
                made = dict(zip(which, found, strict=True))
                self.leads |= {s.position: lead for s, lead in zip(chosen, leads, strict=True)}
                self.held |= self._held(chosen, leads, J[good])
            for k, s in enumerate(part):
                yield made[k] if k in made else self._without_slopes(s, z[k], finite=not J[k].any())

    def _held(self, samples: Sequence[Sample], leads: Array, J: Array) -> dict[int, Array]:
        """Directions of the samples by their positions, from leads (n, 2, K) and Jacobians (n, K, d).

        Which samples these are depends on their places in the data alone, so that a resumed audit, or one of a part of the samples,
        takes its directions from where the first took them.
        """
        first = _HELD_BYTES // (8 * J.shape[2])
        few = [k for k, s in enumerate(samples) if s.index < first]
        return {samples[k].position: _units(leads[k] @ J[k].astype(np.float64)).astype(np.float32) for k in few}

    def _at_positions(self, sample: Sample, base: Array, J: Array) -> SampleResult:
        """The result of a sample with several positions from its outputs (K, P) and whole Jacobian (K·P, d), and its leads."""
        lead = self._lead_at_positions(sample, base, J)
        self._leave(sample, lead)
        if self.leads.get(sample.position) is lead:
            self.held |= self._held([sample], lead[None], J[None])
        return self.measurer(sample, base, [self._ends(sample, base, J.T)])

    def _leave(self, sample: Sample, lead: Array) -> None:
        """Keep a sample's lead (2, K·P), for who asks again; of long ones those of the first samples of the data."""
        if lead.shape[1] <= _LONGEST_LEAD:
            self.leads[sample.position] = lead
        elif (sample.index + 1) * 8 * lead.shape[1] <= _KEPT_BYTES:
            self._long[sample.position] = lead.astype(np.float32)

    def _lead_at_positions(self, sample: Sample, base: Array, J: Array, temperature: float = 1.0) -> Array:
        """Weights of the outputs, (2, K·P), whose slopes are the worst direction; there is no one boundary to go to."""
        Y = Scored(self.measurer.reader, base, self._ends(sample, base, J.T)).at(temperature)  # (d, K·P)
        return output_weights(self.measurer.reader, base, worst_direction(Y.T) if Y.any() else Y[0], None, temperature)

    @staticmethod
    def _ends(sample: Sample, base: Array, slopes: Array) -> Ends:
        """Slopes along all coordinates (d, K·P) as the ends of steps of length 1."""
        d = len(slopes)
        return Ends(
            Request(sample, 0, d), slopes.astype(np.float64).reshape(d, *base.shape), np.zeros((1, *base.shape)), 1.0
        )  # fmt: skip

    def _jacobians(self, X: Array, block: Sequence[Sample]) -> Iterator[tuple[Sequence[Sample], Array]]:
        """Slopes of the logits along all coordinates, (n, K·P, d), of so many samples as are worked on together."""
        x, of = X[[s.position for s in block]], self._of(block)
        J = self.model.forward_jacobian(x, of) if self._passes < self.model.num_outputs else self.model.jacobian(x, of)
        count = max(1, WORK // J.shape[1] ** 2)
        for start in range(0, len(block), count):
            yield block[start : start + count], J[start : start + count]

    @staticmethod
    def _at(X: Array, base: Array, samples: Sequence[Sample]) -> tuple[Array, Array]:
        positions = [s.position for s in samples]
        return X[positions], base[positions]

    def _without_slopes(self, sample: Sample, base: Array, *, finite: bool) -> SampleResult:
        """The result of a sample whose slopes are all zero, or not all numbers: lambda_max is no number then."""
        still = np.zeros((math.prod(self.model.shape), base.size))
        result = self.measurer(sample, base, [self._ends(sample, base, still)])
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
        own = self.leads if self._positions == 1 else {}
        leads = ChainMap(own, self.leads, self._long) if temperature == 1.0 else ChainMap({})
        missing = [s for s in samples if s.position not in leads]
        rows = self.samples_per_call
        for start in range(0, len(missing), rows):
            leads.update(self._found_leads(X, base, missing[start : start + rows], temperature))
        found, rows = [], self.model.rows_per_call(self._passes if self.few else 2)
        for start in range(0, len(samples), rows):
            block = samples[start : start + rows]
            U = np.stack([leads[s.position] for s in block], axis=1)  # (2, n, K)
            x = X[[s.position for s in block]]
            g = self.model.vjp(x, U, self._of(block))[1].reshape(2, len(block), -1).astype(np.float64)
            g = np.where(np.isfinite(g).all(axis=2, keepdims=True), g, 0.0)  # the runtime failed there
            found.append(np.moveaxis(_units(g), 0, 1))
        return np.concatenate(found)

    def _found_leads(self, X: Array, base: Array, block: Sequence[Sample], temperature: float) -> dict[int, Array]:
        if self.few:
            found = {s.position: np.zeros((2, self.model.num_outputs)) for s in block}
            for part, J in self._jacobians(X, block):
                x, z = self._at(X, base, part)
                good = measurable(J)
                if self._positions > 1:
                    which = np.flatnonzero(good).tolist()
                    found |= {part[k].position: self._lead_at_positions(part[k], z[k], J[k], temperature) for k in which}
                elif good.any():
                    leads = Block(self.measurer.reader, x[good], z[good], J[good], self._box).leads(temperature)
                    found |= {part[k].position: lead for k, lead in zip(np.flatnonzero(good).tolist(), leads, strict=True)}
            return found
        positions = [s.position for s in block]
        x, z = X[positions], base[positions]
        top, stretch = self._tops(x, z, block, [temperature])[0]
        vectors, nearest = top.vectors, self._nearest(x, z, block, stretch)[1]
        reader = self.measurer.reader
        return {s.position: output_weights(reader, z[k], vectors[k], nearest[k], temperature) for k, s in enumerate(block)}

    def worst_directions(self, X: Array, base: Array, samples: Sequence[Sample], temperature: float = 1.0) -> Array:
        """Unit worst direction of each sample, (n, d), rounded to float32; they cost what `directions` cost.

        Its sign is free; the entry of largest magnitude is made positive.
        """
        v = self.directions(X, base, samples, temperature)[:, 0].astype(np.float32).astype(np.float64)
        return np.asarray(v * np.where(np.take_along_axis(v, np.abs(v).argmax(axis=1)[:, None], 1) < 0, -1.0, 1.0))

    # many classes

    def _many(self, X: Array, base: Array, block: Sequence[Sample]) -> Iterator[SampleResult]:
        positions = [s.position for s in block]
        x, z = X[positions], base[positions]
        reader = self.measurer.reader
        hotter = [] if self.measurer.temperature is None else [self.measurer.temperature]
        found, products = self._tops(x, z, block, [1.0, *hotter])
        raw, hot, stretch = found[0], found[1] if hotter else None, found[-1]
        shares = None if hot is None else self._shares_at_ends(z, hot, products)
        distances, nearest, rivals = self._nearest(x, z, block, stretch)
        drawn = self._traces(x, z, block) if self._positions > 1 else None
        for k, sample in enumerate(block):
            self._leave(sample, output_weights(reader, z[k], raw.vectors[k], nearest[k]))
            spent = int(products.passes[k] + rivals[k]) + (0 if drawn is None else _DRAWN)
            error = self.measurer.step_error
            lam = _estimate(raw, k, spent, error)
            total = float(np.maximum(raw.ritz[k], 0).sum())
            trace = Estimate(total, total, None, "lower bound", "sum of Ritz values", spent)
            trace = trace if drawn is None else trace_estimate(drawn[k], evaluations=spent)
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
                directions=int(raw.products[k]),
            )

    def _tops(
        self, x: Array, z: Array, block: Sequence[Sample], temperatures: Sequence[float]
    ) -> tuple[list[TopEigenpairs], JointProducts]:  # fmt: skip
        """Top eigenpairs of ``A Aᵀ`` at the temperatures, then of ``J Jᵀ``, for samples x with outputs z (n, K, P)."""
        n = len(x)
        noise = self._noise(block)
        weighings = [Weighing.of(self.measurer.reader, z, t) for t in temperatures]
        starts = [w.starts(noise) for w in weighings]
        weighings.append(Weighing.none(n, self.model.num_outputs))
        starts.append(np.where(np.arange(_STARTS)[:, None] < _STARTS_OF_STRETCH, noise, 0.0))
        keeps = bool(self.measurer.temperature_ends)
        products = JointProducts(self.model, x, weighings, keeps=keeps, of=self._of(block))
        found = lanczos(products, np.concatenate(starts), tolerance=_TOLERANCE, most=_MOST_PRODUCTS)
        return [_part(found, slice(m * n, (m + 1) * n), w.factor) for m, w in enumerate(weighings)], products

    def _traces(self, x: Array, z: Array, block: Sequence[Sample]) -> list[Array]:
        """``Aᵀu`` of each sample for random signs u, (S, d): their squares tell the trace, which the Ritz values fall short of."""
        weighing = Weighing.of(self.measurer.reader, z, 1.0)
        rngs = [np.random.default_rng([self.seed, s.index, streams.LANCZOS, 1]) for s in block]
        c = weighing.cotangents(np.arange(len(x)), np.stack([rng.choice((-1.0, 1.0), (_DRAWN, z[0].size)) for rng in rngs]))
        scale = np.maximum(np.abs(c).max(axis=(1, 2)), np.finfo(float).tiny)  # unit size through the network, whatever the weights
        g = self.model.vjp(x, np.moveaxis(c / scale[:, None, None], 0, 1))[1].reshape(_DRAWN, len(x), -1)
        return [g[:, k].astype(np.float64) * scale[k] * math.sqrt(weighing.factor[k]) for k in range(len(x))]

    def _noise(self, block: Sequence[Sample]) -> Array:
        """Independent random starts of unit length, (n, S, K·P), each sample's from its own stream."""
        shape = (_STARTS, self.model.num_outputs)
        noise = np.stack([np.random.default_rng([self.seed, s.index, streams.LANCZOS]).standard_normal(shape) for s in block])
        return np.asarray(noise / np.linalg.norm(noise, axis=2, keepdims=True))

    def _shares_at_ends(self, z: Array, top: TopEigenpairs, products: JointProducts) -> Array:
        """lambda_max at the ends of the temperature's interval over that at the temperature, (n, 2); (n, 0) where it has no error.

        The largest Rayleigh quotients at either end among the input directions ``Jᵀc`` that led to the value at the temperature,
        whose slopes are known: no pass more. Below the truth, if anything.
        """
        n, ends = len(z), [Weighing.of(self.measurer.reader, z, end) for end in self.measurer.temperature_ends]
        shares = np.ones((n, len(ends)))
        for k in np.flatnonzero(top.values > 0).tolist() if ends else ():
            c, d = (np.concatenate(kept[n + k]) for kept in (products.cotangents, products.slopes))  # (m, K)
            for e, end in enumerate(ends):
                y = end.scores(np.array([k]), d[None])[0]  # (m, K)
                shares[k, e] = largest_quotient(y @ y.T, c @ d.T) * end.factor[k] / top.values[k]
        return shares

    def _nearest(
        self, x: Array, z: Array, block: Sequence[Sample], stretch: TopEigenpairs
    ) -> tuple[list[Estimate], list[Array] | list[None], Array]:
        """Boundary distances, weights of the logits whose sum rises towards the nearest boundary, and the passes spent, (n,)."""
        n = len(x)
        if not self.measurer.reader.has_classes or self._positions > 1:
            return [Estimate(None, reason=NO_CLASSES)] * n, [None] * n, np.zeros(n, int)
        most = np.sqrt(np.maximum(stretch.values + stretch.errors, 0.0))
        return distances_to_rivals(self.model, x, z[:, :, 0], most, max(_TOLERANCE, self.measurer.step_error), self._of(block))


def bytes_of_bases(outputs: int) -> int:
    """Memory of the vectors of Lanczos iteration at one sample with so many outputs, K·P."""
    return 8 * outputs * _STEPS * _VECTORS


def _units(g: Array) -> Array:
    """Unit vectors along the last axis; zeros stay."""
    g = g / (np.abs(g).max(axis=-1, keepdims=True) + np.finfo(float).tiny)
    return np.asarray(g / np.maximum(np.linalg.norm(g, axis=-1, keepdims=True), np.finfo(float).tiny))


def largest_quotient(F: Array, G: Array) -> float:
    """The largest ``yᵀFy / yᵀGy`` for F, G (m, m), both symmetric and without negative eigenvalues but for rounding.

    Directions along which G is within float32 of nothing are left out: there the quotient is of roundings.
    """
    unit = np.sqrt(np.maximum(np.diag(G), np.finfo(float).tiny))
    F, G = F / unit[:, None] / unit, (G + G.T) / 2 / unit[:, None] / unit
    lengths, axes = np.linalg.eigh(G)
    good = lengths > _INDEPENDENT * lengths[-1]
    whitened = axes[:, good] / np.sqrt(lengths[good])
    return float(max(np.linalg.eigvalsh(whitened.T @ F @ whitened)[-1], 0.0))


def _part(pairs: TopEigenpairs, some: slice, factor: Array) -> TopEigenpairs:
    """The pairs of some of the operators, which are this much larger."""
    return TopEigenpairs(
        pairs.values[some] * factor, pairs.residuals[some] * factor, pairs.errors[some] * factor, pairs.vectors[some],
        tuple(v * f for v, f in zip(pairs.ritz[some], factor, strict=True)), pairs.products[some],
    )  # fmt: skip


def _estimate(pairs: TopEigenpairs, k: int, evaluations: int, rounding: float) -> Estimate:
    """A value with its bound; exact only where that is within the tolerance."""
    value, error = float(pairs.values[k]), float(pairs.errors[k])
    # float32 passes leave an error whatever the residual says.
    least = max(_TOLERANCE, rounding) * value
    return Estimate(
        value,
        value - least,
        value + max(error, least),
        "exact" if error <= _TOLERANCE * value else "lower bound",
        "Lanczos iteration",
        evaluations,
    )
