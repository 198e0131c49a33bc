"""Rules of entrywise operators: the largest slope of each, derived where it stands, and the range of its values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.spectral.bound_rules import rule
from onnxfim.spectral.result import log10, root_sum, times
from onnxfim.spectral.site import Composition, GateForm, KnownOfValue, Value, unbounded

if TYPE_CHECKING:
    from typing_extensions import Unpack

# x·Φ(x): the slope Φ + xφ has its extremes where (2 − x²)φ = 0, at x = ±√2: Φ(√2) + √2 φ(√2).
GELU = 0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi)
# x·σ(x): slope σ(1 + x(1 − σ)), extreme where 2 + x(1 − 2σ) = 0, x tanh(x/2) = 2, x = 2.39936: 1.099840.
SILU = 1.0998394
# x·tanh(softplus x): extreme of the slope at x ≈ 1.4906: 1.088398.
MISH = 1.0884
# ½x(1 + tanh(√(2/π)(x + 0.044715x³))): extreme of the slope at x ≈ 1.4240: 1.128998.
GELU_TANH = 1.1290


def attribute(node: Node, name: str, default: float) -> float:
    """A numeric attribute."""
    value = node.attributes.get(name, default)
    return float(value) if isinstance(value, (int, float)) else default


def _clip(low: float, high: float, f: Callable[[float], float]) -> KnownOfValue:
    """The range of a non-decreasing function."""
    return {"low": f(low), "high": f(high)}


def _pointwise(ctx: Composition, node: Node, slope: float, **known: Unpack[KnownOfValue]) -> Value:
    """A value that follows the node's first input with at most ``slope``."""
    value = ctx.values[node.inputs[0]]
    if slope != 1.0:
        ctx.record(node, log10(slope), kind="activation", method="largest slope")
    return ctx.fresh(node, times(log10(slope), ctx.log(value)), value, **known)


@rule("Relu")
def _relu(ctx: Composition, node: Node) -> Value:
    x = ctx.values[node.inputs[0]]
    return _pointwise(ctx, node, 1.0, **_clip(x.low, x.high, lambda v: max(v, 0.0)))


@rule("LeakyRelu")
def _leaky_relu(ctx: Composition, node: Node) -> Value:
    x, a = ctx.values[node.inputs[0]], attribute(node, "alpha", 0.01)
    known = _clip(x.low, x.high, lambda v: v if v > 0 else a * v) if a >= 0 else {}
    return _pointwise(ctx, node, max(1.0, abs(a)), **known)


@rule("PRelu")
def _prelu(ctx: Composition, node: Node) -> Value:
    slope = ctx.constant(node.inputs[1])
    if slope is None or ctx.varying(node.inputs[1]):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its slope is not a constant"))
    return _pointwise(ctx, node, max(1.0, float(np.abs(slope.astype(float)).max(initial=0.0))))


@rule("Elu")
def _elu(ctx: Composition, node: Node) -> Value:
    # slope 1 above zero, αe^x below: at most |α|
    a = attribute(node, "alpha", 1.0)
    return _pointwise(ctx, node, max(1.0, abs(a)), low=-abs(a) if a >= 0 else -math.inf)


@rule("Selu")
def _selu(ctx: Composition, node: Node) -> Value:
    a, g = attribute(node, "alpha", 1.67326319217681884765625), attribute(node, "gamma", 1.05070102214813232421875)
    return _pointwise(ctx, node, abs(g) * max(1.0, abs(a)))  # γ above zero, γαe^x below


@rule("Celu")
def _celu(ctx: Composition, node: Node) -> Value:
    a = attribute(node, "alpha", 1.0)
    if a <= 0:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "alpha is not positive"))
    return _pointwise(ctx, node, 1.0, low=-a)  # e^{x/α} ≤ 1 below zero


@rule("Sigmoid")
def _sigmoid(ctx: Composition, node: Node) -> Value:
    gate = GateForm("sigmoid", ctx.values[node.inputs[0]].as_polynomial, 1.0, 0.0)
    return _pointwise(ctx, node, 0.25, low=0.0, high=1.0, gate=gate)  # σ(1 − σ) ≤ ¼


