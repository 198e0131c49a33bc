"""Images whose labels stand in a table beside them: a line for each, its file and its class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxfim.data.class_labels import alphabetical, class_labels
from onnxfim.data.columns import LABEL_NAMES, Asked, label_of, place_of
from onnxfim.data.converting import Target
from onnxfim.data.delimited import open_table
from onnxfim.data.images import Listing, images_below, listed_images
from onnxfim.data.samples import Choice, Samples
from onnxfim.errors import InputError

#: Tables that are looked for in a folder of images; the second is that of Hugging Face's image folders.
NAMES = ("labels.csv", "metadata.csv")
_FILE_NAMES = ("file", "file_name", "filename", "image", "path", "id", "image_id", "name")


def table_beside(folder: Path) -> Path | None:
    """The table of labels of a folder of images, where it has one."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def load_listed(folder: Path, table: Path, target: Target, choice: Choice, asked: Asked) -> Samples:
    """Decode the chosen images of a folder, and of all folders in it, with the labels that a table gives them.

    A name in the table is a path relative to the folder, with or without its suffix, or that of a file in any folder below. An
    image that the table does not name is left out as one without a label.

    Raises:
        InputError: a table without such columns, that names no image of the folder, or names one twice with different labels; and
            as `onnxfim.data.images.load_folder`.
    """
    files = images_below(folder)
    if not files:
        raise InputError(f"{folder}: holds no image beside {table.name}, expected files such as .jpg or .png. Check the path.")
    places = _places(files, folder)
    given: dict[int, str] = {}
    lines, unmatched = 0, None
    opened = open_table(table, asked)
    if opened.names is None and opened.width < 2:
        raise InputError(
            f"{table}: has one column, expected a file and its label in each line. Write `file,label` as its first line."
        )
    of_file, of_label = _columns(table, opened.names, opened.width, asked)
    for cells in opened.rows():
        lines += 1
        if len(cells) != opened.width:
            raise InputError(f"{table}: line of {cells[0].strip()!r} has {len(cells)} cells, expected {opened.width}. Mend it.")
        name, label = cells[of_file].strip(), label_of(cells[of_label])
        place = places.get(name.removeprefix("./"))
        if place is None:
            unmatched = unmatched or name
        elif given.setdefault(place, label) != label:
            raise InputError(f"{table}: names {name!r} twice, as {given[place]!r} and as {label!r}, expected one label. Mend it.")
    if not given:
        raise InputError(
            f"{table}: none of its {lines} lines names an image of {folder} (the first, {unmatched!r}), expected paths relative "
            "to the folder. "
            "Mend them, or move the table away."
        )
    order = asked.order or alphabetical(str(table), given.values())
    faults = {i: f"{file.name} has no label in {table.name}" for i, file in enumerate(files) if not given.get(i)}
    good = [i for i in range(len(files)) if i not in faults]
    if not good:
        raise InputError(f"{table}: gives no image a label, expected one in its second column. Name another with --label-column.")
    found = class_labels(str(table), np.array([given[i] for i in good]), np.array(good, np.int64), order)
    labels = dict.fromkeys(range(len(files)), 0) | dict(zip(good, found.indices.tolist(), strict=True))
    return listed_images(folder, Listing(tuple(files), labels, found.order, table.name, faults), target, choice)


def _places(files: Sequence[Path], folder: Path) -> dict[str, int]:
    """Places of images by every name that is of one of them alone."""
    found: dict[str, int | None] = {}
    for i, file in enumerate(files):
        path = file.relative_to(folder)
        for name in {path.as_posix(), path.with_suffix("").as_posix(), path.name, path.stem}:
            found[name] = None if name in found else i
    whole = {file.relative_to(folder).as_posix(): i for i, file in enumerate(files)}
    return {name: i for name, i in found.items() if i is not None} | whole


def _columns(table: Path, names: tuple[str, ...] | None, width: int, asked: Asked) -> tuple[int, int]:
    """Places of the columns that hold the file and the label: by their names, else the first and the next one."""
    called = [n.lower() for n in names or ()]
    of_file = next((called.index(name) for name in _FILE_NAMES if name in called), 0)
    if asked.label is not None:
        return of_file, place_of(str(table), names, width, asked.label, "--label-column")
    others = [i for i in range(width) if i != of_file]
    of_label = next((called.index(name) for name in LABEL_NAMES if name in called), others[0] if len(others) == 1 else None)
    if of_label is None:
        raise InputError(f"{table}: has {width} columns, none of them called label. Name that of the labels with --label-column.")
    return of_file, of_label
