"""Tables: CSV text with odd cells, delimiters and encodings, labels beside images, Parquet and Arrow files with damaged bytes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from tests.fuzz.families._bases import bases
from tests.fuzz.families._odd import NAMES, one
from tests.fuzz.harness import Case

_CELLS = (
    "", " ", "NA", "nan", "inf", "-inf", "1e400", "1e-400", "0x10", "1_000", "1,5", "1.234,5", "1,234.5", "١٢", "true", "FALSE", "?", "--1", "+", "1e", ".", "1 2",
    "9" * 400, "9" * 5000, "2024-01-01", "'1'", '"1"', '"', '""', "\t", "\x00", "\r", "\\N", "=1+1", "１", "½",
)  # fmt: skip
_LABELS = ("0", "1", "2", "-1", "99", "1.0", "0.5", "nan", "cat", "", "9" * 30, "true", "\x1b[31mred", "None")
_ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32", "cp1252")
_OPTIONS = (
    (), (), (), ("--label-column", "label"), ("--label-column", "-1"), ("--label-column", "99"), ("--label-column", "a"), ("--feature-columns", "a,b,c,d,e"),
    ("--feature-columns", "label"), ("--class-names", "cat,dog,bird"), ("--class-names", "names.txt"), ("--class-names", "a,a"), ("--samples", "2"),
    ("--mean", "0.5", "--std", "0.5"), ("--labels", "labels.csv"), ("--class-names", "d.csv"), ("--label-column", ""),
)  # fmt: skip


def case(rng: np.random.Generator, folder: Path) -> Case:
    """An audit of a small model on a table of which one thing is odd."""
    (folder / "m.onnx").write_bytes(bases()[0].content)
    how = str(rng.choice(["cells", "text", "images", "parquet", "set"], p=[0.35, 0.2, 0.15, 0.2, 0.1]))
    data, note = {"cells": _cells, "text": _text, "images": _images, "parquet": _parquet, "set": _set}[how](rng, folder)
    options = one(rng, _OPTIONS)
    common = ("--provider", "cpu", "--replay", "0", "--budget", "12", "--no-bounds", "--no-cache", "-o", "json=a.json")
    return Case(("audit", "m.onnx", "--data", data, *options, *common), f"{how}: {note}; {' '.join(options)}"[:200])


def _rows(rng: np.random.Generator) -> list[list[str]]:
    rows = [[f"{v:.3g}" for v in rng.standard_normal(5)] + [str(i % 3)] for i in range(6)]
    return [["a", "b", "c", "d", "e", "label"], *rows]


def _cells(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """One to four cells are odd, of data, labels or the header."""
    rows, told = _rows(rng), []
    for _ in range(int(rng.integers(1, 5))):
        i, j = int(rng.integers(len(rows))), int(rng.integers(6))
        rows[i][j] = one(rng, NAMES if i == 0 else _LABELS if j == 5 else _CELLS)
        told.append(f"{i},{j}={rows[i][j][:12]!r}")
    if rng.random() < 0.2:
        rows = rows[1:]
    if rng.random() < 0.2:
        rows[int(rng.integers(len(rows)))] = [one(rng, _CELLS)] * int(rng.integers(0, 9))
    text = "\n".join(one(rng, (",", ",", ";", "\t", "|")).join(row) for row in rows)
    (folder / "d.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    return "d.csv", " ".join(told)


def _text(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """The file as a whole is odd: its encoding, its ends of lines, bytes of it, its size."""
    text = "\n".join(",".join(row) for row in _rows(rng))
    kind = one(rng, ("encoding", "bytes", "cut", "line", "quotes", "empty", "lines"))
    encoding = one(rng, _ENCODINGS)
    content = text.encode(encoding)
    if kind == "bytes":
        broken = bytearray(content)
        for at in rng.integers(0, len(broken), 3):
            broken[at] = int(rng.integers(256))
        content = bytes(broken)
    elif kind == "cut":
        content = content[: int(rng.integers(len(content)))]
    elif kind == "line":
        content = content + b"1," * int(rng.integers(1, 200_000))
    elif kind == "quotes":
        content = content.replace(b"\n", b'\n"', 1) + b"\n" + b"x," * 50_000
    elif kind == "empty":
        content = one(rng, (b"", b"\n\n\n", b"\xef\xbb\xbf", b",,,,\n", b"\x00" * 100))
    elif kind == "lines":
        content = content.replace(b"\n", one(rng, (b"\r", b"\r\n", b"\n\r", b"\x0b", b"\n\n\n", b"\xe2\x80\xa8")))
    name = one(rng, ("d.csv", "d.tsv", "d.CSV", "d.parquet", "d.arrow"))
    (folder / name).write_bytes(content)
    return name, f"{kind} {encoding}"


def _images(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """Pictures with a table of labels of which a line is odd; the model takes no pictures, or the table is wrong before."""
    from PIL import Image

    (folder / "p" / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        Image.fromarray(rng.integers(0, 256, (4, 5), np.uint8)).save(folder / "p" / name)
    lines = [one(rng, ("file,label", "label,file", "x,y", "", "file")), "a.png,0", "b.png,1", "sub/c.png,2"]
    lines[int(rng.integers(4))] = one(
        rng, ("../x.png,1", "/etc/passwd,1", "a.png", "a.png,1,2", ",", "a.png,cat", *(f"{n},1" for n in NAMES))
    )
    (folder / "p" / one(rng, ("labels.csv", "metadata.csv"))).write_text("\n".join(lines), "utf-8", "surrogatepass")
    return "p", lines[0]


def _parquet(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """A Parquet or Arrow file with bytes changed, or cut."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return _cells(rng, folder)
    table = pa.table(
        {**{k: rng.standard_normal(8) for k in "abcde"}, "label": np.arange(8) % 3, "t": list("abcdefgh"), "l": [[1.0, 2.0]] * 8}
    )
    table = table.select(
        one(rng, (("a", "b", "c", "d", "e", "label"), ("a", "b", "c", "d", "e"), ("l", "label"), ("a", "t"), ("label",)))
    )
    sink = io.BytesIO()
    name = one(rng, ("d.parquet", "d.arrow"))
    if name == "d.parquet":
        pq.write_table(table, sink, compression=one(rng, ("snappy", "none", "gzip", "zstd")))
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    content = bytearray(sink.getvalue())
    changed = int(rng.integers(0, 6))
    for at in rng.integers(0, len(content), changed):
        content[at] = int(rng.integers(256))
    if rng.random() < 0.2:
        content = content[: int(rng.integers(len(content)))]
    (folder / name).write_bytes(content)
    return name, f"{changed} bytes of {len(content)}"


def _set(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """What `save_to_disk` writes, with odd descriptions."""
    data, note = _parquet(rng, folder)
    (folder / "set").mkdir()
    if (folder / data).suffix == ".arrow":
        (folder / data).rename(folder / "set" / "data.arrow")
    files = one(rng, ("data.arrow", "../d.csv", "none.arrow", "", "\x00", "/etc/passwd", "a" * 400))
    odd = one(
        rng,
        (
            None,
            1,
            [],
            {},
            "x",
            {"label": {"_type": "ClassLabel", "names": one(rng, (["a", "b", "c"], [1], "x", None, []))}},
            {"label": 3},
            [[]],
        ),
    )
    for name, value in (
        ("state.json", {"_data_files": [{"filename": files}]}),
        ("dataset_info.json", {"features": odd}),
        ("dataset_dict.json", {"splits": odd}),
    ):
        if rng.random() < 0.75:
            text = (
                json.dumps(value)
                if rng.random() < 0.8
                else one(rng, ("", "{", "[" * 5000, "null", "3", '{"_data_files": 3}', '{"_data_files": [3]}', "\x00"))
            )
            (folder / "set" / name).write_text(text)
    return "set", f"{files[:20]!r} {str(odd)[:40]} {note}"
