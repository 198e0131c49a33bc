"""How often every sample keeps its prediction under random noise: rows until that is decided, or the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.final_results import fingerprint
from onnxfim.auditing.instruments import raw_units
from onnxfim.auditing.stages import stage
from onnxfim.record.guarantees import NoiseStability
from onnxfim.record.noises import Noise, noises
from onnxfim.record.packed import layout_of, packed, unpacked
from onnxfim.record.settings import Settings
from onnxfim.record.successive_looks import CHUNK, Looks, ShareSoFar, looks, noise_level
from onnxfim.runtime.watching import current_watch
from onnxfim.slopes.measurer import NO_CLASSES
from onnxfim.slopes.noisy_rows import NoisyRows, Part

Array: TypeAlias = np.ndarray[Any, Any]

#: Samples that are tried together: noise is drawn once for all of them. They are done together too, so that slow ones are fewer.
_FIRST, _MOST, _SECONDS = 8, 64, 5.0
_BYTES = 2**25  # of their inputs
_CUT = "the run was interrupted before it was tried"
_NEIGHBOURS = "the answer to a row depends on its neighbours in the batch, so that rows with noise are no independent tries"


def rows_expected(settings: Settings, samples: int) -> float:
    """Rows that each of so many samples is expected to take: as many as show a share of 1 to be large enough, in most audits."""
    plan = planned_looks(settings, samples)
    return len(settings.noise) * (plan.soonest or plan.looks[-1].tries)


def planned_looks(settings: Settings, samples: int) -> Looks:
    """The looks at a sample under each noise, where so many samples are audited in all."""
    return looks(settings.noise_stable, noise_level(samples, len(settings.noise)), settings.noise_budget)


def _without(ground: Ground, reason: str, found: Found) -> Found:
    """What was found, each sample with the reason in place of its tries."""
    return _told(ground, found, {}, lambda p: reason)


@stage("adding noise", instead=_without)
def add_noise(ground: Ground, found: Found) -> Found:
    """Every sample under every noise; one of `ENDS` keeps those that were finished."""
    all_samples = len(ground.clean.audited) if ground.coupling is None else ground.coupling.samples
    plan = planned_looks(ground.settings, all_samples)
    positions = sorted(p for p, r in found.results.items() if r.prediction is not None)
    if ground.rows is not None and ground.rows.dependent:
        return _without(ground, _NEIGHBOURS, found)
    done: dict[tuple[str, int], ShareSoFar] = {}
    total = len(positions) * len(ground.settings.noise)
    ground.meter.count(0, total, "samples")
    try:
        for noise in noises(ground.settings.noise):
            trial = _UnderNoise.of(ground, found, noise, plan)
            for block, standings in trial.of_all(positions):
                done |= {(noise.text, p): s for p, s in zip(block, standings, strict=True)}
                ground.meter.count(len(done), total, "samples")
                ground.meter.course.expect_as(len(done), total)
                ground.meter.check()
    except ENDS as end:
        return _told(ground, found, done, lambda p: NO_CLASSES if found.results[p].prediction is None else _CUT).ended(end)
    return _told(ground, found, done, lambda p: NO_CLASSES)


def _told(ground: Ground, found: Found, done: dict[tuple[str, int], ShareSoFar], why: Any) -> Found:
    """What was found, with every sample's standing under every noise, or why there is none."""

    def told(noise: str, position: int) -> NoiseStability:
        s = done.get((noise, position))
        if s is None:
            return NoiseStability(noise, 0, 0, 0.0, 1.0, "open", why(position))
        return NoiseStability(noise, s.tries, s.kept, s.low, s.high, s.decided)

    results = {p: replace(r, noise=tuple(told(n, p) for n in ground.settings.noise)) for p, r in found.results.items()}
    return replace(found, results=results)


@dataclass(frozen=True)
class _Kept:
    """How many rows of each chunk of a sample's noise kept the prediction; more chunks may follow."""

    kept: tuple[int, ...]


