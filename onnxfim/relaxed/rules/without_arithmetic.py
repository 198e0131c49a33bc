"""Rules of operators that move numbers and do not compute with them."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from onnx import helper

from onnxfim.graph.graph import Node
from onnxfim.relaxed.maps import Map, Pick, SameMap
from onnxfim.relaxed.network import RuleSite, rule
from onnxfim.relaxed.relaxed_steps import Affine
from onnxfim.relaxed.rules.of_a_node import first, keep_grid, number

Array: TypeAlias = np.ndarray[Any, Any]

_FLOATS = (1, 10, 11, 16)  # element types that a Cast leaves real numbers


@rule("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _same(site: RuleSite, node: Node) -> None:
    x = first(site, node)
    if node.op == "Dropout" and len(node.inputs) > 2 and node.inputs[2] and np.any(site.weight(node, 2, "training mode")):
        raise site.none(node, "is in training mode, where the output is random")
    site.affine(node, [(x, SameMap(math.prod(site.shape(node, x))))], exact=True)
    keep_grid(site, node, x)


@rule("Cast")
def _cast(site: RuleSite, node: Node) -> None:
    if int(number(node, "to", 1)) not in _FLOATS:
        raise site.none(node, "rounds to whole numbers, which has no local rule")
    x = node.inputs[0]
    site.affine(node, [(x, SameMap(math.prod(site.shape(node, x))))])


@rule("Transpose", "Slice", "Gather", "Split", "Expand", "Pad", "DepthToSpace", "SpaceToDepth", "Concat", "Tile", "Where")
def _moved(site: RuleSite, node: Node) -> None:
    """What only moves numbers: it is run on their places, counted from 1; 0 stands for a zero of its own."""
    from onnx.reference import ReferenceEvaluator  # here: its import takes 0.1 s

    data = {"Concat": range(len(node.inputs)), "Where": (1, 2), "Pad": (0, 2)}.get(node.op, (0,))
    numbered: dict[str, int] = {}
    feeds: dict[str, Array] = {}
    count = 1
    for at, name in enumerate(node.inputs):
        if not name:
            continue
        if at in data and name not in numbered:
            shape = site.shape(node, name) if site.varies(name) else site.weight(node, at, "data").shape
            numbered[name] = count
            feeds[name] = np.arange(count, count + math.prod(shape), dtype=np.float64).reshape(shape)
            count += math.prod(shape)
        elif at not in data:
            if site.varies(name):
                raise site.none(node, "where it takes its numbers from depends on the input, which has no local rule")
            value = site.view.constant(name)
            if value is None:
                raise site.none(node, "where it takes its numbers from is not known before the model runs")
            feeds[name] = np.asarray(value)
    if node.op == "Pad" and node.attributes.get("mode", "constant") not in ("constant", "edge", "reflect", "wrap"):
        raise site.none(node, "pads in a way that has no local rule")
    proto = helper.make_node(node.op, list(node.inputs), list(node.outputs), **dict(node.attributes))
    opset = site.view.graph.opsets.get("ai.onnx", 18)
    try:
        results = ReferenceEvaluator(proto, opsets={"": opset}).run(None, feeds)
    except Exception as error:
        raise site.none(node, f"what it moves cannot be told ({type(error).__name__})") from error
    for name, result in zip(node.outputs, results, strict=False):
        if not name:
            continue
        places = np.rint(np.asarray(result)).astype(np.int64).ravel()
        parts: list[tuple[str, Map]] = []
        bias = np.zeros(len(places))
        for source, start in numbered.items():
            index = places - start
            size = feeds[source].size
            ok = (index >= 0) & (index < size)
            if site.varies(source):
                parts.append((source, Pick(size, np.where(ok, index, -1))))
            else:
                bias[ok] = np.asarray(site.constant(source)).ravel()[index[ok]]
        if any(p in site.grids for p, _ in parts):
            if len({site.grids.get(p) for p, _ in parts}) > 1 or bias.any():
                raise site.none(node, "joins whole numbers of several scales, which has no local rule")
            site.grids[name] = site.grids[parts[0][0]]
        if math.prod(site.shape(node, name)) != len(places):
            raise site.none(node, "what it moves cannot be told")
        site.steps.append(Affine(name, tuple(parts), bias, site.units(name), exact=True))
