"""Which stages put guarantees beside the estimates of samples, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxfim.auditing.context import Found

if TYPE_CHECKING:
    from onnxfim.auditing.measuring import Way


def of_each(way: Way) -> list[Callable[[Found], Found]]:
    """The stages that look at each sample by itself, after its flip radius; shards of a plan run them too."""
    later: list[Callable[[Found], Found]] = []
    settings = way.ground.settings
    if settings.bracket or settings.verifier is not None:
        from onnxfim.auditing.stages import local_bounds

        later.append(lambda found: local_bounds.bound_locally(way.ground, found))
    return later


def of_all(way: Way) -> list[Callable[[Found], Found]]:
    """The stages that look at the results of all samples, after the attack."""
    ground = way.ground
    stages: list[Callable[[Found], Found]] = []
    if ground.settings.verifier is not None:
        from onnxfim.auditing.stages import verifying

        stages.append(lambda found: verifying.verify(ground, found))
    return stages
