"""Enters a file behind its input: reads an inner value at every sample, and cuts the file there once the copy has proved itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.inputs import arranged
from onnxfim.auditing.meter import Meter
from onnxfim.auditing.reproducing import same
from onnxfim.data import Samples
from onnxfim.data.lazy_rows import LazyRows
from onnxfim.data.stored_rows import Collected
from onnxfim.errors import InputError, ModelError
from onnxfim.graph.between import Between
from onnxfim.graph.choosing_heads import choose_heads
from onnxfim.graph.choosing_inputs import choose_input, values_behind
from onnxfim.graph.cutting import part_before, part_behind, without_functions
from onnxfim.graph.float_front import with_float_front
from onnxfim.graph.graph import Graph, TensorInfo
from onnxfim.graph.held import POSITION, HeldValue, hold, sized_by
from onnxfim.graph.inner import Place, Unplaced, moved_on, named_place, place_of, token_input
from onnxfim.graph.load import ModelFile, fixed_batch, value_type
from onnxfim.record.audited_from import AuditedFrom
from onnxfim.record.settings import Settings
from onnxfim.runtime.failures import RowsFailed
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.row_counts import filled
from onnxfim.runtime.session import open_session, run
from onnxfim.runtime.watching import current_watch

Array: TypeAlias = np.ndarray[Any, Any]

_ROWS = 32  # of a call that reads the value
_BYTES = 2**26  # of the values of such a call
_COMPARED = 8  # samples at which the copy must give the file's outputs
_HALF = onnx.TensorProto.FLOAT16
_FLOATS = ("float16", "float32", "float64")


def place_in(file: ModelFile, into: TensorInfo, settings: Settings) -> Place | None:
    """Where a file is audited that is not audited at its input; None where it is.

    Raises:
        InputError: there is no such value, or none of the name that was given.
    """
    if file.at is not None or (settings.at is None and into.dtype.startswith("float")) or settings.at == into.name:
        return None
    return placed(file.graph, file.path, into, at=settings.at, output=choose_heads(file, settings.output)[0].value.name)


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
    into = choose_input(file, settings.inputs, settings.output)
    written = with_floats(with_names(file), into, settings.at)
    place = place_in(written, into, settings)
    if place is None:
        return file, samples
    output = choose_heads(file, settings.output)[0].outputs[0]
    if output == place.tensor:
        raise InputError(f"{file.path}: {output!r} is the output itself, expected a value before it. Name another one with --at.")
    found = arranged(written, samples, settings, hardware)
    reading = _reading(found.file, into, place, samples.inputs, hardware, named=settings.at is not None)
    values, left = _read(reading, samples, meter)
    if len(left) < len(samples):  # tables of what is held have a row for each sample
        found = arranged(written, left, settings, hardware)
    fed = left.inputs[:]  # one table of them stands in the copy
    copy = _cut(replace(reading, file=found.file), values, fed)
    own = replace(found.file, proto=file.proto) if found.file.held is None else found.file
    _compare(own, copy, into, output, fed, values, hardware)
    held = {**found.samples.held, **({into.name: fed} if copy.holds_its_own else {})}
    return copy, replace(left, inputs=values, fed=fed, held=held)


def with_floats(file: ModelFile, into: TensorInfo, at: str | None) -> ModelFile:
    """The file with floats written before the operators that compute with an input's whole numbers, where none stand there."""
    if at is not None or into.dtype.startswith("float"):
        return file
    place = place_of(file.graph, into, None)
    if isinstance(place, Place) and Between(file.graph, into.name, None).moves(place.tensor):
        return file
    proto = with_float_front(file.proto, into.name)
    return file if proto is None else replace(file, proto=proto, graph=Graph(proto, base_dir=file.path.parent))


def whole_input(file: ModelFile, name: str | None) -> TensorInfo | None:
    """The input of whole numbers that a file would be audited behind; None where it has a float one, or none can be told."""
    inputs = file.graph.inputs
    if name is None and len(inputs) > 1:
        there = values_behind(file, None)
        inputs = tuple(i for i in inputs if i.name in there) or inputs
    if name is None and any(i.dtype.startswith("float") for i in inputs):
        return None
    found = [i for i in inputs if i.name == name or name is None]
    if len(found) > 1:
        tokens = token_input(file.graph, None)
        found = [] if tokens is None else [tokens]
    return found[0] if len(found) == 1 and found[0].dtype.startswith(("int", "uint")) else None


