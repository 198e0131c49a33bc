"""Rules of operators of classical models that are kept whole; the others are written out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.spectral.bound_rules import rule
from onnxfim.spectral.kernels import GaussianKernels
from onnxfim.spectral.norms import outward
from onnxfim.spectral.result import log10, times
from onnxfim.spectral.rules.pointwise import attribute
from onnxfim.spectral.site import Composition, Value, unbounded


def of_kernels(ctx: Composition, node: Node, x: Value, kernels: GaussianKernels) -> Value:
    """Gaussian kernels of the rows of x with fixed centres; what weighs them next is bounded together with them."""
    log = log10(kernels.stretch())
    ctx.record(
        node, log, kind="activation", method="Gram matrix of the centres", op="Gaussian kernels", shape=kernels.centres.shape
    )
    most = outward(float(kernels.scales.max(initial=0.0)))
    return ctx.fresh(node, times(log, ctx.log(x)), x, low=0.0, high=most, kernels=kernels)


@rule("ai.onnx.ml.Normalizer")
def _normalizer(ctx: Composition, node: Node) -> Value:
    """Rows over their norm: no slope where they sum to 1 already, none that is bounded where the norm may be zero.

    With n entries of at least a > 0, ``J = (I − x̂ sᵀ)/‖x‖`` with s the norm's own slope: L2 is a projection, so ``1/(√n a)``; L1
    has ``‖x̂‖₂ ≤ 1`` and ``‖s‖₂ = √n``, so ``(1 + √n)/(n a)``; the largest entry ``‖x̂‖₂ ≤ √n`` and ``‖s‖₂ = 1``, so
    ``(1 + √n)/a``.
    """
    x, kind = ctx.values[node.inputs[0]], node.attributes.get("norm", "MAX")
    if kind == "L1" and _softmax(ctx, node.inputs[0]):
        return replace(x, name=node.outputs[0], terms=x.terms or ((x, ()),), log=None)
    n = None if x.shape is None else x.shape[-1]
    if n is None or not x.low > 0:
        return ctx.fresh(
            node, math.inf, reason=unbounded(node, "divides by a norm that may be zero, so it has no Lipschitz constant")
        )
    root = math.sqrt(n)
    slope = {"L2": 1 / (root * x.low), "L1": (1 + root) / (n * x.low)}.get(str(kind), (1 + root) / x.low)
    log = log10(outward(slope))
    ctx.record(node, log, kind="normalisation", method="largest slope")
    return ctx.fresh(node, times(log, ctx.log(x)), x, low=0.0, high=1.0)


def _softmax(ctx: Composition, name: str) -> bool:
    node = ctx.flow.graph.producers.get(name)
    while node is not None and node.op in ("Identity", "Cast"):
        node = ctx.flow.graph.producers.get(node.inputs[0])
    return node is not None and node.op == "Softmax"


@rule("ai.onnx.ml.Imputer")
def _imputer(ctx: Composition, node: Node) -> Value:
    """Every entry is itself or a constant; where the missing value is no number, nothing jumps."""
    x = ctx.values[node.inputs[0]]
    if not np.isnan(attribute(node, "replaced_value_float", 0.0)):
        return ctx.fresh(
            node, math.inf, reason=unbounded(node, "replaces one number by another and jumps there: no Lipschitz constant")
        )
    return ctx.fresh(node, ctx.log(x), x)
