"""What an audit measures with: differences of its model, and the measurer that turns them into results."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.cache import RememberedJacobian
from onnxfim.auditing.context import Ground
from onnxfim.errors import SettingsError
from onnxfim.record.audit import StepChoice
from onnxfim.runtime.rows import Directions
from onnxfim.slopes.differences import DifferenceJacobian, Differences
from onnxfim.slopes.measurer import Measurer

Array: TypeAlias = np.ndarray[Any, Any]


def measurer(ground: Ground, *, exact: bool) -> Measurer:
    """Turns ends of steps into results; ``exact`` where the directions are all coordinates."""
    step, calibration = ground.step, ground.calibration
    scale = scale_field(ground.settings.input_scale, ground.X.shape[1:])
    scales = None if scale is None else (float(scale.min()), float(np.sqrt(np.mean(scale**2))), float(scale.max()))
    # The even part's share of the Gram matrix bounds the forward sketch's bias; its root that of all coordinates, where it is
    # linear and not odd. The share is a mean over six samples and a kink near another one weighs more: three times the root
    # covers 91 to 100 % of the sample models' exact values, once the root 75 %.
    error = 3 * math.sqrt(step.error) if step.scheme == "forward" and step.error else (step.error or 0.0)
    return Measurer(
        reader=ground.reader,
        scheme=step.scheme,
        exact=exact,
        gradient=False,
        temperature=calibration.temperature,
        temperature_reason=calibration.reason,
        step_error=max(min(error, 1.0), 1e-4),
        scales=scales,
        scale_field=None if scale is None else scale.ravel(),
        bias=step.bias if step.scheme == "dithered" and step.bias is not None and step.bias.applied else None,
    )


def differences(ground: Ground, directions: Directions, step: StepChoice) -> Differences:
    """Differences of the model along these directions, from the cache where it holds them."""
    seed, limits = ground.settings.seed, ground.subject.limits
    jacobian = DifferenceJacobian(
        ground.forward, directions, scheme=step.scheme, step=step.step, seed=seed, dither=step.dither or 0.0, limits=limits
    )
    stream = (type(directions).__name__, seed)
    store = ground.store(directions=stream, differences=(step.scheme, step.step, step.dither, limits))
    return jacobian if store is None else RememberedJacobian(jacobian, store, ground.meter)


def scale_field(scale: tuple[float, ...] | None, shape: tuple[int, ...]) -> Array | None:
    """d(model input)/d(raw input) per coordinate (*shape), from one number, one per channel or coordinate; None if all are 1."""
    if scale is None or all(s == 1 for s in scale):
        return None
    a = np.abs(np.asarray(scale, np.float64))
    if a.size == 1:
        return np.full(shape, float(a[0]))
    if a.size == int(np.prod(shape)):
        return a.reshape(shape)
    if a.size not in (shape[0], shape[-1]):
        raise SettingsError(
            f"input_scale: {a.size} numbers, but samples have shape {shape}. Give one, or one for each channel or coordinate."
        )
    axis = 0 if shape[0] == a.size else len(shape) - 1
    return np.broadcast_to(a.reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape).copy()
