"""Measuring from forward passes alone: what is planned, and one round of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.final_results import FinalResults
from onnxfim.auditing.guaranteeing import asks_for_brackets
from onnxfim.auditing.instruments import (
    COORDINATE_SCHEME,
    coordinate_differences,
    coordinate_measurer,
    coordinate_moves,
    differences,
    grouped_differences,
    measurer,
    raw_units,
    sketch_measurer,
)
from onnxfim.auditing.schedule import ROUND, likely_weights, planned, weightiest
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.flipping import Ways
from onnxfim.auditing.stages.predicting import along_coordinates
from onnxfim.auditing.stages.tied import BESIDE_A_JUMP, kinked_samples, without_slope
from onnxfim.record.audit import GradientInfo
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.runtime.rows import Rademacher
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, Differences, Ends, Request, Sample, is_finite
from onnxfim.slopes.dithering import LEAST_DIRECTIONS
from onnxfim.slopes.leads import lead_of_directions
from onnxfim.slopes.logarithms import with_rounding
from onnxfim.slopes.measurer import Measurer
from onnxfim.slopes.oddness import has_no_slope
from onnxfim.slopes.scored import Scored, joined
from onnxfim.slopes.units import coordinates_tell, with_units

Array: TypeAlias = np.ndarray[Any, Any]

#: Bytes of outputs that are kept for samples that may be refined.
KEPT_BYTES = 2**28

_REFINED_SHARE = 1 / 8  # of the budget, kept back for the samples that decide the mean, the tail and the maximum
_FEW_DIRECTIONS = 8
_MEASURING = "measuring by differences"
_BREAKS = "the model's output is not finite near this sample, or too large for float64 to square, or the runtime fails there"


@dataclass(frozen=True)
class DirectionPlan:
    """How an audit is measured by differences.

    Attributes:
        jacobian: Where ends of steps come from.
        measurer: Turns them into results.
        first: Directions of a sample in the first round.
        raw: How values in the inputs' own units are measured, where random directions are those of standardised inputs and the
            budget covers both; else None.
        added: Directions that refining adds, by position, where no precision is to be reached.
        kept: Positions of the samples whose outputs are kept for further rounds.
        moves: By how much each coordinate is moved, (*shape), where all of them are.
    """

    jacobian: Differences
    measurer: Measurer
    first: int
    raw: DirectionPlan | None = None
    added: Mapping[int, int] = field(default_factory=dict)
    kept: frozenset[int] = frozenset()
    moves: Array | None = None

    @property
    def exact(self) -> bool:
        """Whether the directions are all coordinates."""
        return self.measurer.exact

    @property
    def refines(self) -> bool:
        """Whether a part of the budget was kept back for the samples that decide."""
        return not self.exact and self.raw is None

    def pieces(self, position: int) -> tuple[int, ...] | None:
        """Directions that a sample gets in all, request by request; None where a precision is to be reached, which decides it."""
        if position not in self.kept:
            return (self.first,)
        added = self.added.get(position)
        return None if added is None else (self.first, *[ROUND] * (added // ROUND))

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


def plan(ground: Ground) -> DirectionPlan:
    """All coordinates where the budget covers them, or they were asked for; else random directions."""
    settings, step, d = ground.settings, ground.step, ground.dimension
    samples = len(ground.clean.audited) if ground.coupling is None else ground.coupling.samples
    affordable = d * ROWS_PER_DIRECTION[COORDINATE_SCHEME] <= settings.budget - 1
    # Where features differ in scale, random directions know standardised inputs only; coordinates know all units.
    wanted = settings.method == "exact" or (affordable and (settings.method == "auto" or ground.spread is not None))
    if (unit := ground.subject.unit) and settings.method != "exact":  # a coordinate alone may move rounded outputs by less
        wanted = wanted and coordinates_tell(step, unit, d)
    if wanted and step.scheme != "dithered":
        moves = coordinate_moves(ground)
        return DirectionPlan(coordinate_differences(ground, moves), coordinate_measurer(ground, moves), d, moves=moves)
    per_direction = ROWS_PER_DIRECTION[step.scheme]
    passes = settings.budget - 1
    if ground.spread is not None and (raw := _raw_plan(ground, passes // 2)) is not None:
        standardised = (passes - raw.first * per_direction) // per_direction
        jacobian = differences(ground, Rademacher(settings.seed), step)
        return DirectionPlan(jacobian, sketch_measurer(ground), standardised, raw)
    if samples >= _FEW_DIRECTIONS:
        passes = int(passes * (1 - _REFINED_SHARE))
    jacobian = differences(ground, Rademacher(settings.seed), step)
    least = LEAST_DIRECTIONS if step.scheme == "dithered" else _FEW_DIRECTIONS  # four passes each: the budget is kept from 21 on
    return _with_schedule(ground, DirectionPlan(jacobian, sketch_measurer(ground), max(least, passes // per_direction)))


def _with_schedule(ground: Ground, plan: DirectionPlan) -> DirectionPlan:
    """The plan with what refining adds: to as many samples as there is memory for, those that are likely to weigh most."""
    if ground.coupling is not None:
        told = ground.coupling.added
        added = {p: told[i] for p, i in enumerate(ground.samples.indices.tolist()) if i in told}
        return replace(plan, added=added, kept=frozenset(added))
    settings, audited, weights = ground.settings, ground.clean.audited.tolist(), likely_weights(ground)
    rows = plan.first * plan.per_direction
    bytes_kept = 8 * ground.base[0].size * (rows + (plan.per_direction == 1))  # forward differences share the sample's own outputs
    kept = weightiest(audited, weights, max(1, KEPT_BYTES // bytes_kept))
    if settings.precision is not None:
        return replace(plan, kept=frozenset(kept))
    pool = max((settings.budget - 1 - rows) * len(audited), 0)
    added = planned(dict.fromkeys(kept, plan.first), weights, plan.first, pool // (ROUND * plan.per_direction))
    return replace(plan, added=added, kept=frozenset(added))


def ways(ground: Ground, plan: DirectionPlan, found: Found) -> Ways:
    """Where to look for flips of samples that were measured by differences: combinations of the directions that were measured."""
    kind = "the Fisher direction by differences" if plan.exact else "the sketched Fisher direction"
    slope = "the slope of the nearest boundary by differences" if plan.exact else "the sketched slope of the nearest boundary"
    d = ground.dimension

    def directions(some: Sequence[Sample]) -> Array:
        if plan.exact:
            return np.stack([found.leads[s.position] for s in some])
        source = Rademacher(ground.settings.seed)
        # Where features differ in scale, random directions are in units of each one's own spread.
        units = np.ones(d, np.float32) if ground.spread is None else np.broadcast_to(ground.spread, ground.X.shape[1:]).ravel()
        leads = [(c := found.leads[s.position]) @ source.block(s.index, 0, c.shape[1], d).astype(np.float32) for s in some]
        return np.stack(leads) * units.astype(np.float32)

    # Of m random directions the combination lies at an angle of cosine √(m/(m + d)) to the true one.
    return Ways(directions, (kind, slope), lambda r: 1.0 if plan.exact else math.sqrt(1 + d / r.directions), others=True)


def _raw_plan(ground: Ground, passes: int) -> DirectionPlan | None:
    """Values in the inputs' own units along random directions in groups of like scale; None where the passes do not cover a few."""
    jacobian, parts = grouped_differences(ground, ground.step)
    whole = passes // (parts * ROWS_PER_DIRECTION[jacobian.scheme])
    if whole < _FEW_DIRECTIONS:
        return None
    return DirectionPlan(jacobian, replace(measurer(ground, exact=False), parts=parts, standardised=None), whole * parts)


