"""Rules of normalisations, softmax, pooling and reductions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.spectral.bound_rules import rule
from onnxfim.spectral.linear import Other
from onnxfim.spectral.norms import NormBound, matrix_norm, outward
from onnxfim.spectral.patterns import WrittenNormalisation, axes_of
from onnxfim.spectral.result import log10, times
from onnxfim.spectral.rules.layers import _shifted, integers, weight
from onnxfim.spectral.rules.multiplication import scaled
from onnxfim.spectral.rules.pointwise import attribute
from onnxfim.spectral.site import Ball, Composition, KnownOfValue, Value, unbounded

_VACUOUS = "global bound 1/√ε, reached only where the input is constant: vacuous in practice"
_WIDEST = 2**24  # numbers normalised together past which the ball around their results is not kept


def normalised(ctx: Composition, node: Node, x: Value, found: WrittenNormalisation) -> Value:
    """``(x − mean)/√(var + ε)``, or ``x/√(mean x² + ε)``: slope at most 1/√ε, every vector within √D of the origin.

    With s the denominator, ``J = (I − 11ᵀ/D − x̂x̂ᵀ/D)/s`` (without the second term for the root mean square), and s ≥ √ε.
    """
    if not found.epsilon > 0:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "normalises without an epsilon, so its slope is not bounded"))
    log = log10(outward(1 / math.sqrt(found.epsilon)))
    ctx.record(node, log, kind="normalisation", method="1/√ε", note=_VACUOUS, op=found.kind)
    width = x.shape[-1] if x.shape is not None and found.last else None
    facts: KnownOfValue = {}
    if width is not None and width <= _WIDEST:
        reach = outward(math.sqrt(width))
        facts = {"low": -reach, "high": reach, "ball": Ball(-1, reach, 0.0, np.zeros(width))}
    return replace(ctx.fresh(node, times(log, ctx.log(x)), x), **facts)


def _affine(ctx: Composition, node: Node, core: Value, gamma: np.ndarray | None, beta: np.ndarray | None) -> Value:
    y = replace(core, name=f"{node.outputs[0]} normalised")
    if gamma is not None:
        y = scaled(ctx, node, y, gamma)
    if beta is not None:
        y = _shifted(y, y, beta)
    terms = y.terms or ((y, ()),)
    return replace(y, name=node.outputs[0], terms=terms, log=None)


def _last(node: Node, x: Value) -> bool:
    axis = int(attribute(node, "axis", -1))
    return axis == -1 or (x.shape is not None and axis == len(x.shape) - 1)


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_norm(ctx: Composition, node: Node) -> Value | tuple[Value, ...]:
    x = ctx.values.get(node.inputs[0])
    gamma, beta = weight(ctx, node, 1), weight(ctx, node, 2)
    if x is None or any(n and ctx.varying(n) for n in node.inputs[1:]):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its scale or bias varies with the input"))
    found = WrittenNormalisation(node.op, x.name, attribute(node, "epsilon", 1e-5), _last(node, x))
    core = normalised(ctx, node, x, found)
    return (_affine(ctx, node, core, gamma, beta), *_others(ctx, node))


def _others(ctx: Composition, node: Node) -> list[Value]:
    why = unbounded(node, "only its first output has a rule")
    return [ctx.fresh(node, math.inf, reason=why, output=k) for k, o in enumerate(node.outputs) if k and o]


@rule("InstanceNormalization", "GroupNormalization")
def _group_norm(ctx: Composition, node: Node) -> Value:
    """Each group of entries is normalised: slope at most 1/√ε, then the channels' scale."""
    x, gamma, beta = ctx.values.get(node.inputs[0]), weight(ctx, node, 1), weight(ctx, node, 2)
    if x is None or gamma is None or beta is None or x.shape is None:
        return ctx.fresh(
            node, math.inf, reason=unbounded(node, "its scale and bias are not known constants, or its rank is not known")
        )
    if node.op == "GroupNormalization" and gamma.size != x.shape[1] and x.shape[1] is not None:
        gamma, beta = (np.repeat(p, x.shape[1] // p.size) for p in (gamma, beta))
    core = normalised(ctx, node, x, WrittenNormalisation(node.op, x.name, attribute(node, "epsilon", 1e-5), False))
    along = (-1, *(1,) * (len(x.shape) - 2))
    return _affine(ctx, node, core, gamma.reshape(along), beta.reshape(along))


@rule("LRN")
def _local_response(ctx: Composition, node: Node) -> Value:
    """``x_i / D_i^β`` with ``D_i = b + s_i`` and ``s_i`` the mean of α x² over a window of n channels, α ≥ 0 and b > 0.

    The Jacobian is ``diag D^-β − M``, where row i of M has norm at most ``2β s/(b + s)^(β + 1)``, largest at ``s = b/β``, and n
    entries; a channel is in at most n rows, so ``‖M‖ ≤ √n·2 b^-β / (1 + 1/β)^(β + 1)``.
    """
    x, n = ctx.values[node.inputs[0]], int(attribute(node, "size", 1))
    a, b, c = attribute(node, "alpha", 1e-4), attribute(node, "beta", 0.75), attribute(node, "bias", 1.0)
    if not (a >= 0 and b > 0 and c > 0 and n > 0):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its divisor is not bounded away from zero"))
    log = log10(outward(c**-b * (1 + 2 * math.sqrt(n) / (1 + 1 / b) ** (b + 1))))
    ctx.record(node, log, kind="normalisation", method="largest slope")
    return ctx.fresh(node, times(log, ctx.log(x)), x)


@rule("LpNormalization")
def _lp(ctx: Composition, node: Node) -> Value:
    return ctx.fresh(node, math.inf, reason=unbounded(node, "divides by a norm that may be zero, so it has no Lipschitz constant"))


@rule("Softmax", "LogSoftmax")
def _softmax(ctx: Composition, node: Node) -> Value:
    x = ctx.values[node.inputs[0]]
    if node.op == "Softmax":  # ‖diag p − ppᵀ‖ ≤ max_k 2p_k(1 − p_k) ≤ ½
        ctx.record(node, log10(0.5), kind="activation", method="largest slope")
        return ctx.fresh(node, times(log10(0.5), ctx.log(x)), x, low=0.0, high=1.0)
    # ‖I − 1pᵀ‖² is convex in p, so largest at a corner, where it is K
    classes = None if x.shape is None else x.shape[int(attribute(node, "axis", -1))]
    if classes is None:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "the number of its classes is not known"))
    log = log10(math.sqrt(classes))
    ctx.record(node, log, kind="activation", method="largest slope")
    return ctx.fresh(node, times(log, ctx.log(x)), x, high=0.0)


