"""What an audit measures with: differences of its model, and the measurer that turns them into results."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.cache import RememberedJacobian
from onnxfim.auditing.context import Ground
from onnxfim.errors import SettingsError
from onnxfim.record.steps import StepChoice
from onnxfim.runtime.rows import Coordinates, Directions, GroupedRademacher, PlacedForward, Rademacher
from onnxfim.slopes.differences import DifferenceJacobian, Differences, Scheme
from onnxfim.slopes.dithering import Probe
from onnxfim.slopes.flips import ValidRange, valid_range
from onnxfim.slopes.measurer import Measurer
from onnxfim.slopes.own_steps import settled_moves
from onnxfim.slopes.rescaling import Rescaling
from onnxfim.slopes.spread import largest_magnitude, root_mean_square
from onnxfim.slopes.step import truncation

Array: TypeAlias = np.ndarray[Any, Any]

#: All coordinates are measured from both sides, whatever serves random directions: the two tell what a slope may be off by.
COORDINATE_SCHEME: Scheme = "central"
_ROUNDINGS = 8  # least move of a coordinate, in units of its type's rounding at the largest input
_LOOKED_AT = 2  # samples, where a coordinate's scale is not told by the data
_LEAST = 3.0  # the same in units of its spread and the root of that rounding: 1e-3 of the spread in float32


#: Why there are no values in the inputs' own units.
_STANDARDISED_ONLY = (
    "features differ in scale, and the budget covers random directions of standardised inputs only: see the value in standard "
    "deviations, or measure all coordinates by --method exact"
)


def coordinate_measurer(ground: Ground, moves: Array) -> Measurer:
    """Turns differences along all coordinates into results; they measure their own error at every sample."""
    grain = grain_of(ground, moves)
    return replace(measurer(ground, exact=True), scheme=COORDINATE_SCHEME, step_error=truncation(ground.step), grain=grain)


def grain_of(ground: Ground, moves: Array) -> float:
    """What rounding leaves of moves of all coordinates (*shape), relative to the inputs' size."""
    if ground.coupling is not None:
        return ground.coupling.grain
    size = root_mean_square(ground.X, ground.clean.audited)
    return _eps(ground.X.dtype) * float(np.linalg.norm(size / moves))


def sketch_measurer(ground: Ground) -> Measurer:
    """Turns differences along random directions into results; in standard deviations alone where features differ in scale."""
    found = measurer(ground, exact=False)
    return found if ground.spread is None else replace(found, unit=ground.scales.pooled, without=_STANDARDISED_ONLY)


def measurer(ground: Ground, *, exact: bool) -> Measurer:
    """Turns ends of steps into results; ``exact`` where the directions are all coordinates."""
    step, calibration, shape = ground.step, ground.calibration, ground.X.shape[1:]
    scale = scale_field(ground.settings.input_scale, shape)
    scales = ground.scales
    return Measurer(
        reader=ground.reader,
        scheme=step.scheme,
        exact=exact,
        gradient=False,
        temperature=calibration.temperature,
        temperature_reason=calibration.reason,
        temperature_error=calibration.log_error or 0.0,
        step_error=0.0,
        rounding=_eps(ground.X.dtype),
        raw=None if scale is None else Rescaling(_flat(scale, shape)),
        standardised=Rescaling(_flat(scales.deviation, shape)) if scales.deviation.any() else None,
        features=scales.features_of(shape),
        bias=step.bias if step.scheme == "dithered" and step.bias is not None and step.bias.applied else None,
    )


def _flat(units: Array, shape: tuple[int, ...]) -> Array:
    """Units by coordinate, (d,); one where all are equal."""
    return units.ravel() if units.size == 1 else np.broadcast_to(units, shape).ravel()


def differences(ground: Ground, directions: Directions, step: StepChoice) -> Differences:
    """Differences of the model along these random directions, from the cache where it holds them.

    Where features differ in scale the directions are those of standardised inputs, in units of the pooled deviation.
    """
    seed, limits = ground.settings.seed, ground.subject.limits
    alike = directions == Rademacher(seed)  # those of the ladder, which moves inputs in the same way
    jacobian = DifferenceJacobian(
        ground.placed, directions, scheme=step.scheme, step=step.step, seed=seed, dither=step.dither or 0.0, limits=limits,
        field=ground.scales.random, known=ground.ladder.of(step.scheme, step.step, step.dither) if alike else None,
    )  # fmt: skip
    own = () if ground.spread is None else (ground.scales.identity,)
    return _remembered(ground, jacobian, (step.scheme, step.step, step.dither, limits, *own))


