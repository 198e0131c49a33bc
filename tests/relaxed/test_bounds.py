"""Local bounds hold at every point of a ball, are exact where the network is linear, and count all rounding."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose

from onnxfim.graph.graph import Graph
from onnxfim.relaxed import curves, relaxed_steps
from onnxfim.relaxed import rules as _rules  # noqa: F401 - fills the registry
from onnxfim.relaxed.around import Around, NormBall
from onnxfim.relaxed.network import RULES, NoLocalRule, network
from onnxfim.relaxed.relaxed_steps import RowNumbers
from tests.relaxed.nets import CASES, Net, deep, in_ball, linear_net, mlp, node, normal

NORMS = ("l2", "linf")
KINDS = (np.float32, np.float64)


def bounds(net: Net, x, radius, norm, scale=None, kind=np.float32):
    """Intervals of all outputs by the steps forwards, and by going back to the input, (2, n) each."""
    found = net.network()
    ball = NormBall(norm, np.ones(found.size) if scale is None else scale)
    around = Around(found, ball, x.astype(np.float64).ravel(), radius, {}, rows=RowNumbers(kind))
    assert around.spread()
    box = around.boxes["y"]
    eye = np.eye(len(box.low), dtype=kind)
    back = around.lowest({"y": np.concatenate([eye, -eye])}, np.zeros(2 * len(eye))).at(radius)
    return np.stack([box.low, box.high]), np.stack([back[: len(eye)], -back[len(eye) :]])


def violated(net: Net, rng, norm, radius, count, kind=np.float32):
    """By how much outputs leave their bounds at points of a ball around a random sample, at most; below 0 where none does."""
    x = normal(rng, *net.shape).ravel().astype(np.float64)
    scale = rng.uniform(0.5, 2.0, x.size)
    points = in_ball(rng, x, radius, norm, scale, count)
    values = net.exact()(points)
    worst = -np.inf
    for low, high in bounds(net, x, radius, norm, scale, kind):
        worst = max(worst, float(np.max(low - values)), float(np.max(values - high)))
    return worst


@pytest.mark.parametrize("op", sorted(set(CASES)))
def test_every_rule_holds_on_random_balls(op):
    for seed in range(6):
        rng = np.random.default_rng([seed, len(op)])
        net = CASES[op](rng)
        for norm in NORMS:
            for radius in (1e-3, 0.3, 3.0):
                assert violated(net, rng, norm, radius, 60) <= 0


def test_every_rule_has_a_case():
    same = {"com.microsoft.QuantizeLinear", "com.microsoft.DequantizeLinear", "com.microsoft.Gelu"}
    assert set(RULES) - set(CASES) == same  # rules of operators of the standard under another name


@pytest.mark.parametrize("make", [deep, mlp])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_networks_hold_on_random_balls(make, norm, kind):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        net = make(rng)
        for radius in (0.01, 0.1, 0.5):
            assert violated(net, rng, norm, radius, 60, kind) <= 0


@pytest.mark.parametrize("op", [op for op in sorted(CASES) if CASES[op](np.random.default_rng(0)).linear])
@pytest.mark.parametrize("norm", NORMS)
def test_linear_operators_are_bounded_exactly(op, norm):
    # rtol: what float32 takes from rows, counted as if every product were off in the same way
    rng = np.random.default_rng(7)
    net = CASES[op](rng)
    while not net.linear:
        net = CASES[op](rng)
    x, radius = normal(rng, *net.shape).ravel().astype(np.float64), 0.25
    scale = rng.uniform(0.5, 2.0, x.size)
    values = net.exact()
    at = values(x[None])[0]
    A = values(x + np.eye(x.size)) - at  # (d, n): linear, so that whole steps are slopes
    length = np.linalg.norm(A * scale[:, None], axis=0) if norm == "l2" else np.abs(A * scale[:, None]).sum(axis=0)
    _, (low, high) = bounds(net, x, radius, norm, scale)
    size = np.abs(at).max() + (np.abs(A) * (np.abs(x) + scale)[:, None]).sum(axis=0).max()
    assert_allclose(low, at - radius * length, atol=2e-5 * size)
    assert_allclose(high, at + radius * length, atol=2e-5 * size)


@pytest.mark.parametrize("make", [deep, mlp])
def test_going_back_is_tighter_than_intervals(make):
    rng = np.random.default_rng(1)
    net = make(rng)
    x = normal(rng, *net.shape)
    forwards, back = bounds(net, x, 0.05, "l2")
    assert np.mean(back[1] - back[0]) < 0.5 * np.mean(forwards[1] - forwards[0])


def test_bounds_are_never_far_off_where_the_ball_is_small():
    """At a small radius no curve is bent: the bounds are then those of the slope, by the same network in float64."""
    rng = np.random.default_rng(5)
    net = mlp(rng)
    x, radius = normal(rng, 6).astype(np.float64), 1e-3
    values, step = net.exact(), 1e-6
    A = (values(x + step * np.eye(6)) - values(x - step * np.eye(6))) / (2 * step)
    _, (low, high) = bounds(net, x, radius, "l2")
    at = values(x[None])[0]
    assert_allclose(high - low, 2 * radius * np.linalg.norm(A, axis=0), rtol=0.05)  # 1e-5 of rounding in 1e-3
    assert_allclose((high + low) / 2, at, atol=1e-5)


# the check itself can fail


def _flat_chord(self, low, high):
    """A wrong rule: the line above runs through the middle of the chord's gap."""
    found = _RIGHT(self, low, high)
    return curves.LinePair(found.lower_slope, found.lower, found.upper_slope, 0.5 * found.upper, found.low, found.high)


