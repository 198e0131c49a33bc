"""What is audited: a file or a function, opened; how to call it, how to read it, what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx

from onnxfim.errors import InputError
from onnxfim.graph.load import (  # fmt: skip
    ModelFile,
)
from onnxfim.record.audit import ModelInfo
from onnxfim.record.settings import Settings
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware, InputProfile
from onnxfim.runtime.turns import WeightTurns
from onnxfim.slopes.kinds import OutputReader

if TYPE_CHECKING:  # few audits ask over a wire
    from onnxfim.served.asked_rows import ServedForward
    from onnxfim.served.endpoint import Endpoint

Array: TypeAlias = np.ndarray[Any, Any]

_LEVELS = 2  # of the output: the runtime makes one integer operator of a softmax between quantisers, off by up to 1.5 (measured)


@dataclass(frozen=True)
class CallableModel:
    """A classifier that is not a file; made by `from_callable` or `from_url`.

    Sizes and a number of outputs of None are those that the data have, and that are answered; ``endpoint`` is how a model is
    reached that answers over a wire.
    """

    fn: Callable[[Array], Array]
    input_shape: tuple[int | None, ...]
    num_outputs: int | None
    name: str
    dtype: str = "float32"
    endpoint: Endpoint | None = None


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
    their logarithm; ``read`` is the name of that value, and ``output`` that of the graph's output whose kind this is. ``of_copy``
    is set where it is no value of the file, but one that its copy computes beside: the logarithm written out from the scores, or
    (``of_logarithm``) that of the rounded outputs. ``file`` holds the graph that runs: the file's own, or that of a copy which
    reproduced it. ``classes`` are the names that the graph gives its classes. ``unit`` is what all outputs are
    multiples of, where they were rounded to digits, else 0. ``level`` is the spacing of the input levels of a
    file that quantises its input first, ``limits`` the range outside which it clips them. ``doubt`` is what speaks against the kind
    it was read with. ``differentiable`` is None, and ``no_gradient`` says why, where there are no logits of a graph to
    differentiate.
    """

    info: ModelInfo
    forward: OnnxForward | CallableForward | ServedForward
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
    output: str = "output"
    classes: tuple[str, ...] | None = None
    of_copy: bool = False
    unit: float = 0.0

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

    Examples:
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


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    """Raise InputError where samples of ``shape`` do not fit an input that takes ``expected`` (None is free)."""
    if len(shape) != len(expected) or any(e is not None and e != s for s, e in zip(shape, expected, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in expected)
        raise InputError(
            f"data: samples have shape {shape}, but input {name!r} takes ({wanted}). "
            f"Pass an array of shape (N, {wanted}), or --layout if only the axes are in another order."
        )
