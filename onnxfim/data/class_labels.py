"""Labels as class indices: numbers as they are, words by the order of the classes, which somebody gives or the alphabet does."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxfim.data.samples import Array, Indices, Samples, listed, one_line, shape_text
from onnxfim.errors import InputError

#: What kinds of arrays hold that are no numbers.
NO_NUMBERS = {"b": "true and false", "c": "complex numbers", "S": "text", "U": "text", "V": "records or an unknown number format"}
MOST_CLASSES = 100_000
"""Different words among labels; more of them are no classes."""
_MOST_BYTES = 8 * 2**20  # of a file of class names
_ORDER = "Name the classes in the order of the model's outputs with --class-names"


@dataclass(frozen=True)
class ClassOrder:
    """Names of the classes in the order of their indices; ``guessed`` where it is the alphabet's for want of another."""

    names: tuple[str, ...]
    guessed: bool = False


@dataclass(frozen=True)
class ClassLabels:
    """Class indices (N,), and the order that they are of, where it is known."""

    indices: Indices
    order: ClassOrder | None


def alphabetical(where: str, labels: Iterable[str]) -> ClassOrder | None:
    """The words among labels in the alphabet's order, so that it is the same for every part of the data; None of numbers.

    Raises:
        InputError: so many different words that they are no classes.
    """
    found: set[str] = set()
    for label in labels:
        found.add(label.strip())
        if len(found) > MOST_CLASSES:
            raise InputError(
                f"{where}: labels are more than {MOST_CLASSES:,} different words, expected classes. Name another column."
            )
    found.discard("")
    return None if all(map(is_number, found)) else ClassOrder(tuple(sorted(found)), guessed=True)


def class_labels(where: str, raw: Array, at: Indices, order: ClassOrder | None = None) -> ClassLabels:
    """Labels as int64 class indices.

    Args:
        where: What holds them, for messages.
        raw: Whole numbers (N,) or (N, 1), one-hot rows (N, K), or words (N,).
        at: Position of each in the data, for messages.
        order: The classes' names, in the order of the model's outputs. Words without it are numbered as the alphabet has them.

    Raises:
        InputError: labels that are no classes, or none of ``order``.
    """
    if not are_words(raw) or (raw.ndim != 1 and raw.shape[1:] != (1,)):
        return _numbered(where, _whole_numbers(where, raw, at), at, order)
    texts = [text.strip() for text in raw.reshape(-1).astype(str).tolist()]
    if order is None:
        order = alphabetical(where, texts)
    places = {} if order is None else {name: i for i, name in enumerate(order.names)}
    missing = next((i for i, text in enumerate(texts) if text not in places), None)
    if missing is None and order is not None:
        return ClassLabels(np.array([places[text] for text in texts], np.int64), order)
    if all(map(is_number, texts)):
        return _numbered(where, _whole_numbers(where, np.array(texts, np.float64), at), at, order)
    assert missing is not None
    assert order is not None
    raise InputError(
        f"{where}: label {texts[missing]!r} of sample {at[missing]} is none of the classes: {_near(texts[missing], order)}. "
        f"{_ORDER}."
    )


def are_words(raw: Array) -> bool:
    """Whether all labels are texts; a frame holds texts as objects."""
    return raw.dtype.kind in "US" or (raw.dtype.kind == "O" and all(isinstance(v, str) for v in raw.ravel().tolist()))


def class_order(given: str | Sequence[str]) -> ClassOrder:
    """The order of classes that a user gives: names, a text of them with commas between, or the path of a file.

    A file holds a name a line; ``.json`` a list of names, or an object that has ``id2label``, as a Hugging Face ``config.json``.

    Raises:
        InputError: no names, one that comes twice, or a file that cannot be read.
    """
    if isinstance(given, str):
        # A name without a comma is no list of classes, so it can only be a file's.
        names = (
            _from_file(Path(given)) if "," not in given else [n.strip() for n in next(csv.reader([given], skipinitialspace=True))]
        )
    else:
        names = [str(name) for name in given]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise InputError(f"class names: {twice!r} comes twice, expected a name for each class. Give each its own.")
    if not names or not all(names):
        raise InputError(f"class names: found {len(names)} with an empty one among them, expected a name for each class. {_ORDER}.")
    return ClassOrder(tuple(names))


