"""Samples and labels for an audit: .npz and .npy files, folders of images, arrays in memory, synthetic ones.

Every error of a user is an `InputError` in one line; a single bad sample is a `Skipped` among good ones.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxfim.data.arrays import Target, gather, held_array
from onnxfim.data.npy import HeldRows, open_npy, open_npz
from onnxfim.data.preprocessing import Layout, Preprocessing
from onnxfim.data.samples import Choice, Samples, SampleShape, random_samples
from onnxfim.errors import InputError, lfs_pointer
from onnxfim.record.sample import Skipped

__all__ = ["Layout", "Preprocessing", "Samples", "Skipped", "from_arrays", "load", "random_samples"]


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
) -> Samples:
    """Read samples from an ``.npz`` or ``.npy`` file or a folder of images; only the selected ones are read.

    Args:
        path: File or folder.
        shape: Shape of one sample as the model takes it, None for a dynamic size; None takes any shape.
        dtype: Element type of the model's input.
        preprocessing: What is done to the raw values; without it images are mapped to 0…1 and arrays stay as they are.
        inputs_key: Key of the samples in an ``.npz`` file.
        labels_key: Key of the labels there; ``labels`` may be missing, a key of another name may not.
        labels_path: An ``.npy`` file of labels for an ``.npy`` or ``.npz`` file of samples.
        limit: Take this many samples at most, those skipped included.
        seed: Draw the limited selection at random; None takes the first ones (images: draws with seed 0, since they
            are ordered by class).
        input_name: Name of the model's input: its key in an ``.npz`` file that has none called ``inputs``.
        held: Names of the model's other inputs, whose values an ``.npz`` file may hold under these keys.
        moved: Those of them that are perturbed too: samples whose values are not finite are skipped.

    Raises:
        InputError: the data cannot be read or do not fit the model. One bad sample among good ones is skipped instead.
    """
    path = Path(path)
    target = Target(shape, np.dtype(dtype), preprocessing or Preprocessing())
    choice = Choice(limit, seed)
    _check_exists(path)
    try:
        if path.is_dir():
            from onnxfim.data.images import load_folder

            _check_no_labels_path(path, labels_path)
            return load_folder(path, target, choice)
        if path.suffix.lower() == ".npz":
            return _load_npz(
                path, target, choice, inputs_key=inputs_key, labels_key=labels_key, labels_path=labels_path, input_name=input_name,
                held=held, moved=moved,
            )  # fmt: skip
        if path.suffix.lower() == ".npy":
            return _load_npy(path, target, choice, labels_path=labels_path)
    except MemoryError as error:
        raise InputError(f"{path}: does not fit in memory, expected to hold the selection. Pass a smaller --samples.") from error
    raise InputError(
        f"{path}: has the suffix {path.suffix!r}, expected .npz, .npy or a folder of images. "
        "Save the samples with numpy.savez(path, inputs=…, labels=…)."
    )


def from_arrays(
    inputs: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    shape: SampleShape | None = None,
    dtype: npt.DTypeLike = np.float32,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    seed: int | None = None,
    held: Mapping[str, npt.ArrayLike] | None = None,
    moved: Collection[str] = (),
) -> Samples:
    """Take samples that are in memory, with the checks and the conversions of `load`; the arrays are not changed.

    ``held`` are each sample's own values of the model's other inputs, by their names; ``moved`` as of `load`.
    """
    try:
        X = np.asarray(inputs)
        y = None if labels is None else np.asarray(labels)
        others = {name: HeldRows(f"inputs[{name!r}]", held_array(name, values)) for name, values in (held or {}).items()}
    except ValueError as error:
        raise InputError("inputs: rows differ in shape, expected a rectangular array. Pass one array (N, …).") from error
    target = Target(shape, np.dtype(dtype), preprocessing or Preprocessing())
    label_rows = None if y is None else HeldRows("labels", y)
    return gather(
        HeldRows("inputs", X), label_rows, target, Choice(limit, seed), source="arrays in memory", held=others, moved=moved
    )


def _load_npz(
    path: Path, target: Target, choice: Choice, *, inputs_key: str, labels_key: str, labels_path: str | Path | None,
    input_name: str | None, held: Collection[str], moved: Collection[str],
) -> Samples:  # fmt: skip
    with open_npz(path) as archive:
        if inputs_key == "inputs" and inputs_key not in archive.keys and input_name in archive.keys:
            inputs_key = str(input_name)
        inputs = archive.rows(inputs_key, option="--inputs-key")
        others = {name: archive.rows(name, option="--feed") for name in held if name in archive.keys and name != inputs_key}
        if labels_path is not None:
            with open_npy(_label_file(labels_path)) as labels:
                return gather(inputs, labels, target, choice, source=str(path), held=others, moved=moved)
        if labels_key == "labels" and labels_key not in archive.keys:
            return gather(inputs, None, target, choice, source=str(path), held=others, moved=moved)
        labels_of = archive.rows(labels_key, option="--labels-key")
        return gather(inputs, labels_of, target, choice, source=str(path), held=others, moved=moved)


def _load_npy(path: Path, target: Target, choice: Choice, *, labels_path: str | Path | None) -> Samples:
    with open_npy(path) as inputs:
        if labels_path is None:
            return gather(inputs, None, target, choice, source=str(path))
        with open_npy(_label_file(labels_path)) as labels:
            return gather(inputs, labels, target, choice, source=str(path))


def _label_file(path: str | Path) -> Path:
    path = Path(path)
    _check_exists(path)
    if path.suffix.lower() != ".npy" or path.is_dir():
        raise InputError(f"{path}: is no .npy file, expected the labels in one. Save them with numpy.save.")
    return path


def _check_exists(path: Path) -> None:
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file or folder, expected an .npz or .npy file or a folder of images. Check the path.")
    if path.is_dir():
        return
    if not path.is_file():
        raise InputError(f"{path}: is neither a file nor a folder, expected one of them. Save the data to a file first.")
    with suppress(OSError), path.open("rb") as file:  # what cannot be read is told by who reads it
        if (pointer := lfs_pointer(file.read(200))) is not None:
            raise InputError(f"{path}: {pointer}")


def _check_no_labels_path(folder: Path, labels_path: str | Path | None) -> None:
    if labels_path is not None:
        raise InputError(
            f"{folder}: is a folder, whose sub-folders are its classes, but labels are given in {labels_path}. "
            "Leave the file of labels out, or pass the samples as an .npy file."
        )
