"""Attacks on a linear classifier, whose smallest distances are known, and on files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.run import audit
from onnxfim.record.settings import Settings
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.slopes.attacks import Threat, nearest_rivals, pgd, smallest_l2, smallest_linf
from onnxfim.slopes.kinds import SoftmaxLogits
from tests.support.models import Linear
from tests.support.places import SAMPLES

K, D, N = 5, 12, 24
WIDE = 50.0


class Smooth:
    """Logits of a linear model and the gradient of its loss, keeping every row it was asked for."""

    def __init__(self, model, scale=1.0):
        self.model, self.scale, self.rows = model, scale, []

    def __call__(self, X, labels, rivals, of):
        self.rows.append(X)
        z = self.scale * self.model.logits(X)
        target = np.eye(z.shape[1])[labels]
        aside = np.where(rivals[:, None] < 0, target > 0, np.arange(z.shape[1]) != rivals[:, None])
        others = np.where(aside, -np.inf, z)
        q = np.exp(others - others.max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
        return z, ((q - target) @ self.model.W).reshape(X.shape)


@pytest.fixture
def linear():
    model = Linear.draw(K, D)
    X = model.samples(N)
    return model, X, model.logits(X).argmax(axis=1)


def closed_form(model, X, norm):
    """Distance to the nearest boundary: the gap over the dual norm of the difference of weights."""
    z = model.logits(X)
    c = z.argmax(axis=1)
    found = np.full(z.shape, np.inf)
    for i, k in enumerate(c):
        for j in set(range(z.shape[1])) - {k}:
            w = model.W[k] - model.W[j]
            found[i, j] = (z[i, k] - z[i, j]) / (np.linalg.norm(w) if norm == "l2" else np.abs(w).sum())
    return found.min(axis=1)


def search(norm, gradient, X, labels, threat, rng, *, start=0.1, aimed=True):
    rivals = None
    if aimed:
        model = gradient.model
        J = np.broadcast_to(model.W, (len(X), *model.W.shape))
        rivals = nearest_rivals(model.logits(X), J, labels, threat)
    if norm == "l2":
        return smallest_l2(gradient, X, labels, threat, steps=200, rng=rng, start=start, rivals=rivals)
    return smallest_linf(gradient, X, labels, threat, steps=40, restarts=1, rng=rng, start=start, rivals=rivals)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_smallest_attack_is_the_closed_form_distance(linear, norm):  # 3 %: steps of 1 % and 2 % of the radius at the end
    model, X, labels = linear
    threat = Threat(norm, -WIDE, WIDE)
    found, delta = search(norm, Smooth(model), X, labels, threat, np.random.default_rng(0))
    truth = closed_form(model, X, norm)
    assert (found >= truth * (1 - 1e-5)).all(), "nothing is nearer than the boundary"
    assert_allclose(found, truth, rtol=0.03)
    assert_allclose(threat.size(delta), found, rtol=1e-12)
    assert (model.logits((X + delta).astype(X.dtype)).argmax(axis=1) != labels).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_without_an_aim_the_loss_may_lead_to_another_class(linear, norm):  # most samples within 3 %, none nearer than the truth
    model, X, labels = linear
    found, _ = search(norm, Smooth(model), X, labels, Threat(norm, -WIDE, WIDE), np.random.default_rng(0), aimed=False)
    ratio = found / closed_form(model, X, norm)
    assert ratio.min() >= 1 - 1e-5
    assert np.quantile(ratio, 0.7) <= 1.03


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_rival_is_the_class_nearest_to_first_order(linear, norm):
    model, X, labels = linear
    scale = np.geomspace(0.5, 2.0, D)
    J = np.broadcast_to(model.W, (N, K, D))
    rivals = nearest_rivals(model.logits(X), J, labels, Threat(norm, -WIDE, WIDE, scale))
    z = model.logits(X)
    for i, c in enumerate(labels):
        w = (model.W[c] - np.delete(model.W, c, axis=0)) * scale
        dual = np.linalg.norm(w, axis=1) if norm == "l2" else np.abs(w).sum(axis=1)
        assert rivals[i] == np.delete(np.arange(K), c)[((z[i, c] - np.delete(z[i], c)) / dual).argmin()]


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("start", [1e-3, 30.0])
def test_the_start_radius_does_not_matter(linear, norm, start):  # 5 %
    model, X, labels = linear
    found, _ = search(norm, Smooth(model), X, labels, Threat(norm, -WIDE, WIDE), np.random.default_rng(0), start=start)
    assert_allclose(found, closed_form(model, X, norm), rtol=0.05)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_saturation_hides_nothing(linear, norm):  # margins of thousands: a softmax of all classes has no gradient left
    model, X, labels = linear
    found, _ = search(norm, Smooth(model, scale=1e4), X, labels, Threat(norm, -WIDE, WIDE), np.random.default_rng(0))
    assert_allclose(found, closed_form(model, X, norm), rtol=0.05)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_raw_units_are_those_of_a_scaled_model(linear, norm):  # 3 %: as above
    model, X, labels = linear
    scale = np.geomspace(0.5, 4.0, D)
    found, delta = search(norm, Smooth(model), X, labels, Threat(norm, -WIDE, WIDE, scale), np.random.default_rng(0))
    raw = Linear(model.W * scale, model.b)  # x = scale · raw
    assert_allclose(found, closed_form(raw, X / scale, norm), rtol=0.03)
    assert_allclose(found, Threat(norm, 0, 1).size(delta / scale), rtol=1e-12)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_nothing_leaves_the_range(linear, norm):
    model, X, labels = linear
    low, high = float(X.min()), float(X.max())
    gradient, threat, rng = Smooth(model), Threat(norm, low, high), np.random.default_rng(0)
    found, delta = search(norm, gradient, X, labels, threat, rng)
    _, other = pgd(gradient, X, labels, threat, 3.0, steps=10, restarts=3, rng=rng)
    for rows in [*gradient.rows, X + delta, X + other]:
        assert rows.min() >= low
        assert rows.max() <= high
    # Inside the box no attack is shorter than without one.
    assert (found >= closed_form(model, X, norm) * (1 - 1e-5)).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_pgd_keeps_to_the_radius_and_succeeds_beyond_the_distance(linear, norm):
    model, X, labels = linear
    truth = closed_form(model, X, norm)
    threat, rng = Threat(norm, -WIDE, WIDE), np.random.default_rng(0)
    radius = float(np.median(truth))
    hit, delta = pgd(Smooth(model), X, labels, threat, radius, steps=40, restarts=2, rng=rng)
    assert (threat.size(delta) <= radius * (1 + 1e-5)).all()
    assert not hit[truth > radius * (1 + 1e-5)].any()
    # 3 %: steps of finite length; a tenth of the samples are led to another class.
    assert hit[truth < 0.97 * radius].mean() >= 0.8
    assert ((model.logits((X + delta).astype(X.dtype)).argmax(axis=1) != labels) == hit).all()


def test_a_radius_for_each_sample(linear):
    model, X, labels = linear
    truth = closed_form(model, X, "linf")
    threat = Threat("linf", -WIDE, WIDE)
    rivals = nearest_rivals(model.logits(X), np.broadcast_to(model.W, (N, K, D)), labels, threat)
    factors = np.where(np.arange(N) % 2, 1.05, 0.95)
    hit, _ = pgd(
        Smooth(model), X, labels, threat, factors * truth, steps=40, restarts=1, rng=np.random.default_rng(0), rivals=rivals
    )
    assert (hit == (factors > 1)).all()


def test_restarts_find_what_the_flat_start_hides(linear):
    model, X, labels = linear
    smooth = Smooth(model)

    def flat(rows, y, rivals, of):
        z, g = smooth(rows, y, rivals, of)
        still = np.abs(rows - rows.round(3)).max(axis=1) < 1e-9  # no gradient at the samples themselves
        return z, np.where(still[:, None], 0.0, g)

    X = X.astype(np.float64).round(3)
    radius = 2 * closed_form(model, X, "l2")
    threat, rng = Threat("l2", -WIDE, WIDE), np.random.default_rng(0)
    hit, _ = pgd(flat, X, labels, threat, radius, steps=40, restarts=2, rng=rng)
    assert hit.all()


def test_what_cannot_be_reached_is_infinite():
    model = Linear(np.zeros((3, 4)), np.array([1.0, 0.0, 0.0]))
    X = model.samples(2)
    labels = np.zeros(2, int)
    for norm in ("l2", "linf"):
        found, _ = search(norm, Smooth(model), X, labels, Threat(norm, -1, 1), np.random.default_rng(0))
        assert np.isinf(found).all()


@pytest.mark.slow
class TestOnFiles:
    @pytest.mark.parametrize("norm", ["l2", "linf"])
    def test_a_linear_file(self, saved, cpu, norm):  # 3 %: as above
        model = Linear.draw(K, D)
        X = model.samples(N)
        labels = model.logits(X).argmax(axis=1)
        labels[0] = (labels[0] + 1) % K
        found = audit(saved(model.onnx()), X, labels, cpu(method="gradient", replay=0, attack=norm, attack_range=(-WIDE, WIDE)))
        distances = np.array([s.attack_distance.value for s in found.samples])
        assert distances[0] == 0, "wrong without an attack"
        assert_allclose(distances[1:], closed_form(model, X, norm)[1:], rtol=0.03)
        assert {s.attack_distance.kind for s in found.samples} == {"upper bound"}
        assert found.attack.clean_accuracy == pytest.approx(1 - 1 / N)
        assert found.attack.failed == 0
        measures = {c.measure: c.coefficient for c in found.attack.correlations}
        if norm == "l2":
            assert measures["boundary_distance"] > 0.99, "for a linear model the first-order distance is the distance"

    @pytest.mark.slow
    def test_success_is_success_on_the_file_itself(self, monkeypatch):
        from onnxfim.auditing.stages import attack

        kept = {}
        plain = attack._Judge.confirmed

        def confirmed(self, X, labels, of, distances, delta):
            kept.update(X=X, labels=labels, delta=delta, distances=plain(self, X, labels, of, distances, delta))
            return kept["distances"]

        monkeypatch.setattr(attack._Judge, "confirmed", confirmed)
        path = SAMPLES / "digits_resnet.onnx"
        with np.load(SAMPLES / "digits.npz") as data:
            settings = Settings(samples=12, replay=0, method="gradient", attack="l2", attack_range=(0, 1), providers=("cpu",))
            found = audit(path, data["inputs"], data["labels"], settings)
        forward = OnnxForward(
            path, input_name="images", output_name="logits", shape=(1, 8, 8), dtype=np.dtype("float32"), hardware=Hardware(("cpu",))
        )
        moved = (kept["X"] + kept["delta"]).astype(np.float32)
        wrong = SoftmaxLogits().predictions(forward.outputs(moved)) != kept["labels"]
        assert np.isfinite(kept["distances"]).all()
        assert wrong.mean() >= 0.9, "most need no lengthening"
        assert found.attack.median_distance == pytest.approx(np.median(kept["distances"]))
        assert (moved.min(), moved.max()) == (0.0, 1.0)

    def test_a_graph_that_is_wrong_at_the_boundary_is_corrected_by_the_file(self, saved, cpu, monkeypatch):
        from onnxfim.gradients.differentiable import DifferentiableModel

        plain = DifferentiableModel.loss_gradient

        def early(self, X, labels, rivals, of):
            """Says success a hundredth too early."""
            z, g = plain(self, X, labels, rivals, of)
            return z + 0.02 * (1 - np.eye(z.shape[1])[labels]), g

        monkeypatch.setattr(DifferentiableModel, "loss_gradient", early)
        model = Linear.draw(K, D)
        X = model.samples(N)
        found = audit(saved(model.onnx()), X, settings=cpu(method="gradient", replay=0, attack="l2", attack_range=(-WIDE, WIDE)))
        truth = closed_form(model, X, "l2")
        for s, t in zip(found.samples, truth, strict=True):
            assert s.attack_distance.value is None or s.attack_distance.value >= t * (1 - 1e-5)

    def test_raw_units(self, saved, cpu):
        model = Linear.draw(K, D)
        X = model.samples(N)
        plain = audit(saved(model.onnx()), X, settings=cpu(method="gradient", replay=0, attack="l2", attack_range=(-WIDE, WIDE)))
        scaled = audit(
            saved(model.onnx()), X,
            settings=cpu(method="gradient", replay=0, attack="l2", attack_range=(-WIDE, WIDE), input_scale=(4.0,)),
        )  # fmt: skip
        assert scaled.attack.units == "raw input units"
        assert plain.attack.units == "model input units"
        assert_allclose(scaled.attack.median_distance, plain.attack.median_distance / 4, rtol=0.01)

    def test_a_single_sigmoid(self, saved, cpu):  # 3 %: as above; the boundary is where its logit is 0
        model = Linear.draw(1, D)
        X = model.samples(8)
        labels = (model.logits(X)[:, 0] > 0).astype(int)
        settings = cpu(method="gradient", replay=0, attack="l2", attack_range=(-WIDE, WIDE))
        found = audit(saved(model.onnx(end="Sigmoid")), X, labels, settings)
        truth = np.abs(model.logits(X)[:, 0]) / np.linalg.norm(model.W)
        assert_allclose([s.attack_distance.value for s in found.samples], truth, rtol=0.03)

    def test_round_trip_through_json(self, saved, cpu):
        model = Linear.draw(K, D)
        found = audit(saved(model.onnx()), model.samples(6), settings=cpu(method="gradient", replay=2, attack="linf"))
        record = json.loads(found.to_json())
        assert record["attack"]["norm"] == "linf"
        assert record["samples"][0]["attack_distance"]["value"] == found.samples[0].attack_distance.value
