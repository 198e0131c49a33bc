"""Opens what is to be audited: decides how the outputs are read, and proves every rewritten copy against the file first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.entry import entry_of
from onnxfim.auditing.finding_axes import OutputAxes, find_axes
from onnxfim.errors import InputError, OnnxFimError
from onnxfim.gradients import derivative_graph
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
from onnxfim.graph.output_axes import input_batch_axis
from onnxfim.graph.quantised import takes_scales_from_the_batch
from onnxfim.graph.reach import no_slope
from onnxfim.graph.referring import refers
from onnxfim.graph.surgery import free_batch, read_from, read_logarithm
from onnxfim.record.audit import InputInfo, ModelInfo
from onnxfim.record.settings import Settings
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.runtime.failures import ProviderFailed
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.forward import OnnxForward, profile_of
from onnxfim.runtime.hardware import Hardware, InputProfile
from onnxfim.runtime.provider_options import lost_options
from onnxfim.runtime.providers import CPU
from onnxfim.runtime.turns import WeightTurns
from onnxfim.slopes.kinds import OutputReader, reader_of, stand_alone

Array: TypeAlias = np.ndarray[Any, Any]

_LEVELS = 2  # of the output: the runtime makes one integer operator of a softmax between quantisers, off by up to 1.5 (measured)
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

    ``kind`` is what the file's outputs are, ``reader`` reads what is called: the same, or the value before their activation, or
    their logarithm (then ``of_logarithm`` is set); ``read`` is the name of that value. ``level`` is the spacing of the input levels
    of a file that quantises its input first, ``limits`` the range outside which it clips them. ``doubt`` is what speaks against the
    kind it was read with. ``differentiable`` is None, and ``no_gradient`` says why, where there are no logits of a graph to
    differentiate.
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
    read: str = "output"
    of_logarithm: bool = False

    @property
    def turns(self) -> WeightTurns | None:
        """In which the sessions of a model of large weights are open; None where they all stay open."""
        return self.forward.turns if isinstance(self.forward, OnnxForward) else None


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


def hardware_of(settings: Settings, engines: Path | None = None, profile: InputProfile | None = None) -> Hardware:
    """What the settings ask for, with a folder for what a provider compiles and the shapes that it must expect."""
    pairs = ([o.partition("=") for o in texts] for texts in (settings.provider_options, settings.provider_libraries))
    options, libraries = (tuple((key.strip(), value.strip()) for key, _, value in found) for found in pairs)
    return Hardware(
        settings.providers, settings.require_provider, settings.tf32, options, libraries, engines=engines, profile=profile,
        custom_operators=settings.custom_op_libraries,
    )  # fmt: skip


def open_subject(
    model: str | Path | ModelFile | CallableModel, X: Array, settings: Settings, *, engines: Path | None = None
) -> Subject:
    """Open a model for the samples X (N, *shape); ``engines`` is a folder for what a provider compiles.

    Raises:
        ModelError, InputError, ProviderError: what does not fit, in one line.
    """
    if isinstance(model, CallableModel):
        return _open_callable(model, X, settings)
    file = model if isinstance(model, ModelFile) else load_model(model)
    try:
        return _open_file(file, X, settings, engines)
    except ProviderFailed as error:  # where nobody asked for it by name, the CPU does, and the reason is said
        if error.provider == CPU or any(name.lower() != "auto" for name in settings.providers):
            raise
        subject = _open_file(file, X, replace(settings, providers=(CPU,), provider_options=()), engines)
        assert isinstance(subject.forward, OnnxForward)
        report = subject.forward.report
        subject.forward.report = replace(
            report, requested=settings.providers, reason=str(error).rstrip("."), explicit=False,
            options=lost_options(hardware_of(settings).asked, ()),
        )  # fmt: skip
        return subject


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
    few = X[: min(8, len(X))]
    axes = find_axes(forward.raw, few, settings, num_outputs=model.num_outputs, independent=stand_alone(settings, Ending()))
    forward.class_axis, forward.batch_axis = axes.classes, axes.batch
    z = forward.outputs(few)
    kind, known = reader_of(settings, Ending(), z)
    info = ModelInfo(
        path="", name=model.name, sha256=hashlib.sha256(model.name.encode()).hexdigest(), bytes=0, producer="Python callable",
        opset=None, input="input", input_shape=("N", *model.input_shape), input_dtype=model.dtype, output="output",
        num_outputs=z.shape[1], positions=z.shape[2], output_kind=kind.name, read_from=_read_from(known.how, kind),
        class_axis=axes.classes, batch_axis=axes.batch, axes_from=axes.how,
    )  # fmt: skip
    return Subject(info, forward, kind, kind, doubt=known.doubt)


def _open_file(file: ModelFile, X: Array, settings: Settings, engines: Path | None = None) -> Subject:
    into, out = choose_input(file, settings.inputs, settings.output), choose_output(file, settings.output)
    shape = X.shape[1:]
    batch_first(file, into.name)
    check_shape(into.name, shape, sample_shape(into))
    dtype = np.dtype(into.dtype)
    end = ending(file.graph, out.name)
    fixed = fixed_batch(into)
    # Scales that are taken from a batch make a row's answer one of all its rows; alone it is a function of the row.
    batch = 1 if settings.batch is None and takes_scales_from_the_batch(file.proto) else settings.batch

    def opened(source: Any, output: str, fixed: int | None, batch: int | None, axes: OutputAxes | None = None) -> OnnxForward:
        return OnnxForward(
            source, input_name=into.name, output_name=output, shape=shape, dtype=dtype, batch=batch, fixed=fixed,
            hardware=hardware_of(settings, engines, None if fixed else profile_of(into.name, shape, dtype, batch)),
            class_axis=None if axes is None else axes.classes, batch_axis=0 if axes is None else axes.batch,
            base_dir=None if isinstance(source, Path) else file.path.parent.resolve(), turns=turns, placed=file.placed,
        )  # fmt: skip

    turns = WeightTurns() if refers(file.proto) else None
    forward = opened(file.source, out.name, fixed, batch)
    of = rows_that_run(forward.raw, X, 8)
    few = X[of]

    def raw(rows: Array) -> Array:
        """The outputs at the few rows, or as many of them as are given, over and over."""
        return forward.raw(rows, np.resize(of, len(rows)))

    independent = stand_alone(settings, end)
    axes = find_axes(raw, few, settings, graph=file.graph, output=out, fixed=fixed, independent=independent)
    forward.class_axis, forward.batch_axis = axes.classes, axes.batch
    truth = forward.outputs(few, of)
    rewritten = [] if file.held is None else [file.held]
    proto = file.proto
    if fixed is not None:
        freed = free_batch(proto, fixed)
        rows = few if len(few) > 1 else np.concatenate([few, few / 2])  # one row alone could not be mixed up
        at = np.resize(of, len(rows))
        make_free = partial(opened, freed.SerializeToString(), out.name, None, batch, axes)
        other = _reproducing(make_free, rows, at, forward.outputs(rows, at))
        if other is not None:
            forward, proto = other, freed
            rewritten.append(f"batch axis freed (the file insists on {fixed})")
    kind, known = reader_of(settings, end, truth)
    still = no_slope(file.graph, into.name, out.name)
    reader, how, read, source = kind, known.how, out.name, file.proto
    before, inside = kind.before_activation(), _inner_axes(end, axes)
    if before is not None and end.logits is not None and inside is not None:
        make = _Copy(read_from(proto, end.logits, element), end.logits) if (element := value_type(file, end.logits)) else None
        inner = (
            None
            if make is None
            else _inner_forward(make, file, proto, opened, inside, few, of, kind.probabilities(truth), before, batch, end.rounding)
        )
        if inner is not None:
            forward, reader, read = inner, before, end.logits
            rewritten.append(f"one more output, the logits before node {end.node!r}")
            how += f"; differentiated at the logits before node {end.node!r}"
    by_log = kind.of_logarithm(truth)
    if reader is kind and by_log is not None and still is None and _has_derivative(file, into.name, truth, settings):
        logarithm, name = read_logarithm(proto, out.name)
        copy = _Copy(logarithm, name)
        inner = _inner_forward(copy, file, proto, opened, axes, few, of, kind.probabilities(truth), by_log, batch)
        if inner is not None:
            forward, reader, read, source = inner, by_log, name, read_logarithm(file.proto, out.name)[0]
            rewritten.append("one more output, the logarithm of the probabilities")
            how += "; differentiated at their logarithm"
    info = ModelInfo(
        path=str(file.path), name=file.path.name, sha256=file.sha256, bytes=file.bytes, producer=file.producer,
        opset=file.graph.opsets.get("ai.onnx"), input=into.name, input_shape=into.shape or (), input_dtype=into.dtype,
        output=out.name, num_outputs=truth.shape[1], positions=truth.shape[2], output_kind=kind.name,
        read_from=_read_from(how, reader), rewritten="; ".join(rewritten) or None, class_axis=axes.classes, batch_axis=axes.batch,
        axes_from=axes.how, no_slope=still, at=entry_of(file, named=settings.at is not None),
        inputs=tuple(InputInfo(**vars(role)) for role in file.roles),
    )  # fmt: skip
    differentiable, reason = None, None
    if not reader.reads_logits:
        reason = "the logits before the output cannot be read"
    elif truth.shape[2] != 1:
        reason = "outputs with positions are measured by sketch"
    elif axes.batch:
        reason = f"the output's batch is its axis {axes.batch}, not the first"
    else:
        differentiable = Differentiable(source, into.name, read, file.path.parent)
    level, limits = input_level(file.graph, into.name), input_limits(file.graph, into.name)
    if limits is None and file.at is not None:
        limits = file.at.limits
    return Subject(
        info, forward, kind, reader, level, known.doubt, differentiable, reason, limits, file, read, reader is by_log
    )  # fmt: skip


def batch_first(file: ModelFile, input_name: str) -> None:
    """Raise InputError where an input's batch is not its first axis."""
    axis, how = input_batch_axis(file.graph, input_name)
    if axis:
        raise InputError(
            f"{file.path}: input {input_name!r} holds its batch on axis {axis} ({how}), expected the first axis: samples are fed "
            "along it. Export the model with the batch first (batch_first=True), or with a Transpose before its first node."
        )


