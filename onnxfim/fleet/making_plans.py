"""Makes the plan of an audit: everything that couples its samples, measured once; no sample is measured yet."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.input_kinds import input_kind
from onnxfim.auditing.instruments import allowed_inputs
from onnxfim.auditing.measuring import Way, way_of
from onnxfim.auditing.meter import Report
from onnxfim.auditing.run import Model, grounded, opened, samples_of
from onnxfim.auditing.stages import bounding, conclusion, input_scaling, tied
from onnxfim.auditing.stages.flipping import others_looked_at
from onnxfim.auditing.subject import CallableModel
from onnxfim.data import Samples
from onnxfim.errors import SettingsError
from onnxfim.graph.load import ModelFile, load_model
from onnxfim.record.packed_array import PackedArray
from onnxfim.record.plan import LadderBlock, Plan, PlannedRange, PlannedSpread, draft_of
from onnxfim.record.reading_data import DataReading
from onnxfim.record.settings import Settings
from onnxfim.runtime.stopping import Stop, current_stop
from onnxfim.runtime.threads import one_blas_thread

Array: TypeAlias = np.ndarray[Any, Any]

_DIGITS = 16  # of a sample's digest
_OPENING = 64  # samples at which a model is opened: what its outputs are is told by the same ones everywhere


def plan(
    model: Model,
    inputs: Array | Mapping[str, Array] | Samples | Iterable[Any],
    labels: Array | None = None,
    settings: Settings | None = None,
    *,
    progress: Report | None = None,
    cache_dir: str | Path | None = None,
    stop: Stop | None = None,
    reading: DataReading | None = None,
) -> Plan:
    """Plan an audit whose samples are measured apart: on other machines, by other processes, at other times.

    Args:
        model, inputs, labels, settings, progress, cache_dir, stop: As for `onnxfim.audit`.
        reading: How a command line read model and data, for those that measure.

    Raises:
        OnnxFimError: as `onnxfim.audit`.
        SettingsError: a precision is asked for, which takes the values of all samples.
    """
    settings = settings or Settings()
    if settings.precision is not None:
        raise SettingsError(
            f"precision: {settings.precision:g} is reached by looking at the values of all samples after every round, which are "
            "measured apart here, expected a fixed budget. Give --budget instead."
        )
    with (stop or current_stop() or Stop()).current() as heeded:
        file = model if isinstance(model, (CallableModel, ModelFile)) else load_model(model)
        samples = inputs if isinstance(inputs, Samples) else samples_of(file, inputs, labels, settings)
        started = time.perf_counter()
        context = opened(file, samples, None, settings, progress, cache_dir)
        heeded.heeded = True
        with one_blas_thread():
            try:
                ground, ended = grounded(context)
                if ended is not None:
                    raise ended
                return _planned(way_of(ground), samples, reading, started)
            finally:
                context.memory.close()


def digests_of(samples: Samples, indices: Sequence[int]) -> tuple[str, ...]:
    """Hash of each sample as it was read: its values, its label, and those of inputs that are held; each must be there."""
    return tuple(_digest(samples, p) for p in np.searchsorted(samples.indices, np.array(indices, np.int64)).tolist())


def _digest(samples: Samples, position: int) -> str:
    values = [samples.inputs[position], *(samples.held[name][position] for name in sorted(samples.held))]
    found = hashlib.sha256(str(None if samples.labels is None else int(samples.labels[position])).encode())
    for value in map(np.ascontiguousarray, values):
        found.update(f" {value.dtype.str}{value.shape} ".encode() + value.tobytes())
    return found.hexdigest()[:_DIGITS]


def _planned(way: Way, samples: Samples, reading: DataReading | None, started: float) -> Plan:
    """The plan; ``samples`` are those that were read, before the model was opened at an inner value of it."""
    ground = way.ground
    scaling, graph = input_scaling.check(ground), bounding.read(ground)
    scheme = None if way.plan is None else way.plan.jacobian.scheme
    method = way.kind if way.kind in ("gradient", "exact") else "sketch"
    found = tied.told(ground, Found(method, way.derivative.info, skipped=ground.clean.skipped, scheme=scheme))
    draft = conclusion.drafted(ground, found, graph, scaling)
    box, route, spread = allowed_inputs(ground), way.derivative.route, ground.scales
    audited = tuple(ground.index(i) for i in ground.clean.audited.tolist())
    beside = _beside(ground, way)
    return Plan(
        way=way.kind,
        draft=draft_of(replace(draft, run=replace(draft.run, seconds=time.perf_counter() - started))),
        audited=audited,
        beside=beside,
        digests=digests_of(samples, sorted({*audited, *beside})),
        batch=ground.subject.forward.batch,
        one_shape=bool(getattr(ground.subject.forward, "one_shape", False)),
        low=float(ground.X.min()),
        high=float(ground.X.max()),
        box=PlannedRange(PackedArray.of(box.low), PackedArray.of(box.high), box.source),
        kind=input_kind(ground),
        spread=PlannedSpread(
            spread.pooled, PackedArray.of(spread.deviation), _packed(spread.steps), spread.features, _packed(spread.guessed)
        ),
        moves=None if way.plan is None else _packed(way.plan.moves),
        grain=0.0 if way.plan is None else way.plan.measurer.grain,
        step_error=None if route is None else route.measurer.step_error,
        added=() if way.plan is None else tuple(sorted((ground.index(p), n) for p, n in way.plan.added.items())),
        tied=tuple(sorted(ground.index(p) for p in ground.ties.at)),
        ladder=tuple(LadderBlock(index, step, dither, PackedArray.of(rows)) for step, dither, index, rows in ground.ladder.all()),
        foreseen=ground.foreseen,
        reading=reading,
    )


def _packed(array: Array | None) -> PackedArray | None:
    return None if array is None else PackedArray.of(array)


def _beside(ground: Ground, way: Way) -> tuple[int, ...]:
    """Indices of the samples that measuring any sample may look at."""
    found = set(ground.clean.usable[:_OPENING].tolist())
    if way.kind == "gradient":
        found |= set(ground.clean.audited[: tied.SPREAD_ROWS].tolist())
    if ground.settings.flip:
        found |= set(ground.clean.usable[: others_looked_at(ground.dimension)].tolist())
    return tuple(sorted(map(ground.index, found)))
