"""CSV and its kin: the delimiter and the names of columns found, rows read one after another, each fault told of its row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfim.data.class_labels import MOST_CLASSES, ClassOrder, alphabetical, is_number
from onnxfim.data.columns import Asked, Picked, TableRows, as_labels, label_of, pick, table_samples
from onnxfim.data.converting import Target
from onnxfim.data.samples import Array, Choice, Indices, Samples, one_line
from onnxfim.data.stored_rows import Collected, FileRows
from onnxfim.errors import InputError

_DELIMITERS = ",;\t|"
_LINE = 32 * 2**20  # letters of a line
_MOST_COLUMNS = 2**20
_AT_ONCE = 256  # rows
_TRIED = 20  # lines, that the delimiter is found by
_WIDTH = 40  # letters of a cell in a message
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?"))
_TRUTH = {"true": 1.0, "false": 0.0}
_WHOLE = re.compile(r"[+-]?\d+")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?|[+-]?\d{1,3}(?:[.,]\d{3})+[.,]\d+")


@dataclass(frozen=True)
class TextTable:
    """A table in a text file: ``names`` of its columns (None without a header), and how many it has."""

    path: Path
    delimiter: str
    names: tuple[str, ...] | None
    width: int

    def rows(self) -> Iterator[list[str]]:
        """The cells of each row, blank lines and the header left out.

        Raises:
            InputError: no UTF-8, a line that is too long, a quote that is not closed.
        """
        rows = _cells(self.path, self.delimiter)
        if self.names is not None:
            next(rows)
        yield from rows


def load_delimited(path: Path, target: Target, choice: Choice, asked: Asked) -> Samples:
    """Samples and labels from a CSV file; a row is a sample, and a row with a fault is skipped for it.

    Raises:
        InputError: the file cannot be read, a column that is named is not there, all rows are faulty, or the rows do not fit the
            model.
    """
    table = open_table(path, asked)
    picked = pick(str(path), table.names, table.width, asked, target.shape)
    if not picked.features:
        raise InputError(
            f"{path}: has no column beside the label, expected the features. Check its delimiter, which is {table.delimiter!r}."
        )
    total = None if choice.seed is None or choice.limit is None else sum(1 for _ in table.rows())
    rows, words = _read(table, picked, choice, total, asked.order, target.dtype)
    order = asked.order or alphabetical(str(path), words)
    return table_samples(rows, target, choice, asked, order, source=str(path))


def open_table(path: Path, asked: Asked) -> TextTable:
    """Find a table's delimiter, and whether its first line names the columns."""
    lines = []
    for line in _lines(path):
        if line.strip():
            lines.append(line)
        if len(lines) == _TRIED:
            break
    delimiter = _delimiter(lines)
    first = next(_cells(path, delimiter), None)
    if first is None:
        raise InputError(f"{path}: is empty, expected a row for each sample. Check how it was saved.")
    if len(first) > _MOST_COLUMNS:
        raise InputError(
            f"{path}: has {len(first):,} columns, expected at most {_MOST_COLUMNS:,}. Save the samples as an .npz file."
        )
    second = next(iter(csv.reader(lines[1:2], delimiter=delimiter)), [])
    named = _is_header(first, second, asked)
    return TextTable(path, delimiter, tuple(name.strip() for name in first) if named else None, len(first))


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file, none of them of any length."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while line := file.readline(_LINE + 1):
                if len(line) > _LINE:
                    raise InputError(
                        f"{path}: has a line of more than {_LINE:,} letters, expected a row for each sample. Check how it was "
                        "saved."
                    )
                yield line
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}), expected a CSV file. Save it as UTF-8.") from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be opened ({error.strerror or error}), expected a readable file. Check the permissions."
        ) from error


