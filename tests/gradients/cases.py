"""Random graphs that exercise each operator; every registry entry must have one here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.support.gradient_nets import ROWS, Net, spread

Rng = np.random.Generator
Make = Callable[[Rng], "tuple[Net, str]"]


@dataclass(frozen=True)
class Case:
    """How to draw graphs for operators; ``repeats`` of them are tested."""

    ops: tuple[str, ...]
    name: str
    make: Make
    repeats: int = 2


CASES: list[Case] = []


def case(*ops: str, repeats: int = 2) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        CASES.append(Case(ops, make.__name__, make, repeats))
        return make

    return register


def pick(rng: Rng, options: list) -> object:
    return options[int(rng.integers(len(options)))]


def ints(rng: Rng, low: int, high: int, n: int) -> list[int]:
    return [int(i) for i in rng.integers(low, high + 1, n)]


# element-wise, one input: (operator, attributes, opset, range of x, kinks)

UNARY = [
    ("Identity", {}, 18, (-2, 2), ()),
    ("Neg", {}, 18, (-2, 2), ()),
    ("Relu", {}, 18, (-2, 2), (0,)),
    ("Abs", {}, 18, (-2, 2), (0,)),
    ("Sigmoid", {}, 18, (-6, 6), ()),
    ("Tanh", {}, 18, (-2, 2), ()),
    ("Exp", {}, 18, (-2, 2), ()),
    ("Log", {}, 18, (0.3, 3), ()),
    ("Sqrt", {}, 18, (0.3, 3), ()),
    ("Reciprocal", {}, 18, (0.5, 3), ()),
    ("Reciprocal", {}, 18, (-3, -0.5), ()),
    ("Sin", {}, 18, (-3, 3), ()),
    ("Cos", {}, 18, (-3, 3), ()),
    ("Atan", {}, 18, (-3, 3), ()),
    ("Erf", {}, 18, (-2, 2), ()),
    ("Softplus", {}, 18, (-5, 5), ()),
    ("Softsign", {}, 18, (-3, 3), (0,)),
    ("HardSwish", {}, 18, (-4, 4), (-3, 3)),
    ("HardSigmoid", {}, 18, (-4, 4), (-2.5, 2.5)),
    ("HardSigmoid", {"alpha": 0.25, "beta": 0.4}, 18, (-4, 4), (-1.6, 2.4)),
    ("LeakyRelu", {}, 18, (-2, 2), (0,)),
    ("LeakyRelu", {"alpha": 0.3}, 18, (-2, 2), (0,)),
    ("ThresholdedRelu", {"alpha": 0.5}, 18, (-2, 2), (0.5,)),
    ("Elu", {}, 18, (-2, 2), (0,)),
    ("Elu", {"alpha": 0.5}, 18, (-2, 2), (0,)),
    ("Celu", {"alpha": 0.7}, 18, (-2, 2), (0,)),
    ("Selu", {}, 18, (-2, 2), (0,)),
    ("Selu", {"alpha": 1.2, "gamma": 0.9}, 18, (-2, 2), (0,)),
    ("Gelu", {}, 20, (-3, 3), ()),
    ("Gelu", {"approximate": "tanh"}, 20, (-3, 3), ()),
    ("Mish", {}, 18, (-3, 3), ()),
    ("Swish", {}, 24, (-3, 3), ()),
    ("Swish", {"alpha": 1.5}, 24, (-3, 3), ()),
]


def away(rng: Rng, x: np.ndarray, kinks: tuple[float, ...], gap: float = 0.06) -> np.ndarray:
    """Move values that stand within ``gap`` of a kink to its side."""
    for k in kinks:
        near = np.abs(x - k) < gap
        x = np.where(near, k + np.where(x >= k, gap, -gap), x)
    return x.astype(np.float32)


def _unary(op: str, attributes: dict, opset: int, limits: tuple, kinks: tuple) -> Make:
    def make(rng: Rng) -> tuple[Net, str]:
        shape = tuple(ints(rng, 1, 4, int(rng.integers(1, 4))))
        x = away(rng, spread(rng, ROWS, *shape, low=limits[0], high=limits[1]), kinks)
        net = Net(shape, opset=opset, x=x)
        return net, net.op(op, "x", **attributes)

    return make


for _op, _attributes, _opset, _limits, _kinks in UNARY:
    CASES.append(Case((_op,), f"{_op}{sorted(_attributes)}", _unary(_op, _attributes, _opset, _limits, _kinks), 2))


@case("Clip", repeats=6)
def clip(rng: Rng) -> tuple[Net, str]:
    low, high = pick(rng, [(-1.0, 0.7), (None, 0.4), (-0.3, None), (0.0, 6.0), (None, None)])
    net = Net((3, 5), x=away(rng, spread(rng, ROWS, 3, 5), tuple(b for b in (low, high) if b is not None)))
    bounds = [("" if b is None else np.float32(b)) for b in (low, high)]
    return net, net.op("Clip", "x", *bounds)


@case("Clip")
def clip_of_set_6(rng: Rng) -> tuple[Net, str]:
    net = Net((3, 5), opset=9, ir_version=4, x=away(rng, spread(rng, ROWS, 3, 5), (-0.5, 1.0)))
    return net, net.op("Clip", "x", min=-0.5, max=1.0)


# element-wise, several inputs, broadcasting in every pattern


def _operand(rng: Rng, net: Net, rank: int) -> str:
    """A value that varies with x, with some axes of length one or missing in front."""
    dims = list(net.shape)
    name = net.op("Add", net.op("Mul", "x", rng.uniform(0.5, 1.5, dims)), rng.uniform(0.1, 0.5, dims))
    ones = [i + 1 for i in range(len(dims)) if rng.random() < 0.4]
    return net.op("ReduceMean", name, np.asarray(ones)) if ones else name


def _other(rng: Rng, net: Net) -> str:
    """A constant of any shape that broadcasts."""
    dims = [d if rng.random() < 0.6 else 1 for d in net.shape]
    drop = int(rng.integers(0, len(dims) + 1))
    return net.weight(rng.uniform(0.5, 1.5, dims[drop:]))


@case("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", repeats=150)
def broadcasting(rng: Rng) -> tuple[Net, str]:
    """Both operands varying, or one; ranks and lengths of one mixed."""
    op = str(pick(rng, ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean"]))
    shape = tuple(ints(rng, 1, 4, int(rng.integers(1, 4))))
    net = Net(shape, x=spread(rng, ROWS, *shape, low=0.5, high=2.0))
    if op in ("Max", "Min"):
        net.may_vanish = True  # the constant may win everywhere
        net.step = 5e-4
        net.rtol = 2e-2  # a kink may lie within the step of some element
    count = int(rng.integers(1, 4)) if op in ("Max", "Min", "Sum", "Mean") else 2
    first = int(rng.integers(count))
    operands = [_operand(rng, net, 3) if i == first or rng.random() < 0.5 else _other(rng, net) for i in range(count)]
    if op == "Pow" and rng.random() < 0.5:
        operands = [_operand(rng, net, 3), net.weight(np.asarray(pick(rng, [2.0, 3.0, 0.5, 1.0, -1.0]), np.float32))]
    return net, net.op(op, *operands)


@case("Add", repeats=20)
def missing_leading_axes(rng: Rng) -> tuple[Net, str]:
    """A varying operand of higher rank than the batch axis: the batch stays first."""
    net = Net((3, 4))
    scaled = net.op("Mul", "x", rng.uniform(0.5, 1.5, (3, 4)))
    a = net.op("Unsqueeze", scaled, np.asarray([1]))
    b = net.weight(rng.standard_normal((int(pick(rng, [1, 2])), *([1] * 2))))
    return net, net.op(str(pick(rng, ["Mul", "Add", "Sub"])), *(rng.permutation([a, b])).tolist())


@case("Where", repeats=12)
def where(rng: Rng) -> tuple[Net, str]:
    net = Net((3, 4))
    c = net.op("Greater", net.op("Mul", "x", rng.standard_normal((3, 4))), np.float32(0.0))
    net.step, net.rtol = 5e-4, 5e-2  # the condition may switch within the step only where x is within it of zero
    net.x = away(rng, spread(rng, ROWS, 3, 4), (0.0,))
    a, b = _operand(rng, net, 2), _operand(rng, net, 2)
    if rng.random() < 0.3:
        b = _other(rng, net)
    return net, net.op("Where", c, a, b)


@case("PRelu", repeats=8)
def prelu(rng: Rng) -> tuple[Net, str]:
    net = Net((3, 4, 2), x=away(rng, spread(rng, ROWS, 3, 4, 2), (0.0,)))
    if rng.random() < 0.3:
        return net, net.op("PRelu", "x", net.op("Abs", "x"))
    return net, net.op("PRelu", "x", rng.uniform(0.1, 0.5, pick(rng, [(3, 1, 1), (1,), (3, 4, 2), (4, 1)])))


@case("BatchNormalization", repeats=8)
def batch_normalization(rng: Rng) -> tuple[Net, str]:
    shape = tuple(ints(rng, 2, 4, int(rng.integers(1, 5))))
    opset = int(pick(rng, [7, 9, 13, 15, 18]))
    net = Net(shape, opset=opset, ir_version=4 if opset < 13 else 8)
    c = shape[0]
    w = [rng.uniform(0.5, 1.5, c), rng.standard_normal(c), rng.standard_normal(c), rng.uniform(0.5, 1.5, c)]
    return net, net.op("BatchNormalization", "x", *w, epsilon=float(pick(rng, [1e-5, 0.1])))


@case("Cast", "CastLike")
def casts(rng: Rng) -> tuple[Net, str]:
    net = Net((3, 4))
    wide = net.op("Cast", net.op("Tanh", "x"), to=11)
    return net, net.op("CastLike", net.op("Mul", wide, net.op("Cast", net.weight(np.float32(1.5)), to=11)), "x")


@case("Mul", repeats=3)
def double_precision(rng: Rng) -> tuple[Net, str]:
    net = Net((5,), dtype=np.float64, step=1e-3, rtol=1e-6)
    h = net.op("Tanh", net.op("Gemm", "x", rng.standard_normal((5, 6)), rng.standard_normal(6)))
    return net, net.op("Mul", h, h)
