"""Which of a file's inputs is perturbed, and what becomes of the others where nothing is said."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfim.errors import InputError
from onnxfim.graph.choosing_heads import choose_heads
from onnxfim.graph.graph import TensorInfo
from onnxfim.graph.held import POSITION, Role, reaching
from onnxfim.graph.inner import token_input
from onnxfim.graph.joint import JOINT
from onnxfim.graph.load import ModelFile
from onnxfim.graph.output_axes import input_batch_axis

#: Types of inputs that ONNX Runtime's Python cannot be given.
_NOT_FED = frozenset({"bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"})


def values_behind(file: ModelFile, output: str | None) -> frozenset[str]:
    """Names of all values that the audited outputs are made of, inputs among them.

    Raises:
        InputError: as `choose_heads`.
    """
    names = [name for head in choose_heads(file, output) for name in head.outputs]
    return frozenset().union(*(reaching(file.graph, name) for name in names))


def choose_input(file: ModelFile, name: str | Sequence[str] | None, output: str | None = None) -> TensorInfo:
    """The input to perturb: the named one, the first of several, or the only floating-point one that reaches the output.

    One of whole numbers is audited at a float value behind it; of a copy that begins at such a value, it is that value.

    Raises:
        InputError: an unknown name, several inputs and no name, or an input that holds no numbers.
    """
    if file.at is not None:
        return file.graph.inputs[0]
    inputs = [i for i in file.graph.inputs if i.name != POSITION]
    if (joint := next((i for i in inputs if i.name == JOINT), None)) is not None:
        return joint
    if not isinstance(name, str):
        name = next(iter(name or ()), None)
    if name is None and len(inputs) > 1:
        there = values_behind(file, output)
        inputs = [i for i in inputs if i.name in there] or inputs
        floats = [i for i in inputs if i.dtype.startswith("float")]
        if len(floats) > 1:
            raise InputError(_which_input(file, floats))
    chosen = _pick(file, inputs, name)
    if chosen.dtype in _NOT_FED:
        raise InputError(
            f"{file.path}: input {chosen.name!r} takes {chosen.dtype}, expected float16, float32 or float64, for ONNX Runtime's "
            "Python takes no other floats. Put a Cast from float32 before it, which changes no answer."
        )
    if not chosen.dtype.startswith(("float", "int", "uint")):
        raise InputError(
            f"{file.path}: input {chosen.name!r} takes {chosen.dtype}, expected numbers, for a change of the input must be able to "
            "be small. Export the model with a float input in its place."
        )
    if chosen.shape is None:
        raise InputError(f"{file.path}: input {chosen.name!r} has no shape. Export the model with a known input rank.")
    if len(chosen.shape) < 2 and chosen.dtype.startswith("float"):
        raise InputError(
            f"{file.path}: input {chosen.name!r} has shape {chosen.shape}, expected a batch axis and at least one more."
        )
    return chosen


def batch_first(file: ModelFile, input_name: str) -> None:
    """Raise InputError where an input's batch is not its first axis."""
    axis, how = input_batch_axis(file.graph, input_name)
    if axis:
        others = len(file.graph.inputs) > 1
        raise InputError(
            f"{file.path}: input {input_name!r} holds its batch on axis {axis} ({how}), expected the first axis: samples are fed "
            "along it. Export the model with the batch first (batch_first=True), or with a Transpose before its first node"
            + ("; or name another input with --input, and hold this one." if others else ".")
        )


def roles_by_default(file: ModelFile) -> tuple[Role | None, ...]:
    """What becomes of each input where nothing is said; None of those among which one must be named to be perturbed."""
    inputs = file.graph.inputs
    try:
        there = values_behind(file, None)
    except InputError:
        return (None,) * len(inputs)
    floats = [i.name for i in inputs if i.dtype.startswith("float") and i.name in there]

    if not floats:  # whole numbers: what is behind the tokens is perturbed
        whole = [i.name for i in inputs if i.dtype.startswith(("int", "uint")) and i.name in there]
        tokens = token_input(file.graph, None) if len(whole) > 1 else None
        floats = whole if tokens is None else [tokens.name]

    def role(name: str) -> Role | None:
        if name not in there:
            return "not read"
        return "held" if name not in floats else None if len(floats) > 1 else "perturbed"

    return tuple(role(i.name) for i in inputs)


def told(info: TensorInfo) -> str:
    """An input in words: its name, element type and shape."""
    shape = "of unknown shape" if info.shape is None else f"({', '.join('?' if d is None else str(d) for d in info.shape)})"
    return f"{info.name!r} {info.dtype} {shape}"


def _which_input(file: ModelFile, floats: Sequence[TensorInfo]) -> str:
    first, *others = (i.name for i in floats)
    feeds = " ".join(f"--feed {name}=VALUE" for name in others)
    return (
        f"{file.path}: {len(floats)} inputs can be perturbed ({', '.join(map(told, floats))}), expected one to be named. Say such "
        f"as --input {first} {feeds}; the data may also hold each sample's own values under the inputs' names."
    )


def _pick(file: ModelFile, inputs: Sequence[TensorInfo], name: str | None) -> TensorInfo:
    names = [i.name for i in inputs]
    if name is None:
        floats = [i for i in inputs if i.dtype.startswith("float")]
        if len(floats) == 1:
            return floats[0]
        if len(inputs) == 1:
            return inputs[0]
        if (tokens := token_input(file.graph, None)) is not None:
            return tokens
        raise InputError(f"{file.path}: {len(inputs)} inputs ({', '.join(names)}), expected one. Name it with --input.")
    if name not in names:
        import difflib  # for a message alone

        near = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Use one of: {', '.join(names)}."
        raise InputError(f"{file.path}: no input is called {name!r}. {hint}")
    return next(i for i in inputs if i.name == name)
