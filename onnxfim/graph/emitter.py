"""Write ONNX nodes: one call per node, equal calls written once, constants made on the fly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

Operand: TypeAlias = "str | float | Sequence[int] | np.ndarray | None"
AttributeValue: TypeAlias = "int | float | str | Sequence[int] | onnx.TensorProto | None"


class Emitter:
    """Collects nodes and constants under names that the model does not use.

    Args:
        taken: Value names that must not be written.
        prefix: What the new names begin with.
    """

    def __init__(self, taken: Iterable[str], *, prefix: str = "d") -> None:
        self._taken = set(taken)
        self._prefix = prefix
        self._written: dict[object, tuple[str, ...]] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def fresh(self, hint: str) -> str:
        """Return a value name that is used nowhere yet."""
        name = f"{self._prefix}_{hint}_{len(self._taken)}"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def forget(self) -> None:
        """Write nodes anew from here on, even if an equal one was written before."""
        self._written = {k: v for k, v in self._written.items() if isinstance(k, tuple) and k[0] == "constant"}

    def constant(self, value: np.ndarray) -> str:
        """Return the name of an initializer with this value."""
        key = ("constant", value.dtype.str, value.shape, value.tobytes())
        if key not in self._written:
            name = self.fresh("const")
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
            self._written[key] = (name,)
        return self._written[key][0]

    def operand(self, value: Operand, dtype: np.dtype) -> str:
        """Return the name of an operand: a name itself, a float of type ``dtype``, or a sequence of int64."""
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, np.ndarray):
            return self.constant(value)
        if isinstance(value, (int, float)):
            return self.constant(np.asarray(value, dtype))
        return self.constant(np.asarray(value, np.int64).reshape(len(value)))

    def emit(self, op_type: str, *inputs: str, **attributes: AttributeValue) -> str:
        """Write a node, unless an equal one is there, and return the name of its output."""
        return self.emit_many(op_type, inputs, attributes, outputs=1)[0]

    def emit_many(
        self, op_type: str, inputs: Sequence[str], attributes: Mapping[str, AttributeValue], *, outputs: int
    ) -> tuple[str, ...]:
        """Write a node of several outputs."""
        kept = {k: v for k, v in attributes.items() if v is not None}
        key = (op_type, tuple(inputs), outputs, tuple(sorted((k, _hashable(v)) for k, v in kept.items())))
        if key not in self._written:
            names = tuple(self.fresh(op_type) for _ in range(outputs))
            self.nodes.append(helper.make_node(op_type, list(inputs), list(names), name=names[0], **kept))
            self._written[key] = names
        return self._written[key]


def _hashable(value: object) -> object:
    if isinstance(value, onnx.TensorProto):
        return value.SerializeToString()
    return tuple(value) if isinstance(value, (list, tuple)) else value
