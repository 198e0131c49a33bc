"""Tables as samples: which column is the label, which are the features, and rows in the model's shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxfim.data.arrays import gather
from onnxfim.data.class_labels import ClassOrder
from onnxfim.data.converting import Target
from onnxfim.data.npy import ChosenRows
from onnxfim.data.preprocessing import order_of
from onnxfim.data.samples import Array, Choice, Indices, Samples, SampleShape, listed, shape_text
from onnxfim.data.stored_rows import FileRows
from onnxfim.errors import InputError

#: What a column of labels is called where nobody names it.
LABEL_NAMES = ("label", "labels", "class", "target")
_NO_LABEL = frozenset(("", "nan", "n/a", "null"))  # a class may be called "none"


@dataclass(frozen=True)
class Asked:
    """What a user says of a table: the label's column and the features', by name or place, and the order of the classes."""

    label: str | None = None
    features: tuple[str, ...] = ()
    order: ClassOrder | None = None


@dataclass(frozen=True)
class Picked:
    """Places of the label's column and of the features' in a table."""

    label: int | None
    features: tuple[int, ...]


@dataclass(frozen=True)
class TableRows:
    """Rows of a table that were chosen.

    Attributes:
        where: What holds them, for messages.
        values: The features, (n, F) or (n, *shape), in memory or in a file.
        indices: Place of each row in the data, increasing, (n,).
        total: Rows that the data have.
        labels: Of each row, numbers or words (n,), or None.
        faults: By place, why rows cannot be used.
        features: Names of the F columns, where there are any.
    """

    where: str
    values: Array | FileRows
    indices: Indices
    total: int
    labels: Array | None
    faults: Mapping[int, str]
    features: tuple[str, ...] | None


def pick(where: str, names: Sequence[str] | None, width: int, asked: Asked, shape: SampleShape | None) -> Picked:
    """Which of ``width`` columns are label and features.

    A column that is called as labels are is taken for one unless the model takes as many numbers as there are columns; an unnamed
    first column, where the others have names, is the index that pandas writes.

    Raises:
        InputError: a name or a place that no column has.
    """
    taken = None if asked.label is None else place_of(where, names, width, asked.label, "--label-column")
    if asked.features:
        features = tuple(place_of(where, names, width, name, "--feature-columns") for name in asked.features)
        if taken in features:
            raise InputError(f"{where}: column {asked.label!r} is label and feature, expected one of the two. Leave it out of one.")
        return Picked(_usual_label(names, frozenset(features)) if taken is None else taken, features)
    index = {0} if names is not None and len(names) > 1 and not names[0].strip() and all(n.strip() for n in names[1:]) else set()
    if taken is None and width - len(index) != _size(shape):
        taken = _usual_label(names, frozenset(index))
    return Picked(taken, tuple(i for i in range(width) if i != taken and i not in index))


def _usual_label(names: Sequence[str] | None, others: frozenset[int]) -> int | None:
    called = [n.strip().lower() for n in names or ()]
    found = (called.index(name) for name in LABEL_NAMES if name in called)
    return next((i for i in found if i not in others), None)


def place_of(where: str, names: Sequence[str] | None, width: int, wanted: str, option: str) -> int:
    """Where the column is that a user names, or tells by its place, counted from 0, or from the end where it is negative.

    Raises:
        InputError: there is none, or several are called so.
    """
    if names is not None and wanted in names:
        if list(names).count(wanted) > 1:
            raise InputError(
                f"{where}: has {list(names).count(wanted)} columns called {wanted!r}, expected one. Name it by its place, from 0."
            )
        return list(names).index(wanted)
    try:
        place = int(wanted)
    except ValueError:
        place = width
    if -width <= place < width:
        return place % width
    if names is None:
        raise InputError(
            f"{where}: has no column {wanted!r}, for its first line holds numbers and no names; expected a place from 0 to "
            f"{width - 1}, "
            f"or -1 for the last. Pass {option} by place."
        )
    import difflib  # for a message alone

    near = difflib.get_close_matches(wanted, names, 1)
    raise InputError(
        f"{where}: has no column {wanted!r}, expected one of {listed(names)}. Pass {option} {(near or names[-1:])[0]!r} or another."
    )


def _size(shape: SampleShape | None) -> int | None:
    """How many numbers the model takes, where its shape tells."""
    sizes = [size for size in shape or () if size is not None]
    return math.prod(sizes) if shape is not None and len(sizes) == len(shape) else None


def table_samples(
    rows: TableRows, target: Target, choice: Choice, asked: Asked, order: ClassOrder | None, *, source: str
) -> Samples:
    """Rows of a table as samples: a row's numbers fill the model's input in their order.

    Raises:
        InputError: as many numbers as the model does not take, or what `gather` refuses.
    """
    values, size = rows.values, _size(target.shape)
    flat = len(values.shape) == 2
    sizes = [n for n in target.shape or () if n is not None]
    sides = [n for n in sizes if n != 1]
    if size is not None and size == math.prod(values.shape[1:]) and (flat or sides == [n for n in values.shape[1:] if n != 1]):
        shape = (values.shape[0], *sizes)
        values = replace(values, shape=shape) if isinstance(values, FileRows) else values.reshape(shape)
    elif flat and size is not None and values.shape[1] != size:
        raise InputError(
            f"{rows.where}: has {_columns(rows)}, but the model takes {size} numbers, shape {shape_text(target.shape or ())}. "
            + _advice(rows, asked, size)
        )
    found = gather(
        ChosenRows(rows.where, values, rows.indices, rows.total),
        None if rows.labels is None else ChosenRows(rows.where, rows.labels, rows.indices, rows.total),
        target, choice, source=source, order=order, faults=rows.faults,
    )  # fmt: skip
    taken = found.inputs.shape[1:]
    # The places of a picture's pixels tell more than their names.
    named = rows.features is not None and flat and order_of(taken) is None and len(rows.features) == math.prod(taken)
    return replace(found, feature_names=rows.features if named else None)


def _columns(rows: TableRows) -> str:
    n = rows.values.shape[1]
    names = rows.features or ()
    return f"{n} feature column{'' if n == 1 else 's'}" + (f" ({listed(names, 4)})" if names else "")


def _advice(rows: TableRows, asked: Asked, size: int) -> str:
    if rows.values.shape[1] == size + 1 and rows.labels is None:
        return "If one of them holds the labels, name it with --label-column."
    if rows.values.shape[1] > size and not asked.features:
        return "Name those that are the model's, in its order, with --feature-columns."
    return "Give the columns that the model was trained on, in its order."


def label_of(cell: str) -> str:
    """A cell's text as a label; empty where it stands for none."""
    text = cell.strip()
    return "" if text.lower() in _NO_LABEL else text


def as_labels(values: Sequence[object]) -> Array:
    """Labels of rows as an array of whole numbers or of words; those of rows without one are zero or empty.

    Args:
        values: Numbers, words or None.
    """
    words = [v for v in values if isinstance(v, str)]
    if words:
        return np.array([v if isinstance(v, str) else "" if v is None else str(v) for v in values])
    numbers = np.array([0 if v is None else v for v in values])
    # As whole numbers, which other containers hold them as: the hash is of the values.
    whole = numbers.dtype.kind == "f" and np.all(np.abs(numbers) < 2**53) and np.all(np.trunc(numbers) == numbers)
    return numbers.astype(np.int64) if whole else numbers
