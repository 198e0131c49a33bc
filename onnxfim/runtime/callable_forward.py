"""Calls any Python function as a classifier, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import InputError
from onnxfim.runtime.batch_finder import BatchFinder
from onnxfim.runtime.output_layout import as_classes
from onnxfim.runtime.rows import Rows, on_grid
from onnxfim.runtime.watching import watched

Array: TypeAlias = np.ndarray[Any, Any]


class CallableForward:
    """Any function of a batch ``(B, *shape) -> (B, K)``: a TensorRT engine, a remote endpoint, a model in another framework.

    It takes no notice of whose the rows are.

    Raises:
        InputError: the function does not return one row of ``num_outputs`` values per sample.
    """

    def __init__(
        self,
        fn: Callable[[Array], Array],
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        dtype: Any = np.float32,
        batch: int | None = None,
        class_axis: int | None = None,
        batch_axis: int = 0,
    ) -> None:
        self.class_axis, self.batch_axis = class_axis, batch_axis
        self._fn, self._shape, self._num_outputs = fn, tuple(input_shape), num_outputs
        self._dtype = np.dtype(dtype)
        self.finder = BatchFinder(batch, int(np.prod(input_shape)) * self._dtype.itemsize)

    @property
    def batch(self) -> int:
        return self.finder.batch

    @property
    def stretch(self) -> int:
        return self.batch

    def find_batch(self, X: Array, of: Array | None = None) -> None:
        """Find the batch size on repeats of the first sample."""
        self.finder.search(lambda n: self._call(np.repeat(X[:1], n, axis=0)))

    def raw(self, X: Array, of: Array | None = None) -> Array:
        """What the function returns for these rows."""
        with watched("call", len(X)):
            return np.asarray(self._fn(X.astype(self._dtype)))

    def _call(self, X: Array) -> Array:
        z = self.raw(X)
        places = (self.batch_axis, 1 if self.class_axis is None else self.class_axis)
        if z.ndim < 2 or z.ndim <= max(places) or tuple(z.shape[a] for a in places) != (len(X), self._num_outputs):
            raise InputError(f"from_callable: the function returned shape {z.shape}, expected ({len(X)}, {self._num_outputs}).")
        return as_classes(z, self.class_axis, self.batch_axis)

    def outputs(self, X: Array, of: Array | None = None) -> Array:
        return np.concatenate([self._call(X[i : i + self.batch]) for i in range(0, len(X), self.batch)])

    def stream(self, X: Array, batches: Iterable[Rows], of: Array | None = None) -> Iterator[Array]:
        for rows in batches:
            moved = rows.bases(X[rows.sample]).astype(np.float64)
            shape = (len(moved), *([1] * len(self._shape)))
            field = 1.0 if rows.field is None else rows.field
            moved += rows.scale.reshape(shape) * np.asarray(rows.v).reshape(moved.shape) * field
            if rows.w is not None:
                moved += rows.dither / 127.0 * rows.w.reshape(moved.shape) * field
            if rows.grid is not None:
                on_grid(moved, rows.grid)
            yield self._call(moved)
