"""The replay: measured KL divergences along the worst directions, and pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.input_kinds import input_kind
from onnxfim.auditing.pictures import picture_of, positions_of, ranking, thumbnail
from onnxfim.auditing.stages import as_found, stage
from onnxfim.auditing.traces import traces
from onnxfim.record import streams
from onnxfim.record.audit import DirectionPicture
from onnxfim.record.input_pictures import DirectionSummary, InputKind
from onnxfim.record.sample import KLCurve, SampleResult
from onnxfim.runtime.watching import current_watch
from onnxfim.slopes.differences import Sample
from onnxfim.slopes.exact import GradientRoute
from onnxfim.slopes.kl_curves import POINTS, KLSearch, rows_along

Array: TypeAlias = np.ndarray[Any, Any]

_BYTES = 2**26  # of the rows of a block of samples
_COPIES = 3  # of them: two distances of each sample come first, and are joined
_FEATURES = 1024  # of which a mean is recorded, at most
_VISIBLE = 1.5  # boundary distances by which the moved picture is moved


@stage("replaying the worst directions", instead=as_found)
def replay(ground: Ground, route: GradientRoute, found: Found) -> Found:
    """KL curves of some samples along their worst directions, and pictures of the most, the middle and the least sensitive."""
    positions = {r.index: p for p, r in found.results.items()}
    targets = [ground.sample(positions[r.index]) for r in replayed(list(found.results.values()), ground.settings.replay)]
    if not targets:
        return found
    shown = _shown(targets)
    worst: dict[int, Array] = {}
    kind = input_kind(ground)
    table = kind == "tabular" and ground.dimension <= _FEATURES
    entries, summed = np.zeros(ground.dimension), 0
    results = dict(found.results)
    rows = 1 if current_watch().tries else max(1, _BYTES // (_COPIES * POINTS * 8 * max(ground.dimension, ground.base[0].size)))
    for start in range(0, len(targets), rows):
        if rows < len(targets):
            ground.meter.count(start, len(targets), "samples")
        ground.say("replaying the worst directions")
        block = targets[start : start + rows]
        with current_watch().about([t.position for t in block]):
            directions = route.worst_directions(ground.X, ground.base, block)
            curves = _curves(ground, block, directions, found)
        if table:
            entries += np.abs(directions).sum(axis=0)
            summed += int(directions.any(axis=1).sum())  # zeros are of samples without a slope
        for t, v, curve in zip(block, directions, curves, strict=True):
            if curve is not None:
                results[t.position] = replace(results[t.position], kl_curve=curve)
            if t in shown.values():
                worst[t.position] = v
    pictures = tuple(_picture(ground, kind, role, t, worst[t.position], found.results[t.position]) for role, t in shown.items())
    summary = DirectionSummary(summed, tuple((entries / summed).tolist())) if summed else None
    return replace(found, results=results, pictures=pictures, direction_summary=summary)


def replayed(results: Sequence[SampleResult], count: int) -> list[SampleResult]:
    """Samples to replay: spread evenly over the ranking, the most and the least sensitive among them."""
    ranked = ranking(results)
    if len(ranked) <= count:
        return ranked
    return [ranked[i] for i in sorted(set(np.linspace(0, len(ranked) - 1, count).round().astype(int).tolist()))]


def _curves(ground: Ground, block: Sequence[Sample], worst: Array, found: Found) -> list[KLCurve | None]:
    """KL curves of the samples along their worst directions (n, d), whose rows share their calls; None for one without a slope."""
    searches: dict[int, KLSearch] = {}
    others = np.zeros_like(worst)
    for k, t in enumerate(block):
        result = found.results[t.position]
        if not (lam := result.lambda_max.value):
            continue
        distance = float(result.boundary_distance.value or 1.0 / np.sqrt(lam))
        searches[k] = KLSearch(ground.reader, ground.base[t.position], lam, distance)
        drawn = np.random.default_rng([ground.settings.seed, t.index, streams.REPLAY]).standard_normal(worst.shape[1])
        others[k] = drawn / np.linalg.norm(drawn)
    while True:
        asked = [(k, epsilons) for k, s in searches.items() if len(epsilons := s.next())]
        if not asked:
            return [searches[k].curve() if k in searches else None for k in range(len(block))]
        rows = [rows_along(ground.X[block[k].position], worst[k], others[k], epsilons) for k, epsilons in asked]
        of = np.repeat([block[k].position for k, _ in asked], [len(r) for r in rows])
        outputs = ground.forward.outputs(np.concatenate(rows), of)
        for (k, _), z in zip(asked, np.split(outputs, np.cumsum([len(r) for r in rows])[:-1]), strict=True):
            searches[k].learn(z)


def _shown(targets: Sequence[Sample]) -> dict[Literal["worst", "median", "best"], Sample]:
    """The most, the middle and the least sensitive of the targets, which are in ranking order."""
    shown: dict[Literal["worst", "median", "best"], Sample] = {"worst": targets[-1]}
    if len(targets) >= 3:
        shown |= {"median": targets[(len(targets) - 1) // 2], "best": targets[0]}
    return shown


def _picture(
    ground: Ground, kind: InputKind, role: Literal["worst", "median", "best"], sample: Sample, v: Array, result: SampleResult
) -> DirectionPicture:
    """The input of a sample, its worst direction v (d,), and the input moved along it."""
    epsilon = _VISIBLE * (result.boundary_distance.value or 1.0)
    x = ground.X[sample.position]
    moved = (x.ravel() + epsilon * v).reshape(x.shape).astype(x.dtype)
    after = None
    if ground.reader.has_classes and result.prediction is not None:
        outputs = ground.forward.outputs(moved[None], np.array([sample.position]))
        after = int(ground.reader.predictions(outputs)[0]) if np.isfinite(outputs).all() else None
    field = v.reshape(x.shape)
    low, high = float(min(x.min(), moved.min())), float(max(x.max(), moved.max()))
    reach = float(np.abs(field).max()) or 1.0
    fed = ground.samples.fed
    return DirectionPicture(
        index=sample.index,
        role=role,
        epsilon=float(epsilon),
        prediction_before=result.prediction,
        prediction_after=after,
        input=thumbnail(sample.index, picture_of(x, low, high, kind)),
        direction=thumbnail(sample.index, picture_of(field, -reach, reach, kind)),
        moved=thumbnail(sample.index, picture_of(moved, low, high, kind)),
        largest=tuple((int(i), float(v[i])) for i in np.argsort(-np.abs(v))[:12]),
        positions=() if fed is None else positions_of(field, fed[sample.position]),
        traces=traces(x, field) if kind == "series" else (),
    )
