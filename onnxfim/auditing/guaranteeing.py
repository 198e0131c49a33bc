"""Which stages put guarantees beside the estimates of samples, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxfim.auditing.context import Found
from onnxfim.record.settings import Settings

if TYPE_CHECKING:
    from onnxfim.auditing.measuring import Way


def asks_for_brackets(settings: Settings) -> bool:
    """Whether distances in both norms are asked for: predicted ones, flips in L∞, guaranteed ones."""
    return settings.bracket or settings.verifier is not None


def of_each(way: Way) -> list[Callable[[Found], Found]]:
    """The stages that look at each sample by itself, after its flip radius; shards of a plan run them too."""
    ground = way.ground
    later: list[Callable[[Found], Found]] = []
    if asks_for_brackets(ground.settings):
        from onnxfim.auditing.stages import flipping_linf, local_bounds, predicting

        later.append(lambda found: predicting.predict(ground, found, way.derivative.route))
        if way.looks_for_flips:
            later.append(lambda found: flipping_linf.flip(ground, found, way.to_flips(found)))
        later.append(lambda found: local_bounds.bound_locally(ground, found))
    if ground.settings.noise:
        from onnxfim.auditing.stages import noise

        later.append(lambda found: noise.add_noise(ground, found))
    if ground.settings.smoothing:
        from onnxfim.auditing.stages import smoothing

        later.append(lambda found: smoothing.smooth(ground, found))
    return later


def of_all(way: Way) -> list[Callable[[Found], Found]]:
    """The stages that look at the results of all samples, after the attack."""
    ground = way.ground
    stages: list[Callable[[Found], Found]] = []
    if ground.settings.verifier is not None:
        from onnxfim.auditing.stages import verifying

        stages.append(lambda found: verifying.verify(ground, found))
    return stages
