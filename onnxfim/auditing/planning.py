"""The plan of an audit: which stages are to come, and what each is expected to take, as far as that is known at the time.

What a stage takes is reckoned in forward passes where it makes any; the price of a pass is learned as the audit goes on. Constants
are those of the trained models of the benchmarks, roughly: they matter until a stage runs itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxfim.auditing.context import Context, Ground
from onnxfim.auditing.course import PlannedStage
from onnxfim.auditing.guaranteeing import asks_for_brackets
from onnxfim.auditing.instruments import COORDINATE_SCHEME
from onnxfim.auditing.meter import Outlook
from onnxfim.auditing.stages.choosing import derivable
from onnxfim.auditing.stages.input_scaling import RIGHT
from onnxfim.graph.quantised import rounding_operators
from onnxfim.record.smoothing_terms import CHOOSING
from onnxfim.runtime.shared_cores import usable_cores
from onnxfim.slopes.differences import ROWS_PER_DIRECTION
from onnxfim.slopes.exact import FEW_CLASSES

if TYPE_CHECKING:
    from onnxfim.auditing.stages.by_differences import DirectionPlan
    from onnxfim.slopes.exact import GradientRoute

_ITERATED = 115  # passes of a sample by iterations over many classes
_TIED = 25  # times the passes of a sample, that one on ties takes more for its one-sided slopes
_CHECKED = 6 * 32  # directions of the check against the sketch
_BOXES, _BOX_SECONDS = 8, 6.0  # boxes of a sample that a verifier is asked about, and seconds of one
_FLIPS, _SKETCHED_FLIPS, _BLIND_FLIPS = 11, 16, 40  # passes of a sample that looks for its flip
_AHEAD = 30  # passes of a sample that looks ahead to a few of many classes
_KL_POINTS = 12  # passes of a sample that is replayed
_L2_STEPS, _LINF_STEPS, _PGD_STEPS = 200, 40 * 5, 40 * 2  # of an attack on a sample, two passes each
_REACHED = 0.9  # of the samples, that an attack has to do with: the others are wrong already
_SCALING_STAGE = "checking the scaling"
_SCALING = 360  # passes that usual changes of the inputs are tried with
_SELF_TEST = 176  # passes of the test of derivative graphs
_LADDER, _BRIEF_LADDER = 768, 150  # passes of the ladder of steps
_NODE_SECONDS, _GRAPH_SECONDS = 0.01, 0.3  # of deriving and opening a graph
_DRAWN_SECONDS = 7e-9  # of a number of the directions, that are drawn again where flips are looked for
_NOISE_SECONDS = 8e-9  # of a number of rows with noise
_BOUND_SECONDS, _NORM_SECONDS = 0.001, 1.5e-10  # of bounding: a node, and a multiplication of a norm


def begun(context: Context) -> None:
    """Plan an audit whose model is open, before anything is measured."""
    n = audited(context)
    gradient = derivable(context)
    first = _first(context, n)
    middle = _by_gradients(context, n) if gradient else _by_differences(context, n, first, n * context.settings.budget - first)
    outlook = _outlook(context, "gradient" if gradient else "sketch", sure=False)
    context.meter.plan([*grounding(context, n), *middle, *_closing(context, n)], outlook)


def by_sketch(context: Context) -> list[PlannedStage]:
    """All stages of an audit that takes differences, before anything is measured."""
    n = audited(context)
    first = _first(context, n)
    middle = _by_differences(context, n, first, n * context.settings.budget - first)
    return [*grounding(context, n), *middle, *_closing(context, n)]


def grounding(context: Context, n: int) -> list[PlannedStage]:
    """What comes before the first sample is measured, of n."""
    gradient = derivable(context)
    parts = [
        PlannedStage("trying rows against each other", seconds=0.05),
        PlannedStage("clean pass", len(context.X), unit="samples"),
        PlannedStage("looking for ties", 0.0 if context.subject.file is None else 2.0 * n, teaches=False),
        PlannedStage("calibration"),
        PlannedStage("choosing the step", _ladder(context, n, brief=gradient), "differences", unit="passes"),
    ]
    return [*parts, _deriving(context, quick=not gradient)] if context.settings.method in ("auto", "gradient") else parts


def step_alone(context: Context) -> None:
    """Plan what chooses a step and measures nothing."""
    n = audited(context)
    brief = min(_ladder(context, n, brief=False), _LADDER)
    parts = [
        PlannedStage("clean pass", len(context.X), unit="samples"),
        PlannedStage("looking for ties", 0.0 if context.subject.file is None else 2.0 * n, teaches=False),
        PlannedStage("choosing the step", brief, "differences", unit="passes"),
    ]
    context.meter.plan(parts, _outlook(context, "the choice of a step", sure=False))


def without_values(ground: Ground) -> int:
    """Plan the rest of an audit that measures nothing; its forward passes in all."""
    return _rest(ground, of_nothing(ground, audited(ground)), "no values")


def by_gradients(ground: Ground, route: GradientRoute) -> int:
    """Plan the rest of an audit whose derivative graphs passed their test; its forward passes in all."""
    return _rest(ground, of_gradients(ground, route, audited(ground)), "gradient")


def _rest(ground: Ground, parts: Sequence[PlannedStage], method: str) -> int:
    ground.meter.plan(parts, _outlook(ground, method, sure=True))
    return ground.meter.passes + round(sum(p.passes for p in parts if p.stage != _SCALING_STAGE))


def of_gradients(ground: Ground, route: GradientRoute, n: int) -> list[PlannedStage]:
    """The rest of an audit of n samples by gradients."""
    each = 1 + min(ground.base[0].size, math.prod(ground.X.shape[1:])) if route.few else _ITERATED
    tied = sum(p in ground.ties for p in ground.clean.audited.tolist()) / max(len(ground.clean.audited), 1)
    return [*_by_gradients(ground, n, each * (1 + _TIED * tied)), *_closing(ground, n)]


def fallen_back(ground: Ground) -> None:
    """Plan the rest of an audit that takes differences, before it knows with which directions."""
    n = len(ground.clean.audited)
    first = _first(ground, n)
    parts = _by_differences(ground, n, first, n * ground.settings.budget - first)
    if ground.brief and ground.step.unchosen is None:
        parts.insert(0, careful_ladder(ground, n))
    ground.meter.plan([*parts, *_closing(ground, n)], _outlook(ground, "sketch", sure=True))


def careful_ladder(ground: Ground, n: int) -> PlannedStage:
    """The step chosen once more, with the care that differences need."""
    return PlannedStage("choosing the step", _ladder(ground, n, brief=False), "differences", unit="passes", again=True)


def by_differences(ground: Ground, plan: DirectionPlan) -> int:
    """Plan the rest of an audit that takes differences along these directions; its forward passes in all."""
    return _rest(ground, of_differences(ground, plan, audited(ground)), "exact" if plan.exact else "sketch")


def of_differences(ground: Ground, plan: DirectionPlan, n: int) -> list[PlannedStage]:
    """The rest of an audit of n samples by differences."""
    settings = ground.settings
    each = plan.first * plan.per_direction + (0 if plan.raw is None else plan.raw.first * plan.raw.per_direction)
    rest = (settings.budget if settings.precision is None else settings.max_budget) - each - 1 if plan.refines else 0
    parts = _by_differences(ground, n, n * each, n * max(rest, 0))
    if not plan.refines:
        parts = [p for p in parts if p.stage != "refining"]
    return [*parts, *_closing(ground, n)]


def of_nothing(ground: Ground, n: int) -> list[PlannedStage]:
    """The rest of an audit of n samples that have no value."""
    parts = [PlannedStage("telling why there is no value")]
    if ground.settings.flip:
        parts.append(PlannedStage("looking for flips", _BLIND_FLIPS * n))
    return [*parts, *_bracketed(ground, n, flips=_BLIND_FLIPS), *_guaranteed(ground, n), *_closing(ground, n)]


def _outlook(context: Context, method: str, *, sure: bool) -> Outlook:
    return Outlook(method, context.provider, audited(context), sure)


def audited(context: Context) -> int:
    """How many samples are audited, as far as that is known."""
    if isinstance(context, Ground):
        return len(context.clean.audited)
    return min(len(context.X), context.settings.samples or len(context.X))


def _ladder(context: Context, n: int, *, brief: bool) -> float:
    """Passes by which the step is chosen; a ladder of dithered points takes a quarter of the audit."""
    budget, file = context.settings.budget, context.subject.file
    if brief:
        return _BRIEF_LADDER
    if file is not None and rounding_operators(file.proto):
        return max(budget * n / 3, _BRIEF_LADDER)
    return min(_LADDER, max(budget * n / 3, _BRIEF_LADDER))


def _deriving(context: Context, *, quick: bool) -> PlannedStage:
    """Deriving the graph and testing it, or, where that will not do, finding out that it does not."""
    file = context.subject.file
    nodes = 0 if file is None else len(file.graph.nodes)
    seconds = _GRAPH_SECONDS + _NODE_SECONDS * nodes
    if quick:
        return PlannedStage("differentiating", seconds=0.05 * seconds)
    return PlannedStage("differentiating", _SELF_TEST, "derivatives", seconds, teaches=False)


def _by_gradients(context: Context, n: int, each: float | None = None) -> list[PlannedStage]:
    settings = context.settings
    outputs = context.subject.info.num_outputs * context.subject.info.positions
    if each is None:
        each = 1 + outputs if outputs <= FEW_CLASSES else _ITERATED
    parts = [
        PlannedStage("measuring by gradients", n * each, "derivatives"),
        PlannedStage("checking against the sketch", _CHECKED, "differences"),
    ]
    if settings.flip:
        parts.append(PlannedStage("looking for flips", n * _FLIPS))
    parts += _bracketed(context, n, slopes=1 + outputs if outputs <= FEW_CLASSES else _AHEAD, flips=_FLIPS)
    parts += _guaranteed(context, n)
    if settings.replay:
        parts.append(PlannedStage("replaying the worst directions", min(n, settings.replay) * _KL_POINTS))
    if settings.attack is not None:
        aims = 2 if 2 < outputs <= FEW_CLASSES else 1
        steps = aims * (_L2_STEPS if settings.attack == "l2" else _LINF_STEPS) + _PGD_STEPS
        right = context.calibration.accuracy if isinstance(context, Ground) else _REACHED
        attacked = (1.0 if right is None else right) * min(n, settings.attack_samples or n)
        parts.append(PlannedStage("attacking", attacked * 2 * steps, "attack", unit="passes"))
    return parts


def _first(context: Context, n: int) -> float:
    """Passes of the first round of differences, before its directions are planned."""
    settings = context.settings
    exact = context.dimension * ROWS_PER_DIRECTION[COORDINATE_SCHEME]
    if settings.method == "exact" or (settings.method == "auto" and exact < settings.budget):
        return n * exact
    return n * settings.budget * 7 / 8


def _by_differences(context: Context, n: int, first: float, refining: float) -> list[PlannedStage]:
    settings, source = context.settings, context.subject.differentiable
    unknown = settings.precision is not None
    parts = [PlannedStage("measuring by differences", first, "differences", unit="passes")]
    if refining > 0:
        parts.append(PlannedStage("refining", refining, "differences", unit="passes", at_most=unknown))
    if source is not None and context.hardware is not None and rounding_operators(source.proto):
        outputs = context.subject.info.num_outputs
        cost = 2 + outputs if outputs <= FEW_CLASSES else _ITERATED
        paid = int(settings.budget * n / 2 // cost)
        if paid:
            passes = min(paid, n, 64 if outputs <= FEW_CLASSES else 12) * cost
            parts.append(
                replace(_deriving(context, quick=False), stage="checking against the surrogate", passes=passes + _SELF_TEST)
            )
    if settings.flip:
        rows = ROWS_PER_DIRECTION[context.step.scheme] if isinstance(context, Ground) else 1
        drawn = n * settings.budget / rows * context.dimension * _DRAWN_SECONDS
        parts.append(PlannedStage("looking for flips", n * _SKETCHED_FLIPS, seconds=drawn, teaches=False))
    return [*parts, *_bracketed(context, n, flips=_SKETCHED_FLIPS), *_guaranteed(context, n)]


def _bracketed(context: Context, n: int, *, slopes: int = 0, flips: int) -> list[PlannedStage]:
    """What puts distances in both norms beside the estimates of n samples, if that is asked for, with so many passes of a sample.

    Bounds of the network around each sample make no pass.
    """
    if not asks_for_brackets(context.settings):
        return []
    from onnxfim.auditing.stages.local_bounds import planned_seconds  # few audits have them

    parts = [PlannedStage("predicting distances", n * slopes, "derivatives" if slopes else "rows")]
    if context.settings.flip:
        parts.append(PlannedStage("looking for flips in L∞", n * flips))
    return [*parts, PlannedStage("bounding around the samples", seconds=planned_seconds(context, n), unit="samples")]


def _guaranteed(context: Context, n: int) -> list[PlannedStage]:
    """What puts guarantees beside the estimates of n samples, each by itself."""
    parts, settings = [], context.settings
    if settings.noise:
        from onnxfim.auditing.stages.noise import rows_expected

        parts.append(PlannedStage("adding noise", n * rows_expected(settings, n), "differences", unit="samples"))
    if settings.smoothing:
        decides = context.reader.has_classes and context.subject.info.positions == 1
        rows = n * len(settings.smoothing) * (CHOOSING + settings.certify_budget) if decides else 0
        drawn = rows * context.dimension * _NOISE_SECONDS
        parts.append(PlannedStage("certifying by smoothing", rows, "differences", drawn, unit="samples", teaches=False))
    return parts


def _verifying(context: Context, n: int) -> list[PlannedStage]:
    """Boxes that a verifier is asked about: few take their whole time, and most samples as many as a bisection has steps."""
    settings = context.settings
    if settings.verifier is None:
        return []
    boxes = min(n, settings.verifier_samples) * _BOXES
    at_a_time = settings.verifier_jobs or usable_cores()
    seconds = boxes * min(settings.verifier_timeout, _BOX_SECONDS) / at_a_time
    return [PlannedStage("asking the verifier", seconds=min(seconds, settings.verifier_budget or seconds), unit="boxes")]


def _closing(context: Context, n: int) -> list[PlannedStage]:
    """What every audit ends with."""
    parts, file = _verifying(context, n), context.subject.file
    right = context.calibration.accuracy if isinstance(context, Ground) else None
    if not context.samples.synthetic and context.samples.labels is not None and (right is None or right < RIGHT):
        parts.append(PlannedStage(_SCALING_STAGE, min(_SCALING, 7 * len(context.X))))
    else:
        parts.append(PlannedStage(_SCALING_STAGE))
    if file is not None and context.settings.bounds:
        from onnxfim.spectral.costs import layer_costs  # once the first line is out

        seconds = _BOUND_SECONDS * len(file.graph.nodes) + _NORM_SECONDS * sum(layer_costs(file.graph).values())
        parts.append(PlannedStage("bounding", seconds=seconds))
    else:
        parts.append(PlannedStage("bounding"))
    return [*parts, PlannedStage("concluding", seconds=0.02 + 0.002 * n)]
