"""The attack replay: do samples with large values fall to smaller attacks."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.instruments import scale_field
from onnxfim.auditing.stages import as_found, stage
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record import streams
from onnxfim.record.audit import AttackSummary, Correlation
from onnxfim.record.audited_from import units_of_lengths
from onnxfim.record.measures import BY_NAME, RANKED
from onnxfim.record.sample import Estimate, SampleResult, estimate_of
from onnxfim.record.statistics import percentiles, spearman, spearman_of_resamples, wilson
from onnxfim.runtime.rows import Forward
from onnxfim.slopes.attacks import Threat, nearest_rivals, pgd, smallest_l2, smallest_linf
from onnxfim.slopes.exact import FEW_CLASSES, GradientRoute
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

_PGD_STEPS, _RESTARTS, _L2_STEPS = 40, 2, 200
_LONGER = (1.0, 1.0001, 1.001, 1.01, 1.03, 1.1)  # tried in this order where the file is not misled by the first


@stage("attacking", instead=as_found)
def attack(ground: Ground, route: GradientRoute, found: Found) -> Found:
    """Attack the first samples and correlate every measure with the smallest successful step."""
    positions = sorted(p for p, r in found.results.items() if r.prediction is not None)[: ground.settings.attack_samples]
    if not positions:
        return found
    field = scale_field(ground.settings.input_scale, ground.X.shape[1:])
    summary, distances = attacked(ground, route.model, positions, found, scale=1.0 if field is None else field)
    results = dict(found.results)
    for p in positions:
        results[p] = replace(results[p], attack_distance=distances[results[p].index])
    return replace(found, results=results, attack=summary)


def attacked(
    ground: Ground, model: DifferentiableModel, positions: Sequence[int], found: Found, *, scale: Array | float
) -> tuple[AttackSummary, dict[int, Estimate]]:
    """Attack the samples at ``positions``.

    Args:
        ground: The audit; a success is one on its file.
        model: The derivative graphs.
        positions: Which samples.
        found: Their results.
        scale: d(model input)/d(raw input), broadcastable to a sample; distances are in raw units.

    Returns:
        The summary and the smallest distance of each sample by index (an upper bound; 0 where the sample is wrong already).
    """
    settings, X, results = ground.settings, ground.X, [found.results[p] for p in positions]
    before = ground.meter.passes
    started = time.perf_counter()
    assert settings.attack is not None
    at = np.array(positions)
    x = X[at]
    by_prediction = any(r.label is None for r in results)
    labels = np.array([r.prediction if by_prediction else r.label for r in results])
    wrong = np.array([r.prediction != y for r, y in zip(results, labels, strict=True)])
    levels = ground.subject.limits if ground.subject.info.at is not None else None
    told = ground.coupling
    low, high = settings.attack_range or levels or ((float(X.min()), float(X.max())) if told is None else (told.low, told.high))
    threat = Threat(settings.attack, low, high, scale)
    loss = _Loss(model)
    rng = np.random.default_rng([settings.seed, streams.REPLAY])
    typical = float(np.median([r.boundary_distance.value or 1.0 for r in results])) / float(np.mean(scale))
    start = typical if settings.attack == "l2" else typical / np.sqrt(x[0].size)
    distances, failed = np.zeros(len(x)), 0
    judge = _Judge(ground.forward, ground.reader, threat)
    right = np.flatnonzero(~wrong)
    if len(right):
        ground.say("smallest attack")
        sizes, delta = _smallest(loss, x[right], labels[right], at[right], threat, rng=rng, start=start)
        distances[right] = judge.confirmed(x[right], labels[right], at[right], sizes, delta)
        failed = int((~np.isfinite(distances[right])).sum())
    reached = distances[right][np.isfinite(distances[right])]
    epsilon = settings.epsilon or (float(np.median(reached)) if len(reached) else start)
    ground.say("attack at the radius")
    broken = np.zeros(len(x), bool)
    if len(right):
        hit, delta = pgd(
            loss, x[right], labels[right], threat, epsilon, steps=_PGD_STEPS, restarts=_RESTARTS, rng=rng, of=at[right]
        )
        hit &= judge.wrong(x[right], labels[right], at[right], delta)
        # Each counts what the other found: the strongest attack known.
        distances[right] = np.minimum(distances[right], np.where(hit, threat.size(delta), np.inf))
        broken[right] = hit | (distances[right] <= epsilon)
        failed = int((~np.isfinite(distances[right])).sum())
    # What no attack reached is farther than all that one did.
    middle = float(np.median(distances[right])) if len(right) else math.inf
    robust = int((~wrong & ~broken).sum())
    share_low, share_high = wilson(robust, len(x))
    unharmed = [r for r, w in zip(results, wrong, strict=True) if not w]
    units = units_of_lengths(ground.subject.info.at, raw=bool(np.any(np.asarray(scale) != 1)))
    summary = AttackSummary(
        norm=settings.attack, epsilon=float(epsilon), units=units,
        samples=len(x), clean_accuracy=float((~wrong).mean()), robust_accuracy=robust / len(x), robust_accuracy_low=share_low,
        robust_accuracy_high=share_high, median_distance=middle if math.isfinite(middle) else None, failed=failed,
        input_low=low, input_high=high, steps=_PGD_STEPS, restarts=_RESTARTS, evaluations=ground.meter.passes - before,
        seconds=time.perf_counter() - started, correlations=correlations(unharmed, distances[right], seed=settings.seed),
        by_prediction=by_prediction,
    )  # fmt: skip
    bounds = {
        r.index: Estimate(float(d), None, float(d), "upper bound", f"smallest {settings.attack} attack")
        if np.isfinite(d)
        else Estimate(None, reason="the attack did not succeed")
        for r, d in zip(results, distances, strict=True)
    }
    return summary, bounds


@dataclass(frozen=True)
class _Loss:
    """The gradient of the attacks' loss in calls of bounded size."""

    model: DifferentiableModel

    def __call__(self, X: Array, labels: Array, rivals: Array, of: Array) -> tuple[Array, Array]:
        rows = self.model.rows_per_call(1)
        blocks = [slice(i, i + rows) for i in range(0, len(X), rows)]
        parts = [self.model.loss_gradient(X[b], labels[b], rivals[b], of[b]) for b in blocks]
        z, g = np.concatenate([z for z, _ in parts]), np.concatenate([g for _, g in parts])
        lost = ~(np.isfinite(z).all(axis=1) & np.isfinite(g).reshape(len(g), -1).all(axis=1))
        if lost.any():  # the runtime fails there: no success, and no slope to go along
            z, g = z.copy(), g.copy()
            z[lost], g[lost] = np.eye(z.shape[1], dtype=z.dtype)[labels[lost]], 0.0
        return z, g

    def rivals(self, X: Array, labels: Array, of: Array, threat: Threat) -> Array | None:
        """The class nearest to first order of each sample; None where there is no choice, or too much of it for whole Jacobians."""
        K = self.model.num_outputs
        if not 2 < K <= FEW_CLASSES:
            return None
        rows = self.model.rows_per_call(K)
        parts = []
        for i in range(0, len(X), rows):
            x = X[i : i + rows]
            z, g = self.model.vjp(x, np.repeat(np.eye(K)[:, None], len(x), axis=1), of[i : i + rows])
            parts.append(nearest_rivals(z.astype(np.float64), np.moveaxis(g, 0, 1), labels[i : i + rows], threat))
        return np.concatenate(parts)


