"""Derivatives of element-wise operators: f'(x) written from the input or, where cheaper, from the output."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnxfim.gradients.derivative_rules import Partial, Site, derivative, pointwise


def _step(n: Site, test: str, a: str, b: str | float) -> str:
    """0/1 in the node's type where the comparison holds."""
    return n.mask(n.write(test, a, b))


def _square(n: Site, t: str) -> str:
    return n.mul(t, t)


def _sigmoid_slope(n: Site, t: str) -> str:
    """s(t) s(−t): keeps its relative accuracy where the sigmoid saturates."""
    return n.mul(n.write("Sigmoid", t), n.write("Sigmoid", n.write("Neg", t)))


# functions of one input: the slope

derivative("Identity")(lambda n: 1.0)
derivative("Neg")(lambda n: -1.0)
derivative("Relu")(lambda n: n.write("Sign", n.y))  # from the output: 0 at the kink, as autograd frameworks have it
derivative("Abs")(lambda n: n.write("Sign", n.x))
derivative("Sigmoid")(lambda n: _sigmoid_slope(n, n.x))
derivative("Tanh")(lambda n: n.sub(1.0, _square(n, n.y)))
derivative("Exp")(lambda n: n.y)
derivative("Log")(lambda n: n.write("Reciprocal", n.x))
derivative("Sqrt")(lambda n: n.div(0.5, n.y))
derivative("Reciprocal")(lambda n: n.write("Neg", _square(n, n.y)))
derivative("Sin")(lambda n: n.write("Cos", n.x))
derivative("Cos")(lambda n: n.write("Neg", n.write("Sin", n.x)))
derivative("Atan")(lambda n: n.write("Reciprocal", n.add(_square(n, n.x), 1.0)))
derivative("Tan")(lambda n: n.add(_square(n, n.y), 1.0))
derivative("Asin")(lambda n: n.write("Reciprocal", n.write("Sqrt", _one_less_square(n))))
derivative("Acos")(lambda n: n.write("Neg", n.write("Reciprocal", n.write("Sqrt", _one_less_square(n)))))
derivative("Sinh")(lambda n: n.write("Cosh", n.x))
derivative("Cosh")(lambda n: n.write("Sinh", n.x))
derivative("Asinh")(lambda n: n.write("Reciprocal", n.write("Sqrt", n.add(_square(n, n.x), 1.0))))
derivative("Acosh")(lambda n: n.write("Reciprocal", n.write("Sqrt", n.write("Neg", _one_less_square(n)))))
derivative("Atanh")(lambda n: n.write("Reciprocal", _one_less_square(n)))
derivative("Shrink")(lambda n: _step(n, "Greater", n.write("Abs", n.x), n.real("lambd", 0.5)))
derivative("Erf")(lambda n: n.mul(n.write("Exp", n.write("Neg", _square(n, n.x))), 2 / math.sqrt(math.pi)))
derivative("Softplus")(lambda n: n.write("Exp", n.sub(n.x, n.y)))  # the runtime's Sigmoid is off by 1e-8, this by 1e-7 of itself
derivative("Softsign")(lambda n: _square(n, n.write("Reciprocal", n.add(n.write("Abs", n.x), 1.0))))
derivative("HardSwish")(lambda n: _hard_swish_slope(n))
derivative("LeakyRelu")(lambda n: n.write("Where", n.write("Greater", n.x, 0.0), 1.0, n.real("alpha", 0.01)))
derivative("ThresholdedRelu")(lambda n: _step(n, "Greater", n.x, n.real("alpha", 1.0)))
derivative("Elu")(lambda n: _exponential_unit(n, gamma=1.0, alpha=n.real("alpha", 1.0), scale=1.0))
derivative("Celu")(lambda n: _exponential_unit(n, gamma=1.0, alpha=1.0, scale=n.real("alpha", 1.0)))
derivative("Selu")(
    lambda n: _exponential_unit(n, gamma=n.real("gamma", 1.0507009873554804), alpha=n.real("alpha", 1.6732632423543772), scale=1.0)
)


def _one_less_square(n: Site) -> str:
    """1 − x², without the cancellation near ±1."""
    return n.mul(n.sub(1.0, n.x), n.add(n.x, 1.0))


def _exponential_unit(n: Site, *, gamma: float, alpha: float, scale: float) -> str:
    """γ where x > 0, else γ α exp(x / scale)."""
    low = n.write("Exp", n.mul(n.write("Min", n.x, 0.0), 1 / scale))
    return n.write("Where", n.write("Greater", n.x, 0.0), gamma, n.mul(low, gamma * alpha))


def _hard_swish_slope(n: Site) -> str:
    inside = n.write("And", n.write("Greater", n.x, -3.0), n.write("Less", n.x, 3.0))
    return n.write("Where", inside, n.add(n.mul(n.x, 1 / 3), 0.5), _step(n, "GreaterOrEqual", n.x, 3.0))


@derivative("HardSigmoid")
def _hard_sigmoid(n: Site) -> str:
    inside = n.write("And", n.write("Greater", n.y, 0.0), n.write("Less", n.y, 1.0))
    return n.mul(n.mask(inside), n.real("alpha", 0.2))


