"""What an audit with gradients checks: itself against the sketch, the number against measured KL, the metric against attacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.auditing.pictures import picture_of, ranking
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record import streams
from onnxfim.record.audit import AttackSummary, Correlation, DirectionPicture, Thumbnail
from onnxfim.record.measures import RANKED
from onnxfim.record.sample import Estimate, KLCurve, SampleResult, estimate_of
from onnxfim.record.settings import Settings
from onnxfim.record.statistics import percentiles, spearman, spearman_of_resamples, wilson
from onnxfim.runtime.rows import Forward
from onnxfim.slopes.attacks import Threat, nearest_rivals, pgd, smallest_l2, smallest_linf
from onnxfim.slopes.differences import Sample
from onnxfim.slopes.exact import FEW_CLASSES, GradientRoute
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.replay import LADDER, kl_curve, rows_along

Array: TypeAlias = np.ndarray[Any, Any]

_PGD_STEPS, _RESTARTS, _L2_STEPS = 40, 2, 200
_LONGER = (1.0, 1.0001, 1.001, 1.01, 1.03, 1.1)  # tried in this order where the file is not misled by the first
_VISIBLE = 1.5  # boundary distances by which the moved picture is moved


def replayed(results: Sequence[SampleResult], count: int) -> list[SampleResult]:
    """Samples to replay: spread evenly over the ranking, the most and the least sensitive among them."""
    ranked = ranking(results)
    if len(ranked) <= count:
        return ranked
    return [ranked[i] for i in sorted(set(np.linspace(0, len(ranked) - 1, count).round().astype(int).tolist()))]


def kl_curves(
    forward: Forward, reader: OutputReader, X: Array, base: Array, targets: Sequence[Sample], worst: Array,
    results: Mapping[int, SampleResult], *, seed: int, spent: Callable[[int], None],
) -> dict[int, KLCurve]:  # fmt: skip
    """KL curves by position, for the targets' worst directions (n, d); the ladder is in boundary distances of each sample."""
    curves = {}
    for t, v in zip(targets, worst, strict=True):
        result = results[t.position]
        lam = result.lambda_max.value
        if not lam:
            continue
        distance = result.boundary_distance.value or 1.0 / np.sqrt(lam)
        epsilons = np.array(LADDER) * distance
        other = np.random.default_rng([seed, t.index, streams.REPLAY]).standard_normal(v.shape)
        rows = rows_along(X[t.position], v, other / np.linalg.norm(other), epsilons)
        outputs = forward.outputs(rows)
        spent(len(rows))
        curves[t.position] = kl_curve(reader, base[t.position], outputs, epsilons, lam)
    return curves


