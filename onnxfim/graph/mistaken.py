"""Says what a file is that was taken for an ONNX model and is none."""

from __future__ import annotations

import re

from onnxfim.errors import lfs_pointer

#: First bytes (or bytes at a place), what the file is, and what to do.
_KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive, as PyTorch and Keras save models", "Export the model to ONNX, or unpack it."),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves models", "Export it with tf2onnx."),
    (4, b"TFL3", "a TensorFlow Lite model", "Export it with tf2onnx."),
    (4, b"ORTM", "a model in ONNX Runtime's own format", "Give the .onnx file that it was made from."),
    (0, b"GGUF", "a GGUF file", "Export the model to ONNX."),
    (0, b"\x93NUMPY", "a NumPy array", "Give the model first, and the samples with --data."),
    (0, b"\x1f\x8b", "compressed with gzip", "Unpack it with gunzip."),
    (0, b"BZh", "compressed with bzip2", "Unpack it with bunzip2."),
    (0, b"\xfd7zXZ\0", "compressed with xz", "Unpack it with unxz."),
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "Unpack it with unzstd."),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it."),
    (0, b"%PDF-", "a PDF document", "Give the model."),
    (0, b"\x89PNG\r\n", "a PNG picture", "Give the model first, and the samples with --data."),
    (0, b"\xff\xd8\xff", "a JPEG picture", "Give the model first, and the samples with --data."),
    (0, b"\x7fELF", "a compiled program or library", "Give the model."),
)  # fmt: skip
_HTML = re.compile(rb"\s*(<!doctype\s+html|<html|<head|<\?xml)", re.IGNORECASE)
_PICKLE = re.compile(rb"\x80[\x02-\x05].*\.$", re.DOTALL)


def what_it_is(content: bytes) -> str | None:
    """What a message says of a file that is no ONNX model: what it is instead and what to do; None where that is not known.

    Args:
        content: The whole file.
    """
    pointer = lfs_pointer(content[:200])
    if pointer is not None:
        return pointer
    for place, mark, kind, todo in _KINDS:
        if content[place : place + len(mark)] == mark:
            return f"is not ONNX but {kind}. {todo}"
    if _HTML.match(content[:500]):
        return "is not ONNX but a web page. Download the file itself (on GitHub: Raw or Download)."
    if content[8:10] == b'{"' and int.from_bytes(content[:8], "little") <= len(content):
        return "is not ONNX but a safetensors file, which holds weights without a graph. Export the model to ONNX."
    if _PICKLE.match(content):
        return "is not ONNX but a Python pickle, as PyTorch and scikit-learn save models. Export the model to ONNX."
    text = content[:500].lstrip()
    if text[:1] in (b"{", b"[") and _readable(content[:500]):
        return "is not ONNX but JSON. Give the model; a saved audit is converted with `onnxfim convert`."
    if text and _readable(content[:500]):
        return "is not ONNX but text. Export it or download it again."
    return None


def _readable(head: bytes) -> bool:
    """Whether bytes are plain text: a model's begin with control characters."""
    return all(b >= 32 or b in b"\t\n\r" for b in head)
