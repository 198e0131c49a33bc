"""Samples and labels in .npz and .npy files: odd types, shapes and values, headers that lie, archives that are broken or bombs."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.families._bases import bases
from tests.fuzz.families._odd import NAMES, one
from tests.fuzz.harness import Case

_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
_TYPES = ("<f4", "<f8", ">f4", ">f8", "<f2", "<i8", ">i4", "|u1", "|b1", "<c8", "<U3", "|S4", "|O", "|V8", "<M8[s]", "<m8[ns]", "[('a', '<f4'), ('b', '<i2')]", "<g", "float", "O8",
          "<f3", "<q99", "V0", "S0", "|V0", "<U0", "('<f4', (5,))", "[('a', '|O')]", "\x1b[31m", "", "é", "<f4" * 100)  # fmt: skip
_SHAPES = ("(4, 5)", "(4,5,)", "(0, 5)", "(4, 0)", "()", "(5,)", "(4, 5, 1)", "(1, 4, 5)", "(5, 4)", "(-1, 5)", "(4, -5)", "(4.0, 5)", "(1000000000000, 5)", "(4, 1000000000000)", "(2**62, 5)",
           "(9223372036854775807,)", "(18446744073709551616, 5)", "(1, 0, 10000000000000000000000)", "[4, 5]", "4", "None", "(None, 5)", "(True, 5)", "('4', 5)", "(" + "1," * 70 + ")",
           "(" * 300 + "4" + ")" * 300, "(4, 5", "(1e400,)", "(4, 99999999999999999999999999)")  # fmt: skip
_KEYS = (
    ("inputs", "labels"),
    ("x", "y"),
    ("inputs",),
    ("labels",),
    ("Inputs", "labels"),
    ("inputs", "labels", "inputs"),
    ("../inputs", "labels"),
    ("/inputs",),
    ("a/inputs", "inputs"),
    ("arr_0",),
    (),
)


def case(rng: np.random.Generator, folder: Path) -> Case:
    """An audit of a small model on a file of which one thing is odd."""
    (folder / "m.onnx").write_bytes(bases()[0].content)
    inputs = rng.standard_normal((4, 5)).astype(np.float32)
    labels = np.array([0, 1, 2, 0])
    suffix = one(rng, (".npz", ".npz", ".npy"))
    name = f"d{suffix}"
    how = str(rng.choice(["values", "labels", "header", "archive", "bytes", "file"], p=[0.25, 0.15, 0.2, 0.2, 0.1, 0.1]))
    more: tuple[str, ...] = ()
    if how == "values":
        inputs, note = _values(rng, inputs)
        content = _saved(suffix, inputs, labels)
    elif how == "labels":
        labels, note = _labels(rng)
        content = _saved(suffix, inputs, labels)
        if suffix == ".npy" or rng.random() < 0.3:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                np.save(folder / "labels.npy", labels, allow_pickle=True)
            more = ("--labels", "labels.npy")
    elif how == "header":
        made, note = _header(rng, inputs)
        content = made if suffix == ".npy" else _zip({"inputs.npy": made, "labels.npy": _npy(labels)}, zipfile.ZIP_DEFLATED)
    elif how == "archive":
        name = "d.npz"
        content, note = _archive(rng, inputs, labels)
    elif how == "bytes":
        content, note = _bytes(rng, _saved(suffix, inputs, labels))
    else:
        content, note = b"", _file(rng, folder, name)
    if how != "file":
        (folder / name).write_bytes(content)
    options = one(
        rng,
        (
            (), (), (), ("--samples", "2"), ("--mean", "0.5", "--std", "0.5"), ("--input-range", "0,1"), ("--mean", "1,2,3,4,5"), ("--layout", "NCHW"),
            ("--inputs-key", "x"), ("--labels-key", "y"), ("--inputs-key", one(rng, NAMES).replace("\0", "")), ("--resize", "4"),
        ),
    )  # fmt: skip
    common = ("--provider", "cpu", "--replay", "0", "--budget", "12", "--no-bounds", "--no-cache", "-o", "json=a.json")
    return Case(("audit", "m.onnx", "--data", name, *more, *options, *common), f"{name}, {how}: {note}; {' '.join(options)}"[:200])


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _saved(suffix: str, inputs: np.ndarray, labels: np.ndarray) -> bytes:
    return _npy(inputs) if suffix == ".npy" else _zip({"inputs.npy": _npy(inputs), "labels.npy": _npy(labels)})


def _values(rng: np.random.Generator, X: np.ndarray) -> tuple[np.ndarray, str]:
    spoilt = X.copy()
    spoilt[int(rng.integers(4)), int(rng.integers(5))] = one(rng, (np.nan, np.inf, -np.inf, 3e38, 1e-45))
    ragged = np.empty(4, object)
    ragged[:] = [np.zeros(i + 1) for i in range(4)]
    records = np.zeros(4, [("a", "<f4"), ("b", "<i2", (2,))])
    made: dict[str, np.ndarray] = {
        "one bad value": spoilt, "all NaN": np.full_like(X, np.nan), "all zero": np.zeros_like(X), "all the same": np.ones_like(X), "complex": X + 1j, "text": X.astype("U8"),
        "bytes": X.astype("S8"), "objects": X.astype(object), "ragged": ragged, "records": records, "dates": np.zeros((4, 5), "M8[s]"), "true and false": X > 0,
        "big-endian": X.astype(">f4"), "big-endian doubles": X.astype(">f8"), "long doubles": X.astype(np.longdouble), "halves": X.astype(np.float16), "column by column": np.asfortranarray(X),
        "huge doubles": X.astype(np.float64) * 1e300, "tiny doubles": X.astype(np.float64) * 1e-300, "huge floats": np.sign(X) * np.float32(3.4e38), "large": X * 1e20, "small": X * 1e-20,
        "bytes 0 to 255": rng.integers(0, 256, (4, 5)).astype(np.uint8), "large integers": np.full((4, 5), 2**62), "unsigned": np.full((4, 5), 2**64 - 1, np.uint64), "no samples": X[:0], "one sample": X[:1],
        "no features": X[:, :0], "a scalar": np.float32(1), "a vector": X[0], "an axis more": X[:, :, None], "an axis less": X.ravel(), "turned": X.T, "64 axes": X.reshape(4, 5, *(1,) * 40),
        "six features": np.zeros((4, 6), np.float32), "one feature constant": X * np.array([0, 1, 1, 1, 1], np.float32), "many scales": X * np.array([1e-8, 1, 1e4, 1e8, 1], np.float32),
        "a repeated sample": np.repeat(X[:1], 4, axis=0), "void": np.zeros((4, 5), "V4"),
    }  # fmt: skip
    kind = str(rng.choice(list(made)))
    return made[kind], kind


def _labels(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    mixed = np.empty(4, object)
    mixed[:] = [0, "a", None, 1.5]
    made: dict[str, Any] = {
        "beyond the classes": [0, 1, 2, 3], "far beyond": [0, 1, 2, 10**15], "negative": [0, -1, 1, 2], "NaN": [0.0, np.nan, 1, 2], "infinite": [0.0, np.inf, 1, 2], "halves": [0.5, 1, 2, 0],
        "text": ["a", "b", "c", "d"], "digits as text": ["0", "1", "2", "0"], "too few": [0, 1], "too many": [0, 1, 2, 0, 1], "none": [], "a scalar": 1, "one-hot": np.eye(3)[[0, 1, 2, 0]],
        "not one-hot": np.ones((4, 3)), "columns": [[0], [1], [2], [0]], "three axes": np.zeros((4, 1, 1)), "complex": [0j, 1j, 2, 0], "true and false": [True, False, True, True], "objects": mixed,
        "beyond int64": np.array([0, 1, 2, 2**64 - 1], np.uint64), "1e300": [0, 1, 2, 1e300], "big-endian": np.array([0, 1, 2, 0], ">i2"), "records": np.zeros(4, [("a", "<i4")]), "dates": np.zeros(4, "M8[D]"),
        "one class": [1, 1, 1, 1], "one-hot text": [["0", "1", "0"]] * 4, "four one-hot columns": np.eye(4), "no columns": np.zeros((4, 0)),
    }  # fmt: skip
    kind = str(rng.choice(list(made)))
    return np.asarray(made[kind]), kind


def _header(rng: np.random.Generator, X: np.ndarray) -> tuple[bytes, str]:
    """An .npy file whose header says something else than its bytes."""
    kind, shape, order = "<f4", "(4, 5)", "False"
    which = str(rng.choice(["type", "shape", "order", "text", "version", "length", "both"]))
    if which in ("type", "both"):
        kind = one(rng, _TYPES)
    if which in ("shape", "both"):
        shape = one(rng, _SHAPES)
    if which == "order":
        order = one(rng, ("True", "None", "1", "'yes'", "True, 'more': 1"))
    described = kind if kind.startswith(("[", "(")) else repr(kind)
    text = f"{{'descr': {described}, 'fortran_order': {order}, 'shape': {shape}, }}"
    if which == "text":
        text = one(
            rng,
            (
                "",
                "{",
                "[]",
                "1",
                "__import__('os')",
                "{}" * 50,
                "{'descr': '<f4'}",
                "\0" * 60,
                "{" * 500,
                text * 2,
                "#" * 200_000,
                "é" * 30,
                "'" * 30,
                "(" * 5000,
                "-" * 5000 + "1",
            ),
        )
    header = (text + "\n").encode("latin1", "replace")
    version, length = (1, 0), struct.pack("<H", len(header) & 0xFFFF)
    if which == "version" or len(header) > 0xFFFF:
        version = one(rng, ((2, 0), (3, 0), (0, 0), (255, 255), (1, 1)))
        length = struct.pack("<I", len(header)) if version[0] > 1 else length
    if which == "length":
        length = struct.pack("<H", int(one(rng, (0, 1, 0xFFFF, len(header) + 80, len(header) - 5))))
    note = f"{which}: {kind[:20]!r}, {shape[:30]}, {order}" if which != "text" else f"text {text[:30]!r}"
    return b"\x93NUMPY" + bytes(version) + length + header + X.tobytes(), note


def _archive(rng: np.random.Generator, X: np.ndarray, y: np.ndarray) -> tuple[bytes, str]:
    """A zip archive of odd members."""
    made = {"inputs.npy": _npy(X), "labels.npy": _npy(y)}
    kind = str(
        rng.choice(
            [
                "keys",
                "names",
                "twice",
                "bomb",
                "sizes",
                "encrypted",
                "compression",
                "comment",
                "nested",
                "no .npy",
                "bomb of labels",
                "empty member",
                "many",
            ]
        )
    )
    if kind == "keys":
        keys = one(rng, _KEYS)
        made = {f"{k}.npy": _npy(y if k in ("labels", "y") else X) for k in keys}
        return _zip(made), f"{kind} {keys}"
    if kind == "names":
        odd = one(rng, [n for n in NAMES if not n.startswith("\0")])  # a zip archive ends names there, and takes none that is empty
        return _zip({**made, f"{odd}.npy": _npy(X), odd or "n": b""}), f"{kind} {odd[:20]!r}"
    if kind == "twice":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w") as archive:
                for _ in range(2):
                    archive.writestr("inputs.npy", _npy(X * rng.random()))
        return stream.getvalue(), kind
    if kind in ("bomb", "bomb of labels"):
        name, shape = ("inputs", (2_000_000, 5)) if kind == "bomb" else ("labels", (4_000_000,))
        head = _npy(np.zeros((1, *shape[1:]), np.float32)).replace(
            b"(1, 5)" if kind == "bomb" else b"(1,)", str(shape).encode(), 1
        )[:128]
        return _zip({**made, f"{name}.npy": head + b"\0" * (int(np.prod(shape)) * 4)}, zipfile.ZIP_DEFLATED), kind
    if kind == "empty member":
        return _zip({**made, str(one(rng, list(made))): b""}), kind
    if kind == "nested":
        return _zip({"inputs.npy": _zip(made), "labels.npy": _npy(y)}), kind
    if kind == "no .npy":
        return _zip({"inputs": _npy(X), "data.pkl": b"\x80\x02}q\x00."}), kind
    if kind == "many":
        return _zip({**made, **{f"k{i}.npy": b"" for i in range(5000)}}), kind
    if kind == "compression":
        return _zip(made, int(one(rng, (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED)))), kind
    content = bytearray(_zip(made, zipfile.ZIP_DEFLATED))
    if kind == "comment":
        return bytes(content) + rng.bytes(50), kind
    # Fields of the central directory: flags (encryption), method, sizes, offset of the member, as a damaged or hostile file has them.
    central = content.find(b"PK\x01\x02")
    at, size = one(rng, ((8, 2),)) if kind == "encrypted" else one(rng, ((10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (42, 4)))
    value = 1 if kind == "encrypted" else int(one(rng, (0, 1, 99, 0x7FFFFFFF, 0xFFFFFFFF)))
    content[central + at : central + at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    return bytes(content), f"{kind} field {at} is {value}"


def _bytes(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    at = int(rng.integers(len(content)))
    if rng.random() < 0.4:
        return content[:at], f"the first {at} bytes"
    data = bytearray(content)
    for _ in range(int(one(rng, (1, 1, 2, 8)))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    return bytes(data), "flipped bytes"


def _file(rng: np.random.Generator, folder: Path, name: str) -> str:
    path = folder / name
    made = {"empty": b"", "LFS pointer": _POINTER, "LFS pointer with CRLF": _POINTER.replace(b"\n", b"\r\n"), "HTML": b"<!DOCTYPE html>", "pickle": b"\x80\x04}.", "zero bytes": b"\0" * 100,
            "empty archive": b"PK\x05\x06" + b"\0" * 18, "HDF5": b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "text": b"1,2,3\n"}  # fmt: skip
    kind = str(rng.choice([*made, "pipe", "folder", "ring of links", "dangling link", "nothing"]))
    if kind in made:
        path.write_bytes(made[kind])
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "nothing":
        path.symlink_to(name if kind == "ring of links" else "nowhere.npz")
    return kind
