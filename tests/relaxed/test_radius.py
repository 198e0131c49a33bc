"""Certified radii: exact where scores are linear, below every attack, each sample by itself."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx.reference import ReferenceEvaluator

from onnxfim.auditing.opening import open_subject
from onnxfim.graph.ends import ending
from onnxfim.graph.load import load_model
from onnxfim.record.settings import Settings
from onnxfim.relaxed.around import Around, NormBall
from onnxfim.relaxed.network import network
from onnxfim.relaxed.radius import RadiusSearch
from onnxfim.relaxed.relaxed_steps import RowNumbers
from tests.relaxed.nets import Net, deep, in_ball, linear_net, mlp, node, normal
from tests.support import trained

NORMS = ("l2", "linf")


def searched(net: Net, norm: str, scale=None, kind=np.float32) -> RadiusSearch:
    found = net.network()
    return RadiusSearch(found, NormBall(norm, np.ones(found.size) if scale is None else scale), rows=RowNumbers(kind))


@pytest.mark.parametrize("norm", NORMS)
def test_linear_scores_have_their_exact_radius(norm):
    # rtol: the search ends within 2 % of where it would; float32 rounding is below that
    for seed in range(20):
        rng = np.random.default_rng(seed)
        net, x = linear_net(rng), normal(rng, 9)
        scale = rng.uniform(0.5, 2, 9)
        z = net.exact()(x[None].astype(np.float64))[0]
        c = int(z.argmax())
        differences = np.delete((net.weights["W"][:, c : c + 1] - net.weights["W"]).T * scale, c, axis=0)  # (K − 1, d)
        length = np.linalg.norm(differences, axis=1) if norm == "l2" else np.abs(differences).sum(axis=1)
        exact = ((z[c] - np.delete(z, c)) / length).min()
        radius = searched(net, norm, scale).radius(x, c)
        assert radius <= exact
        assert_allclose(radius, exact, rtol=0.02)


def attacked(net: Net, norm: str, x, c: int, radius: float, rng) -> bool:
    """Whether random points of the ball, and steps along slopes by differences from there, find another prediction."""
    values = net.exact()
    points = in_ball(rng, x, radius, norm, np.ones(x.size), 8)
    for _ in range(4):
        z = values(points)
        if (z.argmax(axis=1) != c).any():
            return True
        rival = np.where(np.arange(z.shape[1]) == c, -np.inf, z).argmax(axis=1)
        near = values((points[:, None] + 1e-5 * np.eye(x.size)).reshape(-1, x.size)).reshape(len(points), x.size, -1)
        at = np.arange(len(points))
        slopes = (near[at, :, rival] - near[:, :, c] - (z[at, rival] - z[:, c])[:, None]) / 1e-5
        up = slopes / np.linalg.norm(slopes, axis=1, keepdims=True) if norm == "l2" else np.sign(slopes)
        delta = points + 0.5 * radius * up - x
        if norm == "l2":
            delta *= np.minimum(1.0, radius / np.linalg.norm(delta, axis=1, keepdims=True))
        points = x + np.clip(delta, -radius, radius)
    return bool((values(points).argmax(axis=1) != c).any())


@pytest.mark.parametrize(("make", "seeds"), [(mlp, 8), (deep, 3)])
@pytest.mark.parametrize("norm", NORMS)
def test_no_attack_succeeds_inside_and_some_do_far_outside(make, seeds, norm):
    reached = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        net = make(rng)
        x = normal(rng, *net.shape).ravel().astype(np.float64)
        c = int(net.exact()(x[None])[0].argmax())
        radius = searched(net, norm).radius(x, c)
        assert radius > 0
        assert not attacked(net, norm, x, c, radius, rng)
        reached += attacked(net, norm, x, c, 12 * radius, rng)
    assert reached >= seeds / 3  # the attack is one that finds something


def test_a_radius_too_long_is_caught(monkeypatch):
    """The attack of these tests breaks radii that are twice those of linear scores."""
    rng = np.random.default_rng(2)
    net, x = linear_net(rng), normal(rng, 9).astype(np.float64)
    c = int(net.exact()(x[None])[0].argmax())
    assert attacked(net, "l2", x, c, 2 * searched(net, "l2").radius(x, c), rng)


@pytest.mark.parametrize("norm", NORMS)
def test_each_sample_has_the_same_radius_whichever_others_there_are(norm):
    rng = np.random.default_rng(0)
    net = deep(rng)
    X = normal(rng, 5, *net.shape)
    C = net.exact()(X.reshape(5, -1).astype(np.float64)).argmax(axis=1)
    together = searched(net, norm)
    forwards = [together.radius(x, int(c)) for x, c in zip(X, C, strict=True)]
    other = searched(net, norm)
    backwards = [other.radius(x, int(c)) for x, c in zip(X[::-1], C[::-1], strict=True)][::-1]
    alone = [searched(net, norm).radius(x, int(c)) for x, c in zip(X, C, strict=True)]
    assert forwards == backwards == alone


def test_bounds_get_worse_with_the_radius():
    rng = np.random.default_rng(4)
    net = deep(rng)
    x, found = normal(rng, *net.shape).astype(np.float64).ravel(), net.network()
    widths = []
    for radius in (0.0, 1e-3, 1e-2, 0.1, 1.0):
        around = Around(found, NormBall("l2", np.ones(x.size)), x, radius, {})
        assert around.spread()
        box = around.boxes["y"]
        widths.append(box.high - box.low)
    assert all((a <= b).all() for a, b in pairwise(widths))


def test_rows_in_float32_lose_little():
    rng = np.random.default_rng(6)
    for make in (mlp, deep):
        net = make(rng)
        x = normal(rng, *net.shape)
        c = int(net.exact()(x.ravel()[None].astype(np.float64))[0].argmax())
        single, double = (searched(net, "l2", kind=k).radius(x, c) for k in (np.float32, np.float64))
        assert single <= double * 1.03  # the search itself ends within 2 %
        assert single >= 0.94 * double


def test_a_prediction_that_is_not_the_largest_score_has_no_radius():
    rng = np.random.default_rng(1)
    net, x = mlp(rng), normal(rng, 6)
    c = int(net.exact()(x[None].astype(np.float64))[0].argmin())
    assert searched(net, "l2").radius(x, c) == 0.0


def test_scores_that_no_input_changes_have_no_end():
    net = Net([node("Mul", ["x", "o"], ["a"]), node("Add", ["a", "b"])],
              {"o": np.zeros(3, np.float32), "b": np.array([1, 2, 3], np.float32)}, (3,))  # fmt: skip
    assert math.isinf(searched(net, "l2").radius(np.ones(3), 2))


def test_a_margin_takes_from_the_radius():
    rng = np.random.default_rng(3)
    net, x = linear_net(rng), normal(rng, 9)
    z = net.exact()(x[None].astype(np.float64))[0]
    c = int(z.argmax())
    spare = float(z[c] - np.delete(z, c).max())
    plain = searched(net, "l2")
    apart = RadiusSearch(plain.network, plain.ball, margin=0.5 * spare)
    assert 0 < apart.radius(x, c) < 0.95 * plain.radius(x, c)


# files as they are deployed


@pytest.mark.parametrize("name", ["digits_mlp", "digits_resnet_int8", "digits_resnet_fp16"])
def test_outputs_of_the_file_lie_within_its_bounds(name):
    """int8 and float16 included: what the runtime computes at points of the ball, rounding and all."""
    case = trained.OURS[name]
    file = load_model(case.path)
    output = file.graph.outputs[0].name
    scores = ending(file.graph, output).logits or output
    found = network(file.graph, input_name=file.graph.inputs[0].name, scores=scores, sample_shape=(1, 8, 8))
    X, rng = case.arrays["inputs"][:3], np.random.default_rng(0)
    forward = open_subject(case.path, X, Settings(providers=("cpu",))).forward
    for x in X:
        for radius in (1e-4, 1e-2):
            around = Around(found, NormBall("linf", np.ones(64)), x.ravel().astype(np.float64), radius, {})
            assert around.spread()
            eye = np.eye(10, dtype=np.float32)
            back = around.lowest({scores: np.concatenate([eye, -eye])}, np.zeros(20)).at(radius)
            points = in_ball(rng, x.ravel().astype(np.float64), radius * (1 - 1e-6), "linf", np.ones(64), 200)
            z = forward.outputs(points.reshape(-1, 1, 8, 8).astype(np.float32))[:, :, 0]
            box = around.boxes[scores]
            assert (z >= np.maximum(back[:10], box.low)).all()
            assert (z <= np.minimum(-back[10:], box.high)).all()


# functions without a slope


def stepped(rng, step: float) -> Net:
    """Levels of a quantiser, and scores that are linear in them."""
    weights = {"scale": np.float32(step), "zero": np.uint8(128), "W": normal(rng, 6, 3), "b": normal(rng, 3)}
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["levels"]),
        node("Gemm", ["levels", "W", "b"], ["y"]),
    ]
    return Net(nodes, weights, (6,))


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_function_stays_up_to_the_next_step_at_least(norm):
    """What the quantiser rounds alike is proved; what lies beyond is left open, never called the same everywhere."""
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        net, step = stepped(rng, 0.1), 0.1
        levels = rng.integers(-20, 20, 6)
        x = ((levels + rng.uniform(-0.3, 0.3, 6)) * step).astype(np.float32)
        run = ReferenceEvaluator(net.model())
        z = run.run(None, {"x": x[None]})[0][0]
        c = int(z.argmax())
        radius = searched(net, norm).radius(x, c)
        nearest = float((0.5 - np.abs(x / step - np.round(x / step))).min() * step)  # to where a level ends
        assert 0.9 * nearest <= radius < math.inf  # 0.9: the search ends between two tries
        points = in_ball(rng, x.astype(np.float64), radius * (1 - 1e-6), norm, np.ones(6), 100).astype(np.float32)
        assert all(run.run(None, {"x": p[None]})[0][0].argmax() == c for p in points)
        found += radius > 1.5 * nearest
    assert found  # bounds go on beyond the first step where there is room


def test_only_a_prediction_that_nothing_changes_has_no_end():
    net = Net([node("Clip", ["x", "low", "low"], ["flat"]), node("Gemm", ["flat", "W", "b"], ["y"])],
              {"low": np.float32(0.5), "W": np.ones((4, 3), np.float32), "b": np.array([1.0, 0.0, -1.0], np.float32)}, (4,))  # fmt: skip
    x = np.zeros(4, np.float32)
    assert searched(net, "l2").radius(x, 0) == math.inf
    assert searched(net, "l2").radius(x, 1) == 0.0


def test_an_int8_file_keeps_its_prediction_within_its_radius():
    case = trained.OURS["digits_resnet_int8"]
    file = load_model(case.path)
    found = network(file.graph, input_name="images", scores=file.graph.outputs[0].name, sample_shape=(1, 8, 8))
    search, rng = RadiusSearch(found, NormBall("l2", np.ones(64))), np.random.default_rng(0)
    X = case.arrays["inputs"][[0, 7, 8, 11]]
    forward = open_subject(case.path, X, Settings(providers=("cpu",))).forward
    classes = forward.outputs(X)[:, :, 0].argmax(axis=1)
    radii = [search.radius(x, int(c)) for x, c in zip(X, classes, strict=True)]
    assert max(radii) < math.inf
    assert sum(r > 0 for r in radii) == 3  # of the others bounds allow every level inside to round either way
    for x, c, radius in zip(X, classes, radii, strict=True):
        if radius > 0:
            points = in_ball(rng, x.ravel().astype(np.float64), radius * (1 - 1e-6), "l2", np.ones(64), 200)
            assert (forward.outputs(points.reshape(-1, 1, 8, 8).astype(np.float32))[:, :, 0].argmax(axis=1) == c).all()
