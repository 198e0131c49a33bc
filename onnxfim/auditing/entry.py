"""Enters a file behind its input: reads an inner value at every sample, and cuts the file there once the copy has proved itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.meter import Meter
from onnxfim.data import Samples
from onnxfim.errors import InputError, ModelError
from onnxfim.graph.cutting import part_before, part_behind, without_functions
from onnxfim.graph.graph import Graph, TensorInfo
from onnxfim.graph.inner import Place, Unplaced, named_place, place_of
from onnxfim.graph.load import ModelFile, choose_input, choose_output, fixed_batch
from onnxfim.record.entry import Entry
from onnxfim.record.settings import Settings
from onnxfim.runtime.failures import RowsFailed
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.row_counts import filled
from onnxfim.runtime.session import open_session, run
from onnxfim.runtime.watching import current_watch

Array: TypeAlias = np.ndarray[Any, Any]

_ROWS = 32  # of a call that reads the value
_BYTES = 2**26  # of the values of such a call
_COMPARED = 8  # samples at which the copy must give the file's outputs
#: What outputs of the copy may differ by, relative to the largest: float32 kernels that the runtime fused otherwise, float16 ones.
_SAME, _SAME_HALF = 1e-5, 2e-3
_FLOATS = ("float16", "float32", "float64")


def place_in(file: ModelFile, into: TensorInfo, settings: Settings) -> Place | None:
    """Where a file is audited that is not audited at its input; None where it is.

    Raises:
        InputError: there is no such value, or none of the name that was given.
    """
    if file.at is not None or (settings.at is None and into.dtype.startswith("float")) or settings.at == into.name:
        return None
    return placed(file.graph, file.path, into, at=settings.at, output=choose_output(file, settings.output).name)


def placed(graph: Graph, path: Any, into: TensorInfo, *, at: str | None, output: str | None) -> Place:
    """The value that a graph is audited from.

    Raises:
        InputError: there is none, or none of the name that was given.
    """
    if at is not None:
        found = named_place(graph, into, at, output)
        if isinstance(found, Unplaced):
            raise InputError(f"{path}: --at: {found.words}")
        return found
    found = place_of(graph, into, output)
    if isinstance(found, Unplaced):
        raise InputError(f"{path}: input {into.name!r} takes {into.dtype}, which has no small change, {found.words}")
    return found


def entered(file: ModelFile, samples: Samples, settings: Settings, hardware: Hardware, meter: Meter) -> tuple[ModelFile, Samples]:
    """The file as a copy that begins at an inner value, and the samples as that value; both as given where it begins at its input.

    Args:
        file: The file as read.
        samples: For its own input.
        settings: Of the audit.
        hardware: Where copies of it run.
        meter: Counts the passes that read the value.

    Raises:
        InputError: there is no value to audit from, it cannot be read, or the copy gives other outputs than the file.
    """
    into = choose_input(file, settings.input)
    written = file if not file.proto.functions else _without_functions(file)
    place = place_in(written, into, settings)
    if place is None:
        return file, samples
    output = choose_output(file, settings.output).name
    if output == place.tensor:
        raise InputError(f"{file.path}: {output!r} is the output itself, expected a value before it. Name another one with --at.")
    values, samples = _read(written, into, place, samples, hardware, meter)
    copy = _cut(written, into, place, values)
    _compare(file, copy, into, output, samples.inputs, values, hardware)
    return copy, replace(samples, inputs=values, fed=samples.inputs)


def entry_of(file: ModelFile, *, named: bool) -> Entry | None:
    """The record of where a file is audited; None where that is its input."""
    own = file.own_input
    if file.at is None or own is None:
        return None
    return Entry(
        tensor=file.at.tensor, kind=file.at.kind, front=file.at.front, unit=file.at.unit, input=own.name, input_dtype=own.dtype,
        input_shape=own.shape or (), named=named, nodes=len(file.graph.nodes),
    )  # fmt: skip


def _without_functions(file: ModelFile) -> ModelFile:
    proto = without_functions(file.proto)
    return replace(file, proto=proto, graph=Graph(proto, base_dir=file.path.parent))


def _read(
    file: ModelFile, into: TensorInfo, place: Place, samples: Samples, hardware: Hardware, meter: Meter
) -> tuple[Array, Samples]:
    """The value at every sample, and the samples that have one; those on which the runtime fails are left out."""
    session, _ = open_session(
        part_before(file.proto, place.tensor).SerializeToString(), hardware, base_dir=file.path.parent.resolve()
    )
    fixed = fixed_batch(into) if into.shape else None

    def call(rows: Array) -> Array:
        fed = filled(rows, max(fixed or 0, len(rows)))
        names = {i.name for i in session.get_inputs()}
        feeds = {into.name: fed} if into.name in names else {}
        return np.asarray(run(session, [place.tensor], feeds)[0])

    X = samples.inputs
    shape = _sample_shape(file, place, call, X, fixed)
    rows = fixed or max(1, min(_ROWS, _BYTES // max(1, int(np.prod(shape)) * 8)))
    found: list[Array] = []
    lost: dict[int, str] = {}
    for start in range(0, len(X), rows):
        meter.check()
        part = np.arange(start, min(start + rows, len(X)))
        with current_watch().about(part.tolist()):
            for some, value in _in_halves(lambda p: call(X[p]), part):
                if isinstance(value, str):
                    lost |= {int(samples.indices[k]): value for k in some}
                    continue
                value = value[: len(some)]
                if value.shape[1:] != shape:
                    raise InputError(
                        f"{file.path}: {place.tensor!r} has shape {value.shape[1:]} for some samples and {shape} for others, "
                        "expected one shape. Name another value with --at."
                    )
                good = np.isfinite(value.reshape(len(value), -1)).all(axis=1)
                lost |= {int(samples.indices[k]): f"{place.tensor!r} is not finite" for k in some[~good]}
                found.append(value[good])
        meter.spent(len(part))
    left = samples.without(lost) if lost else samples
    if not len(left):
        raise InputError(f"{file.path}: {place.tensor!r} cannot be read at any sample; the first: {next(iter(lost.values()))}.")
    return np.concatenate(found), left


def _sample_shape(
    file: ModelFile, place: Place, call: Callable[[Array], Array], X: Array, fixed: int | None
) -> tuple[int, ...]:  # fmt: skip
    """The value's shape at one sample: its first axis grows with the rows, and its type is a float."""
    row = next((X[k : k + 1] for k in range(min(len(X), 2 * _ROWS)) if not isinstance(_tried(call, X[k : k + 1]), str)), X[:1])
    one, two = call(row), call(np.repeat(row, 2, axis=0)) if fixed is None else call(np.repeat(row, fixed, axis=0))
    if one.dtype.name not in _FLOATS:
        raise InputError(f"{file.path}: {place.tensor!r} is of {one.dtype}, expected a float value. Name another one with --at.")
    sizes = (1, 2) if fixed is None else (fixed, fixed)
    if one.ndim < 2 or one.shape[1:] != two.shape[1:] or (one.shape[0], two.shape[0]) != sizes:
        raise InputError(
            f"{file.path}: {place.tensor!r} has shape {one.shape} for {sizes[0]} and {two.shape} for {sizes[1]} samples, expected "
            "the batch as its first axis and at least one more. Name another value with --at."
        )
    return one.shape[1:]