def _inner_axes(end: Ending, axes: OutputAxes) -> OutputAxes | None:
    """Where the output's axes lie in the value before its activation; None where a reshape lost them."""
    if end.axes is None:
        return axes
    if max(axes.classes, axes.batch) >= len(end.axes):
        return None
    classes, batch = end.axes[axes.classes], end.axes[axes.batch]
    return None if classes is None or batch is None else OutputAxes(classes, batch, axes.how)


def _has_derivative(file: ModelFile, input_name: str, outputs: Array, settings: Settings) -> bool:
    """Whether gradients may be used and the output can be differentiated as it stands."""
    if settings.method not in ("auto", "gradient") or outputs.shape[2] != 1 or _rounds(file):
        return False
    logarithm, name = read_logarithm(file.proto, settings.output or choose_output(file, None).name)
    try:
        derivative_graph(logarithm, input_name=input_name, output_name=name, kind="vjp", base_dir=file.path.parent)
    except OnnxFimError:
        return False
    return True


def _rounds(file: ModelFile) -> bool:
    """Whether the file computes in less than float32 somewhere: the logarithm of rounded probabilities is noise."""
    return any("Quantize" in n.op or n.op.endswith("Integer") or n.op.startswith("QLinear") for n in file.graph.nodes) or any(
        "16" in v.dtype for v in (*file.graph.inputs, *file.graph.outputs)
    )


