"""Loads, checks and describes a classifier file."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message

from onnxfim.errors import InputError, ModelError
from onnxfim.graph import Dimension, Graph, Node, TensorInfo

Array: TypeAlias = np.ndarray[Any, Any]

# Operators between the last arithmetic and the output that change no value.
_TRANSPARENT = frozenset({"Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout"})
_QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_MAX_FILE = 2**31  # protobuf's own limit; larger models keep their weights in external data


@dataclass(frozen=True)
class Normalisation:
    """An affine map of the input found in the graph's first nodes: ``(x − mean) / std`` per channel, in graph order ``nodes``."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """What the graph does last: ``kind`` of the outputs, the node that decides it, and the value before it."""

    kind: str
    node: str | None
    logits: str | None
    class_axis: int | None = None


@dataclass(frozen=True)
class ModelFile:
    """A model file as read: its bytes' hash, the parsed model (not to be changed) and its graph."""

    path: Path
    sha256: str
    bytes: int
    proto: onnx.ModelProto
    graph: Graph

    @property
    def producer(self) -> str:
        return f"{self.proto.producer_name} {self.proto.producer_version}".strip()


def load_model(path: str | os.PathLike[str]) -> ModelFile:
    """Read and check an ONNX file.

    Raises:
        ModelError: missing, not a file, not ONNX, truncated, or a broken graph.
    """
    where = Path(path)
    if not where.exists():
        raise ModelError(f"{where}: no such file. Give the path of an ONNX model.")
    if not where.is_file():
        raise ModelError(f"{where}: is not a file. Give the path of an ONNX model.")
    size = where.stat().st_size
    if size == 0:
        raise ModelError(f"{where}: the file is empty, expected an ONNX model. Export it again.")
    if size >= _MAX_FILE:
        raise ModelError(f"{where}: {size:,} bytes, more than protobuf's 2 GiB. Save the weights as external data.")
    try:
        content = where.read_bytes()
    except OSError as error:
        raise ModelError(f"{where}: cannot be read ({error.strerror}). Check its permissions.") from error
    try:
        proto = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{where}: is not ONNX, or is truncated (protobuf cannot parse it). Export it again.") from error
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{where}: holds no ONNX graph (no nodes or no opset). Give a complete ONNX model.")
    digest = hashlib.sha256(content)
    for external in _external_files(where, proto):
        if os.path.isfile(external):
            digest.update(external.read_bytes())
            size += external.stat().st_size
    try:
        graph = Graph(proto, base_dir=where.parent)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    return ModelFile(where, digest.hexdigest(), size, proto, graph)


def _external_files(where: Path, proto: onnx.ModelProto) -> Iterator[Path]:
    """The files that hold weights, sorted; none of them may lie outside the model's folder (old runtimes follow links there).

    Where the model itself is a link, as in a cache of downloads, the folder of the file that it names counts too.
    """
    tensors = [t for t in _stored(proto) if t.data_location == onnx.TensorProto.EXTERNAL]
    folders = (where.parent.resolve(), where.resolve().parent)
    for location in sorted({e.value for t in tensors for e in t.external_data if e.key == "location"}):
        try:
            external = (where.parent / location).resolve()
        except (OSError, ValueError, RuntimeError):  # a zero byte, a ring of links
            external = None
        if external is None or not any(external.is_relative_to(folder) for folder in folders):
            raise ModelError(
                f"{where}: weights are in {location!r}, outside the model's folder, expected beside the model. Move them there."
            )
        yield external