def unread(file: ModelFile, *, input_name: str | None, output_name: str | None, at: str | None) -> tuple[Graph, str | None]:
    """The graph from where it is audited on, as far as the file alone tells, and the input's name there; no sample is run.

    Args:
        file: The file.
        input_name, output_name: As given.
        at: The value to begin from, as given.

    Raises:
        InputError: there is no value to begin from, or none of this name.
    """
    written = with_names(file)
    into = whole_input(written, input_name) if at is None else choose_input(written, input_name)
    if into is None or at == into.name:
        return file.graph, input_name
    written = with_floats(written, into, at)
    place = placed(written.graph, file.path, into, at=at, output=choose_heads(file, output_name)[0].value.name)
    element = value_type(written, place.tensor) or int(onnx.TensorProto.FLOAT)
    shape = written.graph.shapes.get(place.tensor)
    part = part_behind(written.proto, place.tensor, element, shape)
    if shape and into.shape and shape[0] == into.shape[0]:
        sized_by(part, into.name, place.tensor)
    return Graph(part, base_dir=file.path.parent), place.tensor


def entry_of(file: ModelFile, *, named: bool) -> AuditedFrom | None:
    """The record of where a file is audited; None where that is its input."""
    own = file.own_input
    if file.at is None or own is None:
        return None
    return AuditedFrom(
        tensor=file.at.tensor, kind=file.at.kind, front=file.at.front, unit=file.at.unit, input=own.name, input_dtype=own.dtype,
        input_shape=own.shape or (), named=named,
    )  # fmt: skip


def with_names(file: ModelFile) -> ModelFile:
    """The file with its functions written out, so that the values inside them have names; itself where it has none."""
    if not file.proto.functions:
        return file
    try:
        proto = without_functions(file.proto)
    except ModelError:  # what is wrong with them is told where it matters
        return file
    return replace(file, proto=proto, graph=Graph(proto, base_dir=file.path.parent))


@dataclass(frozen=True)
class _ValueReader:
    """How the value is read: of which file and input, where it is, its shape at one sample, and its axis of the batch."""

    file: ModelFile
    into: TensorInfo
    place: Place
    session: Any
    shape: tuple[int, ...] = ()
    axis: int = 0

    @property
    def fixed(self) -> int | None:
        """Rows that the file insists on, or None."""
        return fixed_batch(self.into) if self.into.shape else None

    def raw(self, rows: Array, of: Array) -> Array:
        """The value as the file has it, at rows of the samples at the positions ``of``."""
        names, size = {i.name for i in self.session.get_inputs()}, max(self.fixed or 0, len(rows))
        feeds = {self.into.name: filled(rows, size), POSITION: filled(of, size)}
        return np.asarray(run(self.session, [self.place.tensor], {name: feeds[name] for name in feeds if name in names})[0])

    def __call__(self, rows: Array, of: Array) -> Array:
        """The value at these rows, (n, *shape).

        Raises:
            InputError: of another shape than at the first sample.
        """
        value = np.moveaxis(self.raw(rows, of), self.axis, 0)[: len(rows)]
        if value.shape[1:] != self.shape:
            raise InputError(
                f"{self.file.path}: {self.place.tensor!r} has shape {value.shape[1:]} for some samples and {self.shape} for "
                "others, expected one shape. Name another value with --at."
            )
        return value


def _reading(file: ModelFile, into: TensorInfo, place: Place, X: Array, hardware: Hardware, *, named: bool) -> _ValueReader:
    """How the value is read; a value that is found has no batch perhaps where one that moves it has.

    Raises:
        InputError: it is no float, or has no axis of the batch.
    """
    session, _ = open_session(
        part_before(file.proto, place.tensor).SerializeToString(), hardware, base_dir=file.path.parent.resolve()
    )
    reading = _ValueReader(file, into, place, session)
    try:
        first = rows_that_run(reading.raw, X, 1)
    except RowsFailed as error:
        raise InputError(
            f"{file.path}: {place.tensor!r} cannot be read at any of the first samples ({error.said}). Check the data."
        ) from error
    sizes = (reading.fixed, reading.fixed) if reading.fixed else (1, 2)
    one, two = (reading.raw(np.repeat(X[first], n, axis=0), np.repeat(first, n)) for n in sizes)
    if one.dtype.name not in _FLOATS:
        raise InputError(f"{file.path}: {place.tensor!r} is of {one.dtype}, expected a float value. Name another one with --at.")
    axes = [k for k in range(one.ndim) if (one.shape[k], two.shape[k]) == sizes] if one.ndim == two.ndim else []
    rest = [tuple(np.delete(v.shape, axes[0])) if axes else () for v in (one, two)]
    if axes and one.ndim >= 2 and rest[0] == rest[1]:
        return replace(reading, shape=tuple(int(n) for n in rest[0]), axis=axes[0])
    further = None if named else moved_on(file.graph, place)
    if further is not None:
        return _reading(file, into, further, X, hardware, named=named)
    raise InputError(
        f"{file.path}: {place.tensor!r} has shape {one.shape} for {sizes[0]} and {two.shape} for {sizes[1]} samples, expected an "
        "axis of the batch and at least one more. Name another value with --at."
    )


