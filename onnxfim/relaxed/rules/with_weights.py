"""Rules of linear operators with weights, of sums and of factors."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.relaxed.bent import Product
from onnxfim.relaxed.convolutions import ConvMap, TransposedMap
from onnxfim.relaxed.maps import Before, Map, MatrixMap, Pick, SameMap
from onnxfim.relaxed.network import RuleSite, rule
from onnxfim.relaxed.rules.of_a_node import first, number, pads_in_front, whole

Array: TypeAlias = np.ndarray[Any, Any]


@rule("MatMul")
def _matmul(site: RuleSite, node: Node) -> None:
    a, b = node.inputs[:2]
    if site.varies(a) and site.varies(b):
        raise site.none(node, "multiplies two values that vary (as attention does), which has no local rule")
    if site.varies(a):
        W, shape = site.weight(node, 1, "matrix"), site.shape(node, a)
        W = W[:, None] if W.ndim == 1 else W
        if math.prod(W.shape[:-2]) != 1:
            raise site.none(node, "multiplies by several matrices, which has no local rule")
        W = W.reshape(W.shape[-2:])
        site.affine(node, [(a, MatrixMap(W, math.prod(shape) // max(W.shape[0], 1)))])
        return
    W, shape = site.weight(node, 0, "matrix"), site.shape(node, b)
    if W.ndim != 2 or len(shape) < 2:
        raise site.none(node, "multiplies by several matrices, which has no local rule")
    site.affine(node, [(b, Before(W, math.prod(shape[:-2]), shape[-1]))])


@rule("Gemm")
def _gemm(site: RuleSite, node: Node) -> None:
    a, b = node.inputs[:2]
    if not site.varies(a) or site.varies(b) or node.attributes.get("transA", 0):
        raise site.none(node, "varies in its matrix, or is transposed, which has no local rule")
    W = site.weight(node, 1, "matrix") * number(node, "alpha", 1.0)
    W = W.T if node.attributes.get("transB", 0) else W
    out = site.shape(node, node.outputs[0])
    parts: list[tuple[str, Map]] = [(a, MatrixMap(np.ascontiguousarray(W), math.prod(site.shape(node, a)) // max(W.shape[0], 1)))]
    bias: Array | float = 0.0
    if len(node.inputs) > 2 and node.inputs[2]:
        beta = number(node, "beta", 1.0)
        if site.varies(node.inputs[2]):
            index = site.spread(node, node.inputs[2], out)
            parts.append((node.inputs[2], Pick(int(index.max()) + 1, index, np.full(len(index), beta))))
        else:
            bias = np.broadcast_to(beta * site.weight(node, 2, "bias"), out)
    site.affine(node, parts, bias)


@rule("Conv", "ConvTranspose")
def _conv(site: RuleSite, node: Node) -> None:
    x = first(site, node)
    kernel, shape, out = site.weight(node, 1, "kernel"), site.shape(node, x), site.shape(node, node.outputs[0])
    rank, groups = kernel.ndim - 2, int(number(node, "group", 1))
    if len(shape) != kernel.ndim or rank < 1:
        raise site.none(node, f"its kernel has {kernel.ndim} axes, its input {len(shape)}")
    if shape[0] != 1:
        raise site.none(node, "several rows are one value here, which has no local rule")
    strides, dilations = whole(node, "strides", (1,) * rank), whole(node, "dilations", (1,) * rank)
    backwards, auto = node.op == "ConvTranspose", node.attributes.get("auto_pad", "NOTSET")
    if backwards and (auto not in ("NOTSET", "VALID", "") or "output_shape" in node.attributes):
        raise site.none(node, "is padded in a way that has no local rule")
    sizes = (out[2:], shape[2:]) if backwards else (shape[2:], out[2:])
    pads = pads_in_front(node, kernel.shape[2:], strides, dilations, *sizes)
    conv = ConvMap(kernel, *sizes, strides, dilations, pads, groups)
    bias: Array | float = 0.0
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = np.broadcast_to(site.weight(node, 2, "bias").reshape(-1, *(1,) * rank), out[1:])
    site.affine(node, [(x, TransposedMap(conv, math.prod(shape), math.prod(out)) if backwards else conv)], bias)


@rule("BatchNormalization")
def _batch_normalization(site: RuleSite, node: Node) -> None:
    x, out = first(site, node), site.shape(node, node.outputs[0])
    if node.attributes.get("training_mode", 0):
        raise site.none(node, "is in training mode, where samples of a batch change each other")
    gamma, beta, mean, variance = (site.weight(node, k, "parameters").ravel() for k in range(1, 5))
    floor = variance + number(node, "epsilon", 1e-5)
    if not (floor > 0).all():
        raise site.none(node, "has a variance that is not positive")
    factor = gamma / np.sqrt(floor)
    along = (-1, *(1,) * (len(out) - 2))
    weights = np.broadcast_to(factor.reshape(along), out[1:]).ravel()
    _scaled(site, node, x, weights, np.broadcast_to((beta - mean * factor).reshape(along), out[1:]), out)


def _scaled(site: RuleSite, node: Node, x: str, weights: Array, bias: Array | float, out: tuple[int, ...]) -> None:
    """``weights·x + bias``, x broadcast to the output."""
    index = site.spread(node, x, out)
    site.affine(node, [(x, Pick(math.prod(site.shape(node, x)), index, weights))], bias)


@rule("Add", "Sub", "Sum", "Mean")
def _add(site: RuleSite, node: Node) -> None:
    out = site.shape(node, node.outputs[0])
    parts: list[tuple[str, Map]] = []
    bias = np.zeros(out)
    for at, name in enumerate(node.inputs):
        factor = -1.0 if node.op == "Sub" and at else 1.0 / len(node.inputs) if node.op == "Mean" else 1.0
        if not site.varies(name):
            bias = bias + factor * site.weight(node, at, "constant")
            continue
        n = math.prod(site.shape(node, name))
        if n == math.prod(out) and factor == 1.0:
            parts.append((name, SameMap(n)))
        else:
            parts.append((name, Pick(n, site.spread(node, name, out), np.full(math.prod(out), factor))))
    site.affine(node, parts, bias)


@rule("Neg")
def _neg(site: RuleSite, node: Node) -> None:
    out = site.shape(node, node.outputs[0])
    _scaled(site, node, node.inputs[0], np.full(math.prod(out), -1.0), 0.0, out)


@rule("Mul", "Div")
def _mul(site: RuleSite, node: Node) -> None:
    a, b = node.inputs[:2]
    out = site.shape(node, node.outputs[0])
    if site.varies(a) and site.varies(b):
        if node.op == "Div":
            raise site.none(node, "divides by a value that varies, which has no local rule")
        names = (site.repeated(node, a, out), site.repeated(node, b, out))
        site.steps.append(Product(node.outputs[0], names, math.prod(out), site.units(node.outputs[0])))
        return
    if node.op == "Div" and not site.varies(a):
        raise site.none(node, "divides by a value that varies, which has no local rule")
    factor = site.weight(node, 1 if site.varies(a) else 0, "factor")
    if node.op == "Div":
        if (factor == 0).any():
            raise site.none(node, "divides by zero")
        factor = 1.0 / factor
    _scaled(site, node, a if site.varies(a) else b, np.broadcast_to(factor, out).ravel(), 0.0, out)
