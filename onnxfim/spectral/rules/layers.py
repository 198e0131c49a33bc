"""Rules of linear operators with weights: matrix products, convolutions, BatchNormalization, sums."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import numpy as np

from onnxfim.errors import ModelError
from onnxfim.graph.graph import Node
from onnxfim.graph.referring import let_go
from onnxfim.spectral.bound_rules import rule
from onnxfim.spectral.linear import LARGE, Convolution, Dense, Other, Rearrange, Scaling
from onnxfim.spectral.norms import ConvGeometry, NormBound, matrix_norm, outward
from onnxfim.spectral.result import log10, times
from onnxfim.spectral.rules.attention import varying_product
from onnxfim.spectral.rules.multiplication import scaled
from onnxfim.spectral.rules.pointwise import attribute
from onnxfim.spectral.site import Ball, Composition, KnownOfValue, Polynomial, Value, unbounded


def integers(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute that is a list of whole numbers."""
    value = node.attributes.get(name)
    return tuple(int(v) for v in cast("tuple[int, ...]", value)) if value else default


def weight(ctx: Composition, node: Node, index: int, *, stored: bool = False) -> np.ndarray | None:
    """Constant input ``index`` in float64, or None; ``stored`` leaves a large one as the file holds it."""
    if index >= len(node.inputs) or not node.inputs[index] or ctx.varying(node.inputs[index]):
        return None
    value = ctx.constant(node.inputs[index])
    if value is None:
        return None
    array = value if stored and value.size >= LARGE and value.dtype == np.float32 else value.astype(np.float64)
    if not np.all(np.isfinite(array)):
        raise ModelError("weights: infinite or NaN values were found, finite ones were expected. Re-export the model.")
    let_go(array)
    return array


def _no(ctx: Composition, node: Node, why: str) -> Value:
    return ctx.fresh(node, math.inf, reason=unbounded(node, why))


@rule("MatMul")
def _matmul(ctx: Composition, node: Node) -> Value:
    a, b = node.inputs[:2]
    if ctx.varying(a) and ctx.varying(b):
        return varying_product(ctx, node, ctx.values[a], ctx.values[b])
    left = ctx.varying(b)
    x, W = (ctx.values[b], weight(ctx, node, 0, stored=True)) if left else (ctx.values[a], weight(ctx, node, 1, stored=True))
    if W is None:
        return _no(ctx, node, "its weights are not known before the model runs")
    return _left(ctx, node, x, W) if left else _right(ctx, node, x, W)


def _right(ctx: Composition, node: Node, x: Value, W: np.ndarray) -> Value:
    out = ctx.shape(node.outputs[0])
    if W.ndim == 1:
        W = W[:, None]
    if W.ndim == 2 or math.prod(W.shape[:-2]) == 1:
        return dense(ctx, node, x, W.reshape(W.shape[-2:]))
    # a batch of matrices: block-diagonal where x has the same batch axes; else every copy of x counts
    norm = max(matrix_norm(m).value for m in W.reshape(-1, *W.shape[-2:]))
    return _batched(ctx, node, x, W, norm, out)


def _left(ctx: Composition, node: Node, x: Value, W: np.ndarray) -> Value:
    """``W x``: the matrix acts along the last axis but one, or along the only one of a vector."""
    out = ctx.shape(node.outputs[0])
    if W.ndim == 1:
        W = W[None]
    norm = max(matrix_norm(m).value for m in W.reshape(-1, *W.shape[-2:])) if W.size else 0.0
    if W.ndim == 2 or math.prod(W.shape[:-2]) == 1:
        return ctx.linear(node, x, Other((node,), x.shape, out, NormBound(norm, "Gram eigenvalue")))
    return _batched(ctx, node, x, W, norm, out)


def _batched(ctx: Composition, node: Node, x: Value, W: np.ndarray, norm: float, out: tuple[int | None, ...] | None) -> Value:
    batch = None if x.shape is None else x.shape[:-2]
    copies = math.prod(W.shape[:-2])
    if batch is not None and len(batch) >= W.ndim - 2:
        tail = batch[len(batch) - (W.ndim - 2) :]
        copies = math.prod(w for w, d in zip(W.shape[:-2], tail, strict=True) if w != d)
    element = Other((node,), x.shape, out, NormBound(outward(norm * math.sqrt(copies)), "largest Gram eigenvalue of the batch"))
    return ctx.linear(node, x, element)


