"""Rows of a batch against each other: among other neighbours, beside moved rows, alone, copies, and in another batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Clean, Context
from onnxfim.auditing.stages import stage
from onnxfim.errors import OnnxFimError
from onnxfim.graph.quantised import takes_scales_from_the_batch
from onnxfim.record.row_check import RowCheck
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.rows import Forward, Rademacher, Rows

Array: TypeAlias = np.ndarray[Any, Any]

_ROWS = 8
_ALONE = 2
_LOOKED_AT = 64  # samples among which a tried row is looked for
_SAME = 1e-5  # of the outputs' scale: in one batch shape a row takes the same way through the kernels
_SAME_16 = 2e-3  # the same of files that compute in 16 bits
_DYNAMIC = 0.1  # the same of files whose scales of quantisation are taken from the batch
_CHANCE = 4.0  # times the rms of a repeated call
_PADDED = 1e-5  # of the scale: a row alone that is off by more needs its neighbours' batch shape in every call
_MOVE = 0.01  # of the inputs' spread, by which the others of a batch are moved


@dataclass(frozen=True)
class TriedRows:
    """What was found of rows that were tried, (n, *shape), what the model answers to them, (n, K, P), and whose they are, (n,)."""

    check: RowCheck
    rows: Array
    outputs: Array
    of: Array


@stage("trying rows against each other", instead=lambda context, reason: None)
def try_rows(context: Context) -> TriedRows | None:
    """How far rows depend on the batch that they are in; None where no batch can be tried (one row a call, or calls that fail).

    A model that answers a row otherwise in a call of its own is called with one batch shape from here on.
    """
    forward = context.subject.forward
    fixed = getattr(forward, "fixed", None)
    size = fixed or min(_ROWS, context.settings.batch or _ROWS)
    if size < 2:
        return None
    half = size // 2
    given = forward.finder.batch
    try:
        at = rows_that_run(forward.outputs, context.X, 2 * size)
        rows, others = _pool(context.X[at], size)
        of = np.resize(at, 2 * size)  # as `_pool` repeats them
        forward.finder.batch = size
        first, again = (forward.outputs(rows, of[:size]) for _ in range(2))
        moved = forward.outputs(np.concatenate([rows[:half], others[: size - half]]), np.r_[of[:half], of[size : 2 * size - half]])
        copies = forward.outputs(np.repeat(rows[:1], size, axis=0), np.repeat(of[:1], size))
        still = _beside_moved(forward, rows, of[:size], half)
        forward.finder.batch = 1
        alone = None if fixed else forward.outputs(rows[:_ALONE], of[:_ALONE])
    except OnnxFimError:
        return None
    finally:
        forward.finder.batch = given
    good = np.asarray(np.isfinite(first).all(axis=(1, 2)) & np.isfinite(again).all(axis=(1, 2)))
    good[:half] &= np.isfinite(moved[:half]).all(axis=(1, 2))
    if not good[:half].any() or not np.isfinite(copies).all():
        return None
    scale = float(np.abs(first[good]).max())
    repeated = _rms(again[good] - first[good])
    kept = good[:half]
    neighbours = _rms(moved[:half][kept] - first[:half][kept])
    apart = fixed is None and context.settings.batch is None and _takes_scales(context)
    limit = _DYNAMIC if _scales_by_the_batch(context) else _SAME_16 if _sixteen_bits(context) else _SAME
    differences = [again[good] - first[good], moved[:half][kept] - first[:half][kept], copies - copies[:1]]
    beside = None
    if np.isfinite(still[kept]).all():
        differences.append(still[kept] - first[:half][kept])
        beside = _rms(differences[-1])
    single = None
    if alone is not None and good[: len(alone)].all() and np.isfinite(alone).all():
        differences.append(alone - first[: len(alone)])
        single = _rms(differences[-1])
        if single > _PADDED * scale and not apart and hasattr(forward, "one_shape"):
            forward.one_shape = True
    dependent = (neighbours > max(_CHANCE * repeated, limit * scale) and not apart) or _trains(context)
    check = RowCheck(
        size, scale, neighbours, single, _rms(copies - copies[:1]), repeated, dependent, apart, beside_moved=beside,
        largest=max(float(np.abs(d).max()) for d in differences),
    )  # fmt: skip
    return TriedRows(check, rows[good], first[good], of[:size][good])


@stage("rows of the clean pass", small=True, instead=lambda context, reason, tried, clean: None if tried is None else tried.check)
def with_clean_pass(context: Context, tried: TriedRows | None, clean: Clean) -> RowCheck | None:
    """What was found, with the answers that the same rows had in the clean pass: it makes no call."""
    if tried is None or tried.check.apart:
        return None if tried is None else tried.check
    apart = [
        clean.base[at] - z
        for row, z, at in zip(tried.rows, tried.outputs, tried.of, strict=True)
        if np.array_equal(context.X[at], row) and np.isfinite(clean.base[at]).all()  # not one that was halved
    ]
    if not apart:
        return tried.check
    largest = max(tried.check.largest or 0.0, float(np.abs(apart).max()))
    size = min(context.subject.forward.batch, len(context.X))
    return replace(tried.check, batch_rows=size, batches=_rms(np.array(apart)), largest=largest)


def _beside_moved(forward: Forward, rows: Array, of: Array, half: int) -> Array:
    """Outputs at the first half of the rows, left where they are in a batch whose others are moved."""
    scale = np.zeros(len(rows))
    scale[half:] = _MOVE * float(rows.std(dtype=np.float64))
    v = Rademacher(0).block(0, 0, len(rows), int(np.prod(rows.shape[1:])))
    return np.concatenate(list(forward.stream(rows, [Rows(np.arange(len(rows)), v, scale)], of)))[:half]


def _pool(X: Array, size: int) -> tuple[Array, Array]:
    """Two batches' worth of rows, made of halved samples where there are too few."""
    rows = X[: 2 * size]
    while len(rows) < 2 * size:
        rows = np.concatenate([rows, (rows * 0.5).astype(X.dtype)])
    return rows[:size], rows[size : 2 * size]


def _rms(difference: Array) -> float:
    return float(np.sqrt(np.mean(np.square(difference))))


def _trains(context: Context) -> bool:
    """Whether the file normalises by the statistics of the batch; the runtime's own state then hides what the neighbours do."""
    file = context.subject.file
    return file is not None and any(
        n.op == "BatchNormalization" and (n.attributes.get("training_mode") == 1 or sum(map(bool, n.outputs)) > 1)
        for n in file.graph.nodes
    )


def _takes_scales(context: Context) -> bool:
    """Whether rows were given one a call, as scales of quantisation are those of the batch."""
    file = context.subject.file
    return file is not None and takes_scales_from_the_batch(file.proto)


def _scales_by_the_batch(context: Context) -> bool:
    """Whether the file takes scales of quantisation from the values of a whole batch, or from those of a row at the run."""
    file = context.subject.file
    return _takes_scales(context) or (file is not None and any(n.op.endswith("MatMulNBits") for n in file.graph.nodes))


def _sixteen_bits(context: Context) -> bool:
    file = context.subject.file
    return context.settings.tf32 or (file is not None and any(i.dtype in ("float16", "bfloat16") for i in file.graph.inputs))
