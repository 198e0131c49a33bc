"""Parquet files and data sets on disk: chosen rows of columns, numbers or pictures; with `arrow_files.py`, the home of pyarrow.

No code of a data set runs, nothing is unpickled and nothing is fetched: what is read are Arrow's own formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxfim.data.arrow_files import Arrow, Shards, readable, shards_of
from onnxfim.data.class_labels import ClassOrder, alphabetical, class_labels
from onnxfim.data.columns import Asked, TableRows, as_labels, label_of, pick, table_samples
from onnxfim.data.converting import Target
from onnxfim.data.decoding import Picture, decoded
from onnxfim.data.samples import Array, Choice, Indices, Samples, listed
from onnxfim.data.stored_rows import Collected
from onnxfim.errors import InputError


def load_columnar(path: Path, target: Target, choice: Choice, asked: Asked) -> Samples:
    """Samples and labels from a Parquet or Arrow file, a folder of Parquet files, or a folder that ``datasets.save_to_disk`` wrote.

    Numbers of a row are a sample: one in each column, or a list of one length in a single column; or a row holds a picture.

    Raises:
        InputError: no pyarrow, a file that is damaged, columns that are not there or hold something else; a row with a missing
            value is skipped.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise InputError(
            f"{path}: pyarrow is not installed, expected for Parquet and Arrow files. Run: pip install 'onnxfim[tables]'."
        ) from error
    with ExitStack() as files, readable(path, pa):
        shards = shards_of(path, files)
        if shards.total == 0:
            raise InputError(f"{path}: has no rows, expected a row for each sample. Check how it was saved.")
        return _samples(shards, target, choice, asked)


def _samples(shards: Shards, target: Target, choice: Choice, asked: Asked) -> Samples:
    names = list(shards.schema.names)
    label, features = _columns(shards, target, asked)
    told = shards.described.get(label, {}) if label is not None else {}
    order = asked.order
    if order is None and isinstance(told, dict) and isinstance(told.get("names"), list):
        order = ClassOrder(tuple(map(str, told["names"])))
    if order is None and label is not None and not _is_numeric(shards.schema.field(label).type):
        order = alphabetical(shards.where, _words(shards, label))
    kinds = {name: _kind(shards.schema.field(name).type) for name in features}
    if other := next((n for n, kind in kinds.items() if kind == "other"), None):
        raise InputError(
            f"{shards.where}: column {other!r} holds {shards.schema.field(other).type}, expected numbers, lists of numbers or "
            "pictures. "
            f"Name the model's columns with --feature-columns, of {listed(names)}."
        )
    if len(features) > 1 and set(kinds.values()) != {"number"}:
        raise InputError(
            f"{shards.where}: columns {listed(features, 4)} hold {' and '.join(sorted(set(kinds.values())))}s, "
            "expected "
            "columns of numbers, or one of lists or pictures. Name it with --feature-columns."
        )
    if set(kinds.values()) == {"picture"}:
        return _pictures(shards, features[0], label, target, choice, order)
    rows = _rows(shards, features, label, choice, lists=set(kinds.values()) == {"list"})
    return table_samples(rows, target, choice, asked, order, source=shards.where)


def _columns(shards: Shards, target: Target, asked: Asked) -> tuple[str | None, list[str]]:
    """Names of the label's column and of the features'."""
    names = list(shards.schema.names)
    kinds = [_kind(shards.schema.field(i).type) for i in range(len(names))]
    classes = [n for n in names if isinstance(d := shards.described.get(n), dict) and d.get("_type") == "ClassLabel"]
    if asked.label is None and classes:
        if len(classes) > 1:
            raise InputError(f"{shards.where}: has labels in {listed(classes)}, expected one. Name it with --label-column.")
        asked = replace(asked, label=classes[0])
    others = [i for i, kind in enumerate(kinds) if kind in ("picture", "list") and names[i] != asked.label]
    if not asked.features and len(others) == 1:  # a picture, or an array, beside what else is told of it
        asked = replace(asked, features=(names[others[0]],))
    picked = pick(shards.where, names, len(names), asked, target.shape)
    if not picked.features:
        raise InputError(f"{shards.where}: has no column beside the label, expected the features. Pass another file.")
    return None if picked.label is None else names[picked.label], [names[i] for i in picked.features]


def _is_numeric(kind: Arrow) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def _is_list(kind: Arrow) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _kind(kind: Arrow) -> str:
    """What a column of this type can be: number, list (of numbers), picture, or other."""
    from pyarrow import types

    kind = getattr(kind, "storage_type", kind)
    if _is_numeric(kind):
        return "number"
    if _is_list(kind):
        return "list" if _kind(kind.value_type) in ("number", "list") else "other"
    if types.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return "picture" if "bytes" in fields and types.is_binary(fields["bytes"]) else "other"
    return "picture" if types.is_binary(kind) or types.is_large_binary(kind) else "other"


def _words(shards: Shards, label: str) -> Iterator[str]:
    for batch in shards.batches([label]):
        yield from (label_of(str(v)) for v in batch.column(0).unique().to_pylist() if v is not None)


def _chosen(shards: Shards, columns: Sequence[str], chosen: Indices) -> Iterator[tuple[Indices, Arrow]]:
    """The chosen rows of some columns, batch by batch, with their places."""
    import pyarrow as pa

    start = 0
    for batch in shards.batches(columns):
        here = chosen[(chosen >= start) & (chosen < start + batch.num_rows)]
        if len(here):
            yield here, batch.take(pa.array(here - start))
        start += batch.num_rows
        if not len(chosen) or start > chosen[-1]:
            return
    raise InputError(f"{shards.where}: ends after {start} rows, expected {shards.total}. Copy it again, or save it again.")


