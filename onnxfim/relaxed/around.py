"""Bounds of a network over a ball around one sample: intervals forwards, linear relaxation backwards.

Source: Zhang et al. (2018), NeurIPS (CROWN); Singh et al. (2019), POPL (DeepPoly); Xu et al. (2020), NeurIPS, for graphs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.relaxed.curves import ROUNDING
from onnxfim.relaxed.maps import unit_rows
from onnxfim.relaxed.network import StepNetwork
from onnxfim.relaxed.relaxed_steps import SINGLE, Affine, AffineInside, Box, Local, RowNumbers, Step

Array: TypeAlias = np.ndarray[Any, Any]
Norm: TypeAlias = Literal["l2", "linf"]

_ROOM = 1 + 2.0**-30  # of sums of what rounding takes: all of one sign, so that they are off by less
_WORK = 1 << 23  # numbers of the rows that go backwards together


@dataclass(frozen=True)
class NormBall:
    """``‖(x' − x) / scale‖ ≤ ε``.

    Attributes:
        norm: The norm.
        scale: d(model input)/d(unit of ε), (n,), without negative entries.
    """

    norm: Norm
    scale: Array

    def length(self, move: Array) -> float:
        """Length of a move (n,), in units of ε, of the entries that can move."""
        units = np.divide(move, self.scale, out=np.zeros_like(move), where=self.scale > 0)
        return float(np.abs(units).max(initial=0.0) if self.norm == "linf" else np.linalg.norm(units))

    def dual(self, rows: Array) -> Array:
        """Least length that is above ``max Λ(x' − x)`` over the ball of radius 1, (R,)."""
        moved = np.abs(rows).astype(np.float64) * self.scale
        room = 1 + (rows.shape[1] + 8) * ROUNDING
        if self.norm == "linf":
            return np.asarray(moved.sum(axis=1) * room)
        return np.asarray(np.sqrt(np.einsum("rn,rn->r", moved, moved)) * room)


@dataclass(frozen=True)
class Lowest:
    """Lower bounds of linear functions of values over balls around a sample, (R,) each.

    The bound at a radius is ``middle − lost − radius·length``. It holds up to the radius of the bounds that it was made from.
    """

    middle: Array
    length: Array
    lost: Array

    def at(self, radius: float) -> Array:
        """Bounds at a radius."""
        moved = radius * self.length
        return np.asarray(self.middle - moved - self.lost - 4 * ROUNDING * (np.abs(self.middle) + moved))

    def reaches(self) -> float:
        """The radius up to which all bounds are above 0; not above 0 itself where one of them is not so at the sample itself."""
        spare = self.middle - self.lost - 4 * ROUNDING * np.abs(self.middle)
        if not np.isfinite(spare).all():
            return -math.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            reached = np.where(spare > 0, 1 - 16 * ROUNDING, 1.0) * (spare / self.length)
        return float(np.where(np.isnan(reached), -np.inf, reached).min(initial=math.inf))


@dataclass(frozen=True)
class EntryRows:
    """Rows that pick one entry each."""

    which: Array


@dataclass
class Around:
    """A network over the ball of one radius around a sample.

    Attributes:
        network: The network.
        ball: The ball.
        x: The sample, (n,) in float64.
        radius: Of the ball.
        lengths: Of values that are linear in the input, `NormBall.dual` of each entry, the same at every sample and radius.
        check: Called between parts of the work; it may raise what ends it.
        rows: Numbers of the rows that go backwards.
    """

    network: StepNetwork
    ball: NormBall
    x: Array
    radius: float
    lengths: dict[str, Array]
    check: Callable[[], object] = lambda: None
    rows: RowNumbers = SINGLE
    boxes: dict[str, Box] = field(default_factory=dict)
    inside: dict[str, Local] = field(default_factory=dict)
    #: Of values that are linear in the input: the value at the sample, and what rounding may take from it.
    middles: dict[str, tuple[Array, Array]] = field(default_factory=dict)

    def spread(self) -> bool:
        """Find what all values lie in; False where some have no finite bounds."""
        net = self.network
        reach = self.radius * self.ball.scale * (1 + 4 * ROUNDING)
        room = 4 * ROUNDING * (np.abs(self.x) + reach)
        self.boxes[net.source] = Box(self.x - reach - room, self.x + reach + room)
        self.middles[net.source] = (self.x, np.zeros_like(self.x))
        straight = net.straight
        refined = {net.source: np.ones(net.size, bool)}
        for step in net.steps:
            if not isinstance(step, Affine):
                wanted = step.wants([self.boxes[s] for s in step.sources])
                for source, which in zip(step.sources, wanted, strict=True):
                    done = refined.setdefault(source, np.zeros(len(which), bool))
                    left = which & ~done
                    if left.any() and not self._refine(source, left, straight=source in straight):
                        return False
                    refined[source] = done | left
            boxes = [self.boxes[s] for s in step.sources]
            local = step.inside(boxes, self.rows)
            self.inside[step.name], box = local, local.box
            if isinstance(step, Affine) and isinstance(local, AffineInside) and step.name in straight:
                self._middle(step, local.forwards)
            if not box.finite:
                return False
            self.boxes[step.name] = box
            self.check()
        return True

    def _middle(self, step: Affine, forwards: Array) -> None:
        """The value of a step that is linear in the input, at the sample, with what rounding may take from it in the ball."""
        middle, lost = step.bias, forwards
        for source, part in step.parts:
            at, before = self.middles[source]
            middle = middle + part.push(at)
            lost = lost + part.push_abs(before) * _ROOM
        self.middles[step.name] = (middle, lost)

    def _refine(self, name: str, which: Array, *, straight: bool) -> bool:
        """Narrow the intervals of these entries of a value."""
        box = self.boxes[name]
        low, high = box.low.copy(), box.high.copy()
        if straight:
            length, (middle, lost) = self._length(name), self.middles[name]
            found = Lowest(middle, length, lost * _ROOM), Lowest(-middle, length, lost * _ROOM)
            low, high = np.maximum(low, found[0].at(self.radius)), np.minimum(high, -found[1].at(self.radius))
        else:
            places = np.flatnonzero(which)
            for part in np.array_split(places, max(1, -(-2 * len(places) * self._width(name) // _WORK))):
                lower = self.lowest({name: EntryRows(part)}, np.zeros(len(part)), both=True).at(self.radius)
                low[part] = np.maximum(low[part], lower[: len(part)])
                high[part] = np.minimum(high[part], -lower[len(part) :])
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return False
        self.boxes[name] = Box(np.minimum(low, high), np.maximum(low, high))
        return True

    def _length(self, name: str) -> Array:
        """`NormBall.dual` of each entry of a value that is linear in the input."""
        if name not in self.lengths:
            size = len(self.boxes[name].low)
            parts = np.array_split(np.arange(size), max(1, -(-size * self._width(name) // _WORK)))
            self.lengths[name] = np.concatenate([
                self.lowest({name: EntryRows(part)}, np.zeros(len(part)), both=False).length for part in parts
            ])  # fmt: skip
        return self.lengths[name]

    def _width(self, name: str) -> int:
        """Numbers that one row takes on its way back at most."""
        return max(self.network.widest, *(step.work for step in self.network.steps if isinstance(step, Affine)))

    def lowest(self, rows: dict[str, Array | EntryRows], constants: Array, *, both: bool = False) -> Lowest:
        """Lower bounds of ``Σ rows·value + constants`` over the ball.

        Args:
            rows: By value: coefficients (R, n), or the entries that are meant.
            constants: (R,).
            both: Also those of the negatives, behind them.
        """
        net, pending = self.network, dict(rows)
        constant, lost = constants.astype(np.float64), np.zeros(len(constants))
        for step in reversed(net.steps):
            if step.name not in pending:
                continue
            local = self.inside[step.name]
            if both and not isinstance(step, Affine):
                pending = {k: _doubled(self._dense(k, v)) for k, v in pending.items()}
                constant, lost, both = np.concatenate([constant, -constant]), np.concatenate([lost, lost]), False
            own = pending.pop(step.name)
            if isinstance(own, EntryRows) and isinstance(step, Affine):
                parts: Sequence[Array | EntryRows] = [
                    own if part.cost == 0 else part.rows(own.which, self.rows.kind) for _, part in step.parts
                ]  # fmt: skip
                moved, slack = step.bias[own.which], local.slack[own.which]
            else:
                dense = self._dense(step.name, own)
                parts, moved = local.pull(dense)
                slack = (np.abs(dense) @ local.slack) * (1 + (dense.shape[1] + 8) * 1.01 * self.rows.unit)
            constant = constant + moved
            lost = lost + slack + 2 * ROUNDING * np.abs(constant) + self._lost_below(step)
            for source, part in zip(step.sources, parts, strict=True):
                if source not in pending:
                    pending[source] = part
                    continue
                total = self._dense(source, pending[source]) + self._dense(source, part)
                size = self.rows.above(self.boxes[source].size)
                lost = lost + 2 * self.rows.unit * (np.abs(total) @ size) * (1 + (len(size) + 8) * 1.01 * self.rows.unit)
                pending[source] = total
            self.check()
        last = self._dense(net.source, pending.get(net.source, np.zeros((len(constant), net.size)))).astype(np.float64)
        middle = constant + last @ self.x
        lost = lost + (net.size + 8) * ROUNDING * (np.abs(last) @ np.abs(self.x)) + 4 * ROUNDING * np.abs(constant)
        length = self.ball.dual(last)
        if both:
            middle, length, lost = (np.concatenate(p) for p in ((middle, -middle), (length, length), (lost, lost)))
        return Lowest(middle, length, lost * _ROOM + 1e-290)

    def _dense(self, name: str, rows: Array | EntryRows) -> Array:
        if not isinstance(rows, EntryRows):
            return rows
        return unit_rows(rows.which, len(self.boxes[name].low), self.rows.kind)

    def _lost_below(self, step: Step) -> float:
        """What coefficients lose of a row that are too small for their type: no more than it for each of up to 2²⁰ products."""
        least = float(np.finfo(self.rows.kind).tiny) * 2.0**20
        return least * sum(float(self.boxes[s].size.sum()) + 1.0 for s in step.sources)


def _doubled(rows: Array) -> Array:
    return np.concatenate([rows, -rows])
