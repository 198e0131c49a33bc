"""Which samples get more directions than the first round's, and how many: decided before any of them is measured again.

Which samples get more directions must not depend on the noise of their first estimates: what was too large by chance would be
measured again and mended, what was too small would not, and the mean would come out too low (by 1.4 % at the usual budget). So they
are chosen by what their clean outputs alone tell: how far their probabilities leave room to move. Where no precision is to be
reached, all of it is therefore known before the first round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Ground
from onnxfim.auditing.summary import aggregate_of
from onnxfim.record.sample import SampleResult, estimate_of
from onnxfim.record.statistics import Z95

Array: TypeAlias = np.ndarray[Any, Any]

#: Directions added to a sample at a time.
ROUND = 16
_MOST = 8  # times the first round's directions that one sample may get
_NEGLIGIBLE = 0.1  # of the interval, below which the estimates' noise no longer matters in it
_SURE = 0.95  # of the width asked for, that a round aims at: what it leaves is only expected


def likely_weights(ground: Ground) -> Array:
    """How much each sample is likely to weigh in the mean, (N,): its largest ``p(1 − p)`` over the total, raw or calibrated."""
    reader = ground.reader
    if not reader.has_classes:
        return np.ones(len(ground.base))
    audited, temperature = ground.clean.audited, ground.calibration.temperature
    found = np.zeros(len(ground.base))
    for t in {1.0, temperature or 1.0}:
        p = reader.probabilities(ground.base, t)
        spread = (p * (1 - p)).max(axis=1).sum(axis=1)  # over the positions
        if (total := float(spread[audited].sum())) > 0:
            found = np.maximum(found, spread / total)
    return found


def weightiest(positions: Sequence[int], weights: Array, most: int) -> list[int]:
    """So many of the positions at most, those of the largest weights, increasing."""
    return sorted(sorted(positions, key=lambda i: (-weights[i], i))[:most])


def planned(directions: Mapping[int, int], weights: Array, first: int, affordable: int) -> dict[int, int]:
    """Directions that each sample gets beside those it has, while some are affordable: of so many times `ROUND` of one sample."""
    now = dict(directions)
    while affordable >= 1 and (chosen := most_deciding(now, weights, first, affordable)):
        for i in chosen:
            now[i] += ROUND
        affordable -= len(chosen)
    return {i: now[i] - count for i, count in directions.items() if now[i] > count}


def most_deciding(directions: Mapping[int, int], weights: Array, first: int, affordable: int) -> list[int]:
    """Samples whose noise is likely to weigh most in the mean: ``λ²/m`` of m directions, λ in proportion to ``weights``."""
    positions = [i for i, m in directions.items() if m < _MOST * first]
    weight = {i: float(weights[i]) ** 2 / directions[i] for i in positions}
    ranked = sorted(positions, key=lambda i: (-weight[i], i))
    # Those that weigh about as much as the first, a few at a time.
    equal = [i for i in ranked if weight[i] >= 0.5 * weight[ranked[0]]]
    return sorted(equal[: max(1, min(affordable, max(4, len(ranked) // 16)))])


class Precision:
    """Whether the mean of some results is known as precisely as was asked, and what would make it so.

    Args:
        results: Of all samples so far.
        asked: Half the interval over the mean.
        seed: Of the audit.
    """

    def __init__(self, results: Sequence[SampleResult], asked: float, seed: int) -> None:
        raw = any(r.lambda_max.value is not None for r in results)
        measure = "lambda_max" if raw else "lambda_max_standardised"  # in standard deviations where there are no others
        mean = aggregate_of(results, measure, seed=seed).mean
        values = np.array([(e.value or 0.0) if (e := estimate_of(r, measure)) else 0.0 for r in results])
        self._squares = {r.index: float(v) ** 2 for r, v in zip(results, values, strict=True)}
        self._n, self._mean, self._asked = max(len(values), 1), mean.value or 0.0, asked
        self._half = None if mean.low is None or mean.high is None else (mean.high - mean.low) / 2
        self._width = Z95 * float(values.std()) / math.sqrt(self._n) if self._half is None else self._half
        self._noise = self._noise_of({r.index: r.directions for r in results})

    @property
    def reached(self) -> bool:
        """Whether the mean's interval is narrow enough, or the estimates' noise no longer matters in it."""
        return self._enough(self._half, self._width, self._noise, self._asked)

    def needed(self, directions: Mapping[int, int], indices: Array, weights: Array, first: int, affordable: int) -> dict[int, int]:
        """Directions that samples get beside those they have, by which the precision is expected to be reached; none where it is.

        Args:
            directions: Of the samples that may get more, by position.
            indices: The samples' indices by position, (N,).
            weights: As `likely_weights` gives them.
            first: Directions of the first round.
            affordable: So many times `ROUND` directions of one sample.
        """
        now = dict(directions)
        if self.reached:
            return {}
        had = {i: self._squares[int(indices[i])] / m for i, m in directions.items()}
        variance = self._noise**2
        while affordable >= 1 and (chosen := most_deciding(now, weights, first, affordable)):
            for i in chosen:
                now[i] += ROUND
                left = self._squares[int(indices[i])] / now[i]
                variance += 2 * (left - had[i]) / self._n**2
                had[i] = left
            affordable -= len(chosen)
            gained = Z95**2 * (self._noise**2 - max(variance, 0.0))
            width = math.sqrt(max(self._width**2 - gained, 0.0))
            if self._enough(None if self._half is None else width, width, math.sqrt(max(variance, 0.0)), _SURE * self._asked):
                break
        return {i: now[i] - count for i, count in directions.items() if now[i] > count}

    def _enough(self, half: float | None, width: float, noise: float, asked: float) -> bool:
        if not self._mean:
            return True
        return (half is not None and half <= asked * self._mean) or Z95 * noise < _NEGLIGIBLE * width

    def _noise_of(self, directions: Mapping[int, int]) -> float:
        """Standard error of the mean from the estimates' noise: ``2 λ²/m`` of m directions each."""
        return math.sqrt(sum(2 * self._squares[i] / m for i, m in directions.items())) / self._n
