"""Dot-product attention on tokens that lie in a ball, and other products of two varying matrices.

For one head with scores ``s_ij = c q_i·k_j + m_ij`` (``m`` fixed) and ``P = softmax(s)``, ``o_i = Σ_j P_ij v_j`` has

- through v: ``‖P‖₂ ≤ √n``, since the rows of P sum to 1 and its columns to at most n, the number of queries;
- through q: ``∂o_i = c Cov_{P_i}(v, k) ∂q_i``, at most ``c r_v r_k``, where r is the radius of a ball around any fixed centre;
- through k: ``∂o_i = c Σ_j P_ij (v_j − o_i) q_i·∂k_j``, so ``‖∂o_i‖² ≤ c² r_v² R_q² Σ_j P_ij ‖∂k_j‖²``,
  in total ``c r_v R_q √n``.

Heads act on their own parts of q, k and v, so the largest constants of any head serve all of them. Where g heads share keys and
values, the parts through these are g times as many: √g.

A cap of the scores, ``s' = t·tanh(s/t)``, has slopes of at most 1, one for each key; through q the centre of the keys' ball no
longer falls out, so that their reach R_k stands in place of r_k.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.spectral.bound_rules import rule
from onnxfim.spectral.linear import Dense, Other
from onnxfim.spectral.norms import NormBound, matrix_norm, outward
from onnxfim.spectral.result import log10, plus, times
from onnxfim.spectral.rules.pointwise import attribute, unless_nan
from onnxfim.spectral.site import Ball, Composition, Value, unbounded

NO_CONSTANT = "unbounded: dot-product attention has no global Lipschitz constant"
_NO_BALL = f"{NO_CONSTANT}, and no LayerNormalization or other bounded operator keeps its tokens in a ball"


def ball_of(value: Value, axis: int) -> Ball | None:
    """The ball of the value's vectors along ``axis``, from the ball or from the range that is known of it."""
    found = value.ball if value.ball is not None and value.ball.axis == axis else None
    if value.magnitude < math.inf and value.shape is not None and len(value.shape) >= -axis and value.shape[axis] is not None:
        d = value.shape[axis] or 0
        half, middle = (value.high - value.low) / 2, (value.high + value.low) / 2
        radius = outward(math.sqrt(d) * half)
        if found is None or radius < found.radius:
            return Ball(axis, radius, outward(math.sqrt(d) * abs(middle)))
    return found


def varying_product(ctx: Composition, node: Node, a: Value, b: Value) -> Value:
    """The matrix product of two varying values: attention where ``a`` is a softmax of scores, bilinear in balls otherwise."""
    softmax = _above(ctx, node.inputs[0], ("Identity", "Cast", "Dropout"))
    if softmax is not None and softmax.op == "Softmax" and _last_axis(ctx, softmax):
        scores = _scores(ctx, softmax)
        if scores is not None:
            q, k, c, k_axis = scores
            return attend(ctx, node, q, k, b, scale=c, k_axis=k_axis)
    return _bilinear(ctx, node, a, b)


def _above(ctx: Composition, name: str, through: tuple[str, ...]) -> Node | None:
    node = ctx.flow.graph.producers.get(name)
    while node is not None and (node.op in through or unless_nan(ctx, node) is not None):
        node = ctx.flow.graph.producers.get(unless_nan(ctx, node) or node.inputs[0])
    return node


def _last_axis(ctx: Composition, softmax: Node) -> bool:
    axis = int(attribute(softmax, "axis", -1))
    shape = ctx.shape(softmax.inputs[0])
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _scores(ctx: Composition, softmax: Node) -> tuple[Value, Value, float, int] | None:
    """Queries, keys, scale and the axis of the keys' vectors, from the input of the softmax upwards."""
    name, scale = softmax.inputs[0], 1.0
    producers = ctx.flow.graph.producers
    while (node := producers.get(name)) is not None:
        varying = [n for n in node.inputs if ctx.varying(n)]
        if node.op == "MatMul" and len(varying) == 2 and node.inputs[0] != node.inputs[1]:
            return ctx.values[varying[0]], ctx.values[varying[1]], scale, -2
        if len(varying) != 1:
            return None
        if node.op in ("Mul", "Div"):
            constant = ctx.constant(node.inputs[1] if node.inputs[0] == varying[0] else node.inputs[0])
            if constant is None or (node.op == "Div" and node.inputs[0] != varying[0]):
                return None
            size = np.abs(constant.astype(np.float64))
            scale *= float(size.max()) if node.op == "Mul" else 1.0 / float(size.min()) if size.min() > 0 else math.inf
        elif node.op not in ("Add", "Sub", "Identity", "Cast", "Where", "Reshape", "Unsqueeze", "Squeeze", "Dropout"):
            return None
        name = varying[0]
    return None


