"""Rows that are asked for over a wire: several requests at a time, tried again, halved, given up; answers in the order of rows."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnxfim.record.running import QUERY_LIMIT
from onnxfim.runtime.batch_finder import BatchFinder
from onnxfim.runtime.failures import ProviderFailed, RowsFailed
from onnxfim.runtime.host_rows import made_rows
from onnxfim.runtime.output_layout import as_classes
from onnxfim.runtime.rows import Rows
from onnxfim.runtime.stopping import Stopped, current_stop
from onnxfim.served.asking import Answered, Asker
from onnxfim.served.pace import MOST_ASKED, Given, Pace
from onnxfim.served.terms import SERVED, Reach
from onnxfim.served.trouble import Trouble

Array: TypeAlias = np.ndarray[Any, Any]

#: Rows of a request, where nothing says otherwise, and their bytes.
USUAL_ROWS, USUAL_BYTES = 128, 2**22
#: Requests given up with none answered in between, after which the server is taken for gone.
GONE = 3
_SILENT = 6  # requests that had no answer in time, beside two for each under way, after which it is too
_MOST_TROUBLES = 100  # that are told apart
_LOOKS = 0.1  # seconds between two looks at whether the work is to end
_PATIENCE = 2.0  # seconds that a request under way is given where it is
_ROWS = "rows of a request"  # the key of that number among kept answers
_log = logging.getLogger(__name__)


@dataclass
class Traffic:
    """What was asked so far.

    Attributes:
        requests: Made, those that were repeated among them.
        repeated: Made again, for the one before brought no answer.
        given_up: Whose rows have no answer.
        rows: That were answered.
        kept: Whose answers were kept from another run.
        sent, received: Bytes of bodies.
        seconds: In requests under way, those beside one another added up.
        own_seconds: Of a processor, in this program: making requests and reading answers, waiting left out.
        troubles: How often each thing happened that brought no answer.
    """

    requests: int = 0
    repeated: int = 0
    given_up: int = 0
    rows: int = 0
    kept: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    own_seconds: float = 0.0
    troubles: dict[str, int] = field(default_factory=dict)


class AnswerStore(Protocol):
    """Answers by key, on disk."""

    def get(self, key: str) -> Array | None:
        """The answer, or None where there is none."""

    def put(self, key: str, rows: Array) -> None:
        """Keep an answer."""


class ServedForward:
    """A model that is asked over a wire; a `runtime.rows.Forward`.

    Rows that have no answer are NaN, and what was said of them is known to who asks for one of them alone. It takes no notice of
    whose the rows are.

    Args:
        asker: Who answers.
        name: What it is called in messages.
        reach: How it is asked.
        shape: Shape of a sample.
        dtype: Element type of the rows.
        batch: Rows of a request as asked for, or None.
        most_rows: Rows of a request that the server says it takes at most, or None.
        fixed: Rows that every request must have, or None.

    Raises:
        RowsFailed: the model does not take a row that is asked for alone.
        ProviderFailed: it takes no request, or does not answer any more. Stopped: as many requests were made as may be.
    """

    def __init__(
        self, asker: Asker, name: str, reach: Reach, shape: tuple[int, ...], dtype: np.dtype[Any], *, batch: int | None = None,
        most_rows: int | None = None, fixed: int | None = None,
    ) -> None:  # fmt: skip
        row_bytes = max(1, int(np.prod(shape)) * dtype.itemsize)
        rows = batch or min(USUAL_ROWS, max(1, USUAL_BYTES // row_bytes))
        rows = fixed or (rows if most_rows is None else min(rows, most_rows))
        self.finder = BatchFinder(rows, row_bytes)
        self.class_axis: int | None = None
        self.batch_axis = 0
        self.fixed, self.traffic = fixed, Traffic()
        self._asker, self._name, self.reach, self._shape, self._dtype = asker, name, reach, shape, dtype
        self._ending, self._lock = threading.Event(), threading.Lock()
        self._pace = Pace(reach.max_qps, self._ending)
        self._row_shape: tuple[int, ...] | None = None  # of an answer, without its rows
        self._lost = self._silent = 0  # requests given up since the last answer, and those that had none in time
        self._said: dict[bytes, str] = {}  # of rows that were given up
        self._kept: AnswerStore | None = None
        self._lowered = False  # the rows of a request, since that was kept
        self._times: dict[bytes, int] = {}  # that the same rows were asked for

    @property
    def batch(self) -> int:
        return self.finder.batch

    @property
    def stretch(self) -> int:
        return self.batch

    def find_batch(self, X: Array, of: Array | None = None) -> None:
        """Nothing: requests are paid for, and a server that takes fewer rows says so."""

    def raw(self, X: Array, of: Array | None = None) -> Array:
        """What is answered to these rows, as it lies."""
        parts = list(self._in_order(self._requests(X)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=self.batch_axis)

    def outputs(self, X: Array, of: Array | None = None) -> Array:
        if len(X) == 1 and (said := self._said.get(_key(X.astype(self._dtype)))) is not None:
            raise RowsFailed(f"{self._name}: {said}.", said)
        return np.concatenate([self._as_classes(z) for z in self._in_order(self._requests(X))])

    def stream(self, X: Array, batches: Iterable[Rows], of: Array | None = None) -> Iterator[Array]:
        made = (made_rows(X, rows, self._dtype) for rows in batches)
        for z in self._in_order(made):
            yield self._as_classes(z)

    def keep(self, kept: AnswerStore) -> None:
        """Keep answers from here on, and take those that are kept: the n-th to the same rows where these are asked for again."""
        self._kept = kept
        found = kept.get(_ROWS)
        if found is not None:
            self.finder.batch = max(1, min(self.finder.batch, int(found[0])))

    def anew(self, X: Array) -> Array:
        """The same as `outputs`, of rows that are asked for whatever is kept."""
        kept, self._kept = self._kept, None
        try:
            return self.outputs(X)
        finally:
            self._kept = kept

    def close(self) -> None:
        """Let all waits end, and connections go."""
        self._ending.set()
        self._asker.close()

    def _requests(self, X: Array) -> Iterator[Array]:
        start = 0
        while start < len(X):
            size = self.batch
            yield X[start : start + size].astype(self._dtype)
            start += size

    def _as_classes(self, z: Array) -> Array:
        return as_classes(z, self.class_axis, self.batch_axis)

    def _in_order(self, parts: Iterable[Array]) -> Iterator[Array]:
        """The answers to all parts in their order, as many of them under way as may be."""
        waiting: deque[_UnderWay] = deque()
        try:
            for rows in parts:
                waiting.append(self._started(rows))
                if len(waiting) >= self.reach.concurrency:
                    yield self._finished(waiting.popleft())
            while waiting:
                yield self._finished(waiting.popleft())
        finally:
            for asked in waiting:
                asked.answer.cancel()

    def _started(self, rows: Array) -> _UnderWay:
        answer: Future[Array] = Future()
        key = None
        if self._kept is not None:
            digest = _key(rows)
            turn = self._times[digest] = self._times.get(digest, 0) + 1
            key = f"{digest.hex()}:{turn}"
            if (kept := self._kept.get(key)) is not None:
                self.traffic.kept += len(rows)
                self._row_shape = self._row_shape or kept.shape[: self.batch_axis] + kept.shape[self.batch_axis + 1 :]
                answer.set_result(kept)
                return _UnderWay(answer, None)

        def work() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(self._answered(rows))
            except BaseException as error:  # noqa: BLE001 - handed to who waits
                answer.set_exception(error)

        # A thread of its own that no exit waits for: a request that hangs holds nothing up.
        threading.Thread(target=work, daemon=True, name="onnxfim-request").start()
        return _UnderWay(answer, key)

    def _finished(self, asked: _UnderWay) -> Array:
        """The answer, once it is there; heeds a request to end."""
        stop, asked_at = current_stop(), None
        while True:
            with suppress(NotYet):
                try:
                    found = asked.answer.result(_LOOKS)
                except Given:
                    raise Stopped(None if stop is None else stop.by) from None
                except _Spent:
                    raise Stopped(QUERY_LIMIT) from None
                if asked.key is not None and self._kept is not None and np.isfinite(found).all():
                    self._kept.put(asked.key, found)
                    if self._lowered:
                        self._kept.put(_ROWS, np.array([float(self.batch)]))
                        self._lowered = False
                return found
            if stop is not None and stop.asked:
                asked_at = asked_at or time.monotonic()
                self._ending.set()
                if stop.hurried or time.monotonic() - asked_at > _PATIENCE:
                    stop.check()

    def _answered(self, rows: Array) -> Array:
        """The answer to rows, with NaN for those that have none; in halves where so many are not taken."""
        try:
            return self._tried(rows)
        except Trouble as trouble:
            if trouble.remedy == "none":
                raise self._refused(trouble) from None
            if len(rows) > 1 and self.fixed is None and (trouble.remedy == "rows" or trouble.slow):
                return self._halved(rows)
            self._give_up(rows, trouble)
            if self._row_shape is None:
                raise RowsFailed(f"{self._name}: {trouble.said}.", trouble.said) from None
        sizes = (*self._row_shape[: self.batch_axis], len(rows), *self._row_shape[self.batch_axis :])
        return np.full(sizes, np.nan)

    def _halved(self, rows: Array) -> Array:
        half = len(rows) // 2
        given_up = self.traffic.given_up
        parts = [self._answered(rows[:half]), self._answered(rows[half:])]
        if self.traffic.given_up == given_up:  # it was for their number: no request has so many again
            with self._lock:
                if self.finder.batch > half:
                    self.finder.batch, self._lowered = half, True
                    _log.info("%s: requests of %d rows from here on", self._name, half)
        return np.concatenate(parts, axis=self.batch_axis)

    def _tried(self, rows: Array) -> Array:
        """The answer to one request, made again where that may help."""
        fed = rows
        if self.fixed is not None and len(rows) < self.fixed:
            fed = np.concatenate([rows, np.repeat(rows[-1:], self.fixed - len(rows), axis=0)])
        tries = 0
        odd: Array | None = None  # an answer that is not finite
        while True:
            self._pace.turn()
            self._count(again=tries > 0)
            began, own = time.perf_counter(), time.thread_time()
            try:
                found = self._asker.ask(fed)
                self._check_shape(found.values, len(fed))
                if odd is None and not np.isfinite(found.values).all():
                    odd = found.values  # of the model, or of a fault on the way: the next try tells
                    raise Trouble("outputs that are not finite")
            except Trouble as trouble:
                self._note(trouble, began, own)
                tries += 1
                if not self._again(trouble, tries, len(rows)):
                    if odd is None:
                        raise
                    return self._of(rows, odd)
            else:
                self._note(found, began, own, len(rows))
                return self._of(rows, found.values)

    def _of(self, rows: Array, values: Array) -> Array:
        """The answer to the rows among those that were fed."""
        return np.take(values, np.arange(len(rows)), axis=self.batch_axis) if values.shape[self.batch_axis] > len(rows) else values

    def _again(self, trouble: Trouble, tries: int, rows: int) -> bool:
        """Whether to make a request of so many rows again, after the wait that belongs before it.

        Raises:
            ProviderFailed: nothing was answered in time for long.
        """
        if trouble.slow and self._silent > _SILENT + 2 * self.reach.concurrency:
            raise self._refused(Trouble(f"{trouble.said}, {self._silent} requests one after the other", mends=trouble.mends))
        if trouble.remedy == "none" or tries > self.reach.retries:
            return False
        if trouble.remedy == "rows" and tries >= trouble.tries:
            return False
        if trouble.slow and tries > 1 and rows > 1 and self.fixed is None:  # fewer rows may be in time
            return False
        if trouble.wait is not None:
            if trouble.wait > MOST_ASKED:
                return False
            self._pace.hold(trouble.wait)
        else:
            self._pace.back_off(tries - 1)
        return True

    def _check_shape(self, values: Array, rows: int) -> None:
        shape = values.shape
        rest = shape[: self.batch_axis] + shape[self.batch_axis + 1 :]
        with self._lock:
            if self._row_shape is None:
                self._row_shape = rest
            known = self._row_shape
        if rest != known:
            raise Trouble(f"an answer of shape {shape} for {rows} rows, expected rows of {known} as before")

    def _count(self, *, again: bool) -> None:
        with self._lock:
            if self.reach.max_queries is not None and self.traffic.requests >= self.reach.max_queries:
                raise _Spent
            self.traffic.requests += 1
            self.traffic.repeated += again

    def _note(self, came: Answered | Trouble, began: float, own: float, rows: int = 0) -> None:
        seconds, spent = time.perf_counter() - began, time.thread_time() - own
        with self._lock:
            t = self.traffic
            t.seconds += seconds
            t.own_seconds += spent
            if isinstance(came, Trouble):
                self._silent += came.slow
                if came.said in t.troubles or len(t.troubles) < _MOST_TROUBLES:
                    t.troubles[came.said] = t.troubles.get(came.said, 0) + 1
                return
            t.rows += rows
            t.sent += came.sent
            t.received += came.received
            self._lost = self._silent = 0

    def _give_up(self, rows: Array, trouble: Trouble) -> None:
        """Note that rows have no answer.

        Raises:
            ProviderFailed: so many had none lately that nobody is there.
        """
        with self._lock:
            self.traffic.given_up += 1
            if trouble.remedy == "again":
                self._lost += 1
            gone = self._lost >= GONE
            for row in rows:
                self._said[_key(row[None])] = trouble.said
        if gone:
            tries = f"{self.reach.retries + 1} tries" if self.reach.retries else "one try"
            raise self._refused(
                Trouble(f"{trouble.said}, {tries} each of {GONE} requests one after the other", mends=trouble.mends)
            )

    def _refused(self, trouble: Trouble) -> ProviderFailed:
        mends = trouble.mends or "See whether it is up, and run it again: what was answered is kept."
        return ProviderFailed(f"{self._name}: {trouble.said}. {mends}", SERVED)


@dataclass(frozen=True)
class _UnderWay:
    """A request under way, and what its answer is to be kept by; None where it is not."""

    answer: Future[Array]
    key: str | None


class _Spent(Exception):
    """As many requests were made as may be."""


def _key(row: Array) -> bytes:
    """What a row is known by."""
    return hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()


__all__ = ["ServedForward", "Traffic"]