@rule("Tanh")
def _tanh(ctx: Composition, node: Node) -> Value:
    x = ctx.values[node.inputs[0]]
    gate = GateForm("tanh", x.as_polynomial, 1.0, 0.0)
    if x.gate is not None and (x.gate.kind, x.gate.p, x.gate.q) == ("softplus", 1.0, 0.0):
        gate = GateForm("tanh-softplus", x.gate.inner, 1.0, 0.0)
    return _pointwise(ctx, node, 1.0, low=-1.0, high=1.0, gate=gate)


@rule("Softplus")
def _softplus(ctx: Composition, node: Node) -> Value:
    gate = GateForm("softplus", ctx.values[node.inputs[0]].as_polynomial, 1.0, 0.0)
    return _pointwise(ctx, node, 1.0, low=0.0, gate=gate)  # its slope is σ


@rule("Erf")
def _erf(ctx: Composition, node: Node) -> Value:
    gate = GateForm("erf", ctx.values[node.inputs[0]].as_polynomial, 1.0, 0.0)
    return _pointwise(ctx, node, 2 / math.sqrt(math.pi), low=-1.0, high=1.0, gate=gate)  # 2/√π at zero


@rule("HardSigmoid")
def _hard_sigmoid(ctx: Composition, node: Node) -> Value:
    a, b = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    x = ctx.values[node.inputs[0]]
    inner = x.as_polynomial
    scaled = tuple(a * c + (b if k == 0 else 0.0) for k, c in enumerate(inner.coefficients))
    gate = GateForm("clip 0 1", type(inner)(inner.base, scaled), 1.0, 0.0)
    return _pointwise(ctx, node, abs(a), low=0.0, high=1.0, gate=gate)


@rule("Clip")
def _clip_rule(ctx: Composition, node: Node) -> Value:
    x = ctx.values[node.inputs[0]]
    bounds = []
    for k, default in enumerate((-math.inf, math.inf), start=1):
        value: float | None = default
        if len(node.inputs) > k and node.inputs[k]:
            array = ctx.constant(node.inputs[k])
            value = None if array is None or array.size != 1 else float(array.reshape(()))
        if value is None:
            return ctx.fresh(node, math.inf, reason=unbounded(node, "its limits are not constants"))
        bounds.append(value)
    low, high = bounds
    gate = GateForm(f"clip {low!r} {high!r}", x.as_polynomial, 1.0, 0.0) if math.isfinite(low) and math.isfinite(high) else None
    known = _clip(x.low, x.high, lambda v: min(max(v, low), high))
    known["gate"] = gate
    return _pointwise(ctx, node, 1.0, **known)


@rule("HardSwish")
def _hard_swish(ctx: Composition, node: Node) -> Value:
    return _pointwise(ctx, node, 1.5, low=-0.375)  # x(x + 3)/6 on [-3, 3]: slope (2x + 3)/6, 3/2 at the end


@rule("Mish")
def _mish(ctx: Composition, node: Node) -> Value:
    return _pointwise(ctx, node, MISH, low=-0.31)


@rule("Swish")
def _swish(ctx: Composition, node: Node) -> Value:
    return _pointwise(ctx, node, SILU)  # x·σ(αx) has the slope of x·σ(x) at αx


@rule("Shrink")
def _shrink(ctx: Composition, node: Node) -> Value:
    if attribute(node, "bias", 0.0) != attribute(node, "lambd", 0.5):
        return ctx.fresh(node, math.inf, reason=unbounded(node, "jumps at its threshold, so it has no Lipschitz constant"))
    return _pointwise(ctx, node, 1.0)


@rule("Gelu", "com.microsoft.Gelu")
def _gelu(ctx: Composition, node: Node) -> Value:
    return _pointwise(ctx, node, max(GELU, GELU_TANH), low=-0.171)


@rule("Softsign", "Sin", "Cos", "Atan", "Abs", "Asinh")
def _slope_one(ctx: Composition, node: Node) -> Value:
    # 1/(1+|x|)², cos, −sin, 1/(1+x²), ±1, 1/√(1+x²): all at most 1
    limits = {"Softsign": (-1.0, 1.0), "Sin": (-1.0, 1.0), "Cos": (-1.0, 1.0), "Atan": (-1.6, 1.6)}
    x = ctx.values[node.inputs[0]]
    low, high = limits.get(node.op, (0.0, x.magnitude) if node.op == "Abs" else (-math.inf, math.inf))
    return _pointwise(ctx, node, 1.0, low=low, high=high)


