"""Small rewrites of a copy of the model: free a fixed batch axis, read a tensor from inside, move its axes.

No copy is used before it has reproduced the file's own outputs; the opening of a subject sees to that.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxfim.graph.graph import Graph


def free_batch(model: onnx.ModelProto, batch: int, *, constants: bool = True) -> onnx.ModelProto:
    """A copy whose inputs and outputs have a symbolic first dimension in place of ``batch``.

    With ``constants``, those that repeat the old batch as the leading entry of a Reshape's target are freed too, and recurrent
    nodes begin at zero by themselves where the file holds zeros for each row of the batch.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {t.name for t in graph.initializer}
    for value in (*(i for i in graph.input if i.name not in weights), *graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value == batch:
            dims[0].ClearField("dim_value")
            dims[0].dim_param = "batch"
    del graph.value_info[:]
    known = Graph(model)
    for node in graph.node if constants else ():
        if node.op_type in ("LSTM", "GRU", "RNN"):
            _begin_at_zero(node, known)
        if node.op_type == "Reshape" and len(node.input) > 1:
            target = known.constant(node.input[1])
            if target is not None and target.ndim == 1 and target.size > 1 and target[0] == batch:
                freed = target.astype(np.int64)
                # 0 copies the input's own first dimension; after -1 elsewhere there is no other way to leave it open.
                freed[0] = 0 if (freed[1:] == -1).any() else -1
                name = f"{node.input[1]}__batch_free_{node.output[0]}"
                graph.initializer.append(numpy_helper.from_array(freed, name))
                node.input[1] = name
    return copy


def _begin_at_zero(node: onnx.NodeProto, constants: Graph) -> None:
    """Leave out initial states that are zero."""
    for place in range(5, min(7, len(node.input))):
        state = constants.constant(node.input[place]) if node.input[place] else None
        if state is not None and not state.any():
            node.input[place] = ""


def read_from(model: onnx.ModelProto, tensor: str, element_type: int) -> onnx.ModelProto:
    """A copy whose first output is the inner value ``tensor``; the file's own outputs follow."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.insert(0, helper.make_tensor_value_info(tensor, element_type, None))
    return copy


def classes_first(model: onnx.ModelProto, tensor: str, rank: int, *, batch: int, classes: int) -> tuple[onnx.ModelProto, str]:
    """A copy that moves the axes of the value ``tensor``, the batch's first and the classes' second, and that value's name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    moved = f"{tensor}__classes_first"
    perm = [batch, classes, *(k for k in range(rank) if k not in (batch, classes))]
    copy.graph.node.append(helper.make_node("Transpose", [tensor], [moved], name=moved, perm=perm))
    return copy, moved


def read_logarithm(model: onnx.ModelProto, tensor: str) -> tuple[onnx.ModelProto, str]:
    """A copy whose first output is the logarithm of the value ``tensor``, in float32 or wider, and that output's name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    least, kept, log = (f"{tensor}__{word}" for word in ("least", "kept", "log"))
    dtype = next((o.type.tensor_type.elem_type for o in model.graph.output if o.name == tensor), TensorProto.FLOAT)
    tiny = np.array(np.finfo(helper.tensor_dtype_to_np_dtype(dtype)).tiny, helper.tensor_dtype_to_np_dtype(dtype))
    copy.graph.initializer.append(numpy_helper.from_array(tiny, least))
    copy.graph.node.append(helper.make_node("Max", [tensor, least], [kept], name=kept))  # a probability of zero has no logarithm
    copy.graph.node.append(helper.make_node("Log", [kept], [log], name=log))
    copy.graph.output.insert(0, helper.make_tensor_value_info(log, dtype, None))
    return copy, log
