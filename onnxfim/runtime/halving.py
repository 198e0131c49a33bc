"""Calls in halves, where memory does not suffice for the whole: along the samples, then along the seeds of a single one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


def halves(feeds: Mapping[str, Array], samples: Mapping[str, int]) -> tuple[int, list[dict[str, Array]]] | None:
    """What to feed two calls instead of one, and the axis of the samples' arrays that was cut; None where nothing is left to cut.

    Args:
        feeds: Arrays of the whole call.
        samples: The axis of each array that the samples lie along, 0 or 1; arrays without one are fed whole. Where it is 1, seeds
            lie along axis 0.
    """
    rows = _rows(feeds, samples)
    if rows > 1:
        cut = {name: samples[name] for name in feeds if name in samples}
        return 1, _cut(feeds, cut, rows // 2)
    seeds = {name: 0 for name in feeds if samples.get(name) == 1}
    many = _seeds(feeds, samples)
    return (0, _cut(feeds, seeds, many // 2)) if many > 1 else None


def size_of(feeds: Mapping[str, Array], samples: Mapping[str, int]) -> int:
    """Samples times seeds of a call: what its memory grows with."""
    return _rows(feeds, samples) * _seeds(feeds, samples)


def _rows(feeds: Mapping[str, Array], samples: Mapping[str, int]) -> int:
    return next(a.shape[samples[name]] for name, a in feeds.items() if name in samples)


def _seeds(feeds: Mapping[str, Array], samples: Mapping[str, int]) -> int:
    return min((len(a) for name, a in feeds.items() if samples.get(name) == 1), default=1)


def _cut(feeds: Mapping[str, Array], axes: Mapping[str, int], at: int) -> list[dict[str, Array]]:
    parts: list[dict[str, Array]] = [{}, {}]
    for name, a in feeds.items():
        pair = np.split(a, [at], axis=axes[name]) if name in axes else [a, a]
        for part, half in zip(parts, pair, strict=True):
            part[name] = half
    return parts


def rejoined(
    axis: int, parts: Sequence[Sequence[Array]], outputs: Sequence[str], samples: Mapping[str, int]
) -> list[Array]:  # fmt: skip
    """The outputs of the whole call from those of its halves, ``axis`` as from `halves`."""
    found = []
    for name, pair in zip(outputs, zip(*parts, strict=True), strict=True):
        if axis == 1:
            found.append(np.concatenate(pair, axis=samples[name]))
        else:  # the same sample twice, with other seeds: what has no seeds is there twice
            found.append(np.concatenate(pair, axis=0) if samples[name] == 1 else pair[0])
    return found
