"""Opens what is to be audited: decides how the outputs are read, and proves every rewritten copy against the file first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.errors import InputError, OnnxFimError
from onnxfim.graph.ends import Ending, ending, input_level, input_limits
from onnxfim.graph.load import (  # fmt: skip
    ModelFile,
    choose_input,
    choose_output,
    fixed_batch,
    load_model,
    sample_shape,
    value_type,
)
from onnxfim.graph.surgery import free_batch, read_from
from onnxfim.record.audit import ModelInfo
from onnxfim.record.settings import Settings
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.forward import CallableForward, OnnxForward
from onnxfim.slopes.kinds import OutputReader, reader_of

Array: TypeAlias = np.ndarray[Any, Any]

_SAME = 1e-5  # relative to the outputs' scale: what float32 kernels may differ by between two batch sizes


@dataclass(frozen=True)
class CallableModel:
    """A classifier that is not a file; made by `from_callable`."""

    fn: Callable[[Array], Array]
    input_shape: tuple[int, ...]
    num_outputs: int
    name: str
    dtype: str = "float32"


@dataclass(frozen=True)
class Differentiable:
    """What there is to differentiate: the model (the file, or the copy that runs), and the value that holds the logits."""

    proto: onnx.ModelProto
    input_name: str
    logits: str
    base_dir: Path


@dataclass(frozen=True)
class Subject:
    """An opened classifier: how to call it, how to read it, what it is.

    ``kind`` is what the file's outputs are, ``reader`` reads what is called: the same, or the value before their activation.
    ``level`` is the spacing of its input levels where it quantises its input first, ``limits`` the range outside which it clips
    them. ``doubt`` is what speaks against the output kind it was read with. ``differentiable`` is None, and ``no_gradient`` says
    why, where there are no logits of a graph to differentiate.
    """

    info: ModelInfo
    forward: OnnxForward | CallableForward
    kind: OutputReader
    reader: OutputReader
    level: float | None = None
    doubt: str | None = None
    differentiable: Differentiable | None = None
    no_gradient: str | None = "the model is a function, not a graph"
    limits: tuple[float, float] | None = None
    file: ModelFile | None = None


def from_callable(
    fn: Callable[[Array], Array], input_shape: tuple[int, ...], num_outputs: int, *, name: str = "callable", dtype: str = "float32"
) -> CallableModel:
    """Wrap any batch function as a model to audit: a TensorRT engine, a remote endpoint, a model in another framework.

    Args:
        fn: Takes a batch (B, *input_shape), returns (B, num_outputs) scores.
        input_shape: Shape of one sample.
        num_outputs: Number of classes.
        name: What to call it in the report.
        dtype: Element type that ``fn`` takes.

    Raises:
        InputError: a shape or number of outputs that cannot be.

    Example:
        >>> import numpy as np
        >>> import onnxfim
        >>> W = np.random.default_rng(0).standard_normal((4, 3))
        >>> model = onnxfim.from_callable(lambda X: X @ W, input_shape=(4,), num_outputs=3)
        >>> audit = onnxfim.audit(model, np.zeros((2, 4)))
        >>> audit.run.method, len(audit.samples)
        ('exact', 2)
    """
    if not input_shape or any(n < 1 for n in input_shape) or num_outputs < 1:
        raise InputError(f"from_callable: input_shape {input_shape} and num_outputs {num_outputs}, expected positive numbers.")
    return CallableModel(fn, tuple(input_shape), num_outputs, name, dtype)


def open_subject(model: str | Path | ModelFile | CallableModel, X: Array, settings: Settings) -> Subject:
    """Open a model for the samples X (N, *shape).

    Raises:
        ModelError, InputError, ProviderError: what does not fit, in one line.
    """
    if isinstance(model, CallableModel):
        return _open_callable(model, X, settings)
    file = model if isinstance(model, ModelFile) else load_model(model)
    return _open_file(file, X, settings)


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    """Raise InputError where samples of ``shape`` do not fit an input that takes ``expected`` (None is free)."""
    if len(shape) != len(expected) or any(e is not None and e != s for s, e in zip(shape, expected, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in expected)
        raise InputError(
            f"data: samples have shape {shape}, but input {name!r} takes ({wanted}). "
            f"Pass an array of shape (N, {wanted}), or --layout if only the axes are in another order."
        )


def _open_callable(model: CallableModel, X: Array, settings: Settings) -> Subject:
    check_shape(model.name, X.shape[1:], model.input_shape)
    forward = CallableForward(model.fn, model.input_shape, model.num_outputs, dtype=model.dtype, batch=settings.batch)
    z = forward.outputs(X[: min(8, len(X))])
    kind, known = reader_of(settings, Ending(), z)
    info = ModelInfo(
        path="", name=model.name, sha256=hashlib.sha256(model.name.encode()).hexdigest(), bytes=0, producer="Python callable",
        opset=None, input="input", input_shape=("N", *model.input_shape), input_dtype=model.dtype, output="output",
        num_outputs=z.shape[1], positions=z.shape[2], output_kind=kind.name, read_from=_read_from(known.how, kind),
    )  # fmt: skip
    return Subject(info, forward, kind, kind, doubt=known.doubt)


def _open_file(file: ModelFile, X: Array, settings: Settings) -> Subject:
    into, out = choose_input(file, settings.input), choose_output(file, settings.output)
    shape = X.shape[1:]
    check_shape(into.name, shape, sample_shape(into))
    dtype = np.dtype(into.dtype)
    end = ending(file.graph, out.name)
    fixed = fixed_batch(into)

    def opened(source: Any, output: str, fixed: int | None, batch: int | None) -> OnnxForward:
        return OnnxForward(
            source, input_name=into.name, output_name=output, shape=shape, dtype=dtype, providers=settings.providers,
            require=settings.require_provider, tf32=settings.tf32, batch=batch, fixed=fixed, class_axis=end.class_axis,
            base_dir=None if isinstance(source, Path) else file.path.parent.resolve(),
        )  # fmt: skip

    forward = opened(file.path, out.name, fixed, settings.batch)
    few = rows_that_run(forward, X, 8)
    truth = forward.outputs(few)
    rewritten: list[str] = []
    proto = file.proto
    if fixed is not None:
        freed = free_batch(proto, fixed)
        rows = few if len(few) > 1 else np.concatenate([few, few / 2])  # one row alone could not be mixed up
        other = _reproducing(lambda: opened(freed.SerializeToString(), out.name, None, settings.batch), rows, forward.outputs(rows))
        if other is not None:
            forward, proto = other, freed
            rewritten.append(f"batch axis freed (the file insists on {fixed})")
    kind, known = reader_of(settings, end, truth)
    reader, how = kind, known.how
    before = kind.before_activation()
    if before is not None and end.logits is not None:
        inner = _logits_forward(file, proto, end.logits, opened, few, truth, before, settings)
        if inner is not None:
            forward, reader = inner, before
            rewritten.append(f"one more output, the logits before node {end.node!r}")
            how += f"; differentiated at the logits before node {end.node!r}"
    info = ModelInfo(
        path=str(file.path), name=file.path.name, sha256=file.sha256, bytes=file.bytes, producer=file.producer,
        opset=file.graph.opsets.get("ai.onnx"), input=into.name, input_shape=into.shape or (), input_dtype=into.dtype,
        output=out.name, num_outputs=truth.shape[1], positions=truth.shape[2], output_kind=kind.name,
        read_from=_read_from(how, reader), rewritten="; ".join(rewritten) or None,
    )  # fmt: skip
    source, reason = None, None
    if not reader.reads_logits:
        reason = "the logits before the output cannot be read"
    elif truth.shape[2] != 1:
        reason = "outputs with positions are measured by sketch"
    else:
        name = end.logits if reader is before and end.logits is not None else out.name
        source = Differentiable(file.proto, into.name, name, file.path.parent)
    level, limits = input_level(file.graph, into.name), input_limits(file.graph, into.name)
    return Subject(info, forward, kind, reader, level, known.doubt, source, reason, limits, file)


def _reproducing(make: Callable[[], OnnxForward], few: Array, truth: Array) -> OnnxForward | None:
    """The copy's forward where it gives the file's own outputs, else None."""
    try:
        copy = make()
        given, copy.finder.batch = copy.finder.batch, len(few)  # all at once: a mixed-up batch axis would show
        got = copy.outputs(few)
        copy.finder.batch = given
    except OnnxFimError:
        return None
    scale = float(np.abs(truth).max(initial=0.0)) or 1.0
    return copy if got.shape == truth.shape and np.allclose(got, truth, rtol=0, atol=_SAME * scale) else None


def _read_from(how: str, reader: OutputReader) -> str:
    """How the outputs are known, and what is differentiated where that is not the outputs."""
    return f"{how}; {reader.differentiated}" if reader.differentiated else how


def _logits_forward(
    file: ModelFile, proto: Any, logits: str, opened: Callable[..., OnnxForward], few: Array, truth: Array, reader: OutputReader,
    settings: Settings,
) -> OnnxForward | None:  # fmt: skip
    """A forward that reads the logits before the final activation, where its copy reproduces the outputs."""
    element = value_type(file, logits)
    if element is None:
        return None
    fixed = fixed_batch(file.graph.inputs[0]) if proto is file.proto else None
    source = read_from(proto, logits, element).SerializeToString()
    try:
        copy = opened(source, logits, fixed, settings.batch)
        z = copy.outputs(few)
    except OnnxFimError:
        return None
    p = reader.probabilities(z)
    tolerance = 2e-3 if "float16" in file.graph.inputs[0].dtype else _SAME
    return copy if p.shape == truth.shape and np.allclose(p, truth, rtol=0, atol=tolerance) else None


__all__ = ["CallableModel", "Subject", "check_shape", "from_callable", "open_subject"]
