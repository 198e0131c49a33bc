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
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnxfim.auditing.meter import Meter
from onnxfim.auditing.store import STORE_LIMIT, FileStore, kept_below
from onnxfim.record.bound import Bound
from onnxfim.record.packed import packed, unpacked
from onnxfim.record.sample import SampleResult
from onnxfim.slopes.differences import DifferenceJacobian, Ends, Request, Sample, Scheme

Array: TypeAlias = np.ndarray[Any, Any]

#: Bytes that all stores of a cache folder may take together.
LIMIT = 2 * STORE_LIMIT
_OFTEN = 0.1  # seconds between two writes of results


class Store(Protocol):
    """Blocks of outputs by key, for one model and one way of measuring it."""

    def holds(self, key: str) -> bool:
        """Whether an undamaged block is there."""

    def get(self, key: str) -> Array | None:
        """The block, or None where there is none or it is damaged."""

    def put(self, key: str, rows: Array) -> None:
        """Keep a block; one that cannot be kept is measured again next time."""


def default_folder() -> Path | None:
    """The cache folder of this platform: below ``XDG_CACHE_HOME``, ``%LOCALAPPDATA%`` or ``~/.cache``; None without a home.

    Source: the XDG Base Directory Specification: a path that is not absolute is passed over.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA", "") if sys.platform == "win32" else ""))
    if base.is_absolute():
        return base / "onnxfim"
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and no entry in the list of users
        return None
    return home / ".cache" / "onnxfim" if home.is_absolute() and home != Path(home.anchor) else None


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
        with contextlib.suppress(OSError, ValueError):  # not there yet, or not ours to touch
            os.utime(folder)
        return FileStore(folder, self.limit // 2)

    def _prune(self, keep: str) -> None:
        """Remove the stores used longest ago until all but ``keep`` take half the limit."""
        stores = [kept for kept in kept_below(self.folder) if kept.folder.name != keep]
        total = sum(kept.bytes for kept in stores)
        for kept in stores:
            if total <= self.limit // 2:
                return
            kept.remove()
            total -= kept.bytes


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


class RememberedJacobian:
    """Finite differences that measure only what the store does not hold; the rest of the audit sees no difference."""

    def __init__(self, jacobian: DifferenceJacobian, store: Store, meter: Meter, held: Mapping[str, Array] | None = None) -> None:
        self._jacobian, self._store, self._meter, self._held = jacobian, store, meter, held or {}
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
                self._meter.remembered(len(rows) - sum(map(len, self._jacobian.known(request))))
                position = request.sample.position
                yield self._jacobian.pair(request, rows, base[position], X[position])
                self._meter.check()
                continue
            # A block that was held and went meanwhile is measured by itself.
            ends = next(iter(self._jacobian.ends(X, base, [request]))) if key in held else next(fresh)
            if ends.request.count == request.count:  # not one that was cut short: a resumed audit measures it whole
                self._store.put(key, rows_of(ends, self.scheme))
            yield ends

    def _key(self, X: Array, request: Request) -> str:
        """The sample's own values, its stream and the directions."""
        position = request.sample.position
        if position not in self._digests:
            self._digests[position] = _digest_of(X, self._held, position)
        return f"{self._digests[position]}:{request.sample.index}:{request.start}:{request.count}"


@dataclass(frozen=True)
class _Measured:
    """A sample's result and its lead, row after row; ``within`` tells the range of inputs for which that was chosen."""

    result: SampleResult
    within: str = ""
    lead: tuple[tuple[float, ...], ...] = ()


def remembered_results(
    store: FileStore | None,
    X: Array,
    targets: Sequence[Sample],
    measure: Callable[[Sequence[Sample]], Iterator[tuple[int, SampleResult]]],
    meter: Meter,
    leads: MutableMapping[int, Array],
    held: MutableMapping[int, Array],
    within: Sequence[Array],
    *,
    block: int = 1,
    beside: Mapping[str, Array] | None = None,
) -> Generator[tuple[int, SampleResult], None, None]:
    """What ``measure`` yields, position and result of each target in order, measuring only what the store does not hold.

    ``measure`` leaves a sample's lead in ``leads`` by position, and of some samples the directions, float32, in ``held``; they are
    kept with the result, for the range of inputs ``within`` which they were chosen, and put there again with it. ``measure`` runs
    the model for ``block`` samples at once: their results are on disk, all in one write, before it does so for the next, and those
    of a long block every `_OFTEN` seconds. ``beside`` are the samples' own values of inputs that are held, (N, …) each.
    """
    if store is None:
        yield from measure(targets)
        return
    keys = {t.position: f"{_digest_of(X, beside or {}, t.position)}:{t.index}:result" for t in targets}
    about = _digest(np.stack(within))
    read = partial(unpacked, _Measured)
    known: dict[int, _Measured] = {t.position: kept for t in targets if (kept := store.content(keys[t.position], read)) is not None}
    fresh = measure([t for t in targets if t.position not in known])
    waiting: list[tuple[str, bytes]] = []

    def keep() -> None:
        store.put_contents(waiting)
        waiting.clear()

    done, since = 0, time.monotonic()
    try:
        for target in targets:
            if target.position in known:
                kept = known.pop(target.position)
                if kept.within == about:
                    leads[target.position] = np.array(kept.lead)
                    shape = (len(kept.lead), math.prod(X.shape[1:]))
                    directions = store.content(_beside(keys[target.position], about), partial(_floats, shape))
                    if directions is not None:
                        held[target.position] = directions
                meter.remembered(kept.result.evaluations)
                yield target.position, replace(kept.result, name=target.name, label=target.label)
                meter.check()
                continue
            position, result = next(fresh)
            lead = leads.get(position)
            told = () if lead is None else tuple(map(tuple, lead.tolist()))
            if (content := packed(_Measured(result, about if told else "", told))) is not None:  # None: not finite, so not kept
                if told and position in held:  # first: where there is a result, its directions are too
                    waiting.append((_beside(keys[position], about), held[position].astype("<f4").tobytes()))
                waiting.append((keys[position], content))
            done += 1
            if done % block == 0 or time.monotonic() - since > _OFTEN:
                keep()
                since = time.monotonic()
            yield position, result
    finally:  # whatever ends it: what was measured is kept
        keep()


def _beside(key: str, about: str) -> str:
    """The key of a sample's directions, for a range of inputs."""
    return f"{key}:directions:{about}"


def _floats(shape: tuple[int, ...], content: bytes) -> Array:
    return np.frombuffer(content, "<f4").reshape(shape)


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


def _digest_of(X: Array, held: Mapping[str, Array], position: int) -> str:
    """Hash of a sample's values, and of those at which other inputs are held for it."""
    own = _digest(X[position])
    if not held:
        return own
    others = [own, *(f"{name}={_digest(np.asarray(values[position]))}" for name, values in sorted(held.items()))]
    return hashlib.sha256(" ".join(others).encode()).hexdigest()[:32]


def rows_of(ends: Ends, scheme: Scheme) -> Array:
    """The rows that `DifferenceJacobian.pair` made ends of, (rows, K, P)."""
    if scheme == "forward":
        return ends.plus
    parts = [ends.plus, ends.minus] + ([ends.twin.plus, ends.twin.minus] if ends.twin is not None else [])
    stacked = np.stack(parts, axis=1)  # (m, 2 or 4, K, P)
    return stacked.reshape(-1, *stacked.shape[2:])
