"""Rules of what makes one number of many: means, sums and largest entries over axes and windows."""

from __future__ import annotations

import math

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.relaxed.bent import Largest
from onnxfim.relaxed.maps import Windows, windows
from onnxfim.relaxed.network import RuleSite, rule
from onnxfim.relaxed.rules.of_a_node import first, keep_grid, pads_in_front, whole


@rule("ReduceMean", "ReduceSum", "GlobalAveragePool", "ReduceMax", "GlobalMaxPool")
def _reduced(site: RuleSite, node: Node) -> None:
    x = first(site, node)
    shape = site.shape(node, x)
    if node.op.startswith("Global"):
        axes = tuple(range(2, len(shape)))
    else:
        given = whole(node, "axes", ())
        if len(node.inputs) > 1 and node.inputs[1]:
            given = tuple(int(a) for a in site.weight(node, 1, "axes").ravel())
        if not given and node.attributes.get("noop_with_empty_axes", 0):
            raise site.none(node, "names no axes, which has no local rule")
        axes = tuple(sorted(a % len(shape) for a in given)) or tuple(range(len(shape)))
    places = np.arange(math.prod(shape)).reshape(shape)
    rest = [k for k in range(len(shape)) if k not in axes]
    index = places.transpose(*rest, *axes).reshape(-1, math.prod(shape[a] for a in axes))
    if node.op in ("ReduceMax", "GlobalMaxPool"):
        site.steps.append(Largest(node.outputs[0], x, index, math.prod(shape)))
        return
    weight = 1.0 if node.op == "ReduceSum" else 1.0 / index.shape[1]
    site.affine(node, [(x, Windows(math.prod(shape), index, np.full(index.shape, weight)))])


@rule("AveragePool", "MaxPool")
def _pool(site: RuleSite, node: Node) -> None:
    x = first(site, node)
    if len([o for o in node.outputs if o]) > 1:
        raise site.none(node, "tells which entries are largest, which has no local rule")
    shape, out = site.shape(node, x), site.shape(node, node.outputs[0])
    rank = len(shape) - 2
    kernel, strides = whole(node, "kernel_shape", ()), whole(node, "strides", (1,) * rank)
    dilations = whole(node, "dilations", (1,) * rank)
    pads = pads_in_front(node, kernel, strides, dilations, shape[2:], out[2:])
    index = windows(shape[2:], out[2:], kernel, strides, pads, dilations, shape[0] * shape[1])
    if node.op == "MaxPool":
        if (index < 0).all(axis=1).any():
            raise site.none(node, "has windows of padding alone, which have no local rule")
        site.steps.append(Largest(node.outputs[0], x, index, math.prod(shape)))
        keep_grid(site, node, x)
        return
    inside = index >= 0
    if node.attributes.get("count_include_pad", 0):
        if node.attributes.get("ceil_mode", 0):
            raise site.none(node, "counts padding in windows that reach beyond it, which has no local rule")
        count = np.full((len(index), 1), index.shape[1])
    else:
        count = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    site.affine(node, [(x, Windows(math.prod(shape), index, inside / count))])
