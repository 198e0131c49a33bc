"""Opens a classifier that is not a file: a function of this process, or a model that is asked over a wire."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxfim.auditing.finding_axes import OutputAxes, find_axes
from onnxfim.auditing.subject import CallableModel, Subject, check_shape
from onnxfim.errors import ModelError, SettingsError
from onnxfim.graph.ends import Ending
from onnxfim.record.audit import ModelInfo
from onnxfim.record.plain import to_plain
from onnxfim.record.report_id import canonical
from onnxfim.record.settings import Settings
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.slopes.kinds import OutputReader, reader_of, stand_alone

if TYPE_CHECKING:  # few audits ask over a wire
    from onnxfim.served.asked_rows import ServedForward
    from onnxfim.served.endpoint import Endpoint

Array: TypeAlias = np.ndarray[Any, Any]

_FEW, _MANY = 8, 64  # rows that tell how outputs are read; of a served model, where they are paid for by the request


def open_function(model: CallableModel, X: Array, settings: Settings) -> Subject:
    """Open a model that is not a file for the samples X (N, *shape).

    Raises:
        ModelError, InputError, ProviderError: what does not fit, in one line.
    """
    check_shape(model.name, X.shape[1:], model.input_shape)
    few = X[: min(_FEW, len(X))]
    forward: CallableForward | ServedForward
    if model.endpoint is not None:
        forward = _served(model.endpoint, model.name, X.shape[1:], settings)
    elif model.num_outputs is None:
        raise ModelError(f"{model.name}: its number of outputs is not known, expected a number. Say it.")
    else:
        forward = CallableForward(model.fn, X.shape[1:], model.num_outputs, dtype=model.dtype, batch=settings.batch)
    fixed = None if model.endpoint is None else model.endpoint.fixed
    axes = find_axes(
        forward.raw, few, settings, fixed=fixed, num_outputs=model.num_outputs, independent=stand_alone(settings, Ending())
    )  # fmt: skip
    forward.class_axis, forward.batch_axis = axes.classes, axes.batch
    # One request of a served model; confident answers that are rounded are all 0 and 1 in a few rows.
    z = forward.outputs(few if model.endpoint is None else X[: min(_MANY, forward.batch)])
    kind, known = reader_of(settings, Ending(), z)
    info = _info(model, kind, read_from_words(known.how, kind), z, axes, X.shape[1:])
    return Subject(info, forward, kind, kind, doubt=known.doubt, no_gradient=_no_gradient(model), unit=known.unit)


def _served(endpoint: Endpoint, name: str, shape: tuple[int, ...], settings: Settings) -> ServedForward:
    from onnxfim.served.asked_rows import ServedForward

    most, axis = endpoint.most_rows or endpoint.fixed, settings.batch_axis or 0
    if settings.batch is not None and most is not None and settings.batch > most:
        raise SettingsError(f"--batch {settings.batch}: {name} takes {most} rows a request at most. Give a smaller one, or none.")
    if settings.batch_axis is not None and settings.batch_axis < 0:
        raise SettingsError("--batch-axis: counts from the end, expected a place from 0 on for a served model. Give that.")
    found = ServedForward(
        endpoint.opens(axis), name, endpoint.reach, shape, endpoint.dtype, batch=settings.batch, most_rows=endpoint.most_rows,
        fixed=endpoint.fixed,
    )  # fmt: skip
    found.batch_axis = axis
    return found


def _info(model: CallableModel, kind: OutputReader, how: str, z: Array, axes: OutputAxes, shape: tuple[int, ...]) -> ModelInfo:
    served = None if model.endpoint is None else model.endpoint.served
    identity = model.name if served is None else canonical(to_plain(served))
    into, out = ("input", "output") if model.endpoint is None else (model.endpoint.input, model.endpoint.output or "output")
    return ModelInfo(
        path="" if served is None else served.address, name=model.name, sha256=hashlib.sha256(identity.encode()).hexdigest(),
        bytes=0, producer="Python callable" if served is None else served.server or "not stated", opset=None, input=into,
        input_shape=("N", *shape), input_dtype=model.dtype, output=out, num_outputs=z.shape[1], positions=z.shape[2],
        output_kind=kind.name, read_from=how, class_axis=axes.classes, batch_axis=axes.batch, axes_from=axes.how, served=served,
    )  # fmt: skip


def _no_gradient(model: CallableModel) -> str:
    return (
        "the model is a function, not a graph"
        if model.endpoint is None
        else "the model is asked at an address, not read as a graph"
    )


def read_from_words(how: str, reader: OutputReader) -> str:
    """How the outputs are known, and what is differentiated where that is not the outputs."""
    return f"{how}; {reader.differentiated}" if reader.differentiated else how
