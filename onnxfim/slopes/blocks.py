"""Exact measures of a block of samples from their whole Jacobians, all of them at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import Estimate, LeadingFeature, SampleResult, with_temperature_error
from onnxfim.slopes.differences import LARGEST, Sample
from onnxfim.slopes.estimators import NO_SLOPE
from onnxfim.slopes.flips import ValidRange
from onnxfim.slopes.grams import Contest, Grams, grams
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.leads import leads_of_outputs, nearest_by_norms
from onnxfim.slopes.measurer import GRADIENT, NO_CLASSES, Measurer
from onnxfim.slopes.rescaling import Rescaling

Array: TypeAlias = np.ndarray[Any, Any]

#: Numbers in the K×K matrices of one measure that are worked on together.
WORK = 2**18
_EIGENVALUES = 5
_SHORT = 1e-100  # slopes of less than that are brought to unit size before they are squared


@dataclass(frozen=True)
class Scores:
    """What makes Gram matrices of scores, ``A Aᵀ``, from those of slopes, for n samples.

    With a softmax ``A = √p ⊙ (J − pᵀJ) / T``, whose slopes may be taken relative to any class; with independent outputs A is
    ``diag(weights) J``. The factor holds what would under- or overflow in squares: values of 1e-300 are true values.

    Attributes:
        weights: Of each output, the largest of those that count 1, (n, K).
        factor: What the products with them are multiplied by, (n,).
        p: Probabilities, (n, K); None for independent outputs.
    """

    weights: Array
    factor: Array
    p: Array | None

    @classmethod
    def of(cls, reader: OutputReader, base: Array, top: Array, temperature: float) -> Scores:
        """Those of outputs ``base`` (n, K, 1) at a temperature; ``top`` (n,) are the largest."""
        diagonal = reader.weights(base, temperature)
        if diagonal is not None:
            size = np.abs(diagonal).max(axis=1)
            size[size == 0] = 1.0
            return cls(diagonal / size[:, None], size**2, None)
        p = reader.probabilities(base, temperature)[:, :, 0]
        root = np.sqrt(p)
        others = root.copy()
        others[np.arange(len(p)), top] = 0.0
        size = others.max(axis=1)
        size[size == 0] = 1.0
        return cls(root / size[:, None], (size / temperature) ** 2, p)

    def gram(self, M: Array) -> Array:
        """``A Aᵀ / factor``, (n, K, K), from Gram matrices of slopes (n, K, K): relative to the likeliest class, with a softmax.

        The mean of those slopes is that of unlikelier classes, and its square at most ``1 − p_c`` of the mean of theirs: of the
        trace at least a share of ``p_c ≥ 1/K`` is left, so that no digits are lost beyond that.
        """
        if self.p is not None:
            means = np.einsum("njk,nk->nj", M, self.p)
            M = M - means[:, :, None] - means[:, None, :] + np.einsum("nk,nk->n", means, self.p)[:, None, None]
        # One after the other: the product of the two may be no number where what it multiplies is zero.
        return np.asarray(M * self.weights[:, :, None] * self.weights[:, None, :])


def measurable(J: Array) -> Array:
    """Which samples have slopes J (n, K, d) that are all numbers whose squares float64 holds, and are not all zero, (n,)."""
    largest = _largest(J)
    return np.asarray((largest > 0) & (largest < LARGEST))  # NaN is neither


@dataclass(frozen=True)
class Block:
    """Samples with their whole Jacobians.

    Attributes:
        reader: What the outputs are.
        X: The samples, (n, *shape).
        base: Their outputs, (n, K, 1).
        J: Slopes of their logits, (n, K, d), all of them `measurable`.
        box: The valid range of inputs, for the choice of the nearest boundary; None where it is not asked for.
    """

    reader: OutputReader
    X: Array
    base: Array
    J: Array
    box: ValidRange | None = None

    @cached_property
    def contest(self) -> Contest:
        """What decides the class; of outputs without classes the outputs themselves."""
        K = self.base.shape[1]
        if not self.reader.has_classes:
            return Contest(self.base[:, :, 0])
        sums = self.reader.contest(self.base[0], np.eye(K)[:, :, None])[1].T
        still = np.zeros((1, K, 1))
        values = np.array([self.reader.contest(z, still)[0] for z in self.base])
        return Contest(values, None if np.array_equal(sums, np.eye(K)) else sums)

    @cached_property
    def unit(self) -> Array:
        """What the slopes are divided by before they are squared, (n,): 1, but for tiny ones."""
        largest = _largest(self.J)
        return np.asarray(np.where(largest < _SHORT, np.exp2(np.frexp(largest)[1]), 1.0))

    def grams(self, units: Sequence[Array] = ()) -> Grams:
        """Gram matrices of the slopes in multiples of `unit`; ``units`` of the coordinates, (d,) each, for those in units."""
        J = self.J if (self.unit == 1).all() else self.J / self.unit[:, None, None]
        limits = None
        if self.box is not None:
            x = self.X.reshape(len(self.X), -1)
            limits = np.broadcast_to(x < self.box.high, x.shape), np.broadcast_to(x > self.box.low, x.shape)
        softmax = self.reader.weights(self.base[:1]) is None
        return grams(J, self.contest, centre=softmax, units=units, limits=limits)

    def scores(self, temperature: float) -> Scores:
        """The scores of these outputs at a temperature."""
        return Scores.of(self.reader, self.base, self.contest.top, temperature)

    def leads(self, temperature: float = 1.0) -> Array:
        """Weights of the outputs whose slopes are the worst direction and the way to the nearest boundary, (n, 2, K)."""
        found = self.grams()
        return self.leads_from(found, top_pairs(self.scores(temperature).gram(found.slopes))[1], temperature)

    def leads_from(self, found: Grams, u: Array, temperature: float = 1.0) -> Array:
        """The same from the top eigenvectors of ``A Aᵀ``, (n, K)."""
        towards = np.zeros_like(u)
        if self.reader.has_classes:
            contest = self.contest
            nearest, there = nearest_by_norms(contest.values, np.sqrt(found.movable))
            sums = np.eye(u.shape[1]) if contest.sums is None else contest.sums
            towards = (sums[nearest] - sums[contest.top]) * there[:, None]
        return leads_of_outputs(self.reader, self.base, u, towards, temperature)

    def directions(self, u: Array) -> Array:
        """``Aᵀu`` up to its length, (n, d), for u (n, K)."""
        c = leads_of_outputs(self.reader, self.base, u, np.zeros_like(u))[:, 0]  # (n, K)
        return np.stack([w @ J.astype(np.float64) for w, J in zip(c, self.J, strict=True)])


def top_pairs(H: Array) -> tuple[Array, Array]:
    """Eigenvalues of Gram matrices H (n, K, K), ascending and not negative, and the unit top eigenvectors (n, K).

    A vector's entry of largest magnitude is positive; where the matrix is zero the vector is too.
    """
    w, V = np.linalg.eigh(H)
    u = V[:, :, -1]
    largest = np.take_along_axis(u, np.abs(u).argmax(axis=1)[:, None], 1)
    return np.maximum(w, 0.0), u * np.where(largest < 0, -1.0, 1.0) * np.any(H, axis=(1, 2), keepdims=True)[:, 0]


def results(measurer: Measurer, block: Block, samples: Sequence[Sample]) -> tuple[list[SampleResult], Array]:
    """Results of a block's samples, and their `Block.leads`.

    Args:
        measurer: What is measured; the slopes along its coordinates are those of the block.
        block: The slopes.
        samples: Whose they are.
    """
    uneven = [u for u in (measurer.raw, measurer.standardised) if u is not None and not u.even]
    found = block.grams([u.field for u in uneven])
    n, K, d = block.J.shape
    square = block.unit**2
    scores = block.scores(1.0)
    H = scores.gram(found.slopes)
    w, u = top_pairs(H)
    factor = scores.factor * square
    lam = w[:, -1] * factor
    trace = np.maximum(np.einsum("nkk->n", H), 0.0) * factor
    stretch = np.sqrt(_tops(found.whole)) * block.unit
    temperatures = () if measurer.temperature is None else (measurer.temperature, *measurer.temperature_ends)
    hot = [(s := block.scores(t), _tops(s.gram(found.slopes)) * s.factor * square)[1] for t in temperatures]
    shares = [np.divide(h, hot[0], out=np.ones(n), where=hot[0] > 0) for h in hot[1:]]
    scaled = {id(units): scores.gram(G) for units, G in zip(uneven, found.in_units, strict=True)}
    rescaled = [_rescaled(units, lam, scaled, factor) for units in (measurer.raw, measurer.standardised)]
    features = _leading(measurer, block, u, scaled, lam)
    distances = _distances(block, found) if measurer.reader.has_classes else None
    eigenvalues = (w[:, ::-1][:, : min(_EIGENVALUES, d)] * factor[:, None]).tolist()
    evaluations = 1 + K
    exact = _Exact(1 + measurer.step_error, evaluations)
    made = []
    no_distance = Estimate(None, reason=NO_CLASSES)
    decisions = measurer.decisions(block.base)
    for k, sample in enumerate(samples):
        calibrated = None
        if hot:
            calibrated = with_temperature_error(exact.squared(hot[0][k]), tuple(float(s[k]) for s in shares) if hot[0][k] else ())
        raw_units, standardised = (None if v is None else exact.squared(v[k]) for v in rescaled)
        made.append(
            measurer.row(
                sample,
                decisions[k],
                lambda_max=exact.squared(lam[k]),
                calibrated=calibrated,
                raw_units=raw_units,
                standardised=standardised,
                trace=exact.plain(trace[k]),
                boundary_distance=no_distance if distances is None else exact.distance(distances[k]),
                logit_sensitivity=exact.plain(stretch[k]),
                eigenvalues=tuple(eigenvalues[k]),
                feature=None if features is None else features[k],
                evaluations=evaluations,
                directions=d,
            )
        )
    return made, block.leads_from(found, u)


@dataclass(frozen=True)
class _Exact:
    """Makes the estimates of exact values, whose slopes may be off by a factor."""

    factor: float
    evaluations: int

    def squared(self, value: float) -> Estimate:
        """One of lambda_max."""
        v = float(value)
        return Estimate(v, v / self.factor, v * self.factor, "exact", GRADIENT, self.evaluations, plain=v, cross_fit=v)

    def plain(self, value: float) -> Estimate:
        """One of what has no sketch."""
        v = float(value)
        return Estimate(v, v / self.factor, v * self.factor, "exact", "all coordinates", self.evaluations)

    def distance(self, value: float) -> Estimate:
        """One of a boundary distance; infinite where no slope leads to another class."""
        return self.plain(value) if math.isfinite(value) else Estimate(None, evaluations=self.evaluations, reason=NO_SLOPE)


def _distances(block: Block, found: Grams) -> Array:
    """First-order distances to the nearest boundary, (n,), infinite where there is none."""
    z, at = block.contest.values, np.arange(len(block.J))
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = (z.max(axis=1)[:, None] - z) / (np.sqrt(found.squares) * block.unit[:, None])
    distances[at, block.contest.top] = np.inf
    return np.asarray(np.where(np.isnan(distances), np.inf, distances).min(axis=1))


def _rescaled(units: Rescaling | None, lam: Array, scaled: dict[int, Array], factor: Array) -> Array | None:
    """lambda_max in other units of the inputs, (n,)."""
    if units is None:
        return None
    return lam * float(units.field[0]) ** 2 if units.even else _tops(scaled[id(units)]) * factor


def _leading(
    measurer: Measurer, block: Block, u: Array, scaled: dict[int, Array], lam: Array
) -> list[LeadingFeature | None] | None:
    """The feature that holds most of each worst direction, where features differ in scale."""
    units = measurer.standardised
    if measurer.features is None or units is None:
        return None
    own = _unit_squares(block.directions(u))
    other = own if units.even else _unit_squares(block.directions(top_pairs(scaled[id(units)])[1]) * units.field)
    found: list[LeadingFeature | None] = []
    for k, value in enumerate(lam):
        raw, standardised = (np.bincount(measurer.features, v[k]) for v in (own, other))
        leading = int(raw.argmax())
        shares = min(float(raw[leading]), 1.0), min(float(standardised[leading]), 1.0)
        found.append(LeadingFeature(leading, *shares) if value else None)
    return found


def _unit_squares(v: Array) -> Array:
    """Squared entries of the unit vectors along v (n, d); zeros stay."""
    largest = np.abs(v).max(axis=1, keepdims=True)
    squares = (v / np.where(largest > 0, largest, 1.0)) ** 2
    return np.asarray(squares / np.maximum(squares.sum(axis=1, keepdims=True), 1.0))


def _tops(H: Array) -> Array:
    """Largest eigenvalues of Gram matrices (n, K, K), (n,)."""
    return np.maximum(np.linalg.eigvalsh(H)[:, -1], 0.0)


def _largest(J: Array) -> Array:
    """Largest magnitude of each sample's slopes, (n,)."""
    return np.maximum(J.max(axis=(1, 2)), -J.min(axis=(1, 2))).astype(np.float64)