def attend(
    ctx: Composition, node: Node, q: Value, k: Value, v: Value, *, scale: float, k_axis: int = -1, heads: int = 1, sharing: int = 1,
    capped: bool = False,
) -> Value:  # fmt: skip
    """The output of attention on values in balls; leading axes and ``heads`` are independent problems.

    ``sharing`` heads have the same keys and values, which then have as many heads less; ``capped`` scores go through a tanh.
    """
    balls = [ball_of(q, -1), ball_of(k, k_axis), ball_of(v, -1)]
    if any(b is None for b in balls) or not math.isfinite(scale):
        return ctx.fresh(node, math.inf, reason=unbounded(node, _NO_BALL))
    n = q.shape[-2] if q.shape is not None and len(q.shape) > 1 else None
    leading = [None if x.shape is None else x.shape[:-2] if sharing == 1 else x.shape[:-3] for x in (q, k, v)]
    if n is None or len(set(leading)) != 1:
        return ctx.fresh(
            node,
            math.inf,
            reason=unbounded(node, "the number of tokens is not known, or heads share keys; attention has no rule for that"),
        )
    ball_q, ball_k, ball_v = (b for b in balls if b is not None)
    root = math.sqrt(n) if sharing == 1 else outward(math.sqrt(n * sharing))
    keys = ball_k.reach if capped else ball_k.radius
    through_v = times(log10(root), ctx.log(v))
    through_q = times(log10(scale * ball_v.radius * keys), ctx.log(q))
    through_k = times(log10(scale * ball_v.radius * ball_q.reach * root), ctx.log(k))
    log = plus(through_v, through_q, through_k)
    note = (
        f"ball bound, {n} tokens: √n·L(v) + c·r_v·(r_k·L(q) + √n·R_q·L(k)), c = {scale:.3g}, r_v = {ball_v.radius:.3g}, "
        f"r_k = {keys:.3g}, R_q = {ball_q.reach:.3g}"
    )
    largest = max(ctx.log(x) for x in (q, k, v))
    ctx.record(
        node,
        log - largest if math.isfinite(largest) else math.inf,
        kind="attention",
        method="ball bound",
        note=note,
        op="attention",
    )
    return ctx.fresh(node, log, q, k, v, low=v.low, high=v.high, ball=None if heads > 1 else ball_v)


def _bilinear(ctx: Composition, node: Node, a: Value, b: Value) -> Value:
    """``∂(AB) = ∂A·B + A·∂B`` with ``‖A‖₂ ≤ √n·max‖row‖``."""
    ball_a, ball_b = ball_of(a, -1), ball_of(b, -2)
    shapes_known = a.size is not None and b.size is not None and a.shape is not None and b.shape is not None
    if ball_a is None or ball_b is None or not shapes_known or a.shape is None or b.shape is None or len(a.shape) < 2:
        parent = next((ctx.reason(v) for v in (a, b) if ctx.log(v) == math.inf), "")
        return ctx.fresh(node, math.inf, reason=parent or unbounded(node, _NO_BALL))
    if a.shape[:-2] != b.shape[:-2] or a is b:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "a product of varying matrices with broadcast axes has no rule"))
    rows, columns = a.shape[-2] or 0, b.shape[-1] or 0
    log = plus(
        times(log10(math.sqrt(columns) * ball_b.reach), ctx.log(a)),
        times(log10(math.sqrt(rows) * ball_a.reach), ctx.log(b)),
    )
    reach = ball_a.reach * ball_b.reach
    ctx.record(node, log - max(ctx.log(a), ctx.log(b)), kind="product", method="product of values in balls")
    return ctx.fresh(node, log, a, b, low=-reach, high=reach)


