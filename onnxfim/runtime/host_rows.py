"""Makes perturbed rows in the processor's own memory: the numbers of the perturbation graph, without a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxfim.runtime.rows import Rows

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


class NoisyRows:
    """Rows ``x + field·ε`` with standard normal ε, drawn in float32 from each sample's own stream, never clipped.

    The rows of a sample are the next ones of its stream, however many are asked for at a time and of whatever samples beside it.

    Args:
        X: Samples, (n, *shape).
        field: Standard deviation of each coordinate, broadcastable to a sample.
        streams: Seed and words of each sample's stream, n of them.
    """

    def __init__(self, X: Array, field: Array, streams: Sequence[Sequence[int]]) -> None:
        self._shape, self._dtype = X.shape[1:], X.dtype
        self._wide = np.dtype(np.float64) if X.dtype == np.float64 else np.dtype(np.float32)
        self._base = X.reshape(len(X), -1).astype(self._wide)
        self._field = np.broadcast_to(field, self._shape).reshape(-1).astype(self._wide)
        self._rngs = [np.random.default_rng(list(stream)) for stream in streams]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row while it is made."""
        return self._base.shape[1] * self._wide.itemsize

    def rows(self, of: Array) -> Array:
        """The next row of each of the samples ``of`` (B,), in that order, (B, *shape) in the type of X."""
        noise = np.empty((len(of), self._base.shape[1]), np.float32)
        ends = np.flatnonzero(np.diff(of)) + 1
        for start, end in zip([0, *ends.tolist()], [*ends.tolist(), len(of)], strict=True):
            if end > start:
                self._rngs[int(of[start])].standard_normal(out=noise[start:end], dtype=np.float32)
        made: Array = noise.astype(self._wide, copy=False)
        made *= self._field
        made += self._base[of]
        with np.errstate(over="ignore"):  # what float16 does not hold is infinite, as in the file
            return made.astype(self._dtype, copy=False).reshape(len(of), *self._shape)
