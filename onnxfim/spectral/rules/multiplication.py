"""Rules of Mul, Div and Pow: constants scale, gates `x·h(x)` are one function, and other products need bounded values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.spectral.bound_rules import rule
from onnxfim.spectral.linear import Rearrange, Scaling
from onnxfim.spectral.result import log10, plus, times
from onnxfim.spectral.rules.pointwise import GELU_TANH, MISH, SILU, copies_log
from onnxfim.spectral.site import Ball, Composition, GateForm, KnownOfValue, Polynomial, Value, unbounded

_DEGREE = 4


@rule("Mul")
def _mul(ctx: Composition, node: Node) -> Value:
    a, b = node.inputs[:2]
    if ctx.varying(a) and ctx.varying(b):
        return product(ctx, node, ctx.values[a], ctx.values[b])
    x, factor = (a, ctx.constant(b)) if ctx.varying(a) else (b, ctx.constant(a))
    if factor is None:
        return _unknown(ctx, node, "is multiplied by a value that is unknown before the model runs")
    return scaled(ctx, node, ctx.values[x], factor.astype(np.float64))


@rule("Div")
def _div(ctx: Composition, node: Node) -> Value:
    a, b = node.inputs[:2]
    if ctx.varying(b):
        return _quotient(ctx, node)
    divisor = ctx.constant(b)
    if divisor is None or not np.all(divisor):
        return _unknown(ctx, node, "is divided by zero or by a value that is unknown before the model runs")
    return scaled(ctx, node, ctx.values[a], 1.0 / divisor.astype(np.float64))


@rule("Neg")
def _neg(ctx: Composition, node: Node) -> Value:
    return scaled(ctx, node, ctx.values[node.inputs[0]], np.asarray(-1.0))


def _unknown(ctx: Composition, node: Node, why: str) -> Value:
    return ctx.fresh(node, math.inf, reason=unbounded(node, why))


def scaled(ctx: Composition, node: Node, x: Value, factor: np.ndarray) -> Value:
    """``x`` times a constant, broadcast first where the constant is larger."""
    shape = ctx.shape(node.outputs[0])
    value = x
    if factor.size > 1 and not _fits(factor, x):
        if x.size is None or shape is None or None in shape:
            why = f"is scaled by a constant of shape {factor.shape}, and its own shape is not known"
            return ctx.fresh(node, math.inf, reason=(x.reason if x.log == math.inf else "") or unbounded(node, why))
        index = np.broadcast_to(np.arange(x.size).reshape([d or 0 for d in x.shape or ()]), [d or 0 for d in shape])
        moved = ctx.linear(node, x, Rearrange((node,), x.shape, shape, index))
        value = replace(moved, name=f"{node.outputs[0]} from {x.name}")
    known: KnownOfValue = {}
    if np.all(np.isfinite(factor)):
        known = _scaled_facts(x, factor)
    return ctx.linear(node, value, Scaling((node,), shape, shape, factor), **known)


def _fits(factor: np.ndarray, x: Value) -> bool:
    if x.shape is None or factor.ndim > len(x.shape):
        return False
    tail = x.shape[len(x.shape) - factor.ndim :]
    return all(f in (1, d) for f, d in zip(factor.shape, tail, strict=True))


def _scaled_facts(x: Value, factor: np.ndarray) -> KnownOfValue:
    least, most = float(factor.min()), float(factor.max())
    ends = [k * v if k != 0 else 0.0 for k in (least, most) for v in (x.low, x.high)]
    known: KnownOfValue = {"low": min(ends), "high": max(ends)}
    if least == most and abs(least) * max(map(abs, x.as_polynomial.coefficients)) < 1e100:
        p = x.as_polynomial
        known["polynomial"] = Polynomial(p.base, tuple(least * c for c in p.coefficients))
        if x.gate is not None:
            known["gate"] = GateForm(x.gate.kind, x.gate.inner, x.gate.p * least, x.gate.q * least)
    if x.ball is not None:
        size = max(abs(least), abs(most)) * (1 + 1e-12)
        centre = None
        if x.ball.centre is not None and x.ball.axis == -1 and factor.size in (1, x.ball.centre.size):
            centre = x.ball.centre * factor.reshape(-1)
        along = least == most or (x.ball.axis == -1 and factor.size == factor.shape[-1])
        if along:
            offset = size * x.ball.offset if centre is None else float(np.linalg.norm(centre)) * (1 + 1e-12)
            known["ball"] = Ball(x.ball.axis, size * x.ball.radius, offset, centre)
    return known


def product(ctx: Composition, node: Node, x: Value, y: Value) -> Value:
    """The product of two varying values: a gate, a power, or by the range of both."""
    for a, b in ((x, y), (y, x)):
        slope = gate_slope(a, b)
        if slope is not None:
            base = ctx.values[b.gate.inner.base] if b.gate else a
            ctx.record(node, log10(slope), kind="activation", method="largest slope of the gate x·h(x)")
            return ctx.fresh(node, times(log10(slope), ctx.log(base)), base, **_range(x, y))
    known = _range(x, y)
    p, q = x.as_polynomial, y.as_polynomial
    if p.base == q.base and len(p.coefficients) + len(q.coefficients) - 2 <= _DEGREE:
        c = np.convolve(p.coefficients, q.coefficients)
        if np.abs(c).max() < 1e100:
            known["polynomial"] = Polynomial(p.base, tuple(c.tolist()))
    elif x is y:
        known["polynomial"] = Polynomial(x.name, (0.0, 0.0, 1.0))
    log = plus(
        times(log10(y.magnitude) if y.magnitude < math.inf else math.inf, copies_log(ctx, x, node), ctx.log(x)),
        times(log10(x.magnitude) if x.magnitude < math.inf else math.inf, copies_log(ctx, y, node), ctx.log(y)),
    )
    if log == math.inf:
        parent = next((ctx.reason(v) for v in (x, y) if ctx.log(v) == math.inf), "")
        why = "the product of two values that vary with the input and are not both bounded has no global Lipschitz constant"
        return ctx.fresh(node, log, reason=parent or unbounded(node, why), **known)
    return ctx.fresh(node, log, **known)


def _range(x: Value, y: Value) -> KnownOfValue:
    """The range of a product."""
    if x.magnitude == math.inf or y.magnitude == math.inf:
        return {"low": 0.0} if x is y else {}
    ends = [a * b for a in (x.low, x.high) for b in (y.low, y.high)]
    return {"low": min(ends), "high": max(ends)}


def gate_slope(x: Value, y: Value) -> float | None:
    """Largest slope of ``u·(p·h(t) + q)``, where ``u = kb + c₀`` and ``t = ab + c`` of one value b.

    The derivative is ``kq + kp·(h(t) + (t − δ) h'(t))`` with ``δ = c − a c₀/k``, so it does not depend on ``a``.
    """
    gate, u = y.gate, x.as_polynomial
    if gate is None or gate.inner.base != u.base or len(u.coefficients) != 2:
        return None
    (c0, k), inner = u.coefficients, gate.inner.coefficients
    if k == 0:
        return None
    if len(inner) == 4 and gate.kind == "tanh" and inner[0] == inner[2] == 0 and inner[1] > 0 and inner[3] > 0 and c0 == 0:
        is_gelu = abs(inner[3] / inner[1] - 0.044715) < 1e-5 and abs(inner[1] - math.sqrt(2 / math.pi)) < 1e-5
        # elsewhere: bP'(b) ≤ 3P, and |tanh P + 3P sech²P| ≤ 1.9 (its largest value, 1.8985, is at P = 0.84)
        reach = 2 * GELU_TANH - 1 if is_gelu else 1.9
        return abs(k * gate.q) + abs(k * gate.p) * reach
    if len(inner) != 2:
        return None
    c, a = inner
    delta = c - a * c0 / k
    if gate.kind == "tanh-softplus":
        return abs(k * gate.q) + abs(k * gate.p) * MISH if (c, a, c0) == (0.0, 1.0, 0.0) else None
    extremes = _gate_range(gate.kind, delta)
    if extremes is None:
        return None
    return max(abs(k * gate.q + k * gate.p * e) for e in extremes)


def _gate_range(kind: str, delta: float) -> tuple[float, float] | None:
    """Least and largest value of ``h(t) + (t − δ)h'(t)``; h' lies between 0 and its largest slope, so δ shifts the ends
    by it."""
    if kind == "sigmoid":
        low, high, slope = 1 - SILU, SILU, 0.25
    elif kind == "tanh":
        low, high, slope = -1.1997, 1.1997, 1.0  # 2·silu(2t) − t: slope 2·1.09984 − 1
    elif kind == "erf":
        reach = math.erf(1.0) + 2 * math.exp(-1.0) / math.sqrt(math.pi)  # at t = 1: the Gelu constant again
        low, high, slope = -reach, reach, 2 / math.sqrt(math.pi)
    elif kind.startswith("clip"):
        least, most = (float(v) for v in kind.split()[1:])
        ends = (least, most, 2 * least - delta, 2 * most - delta)  # outside, and t + (t − δ) at both ends
        return min(ends), max(ends)
    else:
        return None
    return low - max(delta, 0.0) * slope, high + max(-delta, 0.0) * slope


@rule("Pow")
def _pow(ctx: Composition, node: Node) -> Value:
    exponent = ctx.constant(node.inputs[1])
    if ctx.varying(node.inputs[1]) or exponent is None or exponent.size != 1:
        return _unknown(ctx, node, "its exponent is not one constant")
    e, x = float(exponent.reshape(())), ctx.values[node.inputs[0]]
    known: KnownOfValue = {}
    p = x.as_polynomial
    if e in (1.0, 2.0, 3.0) and (len(p.coefficients) - 1) * e <= _DEGREE:
        c = np.array([1.0])
        for _ in range(int(e)):
            c = np.convolve(c, p.coefficients)
        known["polynomial"] = Polynomial(p.base, tuple(c.tolist()))
    if e == 1.0:
        return scaled(ctx, node, x, np.ones(()))
    slope = math.inf
    if e > 1 and x.magnitude < math.inf and (x.low >= 0 or e == int(e)):
        slope = e * x.magnitude ** (e - 1)
        ends = [v**e for v in (x.low, x.high)]
        low = min(0.0, *ends) if x.low < 0 < x.high else min(ends)
        known |= {"low": low, "high": max(ends)}
    elif e < 1 and x.low > 0:
        slope = abs(e) * x.low ** (e - 1)
        known |= {"low": min(x.low**e, x.high**e if x.high < math.inf else (0.0 if e < 0 else math.inf)),
                  "high": max(x.low**e, x.high**e)}  # fmt: skip
    elif e == 2.0:
        known["low"] = 0.0
    if slope == math.inf:
        return ctx.fresh(
            node,
            math.inf,
            x,
            reason=ctx.reason(x) or unbounded(node, "its slope is not bounded where its input may lie"),
            **known,
        )
    ctx.record(node, log10(slope), kind="activation", method="largest slope on its range")
    return ctx.fresh(node, times(log10(slope), ctx.log(x)), x, **known)


def _quotient(ctx: Composition, node: Node) -> Value:
    """``a / b`` with a varying divisor bounded away from zero: |∂a|/|b| + |a||∂b|/b²."""
    b = ctx.values[node.inputs[1]]
    least = b.low if b.low > 0 else -b.high if b.high < 0 else 0.0
    if least <= 0:
        return ctx.fresh(
            node,
            math.inf,
            reason=ctx.reason(b) or unbounded(node, "its divisor varies with the input and is not bounded away from zero"),
        )
    if ctx.varying(node.inputs[0]):
        a = ctx.values[node.inputs[0]]
        top, log_a = a.magnitude, times(log10(1 / least), copies_log(ctx, a, node), ctx.log(a))
    else:
        constant = ctx.constant(node.inputs[0])
        top, log_a = (math.inf if constant is None else float(np.abs(constant).max(initial=0.0))), -math.inf
    if top == math.inf:
        return ctx.fresh(
            node,
            math.inf,
            reason=unbounded(node, "its dividend and its divisor vary with the input, and the dividend is not bounded"),
        )
    log = plus(log_a, times(log10(top / least / least), copies_log(ctx, b, node), ctx.log(b)))
    return ctx.fresh(node, log, low=-top / least, high=top / least)
