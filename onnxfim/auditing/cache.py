"""Keeps what a model answered on disk as it comes, so that an interrupted audit goes on where it stopped.

Of differences the model's own outputs are kept, one block per request of directions, so that everything computed from them
(estimates, which samples are refined, statistics) is the same whether they were measured now or before. Of gradients, which are
never refined, each sample's result is kept; of a graph its bound.
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
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeVar

import numpy as np

from onnxfim.auditing.meter import Meter
from onnxfim.errors import OnnxFimError
from onnxfim.record.bound import Bound
from onnxfim.record.fitting import Misfit, from_plain
from onnxfim.record.plain import to_plain
from onnxfim.record.sample import SampleResult
from onnxfim.slopes.differences import DifferenceJacobian, Ends, Request, Sample, Scheme

Array: TypeAlias = np.ndarray[Any, Any]
T = TypeVar("T")

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


class Memory:
    """The stores that one audit uses, opened as they are asked for.

    Args:
        cache: Where they are, or None where nothing is kept.
    """

    def __init__(self, cache: Cache | None) -> None:
        self._cache = cache
        self._stores: list[FileStore] = []

    def store(self, identity: Mapping[str, object]) -> FileStore | None:
        """The store of what ``identity`` names; None without a cache."""
        if self._cache is None:
            return None
        self._stores.append(self._cache.store(identity))
        return self._stores[-1]

    @property
    def used(self) -> bool:
        """Whether anything was looked up."""
        return bool(self._stores)

    @property
    def damaged(self) -> int:
        """Entries that were damaged."""
        return sum(s.damaged for s in self._stores)

    @property
    def trouble(self) -> str | None:
        """Why nothing more is kept, or None."""
        return next((s.trouble for s in self._stores if s.trouble), None)

    def close(self) -> None:
        """Close the stores."""
        for store in self._stores:
            store.close()


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
        damaged: Entries that were damaged and will be measured again.
        trouble: Why nothing more is kept, or None.
    """

    def __init__(self, folder: Path, limit: int = LIMIT // 2) -> None:
        self.folder = folder
        self.damaged = 0
        self.trouble: str | None = None
        self._limit, self._size = limit, 0
        self._blocks: dict[str, list[_Block]] = {}  # several where one was damaged and measured again
        self._writing: tuple[Path, BinaryIO, BinaryIO] | None = None
        for index in sorted(folder.glob("*.jsonl")):
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
        content = self._bytes(key)
        if content is None:
            return None
        try:
            return read(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError, OnnxFimError, Misfit):  # written by another version
            self.damaged += 1
            self._blocks[key].pop()
            return self.record(key, read)

    def put_record(self, key: str, record: object) -> None:
        """Keep a record of plain values; they must be finite."""
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
        self._blocks.setdefault(key, []).append(block)
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
                self._blocks.setdefault(found[0], []).append(found[1])
                self._size += found[1].bytes

    def _bytes(self, key: str) -> bytes | None:
        """One of the key's blocks that is what was written; damaged ones are dropped."""
        blocks = self._blocks.get(key, [])
        while blocks:
            content = _content(blocks[-1])
            if content is not None:
                return content
            blocks.pop()
            self.damaged += 1
        return None


def _content(block: _Block) -> bytes | None:
    """The block's bytes, or None where they are not what was written."""
    try:
        with block.file.open("rb") as file:
            file.seek(block.offset)
            content = file.read(block.bytes)
    except OSError:
        return None
    return content if len(content) == block.bytes and zlib.crc32(content) == block.crc else None


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

    def __init__(self, jacobian: DifferenceJacobian, store: Store, meter: Meter) -> None:
        self._jacobian, self._store, self._meter = jacobian, store, meter
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
                self._meter.remembered(len(rows))
                position = request.sample.position
                yield self._jacobian.pair(request, rows, base[position], X[position])
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
    meter: Meter,
    leads: MutableMapping[int, Array],
    within: Sequence[Array],
) -> Iterator[tuple[int, SampleResult]]:
    """What ``measure`` yields, position and result of each target in order, measuring only what the store does not hold.

    ``measure`` leaves a sample's lead in ``leads`` by position; it is kept beside the result, for the range of inputs ``within``
    which it was chosen, and put there again with it.
    """
    if store is None:
        yield from measure(targets)
        return
    keys = {t.position: f"{_digest(X[t.position])}:{t.index}" for t in targets}
    about = f"lead:{_digest(np.stack(within))}"
    read = partial(from_plain, SampleResult)
    known: dict[int, SampleResult] = {t.position: r for t in targets if (r := store.record(keys[t.position], read)) is not None}
    fresh = measure([t for t in targets if t.position not in known])
    for target in targets:
        if target.position in known:
            found = known[target.position]
            if (lead := store.get(f"{keys[target.position]}:{about}")) is not None:
                leads[target.position] = lead
            meter.remembered(found.evaluations)
            yield target.position, replace(found, name=target.name, label=target.label)
            continue
        position, result = next(fresh)
        record = to_plain(result)
        if _reads_back(record, result):  # JSON holds no NaN
            store.put_record(keys[position], record)
            if position in leads:
                store.put(f"{keys[position]}:{about}", leads[position])
        yield position, result


def _reads_back(record: Any, result: SampleResult) -> bool:
    try:
        return bool(from_plain(SampleResult, record) == result)
    except Misfit:
        return False


def remembered_bound(store: FileStore, key: str, compute: Callable[[], Bound]) -> Bound:
    """The bound from the store, or computed and kept there."""
    found = store.record(key, Bound.from_json)
    if found is None:
        found = compute()
        store.put_record(key, found.to_json())
    return found


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
