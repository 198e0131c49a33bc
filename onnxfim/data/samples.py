"""Samples as the audit takes them: values, labels, where each came from, and what was left out and why."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxfim.data.lazy_rows import part_of
from onnxfim.errors import InputError
from onnxfim.record import streams
from onnxfim.record.sample import Skipped

Array: TypeAlias = npt.NDArray[Any]
Indices: TypeAlias = npt.NDArray[np.int64]
SampleShape: TypeAlias = tuple[int | None, ...]

MAX_BYTES = 8 * 2**30
"""What is held in memory may take so much; more is refused before it is read."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples ready for the model.

    Attributes:
        inputs: The model's inputs, finite, (N, *shape), in the model's element type: an array, or rows that are read at need
            (`onnxfim.data.lazy_rows.LazyRows`) where they take more than `LAZY_BYTES`.
        labels: Class indices, int64 (N,), or None.
        indices: Position of each sample in the data, counted from 0 and strictly increasing, int64 (N,).
        names: Name of each sample, an image's path relative to its folder; empty text for arrays.
        class_names: Names of the classes in the order of their indices, where the data or the user give them.
        source: In words, where the samples come from.
        sha256: Hash of what was selected, before preprocessing and before bad samples were left out.
        skipped: Selected samples that could not be used.
        synthetic: Whether the samples were drawn and describe no real input.
        fed: What the file's own input takes, (N, …), where ``inputs`` are a value inside the file; None elsewhere.
        held: Each sample's own values of the model's other inputs, by the input's name, (N, …), as the data hold them.
        prepared: What was done to raw values, by name (`Preprocessing.given`); empty where nothing was.
        by_class: Whether the data lie ordered by class, so that a part of them must be drawn.
        classes_guessed: Whether labels were words that nobody gave an order, so that the alphabet's gives them their indices.
        feature_names: Names of the numbers of one sample, in their order, where the data name them.
    """

    inputs: Array = field(repr=False)
    labels: Indices | None = field(repr=False)
    indices: Indices = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    class_names: tuple[str, ...] | None
    source: str
    sha256: str
    skipped: tuple[Skipped, ...] = ()
    synthetic: bool = False
    fed: Array | None = field(default=None, repr=False)
    held: Mapping[str, Array] = field(default_factory=dict, repr=False)
    prepared: Mapping[str, Any] = field(default_factory=dict)
    by_class: bool = False
    classes_guessed: bool = False
    feature_names: tuple[str, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, positions: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Samples:
        """The samples at these positions among those here, strictly increasing; what is told of the whole data stays as it is.

        Raises:
            IndexError: a position that is not there.
            ValueError: positions that do not increase.
        """
        at = np.asarray(positions, np.int64).reshape(-1)
        if len(at) and (at[0] < 0 or at[-1] >= len(self)):
            raise IndexError(f"positions {at[0]} to {at[-1]} of {len(self)} samples")
        if np.any(np.diff(at) <= 0):
            raise ValueError("positions of samples do not increase")
        if len(at) == len(self):
            return self
        rows = slice(int(at[0]), int(at[-1]) + 1) if len(at) and at[-1] - at[0] == len(at) - 1 else at  # a run is a view
        return replace(
            self,
            inputs=part_of(self.inputs, rows),
            labels=None if self.labels is None else self.labels[rows],
            indices=self.indices[rows],
            names=tuple(self.names[i] for i in at),
            fed=None if self.fed is None else part_of(self.fed, rows),
            held={name: values[rows] for name, values in self.held.items()},
        )

    def first(self, count: int) -> Samples:
        """The first so many samples."""
        return self.take(np.arange(min(count, len(self))))

    def without(self, reasons: Mapping[int, str]) -> Samples:
        """The samples without those of these indices, each listed as skipped for its reason."""
        out = np.isin(self.indices, list(reasons))
        left_out = tuple(Skipped(int(i), reasons[int(i)]) for i in self.indices[out])
        skipped = tuple(sorted((*self.skipped, *left_out), key=lambda s: s.index))
        return replace(self.take(np.flatnonzero(~out)), skipped=skipped)


@dataclass(frozen=True)
class Choice:
    """Which samples of the data are taken: all, the first ``limit``, or ``limit`` drawn with ``seed`` in their own order."""

    limit: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit: found {self.limit}, expected at least 1 sample. Pass a positive number, or none for all.")
        if self.seed is not None and self.seed < 0:
            raise InputError(f"seed: found {self.seed}, expected 0 or more. Pass a non-negative whole number.")

    def many_of(self, total: int) -> int:
        """How many samples are chosen among ``total``."""
        return total if self.limit is None else min(self.limit, total)

    def of(self, total: int) -> Indices:
        """The chosen positions among ``total`` samples, increasing."""
        if self.limit is None or self.limit >= total:
            return np.arange(total, dtype=np.int64)
        if self.seed is None:
            return np.arange(self.limit, dtype=np.int64)
        drawn = np.random.default_rng(self.seed).permutation(total)[: self.limit]
        return np.sort(drawn).astype(np.int64)


def random_samples(
    shape: SampleShape,
    count: int,
    *,
    seed: int,
    dtype: npt.DTypeLike = np.float32,
    distribution: Literal["uniform", "normal"] = "uniform",
) -> Samples:
    """Draw synthetic samples, uniform in [0, 1] or standard normal.

    Sample i is drawn from a stream of its own, so it does not depend on ``count``, nor the directions' streams ``[seed, i]`` on it.

    Raises:
        InputError: an axis without a size, an element type that is not floating-point, no sample asked for.
    """
    dtype = np.dtype(dtype)
    Choice(count, seed)
    if any(size is None or size < 1 for size in shape):
        raise InputError(
            f"synthetic samples: the input has shape {shape_text(shape)}, expected a size for each axis. "
            "Pass real data, whose shape gives the sizes, or say them with --shape."
        )
    if dtype.kind != "f":
        raise InputError(f"synthetic samples: the input takes {dtype}, expected floating-point numbers. Pass real data instead.")
    sizes = [size for size in shape if size is not None]
    check_bytes("synthetic samples", count * math.prod(sizes) * dtype.itemsize)
    inputs = np.empty((count, *sizes), dtype)
    for i in range(count):
        rng = np.random.default_rng([seed, i, streams.DATA])
        inputs[i] = rng.random(sizes) if distribution == "uniform" else rng.standard_normal(sizes)
    words = "uniform in [0, 1]" if distribution == "uniform" else "standard normal"
    return Samples(
        inputs=inputs,
        labels=None,
        indices=np.arange(count, dtype=np.int64),
        names=("",) * count,
        class_names=None,
        source=f"synthetic, {words}, seed {seed}: describes no real input",
        sha256=hash_arrays(inputs),
        synthetic=True,
    )


class ArrayHash:
    """SHA-256 over element type, shape and bytes of arrays in turn, a part of an array at a time where it comes in parts."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def begin(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """An array of this shape comes, in parts."""
        self._digest.update(f"{dtype.str}{shape}".encode())

    def update(self, part: Array) -> None:
        """The next rows of the array that was begun."""
        self._digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)

    def add(self, *arrays: Array | None) -> None:
        """Whole arrays, or that there is none."""
        for array in arrays:
            if array is None:
                self._digest.update(b"none")
            else:
                self.begin(array.shape, array.dtype)
                self.update(array)

    def hexdigest(self) -> str:
        """The hash so far, in hexadecimal."""
        return self._digest.hexdigest()


def hash_arrays(*arrays: Array | None) -> str:
    """SHA-256 over element type, shape and bytes of each array in turn, in hexadecimal."""
    digest = ArrayHash()
    digest.add(*arrays)
    return digest.hexdigest()


def check_bytes(where: str, size: int) -> None:
    """Refuse a selection that would take more than MAX_BYTES."""
    if size > MAX_BYTES:
        raise InputError(
            f"{where}: the selected samples take {size / 2**30:.1f} GiB, expected at most {MAX_BYTES / 2**30:.0f} GiB. "
            "Pass a smaller --samples."
        )


def unusable(where: str, skipped: Sequence[Skipped]) -> InputError:
    """The error about data of which every selected sample was skipped."""
    return InputError(
        f"{where}: none of the {len(skipped)} selected samples can be used, expected at least one; "
        f"the first, {skipped[0].index}: {skipped[0].reason}. Repair the data or select other samples."
    )


def shape_text(shape: Sequence[int | None], *, batched: bool = False) -> str:
    """A shape in print, unknown sizes as ``?``: ``(N, 3, ?, ?)``."""
    sizes = ["N"] * batched + ["?" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"


def listed(names: Sequence[object], most: int = 8) -> str:
    """Names in print, each in quotation marks: the first so many of them."""
    return ", ".join(map(repr, names[:most])) + ", …" * (len(names) > most)


def one_line(words: object) -> str:
    """Text of foreign origin on a single line."""
    return " ".join(str(words).split())
