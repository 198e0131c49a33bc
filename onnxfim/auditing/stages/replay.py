"""The replay: measured KL divergences along the worst directions, and pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.pictures import picture_of, ranking, thumbnail
from onnxfim.auditing.stages import as_found, stage
from onnxfim.record import streams
from onnxfim.record.audit import DirectionPicture
from onnxfim.record.sample import KLCurve, SampleResult
from onnxfim.runtime.watching import current_watch
from onnxfim.slopes.differences import Sample
from onnxfim.slopes.exact import GradientRoute
from onnxfim.slopes.kl_curves import LADDER, kl_curve, rows_along

Array: TypeAlias = np.ndarray[Any, Any]

_VISIBLE = 1.5  # boundary distances by which the moved picture is moved


@stage("replaying the worst directions", instead=as_found)
def replay(ground: Ground, route: GradientRoute, found: Found) -> Found:
    """KL curves of some samples along their worst directions, and pictures of the most, the middle and the least sensitive."""
    positions = {r.index: p for p, r in found.results.items()}
    targets = [ground.sample(positions[r.index]) for r in replayed(list(found.results.values()), ground.settings.replay)]
    if not targets:
        return found
    ground.say("replaying the worst directions")
    worst = route.worst_directions(ground.X, ground.base, targets)
    results = dict(found.results)
    for t, v in zip(targets, worst, strict=True):
        with current_watch().about([t.position]):
            curve = _curve(ground, t, v, results[t.position])
        if curve is not None:
            results[t.position] = replace(results[t.position], kl_curve=curve)
    return replace(found, results=results, pictures=_pictures(ground, targets, worst, found))


def replayed(results: Sequence[SampleResult], count: int) -> list[SampleResult]:
    """Samples to replay: spread evenly over the ranking, the most and the least sensitive among them."""
    ranked = ranking(results)
    if len(ranked) <= count:
        return ranked
    return [ranked[i] for i in sorted(set(np.linspace(0, len(ranked) - 1, count).round().astype(int).tolist()))]


def _curve(ground: Ground, sample: Sample, v: Array, result: SampleResult) -> KLCurve | None:
    """KL curve along the worst direction v (d,); its ladder is in boundary distances. None for a sample without a slope."""
    lam = result.lambda_max.value
    if not lam:
        return None
    distance = result.boundary_distance.value or 1.0 / np.sqrt(lam)
    epsilons = np.array(LADDER) * distance
    other = np.random.default_rng([ground.settings.seed, sample.index, streams.REPLAY]).standard_normal(v.shape)
    rows = rows_along(ground.X[sample.position], v, other / np.linalg.norm(other), epsilons)
    outputs = ground.forward.outputs(rows)
    if not np.isfinite(outputs).all():
        return None
    return kl_curve(ground.reader, ground.base[sample.position], outputs, epsilons, lam)


def _pictures(ground: Ground, targets: Sequence[Sample], worst: Array, found: Found) -> tuple[DirectionPicture, ...]:
    """Of the most, the middle and the least sensitive of the targets, which are in ranking order."""
    shown: list[tuple[Literal["worst", "median", "best"], int]] = [("worst", len(targets) - 1)]
    if len(targets) >= 3:
        shown += [("median", (len(targets) - 1) // 2), ("best", 0)]
    return tuple(_picture(ground, role, targets[k], worst[k], found.results[targets[k].position]) for role, k in shown)


def _picture(
    ground: Ground, role: Literal["worst", "median", "best"], sample: Sample, v: Array, result: SampleResult
) -> DirectionPicture:
    """The input of a sample, its worst direction v (d,), and the input moved along it."""
    epsilon = _VISIBLE * (result.boundary_distance.value or 1.0)
    x = ground.X[sample.position]
    moved = (x.ravel() + epsilon * v).reshape(x.shape).astype(x.dtype)
    after = None
    if ground.reader.has_classes and result.prediction is not None:
        outputs = ground.forward.outputs(moved[None])
        after = int(ground.reader.predictions(outputs)[0]) if np.isfinite(outputs).all() else None
    field = v.reshape(x.shape)
    low, high = float(min(x.min(), moved.min())), float(max(x.max(), moved.max()))
    reach = float(np.abs(field).max()) or 1.0
    return DirectionPicture(
        index=sample.index,
        role=role,
        epsilon=float(epsilon),
        prediction_before=result.prediction,
        prediction_after=after,
        input=thumbnail(sample.index, picture_of(x, low, high)),
        direction=thumbnail(sample.index, picture_of(field, -reach, reach)),
        moved=thumbnail(sample.index, picture_of(moved, low, high)),
        largest=tuple((int(i), float(v[i])) for i in np.argsort(-np.abs(v))[:12]),
    )
