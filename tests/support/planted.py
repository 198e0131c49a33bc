"""Faults planted into derivative rules, and small networks in which they must be found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxfim.gradients.build import _end_to_end
from onnxfim.gradients.derivative_rules import RULES, Cotangent, DerivativeRule, Partial, Pointwise, Scaled, Site, Stretch
from onnxfim.graph.lower import op_name
from onnxfim.graph.prepare import prepare
from onnxfim.graph.shapes import Batch
from tests.support.gradient_nets import Net

Rule = DerivativeRule | Pointwise
Plant = Callable[[Rule], "Rule | None"]
Change = Callable[[Site, str], str]


class NoFault(Exception):
    """The fault has no meaning at this node."""


# networks


def convolutional(rng: np.random.Generator) -> tuple[Net, str]:
    """Convolutions of several geometries, pools, clips, a residual and a concatenation."""
    net = Net((3, 9, 8))
    h = net.op("Conv", "x", rng.normal(0, 0.3, (6, 3, 3, 3)), rng.normal(0, 0.1, 6), pads=[1, 0, 1, 2], kernel_shape=[3, 3])
    h = net.op(
        "BatchNormalization", h, rng.uniform(0.5, 2, 6), rng.normal(0, 0.1, 6), rng.normal(0, 0.1, 6), rng.uniform(0.5, 2, 6)
    )
    h = net.op("Relu", h)
    side = net.op("Conv", h, rng.normal(0, 0.3, (6, 2, 3, 3)), group=3, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    h = net.op("Add", h, net.op("Clip", side, np.float32(-0.4), np.float32(0.6)))
    a = net.op("MaxPool", h, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 0])
    b = net.op("AveragePool", h, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 1], count_include_pad=1)
    a, b = (net.op("Slice", t, np.array([0, 0]), np.array([4, 3]), np.array([2, 3])) for t in (a, b))
    h = net.op("Concat", a, net.op("LeakyRelu", b, alpha=0.2), axis=1)
    h = net.op("HardSwish", net.op("Mul", h, np.float32(3)))
    h = net.op("Pad", h, np.array([0, 0, 1, 0, 0, 0, 0, 2]))
    h = net.op("ConvTranspose", h, rng.normal(0, 0.3, (12, 4, 2, 2)), strides=[2, 1], kernel_shape=[2, 2])
    gate = net.op("HardSigmoid", net.op("GlobalAveragePool", h))
    h = net.op("Mul", h, gate)
    return net, net.op("Gemm", net.op("Flatten", h), rng.normal(0, 0.1, (4 * 10 * 6, 5)), rng.normal(0, 0.1, 5), alpha=1.5)


def attending(rng: np.random.Generator) -> tuple[Net, str]:
    """One block of a Transformer with its pieces written out."""
    d, tokens = 8, 6
    net = Net((tokens, d), opset=20)
    h = net.op("LayerNormalization", "x", rng.uniform(0.5, 2, d), rng.normal(0, 0.1, d))
    q, k, v = (net.op("MatMul", h, rng.normal(0, 0.7, (d, d))) for _ in range(3))

    def heads(t: str) -> str:
        return net.op("Transpose", net.op("Reshape", t, np.array([0, tokens, 2, d // 2])), perm=[0, 2, 1, 3])

    q, k, v = heads(q), heads(k), heads(v)
    scores = net.op("Div", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), np.float32(2))
    h = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    h = net.op("Reshape", net.op("Transpose", h, perm=[0, 2, 1, 3]), np.array([0, tokens, d]))
    h = net.op("Add", "x", net.op("Gelu", h))
    a, b = net.ops("Split", h, np.array([3, 5]), outputs=2, axis=2)
    h = net.op(
        "Concat",
        net.op("Erf", b),
        net.op("Sub", net.op("Expand", net.op("ReduceMean", b, np.array([2])), np.array([1, 1, 3])), a),
        axis=2,
    )
    h = net.op("Einsum", h, rng.normal(0, 0.5, (tokens, tokens)), equation="btd,ts->bsd")
    h = net.op("Gather", h, np.array([4, 1, 0, 4]), axis=1)
    h = net.op("ReduceMax", net.op("Tile", h, np.array([1, 1, 2])), np.array([1]), keepdims=0)
    return net, net.op("LogSoftmax", net.op("MatMul", h, rng.normal(0, 0.5, (2 * d, 4))), axis=-1)


def tabular(rng: np.random.Generator) -> tuple[Net, str]:
    """Dense layers with every kind of pointwise operator between two varying values."""
    net = Net((7,), opset=20)

    def dense(t: str, m: int = 9, n: int = 9) -> str:
        return net.op("Gemm", t, rng.normal(0, 0.8 / np.sqrt(m / 7), (m, n)), rng.normal(0, 0.3, n))

    h = dense("x", 7)
    a, b = net.op("Tanh", dense(h)), net.op("Sigmoid", dense(h))
    h = net.op("Sub", net.op("Mul", a, b), net.op("Softplus", dense(h)))
    h = net.op("Div", net.op("Elu", dense(h)), net.op("Exp", net.op("Mul", net.op("Abs", dense(h)), np.float32(0.3))))
    h = net.op("Max", h, net.op("Min", dense(h), net.op("Selu", dense(h))))
    positive = net.op("Add", net.op("Pow", h, np.float32(2)), np.float32(0.5))
    h = net.op("Sum", net.op("Sqrt", positive), net.op("Log", positive), net.op("Neg", h))
    h = net.op("Where", np.array([True, False, True, True, False, True, False, True, True]), h, net.op("Softsign", dense(h)))
    h = net.op("PRelu", dense(h), rng.uniform(0.1, 0.4, 9))
    h = net.op("Mean", h, net.op("ReduceSumSquare", dense(h), np.array([1])), net.op("ReduceL2", dense(h), np.array([1])))
    h = net.op("Mul", h, net.op("Reciprocal", net.op("Add", net.op("ReduceLogSumExp", h, np.array([1])), np.float32(5))))
    h = net.op("Celu", net.op("Atan", net.op("Sin", net.op("Cos", net.op("Mish", dense(h))))))
    h = net.op("ThresholdedRelu", net.op("Mul", dense(h), np.float32(2)), alpha=0.2)
    return net, dense(h, 9, 4)


def rounded(rng: np.random.Generator) -> tuple[Net, str]:
    """What float32 leaves little of: large offsets, local responses, hidden scores; and a recurrent layer that is written out."""
    c, H = 6, 4
    net = Net((3, 8, 8), opset=20)
    h = net.op("Add", net.op("Mul", "x", np.float32(2)), np.float32(300))
    h = net.op("Conv", h, rng.normal(0, 0.4, (c, 3, 3, 3)), rng.normal(0, 1, c), pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    h = net.op(
        "BatchNormalization", h, rng.uniform(0.5, 1.5, c), rng.normal(500, 30, c), rng.normal(0, 300, c), rng.uniform(0.5, 2, c)
    )
    h = net.op("LRN", net.op("Tanh", net.op("Div", net.op("Sub", h, np.float32(480)), np.float32(200))), size=3, alpha=1e-4)
    h = net.op("Sigmoid", net.op("Mul", h, net.op("LeakyRelu", h, alpha=0.1)))
    h = net.op("Reshape", net.op("ReduceL2", h, np.array([3]), keepdims=0), np.array([0, 6, 8]))
    h = net.op("LayerNormalization", h, rng.uniform(0.5, 2, 8), rng.normal(0, 1, 8))
    scores = net.op("MatMul", h, net.op("Transpose", net.op("MatMul", h, rng.normal(0, 0.3, (8, 8))), perm=[0, 2, 1]))
    hidden = np.triu(np.ones((6, 6), bool), 1)
    p = net.op("Softmax", net.op("Add", scores, np.where(hidden, -np.inf, 0.0).astype(np.float32)), axis=-1)
    q = net.op("Softmax", net.op("Where", hidden, np.float32(np.finfo(np.float32).min), net.op("Neg", scores)), axis=-1)
    h = net.op("Concat", net.op("MatMul", net.op("Where", net.op("IsNaN", p), np.float32(0), p), h), net.op("MatMul", q, h), axis=1)
    h = net.op("Transpose", h, perm=[1, 0, 2])
    weights = (rng.normal(0, 0.5, (1, 4 * H, w)) for w in (8, H))
    h = net.op("Squeeze", net.ops("LSTM", h, *weights, rng.normal(0, 0.3, (1, 8 * H)), outputs=2, hidden_size=H)[1], np.array([0]))
    h = net.op("Sub", net.op("Gemm", h, rng.normal(0, 1, (H, 8)), 1e4 + rng.normal(0, 1, 8)), np.float32(1e4))
    return net, net.op("Gemm", net.op("Softplus", net.op("Pow", h, np.float32(2))), rng.normal(0, 0.5, (8, 4)), rng.normal(0, 1, 4))


NETS = {"convolutional": convolutional, "attending": attending, "tabular": tabular, "rounded": rounded}


# faults


@dataclass(frozen=True)
class Fault:
    """One way to spoil a rule."""

    name: str
    plant: Plant


def _factor(value: float) -> Change:
    return lambda n, t: n.mul(t, value)


def _another_sample(n: Site, t: str, *, axis: int) -> str:
    """Rows of the batch moved by one: a mask, or a tangent, of another sample."""
    first = n.write("Slice", t, [0], [1], [axis])
    return n.write("Concat", n.write("Slice", t, [1], [2**62], [axis]), first, axis=axis)


def _moved(n: Site, t: str, like: str, *, by: int | None) -> str:
    """Turned round (``by`` None) or shifted by one along the last axis that is long enough; t has a seed axis."""
    dims = n.shape(like)
    axis = max((i for i, d in enumerate(dims) if i and not isinstance(d, Batch) and d > 1), default=None)
    if axis is None:
        raise NoFault
    if by is None:
        return n.write("Slice", t, [-1], [-(2**62)], [axis + 1], [-1])
    return _another_sample(n, t, axis=axis + 1)


def _one_branch(n: Site, p: Partial) -> str:
    """Wrong by a twentieth where the operator's first input is positive, right elsewhere."""
    if not n.varies[0]:
        raise NoFault
    return n.mul(_written(n, p), n.write("Where", n.write("Greater", n.inputs[0], 0.0), 0.95, 1.0))


