"""Finite differences: the outputs of a block of samples along directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from onnxfim.errors import OnnxFimError
from onnxfim.record import streams
from onnxfim.runtime.rows import Coordinates, Directions, Forward, Rademacher, Rows, Signs, dither_noise, joined_directions

Array: TypeAlias = np.ndarray[Any, Any]
#: Of an output, or a slope: slopes of larger ones have squares that float64 does not hold.
LARGEST = 1e140
Scheme: TypeAlias = Literal["forward", "central", "dithered"]

#: Forward passes per direction of each scheme (the base point is shared by all forward differences of a sample).
ROWS_PER_DIRECTION: dict[Scheme, int] = {"forward": 1, "central": 2, "dithered": 4}


_AHEAD = 2**18  # bytes of directions, and of dither, that are drawn at once
_LEAST_CUT = 8  # directions of a request that was cut short, for them to tell anything


@dataclass(frozen=True)
class Sample:
    """One sample: where it lies, and whose it is.

    Attributes:
        position: Its row among the inputs.
        index: Its position in the data as given; names its random streams, so that skipping others changes nothing.
        name: What the data calls it.
        label: Its class, or None.
    """

    position: int
    index: int
    name: str = ""
    label: int | None = None


@dataclass(frozen=True)
class Request:
    """Directions ``start … start+count`` of a sample."""

    sample: Sample
    start: int
    count: int


@dataclass(frozen=True)
class Ends:
    """Outputs at the two ends of each step.

    Attributes:
        request: What this answers.
        plus, minus: (m, K, P); for forward differences ``minus`` is the base point's output, (1, K, P).
        h: Distance between the ends along the direction; (m, 1, 1) where each direction has its own.
        twin: The same at a second, independently dithered point (dithered scheme only).
        ahead: The part of ``h`` that lies ahead of the sample, (m, 1, 1), where both parts were measured apart.
    """

    request: Request
    plus: Array
    minus: Array
    h: float | Array
    twin: Ends | None = None
    ahead: Array | None = None


class Differences(Protocol):
    """Where the audit gets its ends from: measured, or remembered."""

    @property
    def scheme(self) -> Scheme:
        """How the ends are made."""

    def ends(self, X: Array, base: Array, requests: Sequence[Request]) -> Iterator[Ends]:
        """Outputs along the requested directions, one result per request, in order."""


class _Ahead:
    """Draws of a request, many at once: setting up its stream costs more than drawing a direction of a few thousand coordinates.

    Args:
        draw: Draws ``start … start + count`` of a request, counted from its own start.
        size: Bytes of a draw.
    """

    def __init__(self, draw: Callable[[Request, int, int], Array | Signs], size: int) -> None:
        self._draw, self._most = draw, max(1, _AHEAD // max(size, 1))
        self._of: tuple[Request | None, int, int] = None, 0, 0
        self._block: Array | Signs = np.empty(0)

    def drawn(self, request: Request, start: int, count: int) -> Array | Signs:
        """The draws ``start … start + count`` of a request."""
        of, first, after = self._of
        if of is not request or start < first or start + count > after:
            first, after = start, min(start + max(count, self._most), request.count)
            self._block, self._of = self._draw(request, first, after - first), (request, first, after)
        part = start - first, start - first + count
        return self._block.stretch(*part) if isinstance(self._block, Signs) else self._block[slice(*part)]


class DifferenceJacobian:
    """Finite differences of a forward-only model along random or coordinate directions.

    Args:
        forward: The model.
        directions: Where directions come from.
        scheme: ``forward``, ``central``, or ``dithered`` (two central differences around independently dithered points).
        step: Amplitude per coordinate r, in input units.
        field: By how much each coordinate is moved for a step of 1, broadcastable to a sample; None where by 1. Slopes are
            taken per unit of the step: along ``field·v``.
        lengths: Where directions take turns, by what a step of 1 along each of them moves, (G,): slopes are taken per unit of that.
        own: Each direction moves one coordinate (`Coordinates`), and its slope is per unit of that: what the coordinate was
            moved by after rounding to the inputs' type divides the outputs' difference.
        seed: Seed of the dither.
        dither: Amplitude of the dither, in input units.
        limits: Range outside which the model clips its input. Points nearer to an end than a step are then moved inside by the
            step, so that no step ends where the model cannot see it (dithered scheme only: it needs no output at the base point).
        known: By a sample's index its outputs along the first directions, (rows, K, P), measured already in just this way: they are
            not measured again.
    """

    def __init__(
        self,
        forward: Forward,
        directions: Directions,
        *,
        scheme: Scheme,
        step: float,
        seed: int = 0,
        dither: float = 0.0,
        limits: tuple[float, float] | None = None,
        field: Array | None = None,
        lengths: Array | None = None,
        own: bool = False,
        known: Mapping[int, Array] | None = None,
    ) -> None:
        self._known = known or {}
        self.forward, self.directions = forward, directions
        self.scheme, self.step, self.seed, self.dither = scheme, step, seed, dither
        self.field, self.lengths, self.own = field, lengths, own
        self._inside: tuple[Any, Any] | None = None
        if limits is not None and scheme == "dithered":
            # A range narrower than two steps has room for its middle only.
            reach = np.minimum((step + dither) * (1.0 if field is None else field), (limits[1] - limits[0]) / 2)
            self._inside = (limits[0] + reach, limits[1] - reach)

    def ends(self, X: Array, base: Array, requests: Sequence[Request]) -> Iterator[Ends]:
        """Outputs along the requested directions, one result per request, in order.

        Where the model's answers end early, by an interrupt or an error, the request that was under way is answered with the random
        directions that were evaluated, if these are eight or more; its ``count`` says how many. The error comes after it.

        Args:
            X: Samples, (N, *shape).
            base: Their outputs, (N, K, P).
            requests: What to evaluate; rows of several requests share a batch.
        """
        per_direction = ROWS_PER_DIRECTION[self.scheme]
        d = int(np.prod(X.shape[1:]))
        waiting = iter([r for r in requests if r.count])
        current = next(waiting, None)
        held = [] if current is None else [*self.known(current)]
        answers = self.forward.stream(X, self._rows(requests, d))
        while True:
            held_rows = sum(map(len, held))
            while current is not None and held_rows >= (cut := current.count * per_direction):
                rows = held[0] if len(held) == 1 else np.concatenate(held)
                position = current.sample.position
                yield self.pair(current, rows[:cut], base[position], X[position])
                current = next(waiting, None)
                held = [*([] if current is None else self.known(current)), rows[cut:]]
                held_rows = sum(map(len, held))
            try:
                z = next(answers, None)
            except (KeyboardInterrupt, OnnxFimError):
                if current is not None and (part := self._begun(current, held_rows // per_direction)) is not None:
                    position, rows = part.sample.position, np.concatenate(held)[: part.count * per_direction]
                    yield self.pair(part, rows, base[position], X[position])
                raise
            if z is None:
                return
            held.append(z)

    def known(self, request: Request) -> tuple[Array, ...]:
        """Outputs that are known of the first directions of a request, (rows, K, P); nothing where none are."""
        per_direction = ROWS_PER_DIRECTION[self.scheme]
        rows = self._known.get(request.sample.index, np.empty(0))
        rows = rows[request.start * per_direction : (request.start + request.count) * per_direction]
        return (rows,) if len(rows) else ()

    def _begun(self, request: Request, directions: int) -> Request | None:
        """The part of a request that so many directions answer; None where that tells nothing: of coordinates, or of too few."""
        turns = 1 if self.lengths is None else len(self.lengths)
        count = directions // turns * turns
        whole = isinstance(self.directions, Coordinates)
        return None if whole or count < _LEAST_CUT * turns else replace(request, count=count)

    def pair(self, request: Request, rows: Array, base: Array, x: Array) -> Ends:
        """Order the rows of one request, (rows, K, P), into ends of steps; ``base`` is the output of the sample x, (K, P)."""
        ahead = self._moved(request, x, self.step) if self.own else None
        step: float | Array = self.step
        if self.lengths is not None:
            turn = np.arange(request.start, request.start + request.count) % len(self.lengths)
            step = self.step * self.lengths[turn][:, None, None]
        if self.scheme == "forward":
            return Ends(request, rows, base[None], step if ahead is None else ahead)
        rows = rows.reshape(request.count, -1, *rows.shape[1:])  # (m, 2 or 4, K, P)
        if ahead is not None:
            behind = -self._moved(request, x, -self.step)
            return Ends(request, rows[:, 0], rows[:, 1], ahead + behind, ahead=ahead)
        twin = Ends(request, rows[:, 2], rows[:, 3], 2 * step) if self.scheme == "dithered" else None
        return Ends(request, rows[:, 0], rows[:, 1], 2 * step, twin)

    def _moved(self, request: Request, x: Array, step: float) -> Array:
        """By how much the coordinates of a request are moved at x, (m, 1, 1): in the arithmetic, and the type, of the rows."""
        wide = np.float64 if x.dtype == np.float64 else np.float32
        part = slice(request.start, request.start + request.count)
        at = x.reshape(-1)[part].astype(wide)
        move = np.full(at.shape, step, wide)
        if self.field is not None:
            move = move * np.broadcast_to(self.field, x.shape).reshape(-1)[part].astype(wide)
        moved: Array = (at + move).astype(x.dtype).astype(np.float64) - at.astype(np.float64)
        return moved[:, None, None]

    def _rows(self, requests: Sequence[Request], d: int) -> Iterator[Rows]:
        """All rows of the requests, cut into full batches."""
        per_direction = ROWS_PER_DIRECTION[self.scheme]
        signs = np.array([self.step] if self.scheme == "forward" else [self.step, -self.step] * (per_direction // 2))
        pieces: list[tuple[Request, int, int]] = []  # (request, first row, rows)
        free, draws = self.forward.stretch, self._draws(d)
        for request in requests:
            first = sum(map(len, self.known(request)))
            left = request.count * per_direction - first
            while left:
                take = min(left, free)
                pieces.append((request, first, take))
                first, left, free = first + take, left - take, free - take
                if not free:
                    yield self._batch(pieces, signs, draws)
                    pieces, free = [], self.forward.stretch
        if pieces:
            yield self._batch(pieces, signs, draws)

    def _draws(self, d: int) -> tuple[_Ahead, _Ahead]:
        """Where rows get their directions from, and their dither."""
        packed = isinstance(self.directions, Rademacher)
        draw = self.directions.signs if isinstance(self.directions, Rademacher) else self.directions.block

        def directions(request: Request, start: int, count: int) -> Array | Signs:
            return draw(request.sample.index, request.start + start, count, d)

        def noise(request: Request, start: int, count: int) -> Array:
            return dither_noise((self.seed, request.sample.index, streams.DITHER), request.start + start, count, d)

        return _Ahead(directions, d // 8 if packed else d), _Ahead(noise, 2 * d)

    def _batch(self, pieces: Sequence[tuple[Request, int, int]], signs: Array, draws: tuple[_Ahead, _Ahead]) -> Rows:
        per_direction = len(signs)
        v: list[Array | Signs] = []
        w: list[Array] = []
        scale: list[Array] = []
        for request, first, count in pieces:
            row = np.arange(first, first + count)
            of = row // per_direction  # direction of each row
            lowest = int(of[0])
            block = draws[0].drawn(request, lowest, int(of[-1]) - lowest + 1)
            v.append(block if per_direction == 1 else block[of - lowest])
            scale.append(signs[row % per_direction])
            if self.scheme == "dithered":
                noise = np.asarray(draws[1].drawn(request, lowest, int(of[-1]) - lowest + 1))
                w.append(noise[of - lowest, row % per_direction // 2])
        return Rows(
            sample=np.concatenate([np.full(n, r.sample.position, np.int64) for r, _, n in pieces]),
            v=joined_directions(v),
            scale=np.concatenate(scale),
            w=None if not w else np.concatenate(w),
            dither=self.dither,
            inside=self._inside,
            field=self.field,
        )


def is_finite(ends: Ends) -> bool:
    """Whether all outputs at the ends (and at the dithered twins') are numbers, of a size whose slopes float64 can square."""
    good = all(bool((np.abs(a) < LARGEST).all()) for a in (ends.plus, ends.minus))  # NaN is not smaller either
    return good and (ends.twin is None or is_finite(ends.twin))


def unchanged_share(ends: Ends) -> float:
    """Share of directions along which no output differs between the two ends (at both dithered points)."""
    still = (ends.plus == ends.minus).all(axis=(1, 2))
    if ends.twin is not None:
        still &= (ends.twin.plus == ends.twin.minus).all(axis=(1, 2))
    return float(still.mean())