def _stored(message: Message) -> Iterator[onnx.TensorProto]:
    """All tensors that a model holds: initializers and attributes, in subgraphs and functions too."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for part in value if isinstance(value, Iterable) else (value,):
            if isinstance(part, onnx.TensorProto):
                yield part
            else:
                yield from _stored(part)


def choose_input(file: ModelFile, name: str | None) -> TensorInfo:
    """The input to audit: the named one, or the only one.

    Raises:
        InputError: an unknown name, several inputs and no name, or an input that is not floating point.
    """
    inputs = file.graph.inputs
    chosen = _pick(file, inputs, name, "input")
    if not chosen.dtype.startswith("float"):
        raise InputError(
            f"{file.path}: input {chosen.name!r} takes {chosen.dtype}, expected floating point, for a change of the input must be "
            "able to be small. Audit from the first floating-point value: export the model without its integer front end."
        )
    others = [i.name for i in inputs if i.name != chosen.name]
    if others:
        raise InputError(
            f"{file.path}: besides {chosen.name!r} the model needs {', '.join(map(repr, others))}, expected one input. "
            "Export a model in which the other inputs are constants."
        )
    if chosen.shape is None:
        raise InputError(f"{file.path}: input {chosen.name!r} has no shape. Export the model with a known input rank.")
    if len(chosen.shape) < 2:
        raise InputError(
            f"{file.path}: input {chosen.name!r} has shape {chosen.shape}, expected a batch axis and at least one more."
        )
    return chosen


def choose_output(file: ModelFile, name: str | None) -> TensorInfo:
    """The output to audit: the named one, or the first floating-point one (scikit-learn exports put integer labels first).

    Raises:
        InputError: an unknown name, or no floating-point tensor among the outputs.
    """
    outputs = file.graph.outputs
    if name is not None:
        return _pick(file, outputs, name, "output")
    floats = [o for o in outputs if o.dtype.startswith("float")]
    if not floats:
        found = ", ".join(f"{o.name!r} ({o.dtype})" for o in outputs)
        raise InputError(
            f"{file.path}: no output is a floating-point tensor (found {found}). Export scores, logits or probabilities; "
            "with skl2onnx use options={'zipmap': False}."
        )
    return floats[0]


def _pick(file: ModelFile, values: Sequence[TensorInfo], name: str | None, what: str) -> TensorInfo:
    names = [v.name for v in values]
    if name is None:
        floats = [v for v in values if v.dtype.startswith("float")]
        if len(floats) == 1:
            return floats[0]
        if len(values) == 1:
            return values[0]
        raise InputError(f"{file.path}: {len(values)} {what}s ({', '.join(names)}), expected one. Name it with --{what}.")
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Use one of: {', '.join(names)}."
        raise InputError(f"{file.path}: no {what} is called {name!r}. {hint}")
    return next(v for v in values if v.name == name)


def sample_shape(info: TensorInfo) -> tuple[int | None, ...]:
    """Shape of one sample, with None for a free dimension."""
    return tuple(n if isinstance(n, int) else None for n in (info.shape or ())[1:])


def fixed_batch(info: TensorInfo) -> int | None:
    """The batch size that the file insists on, or None."""
    first: Dimension = (info.shape or (None,))[0]
    return first if isinstance(first, int) else None


def ending(graph: Graph, output: str) -> Ending:
    """What kind of output the graph's last nodes make, as far as they say it.

    A Softmax or Sigmoid directly before the output (through casts, reshapes and quantisation) makes probabilities; the value
    before it holds the logits. Log-probabilities are logits: a constant added to all of them changes nothing.
    """
    name = output
    while (node := graph.producers.get(name)) is not None:
        axis = node.attributes.get("axis", -1 if graph.opsets.get("ai.onnx", 0) >= 13 else 1)
        if node.op in ("Softmax", "LogSoftmax"):
            kind = "probabilities" if node.op == "Softmax" else "logits"
            return Ending(kind, node.label, node.inputs[0], int(axis) if isinstance(axis, int) else None)
        if node.op == "Sigmoid":
            return Ending("sigmoid", node.label, node.inputs[0])
        if node.op not in _TRANSPARENT | _QUANTISING:
            break
        name = node.inputs[0]
    return Ending("logits", None, None)


def value_type(file: ModelFile, tensor: str) -> int | None:
    """ONNX element type of an inner value, by shape inference."""
    try:
        inferred = onnx.shape_inference.infer_shapes(file.proto)
    except Exception:  # noqa: BLE001 - inference is a convenience: without it the value is simply not read
        return None
    for v in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input):
        if v.name == tensor:
            return int(v.type.tensor_type.elem_type)
    return None


def normalisation(graph: Graph, input_name: str) -> Normalisation | None:
    """The affine map per channel in the graph's first nodes (Sub, Add, Mul, Div with constants), or None."""
    scale, shift = np.ones(1), np.zeros(1)
    nodes: list[str] = []
    name = input_name
    while True:
        readers = graph.consumers.get(name, ())
        if len(readers) != 1:
            break
        step = _affine_step(graph, readers[0], name)
        if step is None:
            if readers[0].op in ("Cast", "Identity"):
                name = readers[0].outputs[0]
                continue
            break
        a, b = step
        scale, shift = a * scale, a * shift + b
        nodes.append(readers[0].label)
        name = readers[0].outputs[0]
    if not nodes or not np.all(scale != 0) or not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    std = 1.0 / np.broadcast_to(scale, np.broadcast_shapes(scale.shape, shift.shape))
    mean = -shift * std
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)), tuple(nodes))


def _affine_step(graph: Graph, node: Node, name: str) -> tuple[Array, Array] | None:
    """(a, b) of ``a·x + b`` per channel where ``node`` is one, else None."""
    if node.op not in ("Sub", "Add", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first = node.inputs[0] == name
    constant = graph.constant(node.inputs[1 if first else 0])
    if constant is None or constant.size > 4096 or sum(n > 1 for n in constant.shape) > 1 or constant.dtype.kind != "f":
        return None
    c = constant.astype(np.float64).ravel()
    one, zero = np.ones_like(c), np.zeros_like(c)
    if node.op == "Add":
        return one, c
    if node.op == "Mul":
        return c, zero
    if node.op == "Sub":
        return (one, -c) if first else (-one, c)
    return (1.0 / c, zero) if first and np.all(c != 0) else None


def input_level(graph: Graph, input_name: str) -> float | None:
    """Spacing of the input levels where the graph quantises its input first, else None."""
    found = _input_quantiser(graph, input_name)
    return None if found is None else found[1]


def input_limits(graph: Graph, input_name: str) -> tuple[float, float] | None:
    """Smallest and largest input that the graph's first QuantizeLinear tells apart (it clips beyond them), else None."""
    found = _input_quantiser(graph, input_name)
    if found is None:
        return None
    node, scale = found
    zero = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(1, np.uint8)
    if zero is None or zero.size != 1 or zero.dtype.kind not in "iu":
        return None
    levels = np.iinfo(zero.dtype)
    offset = int(zero.ravel()[0])
    return (levels.min - offset) * scale, (levels.max - offset) * scale


def _input_quantiser(graph: Graph, input_name: str) -> tuple[Node, float] | None:
    """The QuantizeLinear that reads the input, with its scale, where it has one for all values."""
    for node in graph.consumers.get(input_name, ()):
        if node.op == "QuantizeLinear":
            scale = graph.constant(node.inputs[1])
            if scale is not None and scale.size == 1:
                return node, float(scale.ravel()[0])
    return None
