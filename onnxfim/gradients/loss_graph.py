"""The gradient of a loss as a graph: the derivative graph with its cotangent computed inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper


def loss_gradient_graph(vjp: onnx.ModelProto) -> onnx.ModelProto:
    """The vjp graph with its cotangent computed inside: the softmax over some classes less the target, a loss's gradient by z.

    With the target set aside it is the gradient of the cross-entropy divided by ``1 − p_y``: the same direction, which does not
    underflow on samples that the model is sure of. Inputs ``x``, ``target`` (N, K), one-hot, and ``aside`` (N, K), 1 for classes
    left out of the softmax; outputs ``z`` and ``g`` (1, N, *shape). With one output the target is the class, there is no
    ``aside``, and the cotangent is ±1.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(vjp)
    graph = copy.graph
    z = next(n.input[0] for n in graph.node if "z" in n.output)
    cotangent = next(i for i in graph.input if i.name == "u")
    element = cotangent.type.tensor_type.elem_type
    classes = cotangent.type.tensor_type.shape.dim[-1].dim_value
    graph.input.remove(cotangent)
    graph.input.append(helper.make_tensor_value_info("target", element, ["N", classes]))
    dtype = helper.tensor_dtype_to_np_dtype(element)
    weights = {"loss/axes": np.array([0]), "loss/one": np.array([1], dtype), "loss/two": np.array([2], dtype)}
    # Large enough to take a class out of the softmax, small enough for the type.
    weights["loss/out"] = np.array([min(1e30, float(np.finfo(dtype).max) / 2)], dtype)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    if classes == 1:
        added = [
            helper.make_node("Mul", ["target", "loss/two"], ["loss/twice"], name="loss/twice"),
            helper.make_node("Sub", ["loss/one", "loss/twice"], ["loss/c"], name="loss/sub"),
        ]
    else:
        graph.input.append(helper.make_tensor_value_info("aside", element, ["N", classes]))
        added = [
            helper.make_node("Mul", ["aside", "loss/out"], ["loss/mask"], name="loss/mask"),
            helper.make_node("Sub", [z, "loss/mask"], ["loss/others"], name="loss/others"),
            helper.make_node("Softmax", ["loss/others"], ["loss/q"], name="loss/softmax", axis=-1),
            helper.make_node("Sub", ["loss/q", "target"], ["loss/c"], name="loss/sub"),
        ]
    added.append(helper.make_node("Unsqueeze", ["loss/c", "loss/axes"], ["u"], name="loss/u"))
    nodes = list(graph.node)
    reads = next(i for i, n in enumerate(nodes) if "u" in n.input)
    written = next(i for i, n in enumerate(nodes) if z in n.output)
    at = written + 1
    if reads <= written:  # what reads the cotangent stands before the logits are known: move it behind
        nodes = _sorted([*nodes, *added], graph)
    else:
        nodes[at:at] = added
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def _sorted(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes in topological order, stable."""
    known = {"", *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
    waiting, order = list(nodes), []
    while waiting:
        ready = [n for n in waiting if all(i in known for i in n.input)]
        if not ready:
            break
        order += ready
        known.update(o for n in ready for o in n.output)
        taken = set(map(id, ready))
        waiting = [n for n in waiting if id(n) not in taken]
    return order + waiting
