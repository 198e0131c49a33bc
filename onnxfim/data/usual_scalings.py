"""The usual scalings of inputs, and the changes that lead from one to another: what to try where a model answers badly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.data.preprocessing import order_of

Array: TypeAlias = np.ndarray[Any, Any]
Numbers: TypeAlias = tuple[float, ...]

_SLACK = 0.02  # of the range from black to white: constants are published rounded, resizing overshoots
_SPREAD = 0.6  # of that range: pictures of one data set reach from dark to bright
_SOURCES = 2  # readings of the data that are followed up, those that fill the range best


@dataclass(frozen=True)
class PixelUnits:
    """Units of a picture's values: ``(pixel − mean) / std`` of pixels between 0 (black) and 1 (white)."""

    name: str
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)

    @property
    def words(self) -> str:
        """The name, with the constants where it stands for some."""
        plain = self in _PLAIN or self.name.startswith("divided")
        return self.name if plain else f"{self.name} (mean {listed(self.mean)}, std {listed(self.std)} of pixels from 0 to 1)"


_PLAIN = (
    PixelUnits("0 to 1"),
    PixelUnits("0 to 255", std=(1 / 255,)),
    PixelUnits("-1 to 1", (0.5,), (0.5,)),
    PixelUnits("-128 to 127", (128 / 255,), (1 / 255,)),
)
_GREY = (PixelUnits("normalised as MNIST", (0.1307,), (0.3081,)), PixelUnits("normalised as Fashion-MNIST", (0.286,), (0.353,)))
_COLOUR = (
    PixelUnits("normalised as ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    PixelUnits("normalised as CIFAR-10", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    PixelUnits("normalised as CIFAR-10 (the narrower deviations)", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)),
    PixelUnits("normalised as CIFAR-100", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
)


@dataclass(frozen=True)
class InputChange:
    """A change of all inputs: ``(x − mean) / std`` per channel, or the order of an axis.

    ``words`` say what the data seem to be and what the model then wants, ``target`` the latter alone; ``options`` how to ask
    for it.
    """

    words: str
    mean: Array | None = None
    std: Array | None = None
    options: str | None = None
    target: str = ""
    reversed_axis: int | None = None
    transposed: tuple[int, int] | None = None

    def apply(self, X: Array) -> Array:
        """The samples X (N, *shape) after the change, of the same type."""
        if self.reversed_axis is not None:
            return np.flip(X, self.reversed_axis)
        if self.transposed is not None:
            return np.swapaxes(X, *self.transposed)
        mean, std = (np.asarray(v, np.float64) for v in (self.mean, self.std))
        return np.asarray((X.astype(np.float64) - mean) / std, dtype=X.dtype)


def usual_changes(X: Array) -> tuple[InputChange, ...]:
    """What may have been forgotten, or done twice, on the way to the samples X (N, *shape); none for whole-number inputs.

    Pictures: from each of the units whose range they fit to all others, a normalisation undone that was made twice or of bytes,
    channels in the other order, height and width exchanged. Other data: each feature to mean 0 and deviation 1.
    """
    if X.dtype.kind != "f" or not np.isfinite(X).all() or X.std(dtype=np.float64) == 0:
        return ()
    return (*_between_units(X), *_standardised(X), *_orders(X))


def listed(values: Sequence[float] | Array) -> str:
    """Numbers as an option takes them."""
    return ",".join(f"{v:.4g}" for v in values)


def _between_units(X: Array) -> Iterator[InputChange]:
    layout = order_of(X.shape[1:])
    if X.ndim < 2 or np.prod(X.shape[1:]) < 16:
        return
    axis = {None: None, "NCHW": 1, "NHWC": X.ndim - 1}[layout]
    coloured = axis is not None and X.shape[axis] == 3
    named = _COLOUR if coloured else _GREY
    for source in _sources(X, named, axis):
        for target in (*_PLAIN, *named):
            if target != source and target.name != source.name:
                yield _from_to(source, target, X.ndim, axis)


def _from_to(source: PixelUnits, target: PixelUnits, ndim: int, axis: int | None) -> InputChange:
    """``(x·s + m − m') / s'`` as a mean and a deviation in the units that the data have now."""
    m, s, wanted_m, wanted_s = (np.array(v, np.float64) for v in (source.mean, source.std, target.mean, target.std))
    mean, std = (wanted_m - m) / s, wanted_s / s
    options = f"--mean {listed(mean)} --std {listed(std)}"
    if source == _PLAIN[1]:
        own = "" if target == _PLAIN[0] else f" --mean {listed(wanted_m)} --std {listed(wanted_s)}"
        options = f"{options} for arrays of floats, --input-range 0,1{own} for uint8 arrays and image files"
    return InputChange(
        f"The data look like pixels {source.words}, the model answers as one made for pixels {target.words}",
        _along(mean, ndim, axis), _along(std, ndim, axis), options, target.name,
    )  # fmt: skip


def _sources(X: Array, named: Sequence[PixelUnits], axis: int | None) -> list[PixelUnits]:
    """The units that the data can have: read in them, pictures reach from black to white and not beyond."""
    twice = [PixelUnits(f"{u.name} twice", _plus(u.mean, _times(u.mean, u.std)), _times(u.std, u.std)) for u in (*named, _PLAIN[2])]
    of_bytes = [PixelUnits(f"{u.name}, of bytes not divided by 255", _over(u.mean), _over(u.std)) for u in named]
    within = tuple(k for k in range(X.ndim) if k != axis)
    ends = X.min(axis=within, keepdims=True), X.max(axis=within, keepdims=True)  # of each channel: deviations are positive
    found: list[tuple[float, int, PixelUnits]] = []
    for units in (*_PLAIN, *named, *twice, *of_bytes, PixelUnits("divided by 255 twice", (0.0,), (255.0,))):
        std, mean = _along(np.array(units.std), X.ndim, axis), _along(np.array(units.mean), X.ndim, axis)
        low, high = float((ends[0] * std + mean).min()), float((ends[1] * std + mean).max())
        if low > -_SLACK and high < 1 + _SLACK and high - low > _SPREAD:
            found.append((round(abs(low) + abs(1 - high), 2), len(found), units))
    return [units for *_, units in sorted(found)[:_SOURCES]]


def _along(values: Array, ndim: int, axis: int | None) -> Array:
    """The values laid along the channel axis of a batch."""
    if values.size == 1:
        return values.reshape((1,) * ndim)
    shape = [1] * ndim
    shape[axis or 0] = values.size
    return values.reshape(shape)


def _times(a: Numbers, b: Numbers) -> Numbers:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _plus(a: Numbers, b: Numbers) -> Numbers:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _over(a: Numbers) -> Numbers:
    return tuple(x / 255 for x in a)


def _standardised(X: Array) -> Iterator[InputChange]:
    """Each feature of a table by its own mean and deviation; none for data with axes, whose features are not told apart."""
    if X.ndim != 2 or len(X) < 16:
        return
    mean, std = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    if np.allclose(mean, 0, atol=0.3) and np.allclose(std, 1, atol=0.3):
        return
    words = "The model answers as one made for features of mean 0 and deviation 1, which the data are not: a scaler was forgotten"
    yield InputChange(words, mean[None], np.where(std > 0, std, 1.0)[None], "the training's scaler before the audit")


def _orders(X: Array) -> Iterator[InputChange]:
    layout = order_of(X.shape[1:])
    if layout is None:
        return
    channels, plane = (1, (2, 3)) if layout == "NCHW" else (3, (1, 2))
    if X.shape[channels] == 3:
        words = "The model answers as one made for the other order of the channels (BGR where the data are RGB, or the reverse)"
        yield InputChange(words, options="the data with the channel axis reversed", reversed_axis=channels)
    if X.shape[plane[0]] == X.shape[plane[1]]:
        words = "The model answers as one made for pictures with height and width exchanged"
        yield InputChange(words, options="the data with the two axes transposed", transposed=plane)