def _read(reading: _ValueReader, samples: Samples, meter: Meter) -> tuple[Array, Samples]:
    """The value at every sample, and the samples that have one; those on which the runtime fails are left out."""
    X, name = samples.inputs, f"{reading.file.path}: {reading.place.tensor!r}"
    size = int(np.prod(reading.shape)) * 8
    rows = reading.fixed or max(1, min(_ROWS, _BYTES // max(1, size)))
    found = Collected(name)
    lost: dict[int, str] = {}
    for start in range(0, len(X), rows):
        meter.check()
        part = np.arange(start, min(start + rows, len(X)))
        with current_watch().about(part.tolist()):
            for some, value in _in_halves(lambda p: reading(X[p], p), part):
                if isinstance(value, str):
                    lost |= {int(samples.indices[k]): value for k in some}
                    continue
                good = np.isfinite(value.reshape(len(value), -1)).all(axis=1)
                lost |= {int(samples.indices[k]): f"{reading.place.tensor!r} is not finite" for k in some[~good]}
                found.add(value[good])
        meter.spent(len(part))
    left = samples.without(lost) if lost else samples
    if not len(left):
        raise InputError(f"{name} cannot be read at any sample; the first: {next(iter(lost.values()))}. Check the data.")
    values = found.rows()
    return values if isinstance(values, np.ndarray) else LazyRows(values).in_place, left


def _tried(call: Callable[[Array], Array], part: Array) -> Array | str:
    try:
        return call(part)
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


def _cut(reading: _ValueReader, values: Array, fed: Array) -> ModelFile:
    """The file as a copy that begins at the value; where the input is read behind it too, it is held at the samples ``fed``."""
    file, into, place = reading.file, reading.into, reading.place
    batch = (into.shape or ("batch",))[0] or "batch"
    element = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    kept: list[str] = []
    try:
        proto = part_behind(file.proto, place.tensor, element, (batch, *values.shape[1:]), reading.axis)
        name = proto.graph.input[0].name
        sized_by(proto, into.name, name)
        kept = [i.name for i in proto.graph.input if i.name == into.name]
        if kept:
            proto = hold(proto, name, {into.name: HeldValue(fed, 0, per_sample=True)})
        graph = Graph(proto, base_dir=file.path.parent)
    except ModelError as error:
        raise InputError(f"{file.path}: cannot be cut at {place.tensor!r} ({error}) Name another value with --at.") from error
    held = f"what the nodes behind {place.tensor!r} read of {into.name!r} held at each sample's own" if kept else None
    behind = f"each sample's own value, behind which {place.tensor!r} is perturbed"
    roles = tuple(replace(r, role="held", at=behind) if r.role == "perturbed" else r for r in file.roles)
    return replace(
        file, proto=proto, graph=graph, roles=roles, at=place, own_input=into, holds_its_own=bool(kept),
        held="; ".join(filter(None, [file.held, held])) or None,
    )  # fmt: skip


def _compare(
    file: ModelFile, copy: ModelFile, into: TensorInfo, output: str, X: Array, values: Array, hardware: Hardware
) -> None:  # fmt: skip
    """Raise InputError where the copy does not give the file's own outputs at the first samples that the file takes.

    Args:
        file: The file, or the copy of it with inputs held, which has proved itself.
        copy: What begins at the value.
        into: The file's input.
        output: Whose values are compared.
        X: Samples of the file's input.
        values: Those of the copy's.
        hardware: Where both run.
    """
    fixed = fixed_batch(into) if into.shape else None
    folder, name = file.path.parent.resolve(), f"{file.path}: the file cut at {copy.graph.inputs[0].name!r}"

    sources = {id(of): of.source for of in (file, copy)}
    sessions = {
        key: open_session(source, hardware, base_dir=folder if isinstance(source, bytes) else None)[0]
        for key, source in sources.items()
    }

    def outputs(of: ModelFile, entry: str, rows: Array, positions: Array) -> Array:
        size = max(fixed or 0, len(rows))
        feeds = {entry: filled(rows, size), **({POSITION: filled(positions, size)} if of.placed else {})}
        return np.asarray(run(sessions[id(of)], [output], feeds)[0])

    some = rows_that_run(lambda rows, of: outputs(file, into.name, rows, of), X, min(_COMPARED, fixed or _COMPARED))
    truth = outputs(file, into.name, X[some], some)
    try:
        got = outputs(copy, copy.graph.inputs[0].name, values[some], some)
    except RowsFailed as error:
        raise InputError(f"{name} does not run ({error.said}). Name another value with --at.") from error
    half = "float16" in (str(truth.dtype), str(values.dtype)) or any(t.data_type == _HALF for t in copy.proto.graph.initializer)
    if not same(got, truth, half=half):
        apart = "another shape" if got.shape != truth.shape else f"outputs that differ by {np.nanmax(np.abs(got - truth)):.2g}"
        raise InputError(
            f"{name} gives {apart}, so that what is audited there would not be the file. Name another value with --at."
        )
