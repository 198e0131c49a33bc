"""Images, in folders or in tables: which class, decoded to the model's input. Pillow's only home."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from onnxfim.data.class_labels import ClassOrder, class_labels
from onnxfim.data.converting import Target
from onnxfim.data.preprocessing import CHANNELS, order_of
from onnxfim.data.samples import Array, Choice, Indices, Samples, check_bytes, one_line, shape_text, unusable
from onnxfim.errors import InputError, lfs_pointer
from onnxfim.record.sample import Skipped

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
# Pillow knows more formats, among them some that start other programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

# What Pillow raises on files that are damaged or not images.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip


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


@dataclass(frozen=True)
class Geometry:
    """How an image becomes a sample: size (None: any), channels, where these stand, and resizing."""

    height: int | None
    width: int | None
    channels: int
    channel_axis: int | None
    resize: int | tuple[int, int] | None
    crop: int | tuple[int, int] | None

    @property
    def mode(self) -> str:
        return {1: "L", 3: "RGB", 4: "RGBA"}[self.channels]


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
    entries = [Picture(i, _name(listing.files[i], folder), partial(_read, listing.files[i], folder)) for i in map(int, chosen)]
    found = decoded(str(folder), entries, len(chosen), target, faults=listing.faults)
    labels = None if listing.labels is None else np.array([listing.labels[i] for i in found.kept], np.int64)
    source = f"{folder}: {len(chosen)} of {len(listing.files)} images"
    if listing.named_in is None or listing.labels is None:
        return found.samples(source, target, labels, listing.order, by_class=labels is not None)
    told = [listing.labels[int(i)] for i in chosen]
    return found.samples(f"{source}, labels in {listing.named_in}", target, labels, listing.order, by_class=True, told=told)


@dataclass(frozen=True)
class Picture:
    """An image of the data: its place there, its name, and how its bytes are read."""

    index: int
    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Decoded:
    """Images as the model takes them: (N, *shape), the places and names of those that are kept, what was skipped, and the hash."""

    inputs: Array
    kept: tuple[int, ...]
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    sha256: str

    def samples(
        self, source: str, target: Target, labels: Indices | None, order: ClassOrder | None, *, by_class: bool,
        told: Sequence[object] | None = None,
    ) -> Samples:  # fmt: skip
        """The images as samples.

        Args:
            source: In words, where they come from.
            target: What the model takes.
            labels: Class indices of those that are kept.
            order: Of the classes.
            by_class: As of `Samples`.
            told: The labels of all that were chosen, where these are not in the images' names and so part of the hash.
        """
        return Samples(
            inputs=self.inputs,
            labels=labels,
            indices=np.array(self.kept, np.int64),
            names=self.names,
            class_names=None if order is None else order.names,
            source=source,
            sha256=self.sha256 if told is None else hashlib.sha256(f"{self.sha256} {list(told)}".encode()).hexdigest(),
            skipped=self.skipped,
            by_class=by_class,
            classes_guessed=order is not None and order.guessed,
            prepared=target.preprocessing.given,
        )


def decoded(
    where: str, pictures: Iterable[Picture], count: int, target: Target, *, faults: Mapping[int, str] | None = None
) -> Decoded:
    """Decode images one after another.

    Args:
        where: What holds them, for messages.
        pictures: At most ``count`` of them.
        count: How many there may be.
        target: What the model takes.
        faults: Why images at some places cannot be used although they can be read.

    Raises:
        InputError: no Pillow, no image that can be used, a size that the model does not take; one that cannot be decoded is
            skipped.
    """
    geometry = _geometry(where, target)
    digest = hashlib.sha256()
    inputs: Array | None = None
    kept: list[tuple[int, str]] = []
    skipped: list[Skipped] = []
    for one in pictures:
        place = f"{where}/{one.name}"
        try:
            content = one.read()
            digest.update(f"{one.name!r} {len(content)} ".encode() + content)
            picture = _decode(content, geometry, place)
        except _DECODE_ERRORS as error:
            reason = one_line(error) or type(error).__name__
            skipped.append(Skipped(one.index, one_line(f"{one.name} cannot be decoded ({reason})")))
            continue
        if faults and one.index in faults:
            skipped.append(Skipped(one.index, one_line(faults[one.index])))
            continue
        pixels = _arranged(picture, geometry, place)
        if inputs is None:
            check_bytes(where, count * pixels.size * target.dtype.itemsize)
            inputs = np.empty((count, *pixels.shape), target.dtype)
        _check_size(place, pixels, geometry, like=inputs.shape[1:])
        inputs[len(kept)] = _to_input(pixels, target)
        kept.append((one.index, one.name))
    if inputs is None:
        raise unusable(where, skipped)
    return Decoded(
        inputs[: len(kept)], tuple(i for i, _ in kept), tuple(name for _, name in kept), tuple(skipped), digest.hexdigest()
    )


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


def _geometry(where: str, target: Target) -> Geometry:
    """What size and channels the model's input asks of an image."""
    shape, preprocessing = target.shape, target.preprocessing
    if shape is not None and len(shape) == 2:
        return Geometry(shape[0], shape[1], 1, None, preprocessing.resize, preprocessing.crop)
    if shape is None:
        shape = (None, None, None)
    if len(shape) != 3:
        raise InputError(
            f"{where}: holds images, but the model takes samples of shape {shape_text(shape)}, expected three axes. "
            "Pass the samples as an .npz file in the model's shape."
        )
    layout = preprocessing.layout or order_of(shape)
    if layout is None:
        raise InputError(
            f"{where}: the model's shape {shape_text(shape)} does not show the channel axis. Pass --layout NCHW or NHWC."
        )
    axis = 0 if layout == "NCHW" else 2
    channels = 3 if shape[axis] is None else shape[axis]
    if channels not in CHANNELS:
        raise InputError(
            f"{where}: images have 1, 3 or 4 channels, but the model takes {channels} in layout {layout}. "
            "Pass another --layout, or the samples as an .npz file."
        )
    height, width = (shape[1], shape[2]) if axis == 0 else (shape[0], shape[1])
    return Geometry(height, width, channels, axis, preprocessing.resize, preprocessing.crop)