def _no_width(self, boxes, rows):
    """A wrong rule: intervals a hundredth too narrow."""
    local = _RIGHT_AFFINE(self, boxes, rows)
    middle, half = (local.box.low + local.box.high) / 2, (local.box.high - local.box.low) / 2
    return type(local)(
        local.step, relaxed_steps.Box(middle - 0.9 * half, middle + 0.9 * half), local.slack, local.bias, local.forwards
    )


_RIGHT, _RIGHT_AFFINE = curves.ScalarCurve.lines, relaxed_steps.Affine.inside


@pytest.mark.parametrize(
    ("owner", "name", "wrong"), [(curves.ScalarCurve, "lines", _flat_chord), (relaxed_steps.Affine, "inside", _no_width)]
)
def test_a_wrong_rule_is_caught(monkeypatch, owner, name, wrong):
    monkeypatch.setattr(owner, name, wrong)
    worst = max(violated(mlp(np.random.default_rng(s)), np.random.default_rng(s), "linf", 0.3, 200) for s in range(5))
    assert worst > 1e-3


# rounding


def on_runtime(net: Net):
    session = onnxruntime.InferenceSession(net.model().SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda rows: np.stack([session.run(None, {"x": r.reshape(1, *net.shape).astype(np.float32)})[0].ravel() for r in rows])


def cancelling(rng):
    """Scores that are small differences of large numbers: float32 gets them wrong in the fourth digit."""
    W = normal(rng, 400, 3, scale=100.0)
    return Net(
        [node("Gemm", ["x", "W"], ["a"]), node("Relu", ["a"], ["r"]), node("Gemm", ["r", "V"])],
        {"W": W, "V": np.array([[1, -1, 0.5], [1, 1, -1], [-1, 0.3, 1]], np.float32)}, (400,),
    )  # fmt: skip


def test_what_the_file_computes_in_float32_lies_within_the_bounds_at_the_sample_itself():
    apart = 0.0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        net = cancelling(rng)
        x = normal(rng, 400).astype(np.float64)
        exact, single = net.exact()(x[None])[0], on_runtime(net)(x[None])[0]
        _, (low, high) = bounds(net, x, 0.0, "l2")
        for value in (exact, single):
            assert (low <= value).all()
            assert (value <= high).all()
        apart = max(apart, float(np.abs(exact - single).max()))
    assert apart > 1e-4  # so that bounds without rounding would have failed


def test_the_smooth_curves_of_the_runtime_lie_within_what_is_allowed_for_them():
    """The runtime's own approximations, against float64, on a fine grid."""
    x = np.linspace(-12, 12, 20001)
    made = {"Sigmoid": curves.sigmoid(), "Tanh": curves.tanh(), "Erf": curves.erf(), "Gelu": curves.gelu(),
            "HardSwish": curves.hard_swish(), "Softplus": curves.softplus(), "Elu": curves.elu(1.0)}  # fmt: skip
    for op, curve in made.items():
        got = on_runtime(Net([node(op, ["x"])], {}, (x.size,)))(x[None])[0]
        exact = curve.function(x.astype(np.float32).astype(np.float64))
        assert (np.abs(got - exact) <= curve.roundings * 2.0**-24 * (1 + np.abs(x) + np.abs(exact))).all(), op


def test_constants_of_curves_bound_their_derivatives():
    """``bend`` and ``steepest`` against differences on a fine grid, from both sides."""
    x, h = np.linspace(-9, 9, 180_001), 1e-4
    for curve in (curves.sigmoid(), curves.tanh(), curves.erf(), curves.gelu(), curves.silu(), curves.silu(1.702), curves.softplus(),
                  curves.elu(0.7), curves.hard_swish()):  # fmt: skip
        off = np.ones(x.size, bool)
        for kink in curve.kinks:
            off &= np.abs(x - kink) > 2 * h
        first = (curve.function(x + h) - curve.function(x - h)) / (2 * h)
        second = (curve.function(x + h) - 2 * curve.function(x) + curve.function(x - h)) / h**2
        assert 0.98 * curve.bend < np.abs(second[off]).max() < curve.bend + 1e-6
        assert 0.6 * curve.steepest < np.abs(first).max() < curve.steepest + 1e-6
        assert_allclose(curve.slope(x)[off], first[off], atol=1e-6)


# what has none


def test_a_graph_without_a_rule_says_which_node():
    net = Net([node("Softmax", ["x"], ["a"]), node("Relu", ["a"])], {}, (4,))
    with pytest.raises(NoLocalRule, match="op Softmax: has no local rule"):
        net.network()
    attention = Net([node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"])], {}, (3, 4))
    with pytest.raises(NoLocalRule, match="multiplies two values that vary"):
        attention.network()


def test_a_file_of_several_rows_is_refused():
    model = linear_net(np.random.default_rng(0)).model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(NoLocalRule, match="takes several rows at once"):
        network(Graph(model), input_name="x", scores="y", sample_shape=(9,))
