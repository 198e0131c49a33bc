"""Images decoded to the model's input, in memory or, where they are many, each time that they are needed. Pillow's only home."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import numpy as np

from onnxfim.data.class_labels import ClassOrder
from onnxfim.data.converting import Target
from onnxfim.data.file_ranges import FileRanges, Stamp, stamp_of
from onnxfim.data.lazy_rows import LazyRows, is_large
from onnxfim.data.preprocessing import CHANNELS, order_of
from onnxfim.data.samples import Array, Indices, Samples, check_bytes, one_line, shape_text, unusable
from onnxfim.data.stored_rows import Spool
from onnxfim.errors import InputError
from onnxfim.record.sample import Skipped

# Pillow knows more formats, among them some that start other programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

# What Pillow raises on files that are damaged or not images.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip


_IN_MEMORY = re.compile(r" <_io\.BytesIO object at 0x[0-9a-fA-F]+>")  # Pillow's words for the file: another in each run


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


@dataclass(frozen=True)
class Picture:
    """An image of the data: its place there, its name, how its bytes are read, and where they lie.

    ``file`` holds them from ``start`` on; None where they can be read once only. ``fault`` says why there is nothing to read.
    """

    index: int
    name: str
    read: Callable[[], bytes]
    file: str | None = None
    start: int = 0
    fault: str | None = None


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
    later: _Later | None = None
    shape: tuple[int, ...] | None = None
    kept: list[tuple[int, str]] = []
    skipped: list[Skipped] = []
    for one in pictures:
        place = f"{where}/{one.name}"
        if one.fault is not None:
            digest.update(f"{one.name!r} none ".encode())
            skipped.append(Skipped(one.index, one_line(one.fault)))
            continue
        try:
            stamp = _stamp(one)
            content = one.read()
            digest.update(f"{one.name!r} {len(content)} ".encode() + content)
            picture = _decode(content, geometry, place)
        except _DECODE_ERRORS as error:
            reason = _IN_MEMORY.sub("", one_line(error)) or type(error).__name__
            skipped.append(Skipped(one.index, one_line(f"{one.name} cannot be decoded ({reason})")))
            continue
        if faults and one.index in faults:
            skipped.append(Skipped(one.index, one_line(faults[one.index])))
            continue
        pixels = _arranged(picture, geometry, place)
        if shape is None:
            shape = pixels.shape
            if is_large(count, size := pixels.size * target.dtype.itemsize):
                later = _Later(where)
            else:
                check_bytes(where, count * size)
                inputs = np.empty((count, *shape), target.dtype)
        _check_size(place, pixels, geometry, like=shape)
        if later is not None:
            later.add(one, stamp, content)
        if inputs is not None:
            inputs[len(kept)] = _to_input(pixels, target)
        kept.append((one.index, one.name))
    if shape is None:
        raise unusable(where, skipped)
    rows = later.rows(geometry, target, shape) if later is not None else None
    found = LazyRows(rows).in_place if rows is not None else cast(Array, inputs)[: len(kept)]
    return Decoded(found, tuple(i for i, _ in kept), tuple(name for _, name in kept), tuple(skipped), digest.hexdigest())


def _stamp(one: Picture) -> Stamp | None:
    """The stamp of a picture's file; what is wrong with a file is told by who reads it."""
    with suppress(OSError):
        return None if one.file is None else stamp_of(one.file)
    return None


@dataclass(frozen=True)
class PictureRows:
    """Images that are decoded each time that they are asked for.

    Attributes:
        where: What holds them, for messages.
        ranges: The files that hold them.
        which: File of each, (N,).
        start, size: Where its bytes begin there, and how many they are, (N,).
        geometry: How an image becomes a sample.
        target: What the model takes.
        sample: Shape of one sample.
        owner: Keeps the files.
    """

    where: str
    ranges: FileRanges
    which: Indices
    start: Indices
    size: Indices
    geometry: Geometry
    target: Target
    sample: tuple[int, ...]
    owner: object = None
    costly = True

    def __reduce__(self) -> tuple[object, ...]:
        return PictureRows, (
            self.where, self.ranges, self.which, self.start, self.size, self.geometry, self.target, self.sample,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.which), *self.sample)

    @property
    def dtype(self) -> np.dtype:
        return self.target.dtype

    def read(self, at: Indices) -> Array:
        """The images at ``at`` as the model takes them, (n, *shape)."""
        out = np.empty((len(at), *self.sample), self.dtype)
        for k, i in enumerate(at.tolist()):
            content = self.ranges.read(int(self.which[i]), int(self.start[i]), int(self.size[i]))
            try:
                picture = _decode(content, self.geometry, self.where)
            except _DECODE_ERRORS as error:  # it could be decoded before
                said = one_line(error) or type(error).__name__
                raise InputError(
                    f"{self.where}: image {i} cannot be decoded any more ({said}), expected it to stay as it was. Run it again."
                ) from error
            out[k] = _to_input(_arranged(picture, self.geometry, self.where), self.target)
        return out


class _Later:
    """Images noted one after another, to be decoded later."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._spool: Spool | None = None
        self._files: dict[str, tuple[int, Stamp]] = {}
        self._places: list[tuple[int, int, int]] = []

    def add(self, one: Picture, stamp: Stamp | None, content: bytes) -> None:
        if one.file is None or stamp is None:
            self._spool = self._spool or Spool(self._where)
            self._places.append((0, self._spool.write(content), len(content)))
            return
        which, _ = self._files.setdefault(one.file, (len(self._files), stamp))
        self._places.append((which, one.start, len(content)))

    def rows(self, geometry: Geometry, target: Target, sample: tuple[int, ...]) -> PictureRows:
        if self._spool is not None:
            ranges = self._spool.done()
        else:
            ranges = FileRanges(tuple(self._files), tuple(stamp for _, stamp in self._files.values()))
        which, start, size = np.array(self._places, np.int64).T.copy()
        return PictureRows(self._where, ranges, which, start, size, geometry, target, sample, self._spool)


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


def _decode(content: bytes | bytearray, geometry: Geometry, where: str) -> Array:
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