@rule("com.microsoft.Attention")
def _fused_attention(ctx: Composition, node: Node) -> Value:
    """Self-attention with its projections inside: input, weights (D, 3H), bias."""
    x, W = ctx.values.get(node.inputs[0]), ctx.constant(node.inputs[1])
    bias = ctx.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    heads = int(attribute(node, "num_heads", 1))
    extras = [n for n in node.inputs[1:] if n and ctx.varying(n)]
    past = len(node.inputs) > 4 and node.inputs[4]
    if x is None or W is None or extras or past or heads < 1 or node.attributes.get("do_rotary", 0):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its projections are not known constants, or it keeps past keys"))
    W = W.astype(np.float64)
    sizes = node.attributes.get("qkv_hidden_sizes")
    widths = [int(s) for s in sizes] if isinstance(sizes, tuple) else [W.shape[1] // 3] * 3
    shift = np.zeros(W.shape[1]) if bias is None else bias.astype(np.float64)
    ends = np.cumsum(widths)[:-1]
    x = replace(x, ball=ball_of(x, -1))
    parts = [
        _projection(ctx, node, x, w, b, heads, label)
        for w, b, label in zip(np.split(W, ends, axis=1), np.split(shift, ends), "qkv", strict=True)
    ]
    scale = attribute(node, "scale", 0.0) or 1 / math.sqrt(widths[0] // heads)
    return attend(ctx, node, *parts, scale=scale, heads=heads)


def _projection(ctx: Composition, node: Node, x: Value, W: np.ndarray, bias: np.ndarray, heads: int, label: str) -> Value:
    shape = None if x.shape is None else (*x.shape[:-1], W.shape[1])
    y = ctx.linear(node, x, Dense((node,), x.shape, shape, W))
    ball = None
    if x.ball is not None:
        norms = [matrix_norm(w).value for w in np.split(W, heads, axis=1)]
        offsets = [x.ball.offset * n + float(np.linalg.norm(b)) for n, b in zip(norms, np.split(bias, heads), strict=True)]
        if x.ball.centre is not None:
            centre = x.ball.centre @ W + bias
            offsets = [float(np.linalg.norm(c)) for c in np.split(centre, heads)]
        ball = Ball(-1, outward(x.ball.radius * max(norms)), outward(max(offsets)))
    return replace(y, name=f"{node.outputs[0]} {label}", ball=ball)


@rule("com.microsoft.MultiHeadAttention", "Attention")
def _multi_head_attention(ctx: Composition, node: Node) -> Value | tuple[Value, ...]:
    """Attention on projected queries, keys and values, (batch, tokens, width) or (batch, heads, tokens, width)."""
    names = node.inputs[:3]
    fused = node.op.startswith("com")
    attributes = ("num_heads", "num_heads") if fused else ("q_num_heads", "kv_num_heads")
    heads, key_heads = (int(attribute(node, a, 1)) for a in attributes)
    odd = len(names) < 3 or not all(names) or not all(ctx.varying(n) for n in names)
    odd = odd or any(ctx.varying(n) for n in node.inputs[3:] if n) or any(node.inputs[6 if fused else 4 :])
    values = [ctx.values[n] for n in names if ctx.varying(n)]
    shapes = [v.shape for v in values if v.shape is not None]
    if odd or len(shapes) < 3 or (fused and len({len(s) for s in shapes}) > 1):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "packed, kept or unknown queries, keys and values have no rule"))
    shift = ctx.constant(node.inputs[3]) if fused and len(node.inputs) > 3 and node.inputs[3] else None
    q, k, v = values
    width, whole = shapes[0][-1], len(shapes[0]) == 4
    if whole:
        heads, key_heads = (s[1] or 0 for s in shapes[:2])
    if width is None or heads < 1 or key_heads < 1 or heads % key_heads:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "the width of its tokens, or of its heads, is not known"))
    if shift is not None and q.ball is not None:
        q = replace(q, ball=replace(q.ball, offset=q.ball.offset + float(np.linalg.norm(shift[:width])), centre=None))
    if q.magnitude < math.inf and shift is not None:
        q = replace(q, low=-math.inf, high=math.inf)
    scale = attribute(node, "scale", 0.0) or 1 / math.sqrt(width if whole else width // heads)
    sharing = heads // key_heads
    result = attend(
        ctx, node, q, k, v, scale=scale, heads=1 if whole else heads, sharing=sharing, capped=attribute(node, "softcap", 0.0) != 0
    )
    known = replace(result, low=-math.inf, high=math.inf, ball=None) if shift is not None else result
    return (known, *(ctx.fresh(node, math.inf, reason=unbounded(node, "only its first output has a rule"), output=i)
                     for i, o in enumerate(node.outputs) if i and o))  # fmt: skip


@rule("RotaryEmbedding", "com.microsoft.RotaryEmbedding")
def _rotary(ctx: Composition, node: Node) -> Value:
    """Pairs of entries are turned: at most by the largest √(cos² + sin²), by another angle for each token."""
    x = ctx.values[node.inputs[0]]
    cos, sin = (ctx.constant(n) for n in (node.inputs[2:4] if node.op.startswith("com") else node.inputs[1:3]))
    if cos is None or sin is None or cos.shape != sin.shape or any(ctx.varying(n) for n in node.inputs[1:]):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its angles are not known constants"))
    turn = np.hypot(cos.astype(np.float64), sin.astype(np.float64)).max(initial=0.0)
    part = attribute(node, "rotary_embedding_dim", 0) > 0  # the other entries stay
    norm = outward(max(float(turn), 1.0 if part else 0.0) * abs(attribute(node, "scale", 1.0)))
    ball = ball_of(x, -1)
    moved = None if ball is None else Ball(-1, outward(ball.reach * norm), 0.0)
    element = Other((node,), x.shape, ctx.shape(node.outputs[0]) or x.shape, NormBound(norm, "largest √(cos² + sin²)"))
    return ctx.linear(node, x, element, ball=moved)
