"""Keeps what a model answered on disk as it comes, so that an interrupted audit goes on where it stopped.

Of differences the model's own outputs are kept, one block per request of directions, so that everything computed from them
(estimates, which samples are refined, statistics) is the same whether they were measured now or before. Of gradients, which are
never refined, each sample's result is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np

from onnxfim.record.plain import from_plain, to_plain
from onnxfim.record.sample import SampleResult
from onnxfim.slopes.differences import DifferenceJacobian, Ends, Request, Sample, Scheme

Array: TypeAlias = np.ndarray[Any, Any]

#: Bytes that all stores of a cache folder may take together.
LIMIT = 2**30


class Store(Protocol):
    """Blocks of outputs by key, for one model and one way of measuring it."""

    def holds(self, key: str) -> bool:
        """Whether an undamaged block is there."""

    def get(self, key: str) -> Array | None:
        """The block, or None where there is none or it is damaged."""

    def put(self, key: str, rows: Array) -> None:
        """Keep a block; one that cannot be kept is measured again next time."""


def default_folder() -> Path:
    """The cache folder of this platform: below ``XDG_CACHE_HOME``, ``%LOCALAPPDATA%`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    return (Path(base) if base else Path.home() / ".cache") / "onnxfim"


@dataclass(frozen=True)
class Cache:
    """A folder of stores, one per model and way of measuring, of ``limit`` bytes together.

    A store takes half of them at most; those used longest ago go where the others take more than the other half.
    """

    folder: Path
    limit: int = LIMIT

    def store(self, identity: Mapping[str, object]) -> FileStore:
        """The store of what ``identity`` names; anything that changes the outputs must be in it."""
        name = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:32]
        folder = self.folder / name
        self._prune(keep=name)
        with contextlib.suppress(OSError):  # not there yet, or not ours to touch
            os.utime(folder)
        return FileStore(folder, self.limit // 2)

    def _prune(self, keep: str) -> None:
        """Remove the stores used longest ago until all but ``keep`` take half the limit."""
        try:
            stores = [p for p in self.folder.iterdir() if p.is_dir() and p.name != keep]
            sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in stores}
            stores.sort(key=lambda p: p.stat().st_mtime)
        except OSError:  # nothing there yet, or another process prunes
            return
        total = sum(sizes.values())
        for store in stores:
            if total <= self.limit // 2:
                return
            shutil.rmtree(store, ignore_errors=True)
            total -= sizes[store]


@dataclass(frozen=True)
class _Block:
    """Where a block lies."""

    file: Path
    offset: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str
    crc: int


class FileStore:
    """A store in a folder: files of blocks, and beside each its index in JSON lines, each with its own checksum.

    Every process writes a pair of files of its own, so that several may run at once; all read all.

    Attributes:
        rows: Rows that were taken from here instead of being measured.
        damaged: Entries that were damaged and will be measured again.
        trouble: Why nothing more is kept, or None.
    """

    def __init__(self, folder: Path, limit: int = LIMIT // 2) -> None:
        self.folder = folder
        self.rows = self.damaged = 0
        self.trouble: str | None = None
        self._limit, self._size = limit, 0
        self._blocks: dict[str, _Block] = {}
        self._writing: tuple[Path, BinaryIO, BinaryIO] | None = None
        for index in sorted(folder.glob("*.jsonl")):
            self._read(index)

    def holds(self, key: str) -> bool:
        return self._bytes(key) is not None

    def get(self, key: str) -> Array | None:
        content = self._bytes(key)
        if content is None:
            return None
        block = self._blocks[key]
        rows = np.frombuffer(content, np.dtype(block.dtype)).reshape(block.shape).astype(np.float64)
        self.rows += len(rows)
        return rows

    def result(self, key: str) -> SampleResult | None:
        """A sample's result that `put_result` kept, or None."""
        content = self._bytes(key)
        if content is None:
            return None
        try:
            found: SampleResult = from_plain(SampleResult, json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError):  # written by another version
            self.damaged += 1
            del self._blocks[key]
            return None
        self.rows += found.evaluations
        return found

    def put_result(self, key: str, result: SampleResult) -> None:
        """Keep a sample's result, where JSON holds it exactly (it holds no NaN)."""
        record = to_plain(result)
        if from_plain(SampleResult, record) == result:
            content = json.dumps(record, allow_nan=False).encode()
            self._keep(key, content, (len(content),), "|u1")

    def put(self, key: str, rows: Array) -> None:
        with np.errstate(over="ignore"):
            narrow = rows.astype("<f4")  # most models answer in float32: half the space, and exactly the same numbers
        kept = narrow if np.array_equal(narrow.astype(np.float64), rows, equal_nan=True) else rows.astype("<f8")
        self._keep(key, kept.tobytes(), kept.shape, kept.dtype.str)

    def _keep(self, key: str, content: bytes, shape: tuple[int, ...], dtype: str) -> None:
        if self.trouble is None and self._size + len(content) > self._limit:
            self.trouble = f"the limit of {self._limit:,} bytes is reached"
        if self.trouble is not None:
            return
        try:
            file, blocks, index = self._writing or self._open()
            block = _Block(file, blocks.tell(), len(content), shape, dtype, zlib.crc32(content))
            blocks.write(content)
            blocks.flush()
            index.write(_line(key, block))
            index.flush()
        except OSError as error:  # a full or read-only disk ends the keeping, not the audit
            self.trouble = error.strerror or str(error)
            return
        self._blocks[key] = block
        self._size += len(content)

    def _open(self) -> tuple[Path, BinaryIO, BinaryIO]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self.folder / f"{secrets.token_hex(8)}.bin"
        self._writing = (file, file.open("xb"), file.with_suffix(".jsonl").open("xb"))
        return self._writing

    def close(self) -> None:
        """Close the files; what was put is on disk already."""
        if self._writing is not None:
            self._writing[1].close()
            self._writing[2].close()
            self._writing = None

    def _read(self, index: Path) -> None:
        try:
            lines = index.read_bytes().splitlines()
        except OSError:
            return
        for line in lines:
            found = _parsed(line, index.with_suffix(".bin"))
            if found is None:
                self.damaged += 1
            else:
                self._blocks[found[0]] = found[1]
                self._size += found[1].bytes

    def _bytes(self, key: str) -> bytes | None:
        """The block's bytes where they are what was written; a damaged entry is dropped."""
        block = self._blocks.get(key)
        if block is None:
            return None
        try:
            with block.file.open("rb") as file:
                file.seek(block.offset)
                content = file.read(block.bytes)
        except OSError:
            content = b""
        if len(content) == block.bytes and zlib.crc32(content) == block.crc:
            return content
        del self._blocks[key]
        self.damaged += 1
        return None


def _line(key: str, block: _Block) -> bytes:
    place = {"offset": block.offset, "bytes": block.bytes, "crc": block.crc}
    record = {"key": key, **place, "shape": list(block.shape), "dtype": block.dtype}
    return json.dumps({**record, "check": _check(record)}).encode() + b"\n"


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


class RememberedJacobian:
    """Finite differences that measure only what the store does not hold; the rest of the audit sees no difference."""

    def __init__(self, jacobian: DifferenceJacobian, store: Store) -> None:
        self._jacobian, self._store = jacobian, store
        self._digests: dict[int, str] = {}  # by position

    @property
    def scheme(self) -> Scheme:
        return self._jacobian.scheme

    def ends(self, X: Array, base: Array, requests: Sequence[Request]) -> Iterator[Ends]:
        """As `DifferenceJacobian.ends`, in the same order."""
        asked = [(r, self._key(X, r)) for r in requests if r.count]
        held = {key for _, key in asked if self._store.holds(key)}
        fresh = self._jacobian.ends(X, base, [r for r, key in asked if key not in held])
        for request, key in asked:
            rows = self._store.get(key) if key in held else None
            if rows is not None:
                yield self._jacobian.pair(request, rows, base[request.sample.position])
                continue
            # A block that was held and went meanwhile is measured by itself.
            ends = next(iter(self._jacobian.ends(X, base, [request]))) if key in held else next(fresh)
            self._store.put(key, rows_of(ends, self.scheme))
            yield ends

    def _key(self, X: Array, request: Request) -> str:
        """The sample's own values, its stream and the directions."""
        position = request.sample.position
        if position not in self._digests:
            self._digests[position] = _digest(X[position])
        return f"{self._digests[position]}:{request.sample.index}:{request.start}:{request.count}"


def remembered_results(
    store: FileStore | None,
    X: Array,
    targets: Sequence[Sample],
    measure: Callable[[Sequence[Sample]], Iterator[tuple[int, SampleResult]]],
) -> Iterator[tuple[int, SampleResult]]:
    """What ``measure`` yields, position and result of each target in order, measuring only what the store does not hold."""
    if store is None:
        yield from measure(targets)
        return
    keys = {t.position: f"{_digest(X[t.position])}:{t.index}" for t in targets}
    known = {t.position: found for t in targets if (found := store.result(keys[t.position])) is not None}
    fresh = measure([t for t in targets if t.position not in known])
    for target in targets:
        if target.position in known:
            yield target.position, replace(known[target.position], name=target.name, label=target.label)
            continue
        position, result = next(fresh)
        store.put_result(keys[position], result)
        yield position, result


def _digest(x: Array) -> str:
    """Hash of a sample's values."""
    x = np.ascontiguousarray(x)
    return hashlib.sha256(f"{x.dtype.str}{x.shape}".encode() + x.tobytes()).hexdigest()[:32]


def rows_of(ends: Ends, scheme: Scheme) -> Array:
    """The rows that `DifferenceJacobian.pair` made ends of, (rows, K, P)."""
    if scheme == "forward":
        return ends.plus
    parts = [ends.plus, ends.minus] + ([ends.twin.plus, ends.twin.minus] if ends.twin is not None else [])
    stacked = np.stack(parts, axis=1)  # (m, 2 or 4, K, P)
    return stacked.reshape(-1, *stacked.shape[2:])