@rule("ThresholdedRelu")
def _thresholded_relu(ctx: Composition, node: Node) -> Value:
    if attribute(node, "alpha", 1.0) != 0:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "jumps at its threshold, so it has no Lipschitz constant"))
    return _pointwise(ctx, node, 1.0, low=0.0)


@rule("Exp", "Log", "Sqrt", "Reciprocal")
def _by_range(ctx: Composition, node: Node) -> Value:
    """Functions whose slope is bounded only on a range of their input."""
    x = ctx.values[node.inputs[0]]
    low, high = x.low, x.high
    slope, f, g = math.inf, -math.inf, math.inf
    if node.op == "Exp" and high < 700:
        slope, f, g = math.exp(high), math.exp(low), math.exp(high)
    elif low > 0:
        if node.op == "Log":
            slope, f, g = 1 / low, math.log(low), math.log(high) if high < math.inf else math.inf
        elif node.op == "Sqrt":
            slope, f, g = 0.5 / math.sqrt(low), math.sqrt(low), math.sqrt(high)
        elif node.op == "Reciprocal":
            slope, f, g = 1 / low / low, 1 / high, 1 / low
    if not math.isfinite(slope):
        return ctx.fresh(
            node, math.inf, x, reason=ctx.reason(x) or unbounded(node, "its slope is not bounded where its input may lie")
        )
    return _pointwise(ctx, node, slope, low=f * (1 - 1e-12) if f > 0 else f, high=g * (1 + 1e-12) if g > 0 else g)


@rule("Max", "Min")
def _extreme(ctx: Composition, node: Node) -> Value:
    # each entry follows one argument, so ‖J‖² ≤ Σ‖J_i‖² over those that vary (each broadcast at most as its rule of
    # copies says)
    pick = max if node.op == "Max" else min
    logs, lows, highs, parents = [], [], [], []
    for name in node.inputs:
        if ctx.varying(name):
            value = ctx.values[name]
            logs.append(times(ctx.log(value), copies_log(ctx, value, node)))
            lows.append(value.low)
            highs.append(value.high)
            parents.append(value)
        else:
            array = ctx.constant(name)
            known = array is not None and array.size > 0
            lows.append(float(array.min()) if known and array is not None else -math.inf)
            highs.append(float(array.max()) if known and array is not None else math.inf)
    return ctx.fresh(node, root_sum(*logs), *parents, low=pick(lows), high=pick(highs))


def unless_nan(ctx: Composition, node: Node) -> str | None:
    """The value that a ``Where(IsNaN(value), constant, value)`` hands on; None for any other node.

    PyTorch writes it behind a softmax, for rows that a mask hides whole. Numbers stay as they are, so that it does not jump.
    """
    if node.op != "Where" or ctx.varying(node.inputs[1]):
        return None
    asked = ctx.flow.graph.producers.get(node.inputs[0])
    return node.inputs[2] if asked is not None and asked.op == "IsNaN" and asked.inputs[0] == node.inputs[2] else None


@rule("Where")
def _where(ctx: Composition, node: Node) -> Value:
    if ctx.varying(node.inputs[0]) and unless_nan(ctx, node) is None:
        return ctx.fresh(node, math.inf, reason=unbounded(node, "its condition varies with the input, so it may jump"))
    values = [ctx.values[n] for n in node.inputs[1:] if ctx.varying(n)]
    constants = [ctx.constant(n) for n in node.inputs[1:] if not ctx.varying(n)]
    low = min([v.low for v in values] + [-math.inf if c is None else float(c.min()) for c in constants])
    high = max([v.high for v in values] + [math.inf if c is None else float(c.max()) for c in constants])
    ball = values[0].ball if len(values) == 1 and all(c is not None and not c.any() for c in constants) else None
    log = root_sum(*(times(ctx.log(v), copies_log(ctx, v, node)) for v in values))
    kept = None if ball is None else type(ball)(ball.axis, ball.radius + ball.offset, 0.0)
    return ctx.fresh(node, log, *values, low=low, high=high, ball=kept)


