"""Calls in parts, where memory does not suffice for the whole: along the samples, then along the seeds of a single one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


def counts(feeds: Mapping[str, Array], samples: Mapping[str, int]) -> tuple[int, int]:
    """Samples of a call, and seeds of each.

    Args:
        feeds: Arrays of the whole call.
        samples: The axis of each array that the samples lie along, 0 or 1; arrays without one are fed whole. Where it is 1, seeds
            lie along axis 0.
    """
    rows = next(a.shape[samples[name]] for name, a in feeds.items() if name in samples)
    return rows, min((len(a) for name, a in feeds.items() if samples.get(name) == 1), default=1)


def stretch(feeds: Mapping[str, Array], samples: Mapping[str, int], axis: int, start: int, stop: int) -> dict[str, Array]:
    """What to feed for some of the samples (``axis`` 1), or for some seeds of all of them (``axis`` 0)."""
    part = {}
    for name, a in feeds.items():
        along = samples.get(name)
        if along is None or (axis == 0 and along == 0):
            part[name] = a
        else:
            part[name] = a[(slice(None),) * (along if axis == 1 else 0) + (slice(start, stop),)]
    return part


def rejoined(
    axis: int, parts: Sequence[Sequence[Array]], outputs: Sequence[str], samples: Mapping[str, int]
) -> list[Array]:  # fmt: skip
    """The outputs of the whole call from those of its parts, ``axis`` as of `stretch`."""
    found = []
    for name, given in zip(outputs, zip(*parts, strict=True), strict=True):
        if axis == 1:
            found.append(np.concatenate(given, axis=samples[name]))
        else:  # the same sample again, with other seeds: what has no seeds is there again
            found.append(np.concatenate(given, axis=0) if samples[name] == 1 else given[0])
    return found
