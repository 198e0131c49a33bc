"""Calls a classifier in batches: an ONNX file on ONNX Runtime."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxfim.errors import ModelError
from onnxfim.graph.held import POSITION
from onnxfim.runtime.batch_finder import BatchFinder, most_rows, own_clock
from onnxfim.runtime.failures import OutOfMemory
from onnxfim.runtime.hardware import ANY, Hardware, InputProfile
from onnxfim.runtime.host_rows import made_rows, makes
from onnxfim.runtime.output_layout import as_classes
from onnxfim.runtime.perturb import BoundPair, RowBuffer, moving_graph, perturbation_graph
from onnxfim.runtime.providers import CPU
from onnxfim.runtime.row_counts import filled, has_own_device, padded_size
from onnxfim.runtime.rows import Moves, Rows, Signs, known_positions, taken
from onnxfim.runtime.session import open_session, run
from onnxfim.runtime.shared_cores import SharedCores, usable_cores
from onnxfim.runtime.turns import WeightTurns

if TYPE_CHECKING:
    from concurrent.futures import Executor

Array: TypeAlias = np.ndarray[Any, Any]

_FIRST_ROWS = 8  # of the calls that tell how the outputs are read, whatever the batch
_USUAL_ROWS = 64  # what a compiler of whole graphs tunes for where the batch is not known yet
#: Rows that are made at once for several calls, their bytes, and the seconds of these calls: an audit can end after each stretch.
_STRETCH, _STRETCH_BYTES, _STRETCH_SECONDS = 32, 2**20, 0.1
_WORTH = 300  # rows whose time a session may take to open anew
_KEPT_BYTES = 2**25  # of a model that is held to open it anew


def profile_of(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], batch: int | None) -> InputProfile:
    """The shapes that an input is called with: up to the batch, or to the largest that is tried where it is to be found.

    Args:
        name: The input.
        shape: Shape of one sample.
        dtype: Its element type.
        batch: Rows per call, or None where they are to be found.
    """
    most = batch or most_rows(int(np.prod(shape)) * dtype.itemsize)
    return InputProfile(name, shape, usual=batch or min(_USUAL_ROWS, most), most=max(most, _FIRST_ROWS))


class OnnxForward:
    """The audited file on ONNX Runtime; perturbed rows are made on the device by a bound graph of ours, on the CPU by NumPy.

    Args:
        source: The file, or bytes of a copy that reproduced it.
        input_name, output_name: What to feed and read.
        shape: Shape of one sample.
        dtype: Element type of the input.
        hardware: Where it is to run.
        batch: Rows per call, or None to find them.
        fixed: Batch size that the model insists on, or None.
        class_axis: Axis of the classes where it is not the second.
        batch_axis: Axis of the output that holds the batch.
        turns: Of a model of large weights: the session closes at another's turn, and opens again when it is called.
        placed: Whether the model takes the position of each row's sample too (`graph.held`).
    """

    def __init__(
        self,
        source: Any,
        *,
        input_name: str,
        output_name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        hardware: Hardware = ANY,
        batch: int | None = None,
        fixed: int | None = None,
        class_axis: int | None = None,
        batch_axis: int = 0,
        base_dir: Any = None,
        turns: WeightTurns | None = None,
        placed: bool = False,
    ) -> None:
        if turns is not None:
            turns.take(self)
        start = (clock := own_clock())()
        session, self.report = open_session(source, hardware, base_dir=base_dir, apart=turns is not None)
        self._session: Any = session  # None while it rests
        self.opening = clock() - start
        self._again = (source, hardware, base_dir) if not isinstance(source, bytes) or len(source) <= _KEPT_BYTES else None
        #: None where it does not take turns.
        self.turns = turns if self.report.obtained == CPU and self._again is not None else None
        self.hardware = hardware.on(self.report.obtained)  # for graphs of ours beside it
        self._input, self._output, self.placed = input_name, output_name, placed
        self._shape, self._dtype = shape, dtype
        self.class_axis, self.batch_axis = class_axis, batch_axis
        self.one_shape = False  # whether every call has the same number of rows
        self.few_shapes = has_own_device(self.report.obtained)  # whether calls are filled up to one of a few numbers of rows
        self.reopened = False  # whether the session was opened anew, without threads that spin
        self.packs = self.few_shapes  # whether signs are unpacked on the device
        self._makes = self.report.obtained == CPU and makes(np.dtype(dtype))  # whether NumPy can make rows
        self._row_seconds = math.inf  # of a row, as the last ones took
        self._wide = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
        self._fixed = fixed
        self._pairs: dict[object, BoundPair] = {}  # by what makes their rows
        self._place = self.hardware.device
        self._buffer = RowBuffer(*self._place)
        self.ahead = self._place[0] != "cpu"  # whether rows are made while the model answers others
        self._row_bytes = row_bytes = max(int(np.prod(shape)) * dtype.itemsize, 1)
        self.finder = BatchFinder(fixed or batch, row_bytes, few_shapes=self.few_shapes)

    @property
    def session(self) -> Any:
        """The model's session; opened again, as it was, where it rested."""
        if self.turns is not None:
            self.turns.take(self)
        if self._session is None:
            assert self._again is not None
            source, hardware, base_dir = self._again
            hardware = replace(hardware, spinning=self.hardware.spinning)
            self._session, _ = open_session(source, hardware, base_dir=base_dir, apart=self.turns is not None)
        return self._session

    def rest(self) -> None:
        """Close the session until it is needed."""
        if self._again is not None:
            self._pairs.clear()
            self._session = None

    @property
    def batch(self) -> int:
        return self.finder.batch

    @property
    def stretch(self) -> int:
        if not self._on_host:
            return self.batch
        rows = min(_STRETCH, int(_STRETCH_SECONDS / self._row_seconds), _STRETCH_BYTES // self._row_bytes)
        return max(rows // self.batch, 1) * self.batch

    @property
    def _on_host(self) -> bool:
        """Whether NumPy makes rows."""
        return self._makes and not (self.ahead or self.packs)

    @property
    def fixed(self) -> int | None:
        """Rows that the model insists on, or None."""
        return self._fixed

    def find_batch(self, X: Array, of: Array | None = None) -> None:
        """Find the batch size on repeats of the first sample, and stop threads from spinning where other work shares the cores.

        It looks before, when calls are steadier, and after, for a quota ends a process in turns of 0.1 s: then it searches again.
        """
        row, shared = X[:1].astype(self._dtype), SharedCores()

        def call(rows: int) -> None:
            places = None if of is None else np.repeat(of[:1], rows)
            shared.during(lambda: self._call(np.repeat(row, rows, axis=0), places), rows)

        on_cpu, searching, cores = self.report.obtained == CPU, self.finder.searching, usable_cores()
        spins = on_cpu and self.hardware.spinning and cores > 1
        while spins and not shared.enough:
            call(self._fixed or 1)
        for again in (False, True):
            if spins and shared.seen():
                spins = False
                self.stop_spinning(reopen=self.opening <= _WORTH * shared.seconds / shared.rows)
            elif again:
                return
            self.finder.searching = searching
            self.finder.search(call, *((own_clock(), cores) if on_cpu and not spins else ()))

    def stop_spinning(self, *, reopen: bool) -> None:
        """Open graphs beside the model without threads that spin; open the model again without them where that is worth it."""
        self.hardware = replace(self.hardware, spinning=False)
        if reopen and self._again is not None:
            self.rest()  # first, so that there are no two
            self.reopened = self.session is not None

    def _call(self, X: Array, of: Array | None) -> Array:
        """The output at the rows of a call, those of samples at the positions ``of``; the last of them goes for all after it."""
        feeds = {self._input: X, **self._beside(of, len(X))}
        return run(self.session, [self._output], feeds, dict.fromkeys(feeds, 0))[0]

    def _beside(self, of: Array | None, rows: int) -> dict[str, Array]:
        """What is fed beside so many rows, whose first ones are of these samples.

        Raises:
            LostPosition: the model needs positions, and there are none.
        """
        return {POSITION: filled(known_positions(of, 0 if of is None else len(of)), rows)} if self.placed else {}

    def outputs(self, X: Array, of: Array | None = None) -> Array:
        X = X.astype(self._dtype, copy=False)
        if self.placed:
            of = known_positions(of, len(X))
        found: list[Array] = []
        start = 0
        while start < len(X):
            piece = X[start : start + self.batch]
            try:
                z = self._call(filled(piece, self._size(len(piece))), None if of is None else of[start : start + len(piece)])
            except OutOfMemory:
                if self.batch == 1 or self._fixed:
                    raise
                self.finder.halve()
                continue
            found.append(self._classes(z, len(piece)))
            start += len(piece)
        return np.concatenate(found)

    def raw(self, X: Array, of: Array | None = None) -> Array:
        """The output at these rows as the file gives it, in one call; not one of more rows, by whose number its axes are told."""
        whole = self._fixed or (self.batch if self.one_shape else 0)
        places = known_positions(of, len(X)) if self.placed else None
        return np.asarray(self._call(filled(X.astype(self._dtype, copy=False), whole), places))

    def _size(self, rows: int) -> int:
        """Rows of the call that so many are fed in: what the model insists on, the batch, or one of few numbers."""
        if self._fixed or self.one_shape:
            return max(rows, self._fixed or self.batch)
        return padded_size(rows, self.batch) if self.few_shapes else rows

    def _classes(self, z: Array, rows: int) -> Array:
        """The first ``rows`` rows of an output as (rows, K, P).

        Raises:
            ModelError: it has not one row for each that was fed.
        """
        axis, fed = self.batch_axis, self._size(rows)
        if z.ndim <= axis or z.shape[axis] != fed:
            raise ModelError(f"output {self._output!r} has shape {z.shape} for {fed} samples, expected one row per sample.")
        return as_classes(z, self.class_axis, axis)[:rows]

    def stream(self, X: Array, batches: Iterable[Rows], of: Array | None = None) -> Iterator[Array]:
        if self.placed:
            of = known_positions(of, len(X))
        # The next batch of directions is drawn, and unpacked where that is to be, while this one runs.
        source = iter(batches) if self.packs else map(_unpacked, batches)
        from concurrent.futures import ThreadPoolExecutor  # of sketches alone

        with ThreadPoolExecutor(1, thread_name_prefix="onnxfim-draw") as pool:
            if self.ahead:
                yield from self._stream_ahead(pool, X, of, source)
                return
            coming = pool.submit(next, source, None)
            while (rows := coming.result()) is not None:
                coming = pool.submit(next, source, None)
                yield self._perturbed(X, rows, of)

    def _stream_ahead(self, pool: Executor, X: Array, of: Array | None, source: Iterator[Rows]) -> Iterator[Array]:
        """Rows are also made while the model answers those before: two buffers take turns."""
        buffers = (RowBuffer(*self._place), RowBuffer(*self._place))

        def made(buffer: RowBuffer) -> tuple[Rows, BoundPair, Any] | None:
            if (rows := next(source, None)) is None:
                return None
            pair, feeds = self.fed(X, rows)
            try:
                return rows, pair, pair.made(feeds, (self._fed_rows(rows), *self._shape), self._dtype, buffer)
            except OutOfMemory:
                return rows, pair, None

        coming = pool.submit(made, buffers[0])
        for turn in itertools.count(1):
            if (got := coming.result()) is None:
                return
            rows, pair, there = got
            coming = pool.submit(made, buffers[turn % 2])
            z = None if there is None else self._answered(pair, there, buffers[(turn - 1) % 2], self._of(of, rows))
            if z is None:
                coming.result()  # the rows made meanwhile have their memory, or have none: halves come after them
                yield self._perturbed(X, rows, of)
            else:
                yield self._classes(z, len(rows.sample))

    def _of(self, of: Array | None, rows: Rows) -> Array | None:
        """The samples of perturbed rows of X, whose own rows are of the samples ``of``."""
        return None if of is None else of[rows.sample]

    def _answered(self, pair: BoundPair, rows: Any, buffer: RowBuffer, of: Array | None) -> Array | None:
        """The model's output at rows that are made; None where memory does not suffice."""
        try:
            return pair.answered(rows, buffer, self._beside(of, rows.shape()[0]))[0]
        except OutOfMemory:
            return None

    def _perturbed(self, X: Array, rows: Rows, of: Array | None) -> Array:
        """Outputs at one batch of perturbed rows; in halves where memory does not suffice."""
        try:
            return self._bound(X, rows, of)
        except OutOfMemory:
            if len(rows.sample) == 1 or self._fixed:
                raise
            if len(rows.sample) <= self.batch:  # others were drawn before the batch was halved
                self.finder.halve()
            half = len(rows.sample) // 2
            return np.concatenate([self._perturbed(X, taken(rows, part), of) for part in (slice(half), slice(half, None))])

    def _made_here(self, X: Array, rows: Rows, of: Array | None) -> Array:
        """Outputs at rows that NumPy makes, all at once, a call after the other."""
        made, batch, found = made_rows(X, rows, self._dtype), self.batch, []
        places = self._of(of, rows)
        start = time.perf_counter()
        for first in range(0, len(made), batch):
            piece = made[first : first + batch]
            z = self._call(filled(piece, self._size(len(piece))), None if places is None else places[first : first + batch])
            found.append(self._classes(z, len(piece)))
        self._row_seconds = max((time.perf_counter() - start) / len(made), 1e-9)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _bound(self, X: Array, rows: Rows, of: Array | None) -> Array:
        if self._on_host:
            return self._made_here(X, rows, of)
        pair, feeds = self.fed(X, rows)
        count = self._fed_rows(rows)
        beside = self._beside(self._of(of, rows), count)
        return self._classes(pair.run(feeds, (count, *self._shape), self._dtype, beside)[0], len(rows.sample))

    def _fed_rows(self, rows: Rows) -> int:
        """Rows that so many are filled up to in a call; they are never cut."""
        return max(len(rows.sample), self._size(len(rows.sample)))

    def fed(self, X: Array, rows: Rows) -> tuple[BoundPair, dict[str, Array]]:
        """The pair that makes these rows of X and answers them, and what is fed to it; filled up to the rows of a call."""
        count = len(rows.sample)
        whole = self._fed_rows(rows)
        if count < whole:
            rows = _repeat_last(rows, whole)
        used, sample = np.unique(rows.sample, return_inverse=True)
        if isinstance(rows.v, Moves):
            return self._moving(rows, X[used], sample)
        one = (1,) * len(self._shape)
        size = (len(rows.sample), *self._shape)
        feeds = {
            "base": np.ascontiguousarray(rows.bases(X[used]), dtype=self._wide),
            "scale": rows.scale.astype(self._wide).reshape(-1, *one),
            "v": rows.v.bits() if isinstance(rows.v, Signs) else np.ascontiguousarray(rows.v).reshape(size),
        }
        if len(used) > 1:
            feeds["sample"] = sample.astype(np.int64, copy=False)
        if rows.w is not None:
            feeds["w"] = np.ascontiguousarray(rows.w).reshape(size)
            feeds["dither"] = np.array([rows.dither / 127.0], self._wide)
        if rows.field is not None:
            feeds["field"] = np.ascontiguousarray(np.broadcast_to(rows.field, self._shape)[None], dtype=self._wide)
        packed = isinstance(rows.v, Signs)
        return self._pair(rows.w is not None, len(used) == 1, rows.field is not None, packed), feeds

    def _moving(self, rows: Rows, base: Array, sample: Array) -> tuple[BoundPair, dict[str, Array]]:
        """The same of rows that are moved as was drawn."""
        moves = rows.plain_moves
        assert moves is not None, "moves that are scaled, or dithered"
        used, of = np.unique(moves.of, return_inverse=True)
        feeds = {
            "base": np.ascontiguousarray(rows.bases(base), dtype=self._wide),
            "sample": sample.astype(np.int64, copy=False),
            "moves": moves.values[used].astype(self._wide, copy=False).reshape(-1, *self._shape),
            "move": of.astype(np.int64, copy=False),
        }
        return self._kept_pair(("moving", rows.grid), lambda: moving_graph(self._shape, self._dtype, rows.grid)), feeds

    def _pair(self, dithered: bool, shared: bool, scaled: bool, packed: bool) -> BoundPair:
        return self._kept_pair(
            (dithered, shared, scaled, packed),
            lambda: perturbation_graph(self._shape, self._dtype, dithered=dithered, shared=shared, scaled=scaled, packed=packed),
        )

    def _kept_pair(self, kind: object, graph: Callable[[], bytes]) -> BoundPair:
        """The model's session and one that makes rows of a kind, which is opened once."""
        session = self.session  # where it had rested there is no pair
        if kind not in self._pairs:
            # One thread, no spinning: a second spinning pool on the same cores costs 1.6x (measured).
            little, _ = open_session(graph(), self.hardware.of_rows, threads=1)
            self._pairs[kind] = BoundPair(session, little, self._input, [self._output], self._buffer)
        return self._pairs[kind]


def _unpacked(rows: Rows) -> Rows:
    """The rows with their directions as bytes."""
    return replace(rows, v=np.asarray(rows.v)) if isinstance(rows.v, Signs) else rows


def _repeat_last(rows: Rows, count: int) -> Rows:
    index = np.minimum(np.arange(count), len(rows.sample) - 1)
    return taken(rows, index)