@dataclass(frozen=True)
class _Judge:
    """Asks the file itself whether a step succeeds; the derivative graph's rounding may differ at the boundary."""

    forward: Forward
    reader: OutputReader
    threat: Threat

    def wrong(self, X: Array, labels: Array, of: Array, delta: Array) -> Array:
        """Whether the file decides against the label at X + δ, (N,) bool."""
        z = self.forward.outputs((X + delta).astype(X.dtype), of)
        finite = np.asarray(np.isfinite(z).all(axis=(1, 2)))
        return np.asarray((self.reader.predictions(np.where(finite[:, None, None], z, 0.0)) != labels) & finite)

    def confirmed(self, X: Array, labels: Array, of: Array, distances: Array, delta: Array) -> Array:
        """Sizes of the steps that succeed on the file, lengthened a little where they must be; inf where none does."""
        sure = np.full(len(X), np.inf)
        for longer in _LONGER:
            left = np.flatnonzero(np.isfinite(distances) & ~np.isfinite(sure))
            if len(left) == 0:
                break
            step = self.threat.seen(X[left], longer * delta[left])
            wrong = self.wrong(X[left], labels[left], of[left], step)
            sure[left[wrong]] = self.threat.size(step[wrong])
        return sure


def _smallest(
    loss: _Loss, X: Array, labels: Array, of: Array, threat: Threat, *, rng: np.random.Generator, start: float
) -> tuple[Array, Array]:
    """The smaller of two searches, towards any class and towards the one nearest to first order: distances (N,) and δ."""
    best, found = np.full(len(X), np.inf), np.zeros(X.shape)
    aims = [None, rivals] if (rivals := loss.rivals(X, labels, of, threat)) is not None else [None]
    for aim in aims:
        if threat.norm == "l2":
            size, delta = smallest_l2(loss, X, labels, threat, steps=_L2_STEPS, rng=rng, start=start, rivals=aim, of=of)
        else:
            size, delta = smallest_linf(
                loss, X, labels, threat, steps=_PGD_STEPS, restarts=1, rng=rng, start=start, rivals=aim, of=of
            )
        shorter = size < best
        best[shorter], found[shorter] = size[shorter], delta[shorter]
    return best, found


def correlations(results: Sequence[SampleResult], distances: Array, *, seed: int, replicates: int = 500) -> tuple[Correlation, ...]:
    """Spearman correlation of each measure with the smallest attack over the samples, with bootstrap intervals."""
    rows = []
    for measure in RANKED:
        if measure == "attack_distance":  # what the others are ranked against
            continue
        if measure in BY_NAME and BY_NAME[measure].raw and all(estimate_of(r, measure) is None for r in results):
            continue  # only an audit that asks for brackets has it
        values = np.array(
            [np.nan if (e := estimate_of(r, measure)) is None or e.value is None else e.value for r in results], np.float64
        )
        good = np.isfinite(values) & np.isfinite(distances) if len(values) else np.zeros(0, bool)
        a, b = values[good], distances[good]
        if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
            rows.append(Correlation(measure, None, None, None, len(a)))
            continue
        rng = np.random.default_rng([seed, streams.REPLAY, 1])
        draws = spearman_of_resamples(a, b, (rng.integers(0, len(a), len(a)) for _ in range(replicates)))
        low, high = percentiles(draws) or (None, None)
        rows.append(Correlation(measure, spearman(a, b), low, high, len(a)))
    return tuple(rows)
