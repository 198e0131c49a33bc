"""The network that a verifier is given in a model's place: a copy for one row that ends in the scores, proved against the file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.reproducing import SAME, SAME_IN_HALF
from onnxfim.auditing.subject import Subject
from onnxfim.errors import ModelError, OnnxFimError
from onnxfim.graph.alone import copies_alone, with_output_shape
from onnxfim.graph.ends import ending
from onnxfim.graph.load import ModelFile, fixed_batch
from onnxfim.graph.quantised import computes_in_half, rounding_operators
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.providers import CPU
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

_FEW = 8  # samples at which the copy is held against the file
_LEVELS = 2  # of outputs that are quantised behind their activation
_ACTIVATIONS = {"probabilities": "Softmax", "logits": "LogSoftmax", "sigmoid": "Sigmoid"}
_OTHER_PROVIDER = 2e-2  # relative to the outputs' size: what those of a provider that rounds more may differ by
_TYPES = {"float32": "float32", "float64": "float64", "float16": "float16", "float": "float32", "double": "float64"}


@dataclass(frozen=True)
class VerifiedNetwork:
    """A network for verifiers.

    Attributes:
        model: The copy: one input of one row, one output of scores.
        forward: Runs it on the CPU.
        sha256: Of its bytes.
        shape: Of a sample.
        output_shape: Of its output.
        outputs: Numbers in it.
        threshold: Where it gives one number: the second of two classes is predicted above this.
        dtype: Type of its numbers, as VNN-LIB 2 calls it.
        how: What of the file was changed, in words.
        rounds: Whether it quantises inside, which few verifiers read.
    """

    model: onnx.ModelProto
    forward: OnnxForward
    sha256: str
    shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    outputs: int
    threshold: float
    dtype: str
    how: tuple[str, ...]
    rounds: bool

    def scores(self, rows: Array) -> Array:
        """Its outputs at rows (n, *shape), (n, K), in float64."""
        return np.stack([self.forward.raw(row[None]).ravel() for row in rows]).astype(np.float64)

    def predictions(self, scores: Array) -> Array:
        """The classes of scores (n, K), (n,)."""
        if self.outputs == 1:
            return np.asarray(scores[:, 0] > self.threshold).astype(np.int64)
        return np.asarray(scores.argmax(axis=1))


def why_unverifiable(subject: Subject) -> str | None:
    """Why there is nothing that a verifier could be asked about this model, in words; None where there is."""
    info = subject.info
    if subject.file is None:
        return "the model is no file, and a verifier reads files"
    if not subject.kind.has_classes:
        return f"outputs of kind {info.output_kind} predict no class"
    if info.positions != 1:
        return "the output has several positions, each with a prediction of its own"
    if subject.file.placed:
        return "other inputs are held at values of each sample's own, and a verifier's network has one input"
    if not info.input_dtype.startswith("float"):
        return f"the input takes {info.input_dtype}, and a box holds real numbers"
    return None


def network_of(subject: Subject, X: Array) -> VerifiedNetwork:
    """The network of an opened model, for samples X (N, *shape).

    Raises:
        ModelError: it has none, or no copy gives what the file gives.
    """
    file = subject.file
    if (why := why_unverifiable(subject)) is not None or file is None:
        raise ModelError(f"{subject.info.name}: cannot be given to a verifier: {why}.")
    few = X[:_FEW]
    end = ending(file.graph, subject.output)
    ends: list[tuple[str, OutputReader, str]] = [(subject.output, subject.kind, "")]
    if end.logits is not None:
        before = subject.kind.before_activation() or subject.kind
        ends.insert(0, (end.logits, before, f"cut before its last {_ACTIVATIONS[end.kind]}, which changes no order"))
    for value, reader, how in ends:
        if (found := _proved(subject, file, value, reader, few, how, end.rounding)) is not None:
            return found
    raise ModelError(f"{subject.info.name}: cannot be given to a verifier: no copy for one row gives what the file gives.")


def _proved(
    subject: Subject, file: ModelFile, value: str, reader: OutputReader, few: Array, how: str, rounding: float
) -> VerifiedNetwork | None:
    """The first copy that ends in ``value`` and tells the file's own probabilities at some samples."""
    truth = _probabilities(subject.forward.outputs(few, np.arange(len(few))), subject.reader)
    into = (
        file.graph.inputs[0] if len(file.graph.inputs) == 1 else next(i for i in file.graph.inputs if i.name == subject.info.input)
    )
    shape = tuple(int(n) for n in few.shape[1:])
    on_cpu = getattr(getattr(subject.forward, "report", None), "obtained", "") == CPU
    slack = (SAME_IN_HALF if computes_in_half(file.proto) else 10 * SAME) if on_cpu else _OTHER_PROVIDER
    slack = max(slack, _LEVELS * rounding)
    for copy, told in copies_alone(
        file.proto, into.name, value, shape, fixed=fixed_batch(into), base_dir=file.path.parent.resolve()
    ):
        try:
            forward = OnnxForward(
                copy.SerializeToString(), input_name=into.name, output_name=value, shape=shape, dtype=np.dtype(into.dtype), fixed=1,
                hardware=Hardware((CPU,)), base_dir=file.path.parent.resolve(),
            )  # fmt: skip
            raw = [forward.raw(row[None]) for row in few]
        except (OnnxFimError, ValueError):
            continue
        scores = np.stack([z.ravel() for z in raw]).astype(np.float64)[:, :, None]  # (n, K, 1)
        if scores.shape[1] != truth.shape[1] or not np.allclose(_probabilities(scores, reader), truth, rtol=0, atol=slack):
            continue
        whole = with_output_shape(copy, raw[0].shape)
        changes = (how, told, "one row a call" if fixed_batch(into) != 1 else "")
        return VerifiedNetwork(
            whole, forward, hashlib.sha256(whole.SerializeToString(deterministic=True)).hexdigest(), shape, raw[0].shape,
            scores.shape[1], 0.0 if reader.reads_logits else 0.5, _TYPES.get(into.dtype, "float32"),
            tuple(c for c in changes if c), rounds=bool(rounding_operators(whole)),
        )  # fmt: skip
    return None


def _probabilities(outputs: Array, reader: OutputReader) -> Array:
    return reader.probabilities(outputs.astype(np.float64))
