"""A model file with its bytes broken: flipped, cut, spliced, replaced, not a file at all; external data missing or elsewhere."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import set_external_data

from tests.fuzz.families._bases import Base, command, pick
from tests.fuzz.harness import Case

_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"


def case(rng: np.random.Generator, folder: Path) -> Case:
    """Half of the cases break the bytes; the others are other files by an .onnx name, or break what lies beside the file."""
    base = pick(rng)
    how = rng.choice(["flip", "cut", "splice", "other", "external"], p=[0.35, 0.15, 0.15, 0.15, 0.2])
    note = {"flip": _flip, "cut": _cut, "splice": _splice, "other": _other, "external": _external}[str(how)](rng, folder, base)
    return command(rng, folder, base, note=f"{base.name}: {note}")


def _write(folder: Path, content: bytes) -> None:
    (folder / "m.onnx").write_bytes(content)


def _flip(rng: np.random.Generator, folder: Path, base: Base) -> str:
    data = bytearray(base.content)
    count = int(rng.choice([1, 1, 2, 4, 16, 64]))
    # The structure is in the small fields: half of the flips go to the first and the last kilobyte.
    ends = min(len(data), 1024)
    for _ in range(count):
        at = int(rng.integers(len(data))) if rng.random() < 0.5 else int(rng.integers(ends)) * (1 if rng.random() < 0.5 else -1)
        data[at] ^= 1 << int(rng.integers(8)) if rng.random() < 0.7 else int(rng.integers(1, 256))
    _write(folder, bytes(data))
    return f"{count} bytes changed"


def _cut(rng: np.random.Generator, folder: Path, base: Base) -> str:
    start = int(rng.integers(len(base.content))) if rng.random() < 0.2 else 0
    end = int(rng.integers(start, len(base.content) + 1))
    _write(folder, base.content[start:end])
    return f"bytes {start} to {end} of {len(base.content)} only"


def _splice(rng: np.random.Generator, folder: Path, base: Base) -> str:
    other = pick(rng).content if rng.random() < 0.4 else base.content
    at, begin = int(rng.integers(len(base.content))), int(rng.integers(len(other)))
    length = int(rng.integers(1, 200))
    gone = int(rng.choice([0, length]))
    _write(folder, base.content[:at] + other[begin : begin + length] + base.content[at + gone :])
    return f"{length} foreign bytes at {at}, {gone} gone"


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return stream.getvalue()


_OTHERS = {
    "empty": b"", "one zero byte": b"\0", "LFS pointer": _POINTER, "LFS pointer with CRLF": _POINTER.replace(b"\n", b"\r\n"),
    "LFS pointer, cut": _POINTER[:60], "HTML": b"\n<!DOCTYPE html>\n<html lang=en><head><title>model.onnx at main</title></head></html>\n",
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.", "safetensors": b"\x20\0\0\0\0\0\0\0" + b'{"__metadata__":{"format":"pt"}}  ',
    "TFLite": b"\x1c\0\0\0TFL3\x14\x00 \x00" + b"\0" * 50, "HDF5": b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "NumPy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}",
    "gzip": b"\x1f\x8b\x08\0" + b"\0" * 30, "JSON": b'{"error": "Not found"}', "text": b"404: Not Found", "PNG": b"\x89PNG\r\n\x1a\n" + b"\0" * 30,
    "GGUF": b"GGUF\x03\0\0\0" + b"\0" * 40, "7z": b"7z\xbc\xaf\x27\x1c", "UTF-16": "irModel".encode("utf-16"), "zeros": b"\0" * 5000,
    "ORT format": b"\x1c\0\0\0ORTM" + b"\0" * 60, "only a version": b"\x08\x08",
}  # fmt: skip


def _other(rng: np.random.Generator, folder: Path, base: Base) -> str:
    kinds = [*_OTHERS, "zip", "folder", "nothing", "dangling link", "ring of links", "noise", "saved audit"]
    kind = str(rng.choice(kinds))
    path = folder / "m.onnx"
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("nowhere.onnx")
    elif kind == "ring of links":
        path.symlink_to("m.onnx")
    elif kind != "nothing":
        made = {
            "zip": _zip,
            "noise": lambda: rng.bytes(int(rng.integers(1, 3000))),
            "saved audit": lambda: b'{"schema_version": "2.0"}',
        }
        path.write_bytes(made[kind]() if kind in made else _OTHERS[kind])
    return kind


_LOCATIONS = (
    "w.bin", "missing.bin", "../outside/weights.bin", "/etc/hostname", "", ".", "..", "w.bin/", "./w.bin", "sub/../w.bin", "sub/w.bin", "m.onnx",
    "w" * 300, "a/" * 2500 + "w", "w\0.bin", "w\x1b[31m.bin", "w\nx.bin", "\u202ew.bin", "~/w.bin", "file:///etc/hostname", "C:\\w.bin", "//w.bin", "*", "d.npz",
    "w" * 5000, "link.bin", "out.bin", "ring.bin", "pipe.bin", "lfs.bin", "/dev/zero", "/proc/self/mem", "$HOME/w.bin", "é.bin", "w.bin ", "folder",
)  # fmt: skip
_NUMBERS = (None, 0, 1, 4, 20, 24, 4096, -1, -4096, 2**31, 2**63 - 1, 2**63, 2**64, 10**30)


def _external(rng: np.random.Generator, folder: Path, base: Base) -> str:
    proto = base.proto()
    location = str(rng.choice(_LOCATIONS))
    offset, length = (_NUMBERS[int(rng.integers(len(_NUMBERS)))] if rng.random() < 0.5 else None for _ in range(2))
    stored = [t for t in proto.graph.initializer if t.HasField("raw_data")]
    if not stored:
        _write(folder, base.content)
        return "nothing to put outside"
    chosen = stored if rng.random() < 0.5 else [stored[int(rng.integers(len(stored)))]]
    kept = b"".join(t.raw_data for t in stored)
    at = 0
    for tensor in chosen:
        size = len(tensor.raw_data)
        proper = rng.random() < 0.5
        set_external_data(tensor, location, offset=at if proper else offset, length=size if proper else length)
        at += size
        tensor.ClearField("raw_data")
    odd = rng.random()
    if odd < 0.1:
        chosen[0].external_data.append(onnx.StringStringEntryProto(key="location", value="../outside/weights.bin"))
    elif odd < 0.2:
        chosen[0].external_data.append(
            onnx.StringStringEntryProto(
                key=str(rng.choice(["offset", "length", "checksum", "odd"])), value=str(rng.choice(["x", "", "1e3", "0x10", "-0"]))
            )
        )
    elif odd < 0.3:
        del chosen[0].external_data[:]
    _write(folder, proto.SerializeToString())
    short = rng.random() < 0.3
    for name in ("w.bin", "é.bin", "w.bin "):
        (folder / name).write_bytes(kept[: len(kept) // 2] if short else kept)
    (folder / "sub").mkdir()
    (folder / "folder").mkdir()
    (folder / "sub" / "w.bin").write_bytes(kept)
    (folder / "lfs.bin").write_bytes(_POINTER)
    for name, target in (("link.bin", "w.bin"), ("out.bin", "../outside/weights.bin"), ("ring.bin", "ring.bin")):
        (folder / name).symlink_to(target)
    if location == "pipe.bin":
        import os

        os.mkfifo(folder / "pipe.bin")
    return f"external data in {location[:40]!r}, offset {offset}, length {length}{', short' if short else ''}"
