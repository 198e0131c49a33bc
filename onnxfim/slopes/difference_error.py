"""What central differences along all coordinates may be off by at one sample, as it was measured there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class DifferenceError:
    """What central differences along all coordinates may be off by, in slopes or in scores.

    A kink between the two ends of a step moves the central difference by the half difference of the two one-sided ones, to one
    side or the other; curvature and rounding make that half difference too, and are no larger in the central difference itself.
    So the errors of all rows are ``σ_i E_i`` with ``|σ_i| ≤ 1``, and their spectral norm is at most that of E.

    Attributes:
        half: Half the difference of the one-sided slopes, E, (d, K).
        floor: Rounding of the outputs, and of sums inside the model, that may leave no trace in E, along each coordinate, (d,).
    """

    half: Array
    floor: Array

    def norm(self, units: Array | float = 1.0) -> float:
        """Bound of the errors' spectral norm; ``units`` (d,) of the coordinates."""
        return math.hypot(_norm(self.half * (units[:, None] if isinstance(units, np.ndarray) else units), 2), self._rounding(units))

    def frobenius(self) -> float:
        """Bound of the errors' Frobenius norm."""
        return math.hypot(_norm(self.half), _norm(self.floor))

    def distance(self, gaps: Array, norms: Array, c: int) -> tuple[float, float | None]:
        """Ends of the smallest of ``gaps / norms`` over the classes j ≠ c, where ``norms`` are those of ``∇(z_c − z_j)``, (K,).

        There is no upper end where no class surely has a slope.
        """
        errors = np.hypot(np.linalg.norm(self.half[:, c, None] - self.half, axis=0), self._rounding(1.0))  # (K,)
        others = np.arange(len(gaps)) != c
        with np.errstate(divide="ignore", invalid="ignore"):
            low = float(np.nanmin((gaps / (norms + errors))[others]))
            high = float(np.nanmin(np.where(norms > errors, gaps / (norms - errors), np.inf)[others]))
        return low, high if math.isfinite(high) else None

    def _rounding(self, units: Array | float) -> float:
        """Independent rounding in all rows moves the largest singular value by about that of one, whichever carries it."""
        return 2.0 * float(np.max(self.floor * units, initial=0.0))


def _norm(values: Array, order: int | None = None) -> float:
    """Spectral norm of a matrix (order 2), or the length of all entries, without under- or overflow."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    scaled = values / largest
    return float(np.linalg.norm(scaled, order) if order else np.linalg.norm(scaled)) * largest