def dense(ctx: Composition, node: Node, x: Value, W: np.ndarray, *, output: int = 0, bias: np.ndarray | None = None) -> Value:
    """``x W + b`` along the last axis, with what is known of the range and the ball of its vectors."""
    shape = ctx.shape(node.outputs[output]) or (None if x.shape is None else (*x.shape[:-1], W.shape[1]))
    known: KnownOfValue = {}
    if np.all(np.isfinite(W)):
        known |= affine_range(W.T, x.low, x.high, bias)
        if x.ball is not None and x.ball.axis == -1:
            known["ball"] = _moved_ball(x.ball, W, bias)
    if x.kernels is not None and (source := ctx.values.get(x.kernels.source)) is not None and ctx.log(source) < math.inf:
        log = log10(x.kernels.stretch(W))
        method = "Gram matrix of the weighed centres"
        ctx.record(node, log, kind="linear", method=method, op=f"Gaussian kernels+{node.op}", shape=W.shape)
        return replace(ctx.fresh(node, times(log, ctx.log(source)), output=output, **known), shape=shape)
    let_go(W)
    return ctx.linear(node, x, Dense((node,), x.shape, shape, W), output=output, **known)


def _moved_ball(ball: Ball, W: np.ndarray, bias: np.ndarray | None) -> Ball | None:
    if bias is not None and bias.size not in (1, W.shape[1]):
        return None
    norm = matrix_norm(W).value
    centre = None
    if ball.centre is not None and ball.centre.size == W.shape[0]:
        centre = ball.centre @ W + (0.0 if bias is None else bias.reshape(-1))
        offset = float(np.linalg.norm(centre))
    else:
        offset = ball.offset * norm + (0.0 if bias is None else float(np.linalg.norm(bias)) * math.sqrt(W.shape[1] / bias.size))
    return Ball(-1, outward(ball.radius * norm), outward(offset), centre)


