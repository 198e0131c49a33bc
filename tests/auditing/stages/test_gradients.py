"""What an audit does with a derivative that is wrong, absent, in doubt or interrupted."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.run import audit
from onnxfim.auditing.stages import attack, crosscheck, replay
from onnxfim.auditing.stages import by_gradients as gradients
from onnxfim.auditing.subject import from_callable
from onnxfim.errors import ModelError
from onnxfim.gradients import SelfTest, differentiable
from onnxfim.gradients.derivative_rules import RULES
from onnxfim.slopes.exact import GradientRoute
from tests.support import models
from tests.support.models import Linear, Mlp
from tests.support.places import SAMPLES

MODEL = Mlp.draw(5, 12)
X = MODEL.samples(24)


@pytest.fixture
def path(saved):
    return saved(MODEL.onnx())


def wrong(monkeypatch, factor):
    """Tanh with a derivative that is off by a factor, the same in both directions."""
    rule = RULES["Tanh"]
    honest = rule.partials

    def partials(site):
        return {i: site.mul(d, site.emitter.operand(factor, site.dtype)) for i, d in honest(site).items()}

    spoiled = type(rule).__new__(type(rule))
    for name, value in vars(rule).items():
        object.__setattr__(spoiled, name, value)
    object.__setattr__(spoiled, "partials", partials)
    monkeypatch.setitem(RULES, "Tanh", spoiled)


def ids(found):
    return {f.id: f for f in found.findings}


class TestSelfTest:
    def test_a_wrong_rule_is_refused(self, path, cpu, monkeypatch):
        wrong(monkeypatch, 1.2)
        found = audit(path, X, settings=cpu())
        assert found.run.method != "gradient"
        assert not found.gradient.used
        assert "self-test failed: the derivative rule of Tanh differs from differences of node" in found.gradient.reason
        assert "self-test failed" in ids(found)["no-gradient"].message
        assert_allclose([s.lambda_max.value for s in found.samples], MODEL.lambda_max(X), rtol=1e-2)

    def test_and_asked_for_gradients_it_raises(self, path, cpu, monkeypatch, told):
        wrong(monkeypatch, 1.2)
        with pytest.raises(ModelError, match=told("no gradients (self-test failed", "Use --method sketch")):
            audit(path, X, settings=cpu(method="gradient"))

    def test_directions_that_do_not_belong_together_are_refused(self, path, cpu, monkeypatch):
        plain = differentiable.DifferentiableModel.jvp
        monkeypatch.setattr(
            differentiable.DifferentiableModel, "jvp", lambda self, *given: (plain(self, *given)[0], 1.01 * plain(self, *given)[1])
        )
        assert "a derivative rule is wrong" in audit(path, X, settings=cpu()).gradient.reason

    def test_other_outputs_are_refused(self, path, cpu, monkeypatch):
        plain = differentiable.DifferentiableModel.jvp
        monkeypatch.setattr(
            differentiable.DifferentiableModel, "jvp", lambda self, *given: (plain(self, *given)[0] + 3e-3, plain(self, *given)[1])
        )
        assert "outputs differ" in audit(path, X, settings=cpu()).gradient.reason

    def test_a_constant_model_is_refused(self, saved, cpu):
        found = audit(saved(models.constant()), np.zeros((4, 6), np.float32), settings=cpu())
        assert "zero" in found.gradient.reason

    def test_errors_are_told(self, path, cpu):
        info = audit(path, X, settings=cpu(replay=0)).gradient
        assert info.used
        assert info.reason is None
        assert 0 <= info.adjoint_error < 1e-5
        assert 0 <= info.difference_error < 1e-2


class TestImpossible:
    def test_a_function_has_no_graph(self, cpu, told):
        fn = from_callable(MODEL.logits, (12,), 5, dtype="float64")
        with pytest.raises(ModelError, match=told("no gradients", "a function, not a graph")):
            audit(fn, X, settings=cpu(method="gradient"))

    def test_sketch_never_differentiates(self, path, cpu, monkeypatch):
        monkeypatch.setattr(gradients, "open_derivative", lambda *_: pytest.fail("differentiated"))
        assert audit(path, X, settings=cpu(method="sketch")).run.method == "sketch"


class TestCrossCheck:
    def test_agreement_is_told(self, path, cpu):
        found = audit(path, X, settings=cpu(replay=0))
        assert found.gradient.cross_checked == len(found.step.samples)
        assert found.gradient.cross_check_ratio == pytest.approx(1, abs=0.5)
        assert found.verdict == "measured"

    @pytest.mark.parametrize("factor", [0.2, 3.0])
    def test_disagreement_beyond_the_interval_is_an_error(self, path, cpu, monkeypatch, factor):
        wrong(monkeypatch, factor)
        passed = SelfTest(True, "blind", 0.0, 0.0, 0.0)
        monkeypatch.setattr(differentiable, "self_test", lambda *_, **__: passed)
        found = audit(path, X, settings=cpu(replay=0, method="gradient"))
        finding = ids(found)["gradient-sketch-disagree"]
        assert finding.level == "error"
        assert found.verdict == "inconclusive"
        assert found.gradient.cross_check_ratio == pytest.approx(factor**-2, rel=0.5)  # lambda goes with the derivative squared

    def test_masked_gradients_show(self, saved, cpu):
        """A slope hidden under a staircase's flat steps: the graph's derivative is a hundredth of what a step sees."""
        model = Linear.draw(4, 6)
        nodes = [
            ("Mul", ["x", "fine"], ["scaled"], {}),
            ("Floor", ["scaled"], ["steps"], {}),
            ("Div", ["steps", "fine"], ["coarse"], {}),
            ("Mul", ["x", "small"], ["slope"], {}),
            ("Add", ["coarse", "slope"], ["both"], {}),
            ("Gemm", ["both", "W"], ["z"], {"transB": 1}),
        ]
        weights = {"fine": np.float32([2.0**14]), "small": np.float32([0.01]), "W": model.W.astype(np.float32)}
        made = models.model(nodes, weights, shape=(6,), out=(4,))
        found = audit(saved(made), model.samples(16), settings=cpu(replay=0))
        assert not found.gradient.used or found.verdict == "inconclusive"


class TestInterrupt:
    def stop_after(self, monkeypatch, count):
        plain = GradientRoute.measure

        def measure(self, *args):
            for k, pair in enumerate(plain(self, *args)):
                if k == count:
                    raise KeyboardInterrupt
                yield pair

        monkeypatch.setattr(GradientRoute, "measure", measure)

    def test_while_measuring(self, path, cpu, monkeypatch):
        whole = audit(path, X, settings=cpu(replay=0))
        self.stop_after(monkeypatch, 7)
        found = audit(path, X, settings=cpu())
        assert found.run.partial
        assert found.run.method == "gradient"
        assert [s.lambda_max for s in found.samples] == [s.lambda_max for s in whole.samples[:7]]

    def test_before_the_first_result(self, path, cpu, monkeypatch):
        self.stop_after(monkeypatch, 0)
        found = audit(path, X, settings=cpu())
        assert found.run.partial
        assert found.samples == ()
        assert {s.reason for s in found.skipped} == {"interrupted before it was measured"}

    @pytest.mark.parametrize(
        ("module", "stage"),
        [(crosscheck, "cross_check"), (replay, "replay"), (attack, "attack")],
        ids=["cross-check", "replay", "attack"],
    )
    def test_later(self, path, cpu, monkeypatch, module, stage):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(module, stage, interrupted)
        found = audit(path, X, settings=cpu(replay=4, attack="l2"))
        assert found.run.partial
        assert len(found.samples) == len(X)
        assert (sum(s.kl_curve is not None for s in found.samples) > 0) == (stage == "attack")


class TestReplay:
    def test_curves_of_samples_spread_over_the_ranking(self, path, cpu):
        found = audit(path, X, settings=cpu(replay=5))
        shown = [s for s in found.samples if s.kl_curve is not None]
        ranked = sorted(s.lambda_max.value for s in found.samples)
        lam = sorted(s.lambda_max.value for s in shown)
        assert len(shown) == 5
        assert (lam[0], lam[-1]) == (ranked[0], ranked[-1])
        assert {p.role for p in found.directions} == {"worst", "median", "best"}
        for s in shown:  # 5 %: the smallest step is a hundredth of the distance to the boundary
            p = s.kl_curve.points[0]
            assert_allclose([p.along, p.against], p.quadratic, rtol=0.05)

    def test_the_quadratic_form_bounds_every_direction(self, path, cpu):
        for s in audit(path, X, settings=cpu(replay=24)).samples:
            assert s.kl_curve.points[0].random <= s.kl_curve.points[0].quadratic * 1.05


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_attacks_ladder_holds_what_was_asked_for(cpu, norm):
    """What the attack at the radius broke is nearer than the radius: the curve through the distances says the same there."""
    with np.load(SAMPLES / "digits.npz") as data:
        inputs, labels = data["inputs"][:40], data["labels"][:40]
    epsilon = 0.4 if norm == "l2" else 0.08
    found = audit(
        SAMPLES / "digits_mlp.onnx",
        inputs,
        labels,
        settings=cpu(replay=0, bounds=False, attack=norm, epsilon=epsilon, attack_range=(0, 1)),
    )
    curve = found.robustness.curve("attack")
    there = next(p for p in curve.ladder if p.epsilon == epsilon)
    assert 0 < there.left < 1
    assert there.left == pytest.approx(found.attack.robust_accuracy)
    assert curve.unreached == found.attack.failed