def without_step(ground: Ground, gradient: GradientInfo) -> Found:
    """No result of any sample, since no step was chosen."""
    skipped = tuple(Skipped(ground.index(i), f"no step: {ground.step.unchosen}") for i in ground.clean.audited)
    return Found("sketch", gradient, skipped=(*ground.clean.skipped, *skipped))


@stage(_MEASURING)
def first_round(ground: Ground, plan: DirectionPlan, gradient: GradientInfo) -> Round:
    """All audited samples, along as many directions each."""
    rows = plan.first * plan.per_direction + (0 if plan.raw is None else plan.raw.first * plan.raw.per_direction)
    ground.meter.further(len(ground.clean.audited) * rows)
    found = Found("exact" if plan.exact else "sketch", gradient, skipped=ground.clean.skipped, scheme=plan.jacobian.scheme)
    ground.say("measuring by differences")
    start = Round(found, kinked=kinked_samples(ground))
    done = evaluate(ground, plan, start, [ground.request(i, 0, plan.first) for i in ground.clean.audited])
    if plan.raw is None or done.found.interrupted:
        return done
    return _with_raw(ground, plan.raw, done)


def _with_raw(ground: Ground, raw: DirectionPlan, done: Round) -> Round:
    """The results in standard deviations with those in the inputs' own units beside them."""
    standardised = done.found.results
    requests = [ground.request(i, 0, raw.first) for i in sorted(standardised)]
    try:
        found = evaluate(ground, raw, Round(replace(done.found, results={}), kinked=done.kinked), requests).found
    except ENDS as end:  # nothing of this round was finished
        return replace(done, found=done.found.ended(end))
    if ground.faults.stages and not found.results:  # it failed before anything of it was finished
        return done
    results = {
        i: replace(
            r,
            lambda_max_standardised=standardised[i].lambda_max_standardised,
            evaluations=r.evaluations + standardised[i].evaluations - 1,  # the base point serves both
            directions=r.directions // raw.measurer.parts,
        )
        for i, r in found.results.items()
    }
    whole = {**standardised, **results} if found.interrupted else results
    return Round(replace(found, results=whole, leads=done.found.leads))


