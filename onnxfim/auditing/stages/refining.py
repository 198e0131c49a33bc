"""Refining: the rest of the budget goes where it decides.

Which samples get more directions must not depend on the noise of their first estimates: what was too large by chance would be
measured again and mended, what was too small would not, and the mean would come out too low (by 1.4 % at the usual budget). So they
are chosen by what their clean outputs alone tell: how far their probabilities leave room to move. Where no precision is to be
reached, all of them are therefore known before the first is measured again, and each is estimated once, from all of its directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.by_differences import Plan, Round, evaluate
from onnxfim.auditing.summary import aggregate_of
from onnxfim.record.sample import estimate_of
from onnxfim.record.statistics import Z95

Array: TypeAlias = np.ndarray[Any, Any]

_ROUND = 16  # directions added to a sample at a time
_MOST = 8  # times the first round's directions that one sample may get


@stage("refining", instead=lambda ground, reason, plan, first: first.found)
def refine(ground: Ground, plan: Plan, first: Round) -> Found:
    """Add directions to the samples whose noise is likely to decide that of the mean and of the tail, while there is budget.

    To reach a precision the samples' values are looked at after every round; else the rounds are planned, and measured as one.
    """
    settings, meter, found = ground.settings, ground.meter, first.found
    cost = _ROUND * plan.per_direction  # of a sample in a round
    limit = settings.budget if settings.precision is None else settings.max_budget
    pool = max(limit * len(found.results) - sum(r.evaluations for r in found.results.values()), 0)
    meter.expect(meter.done + (pool if settings.precision is None else 0))
    now, weights = first, _weights(ground)
    if settings.precision is None:
        directions = {i: found.results[i].directions for i in first.kept}
        added = _planned(directions, weights, plan.first, pool // cost)
        # Piece by piece, so that one that is on disk serves another plan too.
        wanted = [
            ground.request(i, start, _ROUND)
            for i, count in sorted(added.items())
            for start in range(directions[i], directions[i] + count, _ROUND)
        ]
        return evaluate(ground, plan, first, wanted, last=True).found if wanted else found
    try:
        while pool >= cost and now.kept and not now.found.interrupted:
            if _precise_enough(now.found, settings.precision, settings.seed):
                break
            directions = {i: now.found.results[i].directions for i in now.kept}
            chosen = _most_deciding(directions, weights, plan.first, pool // cost)
            if not chosen:
                break
            meter.expect(max(meter.total, meter.done + len(chosen) * cost))
            now = evaluate(ground, plan, now, [ground.request(i, now.found.results[i].directions, _ROUND) for i in chosen])
            pool -= len(chosen) * cost
    except ENDS as end:  # between two rounds
        return now.found.ended(end)
    return now.found


def _weights(ground: Ground) -> Array:
    """How much each sample is likely to weigh in the mean, (N,): its largest ``p(1 − p)`` over the total, raw or calibrated."""
    reader = ground.reader
    if not reader.has_classes:
        return np.ones(len(ground.base))
    audited, temperature = ground.clean.audited, ground.calibration.temperature
    found = np.zeros(len(ground.base))
    for t in {1.0, temperature or 1.0}:
        p = reader.probabilities(ground.base, t)
        spread = (p * (1 - p)).max(axis=1).sum(axis=1)  # over the positions
        if (total := float(spread[audited].sum())) > 0:
            found = np.maximum(found, spread / total)
    return found


def _planned(directions: Mapping[int, int], weights: Array, first: int, affordable: int) -> dict[int, int]:
    """Directions that each sample gets beside those it has, while some are affordable: of so many times `_ROUND` of one sample."""
    now = dict(directions)
    while affordable >= 1 and (chosen := _most_deciding(now, weights, first, affordable)):
        for i in chosen:
            now[i] += _ROUND
        affordable -= len(chosen)
    return {i: now[i] - count for i, count in directions.items() if now[i] > count}


def _most_deciding(directions: Mapping[int, int], weights: Array, first: int, affordable: int) -> list[int]:
    """Samples whose noise is likely to weigh most in the mean: ``λ²/m`` of m directions, λ in proportion to ``weights``."""
    positions = [i for i, m in directions.items() if m < _MOST * first]
    weight = {i: float(weights[i]) ** 2 / directions[i] for i in positions}
    ranked = sorted(positions, key=lambda i: (-weight[i], i))
    # Those that weigh about as much as the first, a few at a time.
    equal = [i for i in ranked if weight[i] >= 0.5 * weight[ranked[0]]]
    return sorted(equal[: max(1, min(affordable, max(4, len(ranked) // 16)))])


def _measures(found: Found) -> tuple[str, ...]:
    """What is refined: values in standard deviations where there are no others."""
    raw = any(r.lambda_max.value is not None for r in found.results.values())
    return ("lambda_max", "lambda_max_calibrated") if raw else ("lambda_max_standardised",)


def _precise_enough(found: Found, precision: float, seed: int) -> bool:
    """Whether the mean's interval is narrow enough, or the estimates' noise no longer matters in it."""
    measure = _measures(found)[0]
    mean = aggregate_of(found.in_order, measure, seed=seed).mean
    if not mean.value:
        return True
    results = found.in_order
    values = np.array([(e.value or 0.0) if (e := estimate_of(r, measure)) else 0.0 for r in results])
    noise = math.sqrt(sum(v**2 * 2 / r.directions for v, r in zip(values.tolist(), results, strict=True))) / len(values)
    if mean.low is None or mean.high is None:
        half = Z95 * float(values.std()) / math.sqrt(len(values))
    else:
        half = (mean.high - mean.low) / 2
        if half <= precision * mean.value:
            return True
    return Z95 * noise < 0.1 * half
