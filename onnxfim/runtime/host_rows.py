"""Makes perturbed rows in the processor's own memory: the numbers of the perturbation graph, without a session."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.runtime.rows import Moves, Rows, on_grid

Array: TypeAlias = np.ndarray[Any, Any]

_PIECE = 2**15  # numbers of a piece: what is computed on the way stays in the cache


def makes(dtype: np.dtype[Any]) -> bool:
    """Whether rows of this type are made here: NumPy rounds floats of the usual widths as the runtime does."""
    return dtype in (np.float16, np.float32, np.float64)


def made_rows(X: Array, rows: Rows, dtype: np.dtype[Any]) -> Array:
    """The rows ``X[sample] + field·(scale·v + dither·w/127)``, (B, *shape), as `perturb.perturbation_graph` makes them.

    In float32, or float64 for float64 rows, one operation after the other; only the last rounding is that of float16 rows.
    """
    shape = X.shape[1:]
    wide = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    count, sample = len(rows.sample), rows.sample
    if count and bool((sample == sample[0]).all()):
        used, which = sample[:1], None
    else:
        used, which = np.unique(sample, return_inverse=True)
    base = rows.bases(X[used]).astype(wide, copy=False).reshape(len(used), -1)
    if (moves := rows.plain_moves) is not None:
        which = np.zeros(count, np.intp) if which is None else which
        return _moved(base, which, moves, dtype, rows.grid).reshape(count, *shape)
    assert rows.grid is None, "rows on a grid are moved as was drawn"
    v, scale = np.asarray(rows.v).reshape(count, -1), rows.scale.astype(wide)[:, None]
    w = None if rows.w is None else rows.w.reshape(count, -1)
    dither = wide.type(rows.dither / 127.0)
    field: Array | None = None if rows.field is None else np.broadcast_to(rows.field, shape).reshape(1, -1).astype(wide)
    made = np.empty((count, base.shape[1]), dtype)
    size = max(1, _PIECE // max(base.shape[1], 1))
    for start in range(0, count, size):
        part = slice(start, start + size)
        moved: Array = made[part] if dtype == wide else np.empty(made[part].shape, wide)
        moved[...] = v[part]
        moved *= scale[part]
        if field is not None:
            moved *= field
        moved += base if which is None else base[which[part]]
        if w is not None:
            shift: Array = w[part].astype(wide)
            shift *= dither
            if field is not None:
                shift *= field
            moved += shift
        if dtype != wide:
            with np.errstate(over="ignore"):  # what float16 does not hold is infinite, as in the file
                made[part] = moved
    return made.reshape(count, *shape)


def _moved(base: Array, which: Array, moves: Moves, dtype: np.dtype[Any], grid: tuple[float, float, float] | None) -> Array:
    """The rows ``base[which] + moves``, (B, d): stretches of one base point and of moves side by side at once, without copies."""
    made = np.empty((len(which), base.shape[1]), dtype)
    ends = np.flatnonzero((np.diff(which) != 0) | (np.diff(moves.of) != 1)) + 1
    size = max(1, _PIECE // max(base.shape[1], 1))
    for first, last in zip((0, *ends.tolist()), (*ends.tolist(), len(which)), strict=True):
        for start in range(first, last, size):
            stop, at = min(start + size, last), int(moves.of[start])
            values = moves.values[at : at + stop - start]
            moved: Array = made[start:stop] if dtype == base.dtype else np.empty(values.shape, base.dtype)
            np.add(values, base[which[start]], out=moved)
            if grid is not None:
                on_grid(moved, grid)
            if dtype != base.dtype:
                with np.errstate(over="ignore"):  # what float16 does not hold is infinite, as in the file
                    made[start:stop] = moved
    return made
