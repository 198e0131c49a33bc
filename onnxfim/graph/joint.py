"""Joins several inputs of a copy of the model into one vector, so that they are perturbed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: The input that holds all that is perturbed, (N, d): the samples of each input, flat, end to end.
JOINT = "onnxfim/joint"
_SPLIT = "joined inputs"  # what the node is called that bounds list
_SPLIT_INPUT = 13  # the operator set from which on Split takes its lengths as an input


@dataclass(frozen=True)
class JoinedInput:
    """An input that is joined: its name, the shape of one sample, its element type."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Numbers of a sample."""
        return int(np.prod(self.shape))


def joint_type(parts: Sequence[JoinedInput]) -> np.dtype[Any]:
    """The element type that holds the values of all."""
    return np.result_type(*(p.dtype for p in parts))


def joined_rows(rows: Sequence[np.ndarray[Any, Any]], parts: Sequence[JoinedInput]) -> np.ndarray[Any, Any]:
    """The vectors (N, d) of samples whose inputs are these rows, (N, *shape) each."""
    return np.concatenate([a.reshape(len(a), -1).astype(joint_type(parts), copy=False) for a in rows], axis=1)


def join(model: onnx.ModelProto, parts: Sequence[JoinedInput]) -> onnx.ModelProto:
    """A copy in which these inputs, whose batch is their first axis, are parts of `JOINT`.

    Args:
        model: The model; it is not changed.
        parts: The inputs, in the order of the vector.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    names = [p.name for p in parts]
    dtype = joint_type(parts)
    first = next(i for i in graph.input if i.name == names[0])
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), _SPLIT_INPUT)
    into = helper.make_tensor_value_info(JOINT, helper.np_dtype_to_tensor_dtype(dtype), [None, sum(p.size for p in parts)])
    into.type.tensor_type.shape.dim[0].CopyFrom(first.type.tensor_type.shape.dim[0])
    tensors: list[onnx.TensorProto] = []

    def constant(name: str, value: Sequence[int]) -> str:
        tensors.append(numpy_helper.from_array(np.array(value, np.int64), name))
        return name

    sizes, flat = [p.size for p in parts], [f"{name}/flat" for name in names]
    if opset >= _SPLIT_INPUT:
        split = helper.make_node("Split", [JOINT, constant(f"{JOINT}/sizes", sizes)], flat, name=_SPLIT, axis=1)
    else:
        split = helper.make_node("Split", [JOINT], flat, name=_SPLIT, axis=1, split=sizes)
    nodes = [split]
    for part, rows in zip(parts, flat, strict=True):
        shaped = part.name if part.dtype == dtype else f"{part.name}/shaped"
        nodes.append(helper.make_node("Reshape", [rows, constant(f"{part.name}/shape", [0, *part.shape])], [shaped], name=shaped))
        if shaped != part.name:
            to: int = helper.np_dtype_to_tensor_dtype(part.dtype)
            nodes.append(helper.make_node("Cast", [shaped], [part.name], name=part.name, to=to))
    nodes += graph.node
    kept = [i for i in graph.input if i.name not in names]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend([into, *kept])
    graph.initializer.extend(tensors)
    return copy


__all__ = ["JOINT", "JoinedInput", "join", "joined_rows", "joint_type"]
