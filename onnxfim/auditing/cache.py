"""Keeps what a model answered on disk as it comes, so that an interrupted audit goes on where it stopped.

What is final is kept as it is: the result of each sample that gets no more directions (`auditing/final_results.py`), its flip, and
of a graph its bound. Of samples that are still measured by differences the model's own outputs are kept, one block per request of
directions, so that everything computed from them is the same whether they were measured now or before; those of the others as long
as they take little, for an audit with other settings.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Container, Generator, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnxfim.auditing import kept_stores
from onnxfim.auditing.kept_stores import LIMIT, LIMIT_VARIABLE, OUTPUTS
from onnxfim.auditing.meter import Meter
from onnxfim.auditing.store import FileStore
from onnxfim.errors import SettingsError
from onnxfim.record.bound import Bound
from onnxfim.record.packed import packed, unpacked
from onnxfim.record.sample import SampleResult
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, DifferenceJacobian, Ends, Request, Sample, Scheme

Array: TypeAlias = np.ndarray[Any, Any]

_OFTEN = 0.1  # seconds between two writes of results
_FAMILY = 12  # letters of a store's name that tell the model


class Store(Protocol):
    """Blocks of outputs by key, for one model and one way of measuring it, which ``folder`` is named after."""

    folder: Path

    def holds(self, key: str) -> bool:
        """Whether an undamaged block is there."""

    def get(self, key: str) -> Array | None:
        """The block, or None where there is none or it is damaged."""

    def put(self, key: str, rows: Array, *, luxury: bool = False) -> None:
        """Keep a block; one that cannot be kept, or a ``luxury`` for which there is no room, is measured again next time."""

    def flush(self) -> None:
        """Have on disk what was put."""


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


def cache_limit() -> int:
    """Bytes that a cache's folder may take between two runs, as the environment says.

    Raises:
        SettingsError: it says something else.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if text and not (text.isascii() and text.isdecimal()):
        raise SettingsError(
            f"{LIMIT_VARIABLE}: {text!r}, expected a whole number of bytes. Give such as {LIMIT} (1 GiB), or unset it."
        )
    return int(text) if text else LIMIT


@dataclass(frozen=True)
class Cache:
    """A folder of stores, one per model and way of measuring, of ``limit`` bytes together between two runs.

    A run keeps what it needs to go on whatever that takes, as long as the disk has room, and half of ``limit`` of outputs that it
    does without.
    """

    folder: Path
    limit: int = field(default_factory=cache_limit)


class Memory:
    """The stores that one audit uses, opened as they are asked for.

    Args:
        cache: Where they are, or None where nothing is kept.
    """

    def __init__(self, cache: Cache | None) -> None:
        self._cache = cache
        self._stores: dict[str, FileStore] = {}
        self._keys: tuple[Array, SampleKeys] | None = None
        self._closed = False

    def store(self, identity: Mapping[str, object], *, outputs: bool = False) -> FileStore | None:
        """The store of what ``identity`` names; None without a cache.

        Args:
            identity: Anything that changes what is kept must be in it. Those of one ``model`` go together.
            outputs: It holds the model's outputs, which are given up before what was computed of them.
        """
        if self._cache is None:
            return None
        family = _hash(identity.get("model", ""))[:_FAMILY]
        name = f"{family}{_hash(identity)[_FAMILY:]}{OUTPUTS if outputs else ''}"
        folder = self._cache.folder
        if name not in self._stores:
            # Of this model some may be of this very run, as it was before it was interrupted.
            kept_stores.prune(folder, self._cache.limit, {*self._stores, name}, spared=lambda other: other.startswith(family))
            for store in self._stores.values():
                store.rest()
            self._stores[name] = FileStore(folder / name, self._cache.limit // 2, partial(self._why_no_room, self._cache))
        self._closed = False
        return self._stores[name]

    def _why_no_room(self, cache: Cache, size: int) -> str | None:
        """Why there is no room for more, where others' outputs have gone for it."""
        if kept_stores.why_no_room(cache.folder, size) is not None:
            kept_stores.make_room(cache.folder, self._stores, size)
        return kept_stores.why_no_room(cache.folder, size)

    def keys(self, X: Array, held: Mapping[str, Array]) -> SampleKeys:
        """Keys of the samples X (N, *shape), beside which other inputs are ``held``; hashed once."""
        if self._keys is None or self._keys[0] is not X:
            self._keys = X, SampleKeys(X, held)
        return self._keys[1]

    @property
    def keeps(self) -> bool:
        """Whether there is a cache."""
        return self._cache is not None

    @property
    def used(self) -> bool:
        """Whether anything was looked up."""
        return bool(self._stores)

    @property
    def damaged(self) -> int:
        """Entries that were damaged."""
        return sum(s.damaged for s in self._stores.values())

    @property
    def trouble(self) -> str | None:
        """Why nothing more is kept, or None."""
        return next((s.trouble for s in self._stores.values() if s.trouble), None)

    def close(self, *, whole: bool = False) -> None:
        """Close the stores, and remove others where all are too large; of a ``whole`` run its outputs too."""
        if self._closed or self._cache is None:
            return
        for store in self._stores.values():
            store.close()
        own = [name for name in self._stores if not (whole and name.endswith(OUTPUTS))]
        kept_stores.prune(self._cache.folder, self._cache.limit, own)
        self._closed = True


class SampleKeys:
    """What samples are called in a store: by the hash of their values and of those beside which they are held, and by their stream.

    Args:
        X: The samples, (N, *shape).
        held: Values of other inputs that are held, (N, …) each.
    """

    def __init__(self, X: Array, held: Mapping[str, Array]) -> None:
        self._X, self._held = X, held
        self._digests: dict[int, str] = {}  # by position

    def of(self, sample: Sample) -> str:
        """The key of a sample."""
        position = sample.position
        if position not in self._digests:
            self._digests[position] = _digest_of(self._X, self._held, position)
        return f"{self._digests[position]}:{sample.index}"


def _hash(identity: object) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:32]