def _cells(path: Path, delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(_lines(path), delimiter=delimiter)
    try:
        for cells in reader:
            if cells and any(map(str.strip, cells)):
                yield cells
    except csv.Error as error:
        raise InputError(
            f"{path}: line {reader.line_num} cannot be read ({one_line(error)}), expected cells with {delimiter!r} between them. "
            "Look for a quotation mark that is not closed."
        ) from error


def _delimiter(lines: Sequence[str]) -> str:
    """The delimiter that makes rows of one length, most of them numbers; a comma where none does."""

    def worth(delimiter: str) -> tuple[float, float, int]:
        rows = list(csv.reader(lines, delimiter=delimiter))
        width = len(rows[0]) if rows else 0
        if width < 2:
            return 0.0, 0.0, 0
        cells = [cell.strip() for row in rows[1:] or rows for cell in row]
        numbers = sum(_number(cell) is not None or bool(_DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
        return sum(len(row) == width for row in rows) / len(rows), numbers / max(len(cells), 1), width

    try:
        return max(_DELIMITERS, key=worth)  # the first of those that are equal
    except csv.Error:  # the reader tells of it, with its line
        return ","


def _is_header(first: Sequence[str], second: Sequence[str], asked: Asked) -> bool:
    """Whether the first line names the columns: a column is asked for by such a name, no cell is a number, or they count from 0."""
    cells = [cell.strip() for cell in first]
    if any(name in cells and not _WHOLE.fullmatch(name) for name in (asked.label, *asked.features) if name is not None):
        return True
    numbers = [cell for cell in cells if _number(cell) is not None]
    counted = len(numbers) >= 4 and numbers == [str(i) for i in range(len(numbers))] and list(first) != list(second)
    return not numbers or counted


def _number(cell: str) -> float | None:
    """A cell as a number; None where it is none. ``nan`` is missing, and no number."""
    try:
        value = float(cell)
    except ValueError:
        return _TRUTH.get(cell.strip().lower())
    return None if value != value or "_" in cell else value


def _read(
    table: TextTable, picked: Picked, choice: Choice, total: int | None, order: ClassOrder | None, dtype: np.dtype[Any]
) -> tuple[TableRows, Iterable[str]]:
    """The chosen rows, and what the label's column holds: in all rows where that is words without an ``order``."""
    chosen: Indices | None = None if total is None else choice.of(total)
    wanted = None if chosen is None else set(chosen.tolist())
    names = [table.names[i] if table.names else f"{i}" for i in picked.features]
    values = _NumberRows(str(table.path))
    labels: list[str | None] = []
    faults: dict[int, str] = {}
    bad = np.zeros(len(picked.features), np.int64)
    words: set[str] = set()
    whole, indices, wordy = True, [], False
    for i, cells in enumerate(table.rows()):
        label = None if picked.label is None or picked.label >= len(cells) else label_of(cells[picked.label])
        if label and order is None and len(words) <= MOST_CLASSES:
            words.add(label)
            wordy = wordy or not is_number(label)
        enough = choice.limit is not None and len(labels) >= choice.limit
        if enough if wanted is None else i not in wanted:
            # What is left is read for the words among the labels alone: their order is that of all.
            if enough and not wordy:
                break
            continue
        indices.append(i)
        fault, row, column = _row(cells, picked, table.width, names)
        if picked.label is not None and fault is None and not label:
            fault = "has no label"
        if fault is not None:
            faults[i] = fault
            if column is not None:
                _refuse_decimal_comma(table, names[column], cells[picked.features[column]])
                bad[column] += 1
        else:
            whole = whole and all(map(_WHOLE.fullmatch, (cells[f].strip() for f in picked.features)))
        values.add(row)
        labels.append(label)
    if not labels:
        raise InputError(f"{table.path}: holds no row below its header, expected a row for each sample. Check how it was saved.")
    if len(faults) == len(labels) and bad.max(initial=0) > 0:
        worst = int(np.argmax(bad))
        raise InputError(
            f"{table.path}: column {names[worst]!r} holds no number ({faults[indices[0]]}), expected numbers in every feature. "
            "Encode it as in "
            "training, or name the model's columns with --feature-columns."
        )
    # Text has no element type: as the model's, which most data are kept in, for the hash is of the values.
    X = values.rows(whole=whole, otherwise=np.dtype(np.float32) if dtype == np.float32 else None)
    rows = TableRows(
        str(table.path), X, np.array(indices, np.int64), total or len(labels), _labels(labels, picked, order),
        faults, tuple(names) if table.names else None,
    )  # fmt: skip
    return rows, words


class _NumberRows:
    """Rows of numbers that come one by one; where they are many, in a temporary file."""

    def __init__(self, where: str) -> None:
        self._rows, self._all = list[Array](), Collected(where)
        self._exact = True

    def add(self, row: Array) -> None:
        """The next row, float64."""
        self._rows.append(row)
        if len(self._rows) == _AT_ONCE:
            self._collect()

    def _collect(self) -> None:
        if self._rows:
            part = np.stack(self._rows)
            self._exact = self._exact and not np.isnan(part).any() and bool(np.abs(part).max(initial=0) < 2**53)
            self._all.add(part)
            self._rows = []

    def rows(self, *, whole: bool, otherwise: np.dtype[Any] | None) -> Array | FileRows:
        """All rows: as whole numbers where they are ``whole`` and float64 holds them, else in another type, None leaves float64."""
        self._collect()
        return self._all.rows(np.int64 if whole and self._exact else otherwise)


def _labels(labels: Sequence[str | None], picked: Picked, order: ClassOrder | None) -> Array | None:
    """Labels of rows, numbers where all of them are; but names of classes are names, be they ``True`` or ``7``."""
    if picked.label is None:
        return None
    numbers = [_number(label) if label else 0.0 for label in labels]
    named = order is not None and {label for label in labels if label} <= set(order.names)
    return as_labels(labels if named or None in numbers else numbers)


def _row(cells: Sequence[str], picked: Picked, width: int, names: Sequence[str]) -> tuple[str | None, Array, int | None]:
    """A row's fault and where it is, or None, and its numbers; NaN where it has a fault."""
    nothing = np.full(len(picked.features), np.nan)
    if len(cells) != width:
        return f"has {len(cells)} cell{'' if len(cells) == 1 else 's'}, expected {width} as the first row has", nothing, None
    texts = [cells[f] for f in picked.features]
    try:
        row = np.array(list(map(float, texts)))
        if not np.isnan(row).any() and not any("_" in text for text in texts):
            return None, row, None
    except ValueError:
        pass
    found = [_number(text) for text in texts]
    if None not in found:
        return None, np.array(found, np.float64), None
    column = found.index(None)
    text = texts[column].strip()
    if text.lower() in _MISSING:
        return f"has no value in column {names[column]!r}", nothing, column
    shown = text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
    return f"holds {shown!r} in column {names[column]!r}, which is no number", nothing, column


def _refuse_decimal_comma(table: TextTable, name: str, cell: str) -> None:
    if _DECIMAL_COMMA.fullmatch(cell.strip()):
        raise InputError(
            f"{table.path}: column {name!r} holds {cell.strip()!r}, a number with a comma, expected decimal points and no commas "
            "for "
            "thousands: either reading may be wrong. Save it with decimal points."
        )
