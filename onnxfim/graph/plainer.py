"""Copies of the same function in forms that tools which know few operators read, and read right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxfim.graph.graph import Graph, Node

_MOST = 2**22  # weights of a convolution that mixes no channels; above that it is one by groups, which fewer tools read


def without_averages(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The copy with each mean over all positions of every channel as a convolution whose kernel covers them; None without any.

    Args:
        model: A model whose shapes are known, of one row; it is not changed.
    """
    graph = Graph(model)
    means = {n.index: shape for n in graph.nodes if (shape := _averaged(graph, n)) is not None}
    if not means:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = []
    for index, node in enumerate(model.graph.node):
        if index not in means:
            nodes.append(node)
            continue
        _, channels, *places = means[index]
        name, out = f"{node.output[0]}__mean", node.output[0]
        groups = 1 if channels * channels * int(np.prod(places)) <= _MOST else channels
        kernel = np.zeros((channels, channels // groups, *places), np.float32)
        at = np.arange(channels)
        kernel[at, at if groups == 1 else 0] = 1.0 / np.prod(places)
        copy.graph.initializer.append(numpy_helper.from_array(kernel, f"{name}__kernel"))
        keeps = node.op_type == "GlobalAveragePool" or next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        made = out if keeps else f"{name}__kept"
        nodes.append(
            helper.make_node("Conv", [node.input[0], f"{name}__kernel"], [made], name=name, kernel_shape=places, group=groups)
        )
        if not keeps:
            nodes.append(helper.make_node("Flatten", [made], [out], name=f"{name}__flat", axis=1))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def with_plain_convolutions(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The copy whose convolutions have no groups, and as many zeros before their input as behind it; None where all are so.

    The shorter side gets more zeros, and the kernel zeros of its own that meet them; channels that a group leaves out get zeros
    too: the function is the same. Tools are known that read one side's paddings alone and no groups, and one that meets no shape
    that does not fit then verifies another function without a word. ``auto_pad`` is written out.

    Args:
        model: A model whose weights are constants; it is not changed.
    """
    graph = Graph(model)
    found = {n.index: made for n in graph.nodes if n.op == "Conv" and (made := _plain(graph, n)) is not None}
    if not found:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for index, (kernel, pads) in found.items():
        node = copy.graph.node[index]
        name = f"{node.output[0]}__plain"
        copy.graph.initializer.append(numpy_helper.from_array(kernel, name))
        node.input[1] = name
        kept = [a for a in node.attribute if a.name not in ("pads", "auto_pad", "kernel_shape", "group")]
        del node.attribute[:]
        written = {"kernel_shape": kernel.shape[2:], "pads": [*pads, *pads]}
        node.attribute.extend([*kept, *(helper.make_attribute(*pair) for pair in written.items())])
    return copy


def _plain(graph: Graph, node: Node) -> tuple[np.ndarray, list[int]] | None:
    """The kernel of a convolution, (M, C, …), and the zeros on both sides of each axis; None where it is plain or cannot be."""
    kernel = graph.constant(node.inputs[1])
    pads = None if kernel is None else _pads(graph, node, kernel.shape[2:])
    if kernel is None or pads is None:
        return None
    before, behind = pads
    groups = int(node.attributes.get("group", 1))  # type: ignore[arg-type]
    written = str(node.attributes.get("auto_pad", "NOTSET")) == "NOTSET"
    if kernel.size * groups > _MOST or (groups == 1 and before == behind and written):
        return None
    out, each, *windows = kernel.shape
    whole = np.zeros((groups, out // groups, groups, each, *windows), kernel.dtype)
    at = np.arange(groups)
    whole[at, :, at] = kernel.reshape(groups, out // groups, each, *windows)
    grown = [(max(b - a, 0), max(a - b, 0)) for a, b in zip(before, behind, strict=True)]
    whole = whole.reshape(out, groups * each, *windows)
    return np.pad(whole, [(0, 0), (0, 0), *grown]), [max(a, b) for a, b in zip(before, behind, strict=True)]


def _pads(graph: Graph, node: Node, windows: Sequence[int]) -> tuple[list[int], list[int]] | None:
    """Zeros before and behind the input of a convolution, axis by axis; None where they are not known or cannot be made even."""
    axes, attributes = len(windows), node.attributes
    automatic = str(attributes.get("auto_pad", "NOTSET"))
    strides = [int(s) for s in attributes.get("strides", [1] * axes)]  # type: ignore[union-attr]
    steps = [int(s) for s in attributes.get("dilations", [1] * axes)]  # type: ignore[union-attr]
    pads = [int(p) for p in attributes.get("pads", [0] * 2 * axes)]  # type: ignore[union-attr]
    before, behind = pads[:axes], pads[axes:]
    if automatic.startswith("SAME"):
        shape = graph.shapes.get(node.inputs[0], ())
        sizes = [n for n in shape[2:] if isinstance(n, int)]
        if len(sizes) != axes:
            return None
        spans = [(w - 1) * d + 1 for w, d in zip(windows, steps, strict=True)]
        total = [max((-(-n // s) - 1) * s + w - n, 0) for n, s, w in zip(sizes, strides, spans, strict=True)]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        before, behind = (less, more) if automatic == "SAME_UPPER" else (more, less)
    if any(step != 1 and a != b for step, a, b in zip(steps, before, behind, strict=True)):
        return None  # the zeros of a kernel with gaps lie a gap apart
    return before, behind


def _averaged(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """The shape of what a node takes the mean of, where that is over all positions of each channel, in float32."""
    if node.op not in ("ReduceMean", "GlobalAveragePool"):
        return None
    shape = graph.shapes.get(node.inputs[0])
    if shape is None or len(shape) < 3 or any(not isinstance(n, int) or n < 1 for n in shape) or shape[0] != 1:
        return None
    if node.op == "ReduceMean":
        axes = node.attributes.get("axes")
        if axes is None and len(node.inputs) > 1 and node.inputs[1]:
            axes = graph.constant(node.inputs[1])
        if axes is None or isinstance(axes, (str, float, int)):
            return None
        if sorted(int(a) % len(shape) for a in np.ravel(np.asarray(axes))) != list(range(2, len(shape))):
            return None
    return tuple(int(n) for n in shape)  # type: ignore[arg-type]
