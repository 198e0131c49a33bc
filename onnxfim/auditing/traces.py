"""Series and directions as the few numbers that a report draws."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.input_pictures import Curve, SeriesTrace

Array: TypeAlias = np.ndarray[Any, Any]

MOST_POINTS = 240  # of a curve
_CHANNELS = 3  # that are drawn: those with most of the direction


def traces(x: Array, direction: Array) -> tuple[SeriesTrace, ...]:
    """The channels of a series in which its worst direction is largest, first the one with most of it.

    Args:
        x: One sample; its longest axis is the series, all others are channels.
        direction: The worst direction in the shape of the sample.
    """
    axis = int(np.argmax(x.shape))
    length = x.shape[axis]
    inputs, directions = (np.moveaxis(np.asarray(a, np.float64), axis, -1).reshape(-1, length) for a in (x, direction))
    shares = (directions**2).sum(axis=1)
    total = float(shares.sum())
    if not total > 0:
        return ()
    return tuple(
        SeriesTrace(int(c), length, min(float(shares[c]) / total, 1.0), curve(inputs[c]), curve(directions[c]))
        for c in np.argsort(-shares)[:_CHANNELS]
    )


def curve(values: Array) -> Curve:
    """The values (T,) as a curve of at most `MOST_POINTS` points: in each part the lowest and the highest, in their order."""
    if len(values) <= MOST_POINTS:
        at = np.arange(len(values))
    else:
        parts = np.array_split(np.arange(len(values)), MOST_POINTS // 2)
        at = np.unique([part[k] for part in parts for k in (np.argmin(values[part]), np.argmax(values[part]))])
    return Curve(tuple(at.tolist()), tuple(values[at].tolist()))
