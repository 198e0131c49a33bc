"""Reads and fits the values that inputs are held at: numbers, files, and the samples' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.data.npy import open_npy, open_npz
from onnxfim.data.samples import shape_text
from onnxfim.errors import InputError
from onnxfim.graph.choosing_inputs import told
from onnxfim.graph.graph import TensorInfo
from onnxfim.graph.held import HeldValue

Array: TypeAlias = np.ndarray[Any, Any]
Dimension: TypeAlias = "int | str | None"

_WORDS: dict[str, float] = {"zeros": 0.0, "ones": 1.0, "true": 1.0, "false": 0.0}
_TEXT = "object"  # what NumPy calls the runtime's text


@dataclass(frozen=True)
class Feeds:
    """What was said about inputs: a value in words, by the input's name."""

    given: Mapping[str, str]

    @classmethod
    def of(cls, path: Path, texts: Sequence[str], names: Sequence[str]) -> Feeds:
        """The values of ``NAME=VALUE``.

        Raises:
            InputError: of an input that there is not, or that is perturbed; or twice of one.
        """
        found: dict[str, str] = {}
        for text in texts:
            # A name may hold an equals sign: the longest that fits is meant.
            fits = sorted((n for n in names if text.startswith(f"{n}=")), key=len)
            if not fits:
                name = text.partition("=")[0].strip()
                raise InputError(
                    f"{path}: --feed {text}: no input to hold is called {name!r}. "
                    + (f"Use one of: {', '.join(names)}." if names else "The model has one input alone, which is perturbed.")
                )
            if fits[-1] in found:
                raise InputError(
                    f"{path}: --feed {text}: {fits[-1]!r} is held at {found[fits[-1]]} already. Give one value for it."
                )
            found[fits[-1]] = text[len(fits[-1]) + 1 :].strip()
        return cls(found)


@dataclass(frozen=True)
class Fitting:
    """What values are fitted to.

    Attributes:
        path: The model, for messages.
        indices: Positions of the samples in the data, (N,).
        sizes: Sizes of symbolic dimensions, where the samples tell them.
        batch: First dimension of the input that is perturbed: its batch.
        shapes: Sizes given for inputs, None for the batch.
    """

    path: str
    indices: Array
    sizes: Mapping[str, int]
    batch: Dimension
    shapes: Mapping[str, tuple[int | None, ...]]

    def axis(self, info: TensorInfo) -> int | None:
        """The axis of an input that holds the batch; None where it has none.

        Raises:
            InputError: an open dimension may be the batch, and nothing tells.
        """
        if info.name in self.shapes:
            sizes = self.shapes[info.name]
            return sizes.index(None) if None in sizes else None
        shape = info.shape
        if not shape:
            return None
        if isinstance(self.batch, str) and shape.count(self.batch) == 1:
            return shape.index(self.batch)
        free = [k for k, d in enumerate(shape) if not isinstance(d, int) and d not in self.sizes]
        if not isinstance(self.batch, int):
            if 0 in free or not free:
                return 0 if free else None
            raise self._asks(info, free)
        same = [k for k, d in enumerate(shape) if d == self.batch]
        if 0 in same or len(same) == 1:
            return same[0]
        if same or free:
            raise self._asks(info, same or free)
        return None

    def _asks(self, info: TensorInfo, axes: Sequence[int]) -> InputError:
        sizes = [str(d) if isinstance(d, int) else "SIZE" for d in info.shape or ()]
        sizes[axes[0]] = "N"
        return InputError(
            f"{self.path}: which axis of input {told(info)} holds the batch is not told by the file, expected the first. "
            f"Say it, such as --shape {info.name}:[{','.join(sizes)}]."
        )

    def shape(self, info: TensorInfo) -> tuple[int | None, ...]:
        """Sizes of an input as far as they are known; None for the batch too."""
        if info.name in self.shapes:
            return self.shapes[info.name]
        axis = self.axis(info)
        return tuple(
            None if k == axis else d if isinstance(d, int) else self.sizes.get(d or "") for k, d in enumerate(info.shape or ())
        )


def fitted(info: TensorInfo, text: str, fitting: Fitting) -> HeldValue:
    """The value that was said for an input.

    Raises:
        InputError: it is none, or does not fit.
    """
    where = f"--feed {info.name}={text}"
    file, colon, key = text.rpartition(":") if ".npz:" in text else (text, "", "")
    if file.endswith(".npy"):
        with open_npy(Path(file)) as rows:
            return _fit(where, rows.take_all(), info, fitting)
    if file.endswith(".npz"):
        with open_npz(Path(file)) as archive:
            if not colon:
                key = info.name if info.name in archive.keys or len(archive.keys) != 1 else archive.keys[0]
            return _fit(where, archive.rows(key, option="--feed").take_all(), info, fitting)
    if info.dtype == _TEXT:
        return filled_with(text, info, fitting)
    try:
        number = _WORDS[text] if text in _WORDS else float(text)
    except ValueError:
        raise InputError(
            f"{where}: is no value, expected a number, zeros, ones, FILE.npy or FILE.npz:KEY. Give one of these."
        ) from None
    return filled_with(number, info, fitting)


def filled_with(number: float | str, info: TensorInfo, fitting: Fitting) -> HeldValue:
    """An input held at one number everywhere.

    Raises:
        InputError: it has open dimensions, or its type does not hold the number.
    """
    axis = fitting.axis(info)
    sizes = [1 if k == axis else n for k, n in enumerate(fitting.shape(info))]
    if (info.shape is None and info.name not in fitting.shapes) or any(n is None for n in sizes):
        wanted = ",".join("N" if k == axis else "SIZE" if n is None else str(n) for k, n in enumerate(sizes))
        raise InputError(
            f"{fitting.path}: input {told(info)} has dimensions that nothing gives a size for, expected all but the batch. "
            f"Say --shape {info.name}:[{wanted}], or give an array."
        )
    shape = tuple(n for n in sizes if n is not None)
    if isinstance(number, str):
        return HeldValue(np.full(shape, number), axis)
    value = _typed(f"--feed {info.name}", np.full(shape, number), info)
    return HeldValue(value, axis)


