"""The flip radius of every sample: how far along its Fisher direction, or towards the nearest boundary, its prediction changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import numpy as np

from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.final_results import FinalFlips
from onnxfim.auditing.instruments import allowed_inputs, scale_field
from onnxfim.auditing.stages import stage
from onnxfim.record import streams
from onnxfim.record.sample import Estimate, FlipLengths, SampleResult
from onnxfim.runtime.watching import current_watch
from onnxfim.slopes.differences import Sample
from onnxfim.slopes.flips import Flips, ValidRange, margins, smallest_flips
from onnxfim.slopes.lengths import Euclidean, Length
from onnxfim.slopes.measurer import NO_CLASSES

Array: TypeAlias = np.ndarray[Any, Any]

_BYTES = 2**25  # of the rays of a block of samples
_MOST = 1024  # samples of a block: they are on disk together
_OTHERS = 256  # samples among which the nearest one that is decided otherwise is sought
_ROUNDED = 1e-4  # of the squared lengths: more than a product of float32 loses
_RANDOM = 2  # random directions where there is no slope
_BLIND = 1 / 64  # of the way across the valid range: where a flip is expected of a sample without a slope


@dataclass(frozen=True)
class Ways:
    """Where to look for flips.

    Attributes:
        directions: Of some samples, (n, 2, d): the Fisher direction and the slope towards the nearest boundary; zeros for none.
        names: What the two are called.
        stretch: How much longer than the boundary distance the way along them is expected to be.
        others: Look towards the nearest sample that is decided otherwise as well.
        again: Of all results, the positions of the samples whose directions others take after this.
    """

    directions: Callable[[Sequence[Sample]], Array]
    names: tuple[str, str]
    stretch: Callable[[SampleResult], float]
    others: bool
    again: Callable[[Mapping[int, SampleResult]], Collection[int]] = lambda results: ()


def blind_ways(ground: Ground) -> Ways:
    """Where to look for flips of a model without a slope: towards other samples, and along random directions."""
    return Ways(
        lambda some: np.zeros((len(some), 2, ground.dimension)), ("no direction", "no direction"), lambda r: 1.0, others=True
    )


def without_radii(found: Found, measure: str, reason: str) -> Found:
    """What was found, each sample with the reason in place of its flip radius, which the field ``measure`` holds."""
    none: dict[str, Any] = {measure: Estimate(None, kind="upper bound", reason=reason)}
    return replace(found, results={p: replace(r, **none) for p, r in found.results.items()})


@stage("looking for flips", instead=lambda ground, reason, found, ways: without_radii(found, FlipSearch.measure, reason))
def flip(ground: Ground, found: Found, ways: Ways) -> Found:
    """The flip radius of all samples that have a prediction; one of `ENDS` keeps those that were finished."""
    search = FlipSearch(ground, ways, allowed_inputs(ground), _other_units(ground))
    finals = FinalFlips(ground, found, ways.stretch, lambda: search.identity)
    return search.of_all(found, finals, frozenset(ways.again(found.results)))


def others_looked_at(dimension: int) -> int:
    """Among how many of the first usable samples, of so many numbers each, the nearest that is decided otherwise is sought."""
    return min(_OTHERS, max(2, _BYTES // (4 * dimension)))


def _near(from_: Array, others: Array) -> Callable[[int, Array], Array]:
    """Tells which of some ``others`` (m, d) may be the nearest to a point of ``from_`` (n, d), as far as rounding tells.

    By ``‖o‖² + ‖x‖² − 2 oᵀx``, one product for all of them; a few are left, of which the differences themselves tell.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = [np.square(a).sum(axis=1, dtype=np.float64) for a in (from_, others)]
        size = sizes[0][:, None] + sizes[1]  # (n, m)
        squares = size - 2.0 * (from_ @ others.T)

    def candidates(k: int, allowed: Array) -> Array:
        least = np.min((squares[k] + _ROUNDED * size[k])[allowed], initial=np.inf)
        return np.flatnonzero(allowed & ~(squares[k] - _ROUNDED * size[k] > least))

    return candidates


@dataclass(frozen=True)
class OtherUnits:
    """How many model input units one of another unit is, (d,); None where there is no such unit."""

    raw: Array | None
    deviation: Array | None

    def lengths(self, move: Array) -> FlipLengths | None:
        """The length of a move (d,) in them; None where there are none."""
        if self.raw is None and self.deviation is None:
            return None
        return FlipLengths(_length(move, self.raw), _length(move, self.deviation))


def _length(move: Array, unit: Array | None) -> float | None:
    if unit is None or (move[unit == 0] != 0).any():
        return None
    return float(np.linalg.norm(np.divide(move, unit, out=np.zeros_like(move), where=unit != 0)))


