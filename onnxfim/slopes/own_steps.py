"""Steps of coordinates whose scale the data do not tell: found by where the slope stays the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxfim.runtime.rows import Coordinates, Forward
from onnxfim.slopes.differences import DifferenceJacobian, Request, Sample
from onnxfim.slopes.dithering import Probe
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

_AGREES = 0.02  # change of a slope between steps that differ by a factor of ten
_FARTHEST = 4  # powers of ten from the guess


def settled_moves(forward: Forward, reader: OutputReader, probe: Probe, moves: Array, guessed: Array) -> Array:
    """Moves (*shape) in which those of the ``guessed`` coordinates are where slopes at two neighbouring powers of ten agree.

    A step that is too long for a coordinate saturates the model or crosses its kinks, one that is too short drowns in rounding:
    the slope then changes with the step, or differs between the two sides. A guess that agrees stays; else the powers nearest to it
    are tried first, and where none agrees the one whose slope changes least is taken.

    Args:
        forward: The model.
        reader: What its outputs are.
        probe: Samples to look at.
        moves: By how much each coordinate would be moved, (*shape).
        guessed: Coordinates to settle, (*shape) bool.
    """
    which = np.flatnonzero(guessed)
    if len(which) == 0:
        return moves
    known: dict[int, tuple[Array, Array]] = {}

    def slopes(power: int, left: Array) -> tuple[Array, Array]:
        """Slopes at the guess times ten to this power, and half the differences of one-sided ones, (left, samples·K·P) each."""
        if power not in known:  # for all that are left, which only become fewer
            found = _slopes(forward, reader, probe, moves * 10.0**power, which[left])
            full = np.zeros((2, len(which), found[0].shape[1]))
            full[:, left] = found
            known[power] = full[0], full[1]
        return known[power][0][left], known[power][1][left]

    best = np.full(len(which), np.inf)
    power = np.zeros(len(which), int)
    for k in _from_the_guess():
        left = np.flatnonzero(best > _AGREES)
        if len(left) == 0:
            break
        change = _change(slopes(k, left), slopes(k - 1, left))
        better = change < best[left]
        best[left[better]], power[left[better]] = change[better], k
    settled = moves.astype(np.float64).ravel().copy()
    settled[which] *= 10.0**power
    return settled.reshape(moves.shape)


def _from_the_guess() -> Sequence[int]:
    """Powers of ten, the nearest to the guess first."""
    return sorted(range(-_FARTHEST, _FARTHEST + 1), key=abs)


def _slopes(forward: Forward, reader: OutputReader, probe: Probe, moves: Array, which: Array) -> tuple[Array, Array]:
    jacobian = DifferenceJacobian(forward, Coordinates(), scheme="central", step=1.0, field=moves, own=True)
    requests = [Request(Sample(k, i), int(c), 1) for c in which for k, i in enumerate(probe.indices)]
    slopes, halves = [], []
    for e in jacobian.ends(probe.X, probe.base, requests):
        base = probe.base[[e.request.sample.position]]
        assert e.ahead is not None
        behind = np.asarray(e.h - e.ahead)
        sides = reader.slopes(e.plus, base, _moved(e.ahead)), reader.slopes(base, e.minus, _moved(behind))
        slopes.append(reader.slopes(e.plus, e.minus, _moved(e.ahead + behind)).ravel())
        halves.append((sides[0] - sides[1]).ravel() / 2)
    slope, half = (np.nan_to_num(np.stack(a), posinf=0.0, neginf=0.0).reshape(len(which), -1) for a in (slopes, halves))
    return slope, half


def _moved(lengths: Array) -> Array:
    """Lengths to divide by; a coordinate that its type's rounding kept in place has no slope."""
    return np.where(lengths == 0, np.inf, lengths)


def _change(here: tuple[Array, Array], below: tuple[Array, Array]) -> Array:
    """Relative change of each coordinate's slopes with the step and between the sides; 1 where no output moves at all."""
    size = np.maximum(np.linalg.norm(here[0], axis=1), np.linalg.norm(below[0], axis=1))
    change = np.hypot(np.linalg.norm(here[0] - below[0], axis=1), np.linalg.norm(here[1], axis=1))
    return np.asarray(np.where(size > 0, change / np.where(size > 0, size, 1.0), 1.0))