def direction_pictures(
    forward: Forward, reader: OutputReader, X: Array, targets: Sequence[Sample], worst: Array, results: Mapping[int, SampleResult]
) -> tuple[DirectionPicture, ...]:
    """Pictures of the worst direction for the most, the middle and the least sensitive of the targets (in ranking order)."""
    if not targets:
        return ()
    shown: list[tuple[Literal["worst", "median", "best"], int]] = [("worst", len(targets) - 1)]
    if len(targets) >= 3:
        shown += [("median", (len(targets) - 1) // 2), ("best", 0)]
    made = []
    for role, k in shown:
        t, v = targets[k], worst[k]
        result = results[t.position]
        epsilon = _VISIBLE * (result.boundary_distance.value or 1.0)
        x = X[t.position]
        moved = (x.ravel() + epsilon * v).reshape(x.shape).astype(x.dtype)
        after = None
        if reader.has_classes and result.prediction is not None:
            after = int(reader.predictions(forward.outputs(moved[None]))[0])
        field = v.reshape(x.shape)
        biggest = np.argsort(-np.abs(v))[:12]
        low, high = float(min(x.min(), moved.min())), float(max(x.max(), moved.max()))
        reach = float(np.abs(field).max()) or 1.0
        made.append(
            DirectionPicture(
                index=t.index,
                role=role,
                epsilon=float(epsilon),
                prediction_before=result.prediction,
                prediction_after=after,
                input=_thumbnail(t.index, x, low, high),
                direction=_thumbnail(t.index, field, -reach, reach),
                moved=_thumbnail(t.index, moved, low, high),
                largest=tuple((int(i), float(v[i])) for i in biggest),
            )
        )
    return tuple(made)


def _thumbnail(index: int, x: Array, low: float, high: float) -> Thumbnail | None:
    p = picture_of(x, low, high)
    return None if p is None else Thumbnail(index, p.shape[0], p.shape[1], p.shape[2], tuple(int(v) for v in p.ravel()))


class _Loss:
    """The gradient of the attacks' loss in calls of bounded size, counting its cost."""

    def __init__(self, model: DifferentiableModel) -> None:
        self.model, self.evaluations = model, 0

    def __call__(self, X: Array, labels: Array, rivals: Array) -> tuple[Array, Array]:
        rows = self.model.rows_per_call(1)
        parts = [
            self.model.loss_gradient(X[i : i + rows], labels[i : i + rows], rivals[i : i + rows]) for i in range(0, len(X), rows)
        ]
        self.evaluations += 2 * len(X)  # a forward pass and a cotangent
        return np.concatenate([z for z, _ in parts]), np.concatenate([g for _, g in parts])

    def rivals(self, X: Array, labels: Array, threat: Threat) -> Array | None:
        """The class nearest to first order of each sample; None where there is no choice, or too much of it for whole Jacobians."""
        K = self.model.num_outputs
        if not 2 < K <= FEW_CLASSES:
            return None
        rows = self.model.rows_per_call(K)
        parts = []
        for i in range(0, len(X), rows):
            x = X[i : i + rows]
            z, g = self.model.vjp(x, np.repeat(np.eye(K)[:, None], len(x), axis=1))
            parts.append(nearest_rivals(z.astype(np.float64), np.moveaxis(g, 0, 1), labels[i : i + rows], threat))
        self.evaluations += (1 + K) * len(X)
        return np.concatenate(parts)


class _Judge:
    """Asks the file itself whether a step succeeds; the derivative graph's rounding may differ at the boundary."""

    def __init__(self, forward: Forward, reader: OutputReader, threat: Threat) -> None:
        self.forward, self.reader, self.threat, self.evaluations = forward, reader, threat, 0

    def wrong(self, X: Array, labels: Array, delta: Array) -> Array:
        """Whether the file decides against the label at X + δ, (N,) bool."""
        self.evaluations += len(X)
        return np.asarray(self.reader.predictions(self.forward.outputs((X + delta).astype(X.dtype))) != labels)

    def confirmed(self, X: Array, labels: Array, distances: Array, delta: Array) -> Array:
        """Sizes of the steps that succeed on the file, lengthened a little where they must be; inf where none does."""
        sure = np.full(len(X), np.inf)
        for longer in _LONGER:
            left = np.flatnonzero(np.isfinite(distances) & ~np.isfinite(sure))
            if len(left) == 0:
                break
            step = self.threat.seen(X[left], longer * delta[left])
            wrong = self.wrong(X[left], labels[left], step)
            sure[left[wrong]] = self.threat.size(step[wrong])
        return sure


def _smallest(
    loss: _Loss, X: Array, labels: Array, threat: Threat, *, rng: np.random.Generator, start: float
) -> tuple[Array, Array]:
    """The smaller of two searches, towards any class and towards the one nearest to first order: distances (N,) and δ."""
    best, found = np.full(len(X), np.inf), np.zeros(X.shape)
    aims = [None, rivals] if (rivals := loss.rivals(X, labels, threat)) is not None else [None]
    for aim in aims:
        if threat.norm == "l2":
            size, delta = smallest_l2(loss, X, labels, threat, steps=_L2_STEPS, rng=rng, start=start, rivals=aim)
        else:
            size, delta = smallest_linf(loss, X, labels, threat, steps=_PGD_STEPS, restarts=1, rng=rng, start=start, rivals=aim)
        shorter = size < best
        best[shorter], found[shorter] = size[shorter], delta[shorter]
    return best, found


def attack(
    model: DifferentiableModel, forward: Forward, reader: OutputReader, X: Array, results: Sequence[SampleResult],
    positions: Sequence[int], *, settings: Settings, scale: Array | float, say: Callable[[str], None],
) -> tuple[AttackSummary, dict[int, Estimate]]:  # fmt: skip
    """Attack the samples and correlate every measure with the smallest successful step.

    Args:
        model: The derivative graphs.
        forward, reader: The file itself: a success is one there.
        X: All inputs.
        results: Results of the samples to attack, in the order of ``positions``.
        positions: Where their inputs are.
        settings: Norm, radius, range, seed.
        scale: d(model input)/d(raw input), broadcastable to a sample; distances are in raw units.
        say: Told of each stage.

    Returns:
        The summary and the smallest distance of each sample by index (an upper bound; 0 where the sample is wrong already).
    """
    started = time.perf_counter()
    assert settings.attack is not None
    x = X[list(positions)]
    by_prediction = any(r.label is None for r in results)
    labels = np.array([r.prediction if by_prediction else r.label for r in results])
    wrong = np.array([r.prediction != y for r, y in zip(results, labels, strict=True)])
    low, high = settings.attack_range or (float(X.min()), float(X.max()))
    threat = Threat(settings.attack, low, high, scale)
    loss = _Loss(model)
    rng = np.random.default_rng([settings.seed, streams.REPLAY])
    typical = float(np.median([r.boundary_distance.value or 1.0 for r in results])) / float(np.mean(scale))
    start = typical if settings.attack == "l2" else typical / np.sqrt(x[0].size)
    distances, failed = np.zeros(len(x)), 0
    judge = _Judge(forward, reader, threat)
    right = np.flatnonzero(~wrong)
    if len(right):
        say("smallest attack")
        found, delta = _smallest(loss, x[right], labels[right], threat, rng=rng, start=start)
        found = judge.confirmed(x[right], labels[right], found, delta)
        distances[right] = found
        failed = int((~np.isfinite(found)).sum())
    reached = distances[right][np.isfinite(distances[right])]
    epsilon = settings.epsilon or (float(np.median(reached)) if len(reached) else start)
    say("attack at the radius")
    broken = np.zeros(len(x), bool)
    if len(right):
        hit, delta = pgd(loss, x[right], labels[right], threat, epsilon, steps=_PGD_STEPS, restarts=_RESTARTS, rng=rng)
        hit &= judge.wrong(x[right], labels[right], delta)
        # What the search for the smallest step found inside the radius counts too: the strongest attack known.
        broken[right] = hit | (distances[right] <= epsilon)
    # What no attack reached is farther than all that one did.
    middle = float(np.median(distances[right])) if len(right) else math.inf
    robust = int((~wrong & ~broken).sum())
    share_low, share_high = wilson(robust, len(x))
    attacked = [r for r, w in zip(results, wrong, strict=True) if not w]
    units = "raw input units" if np.any(np.asarray(scale) != 1) else "model input units"
    summary = AttackSummary(
        norm=settings.attack, epsilon=float(epsilon), units=units,
        samples=len(x), clean_accuracy=float((~wrong).mean()), robust_accuracy=robust / len(x), robust_accuracy_low=share_low,
        robust_accuracy_high=share_high, median_distance=middle if math.isfinite(middle) else None, failed=failed,
        input_low=low, input_high=high, steps=_PGD_STEPS, restarts=_RESTARTS, evaluations=loss.evaluations + judge.evaluations,
        seconds=time.perf_counter() - started, correlations=correlations(attacked, distances[right], seed=settings.seed),
        by_prediction=by_prediction,
    )  # fmt: skip
    bounds = {
        r.index: Estimate(float(d), None, float(d), "upper bound", f"smallest {settings.attack} attack")
        if np.isfinite(d)
        else Estimate(None, reason="the attack did not succeed")
        for r, d in zip(results, distances, strict=True)
    }
    return summary, bounds


def correlations(results: Sequence[SampleResult], distances: Array, *, seed: int, replicates: int = 500) -> tuple[Correlation, ...]:
    """Spearman correlation of each measure with the smallest attack over the samples, with bootstrap intervals."""
    rows = []
    for measure in RANKED:
        if measure == "attack_distance":  # what the others are ranked against
            continue
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


__all__ = ["GradientRoute", "attack", "correlations", "direction_pictures", "kl_curves", "replayed"]