def in_order_of(samples: Samples, names: Sequence[str] | None) -> Samples:
    """The samples with their classes in the model's own order, where theirs is a guess and all of them are among the model's."""
    if names is None or samples.labels is None or samples.class_names is None or not samples.classes_guessed:
        return samples
    if not set(samples.class_names) <= set(names):
        return samples
    places = np.array([list(names).index(name) for name in samples.class_names], np.int64)
    return replace(samples, labels=places[samples.labels], class_names=tuple(names), classes_guessed=False)


def _from_file(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: has over {_MOST_BYTES:,} bytes, expected a file of class names, one a line.")
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix.lower() != ".json":
            return [line.strip() for line in text.splitlines() if line.strip()]
        record = json.loads(text)
    except OSError as error:
        raise InputError(
            f"class names: {str(path)!r} is no list with commas, and no file that can be read ({error.strerror or error}). "
            "Pass a,b,c, or a file with a name a line."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}), expected class names. Write a name a line, in UTF-8."
        ) from error
    if isinstance(record, dict):
        record = record.get("id2label", record)
    if isinstance(record, dict) and all(str(i) in record for i in range(len(record))):
        record = [record[str(i)] for i in range(len(record))]
    if not isinstance(record, list) or not all(isinstance(name, str) for name in record):
        raise InputError(f'{path}: holds no class names, expected a list of texts, or {{"id2label": {{"0": "name", …}}}}.')
    return record


def _near(label: str, order: ClassOrder) -> str:
    import difflib  # for a message alone

    near = difflib.get_close_matches(label, order.names, 1)
    return listed(order.names) + (f"; the nearest is {near[0]!r}" if near else "")


def is_number(text: str) -> bool:
    """Whether a label is a number and no word; ``1_0``, which Python reads as 10, is a word."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _numbered(where: str, indices: Indices, at: Indices, order: ClassOrder | None) -> ClassLabels:
    """Labels that are numbers; names that others gave must be enough."""
    if order is not None and indices.size and indices.max() >= len(order.names):
        worst = int(np.argmax(indices))
        raise InputError(
            f"{where}: label {indices[worst]} of sample {at[worst]} has no name, found {len(order.names)} class names. "
            f"{_ORDER}, one for each."
        )
    return ClassLabels(indices, order)


def _whole_numbers(where: str, raw: Array, at: Indices) -> Indices:
    """Labels as int64 class indices, from whole numbers (N,) or (N, 1), or from one-hot rows (N, K)."""
    if raw.ndim == 2 and raw.shape[1] != 1:
        if raw.dtype.kind in "bfiu" and np.all((raw == 0) | (raw == 1)) and np.all(np.sum(raw != 0, axis=1) == 1):
            return np.asarray(np.argmax(raw, axis=1), np.int64)
        raise InputError(
            f"{where}: labels have shape {shape_text(raw.shape[1:], batched=True)}, not one-hot, expected class indices (N,). "
            "Pass argmax over the last axis, if they are scores; one column, if they are labels of several outputs."
        )
    raw = raw.reshape(-1)
    if raw.dtype.kind not in "fiu":
        raise InputError(
            f"{where}: labels are {NO_NUMBERS.get(raw.dtype.kind, 'no numbers')} ({raw.dtype}), expected class indices. "
            "Number the classes from 0 in the order of the model's outputs."
        )
    if raw.dtype.kind == "f":
        raw = raw.astype(np.float64)
    # 2**53: beyond it not every float64 is the whole number it looks like, and no model has as many classes.
    bad = np.flatnonzero(~((raw >= 0) & (raw <= 2**53) & (raw == np.trunc(raw))))
    if bad.size:
        raise InputError(
            f"{where}: label {raw[bad[0]]:g} of sample {at[bad[0]]} is no class index, expected whole numbers from 0. "
            "Number the classes from 0, and leave out samples without a label."
        )
    return raw.astype(np.int64)