def _reproducing(make: Callable[[], OnnxForward], few: Array, of: Array, truth: Array) -> OnnxForward | None:
    """The copy's forward where it gives the file's own outputs, else None; ``of`` are the positions of the rows' samples."""
    try:
        copy = make()
        given, copy.finder.batch = copy.finder.batch, len(few)  # all at once: a mixed-up batch axis would show
        got = copy.outputs(few, of)
        copy.finder.batch = given
    except OnnxFimError:
        return None
    scale = float(np.abs(truth).max(initial=0.0)) or 1.0
    return copy if got.shape == truth.shape and np.allclose(got, truth, rtol=0, atol=_SAME * scale) else None


def _read_from(how: str, reader: OutputReader) -> str:
    """How the outputs are known, and what is differentiated where that is not the outputs."""
    return f"{how}; {reader.differentiated}" if reader.differentiated else how


@dataclass(frozen=True)
class _Copy:
    """A copy of the model with one more output of that name."""

    model: onnx.ModelProto
    output: str


def _inner_forward(
    copy: _Copy, file: ModelFile, proto: Any, opened: Callable[..., OnnxForward], axes: OutputAxes, few: Array, of: Array,
    p: Array, reader: OutputReader, batch: int | None, rounding: float = 0.0,
) -> OnnxForward | None:  # fmt: skip
    """A forward that reads the copy's own output, where its probabilities are p (n, K, P) as the file gives them."""
    fixed = fixed_batch(file.graph.inputs[0]) if proto is file.proto else None
    try:
        made = opened(copy.model.SerializeToString(), copy.output, fixed, batch, axes)
        z = made.outputs(few, of)
    except OnnxFimError:
        return None
    again = reader.probabilities(z)
    tolerance = max(2e-3 if "float16" in file.graph.inputs[0].dtype else _SAME, _LEVELS * rounding)
    return made if again.shape == p.shape and np.allclose(again, p, rtol=0, atol=tolerance) else None


__all__ = ["CallableModel", "Subject", "check_shape", "from_callable", "open_subject"]