def _tried(call: Callable[[Array], Array], rows: Array) -> Array | str:
    try:
        return call(rows)
    except RowsFailed as error:
        return error.said


def _in_halves(call: Callable[[Array], Array], part: Array) -> Iterator[tuple[Array, Array | str]]:
    """Values of the rows ``part`` and whose they are; what the runtime says instead of those that it fails on."""
    value = _tried(call, part)
    if not isinstance(value, str) or len(part) == 1:
        yield part, value
        return
    yield from _in_halves(call, part[: len(part) // 2])
    yield from _in_halves(call, part[len(part) // 2 :])


def _cut(file: ModelFile, into: TensorInfo, place: Place, values: Array) -> ModelFile:
    """The file as a copy that begins at the value."""
    batch = (into.shape or ("batch",))[0] or "batch"
    element = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    proto = part_behind(file.proto, place.tensor, element, (batch, *values.shape[1:]))
    try:
        graph = Graph(proto, base_dir=file.path.parent)
    except ModelError as error:
        raise InputError(f"{file.path}: cannot be cut at {place.tensor!r} ({error}) Name another value with --at.") from error
    return replace(file, proto=proto, graph=graph, at=place, own_input=into)


def _compare(
    file: ModelFile, copy: ModelFile, into: TensorInfo, output: str, X: Array, values: Array, hardware: Hardware
) -> None:  # fmt: skip
    """Raise InputError where the copy does not give the file's own outputs at the first samples that the file takes."""
    folder = file.path.parent.resolve()
    assert copy.at is not None
    own, _ = open_session(file.path, hardware)
    cut, _ = open_session(copy.proto.SerializeToString(), hardware, base_dir=folder)
    fixed = fixed_batch(into) if into.shape else None
    compared = 0
    for k in range(0, min(len(X), 4 * _COMPARED), _COMPARED):
        rows, inner = X[k : k + _COMPARED][: fixed or _COMPARED], values[k : k + _COMPARED][: fixed or _COMPARED]
        size = max(fixed or 0, len(rows))
        truth = _tried(lambda r: np.asarray(run(own, [output], {into.name: filled(r, size)})[0]), rows)  # noqa: B023 - called at once
        if isinstance(truth, str):
            continue
        got = _tried(lambda r: np.asarray(run(cut, [output], {copy.at.tensor: filled(r, size)})[0]), inner)  # noqa: B023
        if isinstance(got, str):
            raise InputError(f"{file.path}: the file cut at {copy.at.tensor!r} does not run ({got}). Name another value with --at.")
        compared += 1
        half = "float16" in (str(truth.dtype), str(values.dtype)) or any(t.data_type == 10 for t in copy.proto.graph.initializer)
        slack = (_SAME_HALF if half else _SAME) * (float(np.abs(truth[np.isfinite(truth)]).max(initial=0.0)) or 1.0)
        if got.shape != truth.shape or not np.allclose(got, truth, rtol=0, atol=slack, equal_nan=True):
            apart = "another shape" if got.shape != truth.shape else f"outputs that differ by {np.nanmax(np.abs(got - truth)):.2g}"
            raise InputError(
                f"{file.path}: cut at {copy.at.tensor!r}, the file gives {apart}, so that what is audited there would not be the "
                "file. Name another value with --at."
            )
        break
    if not compared:
        raise InputError(f"{file.path}: ONNX Runtime fails on the first samples ({truth}). Check the data.")