def affine_range(rows: np.ndarray, low: float, high: float, bias: np.ndarray | None) -> KnownOfValue:
    """Range of ``rows · v + bias`` for v with entries in [low, high]; rows is (…, out, in)."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return {}
    positive, negative = np.maximum(rows, 0).sum(-1, dtype=np.float64), np.minimum(rows, 0).sum(-1, dtype=np.float64)
    shift = np.zeros(()) if bias is None else bias
    try:
        least, most = positive * low + negative * high + shift, positive * high + negative * low + shift
    except ValueError:
        return {}
    room = 1e-9 * (1 + float(np.abs(least).max(initial=0)) + float(np.abs(most).max(initial=0)))
    return {"low": float(least.min(initial=math.inf)) - room, "high": float(most.max(initial=-math.inf)) + room}


@rule("Gemm")
def _gemm(ctx: Composition, node: Node) -> Value:
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if ctx.varying(node.inputs[0]) and ctx.varying(node.inputs[1]):
        return _no(ctx, node, "a product of two varying values has no global Lipschitz constant")
    first = ctx.varying(node.inputs[0])
    W = weight(ctx, node, 1 if first else 0, stored=alpha == 1.0)
    if not first and not ctx.varying(node.inputs[1]):
        return _no(ctx, node, "only its bias varies, which has no rule")
    if W is None or W.ndim != 2:
        return _no(ctx, node, "its weights are not a known matrix")
    flip_x, flip_w = ("transA", "transB") if first else ("transB", "transA")
    W = W.T if node.attributes.get(flip_w, 0) else W
    W = W if alpha == 1.0 else alpha * W
    varying_bias = len(node.inputs) > 2 and bool(node.inputs[2]) and ctx.varying(node.inputs[2])
    bias = weight(ctx, node, 2)
    x = ctx.values[node.inputs[0] if first else node.inputs[1]]
    if not first or node.attributes.get(flip_x, 0):
        element = Other((node,), x.shape, ctx.shape(node.outputs[0]), matrix_norm(W))
        y = ctx.linear(node, x, element)
    else:
        y = dense(ctx, node, x, W, bias=None if bias is None else bias * beta)
    if varying_bias:
        c = ctx.values[node.inputs[2]]
        if c.shape != y.shape:
            return _no(ctx, node, "a varying bias of another shape has no rule")
        shifted = ctx.linear(node, c, Scaling((node,), c.shape, c.shape, np.asarray(beta)))
        y = ctx.total(node, [replace(y, name=f"{y.name} product"), replace(shifted, name=f"{y.name} bias")])
    return y


@rule("Conv")
def _conv(ctx: Composition, node: Node) -> Value:
    W = weight(ctx, node, 1)
    if W is None or not ctx.varying(node.inputs[0]) or W.ndim < 3:
        return _no(ctx, node, "its kernel is not a known constant")
    if len(node.inputs) > 2 and node.inputs[2] and ctx.varying(node.inputs[2]):
        return _no(ctx, node, "its bias varies with the input")
    x, out, groups = ctx.values[node.inputs[0]], ctx.shape(node.outputs[0]), int(attribute(node, "group", 1))
    problem = _kernel_problem(W, groups, x.shape)
    if problem:
        return _no(ctx, node, problem)
    geometry = _geometry(node, W, x.shape, out)
    bias = weight(ctx, node, 2)
    padded = any(p > 0 for p in integers(node, "pads", (0,))) or node.attributes.get("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
        "",
    )
    known = affine_range(
        W.reshape(W.shape[0], -1), min(x.low, 0.0) if padded else x.low, max(x.high, 0.0) if padded else x.high, bias
    )
    return ctx.linear(node, x, Convolution((node,), x.shape, out, W, geometry, groups), **known)


def _kernel_problem(W: np.ndarray, groups: int, shape: tuple[int | None, ...] | None) -> str:
    if groups < 1 or W.shape[0] % groups:
        return f"its kernel has {W.shape[0]} output channels, which {groups} groups do not divide"
    if shape is not None and len(shape) != W.ndim:
        return f"its kernel has {W.ndim} axes, its input {len(shape)}"
    if shape is not None and shape[1] not in (None, W.shape[1] * groups):
        return f"its kernel reads {W.shape[1] * groups} channels, its input has {shape[1]}"
    return ""


def _geometry(node: Node, W: np.ndarray, shape: tuple[int | None, ...] | None, out: tuple[int | None, ...] | None) -> ConvGeometry:
    rank = W.ndim - 2
    strides, dilations = integers(node, "strides", (1,) * rank), integers(node, "dilations", (1,) * rank)
    sizes: list[tuple[int, int] | None] = []
    for axis in range(rank):
        n = shape[2 + axis] if shape is not None else None
        m = out[2 + axis] if out is not None else None
        sizes.append(None if n is None or m is None else (n, m))
    pads = integers(node, "pads", (0,) * (2 * rank))[:rank]
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        begin = []
        for axis, size in enumerate(sizes):
            reach = (W.shape[2 + axis] - 1) * dilations[axis] + 1
            total = reach - 1 if size is None else max(0, (size[1] - 1) * strides[axis] + reach - size[0])
            begin.append(total // 2 if auto == "SAME_UPPER" else total - total // 2)
        pads = tuple(begin)
    elif auto == "VALID":
        pads = (0,) * rank
    return ConvGeometry(strides, dilations, pads, tuple(sizes))


@rule("ConvTranspose")
def _conv_transpose(ctx: Composition, node: Node) -> Value:
    """The transpose of the convolution with the same kernel, from this node's output to its input: the same norm."""
    W = weight(ctx, node, 1)
    if W is None or not ctx.varying(node.inputs[0]) or W.ndim < 3:
        return _no(ctx, node, "its kernel is not a known constant")
    x, out, groups = ctx.values[node.inputs[0]], ctx.shape(node.outputs[0]), int(attribute(node, "group", 1))
    if groups < 1 or W.shape[0] % groups:
        return _no(ctx, node, f"its kernel has {W.shape[0]} input channels, which {groups} groups do not divide")
    rank = W.ndim - 2
    geometry = _geometry(node, W, x.shape, out)
    if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", "") or "output_shape" in node.attributes:
        geometry = replace(geometry, sizes=(None,) * rank)
    sizes = tuple(None if s is None else (s[1], s[0]) for s in geometry.sizes)
    element = Convolution((node,), x.shape, out, W, replace(geometry, sizes=sizes), groups, transposed=True)
    return ctx.linear(node, x, element)


