"""Folders of images: which files are samples, and which class each has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from onnxfim.data.class_labels import ClassOrder, class_labels
from onnxfim.data.converting import Target
from onnxfim.data.decoding import Picture, decoded
from onnxfim.data.samples import Choice, Samples
from onnxfim.errors import InputError, lfs_pointer

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


@dataclass(frozen=True)
class Listing:
    """The images of a folder in order; ``labels`` by place, and their ``order``, where sub-folders or a table give them.

    ``named_in`` is that table's name, ``faults`` tell why some images cannot be used.
    """

    files: tuple[Path, ...]
    labels: Mapping[int, int] | None
    order: ClassOrder | None
    named_in: str | None = None
    faults: Mapping[int, str] = field(default_factory=dict)


def load_folder(folder: Path, target: Target, choice: Choice, order: ClassOrder | None = None) -> Samples:
    """Decode the chosen images of a folder; only these are opened.

    Sub-folders in sorted order, or in ``order``, are the classes, each of them one even if it is empty; a flat folder has no
    labels. With a limit the images are drawn over all classes, by seed 0 where none is given. Pixels are read as the file
    stores them: the orientation tag is not applied, transparency is dropped, of an animation the first frame is taken.

    Raises:
        InputError: no Pillow, no image, a mixture of images and class folders, a link to a folder, a size that the model
            does not take; a file that cannot be decoded is skipped.
    """
    return listed_images(folder, _list(folder, order), target, choice)


def listed_images(folder: Path, listing: Listing, target: Target, choice: Choice) -> Samples:
    """Decode the chosen images of a listing, as `load_folder` does; labels that a file gives are part of the hash.

    Raises:
        InputError: as `load_folder`.
    """
    chosen = Choice(choice.limit, choice.seed or 0).of(len(listing.files))
    entries = (
        Picture(i, _name(file, folder), partial(_read, file, folder), str(file))
        for i, file in ((int(i), listing.files[i]) for i in chosen)
    )
    found = decoded(str(folder), entries, len(chosen), target, faults=listing.faults)
    labels = None if listing.labels is None else np.array([listing.labels[i] for i in found.kept], np.int64)
    source = f"{folder}: {len(chosen)} of {len(listing.files)} images"
    if listing.named_in is None or listing.labels is None:
        return found.samples(source, target, labels, listing.order, by_class=labels is not None)
    told = [listing.labels[int(i)] for i in chosen]
    return found.samples(f"{source}, labels in {listing.named_in}", target, labels, listing.order, by_class=True, told=told)


def _list(folder: Path, order: ClassOrder | None) -> Listing:
    """The images of a folder, sorted by class and then by path."""
    entries = _visible(folder)
    classes = [entry for entry in entries if entry.is_dir()]
    flat = [entry for entry in entries if _is_image(entry)]
    by_class = [images_below(entry) for entry in classes]
    if flat and any(by_class):
        raise InputError(
            f"{folder}: holds images ({flat[0].name}, …) beside class folders ({classes[0].name}, …), expected one of the two. "
            "Move the images into class folders, or pass a folder without sub-folders."
        )
    if not flat and not any(by_class):
        raise InputError(
            f"{folder}: holds no image, expected files such as {', '.join(sorted(SUFFIXES)[:5])}, in class folders or without. "
            "Check the path."
        )
    if flat:
        return Listing(tuple(flat), None, order)
    files = tuple(file for group in by_class for file in group)
    names = tuple(_name(entry, folder) for entry in classes)
    labels = [label for label, group in enumerate(by_class) for _ in group]
    if order is not None:
        labels = class_labels(str(folder), np.array([names[k] for k in labels]), np.arange(len(files)), order).indices.tolist()
    return Listing(files, dict(enumerate(labels)), order or ClassOrder(names))


def _visible(folder: Path) -> list[Path]:
    """Entries of a folder in sorted order, hidden ones left out; a link to a folder is an error, for it hides a class."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be listed ({error.strerror}), expected a readable folder. Check the permissions."
        ) from error
    for entry in entries:
        if entry.is_symlink() and entry.is_dir():
            raise InputError(f"{entry}: is a link to a folder, expected a folder; such links are not followed. Copy the folder in.")
    return entries


def images_below(folder: Path) -> list[Path]:
    """Images of a class folder and all folders below it, sorted by path."""
    found: list[Path] = []
    folders = [folder]
    while folders:  # without recursion: a path may hold more folders than Python's stack
        entries = _visible(folders.pop())
        folders += [entry for entry in entries if entry.is_dir()]
        found += [entry for entry in entries if _is_image(entry)]
    return sorted(found)


def _name(file: Path, folder: Path) -> str:
    """Path of an image relative to its folder, in characters that can be printed and encoded."""
    return os.fsencode(file.relative_to(folder).as_posix()).decode("utf-8", "replace")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def _read(file: Path, folder: Path) -> bytes:
    """The bytes of a regular file that lies in the folder."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise OSError("a link that leads out of the folder is not followed")
    if not os.path.isfile(file):
        raise OSError("not a regular file")
    content = file.read_bytes()
    if (pointer := lfs_pointer(content)) is not None:
        raise OSError(pointer.removesuffix("."))
    return content
