"""Rows with random noise, and how many of them keep their sample's prediction.

The noise is the same at every sample: chunk c of it is drawn from the stream ``[seed, word, kind, c]``, in units of its size, so
that neither the batch, nor which samples are tried together, nor how long each is tried changes a row. Within a sample all rows
are independent, which is all that its interval needs; that all samples' intervals hold at once needs no independence between
samples (`record.successive_looks`). So a chunk is drawn once for all samples that are tried together, and costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record import streams
from onnxfim.record.noises import KINDS, Noise
from onnxfim.record.successive_looks import CHUNK
from onnxfim.runtime.rows import Forward, Moves, Rows
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

#: Bytes of a chunk that is drawn whole and serves all samples that are tried together; a larger one is drawn row by row for each.
_WHOLE = 2**26
#: A chunk of a sample: which of the samples, and which chunk of its rows.
Part: TypeAlias = tuple[int, int]


def drawn(noise: Noise, seed: int, chunk: int, d: int) -> Array:
    """The rows ``chunk·CHUNK …`` of the noise in units of its size, float32 (CHUNK, d)."""
    return next_rows(stream_of(noise, seed, chunk), noise, CHUNK, d)


def stream_of(noise: Noise, seed: int, chunk: int) -> np.random.Generator:
    """The stream of a chunk: its rows come one after another, however many are drawn at a time."""
    words = [seed, streams.NOISE, KINDS.index(noise.kind), chunk]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def next_rows(rng: np.random.Generator, noise: Noise, rows: int, d: int) -> Array:
    """The next rows of a stream in units of the noise's size, float32 (rows, d)."""
    if noise.bell_shaped:
        return np.asarray(rng.standard_normal((rows, d), dtype=np.float32))
    unit: Array = np.asarray(rng.random((rows, d), dtype=np.float32))  # [0, 1)
    unit *= 2.0
    unit -= 1.0
    return unit


@dataclass(frozen=True)
class NoisyRows:
    """Tries samples of a model under noise.

    Attributes:
        forward: The model.
        reader: What its outputs are.
        noise: The noise.
        seed: Its seed.
        scale: d(model input)/d(raw input) of each coordinate, (d,), or 1: the noise is in raw units.
        grid: Lowest and highest value that an input can have, and the distance of two, where these are whole levels.
    """

    forward: Forward
    reader: OutputReader
    noise: Noise
    seed: int
    scale: Array | float = 1.0
    grid: tuple[float, float, float] | None = None

    def kept(self, X: Array, predictions: Array, parts: Sequence[Part], of: Array) -> Iterator[tuple[Part, int]]:
        """How many rows of each part keep the prediction, of `CHUNK` each, in the order of the parts.

        An output that is not finite keeps none.

        Args:
            X: Samples, (n, *shape).
            predictions: Their classes, (n,).
            parts: Which chunks of which of them; chunks in order draw each only once.
            of: Positions of the samples, (n,), that the model is told.
        """
        order = np.array([sample for sample, _ in parts], np.int64)
        flags, done = np.empty(0, bool), 0
        rows = self._batches(parts, int(np.prod(X.shape[1:])))
        start = 0
        for z in self.forward.stream(X, rows, of):
            same = predictions[order[(start + np.arange(len(z))) // CHUNK]]
            start += len(z)
            flags = np.concatenate([flags, self._same(z, same)])
            whole = len(flags) // CHUNK
            for count in flags[: whole * CHUNK].reshape(-1, CHUNK).sum(axis=1).tolist():
                yield parts[done], count
                done += 1
            flags = flags[whole * CHUNK :]

    def _same(self, z: Array, before: Array) -> Array:
        """Whether outputs (B, K, P) are finite and of the classes ``before`` (B,)."""
        finite: Array = np.asarray(np.isfinite(z).all(axis=(1, 2)))
        if not finite.all():
            z = np.where(finite[:, None, None], z, 0.0)
        return np.asarray(finite & (self.reader.predictions(z) == before))

    def _batches(self, parts: Sequence[Part], d: int) -> Iterator[Rows]:
        """The rows of the parts in batches that are full but for the last, whatever parts they are of."""
        known: tuple[int, Array] | None = None
        waiting: list[_Stretch] = []
        count = 0
        for sample, chunk in parts:
            apart = None if CHUNK * d * 4 <= _WHOLE else stream_of(self.noise, self.seed, chunk)
            if apart is None and (known is None or known[0] != chunk):
                known = chunk, self._sized(drawn(self.noise, self.seed, chunk, d))
            at = 0
            while at < CHUNK:
                stop = min(CHUNK, at + self.forward.stretch - count)
                if stop <= at:  # full; or the batch became smaller meanwhile
                    yield _rows(waiting, self.grid)
                    waiting, count = [], 0
                    continue
                if apart is not None:
                    values = self._sized(next_rows(apart, self.noise, stop - at, d))
                    waiting.append(_Stretch(sample, values, 0, stop - at))
                elif known is not None:
                    waiting.append(_Stretch(sample, known[1], at, stop))
                count, at = count + stop - at, stop
        if waiting:
            yield _rows(waiting, self.grid)

    def _sized(self, values: Array) -> Array:
        """Rows in units of the noise's size as moves of the model's input; these very ones."""
        values *= np.asarray(np.float64(self.noise.size) * self.scale, np.float32)
        return values


@dataclass(frozen=True)
class _Stretch:
    """Rows of one sample along moves ``start … stop`` of a chunk."""

    sample: int
    values: Array
    start: int
    stop: int


def _rows(stretches: Sequence[_Stretch], grid: tuple[float, float, float] | None) -> Rows:
    """One batch of stretches; each chunk is in it once."""
    chunks: dict[int, tuple[int, Array]] = {}  # by identity: where its rows begin, and itself
    begins = 0
    for s in stretches:
        if id(s.values) not in chunks:
            chunks[id(s.values)] = begins, s.values
            begins += len(s.values)
    values = [v for _, v in chunks.values()]
    of = np.concatenate([np.arange(s.start, s.stop) + chunks[id(s.values)][0] for s in stretches])
    sample = np.concatenate([np.full(s.stop - s.start, s.sample, np.int64) for s in stretches])
    moves = Moves(values[0] if len(values) == 1 else np.concatenate(values), of)
    return Rows(sample, moves, np.ones(len(of)), grid=grid)
