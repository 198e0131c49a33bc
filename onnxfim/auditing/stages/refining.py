"""Refining: the rest of the budget goes where it decides, to the samples that `auditing.schedule` names.

Where no precision is to be reached, all that is added is known before the first sample is measured, and each sample is estimated
once more, from all of its directions. To reach a precision the samples' values are looked at after every round.
"""

from __future__ import annotations

from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.schedule import ROUND, Precision, likely_weights
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.by_differences import DirectionPlan, Round, evaluate
from onnxfim.slopes.differences import Request


@stage("refining", instead=lambda ground, reason, plan, first: first.found)
def refine(ground: Ground, plan: DirectionPlan, first: Round) -> Found:
    """Add directions to the samples whose noise is likely to decide that of the mean and of the tail, while there is budget."""
    settings, meter, found = ground.settings, ground.meter, first.found
    if settings.precision is None:
        wanted = _requests(ground, first, {i: plan.added[i] for i in first.kept})
        meter.expect(meter.done + sum(r.count for r in wanted) * plan.per_direction)
        return evaluate(ground, plan, first, wanted, last=True).found if wanted else found
    cost = ROUND * plan.per_direction  # of a sample in a round
    pool = max(settings.max_budget * len(found.results) - sum(r.evaluations for r in found.results.values()), 0)
    meter.expect(meter.done)
    now, weights = first, likely_weights(ground)
    try:
        while pool >= cost and now.kept and not now.found.interrupted:
            directions = {i: now.found.results[i].directions for i in now.kept}
            precision = Precision(now.found.in_order, settings.precision, settings.seed)
            added = precision.needed(directions, ground.samples.indices, weights, plan.first, pool // cost)
            if not added:
                break
            spent = sum(added.values()) * plan.per_direction
            meter.expect(max(meter.total, meter.done + spent))
            now = evaluate(ground, plan, now, _requests(ground, now, added))
            pool -= spent
    except ENDS as end:  # between two rounds
        return now.found.ended(end)
    return now.found


def _requests(ground: Ground, now: Round, added: dict[int, int]) -> list[Request]:
    """What is measured so that the samples have so many directions more: piece by piece, so that one that is on disk serves another
    plan too."""
    results = now.found.results
    return [
        ground.request(i, start, ROUND)
        for i, count in sorted(added.items())
        for start in range(results[i].directions, results[i].directions + count, ROUND)
    ]
