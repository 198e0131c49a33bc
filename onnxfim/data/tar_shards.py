"""Samples in shards as WebDataset writes them: a picture or an array a sample, with its label beside it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from onnxfim.data.arrays import gather
from onnxfim.data.class_labels import ClassOrder, alphabetical, class_labels, is_number
from onnxfim.data.columns import LABEL_NAMES, Asked, as_labels
from onnxfim.data.converting import Target
from onnxfim.data.decoding import Picture, decoded
from onnxfim.data.file_ranges import FileRanges
from onnxfim.data.lazy_rows import Array, Indices, RowReader
from onnxfim.data.npy import NOT_AN_ARRAY, HeldRows, read_header
from onnxfim.data.samples import Choice, Samples, one_line, shape_text, unusable
from onnxfim.data.stored_rows import bytes_of
from onnxfim.data.tar_index import ARRAYS, PICTURES, ShardSample, TarIndex, index_of, label_of_entry
from onnxfim.errors import InputError
from onnxfim.record.sample import Skipped

_HEAD = 4096  # bytes of an array that hold its header, or enough to tell that they do not


def load_shards(where: str, shards: Sequence[Path], target: Target, choice: Choice, asked: Asked) -> Samples:
    """Samples of tar archives: members ``KEY.png`` (or another picture) or ``KEY.npy``, labels in ``KEY.cls`` or ``KEY.json``.

    All that there are are drawn from where not all are taken, for they may lie ordered by class. A sample that lacks its picture,
    array or label, that has one twice, or of which a member is a link or no file, is skipped.

    Raises:
        InputError: an archive that cannot be read, is damaged or compressed, or without any sample.
    """
    if asked.features:
        raise InputError(f"{where}: holds no columns, expected a table where features are named. Leave out --feature-columns.")
    index = index_of(where, shards)
    pictures, arrays = (_members(index, kinds) for kinds in (PICTURES, ARRAYS))
    if not pictures and not arrays:
        ends = sorted({end for entry in index.entries[:100] for end in entry.members})
        raise InputError(
            f"{where}: holds members that end in {', '.join(ends[:8]) or 'nothing that is read'}, expected a picture "
            "(.png, .jpg, …) or a .npy of each sample. Write them so."
        )
    labels = [label_of_entry(index, entry, asked.label, LABEL_NAMES) for entry in index.entries]
    if asked.label is not None and not any(labels):
        raise InputError(
            f"{where}: no sample has a label called {asked.label!r}, expected a member or a key of KEY.json. Name another."
        )
    drawn = Choice(choice.limit, choice.seed or 0)
    if arrays and not pictures:
        return _arrays(index, arrays, labels, drawn, target, asked)
    return _pictures(index, pictures, labels, drawn, target, asked)


def _members(index: TarIndex, kinds: frozenset[str]) -> dict[int, str]:
    """By the place of a sample, its member of one of these kinds."""
    found = ((i, entry.one_of(kinds)) for i, entry in enumerate(index.entries))
    return {i: member for i, member in found if member is not None}


def _faults(index: TarIndex, members: dict[int, str], labels: Sequence[str | None], chosen: Indices, kind: str) -> dict[int, str]:
    """Why samples cannot be used, by their places."""
    labelled = any(labels)
    faults: dict[int, str] = {}
    for i in map(int, chosen):
        entry = index.entries[i]
        if entry.fault is not None:
            faults[i] = f"{entry.name}: {entry.fault}"
        elif i not in members:
            faults[i] = f"{entry.name} has no {kind}"
        elif labelled and not labels[i]:
            faults[i] = f"{entry.name} has no label"
    return faults


def _order(index: TarIndex, labels: Sequence[str | None], asked: Asked) -> ClassOrder | None:
    """The order of the classes: as given, else the alphabet's of all that there are, so that a part has the same."""
    every = [label for label in labels if label]
    if asked.order is not None or all(map(is_number, every)):
        return asked.order
    return alphabetical(index.where, every)


def _as_array(labels: Sequence[str | None]) -> Array:
    """Labels of samples, numbers where all of them are; those of samples without one stand for nothing."""
    if all(is_number(label) for label in labels if label):
        return as_labels([float(label) if label else None for label in labels])
    return as_labels([label or "" for label in labels])


def _pictures(
    index: TarIndex, members: dict[int, str], labels: Sequence[str | None], choice: Choice, target: Target, asked: Asked
) -> Samples:
    """Samples that are pictures."""
    chosen = choice.of(len(index.entries))
    faults = _faults(index, members, labels, chosen, "picture")

    def picture(i: int) -> Picture:
        entry = index.entries[i]
        if entry.fault is not None or i not in members:
            return Picture(i, entry.name, bytes, fault=faults[i])
        start, _ = entry.members[members[i]]
        return Picture(i, entry.name, partial(_bytes, index, entry, members[i]), index.ranges.files[entry.shard], start)

    found = decoded(index.where, map(picture, map(int, chosen)), len(chosen), target, faults=faults)
    source = f"{index.where}: {len(chosen)} of {len(index.entries)} images"
    if not any(labels):
        return found.samples(source, target, None, asked.order, by_class=True)
    kept = np.array(found.kept, np.int64)
    raw = _as_array([labels[i] for i in found.kept])
    classes = class_labels(f"labels of {index.where}", raw, kept, _order(index, labels, asked))
    told = [labels[int(i)] for i in chosen]
    return found.samples(source, target, classes.indices, classes.order, by_class=True, told=told)