def nothing(info: TensorInfo) -> HeldValue:
    """Zeros for an input that the output does not read; one along its open dimensions, and its batch where that is the first.

    Raises:
        InputError: its element type is none that can be fed.
    """
    try:
        dtype = np.dtype("U" if info.dtype == _TEXT else info.dtype)
    except TypeError as error:
        raise InputError(
            f"input {info.name!r}: takes {info.dtype}, expected a type that can be fed. Export the model without this input, which "
            "the output does not read."
        ) from error
    shape = tuple(d if isinstance(d, int) else 1 for d in info.shape or ())
    axis = 0 if info.shape and not isinstance(info.shape[0], int) else None
    return HeldValue(np.full(shape, "") if info.dtype == _TEXT else np.zeros(shape, dtype), axis)


def own_values(info: TensorInfo, values: Array, fitting: Fitting) -> Array:
    """The samples' own values of an input, (N, *rest), in its element type.

    Raises:
        InputError: they do not fit the input.
    """
    where = f"data[{info.name}]"
    values = _typed(where, values, info)
    axis, shape = fitting.axis(info), fitting.shape(info)
    rest = tuple(n for k, n in enumerate(shape) if k != axis)
    if values.ndim == len(rest) + 2 and 1 in values.shape[1:] and axis is not None and values.shape[1 + axis] == 1:
        values = np.squeeze(values, 1 + axis)  # each with a batch of one
    if info.shape is not None and not _fits(values.shape[1:], rest):
        raise InputError(
            f"{where}: each sample's value has shape {shape_text(values.shape[1:])}, but input {told(info)} takes "
            f"{shape_text(rest)} for one. Save it in that shape."
        )
    return values


def from_samples(info: TensorInfo, values: Array, fitting: Fitting) -> HeldValue:
    """An input held at each sample's own value, (N, …); at one for all where these are equal.

    Raises:
        InputError: they do not fit the input, or it has no batch axis to hold different ones along.
    """
    values, axis = own_values(info, values, fitting), fitting.axis(info)
    if _all_equal(values):
        return HeldValue(values[0] if axis is None else np.expand_dims(values[0], axis), axis)
    if axis is None:
        raise InputError(
            f"data[{info.name}]: samples have different values, but input {told(info)} has no batch axis: a call has one for all "
            "its rows. Hold it at one value by --feed, or say its batch axis by --shape."
        )
    return HeldValue(values, axis, per_sample=True)


def _fit(where: str, value: Array, info: TensorInfo, fitting: Fitting) -> HeldValue:
    """An array as one value for all samples, or as a value for each sample of the data."""
    value = _typed(where, value, info)
    axis, shape = fitting.axis(info), fitting.shape(info)
    if axis is None:
        if info.shape is None or _fits(value.shape, shape):
            return HeldValue(value, None)
    else:
        rest = tuple(n for k, n in enumerate(shape) if k != axis)
        if _fits(value.shape, rest):
            return HeldValue(np.expand_dims(value, axis), axis)
        if value.ndim == len(shape) and value.shape[axis] == 1 and _fits(value.shape, shape):
            return HeldValue(value, axis)
        if value.ndim == len(shape) and _fits(value.shape[1:], rest):
            if not len(fitting.indices):
                raise InputError(f"{where}: holds {len(value)} values, expected one: here there are no samples. Give one for all.")
            if int(fitting.indices.max()) < len(value):
                return from_samples(info, value[fitting.indices], fitting)
            raise InputError(
                f"{where}: holds {len(value)} values, but the data have a sample of index {int(fitting.indices.max())}. Give one "
                "for each sample of the data, or one for all."
            )
    raise InputError(
        f"{where}: has shape {shape_text(value.shape)}, but input {told(info)} takes {shape_text(shape)}"
        + ("." if axis is None else ", N for the batch.").replace(", N for the batch.", f" with the batch on axis {axis}.")
        + " Give an array of that shape."
    )


def _fits(found: Sequence[int], shape: Sequence[int | None]) -> bool:
    return len(found) == len(shape) and all(n in (None, f) for f, n in zip(found, shape, strict=True))


def _all_equal(values: Array) -> bool:
    first = values[:1]
    same = values == first
    if values.dtype.kind == "f":
        same = same | (np.isnan(values) & np.isnan(first))
    return bool(np.all(same))


def _typed(where: str, value: Array, info: TensorInfo) -> Array:
    """The same values in the input's element type.

    Raises:
        InputError: it does not hold them.
    """
    text = value.dtype.kind in "USO"
    if info.dtype == _TEXT:
        if not text:
            raise InputError(f"{where}: holds {value.dtype}, but input {told(info)} takes text. Give text.")
        return np.char.decode(value) if value.dtype.kind == "S" else value.astype(str)
    if info.dtype == "unknown":
        raise InputError(f"{where}: input {told(info)} is no tensor of a known type. Export the model without it.")
    dtype = np.dtype(info.dtype)
    if text or value.dtype.kind not in "biuf":
        raise InputError(f"{where}: holds {value.dtype}, but input {told(info)} takes {info.dtype}. Give numbers.")
    with np.errstate(all="ignore"):
        cast = np.ascontiguousarray(value).reshape(value.shape).astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast.astype(np.float64), value.astype(np.float64)):
        raise InputError(f"{where}: holds values that {info.dtype} does not, which input {told(info)} takes. Give such values.")
    return cast