def _other_units(ground: Ground) -> OtherUnits:
    shape = ground.X.shape[1:]
    raw, deviation = scale_field(ground.settings.input_scale, shape), ground.scales.deviation
    wide = np.broadcast_to(deviation, shape).ravel().astype(np.float64) if deviation.any() else None
    return OtherUnits(None if raw is None else raw.ravel(), wide)


@dataclass(frozen=True)
class FlipSearch:
    """Looks for flips of samples, with moves whose length is L2."""

    #: Field of a result that holds the radius.
    measure: ClassVar[str] = "flip_radius"

    ground: Ground
    ways: Ways
    box: ValidRange
    others: OtherUnits

    def of_all(self, found: Found, finals: FinalFlips, again: frozenset[int]) -> Found:
        """What was found, with the radii of all samples that have a prediction; one of `ENDS` keeps those that were finished."""
        results = {p: self._told(r, Estimate(None, reason=NO_CLASSES)) for p, r in found.results.items()}
        positions = sorted(p for p, r in results.items() if r.prediction is not None)
        cut = Estimate(None, kind="upper bound", reason="the run was interrupted before it was measured")
        results |= {p: self._told(results[p], cut) for p in positions}
        try:
            for flips in self.blocks(positions, results, finals, again):
                results |= {p: self._told(results[p], *flip) for p, flip in flips.items()}
        except ENDS as end:
            return replace(found, results=results).ended(end)
        return replace(found, results=results)

    def _told(self, result: SampleResult, radius: Estimate, lengths: FlipLengths | None = None) -> SampleResult:
        changed: dict[str, Any] = {self.measure: radius} | ({} if lengths is None else {"flip_lengths": lengths})
        return replace(result, **changed)

    def blocks(
        self, positions: Sequence[int], results: Mapping[int, SampleResult], finals: FinalFlips, again: frozenset[int]
    ) -> Iterator[dict[int, tuple[Estimate, FlipLengths | None]]]:
        """Flip radii and other lengths of the samples by position, block by block, those that are kept among them.

        ``again`` are the positions of samples whose directions others take after this.
        """
        ground = self.ground
        rows = 1 if current_watch().tries else max(1, min(_MOST, _BYTES // (4 * 8 * ground.dimension)))

        def look_again(known: Sequence[int]) -> None:
            if some := [ground.sample(p) for p in known if p in again]:
                self.ways.directions(some)

        for start in range(0, len(positions), rows):
            if rows < len(positions):
                ground.meter.count(start, len(positions), "samples")
            ground.say(self.told)
            flips = finals.known(positions[start : start + rows], look_again)
            if block := [p for p in positions[start : start + rows] if p not in flips]:
                before = ground.meter.passes
                with current_watch().about(block):
                    radii = self.radii(block, [results[p] for p in block])
                finals.keep(block, radii, ground.meter.passes - before)
                flips |= dict(zip(block, radii, strict=True))
            ground.meter.check()
            yield flips

    @property
    def identity(self) -> tuple[object, ...]:
        """What a flip depends on beside its sample and the sample's own result."""
        rows, decided = self._usable
        keys = self.ground.memory.keys(self.ground.X, self.ground.samples.held)
        others = [keys.of(self.ground.sample(p)) for p in rows.tolist()]
        return self.ways.names, self.ways.others, self.box, self.others, others, decided

    @property
    def _usable(self) -> tuple[Array, Array]:
        """Positions of samples among which the nearest one that is decided otherwise is sought, and what they are decided for."""
        ground = self.ground
        usable = ground.clean.usable[: others_looked_at(ground.dimension)]
        return usable, ground.reader.predictions(ground.base[usable])

    def radii(self, positions: Sequence[int], results: Sequence[SampleResult]) -> list[tuple[Estimate, FlipLengths | None]]:
        """Flip radii of the samples: along what is known of them first, and blindly for those that this does not flip."""
        directions = self._along(self.ways.directions([self.ground.sample(p) for p in positions]).astype(np.float64))
        v, towards = directions[:, 0], directions[:, 1]
        across = self._across(positions)
        near = np.array([self.expected(r) for r in results])
        expected = np.where(near > 0, np.minimum(near, across), _BLIND * across)
        names = [self._called(name) for name in self.ways.names]
        rays = [(v, names[0]), (-v, names[0]), (towards, names[1])]
        if self.ways.others:
            rays.append(self._towards_others(positions, results))
        first = self._searched(positions, results, rays, expected)
        left = [k for k in range(len(positions)) if not math.isfinite(first.distance[k])]
        found = [self._estimate(first, k, rays) for k in range(len(positions))]
        lengths = [self._lengths(first, k) for k in range(len(positions))]
        if left:
            some = [positions[k] for k in left]
            blind = self._blind_rays(some, [results[k] for k in left])
            second = self._searched(some, [results[k] for k in left], blind, _BLIND * across[left])
            for at, k in enumerate(left):
                spent = int(first.passes[k]) + int(second.passes[at])
                found[k] = replace(self._estimate(second, at, blind), evaluations=spent)
                lengths[k] = self._lengths(second, at)
        return list(zip(found, lengths, strict=True))

    @property
    def told(self) -> str:
        """What is said while it is done."""
        return "looking for flips"

    @property
    def length(self) -> Length:
        """What the length of a move is."""
        return Euclidean()

    def expected(self, result: SampleResult) -> float:
        """At which length a sample is expected to flip; 0 where it is not known."""
        return (result.boundary_distance.value or 0.0) * self.ways.stretch(result)

    def _along(self, directions: Array) -> Array:
        """The rays of directions (n, 2, d)."""
        return directions

    def _called(self, name: str) -> str:
        """What the ray of a direction of that name is called."""
        return name

    def _wide(self, signs: Array) -> Array:
        """Random directions of these signs (n, d)."""
        return signs * (self.box.high - self.box.low)

    def _lengths(self, found: Flips, k: int) -> FlipLengths | None:
        return self.others.lengths(found.move[k]) if math.isfinite(found.distance[k]) else None

    def _searched(
        self, positions: Sequence[int], results: Sequence[SampleResult], rays: Sequence[tuple[Array, str]], expected: Array
    ) -> Flips:
        before = np.array([r.prediction for r in results])
        stacked = np.stack([ray for ray, _ in rays], axis=1)
        margin = margins(self.ground.reader, self.ground.base[list(positions)], before)
        at = np.array(positions)

        def decide(rows: Array, decided: Array, which: Array) -> tuple[Array, Array]:
            return self._decide(rows, decided, at[which])

        return smallest_flips(decide, self.ground.X[at], before, stacked, self.box, expected, margin, self.length)

    def _decide(self, rows: Array, before: Array, of: Array) -> tuple[Array, Array]:
        """Predictions at rows, -1 where an output is not a number, and the margins of the classes ``before`` there."""
        z = self.ground.forward.outputs(rows, of)
        finite = np.isfinite(z.reshape(len(z), -1)).all(axis=1)
        z = np.where(np.reshape(finite, (-1, 1, 1)), z, 0.0)
        decided = np.where(finite, self.ground.reader.predictions(z), -1)
        return decided, np.where(finite, margins(self.ground.reader, z, before), np.nan)

    def _estimate(self, found: Flips, k: int, rays: Sequence[tuple[Array, str]]) -> Estimate:
        distance, passes = float(found.distance[k]), int(found.passes[k])
        names = list(dict.fromkeys(name for _, name in rays))
        if not math.isfinite(distance):
            reason = f"no flip within {self.box.source}, tried: {', '.join(names)}"
            return Estimate(None, kind="upper bound", evaluations=passes, reason=reason)
        method = f"along {rays[int(found.ray[k])][1]}, within {self.box.source}"
        return Estimate(distance, None, distance, "upper bound", method, passes)

    def _across(self, positions: Sequence[int]) -> Array:
        """Length from end to end of the valid range, as the samples may move in it, (n,); 1 where it is a point."""
        x = self.ground.X[list(positions)].reshape(len(positions), -1).astype(np.float64)
        length = self.length.of(np.maximum(self.box.high, x) - np.minimum(self.box.low, x))
        return np.where(length > 0, length, 1.0)

    def _towards_others(self, positions: Sequence[int], results: Sequence[SampleResult]) -> tuple[Array, str]:
        """The way from each sample to the nearest one of the data that is decided otherwise, (n, d); zeros where there is none."""
        ground = self.ground
        usable, decided = self._usable
        width = self.box.high - self.box.low
        scale = np.where(width > 0, width, 1.0).astype(np.float32)
        others = ground.X[usable].reshape(len(usable), -1).astype(np.float32)
        from_ = ground.X[list(positions)].reshape(len(positions), -1).astype(np.float32)
        near = _near(from_ / scale, others / scale)
        ways = np.zeros((len(positions), ground.dimension))
        for k, r in enumerate(results):
            apart = near(k, decided != (-1 if r.prediction is None else r.prediction))
            if len(apart):
                moves = others[apart] - from_[k]
                ways[k] = moves[((moves / scale) ** 2).sum(axis=1).argmin()]
        return ways, "the way to the nearest sample that is decided otherwise"

    def _blind_rays(self, positions: Sequence[int], results: Sequence[SampleResult]) -> list[tuple[Array, str]]:
        """Random directions, each coordinate as wide as its range, both ways; and towards other samples."""
        rays: list[tuple[Array, str]] = []
        rngs = [np.random.default_rng([self.ground.settings.seed, self.ground.index(p), streams.FLIPS]) for p in positions]
        for _ in range(_RANDOM):
            w = self._wide(np.stack([rng.choice([-1.0, 1.0], self.ground.dimension) for rng in rngs]))
            rays += [(w, "a random direction"), (-w, "a random direction")]
        return [*rays, self._towards_others(positions, results)]