def copies_log(ctx: Composition, value: Value, node: Node) -> float:
    """log10 √copies of broadcasting ``value`` to the node's output; infinite when the shapes are not known."""
    target = ctx.shape(node.outputs[0])
    mine = value.shape
    if mine is not None and target is not None and len(mine) == len(target) and all(
        a == b or (a is not None and a != 1 and a == b) for a, b in zip(mine, target, strict=True)
    ) and (None not in mine or _same_unknown(ctx, node)):  # fmt: skip
        return 0.0
    if value.size is None or target is None or None in target:
        return 0.0 if _same_unknown(ctx, node) else math.inf
    return log10(math.sqrt(math.prod(d or 0 for d in target) / max(1, value.size)))


def _same_unknown(ctx: Composition, node: Node) -> bool:
    """Whether the varying inputs have one rank and the same unknown axes, so that none of them is broadcast along those."""
    shapes = [ctx.values[n].shape for n in node.inputs if ctx.varying(n)]
    ranks = {None if s is None else len(s) for s in shapes}
    if None in ranks or len(ranks) != 1:
        return False
    return len({tuple(s or ()) for s in shapes}) == 1 and all(
        (c := ctx.constant(n)) is not None and (c.size == 1 or c.ndim <= max(r for r in ranks if r is not None))
        for n in node.inputs if n and not ctx.varying(n)
    )  # fmt: skip


@rule(
    "QuantizeLinear", "com.microsoft.QuantizeLinear", "DynamicQuantizeLinear",
    "Round", "Floor", "Ceil", "Sign", "Not", "Equal", "Greater", "Less",
    "GreaterOrEqual",
    "LessOrEqual", "ArgMax", "ArgMin", "Hardmax", "Mod", "NonZero", "And", "Or", "Xor", "IsNaN", "IsInf",
)  # fmt: skip
def _jumps(ctx: Composition, node: Node) -> tuple[Value, ...]:
    first = next((ctx.reason(ctx.values[n]) for n in node.inputs if ctx.varying(n) and ctx.log(ctx.values[n]) == math.inf), "")
    rounding = (
        "rounds to steps, so it has no Lipschitz constant" if "Quantize" in node.op else "jumps, so it has no Lipschitz constant"
    )
    return tuple(
        ctx.fresh(node, math.inf, reason=first or unbounded(node, rounding), output=k) for k, o in enumerate(node.outputs) if o
    )


#: Operators on whole numbers, of static and dynamic quantisation, that the standard and the runtime define.
_ON_INTEGERS = (
    *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "com.microsoft.QGemm", "com.microsoft.QLinearAdd"),
    *("com.microsoft.QLinearMul", "com.microsoft.QLinearConcat", "com.microsoft.QLinearGlobalAveragePool"),
    *("com.microsoft.QLinearAveragePool", "com.microsoft.QLinearSigmoid", "com.microsoft.QLinearLeakyRelu"),
    *("com.microsoft.QLinearSoftmax", "com.microsoft.DynamicQuantizeMatMul", "com.microsoft.MatMulIntegerToFloat"),
    *("com.microsoft.QAttention", "com.microsoft.DynamicQuantizeLSTM"),
)


@rule(*_ON_INTEGERS)
def _on_integers(ctx: Composition, node: Node) -> tuple[Value, ...]:
    given = next((ctx.reason(ctx.values[n]) for n in node.inputs if ctx.varying(n) and ctx.log(ctx.values[n]) == math.inf), "")
    reason = given or unbounded(node, "computes with whole numbers, so it has no Lipschitz constant")
    return tuple(ctx.fresh(node, math.inf, reason=reason, output=k) for k, o in enumerate(node.outputs) if o)


@rule("DequantizeLinear", "com.microsoft.DequantizeLinear")
def _dequantize(ctx: Composition, node: Node) -> Value:
    x = ctx.values[node.inputs[0]]
    return ctx.fresh(node, math.inf, x, reason=ctx.reason(x) or unbounded(node, "reads whole numbers that vary with the input"))
