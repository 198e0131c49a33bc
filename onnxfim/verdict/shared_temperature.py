"""Calibrated values of two models at one temperature, that of the first: its error then nearly cancels in their ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.audit import Calibration
from onnxfim.record.statistics import Z95
from onnxfim.verdict.ratio import Column

Array: TypeAlias = np.ndarray[Any, Any]

_TINY = 1e-300


@dataclass(frozen=True)
class AtOneTemperature:
    """The second model's values at the first's temperature, (n,); ``error`` is what it leaves in the mean log-ratio."""

    values: Array
    temperature: float
    error: float


def at_one_temperature(then: Column, now: Column, first: Calibration, second: Calibration) -> AtOneTemperature | None:
    """The second model's values at the first's temperature; None where its audit does not reach that far.

    An audit holds its values at the fitted temperature and at both ends of its 95 % interval. The parabola of the logarithms
    through these three gives them in between: outside it would be a guess.

    Args:
        then, now: The same samples in both, in the same order.
        first, second: How the two were calibrated.
    """
    temperature, own = first.temperature, second.temperature
    if temperature is None or own is None:
        return None
    if math.isclose(temperature, own, rel_tol=1e-9):
        error = abs(_elasticity(now, second, 0.0) - _elasticity(then, first, 0.0)) * (first.log_error or 0.0)
        return AtOneTemperature(now.values, temperature, error)
    if now.shifted is None or not second.log_error:
        return None
    x = math.log(temperature / own) / (Z95 * second.log_error)
    if abs(x) > 1:
        return None
    slope, bend = _parabola(now)
    error = abs(_elasticity(now, second, x) - _elasticity(then, first, 0.0)) * (first.log_error or 0.0)
    return AtOneTemperature(now.values * np.exp(slope * x + bend * x * x), temperature, error)


def temperature_error(column: Column) -> Array:
    """What each labelled sample adds, through the temperature, to the error of the mean logarithm of the values, (N,)."""
    half = Z95 * float(np.linalg.norm(column.influences))
    if column.shifted is None or half == 0:
        return np.zeros(len(column.influences))
    moves = np.log(np.maximum(column.shifted, _TINY) / column.values[:, None]).mean(axis=0)  # (2,), down and up
    further = int(np.abs(moves).argmax())
    return np.asarray(column.influences * moves[further] * (1 if further else -1) / half)


def _parabola(column: Column) -> tuple[Array, Array]:
    """Slope and bend of the logarithms, (n,) each, where the temperature's interval is -1 to 1."""
    assert column.shifted is not None
    down, up = np.log(np.maximum(column.shifted, _TINY) / column.values[:, None]).T
    return (up - down) / 2, (up + down) / 2


def _elasticity(column: Column, calibration: Calibration, x: float) -> float:
    """Derivative of the mean logarithm of the values by the temperature's; 0 where it is not known."""
    if column.shifted is None or not calibration.log_error:
        return 0.0
    slope, bend = _parabola(column)
    return float((slope + 2 * bend * x).mean()) / (Z95 * calibration.log_error)