def grouped_differences(ground: Ground, step: StepChoice) -> tuple[Differences, int]:
    """Differences along random directions in the inputs' own units, group by group of like scale, and how many groups there are."""
    shape = ground.X.shape[1:]
    groups, lengths = ground.scales.groups(shape)
    lengths = lengths / ground.scales.pooled
    jacobian = DifferenceJacobian(
        ground.placed, GroupedRademacher(ground.settings.seed, groups), scheme=step.scheme, step=step.step,
        seed=ground.settings.seed, dither=step.dither or 0.0, limits=ground.subject.limits,
        field=lengths[groups].reshape(shape), lengths=lengths,
    )  # fmt: skip
    how = (step.scheme, step.step, step.dither, ground.subject.limits, ground.scales.identity)
    return _remembered(ground, jacobian, how), len(lengths)


def coordinate_moves(ground: Ground) -> Array:
    """By how much each coordinate is moved where all are, (*shape).

    One coordinate is moved as far as a direction of the ladder in all, in units of its own spread: noise and curvature are then
    those measured there. None is moved by less than `_LEAST` (the ladder looks at outputs, and sums inside the model round too),
    nor by less than its type tells apart at the largest of the inputs.
    """
    if ground.coupling is not None and ground.coupling.moves is not None:
        return ground.coupling.moves
    X, field, step = ground.X, ground.scales.field, ground.step
    amplitude = step.step
    if not step.given:
        amplitude = max(step.step * math.sqrt(ground.dimension), _LEAST * math.sqrt(_eps(X.dtype)) * step.input_std)
    size = largest_magnitude(X, ground.clean.audited)
    moves = np.maximum(amplitude * (1.0 if field is None else field), _ROUNDINGS * _eps(X.dtype) * size)
    if ground.scales.guessed is not None and not step.given:
        some = [ground.sample(int(i)) for i in ground.clean.audited if ground.index(int(i)) in step.samples][:_LOOKED_AT]
        at = [s.position for s in some]
        probe = Probe(X[at], ground.base[at], tuple(s.index for s in some))
        guessed = np.broadcast_to(ground.scales.guessed, moves.shape)
        moves = settled_moves(PlacedForward(ground.forward, np.array(at, int)), ground.reader, probe, moves, guessed)
    # What rows are made with, so that any runtime makes the same.
    return np.asarray(moves if X.dtype == np.float64 else moves.astype(np.float32).astype(np.float64))


def coordinate_differences(ground: Ground, moves: Array) -> Differences:
    """Differences along all coordinates, each moved by its own length (*shape)."""
    jacobian = DifferenceJacobian(
        ground.placed, Coordinates(), scheme=COORDINATE_SCHEME, step=1.0, seed=ground.settings.seed, field=moves, own=True
    )
    digest = hashlib.sha256(np.ascontiguousarray(moves).tobytes()).hexdigest()[:16]
    return _remembered(ground, jacobian, (COORDINATE_SCHEME, digest))


def _eps(dtype: np.dtype[Any]) -> float:
    """Rounding of a type of numbers, relative."""
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def _remembered(ground: Ground, jacobian: DifferenceJacobian, how: tuple[object, ...]) -> Differences:
    stream = (type(jacobian.directions).__name__, ground.settings.seed)
    store = ground.store(outputs=True, directions=stream, differences=how)
    if store is None:
        return jacobian
    return RememberedJacobian(jacobian, store, ground.meter, ground.memory.keys(ground.X, ground.samples.held))


def allowed_inputs(ground: Ground) -> ValidRange:
    """The valid range of the audit's inputs."""
    if ground.coupling is not None:
        return ground.coupling.box
    return valid_range(ground.X, ground.settings.attack_range, ground.subject.limits)


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


def raw_units(ground: Ground) -> Array:
    """How many model input units one raw unit is, by coordinate, (d,); 1 where the two are one, or it is not known."""
    field = scale_field(ground.settings.input_scale, ground.X.shape[1:])
    return np.ones(ground.dimension) if field is None else field.ravel().astype(np.float64)