def _decode(content: bytes, geometry: Geometry, where: str) -> Array:
    """Pixels of one image, resized, as uint8 (H, W) or (H, W, C); raises one of _DECODE_ERRORS."""
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(f"{where}: Pillow is not installed, expected for images. Run: pip install 'onnxfim[images]'.") from error

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.mode[0] in "IF":
                    raise ValueError(f"pixels of mode {image.mode} have more than 8 bits")
                picture = image.convert(geometry.mode)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(str(error)) from error
    if geometry.resize is not None:
        height, width = _resized(geometry.resize, picture.height, picture.width)
        if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"resized it would have {height} × {width} pixels")
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.uint8)


def _arranged(picture: Array, geometry: Geometry, where: str) -> Array:
    """A picture (H, W) or (H, W, C), cropped, with its channels where the model has them."""
    if geometry.crop is not None:
        picture = _cropped(where, picture, geometry.crop)
    if geometry.channel_axis is None:
        return picture
    return np.moveaxis(picture.reshape(*picture.shape[:2], geometry.channels), 2, geometry.channel_axis)


def _resized(size: int | tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """New height and width; one length is that of the shorter side, and the longer one is cut to a whole pixel."""
    if isinstance(size, tuple):
        return size
    shorter = min(height, width)
    return size * height // shorter, size * width // shorter


def _cropped(where: str, pixels: Array, size: int | tuple[int, int]) -> Array:
    """The central part of an image."""
    height, width = size if isinstance(size, tuple) else (size, size)
    if height > pixels.shape[0] or width > pixels.shape[1]:
        raise InputError(
            f"{where}: the image is {pixels.shape[0]} × {pixels.shape[1]} (height × width), expected at least the crop's "
            f"{height} × {width}. Pass a larger --resize or a smaller --crop."
        )
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def _check_size(where: str, pixels: Array, geometry: Geometry, *, like: tuple[int, ...]) -> None:
    """Refuse an image of a size that the model, or the first image, does not have: that is a matter of settings."""
    height, width = (pixels.shape[1], pixels.shape[2]) if geometry.channel_axis == 0 else pixels.shape[:2]
    for found, wanted in ((height, geometry.height), (width, geometry.width)):
        if wanted not in (None, found):
            raise InputError(
                f"{where}: the image is {height} × {width} (height × width), but the model takes "
                f"{geometry.height or 'any'} × {geometry.width or 'any'}. Pass --resize and --crop."
            )
    if like != pixels.shape:
        raise InputError(
            f"{where}: gives a sample of shape {shape_text(pixels.shape)}, but the first image gave {shape_text(like)}, "
            "expected one size. Pass --resize and --crop to say how images are brought to it."
        )


def _to_input(pixels: Array, target: Target) -> Array:
    """Pixels in the model's units and element type; an integer input takes them as they are."""
    if target.dtype.kind != "f":
        return np.ascontiguousarray(pixels, target.dtype)
    return target.preprocessing.normalise(target.preprocessing.from_pixels(pixels)).astype(target.dtype)
