"""Where rows lie, told to another process: plain values and arrays, from which it reads the same rows; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from onnxfim.data.converting import Conversion, ConvertedRows, Target
from onnxfim.data.decoding import Geometry, PictureRows
from onnxfim.data.file_ranges import FileRanges
from onnxfim.data.lazy_rows import Array, LazyRows, RowReader, rows_in_blocks
from onnxfim.data.preprocessing import Preprocessing
from onnxfim.data.stored_rows import ArrayRows, FileRows
from onnxfim.data.tar_shards import MemberRows

Plain: TypeAlias = dict[str, Any]
#: Keeps an array, and says its name.
Keep: TypeAlias = Callable[[Array], str]


def told(rows: LazyRows, keep: Keep, write: Callable[[LazyRows], str]) -> Plain:
    """Where rows that are read at need lie.

    Args:
        rows: The rows.
        keep: Keeps an array, by a name that `opened` is given it by.
        write: Writes rows of this process's own memory to an .npy file, part by part, and says its path.
    """
    return {"rows": _reader(rows.reader, keep, write), "positions": keep(rows.positions)}


def opened(record: Mapping[str, Any], kept: Callable[[str], Array]) -> LazyRows:
    """The rows that were told of; ``kept`` gives the arrays by their names."""
    return LazyRows(_read(record["rows"], kept), kept(record["positions"]))


def write_rows(path: str, rows: LazyRows) -> None:
    """Write rows to an .npy file, part by part."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(rows.dtype), "fortran_order": False, "shape": rows.shape}
        )
        for part in rows_in_blocks(rows.in_place):
            file.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


def _reader(reader: RowReader, keep: Keep, write: Callable[[LazyRows], str]) -> Plain:
    if isinstance(reader, FileRows):
        return {"kind": "file", **_ranges(reader.ranges), "start": reader.start, "shape": reader.shape, "dtype": reader.dtype.str}
    if isinstance(reader, ConvertedRows):
        c = reader.conversion
        told = {"where": c.where, "raw": c.raw.str, "axes": c.axes, "target": _target(c.target)}
        return {"kind": "converted", "of": _reader(reader.raw, keep, write), **told}
    if isinstance(reader, PictureRows):
        arrays = {name: keep(getattr(reader, name)) for name in ("which", "start", "size")}
        told = {"where": reader.where, "geometry": vars(reader.geometry), "target": _target(reader.target), "sample": reader.sample}
        return {"kind": "pictures", **_ranges(reader.ranges), **arrays, **told}
    if isinstance(reader, MemberRows):
        arrays = {name: keep(getattr(reader, name)) for name in ("which", "start", "turned")}
        return {"kind": "members", **_ranges(reader.ranges), **arrays, "shape": reader.shape, "dtype": reader.dtype.str}
    assert isinstance(reader, ArrayRows), reader
    return {"kind": "array", "path": write(LazyRows(reader))}


def _read(record: Mapping[str, Any], kept: Callable[[str], Array]) -> RowReader:
    kind = record["kind"]
    if kind == "file":
        return FileRows(_files(record), record["start"], tuple(record["shape"]), np.dtype(record["dtype"]))
    if kind == "converted":
        target, axes = _target_of(record["target"]), tuple(record["axes"])
        return ConvertedRows(_read(record["of"], kept), Conversion(record["where"], np.dtype(record["raw"]), axes, target))
    if kind == "pictures":
        which, start, size = (kept(record[name]) for name in ("which", "start", "size"))
        geometry = Geometry(**{name: _size(value) for name, value in record["geometry"].items()})
        target, sample = _target_of(record["target"]), tuple(record["sample"])
        return PictureRows(record["where"], _files(record), which, start, size, geometry, target, sample)
    if kind == "members":
        which, start, turned = (kept(record[name]) for name in ("which", "start", "turned"))
        return MemberRows(_files(record), which, start, turned, tuple(record["shape"]), np.dtype(record["dtype"]))
    return ArrayRows(np.load(record["path"], mmap_mode="r", allow_pickle=False))


def _ranges(ranges: FileRanges) -> Plain:
    return {"files": ranges.files, "stamps": ranges.stamps}


def _files(record: Mapping[str, Any]) -> FileRanges:
    return FileRanges(tuple(record["files"]), tuple((size, written) for size, written in record["stamps"]))


def _target(target: Target) -> Plain:
    return {"shape": target.shape, "dtype": target.dtype.str, "preprocessing": vars(target.preprocessing)}


def _target_of(record: Mapping[str, Any]) -> Target:
    shape = None if record["shape"] is None else tuple(record["shape"])
    given = {name: _size(value) for name, value in record["preprocessing"].items()}
    return Target(shape, np.dtype(record["dtype"]), Preprocessing(**given))


def _size(value: Any) -> Any:
    """A pair, or more numbers, as JSON has it, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


__all__ = ["opened", "told", "write_rows"]