@rule("Einsum")
def _einsum(ctx: Composition, node: Node) -> Value:
    """With one operand that varies, once, a linear map: written out where it is small."""
    moving = [i for i, name in enumerate(node.inputs) if ctx.varying(name)]
    if len(moving) != 1:
        return _no(ctx, node, "products of values that vary have no rule in this form")
    x, out = ctx.values[node.inputs[moving[0]]], ctx.shape(node.outputs[0])
    others = [weight(ctx, node, i) for i in range(len(node.inputs)) if i != moving[0]]
    if x.size is None or out is None or None in out or any(w is None for w in others):
        return _no(ctx, node, "its weights or shapes are not known before the model runs")
    if x.size * math.prod(d or 0 for d in out) > LARGE:
        return _no(ctx, node, "it is too large to be written out as a matrix")
    equation = str(node.attributes.get("equation", ""))
    shape = [d or 0 for d in x.shape or ()]

    def product(X: np.ndarray) -> np.ndarray:
        operands: list[list[np.ndarray]] = [[w for w in others if w is not None] for _ in X]
        for row, own in zip(X, operands, strict=True):
            own.insert(moving[0], row)
        return np.stack([np.einsum(equation, *own) for own in operands])

    matrix = product(np.eye(x.size).reshape(-1, *shape)).reshape(x.size, -1)
    return ctx.linear(node, x, Other((node,), x.shape, out, matrix_norm(matrix), product))


@rule("BatchNormalization")
def _batch_normalization(ctx: Composition, node: Node) -> Value:
    parts = [weight(ctx, node, k) for k in range(1, 5)]
    if any(p is None for p in parts) or not ctx.varying(node.inputs[0]):
        return _no(ctx, node, "its parameters are not known constants")
    if node.attributes.get("training_mode", 0):
        return _no(ctx, node, "is in training mode, where samples of a batch change each other")
    gamma, beta, mean, variance = (cast("np.ndarray", p).reshape(-1) for p in parts)
    floor = variance + attribute(node, "epsilon", 1e-5)
    if not np.all(floor > 0):
        return _no(ctx, node, "has a variance that is not positive")
    x = ctx.values[node.inputs[0]]
    if x.shape is None:
        return _no(ctx, node, "the rank of its input is not known")
    factor = gamma / np.sqrt(floor)
    along = (-1, *(1,) * (len(x.shape) - 2))
    y = scaled(ctx, node, x, factor.reshape(along))
    shift = (beta - mean * factor).reshape(along)
    ball = _ball_of_channels(x, y, shift)
    return replace(_shifted(y, y, shift), name=node.outputs[0], ball=ball)


def _ball_of_channels(x: Value, y: Value, shift: np.ndarray) -> Ball | None:
    rank = 0 if x.shape is None else len(x.shape)
    if y.ball is None or rank == 0 or y.ball.axis != 1 - rank:
        return None
    return Ball(y.ball.axis, y.ball.radius, outward(y.ball.offset + float(np.linalg.norm(shift))))


def _shifted(y: Value, x: Value, constant: np.ndarray) -> Value:
    """What is known of ``x + constant`` entered into ``y``."""
    least, most = float(constant.min(initial=math.inf)), float(constant.max(initial=-math.inf))
    polynomial, gate = None, None
    if least == most and math.isfinite(least):
        p = x.as_polynomial
        polynomial = Polynomial(p.base, (p.coefficients[0] + least, *p.coefficients[1:]))
        gate = None if x.gate is None else replace(x.gate, q=x.gate.q + least)
    ball = None
    if x.ball is not None and x.ball.axis == -1:
        rows = constant.reshape(-1, constant.shape[-1]) if constant.ndim else constant.reshape(1, 1)
        centre = None
        if x.ball.centre is not None and len(rows) == 1 and rows.shape[1] in (1, x.ball.centre.size):
            centre = x.ball.centre + rows[0]
            ball = Ball(-1, x.ball.radius, outward(float(np.linalg.norm(centre))), centre)
        elif x.shape is not None and x.shape[-1] is not None:
            spread = math.sqrt(x.shape[-1] / rows.shape[1]) if rows.shape[1] == 1 else 1.0
            moved = outward(float(np.linalg.norm(rows, axis=1).max(initial=0.0)) * spread)
            same = len(rows) == 1
            ball = Ball(-1, x.ball.radius + (0.0 if same else moved), x.ball.offset + (moved if same else 0.0))
    return replace(y, low=x.low + least, high=x.high + most, polynomial=polynomial, gate=gate, ball=ball)


