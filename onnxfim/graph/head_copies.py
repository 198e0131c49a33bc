"""Copies of a model that hold one head in a form that can be read: an inner value, a part of one, several heads side by side.

No copy is used before it has reproduced the file's own outputs; the opening of heads sees to that.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfim.graph.emitter import Emitter
from onnxfim.graph.graph import reads
from onnxfim.graph.prepare import pruned

Array: TypeAlias = np.ndarray[Any, Any]

_LEAST_OPSET = 13  # of the standard operators, where a file imports none of them
FAR_BELOW = 64.0  # nats under the mean logit: a class of probability below 2e-28, which float32 sums do not see


class Pen(Emitter):
    """Writes nodes behind those of a model; ``alone`` gives the copy that computes one value and nothing else."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        names = [v for n in graph.node for v in (*reads(n), *n.output)]
        super().__init__([*names, *(t.name for t in graph.initializer), *(i.name for i in graph.input)], prefix="head")
        self.model = model
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), _LEAST_OPSET)

    def whole(self, *numbers: int) -> str:
        """A constant of whole numbers."""
        return self.constant(np.array(numbers, np.int64))

    def reduced(self, op: str, value: str, axis: int) -> str:
        """A reduction along one axis, which stays as an axis of length one."""
        if self.opset < 18:
            return self.emit(op, value, axes=[axis], keepdims=1)
        return self.emit(op, value, self.whole(axis), keepdims=1)

    def cut(self, value: str, axis: int, start: int, stop: int | None) -> str:
        """The entries ``start`` to ``stop`` of an axis."""
        end = 2**31 - 1 if stop is None else stop
        if self.opset < 10:
            return self.emit("Slice", value, axes=[axis], starts=[start], ends=[end])
        return self.emit("Slice", value, self.whole(start), self.whole(end), self.whole(axis))

    def reshaped(self, value: str, *shape: int) -> str:
        """The value in another shape; 0 keeps a length."""
        return self.emit("Reshape", value, self.whole(*shape))

    def alone(self, value: str, kind: int) -> onnx.ModelProto:
        """A copy with the value, of that element type, as its only output, and the nodes that it needs."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        graph = copy.graph
        kept = pruned([*graph.node, *self.nodes], [value])
        kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in kept]
        del graph.node[:], graph.output[:]
        graph.node.extend(kept)
        graph.initializer.extend(self.constants)
        graph.output.append(helper.make_tensor_value_info(value, kind, None))
        if not any(o.domain in ("", "ai.onnx") for o in copy.opset_import):
            copy.opset_import.append(helper.make_opsetid("", self.opset))
        return copy


def element_type(dtype: str) -> int:
    """ONNX element type of a NumPy-style one; float32 where it is not known."""
    return TensorProto.BFLOAT16 if dtype == "bfloat16" else _known(dtype)


def _known(dtype: str) -> int:
    try:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    except (TypeError, KeyError, ValueError):
        return int(TensorProto.FLOAT)


def of_length_1(pen: Pen, value: str, dtype: str, axis: int) -> str:
    """The value divided by its length along an axis."""
    least = pen.constant(np.array(np.finfo(dtype).tiny, dtype))
    return pen.emit("Div", value, pen.emit("Add", pen.reduced("ReduceL2", value, axis), least))  # changes no length but 0


def widened(pen: Pen, logits: str, classes: int, most: int, dtype: str) -> str:
    """Logits (N, K, P) with further classes that cannot be, (N, most, P): their logits lie far below the mean of the others.

    A linear map, so that nothing else is needed to differentiate it, and of numbers no larger than the logits' own but for
    `FAR_BELOW`: what far larger ones would take from the digits of differences.
    """
    if classes == most:
        return logits
    matrix = np.concatenate([np.eye(classes), np.full((most - classes, classes), 1 / classes)]).astype(dtype)
    below = np.concatenate([np.zeros((classes, 1)), np.full((most - classes, 1), -FAR_BELOW)]).astype(dtype)
    return pen.emit("Add", pen.emit("MatMul", pen.constant(matrix), logits), pen.constant(below))


def yes_or_no(pen: Pen, logits: str, dtype: str) -> str:
    """Logits (N, K) of K independent sigmoids as K choices between two classes, (N, 2, K): no and yes."""
    signs = pen.constant(np.array([[0.0], [1.0]], dtype))
    return pen.emit("Mul", pen.reshaped(logits, 0, 1, -1), signs)
