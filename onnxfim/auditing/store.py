"""Blocks of outputs in the files of one folder, each with a checksum; what cannot be kept is told, and is no error."""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import numpy as np

from onnxfim.errors import OnnxFimError
from onnxfim.record.fitting import Misfit
from onnxfim.record.writing import reason, write_all

Array: TypeAlias = np.ndarray[Any, Any]
T = TypeVar("T")

#: Bytes of one store.
STORE_LIMIT = 2**29
#: Names of the folders in a cache that hold what is kept, and of the files in them: stores, and engines of TensorRT.
_FOLDERS = re.compile(r"[0-9a-f]{32}|tensorrt(-tf32)?")
_FILES = re.compile(r"[0-9a-f]{16}\.(bin|jsonl)|.+\.(engine|profile|timing)")


@dataclass(frozen=True)
class Kept:
    """A folder of a cache: the files in it that are ours, their bytes, and when it was used last."""

    folder: Path
    files: tuple[Path, ...]
    bytes: int
    used: float

    def remove(self) -> None:
        """Remove the files, and the folder where it holds no others; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            for file in self.files:
                file.unlink(missing_ok=True)
            self.folder.rmdir()


def kept_below(folder: Path) -> list[Kept]:
    """What a cache holds, used longest ago first; whatever else lies there is not ours to count or to touch."""
    found = []
    with contextlib.suppress(OSError, ValueError):  # nothing there yet
        for store in folder.iterdir():
            with contextlib.suppress(OSError):  # another process removes it
                if _FOLDERS.fullmatch(store.name) and not store.is_symlink() and store.is_dir():
                    files = tuple(p for p in store.iterdir() if _FILES.fullmatch(p.name))
                    size = sum(p.lstat().st_size for p in files)
                    found.append(Kept(store, files, size, store.stat().st_mtime))
    return sorted(found, key=lambda kept: kept.used)


@dataclass(frozen=True)
class _Block:
    """Where a block lies."""

    file: Path
    offset: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str
    crc: int


class _Pair:
    """A file of blocks and its index, to append to: unbuffered, so that an error comes where it belongs, and never twice."""

    def __init__(self, file: Path, blocks: BinaryIO, index: BinaryIO) -> None:
        self._file, self._blocks, self._index = file, blocks, index
        self._good = (0, 0)  # bytes of each that hold whole blocks and lines

    @staticmethod
    def open(folder: Path) -> _Pair:
        """A new pair in the folder, which is made.

        Raises:
            OSError: it cannot be made; none of it is left then.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder / f"{secrets.token_hex(8)}.bin"
        with contextlib.ExitStack() as undo:
            undo.callback(_tidy, file)
            blocks = undo.enter_context(file.open("xb", buffering=0))
            index = undo.enter_context(file.with_suffix(".jsonl").open("xb", buffering=0))
            undo.pop_all()
        return _Pair(file, blocks, index)

    def append(self, entries: Sequence[tuple[str, bytes, tuple[int, ...], str]]) -> list[_Block]:
        """Write blocks, each with its key, shape and type, and then their lines: two writes, however many they are.

        Raises:
            OSError: they cannot be written; both files are cut to what they held before.
        """
        blocks, at = [], self._good[0]
        for _, content, shape, dtype in entries:
            blocks.append(_Block(self._file, at, len(content), shape, dtype, zlib.crc32(content)))
            at += len(content)
        lines = b"".join(_line(key, block) for (key, *_), block in zip(entries, blocks, strict=True))
        try:
            write_all(self._blocks, b"".join(content for _, content, *_ in entries))
            write_all(self._index, lines)
        except BaseException:
            for file, size in zip((self._blocks, self._index), self._good, strict=True):
                with contextlib.suppress(OSError):  # a torn line is known by its checksum
                    file.truncate(size)
                    file.seek(size)
            raise
        self._good = at, self._good[1] + len(lines)
        return blocks

    def close(self) -> None:
        """Close both files, and remove them where they hold nothing.

        Raises:
            OSError: the disk did not take what was written.
        """
        try:
            with self._blocks, self._index:  # the second is closed whatever becomes of the first
                pass
        finally:
            if self._good == (0, 0):
                _tidy(self._file)


def _tidy(file: Path) -> None:
    """Remove a pair of files, and its folder where nothing else is in it."""
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)
        file.with_suffix(".jsonl").unlink(missing_ok=True)
        file.parent.rmdir()


