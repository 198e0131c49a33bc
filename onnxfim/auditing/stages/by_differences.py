"""Measuring from forward passes alone: what is planned, and one round of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.instruments import differences, measurer
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.tied import kinked_samples, without_slope
from onnxfim.record.audit import GradientInfo
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.runtime.rows import Coordinates, Rademacher
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, Differences, Ends, Request, is_finite
from onnxfim.slopes.measurer import Measurer

Array: TypeAlias = np.ndarray[Any, Any]

_REFINED_SHARE = 1 / 8  # of the budget, kept back for the samples that decide the mean, the tail and the maximum
_KEPT_BYTES = 2**28  # of outputs kept for samples that may be refined
_FEW_DIRECTIONS = 8


@dataclass(frozen=True)
class Plan:
    """How an audit is measured by differences.

    Attributes:
        jacobian: Where ends of steps come from.
        measurer: Turns them into results.
        first: Directions of a sample in the first round.
    """

    jacobian: Differences
    measurer: Measurer
    first: int

    @property
    def exact(self) -> bool:
        """Whether the directions are all coordinates."""
        return self.measurer.exact

    @property
    def per_direction(self) -> int:
        """Forward passes a direction."""
        return ROWS_PER_DIRECTION[self.jacobian.scheme]


@dataclass(frozen=True)
class Round:
    """What was found after a round; by position the outputs kept of samples that may be refined, and the kinked samples."""

    found: Found
    kept: Mapping[int, tuple[Ends, ...]] = field(default_factory=dict)
    kinked: frozenset[int] = frozenset()


def plan(ground: Ground) -> Plan:
    """All coordinates where the budget covers them, or they were asked for; else random directions."""
    settings, step, d = ground.settings, ground.step, ground.dimension
    per_direction = ROWS_PER_DIRECTION[step.scheme]
    affordable = settings.method == "auto" and d * per_direction <= settings.budget - 1
    if (settings.method == "exact" or affordable) and step.scheme != "dithered":
        # One coordinate is moved as far as a direction of the ladder in all: noise and curvature are then those measured there.
        amplitude = step.step if step.given else step.step * math.sqrt(d)
        jacobian = differences(ground, Coordinates(), replace(step, step=amplitude))
        return Plan(jacobian, measurer(ground, exact=True), d)
    passes = settings.budget - 1
    if len(ground.clean.audited) >= _FEW_DIRECTIONS:
        passes = int(passes * (1 - _REFINED_SHARE))
    jacobian = differences(ground, Rademacher(settings.seed), step)
    return Plan(jacobian, measurer(ground, exact=False), max(_FEW_DIRECTIONS, passes // per_direction))


@stage("measuring by differences")
def first_round(ground: Ground, plan: Plan, gradient: GradientInfo) -> Round:
    """All audited samples, along as many directions each."""
    ground.meter.expect(len(ground.clean.audited) * plan.first * plan.per_direction)
    start = Round(Found("exact" if plan.exact else "sketch", gradient, skipped=ground.clean.skipped), kinked=kinked_samples(ground))
    return evaluate(ground, plan, start, [ground.request(i, 0, plan.first) for i in ground.clean.audited])


def evaluate(ground: Ground, plan: Plan, before: Round, requests: Sequence[Request]) -> Round:
    """Evaluate the requests and (re)compute the results of their samples; an interrupt keeps those that were finished.

    Raises:
        KeyboardInterrupt: nothing was finished yet.
    """
    results, kept = dict(before.found.results), dict(before.kept)
    skipped, interrupted = list(before.found.skipped), False
    kinked = before.kinked
    try:
        for ends in plan.jacobian.ends(ground.X, ground.base, requests):
            position = ends.request.sample.position
            refining = position in results
            ground.meter.advance(ends.request.count * plan.per_direction)
            ground.say("refining" if refining else "measuring")
            if refining and position not in kept:  # its first outputs made room for others meanwhile
                continue
            if not is_finite(ends):
                results.pop(position, None)
                kept.pop(position, None)
                skipped.append(Skipped(ground.index(position), "the model's output is not finite near this sample"))
                continue
            parts = (*kept.get(position, ()), ends)
            result = plan.measurer(ends.request.sample, ground.base[position], parts)
            results[position] = without_slope(result) if position in kinked else result
            if not plan.exact:
                _keep(kept, results, position, parts)
    except KeyboardInterrupt:
        if not results:
            raise
        interrupted = True
    found = replace(before.found, results=results, skipped=tuple(skipped), interrupted=interrupted)
    return Round(found, kept, kinked)


def _keep(kept: dict[int, tuple[Ends, ...]], results: Mapping[int, SampleResult], position: int, parts: tuple[Ends, ...]) -> None:
    """Keep the outputs of the samples with the largest values, in a bounded memory, so that they can be refined."""
    kept[position] = parts
    size = sum(_bytes(e) for e in parts)
    if len(kept) > max(1, _KEPT_BYTES // max(size, 1)):
        del kept[min(kept, key=lambda i: results[i].lambda_max.value or 0.0)]


def _bytes(ends: Ends) -> int:
    return ends.plus.nbytes + ends.minus.nbytes + (0 if ends.twin is None else _bytes(ends.twin))