def _masked(n: Site, t: str, like: str) -> str:
    """A term is missing: nothing of the first entries along the last axis comes through."""
    dims = n.shape(like)
    axis = max((i for i, d in enumerate(dims) if i and not isinstance(d, Batch) and d > 1), default=None)
    if axis is None:
        raise NoFault
    mask = np.ones(int(dims[axis]), n.dtype)
    mask[: max(1, len(mask) // 4)] = 0
    return n.mul(t, mask.reshape(-1, *[1] * (len(dims) - axis - 1)))


def pointwise(change: Callable[[Site, Mapping[int, Partial]], Mapping[int, Partial]]) -> Plant:
    """A fault in the partial derivatives, the same in both directions."""

    def plant(rule: Rule) -> Rule | None:
        return Pointwise(lambda n: change(n, rule.partials(n))) if isinstance(rule, Pointwise) else None

    return plant


def _each(change: Callable[[Site, Partial], Partial]) -> Plant:
    return pointwise(lambda n, found: {i: change(n, p) for i, p in found.items()})


def _written(n: Site, p: Partial) -> str:
    return p if isinstance(p, str) else n.emitter.operand(float(p), n.dtype)


def _swapped(n: Site, found: Mapping[int, Partial]) -> Mapping[int, Partial]:
    if set(found) != {0, 1} or n.shape(n.inputs[0]) != n.shape(n.inputs[1]):
        raise NoFault
    return {0: found[1], 1: found[0]}


def _one_left_out(n: Site, found: Mapping[int, Partial]) -> Mapping[int, Partial]:
    varying = [i for i in found if n.varies[i]]
    if len(varying) < 2:
        raise NoFault
    return {**found, varying[-1]: n.mul(_written(n, found[varying[-1]]), 0.0)}


def _stale(n: Site, p: Partial) -> Partial:
    if not isinstance(p, str) or len(n.shape(n.y)) < 1:
        raise NoFault
    # Only factors of the size of the value depend on the sample.
    return _another_sample(n, n.write("Expand", p, n.write("Shape", n.y)), axis=0)


def _shifted_mask(n: Site, p: Partial) -> Partial:
    """The slope of another place: the factor moved by one along the last axis."""
    if not isinstance(p, str):
        raise NoFault
    full = n.write("Expand", p, n.write("Shape", n.y))
    return n.write("Squeeze", _moved(n, n.write("Unsqueeze", full, [0]), n.y, by=1), [0])


def both(change: Callable[[Site, str, str], str]) -> Plant:
    """A fault in the outgoing tangent, and its transpose in the incoming cotangent: the adjoint identity holds."""

    def plant(rule: Rule) -> Rule | None:
        if isinstance(rule, Pointwise):
            return None

        def vjp(n: Site, us: Sequence[str | None]) -> Mapping[int, str]:
            return rule.vjp(n, [None if u is None else change(n, u, o) for u, o in zip(us, n.node.output, strict=False)])

        def jvp(n: Site, vs: Mapping[int, str]) -> Sequence[str | None]:
            outputs = list(n.node.output)
            return [None if t is None else change(n, t, o) for t, o in zip(rule.jvp(n, vs), outputs, strict=False)]

        return DerivativeRule(vjp, jvp)

    return plant


def whole(n: Site, g: Cotangent) -> str:
    """A cotangent as one value."""
    if isinstance(g, Stretch):
        return next(iter(_end_to_end(n, [g])))
    if isinstance(g, Scaled):
        return g.value if g.factor is None else n.mul(g.value, g.factor)
    return g


def backwards(change: Callable[[Site, str, str], str]) -> Plant:
    """A fault in the cotangents alone."""

    def plant(rule: Rule) -> Rule | None:
        if isinstance(rule, Pointwise):
            return None
        return DerivativeRule(lambda n, us: {i: change(n, whole(n, g), n.inputs[i]) for i, g in rule.vjp(n, us).items()}, rule.jvp)

    return plant


def forwards(change: Callable[[Site, str, str], str]) -> Plant:
    """A fault in the tangents alone."""

    def plant(rule: Rule) -> Rule | None:
        if isinstance(rule, Pointwise):
            return None

        def jvp(n: Site, vs: Mapping[int, str]) -> Sequence[str | None]:
            outputs = list(n.node.output)
            return [None if t is None else change(n, t, o) for t, o in zip(rule.jvp(n, vs), outputs, strict=False)]

        return DerivativeRule(rule.vjp, jvp)

    return plant


FAULTS = (
    Fault("sign", _each(lambda n, p: n.mul(_written(n, p), -1.0))),
    Fault("factor 1.02", _each(lambda n, p: n.mul(_written(n, p), 1.02))),
    Fault("factor 0.99", _each(lambda n, p: n.mul(_written(n, p), 0.99))),
    Fault("one branch", _each(_one_branch)),
    Fault("swapped operands", pointwise(_swapped)),
    Fault("missing term", pointwise(_one_left_out)),
    Fault("mask of another sample", _each(_stale)),
    Fault("mask of another place", _each(_shifted_mask)),
    Fault("an offset in the slope", _each(lambda n, p: n.add(_written(n, p), 0.05))),
    Fault("sign, both ways", both(lambda n, t, like: n.mul(t, -1.0))),
    Fault("factor 0.98, both ways", both(lambda n, t, like: n.mul(t, 0.98))),
    Fault("factor 0.99, both ways", both(lambda n, t, like: n.mul(t, 0.99))),
    Fault("turned round along an axis", both(lambda n, t, like: _moved(n, t, like, by=None))),
    Fault("part left out", both(_masked)),
    Fault("shifted by one, forwards", forwards(lambda n, t, like: _moved(n, t, like, by=1))),
    Fault("shifted by one, backwards", backwards(lambda n, t, like: _moved(n, t, like, by=1))),
    Fault("factor 1.02, backwards", backwards(lambda n, t, like: n.mul(t, 1.02))),
    Fault("turned round, backwards", backwards(lambda n, t, like: _moved(n, t, like, by=None))),
    Fault("part left out, backwards", backwards(_masked)),
    Fault("another sample's tangent", forwards(lambda n, t, like: _another_sample(n, t, axis=1))),
)


def operators(model: onnx.ModelProto, output: str) -> list[str]:
    """Operators of a model that have a rule, and those that others are written out with, each once, in order."""
    written = prepare(model, input_name="x", output_name=output).nodes
    return [op for op in dict.fromkeys(op_name(n) for n in (*model.graph.node, *written)) if op in RULES]