def evaluate(ground: Ground, plan: DirectionPlan, before: Round, requests: Sequence[Request], *, last: bool = False) -> Round:
    """Evaluate the requests and (re)compute the results of their samples; one of `ENDS` keeps those that were finished.

    Outputs are kept for further rounds, unless this is the ``last``: a sample of several requests is then estimated once, after
    the last of them. An unexpected failure at one sample skips it; one of the evaluation itself ends this round, with what was
    finished.

    Raises:
        KeyboardInterrupt, ProviderFailed, OutOfMemory: nothing was finished yet; any other error before that too.
    """
    results, kept, leads = dict(before.found.results), dict(before.kept), dict(before.found.leads)
    skipped, ended = list(before.found.skipped), None
    kinked = before.kinked
    left = Counter(r.sample.position for r in requests)
    finals = FinalResults(ground, plan.jacobian, plan.measurer)
    try:
        for sample, result, lead in finals.known([] if results else requests, plan.pieces, kinked):
            results[sample.position] = result
            if lead is not None:
                leads[sample.position] = lead
            ground.meter.advance(plan.first * plan.per_direction)
            ground.say("measuring")
        missing = [r for r in requests if r.sample.position not in results] if not before.found.results else requests
        for ends in plan.jacobian.ends(ground.X, ground.base, missing):
            position = ends.request.sample.position
            refining = position in results
            ground.meter.advance(ends.request.count * plan.per_direction)
            ground.say("refining" if refining else "measuring")
            left[position] -= 1
            # Its first outputs made room for others meanwhile, or part of it was no number.
            if position not in kept if refining else ends.request.start > 0:
                continue
            if not is_finite(ends):
                results.pop(position, None)
                kept.pop(position, None)
                leads.pop(position, None)
                skipped.append(Skipped(ground.index(position), _BREAKS))
                continue
            parts = (*kept.get(position, ()), ends)
            if last and left[position]:
                kept[position] = parts
                continue
            measured = _result(ground, plan, ends.request.sample, parts, position in kinked)
            if isinstance(measured, str):
                if not refining:
                    skipped.append(Skipped(ground.index(position), measured))
                continue
            results[position] = measured.result
            if measured.lead is not None:
                leads[position] = measured.lead
            if (counts := tuple(e.request.count for e in parts)) == plan.pieces(position):
                finals.keep(ends.request.sample, counts, kinked, measured.result, measured.lead)
            if last:
                kept.pop(position, None)
            elif position in plan.kept:
                kept[position] = parts
    except ENDS as end:
        if not results:
            raise
        ended = end
    except Exception as error:
        if not results:
            raise
        reason = ground.faults.note(_MEASURING, error)
        told = {s.index for s in skipped}
        lost = (ground.index(r.sample.position) for r in requests if r.sample.position not in results)
        skipped += [Skipped(i, reason) for i in lost if i not in told]
    finally:
        finals.flush()
    found = replace(before.found, results=results, skipped=tuple(skipped), leads=leads).ended(ended)
    return Round(found, kept, kinked)


@dataclass(frozen=True)
class _ResultAndLead:
    """A sample's result, and the weights of its directions where flips are looked for."""

    result: SampleResult
    lead: Array | None


def _result(ground: Ground, plan: DirectionPlan, sample: Sample, parts: Sequence[Ends], kinked: bool) -> _ResultAndLead | str:
    """What a sample's ends of steps give, or why they give nothing."""
    base = ground.base[sample.position]
    try:
        scored = Scored(ground.reader, base, joined(parts))
        result = plan.measurer(sample, base, parts, scored)
        if kinked:
            result = without_slope(result)
        elif not plan.exact and has_no_slope(scored):
            result = without_slope(result, BESIDE_A_JUMP)
        if ground.subject.unit:
            result = with_units(result, ground.reader, base, scored.ends, ground.subject.unit, ground.step.bias, summed=plan.exact)
        if ground.subject.of_logarithm:
            result = with_rounding(result, base, float(np.finfo(ground.subject.info.input_dtype).eps))
        if plan.exact and asks_for_brackets(ground.settings):
            result = replace(result, predicted=along_coordinates(result, scored, raw_units(ground)))
        leads = ground.settings.flip and plan.measurer.parts == 1
        return _ResultAndLead(result, lead_of_directions(scored) if leads else None)
    except Exception as error:  # noqa: BLE001 - whatever is wrong at one sample, the others are measured
        return ground.faults.note(_MEASURING, error)
