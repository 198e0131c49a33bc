"""What the inputs are, by their shape and their values: image, spectrogram, series, table, text."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Ground
from onnxfim.record.input_pictures import InputKind

Array: TypeAlias = np.ndarray[Any, Any]

_CHANNELS = 16  # of a series, at most
_LONG = 32  # places of a series, at least
_FEATURES = 512  # of a table, at most where nobody names them
_ALIKE = 0.5  # correlation of neighbours from which a row of numbers is a series
_LOOKED_AT = 64  # samples


def input_kind(ground: Ground) -> InputKind:
    """What the samples are shown as: what the settings say, else what shape and values tell."""
    if ground.coupling is not None:
        return ground.coupling.kind
    asked = ground.settings.input_kind
    if asked != "auto":
        return asked
    entry = ground.subject.info.at
    if entry is not None and entry.kind == "tokens":
        return "text"
    return guessed(ground.X, named=ground.samples.feature_names is not None)


def guessed(X: Array, *, named: bool = False) -> InputKind:
    """What samples (N, *shape) look like; ``named`` where their numbers have names.

    One channel over two axes of different length is a spectrogram where it holds what pixels cannot (values below 0, or above 1
    that are no whole numbers to 255); else it is an image.
    """
    shape = X.shape[1:]
    if named:
        return "tabular"
    if len(shape) == 1:
        if shape[0] <= _FEATURES:
            return "tabular"
        return "series" if _neighbours(X[:_LOOKED_AT]) > _ALIKE else "other"
    if len(shape) == 3 and (shape[0] == 3 or shape[2] == 3) and sorted(shape)[1] >= 4:
        return "image"
    plane = [n for n in shape if n != 1]
    if len(plane) == 1:
        return "series" if plane[0] >= _LONG else "tabular"
    if len(plane) != 2 or len(shape) > 3:
        return "other"
    short, long = sorted(plane)
    if short <= _CHANNELS and long >= max(_LONG, 2 * short):
        return "series"
    if short < 4:
        return "other"
    return "image" if short == long or _pixels(X[:_LOOKED_AT]) else "spectrogram"


def _neighbours(X: Array) -> float:
    """Correlation of each number with the next, over all samples (N, d) less their means."""
    centred = X.astype(np.float64) - X.mean(axis=1, keepdims=True, dtype=np.float64)
    power = float((centred**2).sum())
    return float((centred[:, 1:] * centred[:, :-1]).sum()) / power if power > 0 else 0.0


def _pixels(X: Array) -> bool:
    low, high = float(X.min()), float(X.max())
    return low >= 0 and (high <= 1 or (high <= 255 and bool(np.all(X == np.round(X)))))