def _kernel(node: Node) -> tuple[int, ...]:
    kernel = integers(node, "kernel_shape", ())
    if not kernel:
        raise ValueError("kernel_shape is missing")
    return kernel


@rule("MaxPool")
def _max_pool(ctx: Composition, node: Node) -> tuple[Value, ...]:
    """Each window follows one pixel, so the norm is at most √(windows that share a pixel)."""
    x, out = ctx.values[node.inputs[0]], ctx.shape(node.outputs[0])
    kernel = _kernel(node)
    rank = len(kernel)
    strides, dilations = integers(node, "strides", (1,) * rank), integers(node, "dilations", (1,) * rank)
    windows = 1
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        count = max(np.bincount(np.arange(k) * d % s).tolist())
        n = out[2 + axis] if out is not None else None
        windows *= count if n is None else min(count, n)
    log = log10(math.sqrt(windows))
    ctx.record(node, log, kind="pooling", method="windows that share a pixel", shape=kernel)
    y = ctx.fresh(node, times(log, ctx.log(x)), x, low=x.low, high=x.high)
    return (y, *_others(ctx, node))


@rule("GlobalMaxPool")
def _global_max(ctx: Composition, node: Node) -> Value:
    x = ctx.values[node.inputs[0]]
    return ctx.fresh(node, ctx.log(x), x, low=x.low, high=x.high)


@rule("GlobalAveragePool")
def _global_average(ctx: Composition, node: Node) -> Value:
    x = ctx.values[node.inputs[0]]
    spatial = () if x.shape is None else x.shape[2:]
    known = math.prod(d for d in spatial if d is not None)
    note = "" if x.shape is not None and None not in x.shape else "sizes that are not known are taken as 1"
    norm = NormBound(outward(1 / math.sqrt(known)), "1/√pixels", note)
    axes = tuple(range(3, 3 + len(spatial)))  # of rows (m, batch, channels, …)
    element = Other((node,), x.shape, ctx.shape(node.outputs[0]), norm, lambda X: np.mean(X, axis=axes, keepdims=True))
    return ctx.linear(node, x, element, low=x.low, high=x.high)


