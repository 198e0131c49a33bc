"""How the samples are measured: the way is chosen once, then each sample is measured by itself, then all are looked at together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from onnxfim.auditing import guaranteeing, planning
from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.stages import by_gradients, choosing, crosscheck, flipping, replay, unmeasurable
from onnxfim.errors import ModelError
from onnxfim.record.audit import GradientInfo
from onnxfim.runtime.failures import OutOfMemory

if TYPE_CHECKING:
    from onnxfim.auditing.stages.by_differences import DirectionPlan


#: What a way is called: no values, by gradients, along all coordinates, along random directions.
Kind: TypeAlias = Literal["none", "gradient", "exact", "sketch"]


@dataclass(frozen=True)
class Way:
    """How samples are measured, and the ground on which they are.

    Attributes:
        ground: Its step is chosen with more care where a derivative was expected and there is none.
        derivative: How the derivative was obtained; it has a route where samples are measured by it.
        none: Why no value may be given, or None.
        plan: Along which directions differences are taken; None where they are not, or no step was chosen.
    """

    ground: Ground
    derivative: by_gradients.Derivative
    none: str | None = None
    plan: DirectionPlan | None = None

    def to_flips(self, found: Found) -> flipping.Ways:
        """Where to look for flips of the samples that were found."""
        if self.none is not None:
            return flipping.blind_ways(self.ground)
        if self.derivative.route is not None:
            return by_gradients.ways(self.ground, self.derivative.route)
        from onnxfim.auditing.stages import by_differences

        assert self.plan is not None
        return by_differences.ways(self.ground, self.plan, found)

    @property
    def looks_for_flips(self) -> bool:
        """Whether flips are looked for: not where a row's answer depends on its neighbours."""
        rows = self.ground.rows
        return self.ground.settings.flip and not (self.none is not None and rows is not None and rows.dependent)

    @property
    def kind(self) -> Kind:
        """What it is called."""
        if self.none is not None:
            return "none"
        if self.derivative.route is not None:
            return "gradient"
        return "exact" if self.plan is not None and self.plan.exact else "sketch"


def way_of(ground: Ground) -> Way:
    """By gradients where there is a derivative to trust, else by differences; without values where there can be none.

    Raises:
        ModelError: gradients were asked for and there are none.
    """
    if (reason := unmeasurable.why_unmeasurable(ground)) is not None:
        known = replace(ground, foreseen=planning.without_values(ground))
        return Way(known, by_gradients.Derivative(GradientInfo(False, reason, False, None, None, 0, None)), none=reason)
    derivative = by_gradients.differentiate(ground)
    if derivative.route is None:
        return _by_differences(ground, derivative.info)
    return Way(replace(ground, foreseen=planning.by_gradients(ground, derivative.route)), derivative)


def way_as_planned(ground: Ground, kind: Kind, gradient: GradientInfo) -> Way:
    """The way that another process has chosen, whose ``gradient`` tells how it came to it; its ground is that of the plan.

    Raises:
        ModelError: gradients were planned and are not to be had here.
    """
    if kind == "none":
        return Way(ground, by_gradients.Derivative(gradient), none=gradient.reason)
    if kind != "gradient":
        return _by_differences(ground, gradient)
    derivative = by_gradients.open_derivative(ground)
    if derivative.route is None:
        name = ground.subject.info.name
        raise ModelError(f"{name}: no gradients here ({derivative.info.reason}), as were planned. Plan it with --method sketch.")
    return Way(ground, derivative)


def _by_differences(ground: Ground, gradient: GradientInfo) -> Way:
    from onnxfim.auditing.stages import by_differences  # most audits need gradients alone

    planning.fallen_back(ground)
    ground = choosing.with_care(ground)
    failed = ground.faults.stages
    if gradient.used and failed:  # the derivative was there, and measuring with it failed
        gradient = replace(gradient, used=False, reason=f"{failed[-1].stage} failed unexpectedly ({failed[-1].error})")
    derivative = by_gradients.Derivative(gradient)
    if ground.step.unchosen is not None:
        return Way(ground, derivative)
    plan = by_differences.plan(ground)
    return Way(replace(ground, foreseen=planning.by_differences(ground, plan)), derivative, plan=plan)


def measured(way: Way) -> tuple[Way, Found]:
    """Every sample's own result, in which no other sample has a part, and the way that it was measured in.

    Where gradients fail unexpectedly, that is by differences after all.

    Raises:
        ModelError: gradients failed, where the way is another's plan.
        KeyboardInterrupt, ProviderFailed: nothing was finished yet.
    """
    ground = way.ground
    flips = [lambda found: flipping.flip(ground, found, way.to_flips(found))] if way.looks_for_flips else []
    if way.none is not None:
        return way, unless_interrupted(
            unmeasurable.without_values(ground, way.none), [*flips, *guaranteeing.of_each(way)]
        )  # fmt: skip
    if way.derivative.route is not None:
        return _measured_by_gradients(way)
    from onnxfim.auditing.stages import by_differences, refining

    plan = way.plan
    if plan is None:
        return way, by_differences.without_step(ground, way.derivative.info)
    first = by_differences.first_round(ground, plan, way.derivative.info)
    found = refining.refine(ground, plan, first) if plan.refines and not first.found.interrupted else first.found
    return way, unless_interrupted(found, [*flips, *guaranteeing.of_each(way)])


def _measured_by_gradients(way: Way) -> tuple[Way, Found]:
    ground, derivative, route = way.ground, way.derivative, way.derivative.route
    assert route is not None
    found = None
    try:
        found = by_gradients.measure(ground, derivative, route)
    except OutOfMemory as error:  # nothing was measured: one sample with one seed is too much
        derivative = by_gradients.without_memory(ground, derivative, error)
    if found is None:
        if ground.coupling is not None:
            failed = ground.faults.stages
            why = f"{failed[-1].error}: {failed[-1].message}" if failed else derivative.info.reason
            name = ground.subject.info.name
            raise ModelError(f"{name}: measuring by gradients failed ({why}), as was planned. Plan it with --method sketch.")
        return measured(_by_differences(ground, derivative.info))
    later: list[Callable[[Found], Found]] = []
    if ground.step.unchosen is None:
        later.append(lambda found: crosscheck.cross_check(ground, found))
    if way.looks_for_flips:
        later.append(lambda found: flipping.flip(ground, found, way.to_flips(found)))
    return way, unless_interrupted(found, [*later, *guaranteeing.of_each(way)])


def looked_over(way: Way, found: Found) -> Found:
    """What was found, with what looks at the results of all samples and at the model again: KL curves, attacks, the surrogate."""
    ground, route = way.ground, way.derivative.route
    later: list[Callable[[Found], Found]] = []
    if route is not None:
        if ground.settings.replay:
            later.append(lambda found: replay.replay(ground, route, found))
        if ground.settings.attack is not None:
            from onnxfim.auditing.stages import attack

            later.append(lambda found: attack.attack(ground, route, found))
    elif way.plan is not None:
        from onnxfim.auditing.stages import against_surrogate

        if against_surrogate.has_surrogate(ground):
            later.append(lambda found: against_surrogate.check_surrogate(ground, found))
    return unless_interrupted(found, [*later, *guaranteeing.of_all(way)])


def unless_interrupted(found: Found, stages: Sequence[Callable[[Found], Found]]) -> Found:
    """What was found after these stages; an interrupt or a provider's failure ends them and keeps what was found before."""
    for stage in stages:
        if found.interrupted:
            break
        try:
            found = stage(found)
        except ENDS as end:
            found = found.ended(end)
    return found
