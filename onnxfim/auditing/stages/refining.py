"""Refining: the rest of the budget goes where it decides."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.by_differences import Plan, Round, evaluate
from onnxfim.auditing.summary import aggregate_of
from onnxfim.record.sample import estimate_of
from onnxfim.record.statistics import Z95

_ROUND = 16  # directions added to a sample at a time
_MOST = 8  # times the first round's directions that one sample may get


@stage("refining")
def refine(ground: Ground, plan: Plan, first: Round) -> Found:
    """Add directions to the samples that decide the noise of the mean, of the tail and of the maximum, while there is budget."""
    settings, meter, found = ground.settings, ground.meter, first.found
    cost = _ROUND * plan.per_direction  # of a sample in a round
    limit = settings.budget if settings.precision is None else settings.max_budget
    pool = max(limit * len(found.results) - sum(r.evaluations for r in found.results.values()), 0)
    meter.expect(meter.done + (pool if settings.precision is None else 0))
    now = first
    try:
        while pool >= cost and now.kept and not now.found.interrupted:
            if settings.precision is not None and _precise_enough(now.found, settings.precision, settings.seed):
                break
            chosen = _most_deciding(now, plan.first, pool // cost)
            if not chosen:
                break
            meter.expect(max(meter.total, meter.done + len(chosen) * cost))
            now = evaluate(ground, plan, now, [ground.request(i, now.found.results[i].directions, _ROUND) for i in chosen])
            pool -= len(chosen) * cost
    except KeyboardInterrupt:  # between two rounds
        return replace(now.found, interrupted=True)
    return now.found


def _most_deciding(now: Round, first: int, affordable: int) -> list[int]:
    """Samples whose noise weighs most: ``λ²/m`` in the mean, double where the interval meets the tail's or the maximum's."""
    results = now.found.results
    positions = [i for i in now.kept if results[i].directions < _MOST * first]
    if not positions:
        return []
    weight = dict.fromkeys(positions, 0.0)
    for measure in _measures(now.found):
        estimates = {i: e for i, r in results.items() if (e := estimate_of(r, measure)) and e.value is not None}
        total = sum(e.value or 0.0 for e in estimates.values())
        if total <= 0:
            continue
        tail = float(np.quantile([e.value or 0.0 for e in estimates.values()], 0.95))
        top = max(e.low or 0.0 for e in estimates.values())
        for i in positions:
            if (e := estimates.get(i)) is not None:
                deciding = (e.low or 0.0) <= tail <= (e.high or 0.0) or (e.high or 0.0) >= top
                weight[i] += ((e.value or 0.0) / total) ** 2 / results[i].directions * (2.0 if deciding else 1.0)
    ranked = sorted(positions, key=lambda i: (-weight[i], i))
    # Those that weigh about as much as the first, a few at a time: the weights then follow what was learned.
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
    if not mean.value or mean.low is None or mean.high is None:
        return True
    half = (mean.high - mean.low) / 2
    results = found.results.values()
    values = {r.index: (e.value or 0.0) if (e := estimate_of(r, measure)) else 0.0 for r in results}
    noise = math.sqrt(sum(values[r.index] ** 2 * 2 / r.directions for r in results)) / len(results)
    return half <= precision * mean.value or Z95 * noise < 0.1 * half
