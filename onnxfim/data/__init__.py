"""Samples and labels for an audit: arrays, tables, images and data sets, in files or in memory, and synthetic ones.

Every error of a user is an `InputError` in one line; a single bad sample is a `Skipped` among good ones.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxfim.data.arrays import gather, held_array
from onnxfim.data.class_labels import ClassOrder, class_order
from onnxfim.data.columns import Asked
from onnxfim.data.converting import Target
from onnxfim.data.iterables import as_array, column_names, from_iterable
from onnxfim.data.npy import Archive, HeldRows, RowSource, open_npy, open_npz
from onnxfim.data.preprocessing import Layout, Preprocessing
from onnxfim.data.samples import Choice, Samples, SampleShape, random_samples
from onnxfim.errors import InputError, lfs_pointer
from onnxfim.record.sample import Skipped

__all__ = ["Layout", "Preprocessing", "Samples", "Skipped", "from_arrays", "from_steps", "load", "random_samples"]

_KINDS = ".npz, .npy, .csv, .parquet or .tar, a folder of images, or a saved Hugging Face data set"
_DELIMITED, _COLUMNAR = (".csv", ".tsv"), (".parquet", ".arrow")


def load(
    path: str | Path,
    *,
    shape: SampleShape | None = None,
    dtype: npt.DTypeLike = np.float32,
    preprocessing: Preprocessing | None = None,
    inputs_key: str = "inputs",
    labels_key: str = "labels",
    labels_path: str | Path | None = None,
    limit: int | None = None,
    seed: int | None = None,
    input_name: str | None = None,
    held: Collection[str] = (),
    moved: Collection[str] = (),
    label_column: str | None = None,
    feature_columns: Sequence[str] = (),
    class_names: str | Sequence[str] | None = None,
) -> Samples:
    """Read samples from a file or a folder; only the selected ones are read.

    Args:
        path: An ``.npz`` or ``.npy`` file; a table, ``.csv``, ``.tsv``, ``.parquet`` or ``.arrow``; a folder of images, with the
            labels as sub-folders or in a ``labels.csv``; a folder that ``datasets.save_to_disk`` wrote; shards as WebDataset
            writes them: a ``.tar``, a folder of them, or ``name-{000..012}.tar``. What takes more than
            `onnxfim.data.lazy_rows.LAZY_BYTES` stays there and is read at need.
        shape: Shape of one sample as the model takes it, None for a dynamic size; None takes any shape.
        dtype: Element type of the model's input.
        preprocessing: What is done to the raw values; without it images are mapped to 0…1 and arrays stay as they are.
        inputs_key: Key of the samples in an ``.npz`` file.
        labels_key: Key of the labels there; ``labels`` may be missing, a key of another name may not.
        labels_path: An ``.npy`` file of labels for an ``.npy`` or ``.npz`` file of samples, or a table for a folder of images.
        limit: Take this many samples at most, those skipped included.
        seed: Draw the limited selection at random; None takes the first ones (images: draws with seed 0, since they
            are ordered by class).
        input_name: Name of the model's input: its key in an ``.npz`` file that has none called ``inputs``.
        held: Names of the model's other inputs, whose values an ``.npz`` file may hold under these keys.
        moved: Those of them that are perturbed too: samples whose values are not finite are skipped.
        label_column: The column of a table that holds the labels, by name or place; by default one that is called label.
        feature_columns: Those that are the model's input, in its order; by default all others.
        class_names: Names of the classes in the order of the model's outputs, or a file of them; labels may be such names.

    Raises:
        InputError: the data cannot be read or do not fit the model. One bad sample among good ones is skipped instead.
    """
    path = Path(path)
    target = Target(shape, np.dtype(dtype), preprocessing or Preprocessing())
    choice = Choice(limit, seed)
    order = None if class_names is None else class_order(class_names)
    asked = Asked(label_column, tuple(feature_columns), order)
    shards = _shards(path, labels_path)
    if shards is not None:
        from onnxfim.data.tar_shards import load_shards

        return load_shards(str(path), shards, target, choice, asked)
    _check_exists(path)
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return _load_dir(path, target, choice, asked, None if labels_path is None else Path(labels_path))
        if suffix in (".npz", ".npy"):
            _check_no_columns(path, asked)
        if suffix == ".npz":
            return _load_npz(
                path, target, choice, inputs_key=inputs_key, labels_key=labels_key, labels_path=labels_path, input_name=input_name,
                held=held, moved=moved, order=order,
            )  # fmt: skip
        if suffix == ".npy":
            return _load_npy(path, target, choice, labels_path=labels_path, order=order)
        if labels_path is not None and suffix in (*_DELIMITED, *_COLUMNAR):
            raise InputError(
                f"{path}: is a table, expected its labels in a column of it where labels are given. Name it with --label-column."
            )
        if suffix in _DELIMITED:
            from onnxfim.data.delimited import load_delimited

            return load_delimited(path, target, choice, asked)
        if suffix in _COLUMNAR:
            from onnxfim.data.columnar import load_columnar

            return load_columnar(path, target, choice, asked)
    except MemoryError as error:
        raise InputError(f"{path}: does not fit in memory, expected to hold the selection. Pass a smaller --samples.") from error
    raise InputError(
        f"{path}: has the suffix {path.suffix!r}, expected {_KINDS}. Save the samples with numpy.savez(path, inputs=…, labels=…)."
    )


def from_arrays(
    inputs: Any,
    labels: npt.ArrayLike | None = None,
    *,
    shape: SampleShape | None = None,
    dtype: npt.DTypeLike = np.float32,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    seed: int | None = None,
    held: Mapping[str, npt.ArrayLike] | None = None,
    moved: Collection[str] = (),
    class_names: Sequence[str] | None = None,
    source: str = "arrays in memory",
) -> Samples:
    """Take samples that are in memory, with the checks and the conversions of `load`; the arrays are not changed.

    ``inputs`` and ``labels`` may be arrays, tensors of any framework, lists, or frames, whose columns then name the features.
    ``held`` are each sample's own values of the model's other inputs, by their names; ``moved`` and ``class_names`` as of `load`.
    """
    try:
        X = as_array(inputs)
        y = None if labels is None else as_array(labels)
        others = {name: HeldRows(f"inputs[{name!r}]", held_array(name, values)) for name, values in (held or {}).items()}
    except (ValueError, InputError) as error:
        if isinstance(error, InputError) and not isinstance(error.__cause__, ValueError):
            raise
        raise InputError("inputs: rows differ in shape, expected a rectangular array. Pass one array (N, …).") from error
    target = Target(shape, np.dtype(dtype), preprocessing or Preprocessing())
    label_rows = None if y is None else HeldRows("labels", y)
    order = None if class_names is None else class_order(list(class_names))
    found = gather(
        HeldRows("inputs", X), label_rows, target, Choice(limit, seed), source=source, held=others, moved=moved, order=order
    )
    names = column_names(inputs)
    return replace(found, feature_names=names) if names is not None and found.inputs.shape[1:] == (len(names),) else found


def from_steps(
    items: Iterable[Any],
    *,
    shape: SampleShape | None = None,
    dtype: npt.DTypeLike = np.float32,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    input_name: str | None = None,
    held: Collection[str] = (),
    moved: Collection[str] = (),
    class_names: Sequence[str] | None = None,
) -> Samples:
    """Take the first samples of an iterable, such as a DataLoader, with the checks and conversions of `load`.

    Each step gives x, (x, y) or a dict, of one sample or of a batch: `onnxfim.data.iterables.from_iterable`. The other arguments
    are those of `load`.

    Raises:
        InputError: what comes are no samples, or do not fit the model.
    """
    target = Target(shape, np.dtype(dtype), preprocessing or Preprocessing())
    order = None if class_names is None else class_order(list(class_names))
    return from_iterable(
        items, target, Choice(limit), source=f"a {type(items).__name__} in memory", input_name=input_name, held=held, moved=moved,
        order=order,
    )  # fmt: skip


def _load_dir(path: Path, target: Target, choice: Choice, asked: Asked, labels_path: Path | None) -> Samples:
    """Samples of a folder: a data set of Hugging Face, Parquet files, or images."""
    from onnxfim.data.arrow_files import is_saved_dataset
    from onnxfim.data.columnar import load_columnar

    if labels_path is None and is_saved_dataset(path):
        return load_columnar(path, target, choice, asked)
    from onnxfim.data.images import load_folder
    from onnxfim.data.listed_labels import load_listed, table_beside

    table = table_beside(path) if labels_path is None else _label_table(path, labels_path)
    if table is not None:
        return load_listed(path, table, target, choice, asked)
    _check_no_columns(path, asked)
    return load_folder(path, target, choice, asked.order)


def _shards(path: Path, labels_path: str | Path | None) -> list[Path] | None:
    """The tar archives that ``path`` names, each of them there; None of other data."""
    from onnxfim.data.tar_index import shards_named

    shards = shards_named(path)
    if shards is None:
        return None
    if labels_path is not None:
        raise InputError(f"{path}: holds its labels beside the samples (KEY.cls, KEY.json), found --labels. Leave it out.")
    for shard in shards:
        _check_exists(shard)
    return shards


def _label_table(path: Path, labels_path: Path) -> Path:
    """The table of labels for a folder of images."""
    _check_exists(labels_path)
    if labels_path.suffix.lower() not in _DELIMITED:
        raise InputError(
            f"{path}: is a folder of images, whose labels are its sub-folders or stand in a table, found {labels_path.name!r}. "
            "Pass a .csv file with a file and a label in each line."
        )
    return labels_path


def _check_no_columns(path: Path, asked: Asked) -> None:
    if asked.label is not None or asked.features:
        raise InputError(
            f"{path}: has no columns, expected a table where columns are named. Leave out --label-column and --feature-columns."
        )


def _load_npz(
    path: Path, target: Target, choice: Choice, *, inputs_key: str, labels_key: str, labels_path: str | Path | None,
    input_name: str | None, held: Collection[str], moved: Collection[str], order: ClassOrder | None,
) -> Samples:  # fmt: skip
    with open_npz(path) as archive:
        if inputs_key == "inputs" and inputs_key not in archive.keys and input_name in archive.keys:
            inputs_key = str(input_name)
        inputs = archive.rows(inputs_key, option="--inputs-key")
        order = order or _names(archive, "class_names", held)
        others = {name: archive.rows(name, option="--feed") for name in held if name in archive.keys and name != inputs_key}
        with ExitStack() as files:
            if labels_path is not None:
                labels: RowSource | None = files.enter_context(open_npy(_label_file(labels_path)))
            elif labels_key == "labels" and labels_key not in archive.keys:
                labels = None
            else:
                labels = archive.rows(labels_key, option="--labels-key")
            found = gather(inputs, labels, target, choice, source=str(path), held=others, moved=moved, order=order)
        features = _names(archive, "feature_names", held)
        fitting = features is not None and found.inputs.shape[1:] == (len(features.names),)
        return replace(found, feature_names=features.names) if features is not None and fitting else found


def _names(archive: Archive, key: str, held: Collection[str]) -> ClassOrder | None:
    """The names that an archive holds under a key, where they are texts and no input is called so."""
    if key not in archive.keys or key in held:
        return None
    names = archive.rows(key, option="")
    if names.dtype.kind not in "US" or len(names.shape) != 1:
        return None
    return class_order([str(name) for name in names.take_all().astype(str)])


def _load_npy(path: Path, target: Target, choice: Choice, *, labels_path: str | Path | None, order: ClassOrder | None) -> Samples:
    with open_npy(path) as inputs:
        if labels_path is None:
            return gather(inputs, None, target, choice, source=str(path), order=order)
        with open_npy(_label_file(labels_path)) as labels:
            return gather(inputs, labels, target, choice, source=str(path), order=order)


def _label_file(path: str | Path) -> Path:
    path = Path(path)
    _check_exists(path)
    if path.suffix.lower() != ".npy" or path.is_dir():
        raise InputError(f"{path}: is no .npy file, expected the labels in one. Save them with numpy.save.")
    return path


def _check_exists(path: Path) -> None:
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file or folder, expected {_KINDS}. Check the path.")
    if path.is_dir():
        return
    if not path.is_file():
        raise InputError(f"{path}: is neither a file nor a folder, expected one of them. Save the data to a file first.")
    with suppress(OSError), path.open("rb") as file:  # what cannot be read is told by who reads it
        if (pointer := lfs_pointer(file.read(200))) is not None:
            raise InputError(f"{path}: {pointer}")
