"""Rules of functions of single numbers, and of quantisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.relaxed import curves
from onnxfim.relaxed.bent import Bent, Grid
from onnxfim.relaxed.curves import ScalarCurve
from onnxfim.relaxed.maps import SameMap
from onnxfim.relaxed.network import RuleSite, rule
from onnxfim.relaxed.rules.of_a_node import number


def _bent(site: RuleSite, node: Node, curve: ScalarCurve, grid: Grid | None = None) -> None:
    x = node.inputs[0]
    if not site.varies(x):
        raise site.none(node, "varies in another input than its first, which has no local rule")
    site.steps.append(Bent(node.outputs[0], x, math.prod(site.shape(node, x)), curve, site.units(node.outputs[0]), grid))


@rule("Relu")
def _relu(site: RuleSite, node: Node) -> None:
    _bent(site, node, curves.relu())


@rule("LeakyRelu")
def _leaky(site: RuleSite, node: Node) -> None:
    _bent(site, node, curves.leaky(number(node, "alpha", 0.01)))


@rule("PRelu")
def _prelu(site: RuleSite, node: Node) -> None:
    out = site.shape(node, node.outputs[0])
    _bent(site, node, curves.leaky(np.broadcast_to(site.weight(node, 1, "slope"), out).ravel()))


@rule("Clip")
def _clip(site: RuleSite, node: Node) -> None:
    ends = []
    for at, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        if len(node.inputs) > at and node.inputs[at]:
            ends.append(float(site.weight(node, at, "range").ravel()[0]))
        else:
            ends.append(number(node, name, default))
    if not ends[0] <= ends[1]:
        raise site.none(node, f"clips to an empty range, {ends[0]:g} to {ends[1]:g}")
    _bent(site, node, curves.clip(*ends))


@rule("HardSigmoid")
def _hard_sigmoid(site: RuleSite, node: Node) -> None:
    _bent(site, node, curves.hard_sigmoid(number(node, "alpha", 0.2), number(node, "beta", 0.5)))


@rule("Gelu")
def _gelu(site: RuleSite, node: Node) -> None:
    if node.attributes.get("approximate", "none") != "none":
        raise site.none(node, "is an approximation that has no local rule")
    _bent(site, node, curves.gelu())


@rule("Elu")
def _elu(site: RuleSite, node: Node) -> None:
    _bent(site, node, curves.elu(number(node, "alpha", 1.0)))


def _plain(op: str, make: Callable[[], ScalarCurve]) -> None:
    rule(op)(lambda site, node: _bent(site, node, make()))


for _op, _make in {
    "Abs": curves.absolute, "HardSwish": curves.hard_swish, "Sigmoid": curves.sigmoid, "Tanh": curves.tanh, "Erf": curves.erf,
    "Softplus": curves.softplus, "com.microsoft.Gelu": curves.gelu,
}.items():  # fmt: skip
    _plain(_op, _make)


def _scale_of(site: RuleSite, node: Node) -> tuple[float, int, np.dtype[Any]]:
    """Scale, zero point and its type, of a node with one of each."""
    scale = site.weight(node, 1, "scale")
    zero = site.view.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros((), np.uint8)
    if zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu" or not float(scale.ravel()[0]) > 0:
        raise site.none(node, "has no single constant scale and zero point, which has no local rule")
    return float(scale.ravel()[0]), int(zero.ravel()[0]), zero.dtype


@rule("QuantizeLinear", "com.microsoft.QuantizeLinear")
def _quantize(site: RuleSite, node: Node) -> None:
    scale, zero, kind = _scale_of(site, node)
    ends = np.iinfo(kind)
    grid = Grid(scale, int(ends.min) - zero, int(ends.max) - zero)
    _bent(site, node, curves.clip(grid.least * scale, grid.most * scale), grid)
    site.grids[node.outputs[0]] = (scale, zero)


@rule("DequantizeLinear", "com.microsoft.DequantizeLinear")
def _dequantize(site: RuleSite, node: Node) -> None:
    x = node.inputs[0]
    scale, zero, _ = _scale_of(site, node)
    if site.grids.get(x) != (scale, zero):
        raise site.none(node, "takes whole numbers of another scale than they were made with, which has no local rule")
    site.affine(node, [(x, SameMap(math.prod(site.shape(node, x))))], exact=True)