@derivative("Gelu")
def _gelu(n: Site) -> str:
    """Φ(x) + x φ(x), or the derivative of the tanh form."""
    x = n.x
    if n.attribute("approximate", "none") == "tanh":
        a, b = math.sqrt(2 / math.pi), 0.044715
        square = _square(n, x)
        t = n.write("Tanh", n.mul(n.mul(x, n.add(n.mul(square, b), 1.0)), a))
        inner = n.mul(n.add(n.mul(square, 3 * b), 1.0), a)
        tail = n.mul(n.mul(x, n.sub(1.0, _square(n, t))), inner)
        return n.mul(n.add(n.add(t, 1.0), tail), 0.5)
    cdf = n.mul(n.add(n.write("Erf", n.mul(x, 1 / math.sqrt(2))), 1.0), 0.5)
    pdf = n.mul(n.write("Exp", n.mul(_square(n, x), -0.5)), 1 / math.sqrt(2 * math.pi))
    return n.add(cdf, n.mul(x, pdf))


@derivative("Mish")
def _mish(n: Site) -> str:
    """t + x σ(x) (1 − t²), t = tanh(softplus(x))."""
    t = n.write("Tanh", n.write("Softplus", n.x))
    return n.add(t, n.mul(n.mul(n.x, n.write("Sigmoid", n.x)), n.sub(1.0, _square(n, t))))


@derivative("Swish")
def _swish(n: Site) -> str:
    """σ(αx) + αx σ(αx) σ(−αx)."""
    scaled = n.mul(n.x, n.real("alpha", 1.0))
    return n.add(n.write("Sigmoid", scaled), n.mul(scaled, _sigmoid_slope(n, scaled)))


@derivative("Clip")
def _clip(n: Site) -> Partial:
    """1 inside the range, its ends included."""
    if any(n.varies[1:]):
        raise n.refuse("its bounds depend on the differentiated input")
    inside = [n.write(test, n.x, n.inputs[i]) for i, test in ((1, "GreaterOrEqual"), (2, "LessOrEqual")) if n.has(i)]
    if not inside:
        return 1.0
    return n.mask(inside[0] if len(inside) == 1 else n.write("And", *inside))


# functions of several inputs: the partial derivatives


@pointwise("Add", "Sum")
def _add(n: Site) -> Mapping[int, Partial]:
    return dict.fromkeys(range(len(n.inputs)), 1.0)


@pointwise("Mean")
def _mean(n: Site) -> Mapping[int, Partial]:
    return dict.fromkeys(range(len(n.inputs)), 1.0 / len(n.inputs))


@pointwise("Sub")
def _sub(n: Site) -> Mapping[int, Partial]:
    return {0: 1.0, 1: -1.0}


@pointwise("Mul")
def _mul(n: Site) -> Mapping[int, Partial]:
    a, b = n.inputs
    return {0: b, 1: a}


@pointwise("Div")
def _div(n: Site) -> Mapping[int, Partial]:
    b = n.inputs[1]
    factors: dict[int, Partial] = {0: n.write("Reciprocal", b)}
    if n.varies[1]:
        factors[1] = n.write("Neg", n.div(n.y, b))
    return factors


@pointwise("Mod")
def _remainder(n: Site) -> Mapping[int, Partial]:
    """1, and minus the whole quotient that was taken away."""
    factors: dict[int, Partial] = {0: 1.0}
    if n.varies[1]:
        factors[1] = n.div(n.sub(n.y, n.x), n.inputs[1])
    return factors


@pointwise("Pow")
def _pow(n: Site) -> Mapping[int, Partial]:
    """b x^(b−1) and ln(x) y."""
    base, exponent = n.inputs
    known = n.value(1)
    factors: dict[int, Partial] = {}
    if n.varies[0]:
        if known is not None and known.size == 1:
            power = float(known.reshape(()))
            factors[0] = n.mul(base, 2.0) if power == 2 else 1.0 if power == 1 else n.mul(n.write("Pow", base, power - 1), power)
        else:
            b = n.write("CastLike", exponent, base)
            factors[0] = n.mul(b, n.write("Pow", base, n.sub(b, 1.0)))
    if n.varies[1]:
        factors[1] = n.mul(n.write("Log", base), n.y)
    return factors


@pointwise("PRelu")
def _prelu(n: Site) -> Mapping[int, Partial]:
    x, slope = n.inputs
    factors: dict[int, Partial] = {0: n.write("Where", n.write("Greater", x, 0.0), 1.0, slope)}
    if n.varies[1]:
        factors[1] = n.write("Min", x, 0.0)
    return factors


@pointwise("Max", "Min")
def _extremum(n: Site) -> Mapping[int, Partial]:
    """1 for the first input that equals the result, 0 for the others."""
    if len(n.inputs) == 1:
        return {0: 1.0}
    factors: dict[int, Partial] = {}
    taken: str | None = None
    for i, name in enumerate(n.inputs):
        here = n.write("Equal", name, n.y)
        free = here if taken is None else n.write("And", here, n.write("Not", taken))
        if n.varies[i]:
            factors[i] = n.mask(free)
        taken = here if taken is None else n.write("Or", taken, here)
    return factors


@pointwise("Where")
def _where(n: Site) -> Mapping[int, Partial]:
    condition = n.inputs[0]
    return {1: n.mask(condition), 2: n.mask(n.write("Not", condition))}


@pointwise("BatchNormalization")
def _batch_normalization(n: Site) -> Mapping[int, Partial]:
    """γ / √(var + ε) per channel (inference form)."""
    if n.integer("training_mode") or any(n.varies[1:]):
        raise n.refuse("its statistics depend on the batch")
    _, scale, _, _, var = n.inputs
    factor = n.div(scale, n.write("Sqrt", n.add(var, n.real("epsilon", 1e-5))))
    return {0: n.write("Reshape", factor, [-1] + [1] * (n.rank(n.x) - 2))}
