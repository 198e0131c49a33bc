"""Measures in other units of the inputs: raw units before a normalisation, or standard deviations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.sample import Estimate
from onnxfim.slopes.estimators import lambda_max_exact

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rescaling:
    """Units s of the coordinates: ``F' = S F S`` with ``S = diag(s)`` is the Fisher information per squared such unit.

    Attributes:
        field: Units of the coordinates in model input units, not negative, (d,) or, where all are equal, (1,).
    """

    field: Array

    @property
    def even(self) -> bool:
        """Whether all units are equal, so that values are only multiplied."""
        return bool(self.field.min() == self.field.max())

    def exact(self, of: Estimate, Y: Array, error: float) -> Estimate:
        """lambda_max(S F S) from scores along all coordinates (d, K); ``of`` is the one of F, ``error`` bounds that of ``S Y``."""
        return lambda_max_exact(Y * self.field[:, None], error=error, evaluations=of.evaluations, method=of.method)

    def bracketed(self, of: Estimate) -> Estimate | None:
        """The same from lambda_max(F) alone: ``s²_min λ ≤ λ' ≤ s²_max λ``, exact where the units are equal.

        None where the bracket holds nothing: no value, or no unit at all.
        """
        if of.value is None or not self.field.any():
            return None
        squares = self.field**2
        least, mean, most = float(squares.min()), float(squares.mean()), float(squares.max())
        return replace(
            of,
            value=of.value * mean,
            low=None if of.low is None else of.low * least,
            high=None if of.high is None else of.high * most,
            plain=None if of.plain is None else of.plain * mean,
            cross_fit=None if of.cross_fit is None else of.cross_fit * mean,
            kind=of.kind if self.even else "estimate",
        )


def times(estimate: Estimate, factor: float) -> Estimate:
    """An estimate in units in which it is so many times as large."""
    numbers = {name: getattr(estimate, name) for name in ("value", "low", "high", "plain", "cross_fit")}
    return replace(estimate, **{name: v * factor for name, v in numbers.items() if v is not None})