def _bytes(index: TarIndex, entry: ShardSample, member: str) -> bytes:
    return bytes(index.read(entry, member))


def _arrays(
    index: TarIndex, members: dict[int, str], labels: Sequence[str | None], choice: Choice, target: Target, asked: Asked
) -> Samples:
    """Samples that are arrays; the first that can be read tells the shape and the type of all."""
    chosen = choice.of(len(index.entries))
    faults = _faults(index, members, labels, chosen, "array")
    places, like = np.zeros((len(index.entries), 3), np.int64), None
    for i in map(int, chosen):
        if i in faults:
            continue
        entry = index.entries[i]
        try:
            head, start = _header(index, entry, members[i])
            like = head if like is None else like
            if head != like:
                raise ValueError(f"is {head}, where the first is {like}")
            places[i] = entry.shard, start, head.turned
        except ValueError as error:
            faults[i] = f"{entry.name}.{members[i]} cannot be read: {one_line(error)}"
    if like is None:
        raise unusable(index.where, [Skipped(i, faults[i]) for i in map(int, chosen)])
    which, start, turned = places.T.copy()
    rows = MemberRows(index.ranges, which, start, turned, (len(places), *like.shape), like.dtype)
    given = HeldRows(f"labels of {index.where}", _as_array(labels)) if any(labels) else None
    source = f"{index.where}: {len(chosen)} of {len(places)} samples"
    found = gather(
        _InShards(index.where, rows, frozenset(faults)), given, target, choice, source=source, order=_order(index, labels, asked),
        faults=faults,
    )  # fmt: skip
    return replace(found, names=tuple(index.entries[i].name for i in found.indices.tolist()), by_class=True)


@dataclass(frozen=True)
class _Header:
    """Shape and type of an array in a member, and whether its axes lie the other way round."""

    shape: tuple[int, ...]
    dtype: np.dtype
    turned: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.dtype} of shape {shape_text(self.shape)}"


def _header(index: TarIndex, entry: ShardSample, member: str) -> tuple[_Header, int]:
    """The header of an array, and where its numbers begin in the archive.

    Raises:
        ValueError: it is none, holds Python objects, or is shorter than it says.
    """
    begin, size = entry.members[member]
    stream = io.BytesIO(index.ranges.read(entry.shard, begin, min(size, _HEAD)))
    try:
        shape, turned, dtype = read_header(stream)
    except NOT_AN_ARRAY as error:
        raise ValueError(f"it is no array in NumPy's format ({one_line(error)[:80] or type(error).__name__})") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never unpickled")
    if 0 in shape or any(n < 0 for n in shape) or stream.tell() + math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"it is empty, or shorter than its header says ({shape_text(shape)})")
    return _Header(shape, dtype, turned), begin + stream.tell()


@dataclass(frozen=True)
class MemberRows:
    """Rows of numbers of which each lies at a place of its own.

    Attributes:
        ranges: The files.
        which, start: File and place of each row, (N,).
        turned: Whether its axes lie the other way round, (N,).
        shape: (N, *shape).
        dtype: Of the numbers.
    """

    ranges: FileRanges
    which: Indices
    start: Indices
    turned: Indices
    shape: tuple[int, ...]
    dtype: np.dtype
    costly = False

    def read(self, at: Indices) -> Array:
        """The rows at ``at``, (n, …)."""
        out = np.empty((len(at), *self.shape[1:]), self.dtype)
        for k, i in enumerate(at.tolist()):
            row = out[k : k + 1] if not self.turned[i] else np.empty((1, *self.shape[:0:-1]), self.dtype)
            self.ranges.read_into(bytes_of(row), int(self.which[i]), int(self.start[i]))
            if self.turned[i]:
                out[k] = row[0].T
        return out


@dataclass(frozen=True)
class _InShards:
    """The rows as a source; those at fault are zeros."""

    where: str
    rows: MemberRows
    faulty: frozenset[int]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype:
        return self.rows.dtype

    def take(self, indices: Indices) -> Array:
        good = np.array([k for k, i in enumerate(indices.tolist()) if i not in self.faulty], np.int64)
        out = np.zeros((len(indices), *self.shape[1:]), self.dtype)
        out[good] = self.rows.read(indices[good])
        return out

    def take_all(self) -> Array:
        return self.take(np.arange(len(self.rows.which)))

    def lasting(self, indices: Indices) -> tuple[RowReader, Indices]:
        return self.rows, indices