class FileStore:
    """A store in a folder: files of blocks, and beside each its index in JSON lines, each with its own checksum.

    Every process writes a pair of files of its own, so that several may run at once; all read all.

    Attributes:
        damaged: Entries that were damaged and will be measured again.
        trouble: Why nothing more is kept, or None.
    """

    def __init__(self, folder: Path, limit: int = STORE_LIMIT) -> None:
        self.folder = folder
        self.damaged = 0
        self.trouble: str | None = None
        self._limit, self._size = limit, 0
        self._blocks: dict[str, list[_Block]] = {}  # several where one was damaged and measured again
        self._writing: _Pair | None = None
        self._reading = _Reading()
        try:
            indices = sorted(p for p in folder.iterdir() if p.suffix == ".jsonl")
        except FileNotFoundError:  # nothing kept yet
            return
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            self._give_up(error)
            return
        for index in indices:
            self._read(index)

    def holds(self, key: str) -> bool:
        return self._bytes(key) is not None

    def get(self, key: str) -> Array | None:
        content = self._bytes(key)
        if content is None:
            return None
        block = self._blocks[key][-1]
        return np.frombuffer(content, np.dtype(block.dtype)).reshape(block.shape).astype(np.float64)

    def record(self, key: str, read: Callable[[Any], T]) -> T | None:
        """What ``read`` makes of the record that `put_record` kept, or None."""
        return self.content(key, lambda content: read(json.loads(content)))

    def content(self, key: str, read: Callable[[bytes], T]) -> T | None:
        """What ``read`` makes of the bytes that `put_contents` kept, or None."""
        content = self._bytes(key)
        if content is None:
            return None
        try:
            return read(content)
        except (ValueError, KeyError, TypeError, AttributeError, OnnxFimError, Misfit):  # written by another version
            self.damaged += 1
            self._blocks[key].pop()
            return self.content(key, read)

    def put_record(self, key: str, record: object) -> None:
        """Keep a record of plain values; they must be finite."""
        self.put_contents([(key, json.dumps(record, allow_nan=False).encode())])

    def put_contents(self, contents: Sequence[tuple[str, bytes]]) -> None:
        """Keep bytes by their keys, all in one write."""
        self._keep([(key, content, (len(content),), "|u1") for key, content in contents])

    def put(self, key: str, rows: Array) -> None:
        with np.errstate(over="ignore"):
            narrow = rows.astype("<f4")  # most models answer in float32: half the space, and exactly the same numbers
        kept = narrow if np.array_equal(narrow.astype(np.float64), rows, equal_nan=True) else rows.astype("<f8")
        self._keep([(key, kept.tobytes(), kept.shape, kept.dtype.str)])

    def _keep(self, entries: Sequence[tuple[str, bytes, tuple[int, ...], str]]) -> None:
        """Keep all of these, on disk when this returns, or where one does not fit or cannot be written none of them."""
        size = sum(len(content) for _, content, *_ in entries)
        if self.trouble is None and self._size + size > self._limit:
            self.trouble = f"the limit of {self._limit:,} bytes is reached"
        if self.trouble is not None or not entries:
            return
        try:
            self._writing = self._writing or _Pair.open(self.folder)
            blocks = self._writing.append(entries)
        except (OSError, ValueError) as error:  # a full or read-only disk ends the keeping, not the audit
            self._give_up(error)
            return
        for (key, *_), block in zip(entries, blocks, strict=True):
            self._blocks.setdefault(key, []).append(block)
        self._size += size

    def _give_up(self, error: OSError | ValueError) -> None:
        """Keep nothing more, and say why; the first reason stays."""
        self.trouble = self.trouble or reason(error)

    def close(self) -> None:
        """Close the files; what was put is on disk already. Files that hold nothing are removed."""
        self._reading.close()
        if self._writing is None:
            return
        try:
            self._writing.close()
        except OSError as error:  # some disks tell only now that they are full
            self._give_up(error)
        self._writing = None

    def _read(self, index: Path) -> None:
        try:
            lines = index.read_bytes().splitlines()
        except FileNotFoundError:  # another process tidied up
            return
        except OSError as error:
            self._give_up(error)
            return
        for line in lines:
            found = _parsed(line, index.with_suffix(".bin"))
            if found is None:
                self.damaged += 1
            else:
                self._blocks.setdefault(found[0], []).append(found[1])
                self._size += found[1].bytes

    def _bytes(self, key: str) -> bytes | None:
        """One of the key's blocks that is what was written; damaged ones are dropped."""
        blocks = self._blocks.get(key, [])
        while blocks:
            content = self._reading.content(blocks[-1])
            if content is not None:
                return content
            blocks.pop()
            self.damaged += 1
        return None


class _Reading:
    """The file that blocks are read from, kept open until one of another is asked for."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: BinaryIO | None = None

    def content(self, block: _Block) -> bytes | None:
        """The block's bytes, or None where they are not what was written."""
        try:
            if self._file is None or self._path != block.file:
                self.close()
                self._file, self._path = block.file.open("rb"), block.file
            self._file.seek(block.offset)
            content = self._file.read(block.bytes)
        except OSError:
            return None
        return content if len(content) == block.bytes and zlib.crc32(content) == block.crc else None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def _line(key: str, block: _Block) -> bytes:
    # As `json.dumps` of the record writes it, with sorted keys, at a tenth of the cost: there is a line for every sample.
    place = f'"bytes": {block.bytes}, "crc": {block.crc}, "dtype": "{block.dtype}", "key": {json.dumps(key)}'
    record = f'{place}, "offset": {block.offset}, "shape": [{", ".join(map(str, block.shape))}]'
    return f'{{{record}, "check": {zlib.crc32(f"{{{record}}}".encode())}}}\n'.encode()


def _check(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _parsed(line: bytes, file: Path) -> tuple[str, _Block] | None:
    """Key and place of a block, or None where the line is damaged."""
    try:
        record = json.loads(line)
        check = record.pop("check")
        if check != _check(record) or record["dtype"] not in ("<f4", "<f8", "|u1"):
            return None
        shape = tuple(int(n) for n in record["shape"])
        if math.prod(shape) * int(record["dtype"][2]) != record["bytes"]:
            return None
        return record["key"], _Block(file, record["offset"], record["bytes"], shape, record["dtype"], record["crc"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
