"""Looser bounds that others use, for comparison: products over unfolded layers with Frobenius or four-unfoldings norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxfim.graph.graph import Graph, Node
from onnxfim.spectral.bound_rules import RULES
from onnxfim.spectral.compose import spectral_bound
from onnxfim.spectral.linear import Other
from onnxfim.spectral.norms import NormBound, matrix_norm
from onnxfim.spectral.result import Bound
from onnxfim.spectral.rules import layers as rules_linear
from onnxfim.spectral.rules.pointwise import attribute
from onnxfim.spectral.site import Composition, Value


@dataclass(frozen=True)
class Naive:
    """log10 L by the same graph with looser layer norms; None where it is not available."""

    frobenius: float | None
    four_unfoldings: float | None


def naive_bounds(graph: Graph, *, input_name: str | None = None, output_name: str | None = None, logits: bool = True) -> Naive:
    """The bound with nothing folded or merged, and Frobenius or four-unfoldings norms in place of spectral ones.

    Sums, concatenations and activations are composed as in `spectral_bound`, so that the ratio shows what the layer norms give.
    """
    results = []
    for conv, matrix in ((naive_conv_norm, frobenius_norm), (four_unfoldings, lambda W: matrix_norm(W).value)):
        bound = _with(graph, conv, matrix, input_name=input_name, output_name=output_name, logits=logits)
        results.append(bound.log10_lipschitz)
    return Naive(*results)


def _with(
    graph: Graph, conv: Callable[..., float], matrix: Callable[[np.ndarray], float], *,
    input_name: str | None, output_name: str | None, logits: bool,
) -> Bound:  # fmt: skip
    def layer(ctx: Composition, node: Node) -> Value | tuple[Value, ...]:
        W = rules_linear.weight(ctx, node, 1)
        if W is None or not ctx.varying(node.inputs[0]):
            return RULES[node.op](ctx, node)
        is_conv = node.op == "Conv"
        norm = (
            conv(W, groups=int(attribute(node, "group", 1)))
            if is_conv
            else abs(attribute(node, "alpha", 1.0)) * matrix(W.reshape(-1, W.shape[-1]))
        )
        x = ctx.values[node.inputs[0]]
        y = ctx.linear(node, ctx.anchor(x), Other((node,), x.shape, ctx.shape(node.outputs[0]), NormBound(norm, "naive")))
        return ctx.anchor(y)

    def batch_normalization(ctx: Composition, node: Node) -> Value | tuple[Value, ...]:
        y = RULES[node.op](ctx, node)
        return y if isinstance(y, tuple) or not y.terms else _apart(ctx, node, y)

    def _apart(ctx: Composition, node: Node, y: Value) -> Value:
        x = ctx.values[node.inputs[0]]
        gamma, variance = (rules_linear.weight(ctx, node, k) for k in (1, 4))
        if gamma is None or variance is None:
            return y
        norm = float(np.abs(gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))).max())
        return ctx.anchor(ctx.linear(node, ctx.anchor(x), Other((node,), x.shape, y.shape, NormBound(norm, "naive"))))

    overrides = {**dict.fromkeys(("Conv", "Gemm", "MatMul"), layer), "BatchNormalization": batch_normalization}
    return spectral_bound(graph, input_name=input_name, output_name=output_name, logits=logits, rules={**RULES, **overrides})


def ratio_decades(naive: float | None, bound: Bound) -> float | None:
    """How many decades looser a naive figure is."""
    if naive is None or bound.log10_lipschitz is None or not math.isfinite(naive):
        return None
    return naive - bound.log10_lipschitz


def frobenius_norm(W: np.ndarray) -> float:
    """Frobenius norm, an upper bound of a matrix's norm (not of a convolution's)."""
    return float(np.linalg.norm(W.astype(np.float64)))


def naive_conv_norm(W: np.ndarray, *, groups: int = 1) -> float:
    """``√(k_1 k_2 …) ‖W‖_F`` over the largest group: Young's inequality with the Frobenius norm, nothing unfolded or merged."""
    parts = np.split(np.asarray(W, np.float64), groups)
    return math.sqrt(math.prod(W.shape[2:])) * max(frobenius_norm(p) for p in parts)


def four_unfoldings(W: np.ndarray, *, groups: int = 1) -> float:
    """``√(k_h k_w)`` times the least norm of four matrix unfoldings of the kernel.

    Source: Singla & Feizi (2021), "Fantastic four", Theorem 2; kernels with one spatial axis have two unfoldings.
    """
    best = 0.0
    for part in np.split(np.asarray(W, np.float64), groups):
        best = max(best, min(matrix_norm(A).value for A in _unfoldings(part)))
    return math.sqrt(math.prod(W.shape[2:])) * best


def _unfoldings(W: np.ndarray) -> Sequence[np.ndarray]:
    o, i, *k = W.shape
    if len(k) != 2:
        return (W.reshape(o, -1), np.swapaxes(W, 0, 1).reshape(i, -1))
    h, w = k
    return (
        W.reshape(o, i * h * w), W.transpose(1, 0, 2, 3).reshape(i, o * h * w),
        W.transpose(0, 2, 1, 3).reshape(o * h, i * w), W.transpose(0, 3, 1, 2).reshape(o * w, i * h),
    )  # fmt: skip
