"""The flip radius in L∞: how far a sample must move along the signs of its Fisher direction, or of the nearest boundary's slope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.final_results import FinalFlips
from onnxfim.auditing.instruments import allowed_inputs, raw_units
from onnxfim.auditing.stages import stage
from onnxfim.auditing.stages.flipping import FlipSearch, OtherUnits, Ways, without_radii
from onnxfim.record.sample import SampleResult
from onnxfim.slopes.flips import Flips
from onnxfim.slopes.lengths import LargestCoordinate

Array: TypeAlias = np.ndarray[Any, Any]

_SPREAD = math.sqrt(math.pi / 2)  # L∞ over L2 length of the way to a boundary, times √d, where slopes are normal numbers


@stage("looking for flips in L∞", instead=lambda ground, reason, found, ways: without_radii(found, _SignSearch.measure, reason))
def flip(ground: Ground, found: Found, ways: Ways) -> Found:
    """The L∞ flip radius of all samples that have a prediction, in raw units; one of `ENDS` keeps those that were finished."""
    search = _SignSearch(ground, ways, allowed_inputs(ground), OtherUnits(None, None), raw_units(ground))
    finals = FinalFlips(ground, found, search.expected, lambda: search.identity)
    return search.of_all(found, finals, frozenset())


@dataclass(frozen=True)
class _SignSearch(FlipSearch):
    """Looks for flips with moves whose length is L∞; ``unit`` tells how many model input units one raw unit is, (d,)."""

    measure: ClassVar[str] = "flip_radius_linf"

    unit: Array

    @property
    def identity(self) -> tuple[object, ...]:
        """What a flip depends on beside its sample and the sample's own result."""
        return (*super().identity, "linf", self.unit)

    @property
    def told(self) -> str:
        """What is said while it is done."""
        return "looking for flips in L∞"

    @property
    def length(self) -> LargestCoordinate:
        """What the length of a move is."""
        return LargestCoordinate(self.unit)

    def expected(self, result: SampleResult) -> float:
        """At which length a sample is expected to flip; 0 where it is not known."""
        near = next((d.first_order for d in result.predicted if d.norm == "linf" and d.first_order), None)
        if near is not None:
            return near
        typical = float(np.median(self.unit[self.unit > 0])) if (self.unit > 0).any() else 1.0
        return super().expected(result) * _SPREAD / (math.sqrt(self.ground.dimension) * typical)

    def _along(self, directions: Array) -> Array:
        return self.length.ray(directions)

    def _called(self, name: str) -> str:
        return f"the signs of {name}"

    def _wide(self, signs: Array) -> Array:
        return self.length.ray(signs)

    def _towards_others(self, positions: Any, results: Any) -> tuple[Array, str]:
        ways, name = super()._towards_others(positions, results)
        return np.where(self.unit > 0, ways, 0.0), name

    def _lengths(self, found: Flips, k: int) -> None:
        """No other lengths are told of it."""
