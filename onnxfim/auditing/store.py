"""Blocks of outputs in the files of one folder, each with a checksum; what cannot be kept is told, and is no error."""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import numpy as np

from onnxfim.auditing.kept_stores import mark_in_use, touch, why_no_room
from onnxfim.errors import OnnxFimError
from onnxfim.record.fitting import Misfit
from onnxfim.record.writing import reason, write_all

Array: TypeAlias = np.ndarray[Any, Any]
#: A block to keep: its key, bytes, shape and type.
Entry: TypeAlias = tuple[str, bytes, tuple[int, ...], str]
#: Why so many bytes more may not be kept; None where they may.
Room: TypeAlias = Callable[[int], str | None]
T = TypeVar("T")

#: Bytes of the blocks of a store that a run does without: as long as there are fewer they are kept, for runs with other settings.
LUXURIES = 2**29
#: Seconds after which blocks that wait for their write are written, and their bytes.
OFTEN, MOST_WAITING = 0.1, 2**20
_TOUCHED = 60.0  # seconds between two marks that a store is in use


@dataclass(frozen=True, slots=True)
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
            mark_in_use(index)
            undo.pop_all()
        return _Pair(file, blocks, index)

    def append(self, entries: Sequence[Entry]) -> list[_Block]:
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

    Args:
        folder: Where it is; made with the first block.
        luxuries: Bytes of it up to which blocks are kept that a run does without.
        room: Asked before blocks are written; None asks the disk alone.

    Attributes:
        damaged: Entries that were damaged and will be measured again.
        trouble: Why nothing more is kept, or None.
    """

    def __init__(self, folder: Path, luxuries: int = LUXURIES, room: Room | None = None) -> None:
        self.folder = folder
        self.damaged = 0
        self.trouble: str | None = None
        self._luxuries, self._size = luxuries, 0
        self._room: Room = room or partial(why_no_room, folder)
        self._blocks: dict[str, tuple[_Block, ...]] = {}  # several where one was damaged and measured again
        self._waiting: list[Entry] = []
        self._waits = 0  # bytes of these
        self._flushed = self._touched = -math.inf
        self._writing: _Pair | None = None
        self._reading = _Reading()
        try:
            indices = sorted(p for p in folder.iterdir() if p.suffix == ".jsonl")
        except FileNotFoundError:  # nothing kept yet
            return
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            self._give_up(error)
            return
        self._touch()
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
            self._blocks[key] = self._blocks[key][:-1]
            return self.content(key, read)

    def put_record(self, key: str, record: object) -> None:
        """Keep a record of plain values; they must be finite."""
        self.put_contents([(key, json.dumps(record, allow_nan=False).encode())])

    def put_contents(self, contents: Sequence[tuple[str, bytes]]) -> None:
        """Keep bytes by their keys, all in one write."""
        self._keep([(key, content, (len(content),), "|u1") for key, content in contents])

    def put(self, key: str, rows: Array, *, luxury: bool = False) -> None:
        """Keep outputs, with the next write; those that a run does without as long as there are few of these."""
        if luxury and self._size + self._waits + rows.size * 4 > self._luxuries:
            return
        with np.errstate(over="ignore"):
            narrow = rows.astype("<f4")  # most models answer in float32: half the space, and exactly the same numbers
        kept = narrow if np.array_equal(narrow.astype(np.float64), rows, equal_nan=True) else rows.astype("<f8")
        self._later((key, kept.tobytes(), kept.shape, kept.dtype.str))

    def put_later(self, key: str, content: bytes) -> None:
        """Keep bytes by their key, with the next write."""
        self._later((key, content, (len(content),), "|u1"))

    def flush(self) -> None:
        """Write what waits for that."""
        if not self._waiting:
            return
        waiting, self._waiting, self._waits = self._waiting, [], 0
        self._flushed = time.monotonic()
        self._keep(waiting)

    def _later(self, entry: Entry) -> None:
        """Keep a block with others in one write: at once where none was for a while, so that slow ones are on disk one by one."""
        self._waiting.append(entry)
        self._waits += len(entry[1])
        if self._waits > MOST_WAITING or time.monotonic() - self._flushed > OFTEN:
            self.flush()

    def _keep(self, entries: Sequence[Entry]) -> None:
        """Keep all of these, on disk when this returns, or where there is no room or they cannot be written none of them."""
        size = sum(len(content) for _, content, *_ in entries)
        if self.trouble is None and entries:
            self.trouble = self._room(size)
        if self.trouble is not None or not entries:
            return
        try:
            self._writing = self._writing or _Pair.open(self.folder)
            blocks = self._writing.append(entries)
        except (OSError, ValueError) as error:  # a full or read-only disk ends the keeping, not the audit
            self._give_up(error)
            return
        for (key, *_), block in zip(entries, blocks, strict=True):
            self._add(key, block)
        self._size += size
        self._touch()

    def _touch(self) -> None:
        """Tell that it is in use, now and then."""
        if (now := time.monotonic()) - self._touched > _TOUCHED:
            self._touched = now
            touch(self.folder)

    def _give_up(self, error: OSError | ValueError) -> None:
        """Keep nothing more, and say why; the first reason stays."""
        self.trouble = self.trouble or reason(error)

    def rest(self) -> None:
        """Hold no more files open than it must, until it is asked again."""
        self.flush()
        if self._writing is not None:  # which marks the store as in use too
            self._reading.close()

    def close(self) -> None:
        """Close the files, with all on disk that was put. Files that hold nothing are removed."""
        self.flush()
        self._reading.close()
        if self._writing is None:
            return
        try:
            self._writing.close()
        except OSError as error:  # some disks tell only now that they are full
            self._give_up(error)
        self._writing = None

    def _read(self, index: Path) -> None:
        blocks = index.with_suffix(".bin")
        try:
            with index.open("rb") as lines:
                for line in lines:
                    found = _parsed(line, blocks)
                    if found is None:
                        self.damaged += 1
                    else:
                        self._add(*found)
                        self._size += found[1].bytes
        except FileNotFoundError:  # another process tidied up
            pass
        except OSError as error:
            self._give_up(error)

    def _add(self, key: str, block: _Block) -> None:
        self._blocks[key] = (*self._blocks.get(key, ()), block)

    def _bytes(self, key: str) -> bytes | None:
        """One of the key's blocks that is what was written; damaged ones are dropped."""
        self.flush()
        while blocks := self._blocks.get(key):
            content = self._reading.content(blocks[-1])
            if content is not None:
                return content
            self._blocks[key] = blocks[:-1]
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
                mark_in_use(self._file)
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


@lru_cache(4096)
def _once(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The same shape, held in memory once for all blocks that have it."""
    return shape


def _check(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _parsed(line: bytes, file: Path) -> tuple[str, _Block] | None:
    """Key and place of a block, or None where the line is damaged."""
    try:
        record = json.loads(line)
        check = record.pop("check")
        told = line[: line.rfind(b', "check"')] + b"}"  # as `_line` writes it; made anew it would be read at a third of the speed
        dtype, shape = record["dtype"], record["shape"]
        if (check != zlib.crc32(told) and check != _check(record)) or dtype not in ("<f4", "<f8", "|u1"):
            return None
        shape, dtype = _once(tuple(map(int, shape))), sys.intern(dtype)
        if math.prod(shape) * int(dtype[2]) != record["bytes"]:
            return None
        return record["key"], _Block(file, record["offset"], record["bytes"], shape, dtype, record["crc"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
