"""Small pictures of the inputs that a report shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Context
from onnxfim.record.audit import Thumbnail
from onnxfim.record.audited_from import Position
from onnxfim.record.input_pictures import InputKind
from onnxfim.record.sample import SampleResult

Array: TypeAlias = np.ndarray[Any, Any]

_SHOWN = 6  # at either end of the ranking, as many as a report shows
PICTURED: frozenset[InputKind] = frozenset({"image", "spectrogram"})
_SIDE = 64  # pixels at most; larger inputs are averaged down


def thumbnails(results: Sequence[SampleResult], inputs: Mapping[int, Array], kind: InputKind = "image") -> tuple[Thumbnail, ...]:
    """Pictures of the samples at either end of the ranking, where the inputs are images or spectrograms.

    Args:
        results: All samples.
        inputs: Their inputs by index.
        kind: What the inputs are.
    """
    return pictured(inputs, sorted(at_ends(ranking(results))), kind)


def at_ends(ranked: Sequence[SampleResult]) -> set[int]:
    """Indices of the samples at either end of a ranking, which a report shows."""
    return {r.index for r in (*ranked[:_SHOWN], *ranked[-_SHOWN:])}


def pictured(inputs: Mapping[int, Array], indices: Iterable[int], kind: InputKind) -> tuple[Thumbnail, ...]:
    """Pictures of these samples, as far as they have any."""
    made = (thumbnail(index, _picture(inputs[index], kind)) for index in indices)
    return tuple(t for t in made if t is not None)


class InputsByIndex(Mapping[int, Array]):
    """The inputs of an audit by their samples' indices; one is read where it is looked at."""

    def __init__(self, context: Context) -> None:
        self._X, self._indices = context.X, context.samples.indices

    def __getitem__(self, index: int) -> Array:
        at = int(np.searchsorted(self._indices, index))
        if at == len(self._indices) or self._indices[at] != index:
            raise KeyError(index)
        return np.asarray(self._X[at])

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices.tolist())

    def __len__(self) -> int:
        return len(self._indices)


def thumbnail(index: int, picture: Array | None) -> Thumbnail | None:
    """A sample's picture (H, W, C) as it is recorded, or None where there is none."""
    if picture is None:
        return None
    height, width, channels = picture.shape
    return Thumbnail(index, height, width, channels, tuple(picture.ravel().tolist()))


def ranking(results: Sequence[SampleResult]) -> list[SampleResult]:
    """Samples from the least to the most sensitive, by the calibrated value where all have one, else by the raw one."""
    return ranked_by(results, calibrated=all(r.lambda_max_calibrated.value is not None for r in results))


def ranked_by(results: Sequence[SampleResult], *, calibrated: bool) -> list[SampleResult]:
    """The same by one of the two values."""
    values = {r.index: (r.lambda_max_calibrated if calibrated else r.lambda_max).value for r in results}
    return sorted((r for r in results if values[r.index] is not None), key=lambda r: values[r.index] or 0.0)


def _picture(x: Array, kind: InputKind) -> Array | None:
    """An input as (H, W, C) bytes, stretched to its own range, or None where it has no picture."""
    return picture_of(x, float(x.min()), float(x.max()), kind)


def picture_of(x: Array, low: float, high: float, kind: InputKind = "image") -> Array | None:
    """Values as (H, W, C) bytes with ``low`` black and ``high`` white, or None where they have no picture.

    A spectrogram has its time, the longer axis, from left to right, and its lowest frequency at the bottom.
    """
    if kind not in PICTURED:
        return None
    if kind == "spectrogram":
        plane = _as_plane(np.asarray(x, np.float64))
        return None if plane is None else _bytes(plane, low, high)
    image = _as_image(np.asarray(x, np.float64))
    if image is None:
        return None
    factor = -(-max(image.shape[:2]) // _SIDE)
    if factor > 1:
        h, w = (n // factor * factor for n in image.shape[:2])
        image = image[:h, :w].reshape(h // factor, factor, w // factor, factor, -1).mean(axis=(1, 3))
    return _bytes(image, low, high)


def _bytes(image: Array, low: float, high: float) -> Array:
    stretched = (image - low) / (high - low) if high > low else np.zeros_like(image)
    return np.round(np.clip(stretched, 0.0, 1.0) * 255).astype(np.uint8)


def positions_of(direction: Array, fed: Array) -> tuple[Position, ...]:
    """Each position's part of a direction (T, H), with the whole number that the file was fed there.

    Args:
        direction: A unit vector in the shape of the value that is audited.
        fed: The sample as the file takes it; nothing comes out where it has not one whole number for each position.
    """
    if direction.ndim != 2 or fed.size != len(direction) or fed.dtype.kind not in "iu":
        return ()
    parts = (direction.astype(np.float64) ** 2).sum(axis=1)
    total = float(parts.sum())
    if not total > 0:
        return ()
    return tuple(Position(int(t), min(float(p) / total, 1.0)) for t, p in zip(fed.ravel(), parts, strict=True))


def _as_plane(x: Array) -> Array | None:
    """A spectrogram as (frequency from the top down, time, 1), each axis reduced by itself; None where it has more than two."""
    plane = x.squeeze()
    if plane.ndim != 2:
        return None
    if plane.shape[0] > plane.shape[1]:
        plane = plane.T
    for axis, most in enumerate((_SIDE, 2 * _SIDE)):
        factor = -(-plane.shape[axis] // most)
        whole = plane.shape[axis] // factor * factor
        parts = np.moveaxis(plane, axis, 0)[:whole].reshape(whole // factor, factor, -1).mean(axis=1)
        plane = np.moveaxis(parts, 0, axis)
    return plane[::-1, :, None]


def _as_image(x: Array) -> Array | None:
    if x.ndim == 3 and x.shape[0] in (1, 3) and min(x.shape[1:]) >= 4:
        return x.transpose(1, 2, 0)
    if x.ndim == 3 and x.shape[2] in (1, 3) and min(x.shape[:2]) >= 4:
        return x
    if x.ndim == 2 and min(x.shape) >= 4:
        return x[:, :, None]
    return None
