"""Opens a classifier: decides how its outputs are read, and proves every rewritten copy against the file first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.entry import entry_of
from onnxfim.auditing.finding_axes import OutputAxes
from onnxfim.auditing.opening_functions import open_function, read_from_words
from onnxfim.auditing.opening_heads import View, open_heads, refuse_values
from onnxfim.auditing.reproducing import SAME, SAME_IN_HALF
from onnxfim.auditing.rows_per_call import Opened, opened_for_rows, telling_rows
from onnxfim.auditing.subject import CallableModel, Differentiable, Subject, check_shape, hardware_of
from onnxfim.errors import OnnxFimError
from onnxfim.gradients import derivative_graph
from onnxfim.graph.choosing_inputs import batch_first, choose_input
from onnxfim.graph.ends import Ending, input_level, input_limits
from onnxfim.graph.freeing import declared, freed_copies
from onnxfim.graph.in_logarithms import in_logarithms
from onnxfim.graph.load import ModelFile, fixed_batch, load_model, sample_shape, value_type
from onnxfim.graph.quantised import computes_in_half, takes_scales_from_the_batch
from onnxfim.graph.reach import no_slope
from onnxfim.graph.referring import refers
from onnxfim.graph.surgery import classes_first, read_from, read_logarithm
from onnxfim.record.audit import InputInfo, ModelInfo
from onnxfim.record.settings import Settings
from onnxfim.runtime.failures import ProviderFailed
from onnxfim.runtime.forward import OnnxForward, profile_of
from onnxfim.runtime.provider_options import lost_options
from onnxfim.runtime.providers import CPU
from onnxfim.runtime.turns import WeightTurns
from onnxfim.slopes.kinds import OutputReader, reader_of, stand_alone

Array: TypeAlias = np.ndarray[Any, Any]

_LEVELS = 2  # of the output: the runtime makes one integer operator of a softmax between quantisers, off by up to 1.5 (measured)


def open_subject(
    model: str | Path | ModelFile | CallableModel, X: Array, settings: Settings, *, engines: Path | None = None
) -> Subject:
    """Open a model for the samples X (N, *shape); ``engines`` is a folder for what a provider compiles.

    Raises:
        ModelError, InputError, ProviderError: what does not fit, in one line.
    """
    if isinstance(model, CallableModel):
        return open_function(model, X, settings)
    file = model if isinstance(model, ModelFile) else load_model(model)
    try:
        return _Opening(file, X, settings, engines).subject()
    except ProviderFailed as error:  # where nobody asked for it by name, the CPU does, and the reason is said
        if error.provider == CPU or any(name.lower() != "auto" for name in settings.providers):
            raise
        subject = _Opening(file, X, replace(settings, providers=(CPU,), provider_options=()), engines).subject()
        assert isinstance(subject.forward, OnnxForward)
        report = subject.forward.report
        subject.forward.report = replace(
            report, requested=settings.providers, reason=str(error).rstrip("."), explicit=False,
            options=lost_options(hardware_of(settings).asked, ()),
        )  # fmt: skip
        return subject


@dataclass(frozen=True)
class _OutputReading:
    """How outputs are read.

    Attributes:
        forward: Runs the file or the copy that is read.
        reader: Reads its outputs.
        value: Their name.
        axes: Where classes and batch lie in them.
        source: The graph that holds the value, as the file's batch has it: what is differentiated.
        logarithm: Whether they are the logarithm of the file's own.
        copied: Whether they are no value of the file, but computed beside by its copy.
    """

    forward: OnnxForward
    reader: OutputReader
    value: str
    axes: OutputAxes
    source: onnx.ModelProto
    logarithm: bool = False
    copied: bool = False


@dataclass(frozen=True)
class _Try:
    """A copy with one more output, which may be read in place of the file's own.

    ``model`` is the copy to run, ``source`` the same of the file as its batch has it; ``rounding`` is the spacing of the file's
    outputs where they are quantised.
    """

    model: onnx.ModelProto
    value: str
    reader: OutputReader
    axes: OutputAxes
    source: onnx.ModelProto
    what: str
    how: str
    rounding: float = 0.0
    logarithm: bool = False
    copied: bool = True


class _Opening:
    """One file being opened for some samples."""

    def __init__(self, file: ModelFile, X: Array, settings: Settings, engines: Path | None) -> None:
        self.into = choose_input(file, settings.inputs, settings.output)
        self.shape = X.shape[1:]
        batch_first(file, self.into.name)
        check_shape(self.into.name, self.shape, sample_shape(self.into))
        self.view: View = open_heads(file, self.into, X, settings, hardware_of(settings))
        self.file, self.settings, self.engines = self.view.file, self.view.settings, engines
        self.X, self.output = X, self.view.value
        self.slack = SAME_IN_HALF if computes_in_half(self.file.proto) else SAME
        # Scales that are taken from a batch make a row's answer one of all its rows; alone it is a function of the row.
        alone = settings.batch is None and takes_scales_from_the_batch(self.file.proto)
        self.batch = 1 if alone else settings.batch
        self.turns = WeightTurns() if refers(self.file.proto) else None
        self.rewritten = [why for why in (self.file.held, self.view.rewritten) if why]

    def opened(self, source: Any, output: str, fixed: int | None, axes: OutputAxes | None = None) -> OnnxForward:
        """The file or a copy, opened for calls of ``fixed`` rows or of any number."""
        into, dtype = self.into, np.dtype(self.into.dtype)
        profile = None if fixed else profile_of(into.name, self.shape, dtype, self.batch)
        return OnnxForward(
            source, input_name=into.name, output_name=output, shape=self.shape, dtype=dtype, batch=self.batch, fixed=fixed,
            hardware=hardware_of(self.settings, self.engines, profile), class_axis=None if axes is None else axes.classes,
            batch_axis=0 if axes is None else axes.batch, turns=self.turns, placed=self.file.placed,
            base_dir=None if isinstance(source, Path) else self.file.path.parent.resolve(),
        )  # fmt: skip

    def subject(self) -> Subject:
        """The opened file."""
        file, view, out = self.file, self.view, self.output
        as_file = opened_for_rows(
            lambda rows: self.opened(view.source, out.name, rows), file, out, self.X, self.settings,
            fixed=fixed_batch(self.into), independent=stand_alone(self.settings, view.end), known=view.axes, look=self._look,
        )  # fmt: skip
        truth = as_file.forward.outputs(as_file.few, as_file.of)
        forward, proto, fixed = self._freed(as_file)
        source = declared(file.proto, as_file.fixed) if as_file.hidden and as_file.fixed is not None else file.proto
        kind, known = reader_of(self.settings, view.end, truth)
        still = no_slope(file.graph, self.into.name, out.name)
        how = view.how or known.how
        reading = _OutputReading(forward, kind, out.name, as_file.axes, source)
        for attempt in self._tries(kind, truth, proto, source, reading, as_file, flat=still is not None):
            found = self._read(attempt, as_file, kind.probabilities(truth), fixed)
            if found is not None:
                reading = found
                self.rewritten.append(attempt.what)
                how += f"; {attempt.how}"
                break
        reader = reading.reader
        info = ModelInfo(
            path=str(file.path), name=file.path.name, sha256=file.sha256, bytes=file.bytes, producer=file.producer,
            opset=file.graph.opsets.get("ai.onnx"), input=self.into.name, input_shape=self.into.shape or (),
            input_dtype=self.into.dtype, output=view.name, num_outputs=truth.shape[1], positions=truth.shape[2],
            output_kind=kind.name, read_from=read_from_words(how, reader), rewritten="; ".join(self.rewritten) or None,
            class_axis=as_file.axes.classes, batch_axis=as_file.axes.batch, axes_from=as_file.axes.how, no_slope=still,
            at=entry_of(file, named=self.settings.at is not None),
            outputs=view.outputs, inputs=tuple(InputInfo(**vars(role)) for role in file.roles),
        )  # fmt: skip
        differentiable, reason = None, None
        if reader.reads_logits:
            graph, value = self._as_rows(reading.source, reading.value, reading.forward, reading.axes, as_file)
            differentiable = Differentiable(graph, self.into.name, value, file.path.parent)
        else:
            reason = "the logits before the output cannot be read"
        level, limits = input_level(file.graph, self.into.name), input_limits(file.graph, self.into.name)
        if limits is None and file.at is not None:
            limits = file.at.limits
        return Subject(
            info, reading.forward, kind, reader, level, view.doubt or known.doubt, differentiable, reason, limits, file,
            reading.value, reading.logarithm, out.name,
            view.classes if view.classes is not None and len(view.classes) == truth.shape[1] else None, reading.copied,
        )  # fmt: skip

    def _look(self, values: Array) -> None:
        """Raise InputError where the outputs are those of a detector."""
        shape = self.output.shape
        if self.view.axes is None and not self.settings.tells_kind and (shape is None or len(shape) > 2):
            refuse_values(self.file, self.view.name, values)

    def _freed(self, as_file: Opened) -> tuple[OnnxForward, onnx.ModelProto, int | None]:
        """What runs with any number of rows, where a copy of the file does, and how many it insists on else."""
        proto, fixed = self.file.proto, as_file.fixed
        if fixed is None:
            return as_file.forward, proto, None
        rows = telling_rows(as_file.few, fixed)
        of = np.resize(as_file.of, len(rows))
        own = as_file.forward.outputs(rows, of)
        for copy in freed_copies(proto, fixed, self.into.name, self.shape, base_dir=self.file.path.parent):
            found = self._reproducing(copy, as_file.axes, rows, of, own)
            if found is not None:
                self.rewritten.append(f"batch axis freed (the file {as_file.insists})")
                return found, copy, None
        if as_file.hidden:
            self.rewritten.append(f"nothing: called with {fixed} at a time, for the file {as_file.insists}")
        return as_file.forward, proto, fixed

    def _reproducing(self, copy: onnx.ModelProto, axes: OutputAxes, few: Array, of: Array, truth: Array) -> OnnxForward | None:
        """The copy's forward where it gives the file's own outputs, else None; ``of`` are the positions of the rows' samples."""
        try:
            made = self.opened(copy.SerializeToString(), self.output.name, None, axes)
            given, made.finder.batch = made.finder.batch, len(few)  # all at once: a mixed-up batch axis would show
            got = made.outputs(few, of)
            made.finder.batch = given
        except OnnxFimError:
            return None
        scale = float(np.abs(truth).max(initial=0.0)) or 1.0
        return made if got.shape == truth.shape and np.allclose(got, truth, rtol=0, atol=self.slack * scale) else None

    def _tries(
        self, kind: OutputReader, truth: Array, proto: onnx.ModelProto, source: onnx.ModelProto, own: _OutputReading,
        as_file: Opened, *, flat: bool,
    ) -> Iterator[_Try]:  # fmt: skip
        """Copies that may be read in place of the outputs, the best first; ``flat`` where the outputs have no slope."""
        file, end, out = self.file, self.view.end, self.output.name
        before, inside = kind.before_activation(), _inner_axes(end, own.axes)
        if before is not None and end.logits is not None and inside is not None and (element := value_type(file, end.logits)):
            at = f"the logits before node {end.node!r}"
            copy = read_from(proto, end.logits, element)
            yield _Try(
                copy, end.logits, before, inside, source, f"one more output, {at}", f"differentiated at {at}", end.rounding,
                copied=False,
            )  # fmt: skip
        if before is not None and not flat:
            found = [in_logarithms(m, out, odds=kind.independent, base_dir=file.path.parent) for m in (proto, source)]
            if found[0] is not None and found[1] is not None:
                what = "one more output, the logarithm of the probabilities up to one number a sample, from the scores"
                how = "differentiated at their logarithm, written out from the scores"
                yield _Try(*found[0], before, own.axes, found[1][0], what, how)
        by_log = kind.of_logarithm(truth)
        if by_log is not None and not flat and self._has_derivative(own, as_file):
            copy, name = read_logarithm(proto, out)
            what, how = "one more output, the logarithm of the probabilities", "differentiated at their logarithm"
            yield _Try(copy, name, by_log, own.axes, read_logarithm(source, out)[0], what, how, logarithm=True)

    def _read(self, attempt: _Try, as_file: Opened, p: Array, fixed: int | None) -> _OutputReading | None:
        """The reading of a copy whose probabilities are p (n, K, P) as the file gives them, else None."""
        try:
            made = self.opened(attempt.model.SerializeToString(), attempt.value, fixed, attempt.axes)
            again = attempt.reader.probabilities(made.outputs(as_file.few, as_file.of))
        except OnnxFimError:
            return None
        tolerance = max(self.slack, _LEVELS * attempt.rounding)
        if again.shape != p.shape or not np.allclose(again, p, rtol=0, atol=tolerance):
            return None
        return _OutputReading(made, attempt.reader, attempt.value, attempt.axes, attempt.source, attempt.logarithm, attempt.copied)

    def _as_rows(
        self, proto: onnx.ModelProto, value: str, forward: OnnxForward, axes: OutputAxes, as_file: Opened
    ) -> tuple[onnx.ModelProto, str]:
        """A graph and its value whose flat rows are the forward's outputs (N, K, P): a copy that moves axes which lie otherwise.

        The test of the derivative holds its outputs against the file's own.
        """
        one, of = as_file.few[:1], as_file.of[:1]
        if axes.batch == 0 and (axes.classes == 1 or forward.outputs(one, of).shape[2] == 1):
            return proto, value
        return classes_first(proto, value, forward.raw(one, of).ndim, batch=axes.batch, classes=axes.classes)

    def _has_derivative(self, own: _OutputReading, as_file: Opened) -> bool:
        """Whether gradients may be used and the output can be differentiated as it stands."""
        if self.settings.method not in ("auto", "gradient") or _rounds(self.file):
            return False
        logarithm, name = read_logarithm(self.file.proto, self.output.name)
        logarithm, name = self._as_rows(logarithm, name, own.forward, own.axes, as_file)
        try:
            derivative_graph(
                logarithm, input_name=self.into.name, output_name=name, kind="vjp", sample_shape=self.shape,
                base_dir=self.file.path.parent,
            )  # fmt: skip
        except OnnxFimError:
            return False
        return True


def _inner_axes(end: Ending, axes: OutputAxes) -> OutputAxes | None:
    """Where the output's axes lie in the value before its activation; None where a reshape lost them."""
    if end.axes is None:
        return axes
    if max(axes.classes, axes.batch) >= len(end.axes):
        return None
    classes, batch = end.axes[axes.classes], end.axes[axes.batch]
    return None if classes is None or batch is None else OutputAxes(classes, batch, axes.how)


def _rounds(file: ModelFile) -> bool:
    """Whether the file computes in less than float32 somewhere: the logarithm of rounded probabilities is noise."""
    rounding = ("Quantize" in n.op or n.op.endswith("Integer") or n.op.startswith("QLinear") for n in file.graph.nodes)
    return any(rounding) or computes_in_half(file.proto)


__all__ = ["open_subject"]