@rule("Add", "Sub", "Sum")
def _add(ctx: Composition, node: Node) -> Value:
    return _sum_of(ctx, node)


def _sum_of(ctx: Composition, node: Node) -> Value:
    """The sum of the node's inputs, each broadcast to its output."""
    names = [n for n in node.inputs if n]
    signs = [1.0] * len(names) if node.op != "Sub" else [1.0, -1.0]
    parts: list[Value] = []
    for position, (name, sign) in enumerate(zip(names, signs, strict=True)):
        if not ctx.varying(name):
            continue
        x = ctx.values[name]
        x = _broadcast(ctx, node, x)
        if sign < 0:
            negative = scaled(ctx, node, x, np.asarray(-1.0))
            x = replace(negative, name=f"{node.outputs[0]} part {position}")
        parts.append(x)
    constants = [ctx.constant(n) for n in names if not ctx.varying(n)]
    if len(parts) == 1:
        x = parts[0]
        terms = x.terms or ((x, ()),)
        y = Value(node.outputs[0], ctx.shape(node.outputs[0]) or x.shape, terms)
        facts = x
        for constant, sign in zip(constants, [s for n, s in zip(names, signs, strict=True) if not ctx.varying(n)], strict=True):
            if constant is None or constant.size == 0 or not np.all(np.isfinite(constant)):
                return y
            y = _shifted(y, facts, sign * constant.astype(np.float64))
            facts = y
        return y
    low, high = sum(p.low for p in parts), sum(p.high for p in parts)
    if constants:
        low, high = -math.inf, math.inf
    known: KnownOfValue = {"low": low, "high": high}
    polynomials = [p.as_polynomial for p in parts]
    if not constants and len({p.base for p in polynomials}) == 1:
        width = max(len(p.coefficients) for p in polynomials)
        rows = [np.pad(p.coefficients, (0, width - len(p.coefficients))) for p in polynomials]
        total = np.sum(rows, axis=0)
        if np.abs(total).max() < 1e100:
            known["polynomial"] = Polynomial(polynomials[0].base, tuple(total.tolist()))
    balls = [p.ball for p in parts]
    if not constants and all(b is not None and b.axis == -1 for b in balls):
        known["ball"] = Ball(-1, sum(b.radius for b in balls if b), sum(b.offset for b in balls if b))
    return ctx.total(node, parts, **known)


def _broadcast(ctx: Composition, node: Node, x: Value) -> Value:
    """``x`` repeated to the shape of the node's output, when it is smaller."""
    shape = ctx.shape(node.outputs[0])
    if shape is None or x.shape is None or x.shape == shape:
        return x
    known = [d for d in x.shape if d is not None and d != 1]
    if None in x.shape or None in shape:
        tail = shape[len(shape) - len(x.shape) :]
        if len(x.shape) == len(shape) and all(a == b for a, b in zip(x.shape, tail, strict=True)):
            return x
        name = f"{node.outputs[0]} from {x.name}"
        why = f"is broadcast from {x.shape} to {shape}, where not every size is known ({len(known)} are)"
        return replace(ctx.fresh(node, math.inf, reason=unbounded(node, why)), name=name)
    index = np.broadcast_to(np.arange(x.size or 0).reshape([d or 0 for d in x.shape]), [d or 0 for d in shape])
    y = ctx.linear(node, x, Rearrange((node,), x.shape, shape, index), low=x.low, high=x.high)
    return replace(y, name=f"{node.outputs[0]} from {x.name}")


@rule("Mean")
def _mean(ctx: Composition, node: Node) -> Value:
    total = replace(_sum_of(ctx, node), name=f"{node.outputs[0]} sum")
    return scaled(ctx, node, total, np.asarray(1.0 / len(node.inputs)))