@rule("AveragePool")
def _average_pool(ctx: Composition, node: Node) -> Value:
    """The Kronecker product of one averaging matrix per axis, so its norm is the product of theirs."""
    x, out = ctx.values[node.inputs[0]], ctx.shape(node.outputs[0])
    kernel = _kernel(node)
    rank = len(kernel)
    strides, dilations = integers(node, "strides", (1,) * rank), integers(node, "dilations", (1,) * rank)
    pads = integers(node, "pads", (0,) * (2 * rank))
    auto = node.attributes.get("auto_pad", "NOTSET")
    norm, exact = 1.0, True
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        n = x.shape[2 + axis] if x.shape is not None else None
        m = out[2 + axis] if out is not None else None
        if n is None or m is None or n > 4096:
            # rows sum to 1, columns to at most the number of windows that share a pixel
            norm, exact = norm * math.sqrt(-(-k // s) if d == 1 else k), False
            continue
        lead, trail = pads[axis], pads[rank + axis]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max(0, (m - 1) * s + (k - 1) * d + 1 - n)
            lead = total // 2 if auto == "SAME_UPPER" else total - total // 2
            trail = total - lead
        norm *= matrix_norm(
            _averages(
                n,
                m,
                k,
                s,
                d,
                lead,
                n + trail if node.attributes.get("count_include_pad", 0) else n,
                lead if node.attributes.get("count_include_pad", 0) else 0,
            )
        ).value
    element = Other((node,), x.shape, out, NormBound(outward(norm), "averages per axis" if exact else "row and column sums"))
    return ctx.linear(node, x, element, low=min(x.low, 0.0), high=max(x.high, 0.0))


def _averages(n: int, m: int, k: int, s: int, d: int, lead: int, last: int, first: int) -> np.ndarray:
    """Averaging matrix of one axis (m, n); positions in [-first, last) count towards the divisor."""
    A = np.zeros((m, n))
    for i in range(m):
        taps = i * s - lead + d * np.arange(k)
        inside = taps[(taps >= 0) & (taps < n)]
        count = int(((taps >= -first) & (taps < last)).sum())
        A[i, inside] = 1 / max(1, count)
    return A


@rule("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceLogSumExp")
def _reduce(ctx: Composition, node: Node) -> Value:
    x = ctx.values[node.inputs[0]]
    axes = axes_of(ctx.flow, node)
    if len(node.inputs) > 1 and node.inputs[1] and axes is None:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its axes are not known before the model runs"))
    if axes is None and node.attributes.get("noop_with_empty_axes", 0):
        return replace(x, name=node.outputs[0], terms=x.terms or ((x, ()),), log=None)
    rank = None if x.shape is None else len(x.shape)
    dims = None if x.shape is None or rank is None else [x.shape[a] for a in (range(rank) if axes is None else axes)]
    known = dims is not None and None not in dims
    count = math.prod(d for d in dims or [] if d is not None)
    if node.op in ("ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp"):
        return ctx.fresh(node, ctx.log(x), x)  # one entry; a unit vector; the softmax vector, whose norm is at most 1
    if node.op != "ReduceMean" and not known:
        return ctx.fresh(node, math.inf, reason=ctx.reason(x) or unbounded(node, "the number of its terms is not known"))
    root = math.sqrt(max(1, count))
    if node.op == "ReduceL1":
        return ctx.fresh(node, times(log10(root), ctx.log(x)), x, low=0.0)
    mean = node.op == "ReduceMean"
    norm = NormBound(
        outward(1 / root if mean else root),
        "1/√terms" if mean else "√terms",
        "" if known else "sizes that are not known are taken as 1",
    )
    where = None if rank is None else tuple(a % rank + 1 for a in (range(rank) if axes is None else axes))
    keep = node.attributes.get("keepdims", 1) == 1
    function = None if where is None else lambda X: (np.mean if mean else np.sum)(X, axis=where, keepdims=keep)
    facts: KnownOfValue = {"low": x.low, "high": x.high} if mean else {}
    if not mean and count and math.isfinite(x.magnitude):
        room = 1e-9 * count * x.magnitude
        facts = {"low": count * x.low - room, "high": count * x.high + room}
    if mean and x.ball is not None and rank is not None and axes is not None and all(a % rank != rank + x.ball.axis for a in axes):
        after = sum(1 for a in axes if a % rank > rank + x.ball.axis)
        facts["ball"] = x.ball if keep else replace(x.ball, axis=x.ball.axis + after)
    return ctx.linear(node, x, Other((node,), x.shape, ctx.shape(node.outputs[0]), norm, function), **facts)


@rule("Resize")
def _resize(ctx: Composition, node: Node) -> Value:
    """Nearest neighbours copy each pixel at most ``Π⌈m/n⌉`` times, or ``Π(⌊m/n⌋ + 2)`` where the ratio is not whole."""
    x, out = ctx.values[node.inputs[0]], ctx.shape(node.outputs[0])
    mode = node.attributes.get("mode", "nearest")
    if mode != "nearest" or x.shape is None or out is None or None in x.shape or None in out:
        return ctx.fresh(node, math.inf, reason=unbounded(node, f"mode {mode!r}, or sizes that are not known, have no rule"))
    copies = 1
    for n, m in zip(cast("tuple[int, ...]", x.shape), cast("tuple[int, ...]", out), strict=True):
        copies *= 1 if m == n else m // n if m % n == 0 else m // n + 2
    element = Other((node,), x.shape, out, NormBound(outward(math.sqrt(copies)), "copies of a pixel"))
    return ctx.linear(node, x, element, low=x.low, high=x.high)