@dataclass
class _UnderNoise:
    """All samples under one noise.

    What is kept on disk is the number of rows kept in each chunk, whatever was to be decided: another budget, another share or
    other samples beside it go on from there.
    """

    ground: Ground
    found: Found
    rows: NoisyRows
    plan: Looks
    counts: dict[int, list[int]] = field(default_factory=dict)  # rows kept in each chunk, by position

    @staticmethod
    def of(ground: Ground, found: Found, noise: Noise, plan: Looks) -> _UnderNoise:
        scale = raw_units(ground)
        rows = NoisyRows(ground.forward, ground.reader, noise, ground.settings.seed, scale, _levels(ground))
        return _UnderNoise(ground, found, rows, plan)

    def __post_init__(self) -> None:
        ground, rows = self.ground, self.rows
        about = fingerprint((rows.noise.kind, rows.noise.size, rows.seed, rows.scale, rows.grid, CHUNK))
        known = (about, ground.reader.identity, layout_of(_Kept))
        self._store = ground.store(noise=known) if ground.memory.keeps else None
        self._keys = ground.memory.keys(ground.X, ground.samples.held)

    def of_all(self, positions: Sequence[int]) -> Iterator[tuple[Sequence[int], list[ShareSoFar]]]:
        """Samples and their standings, a few at a time."""
        most = 1 if current_watch().tries else max(1, min(_MOST, _BYTES // (8 * self.ground.dimension)))
        start, size = 0, min(_FIRST, most)
        while start < len(positions):
            block = positions[start : start + size]
            self.ground.say("adding noise")
            began, before = time.perf_counter(), self.ground.meter.cached
            with current_watch().about(block):
                standings = self._block(block)
            yield block, standings
            start += len(block)
            if self.ground.meter.cached == before:
                each = (time.perf_counter() - began) / len(block)
                size = min(max(int(_SECONDS / max(each, 1e-9)), 1), 2 * size, most)

    def _block(self, positions: Sequence[int]) -> list[ShareSoFar]:
        """The standings of samples that are tried together, look by look."""
        ground = self.ground
        X = np.ascontiguousarray(ground.X[list(positions)])
        predictions = np.array([self.found.results[p].prediction for p in positions])
        counts = [self._known(p) for p in positions]
        known = [len(c) for c in counts]
        seen: list[list[int]] = [[] for _ in positions]
        standings: dict[int, ShareSoFar] = {}
        try:
            for look in self.plan.looks:
                parts = self._missing([k for k in range(len(positions)) if k not in standings], counts, look.tries // CHUNK)
                for (k, _), kept in self.rows.kept(X, predictions, parts, np.asarray(positions, np.int64)):
                    counts[k].append(kept)
                for k in range(len(positions)):
                    if k in standings:
                        continue
                    seen[k].append(sum(counts[k][: look.tries // CHUNK]))
                    standing = self.plan.standing(seen[k]) if look.decides(seen[k][-1]) or look is self.plan.looks[-1] else None
                    if standing is not None:
                        standings[k] = standing
        finally:
            self._keep(positions, counts, known)
        for k, have in enumerate(known):
            ground.meter.remembered(min(have * CHUNK, standings[k].tries))
        return [standings[k] for k in range(len(positions))]

    def _missing(self, samples: Sequence[int], counts: Sequence[Sequence[int]], chunks: int) -> list[Part]:
        """Chunks that the samples lack of the first so many, chunk by chunk."""
        first = min((len(counts[k]) for k in samples), default=chunks)
        return [(k, chunk) for chunk in range(first, chunks) for k in samples if len(counts[k]) <= chunk]

    def _known(self, position: int) -> list[int]:
        if self._store is None:
            return []
        kept = self._store.content(self._key(position), partial(unpacked, _Kept))
        return [] if kept is None or not all(0 <= k <= CHUNK for k in kept.kept) else list(kept.kept)

    def _keep(self, positions: Sequence[int], counts: Sequence[list[int]], known: Sequence[int]) -> None:
        """Keep what is new of these samples, in one write."""
        if self._store is None:
            return
        new = [(p, c) for p, c, have in zip(positions, counts, known, strict=True) if len(c) > have]
        contents = ((self._key(p), packed(_Kept(tuple(c)))) for p, c in new)
        self._store.put_contents([(key, content) for key, content in contents if content is not None])

    def _key(self, position: int) -> str:
        """The sample and its prediction: the noise is the same at all of them."""
        sample = self._keys.of(self.ground.sample(position))
        return f"{sample}:noise:{self.found.results[position].prediction}"


def _levels(ground: Ground) -> tuple[float, float, float] | None:
    """The values that an input of whole numbers takes where it is audited, lowest, highest and distance; None of other inputs.

    A picture of bytes has no values between two levels: rows are those that the file itself can be fed.
    """
    at, file = ground.subject.info.at, ground.subject.file
    limits = None if file is None or file.at is None else file.at.limits
    if at is None or at.kind != "levels" or limits is None:
        return None
    ends = np.iinfo(at.input_dtype)
    return limits[0], limits[1], (limits[1] - limits[0]) / (int(ends.max) - int(ends.min))