class RememberedJacobian:
    """Finite differences that measure only what the store does not hold; the rest of the audit sees no difference.

    Args:
        jacobian: Measures.
        store: Keeps what it measured.
        meter: Counts what was measured before.
        keys: What the samples are called.

    Attributes:
        settled: Positions of the samples whose results are kept: their outputs are a luxury from then on.
    """

    def __init__(self, jacobian: DifferenceJacobian, store: Store, meter: Meter, keys: SampleKeys) -> None:
        self._jacobian, self._store, self._meter, self._keys = jacobian, store, meter, keys
        self.settled: set[int] = set()

    @property
    def scheme(self) -> Scheme:
        return self._jacobian.scheme

    @property
    def identity(self) -> str:
        """Names all that the outputs depend on beside the samples."""
        return self._store.folder.name

    def ends(self, X: Array, base: Array, requests: Sequence[Request]) -> Iterator[Ends]:
        """As `DifferenceJacobian.ends`, in the same order."""
        asked = [(r, self._key(r)) for r in requests if r.count]
        held = {key for _, key in asked if self._store.holds(key)}
        try:
            yield from self._ends(X, base, asked, held)
        finally:
            self._store.flush()

    def _ends(self, X: Array, base: Array, asked: Sequence[tuple[Request, str]], held: Container[str]) -> Iterator[Ends]:
        fresh = self._jacobian.ends(X, base, [r for r, key in asked if key not in held])
        for request, key in asked:
            rows = self._store.get(key) if key in held else None
            if rows is not None:
                self._meter.remembered(self.passes(request))
                position = request.sample.position
                yield self._jacobian.pair(request, rows, base[position], X[position])
                self._meter.check()
                continue
            # A block that was held and went meanwhile is measured by itself.
            ends = next(iter(self._jacobian.ends(X, base, [request]))) if key in held else next(fresh)
            try:
                yield ends
            finally:  # by now it shows whether a result was made of it that is kept
                if ends.request.count == request.count:  # not one that was cut short: a resumed audit measures it whole
                    self._store.put(key, rows_of(ends, self.scheme), luxury=request.sample.position in self.settled)

    def passes(self, request: Request) -> int:
        """Forward passes that a request takes."""
        return request.count * ROWS_PER_DIRECTION[self.scheme] - sum(map(len, self._jacobian.known(request)))

    def _key(self, request: Request) -> str:
        """The sample's own values, its stream and the directions."""
        return f"{self._keys.of(request.sample)}:{request.start}:{request.count}"


@dataclass(frozen=True)
class Measured:
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
    named = SampleKeys(X, beside or {})
    keys = {t.position: f"{named.of(t)}:result" for t in targets}
    about = _digest(np.stack(within))
    read = partial(unpacked, Measured)
    known: dict[int, Measured] = {t.position: kept for t in targets if (kept := store.content(keys[t.position], read)) is not None}
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
            if (content := packed(Measured(result, about if told else "", told))) is not None:  # None: not finite, so not kept
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
