"""The smoothed classifier: the class that Gaussian noise gives most often, and the L2 radius in which it does.

``g(x) = argmax_c P(f(x + σε) = c)`` with ε standard normal. Where the class c has a probability of at least p > 1/2 at x, g keeps
it within ``σ Φ⁻¹(p)``, whatever f is. It is a statement about g, not about the file f, and about x + σε in real arithmetic.

Source: Cohen, Rosenfeld & Kolter (2019), ICML: theorem 1, and CERTIFY in section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.guarantees import Smoothed
from onnxfim.record.smoothing_terms import ALPHA, CHOOSING
from onnxfim.record.special import ndtri
from onnxfim.record.statistics import clopper_pearson
from onnxfim.runtime.rows import Forward, Moves, Rows
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

#: Of samples (m,), the classes of so many fresh rows with noise of each, (m, rows); -1 where an output is not a number.
Vote: TypeAlias = Callable[[Array, int], Array]

_LOOK = 100  # rows after which it is looked whether a sample can still have a class
_NO_NUMBERS = "no output at a row with noise is a number"


def certified(vote: Vote, count: int, sigma: float, budget: int) -> list[Smoothed]:
    """Certificates of ``count`` samples, as CERTIFY gives them: `CHOOSING` rows choose a class, fresh ones bound its probability.

    A sample of which so many rows have another class that it abstains, whatever the rows left would give, gets none of these: what
    comes out is the same. A radius always rests on all rows.

    Args:
        vote: The model under noise.
        count: How many samples.
        sigma: Standard deviation of the noise.
        budget: Rows that bound the probability.
    """
    every = np.arange(count)
    chosen = np.array([_most_frequent(votes) for votes in vote(every, CHOOSING)], np.int64).reshape(count)
    kept, tries, needed = np.zeros(count, np.int64), np.zeros(count, np.int64), fewest_kept(budget)
    for done in range(0, budget, _LOOK):
        left = every[(chosen >= 0) & (kept + budget - done >= needed)]  # the others abstain
        if len(left) == 0:
            break
        rows = min(_LOOK, budget - done)
        kept[left] += (vote(left, rows) == chosen[left, None]).sum(axis=1)
        tries[left] += rows
    return [certificate(sigma, int(chosen[k]), int(kept[k]), int(tries[k]), budget) for k in range(count)]


def certificate(sigma: float, chosen: int, kept: int, tries: int, budget: int) -> Smoothed:
    """The certificate of the class ``chosen`` that ``kept`` of ``tries`` rows had; rows left of the budget count as others.

    Args:
        sigma: Standard deviation of the noise.
        chosen: The class, -1 where no row had one.
        kept: Rows with the class.
        tries: Rows that were made, fewer than the budget where no class can come out.
        budget: Rows that the bound is one of.
    """
    if chosen < 0:
        return Smoothed(sigma, None, 0, 0, 0.0, 0.0, _NO_NUMBERS)
    low = clopper_pearson(kept, budget, ALPHA)[0]
    if low <= 0.5:
        return Smoothed(sigma, None, tries, kept, low, 0.0)
    return Smoothed(sigma, chosen, tries, kept, low, sigma * float(ndtri(low)))


def fewest_kept(budget: int) -> int:
    """Fewest rows of the budget with one class at which it is not abstained; one more than there are where none suffice."""
    low, high = 0, budget + 1  # abstained at the first, not at the second
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if clopper_pearson(middle, budget, ALPHA)[0] > 0.5 else (middle, high)
    return high


def _most_frequent(votes: Array) -> int:
    """The class of most rows, the first of several; -1 where there is none."""
    classes, counts = np.unique(votes[votes >= 0], return_counts=True)
    return int(classes[counts.argmax()]) if len(classes) else -1


@dataclass(frozen=True)
class NoisyVotes:
    """Asks a model for its classes at rows ``x + size·ε``, with standard normal ε of each sample's own stream, never clipped.

    The rows of a sample are the next ones of its stream, however many are asked for at a time and of whatever samples beside it:
    votes of samples are independent, so that what is said of their population is too.

    Attributes:
        forward: The model.
        reader: What its outputs are.
        X: Samples, (n, *shape).
        size: Standard deviation of each coordinate, (d,), or of all.
        streams: Seed and words of each sample's stream, n of them.
        of: Positions of the samples, (n,), that the model is told.
    """

    forward: Forward
    reader: OutputReader
    X: Array
    size: Array | float
    streams: Sequence[Sequence[int]]
    of: Array

    @cached_property
    def _rngs(self) -> list[np.random.Generator]:
        return [np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(words)))) for words in self.streams]

    def __call__(self, which: Array, rows: int) -> Array:
        """The classes of the next ``rows`` rows of the samples ``which`` (m,), (m, rows); -1 where an output is not a number."""
        answers = self.forward.stream(self.X, self._batches(np.repeat(which, rows)), self.of)
        return np.concatenate([self._decided(z) for z in answers]).reshape(len(which), rows)

    def _decided(self, z: Array) -> Array:
        finite = np.asarray(np.isfinite(z).all(axis=(1, 2)))
        if not finite.all():
            z = np.where(finite[:, None, None], z, 0.0)
        return np.where(finite, self.reader.predictions(z), -1)

    def _batches(self, samples: Array) -> Iterator[Rows]:
        """A row for each of the samples (B,), those of one side by side, in batches that are full but for the last."""
        start = 0
        while start < len(samples):
            part = samples[start : start + self.forward.stretch]
            yield Rows(part, Moves(self._drawn(part), np.arange(len(part))), np.ones(len(part)))
            start += len(part)

    def _drawn(self, samples: Array) -> Array:
        """The next moves of the samples (B,), (B, d) float32."""
        made = np.empty((len(samples), int(np.prod(self.X.shape[1:]))), np.float32)
        ends = (np.flatnonzero(np.diff(samples)) + 1).tolist()
        for start, end in zip((0, *ends), (*ends, len(samples)), strict=True):
            self._rngs[int(samples[start])].standard_normal(out=made[start:end], dtype=np.float32)
        made *= np.asarray(self.size, np.float32)
        return made