def _rows(shards: Shards, features: Sequence[str], label: str | None, choice: Choice, *, lists: bool) -> TableRows:
    """The chosen rows of columns of numbers, or of one of lists."""
    chosen = choice.of(shards.total)
    parts, shapes = Collected(shards.where), set[tuple[int, ...]]()
    labels: list[object] = []
    faults: dict[int, str] = {}
    for here, batch in _chosen(shards, list(dict.fromkeys((*features, *([] if label is None else [label])))), chosen):
        columns = [_storage(batch.column(name)) for name in features]
        for name, column in zip(features, columns, strict=True):
            empty = column.is_null().to_numpy(zero_copy_only=False)
            faults |= {int(here[i]): f"has no value in column {name!r}" for i in np.flatnonzero(empty)}
        part = _lists(shards, features[0], columns[0]) if lists else np.stack([_numbers(c) for c in columns], axis=1)
        shapes.add(part.shape[1:])
        if len(shapes) > 1:
            raise _ragged(shards, features[0])
        parts.add(part)
        if label is not None:
            values = batch.column(label).to_pylist()
            for i, value in zip(here, values, strict=True):
                if _is_unlabelled(shards, label, value):
                    faults[int(i)] = "has no label"
                    labels.append(None)
                else:
                    labels.append(value if isinstance(value, str) else float(value))
    named = None if lists else tuple(features)
    return TableRows(shards.where, parts.rows(), chosen, shards.total, None if label is None else as_labels(labels), faults, named)


def _is_unlabelled(shards: Shards, label: str, value: Any) -> bool:
    """Whether a row has no label: nothing, NaN, a text for these, or what a `ClassLabel` of Hugging Face has for none."""
    if isinstance(value, str):
        return not label_of(value)
    told = shards.described.get(label)
    return value is None or value != value or (value == -1 and isinstance(told, dict) and told.get("_type") == "ClassLabel")


def _storage(column: Arrow) -> Arrow:
    """A column's values without an extension type around them."""
    return getattr(column, "storage", column)


def _numbers(column: Arrow) -> Array:
    """A column of numbers; missing ones are NaN, true and false 1 and 0."""
    from pyarrow import types

    if types.is_boolean(column.type):
        column = column.cast("int64")
    elif types.is_decimal(column.type):
        column = column.cast("float64")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _lists(shards: Shards, name: str, column: Arrow) -> Array:
    """A column of lists as an array (n, …); rows that have none are NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    empty = column.is_null().to_numpy(zero_copy_only=False)
    good = column.filter(pa.array(~empty))
    shape: list[int] = [len(good)]
    while _is_list(good.type):
        lengths = pc.min_max(pc.list_value_length(good)).as_py()
        if good.null_count or lengths["min"] != lengths["max"] or lengths["max"] is None:
            raise _ragged(shards, name)
        shape.append(int(lengths["max"]))
        good = good.flatten()
    values = _numbers(good).reshape(shape)
    if not empty.any():
        return values
    out = np.full((len(empty), *shape[1:]), np.nan)
    out[~empty] = values
    return out


def _ragged(shards: Shards, name: str) -> InputError:
    return InputError(
        f"{shards.where}: lists of column {name!r} differ in length or lack values, expected one shape. Pad or resize them before."
    )


def _pictures(shards: Shards, column: str, label: str | None, target: Target, choice: Choice, order: ClassOrder | None) -> Samples:
    """The chosen rows' pictures; as in folders they are drawn where not all are taken, for they may lie ordered by class."""
    chosen = Choice(choice.limit, choice.seed or 0).of(shards.total)
    labels: dict[int, object] = {}
    faults: dict[int, str] = {}

    def entries() -> Iterator[Picture]:
        for here, batch in _chosen(shards, [column, *([] if label is None else [label])], chosen):
            cells = _storage(batch.column(column)).to_pylist()
            given = [None] * len(here) if label is None else batch.column(label).to_pylist()
            for i, cell, value in zip(map(int, here), cells, given, strict=True):
                labels[i] = value
                if label is not None and _is_unlabelled(shards, label, value):
                    faults[i] = f"row {i} has no label"
                path = cell.get("path") if isinstance(cell, dict) else None
                name = f"{i} {Path(path).name}" if isinstance(path, str) and path else f"{i}"
                yield Picture(i, name, partial(_bytes_of, cell))

    found = decoded(shards.where, entries(), len(chosen), target, faults=faults)
    source = f"{shards.where}: {len(chosen)} of {shards.total} images"
    if label is None:
        return found.samples(source, target, None, order, by_class=True)
    raw = as_labels([labels[i] for i in found.kept])
    classes = class_labels(f"{shards.where}[{label}]", raw, np.array(found.kept, np.int64), order)
    told = [labels[int(i)] for i in chosen]
    return found.samples(source, target, classes.indices, classes.order, by_class=True, told=told)


def _bytes_of(cell: object) -> bytes:
    """The bytes of a picture; a file that is only named is not opened."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise OSError(
            "the row names a file instead of holding its bytes; save the data set with its images"
            if content is None and cell
            else "the row is empty"
        )
    return content
