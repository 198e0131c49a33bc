"""Inputs as small PNG pictures, encoded with zlib alone."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from onnxfim.record.audit import Thumbnail

DISPLAY_PIXELS = 112  # longest side on the page, in CSS pixels


def png(thumbnail: Thumbnail) -> bytes:
    """The thumbnail as a PNG file of at most 112 pixels a side.

    Larger thumbnails are reduced by taking the mean of square blocks, so that many of them fit in one page.

    Source: Portable Network Graphics, ISO/IEC 15948:2004, sections 5, 9.2 (filter 0) and 11.2.
    """
    pixels = _reduced(thumbnail)
    height, width, channels = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * channels)], axis=1)
    colour_type = 2 if channels == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def display_size(thumbnail: Thumbnail, longest: int = DISPLAY_PIXELS) -> tuple[int, int]:
    """Width and height on the page: a whole multiple of the picture's own pixels where that fits, so they stay square."""
    height, width = _reduced(thumbnail).shape[:2]
    factor = max(1, longest // max(height, width))
    return width * factor, height * factor


def _reduced(thumbnail: Thumbnail) -> npt.NDArray[np.uint8]:
    pixels = np.asarray(thumbnail.pixels, np.uint8).reshape(thumbnail.height, thumbnail.width, thumbnail.channels)
    block = -(-max(thumbnail.height, thumbnail.width) // DISPLAY_PIXELS)
    if block == 1:
        return pixels
    pad = ((0, -thumbnail.height % block), (0, -thumbnail.width % block), (0, 0))
    padded = np.pad(pixels, pad, mode="edge")
    height, width = padded.shape[0] // block, padded.shape[1] // block
    means = padded.reshape(height, block, width, block, -1).mean(axis=(1, 3))
    reduced: npt.NDArray[np.uint8] = np.round(means).astype(np.uint8)
    return reduced


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
