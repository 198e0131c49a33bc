"""Step and scheme: what the ladder chooses on smooth, rounded, noisy, kinked and silent functions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.run import audit
from onnxfim.auditing.subject import from_callable
from onnxfim.record.settings import Settings
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.slopes.dithering import Probe
from onnxfim.slopes.kinds import SoftmaxLogits
from onnxfim.slopes.step import LADDER, calibration_positions, choose_step
from tests.support.models import Linear, Mlp

D, K = 40, 5


@pytest.fixture(scope="module")
def mlp():
    return Mlp.draw(K, D)


def choose(fn, X, *, dtype="float64", **options):
    forward = CallableForward(fn, X.shape[1:], K, dtype=dtype, batch=256)
    base = forward.outputs(X)
    return choose_step(forward, SoftmaxLogits(), Probe(X, base, tuple(range(len(X)))), input_std=1.0, seed=0, **options)


def rounded(fn, level):
    return lambda X: np.round(fn(X) / level) * level


class Jittery:
    """A function whose identical calls differ."""

    def __init__(self, fn, noise):
        self.fn, self.noise, self.rng = fn, noise, np.random.default_rng(0)

    def __call__(self, X):
        z = self.fn(X)
        return z + self.noise * self.rng.standard_normal(z.shape)


class TestSmooth:
    def test_forward_differences_on_a_plateau(self, mlp):  # 2 %: the share of curvature that a forward sketch may carry
        X = mlp.samples(6)
        step = choose(mlp.logits, X)
        assert (step.scheme, step.plateau, step.given, step.repeat_noise) == ("forward", True, False, 0.0)
        assert step.error <= 0.02
        at = next(g for g in step.curve if g.step == step.step)
        assert_allclose(at.forward, at.central, rtol=0.02)
        assert [g.step for g in step.curve] == sorted(LADDER)
        assert all(g.unchanged == 0 for g in step.curve)

    def test_float32_does_not_take_the_smallest_step(self, mlp):  # rounding grows with 1/r; the floor is that of one output
        X = mlp.samples(6)
        step = choose(lambda X: mlp.logits(X).astype(np.float32), X, dtype="float32")
        assert step.scheme == "forward"
        assert step.plateau
        assert step.step > LADDER[0]
        assert 1e-9 < step.noise_floor < 1e-6

    def test_the_plateau_is_that_of_the_truth(self, mlp):  # 5 %: 8 directions of the ladder are the same at every rung
        X = mlp.samples(6)
        step = choose(mlp.logits, X)
        values = [g.central for g in step.curve if g.step <= 1e-2]
        assert_allclose(values, values[0], rtol=0.05)

    @pytest.mark.parametrize("given", [1e-3, 0.0123, 0.4])
    def test_a_given_step_is_kept(self, mlp, given):
        step = choose(mlp.logits, mlp.samples(4), step=given)
        assert step.given
        assert step.step == given
        assert step.scheme in ("forward", "central")

    def test_the_ladder_is_in_units_of_the_inputs(self, mlp):
        X = mlp.samples(3)
        forward = CallableForward(lambda X: mlp.logits(X / 255), X.shape[1:], K, dtype=np.float64, batch=99)
        base = forward.outputs(255 * X)
        step = choose_step(forward, SoftmaxLogits(), Probe(255 * X, base, (0, 1, 2)), input_std=255.0, seed=0)
        assert_allclose(step.step, 255 * choose(mlp.logits, X).step, rtol=1e-9)

    def test_evaluations_are_counted(self, mlp):
        calls = []
        X = mlp.samples(4)

        def fn(X):
            calls.append(len(X))
            return mlp.logits(X)

        step = choose(fn, X)
        assert step.evaluations == sum(calls) - len(X), "all but the clean pass, which is the caller's"


class TestRounded:
    @pytest.mark.parametrize(
        ("level", "schemes"), [(0.02, ("forward", "central", "dithered")), (0.1, ("dithered",)), (0.2, ("dithered",))]
    )
    def test_the_choice_is_near_the_truth(self, mlp, level, schemes):  # 30 %: six samples, 8 or 24 directions, finite steps
        X = mlp.samples(6)
        step = choose(rounded(mlp.logits, level), X)
        assert step.scheme in schemes
        assert step.step > level / np.sqrt(D) / 2, "a step below the rounding resolves nothing"
        assert step.smallest_usable <= step.step
        at = next(g for g in step.curve if g.step == step.step)
        value = at.cross if step.scheme == "dithered" else at.central
        assert_allclose(value, mlp.lambda_max(X).mean(), rtol=0.3)
        dead = step.curve[0]
        assert dead.forward is None or dead.unchanged > 0.5, "the smallest step resolves nothing, and says so"

    @pytest.mark.parametrize("level", [0.02, 0.1, 1.0, 1e6])
    def test_no_value_is_ever_zero(self, mlp, level):
        X = mlp.samples(8)
        found = audit(from_callable(rounded(mlp.logits, level), (D,), K), X, settings=Settings(budget=60))
        for s in found.samples:
            estimate = s.lambda_max
            assert estimate.value != 0.0
            assert estimate.value is not None or estimate.reason

    @pytest.mark.parametrize("given", [1e-5, 1e-3])
    def test_a_given_step_below_the_rounding_is_null_with_its_reason(self, mlp, given):
        X = mlp.samples(5)
        settings = Settings(budget=60, step=given)
        found = audit(from_callable(rounded(mlp.logits, 3.0), (D,), K), X, settings=settings)
        assert found.run.step == given
        missing = [s.lambda_max for s in found.samples if s.lambda_max.value is None]
        assert missing
        assert all("rounding" in e.reason for e in missing)
        assert "unresolved" in {f.id for f in found.findings}


class TestSilent:
    @pytest.mark.parametrize("step", [None, 0.1])
    def test_a_model_that_nothing_changes_has_no_value(self, step):
        def fn(X):
            return np.tile(np.linspace(-1, 1, K), (len(X), 1))

        X = np.random.default_rng(0).standard_normal((12, D)).astype(np.float32)
        found = audit(from_callable(fn, (D,), K), X, settings=Settings(step=step))
        for s in found.samples:
            for e in (s.lambda_max, s.trace, s.boundary_distance, s.logit_sensitivity):
                assert e.value is None
                assert e.reason
            assert s.unchanged == 1.0
        unresolved = next(f for f in found.findings if f.id == "unresolved")
        assert unresolved.level == "error"
        assert "does not mean that they are robust" in unresolved.message
        assert found.verdict == "inconclusive"
        assert found.aggregates["lambda_max"].mean.value is None
        assert found.aggregates["lambda_max"].count == 0
        assert not found.step.plateau

    def test_exact_has_no_value_either(self):
        X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
        found = audit(from_callable(lambda X: np.zeros((len(X), 3)), (6,), 3), X, settings=Settings(method="exact"))
        assert all(s.lambda_max.value is None for s in found.samples)


class TestNoisy:
    def test_a_jittery_model_is_found_out(self, mlp):
        X = mlp.samples(12)
        found = audit(from_callable(Jittery(mlp.logits, 1e-3), (D,), K), X)
        assert_allclose(found.step.repeat_noise, np.sqrt(2) * 1e-3, rtol=0.5)  # rms of 30 to 60 differences of two draws
        finding = next(f for f in found.findings if f.id == "not-deterministic")
        assert "Results do not repeat exactly" in finding.message
        quiet = audit(from_callable(mlp.logits, (D,), K), X)
        assert found.step.step >= 10 * quiet.step.step, "the step is large enough to rise above the noise"

    def test_its_values_hold_at_the_chosen_step(self, mlp):  # 25 %: six samples of 25 directions each at the budget
        X = mlp.samples(12)
        found = audit(from_callable(Jittery(mlp.logits, 1e-2), (D,), K), X, settings=Settings(budget=201))
        truth = mlp.lambda_max(X).mean()
        assert_allclose(found.aggregates["lambda_max"].mean.value, truth, rtol=0.25)

    @pytest.mark.parametrize("method", ["exact", "sketch"])
    @pytest.mark.parametrize("d", [9, 16, 40])
    def test_noise_is_no_slope_by_coordinates_either(self, d, method):  # 25 %: what the ladder's 2 % of noise and kinks may become
        model = Mlp.draw(K, d)
        X = model.samples(12)
        found = audit(
            from_callable(Jittery(model.logits, 1e-2), (d,), K), X, settings=Settings(method=method, budget=201, batch=64)
        )
        assert_allclose(found.aggregates["lambda_max"].mean.value, model.lambda_max(X).mean(), rtol=0.25)

    def test_a_quiet_model_is_not_accused(self, mlp):
        found = audit(from_callable(mlp.logits, (D,), K, dtype="float64"), mlp.samples(6))
        assert found.step.repeat_noise == 0
        assert "not-deterministic" not in {f.id for f in found.findings}


class TestNoPlateau:
    @staticmethod
    def rough(X):
        """Slopes that change at every scale: waves whose slopes grow as they get shorter."""
        base = Linear.draw(K, D).logits(X) * 0.1
        u = np.asarray(X, np.float64) @ np.linspace(0.5, 1.5, D)
        waves = sum(np.sin(u * 10.0**q + q) * 10.0 ** (-0.6 * q) for q in np.arange(0, 6, 0.5))
        return base + waves[:, None] * np.linspace(-1, 1, K)

    def test_it_is_said_and_the_scale_with_it(self):
        X = np.random.default_rng(0).standard_normal((10, D)).astype(np.float32)
        found = audit(from_callable(self.rough, (D,), K, dtype="float64"), X)
        assert not found.step.plateau
        assert found.step.scheme != "forward"
        finding = next(f for f in found.findings if f.id in ("no-plateau", "step-bias"))
        assert finding.level == "error"
        assert f"{found.step.step:.3g} per coordinate" in finding.message
        assert "change" in finding.message
        assert found.verdict == "inconclusive"


class TestCalibrationSamples:
    @pytest.mark.parametrize("n", [1, 5, 6, 7, 30, 500])
    def test_they_are_distinct_and_hold_the_undecided(self, n):
        weights = np.random.default_rng(n).random(n)
        chosen = calibration_positions(weights)
        assert len(set(chosen.tolist())) == len(chosen) == min(n, 6)
        assert set(np.argsort(-weights)[: min(n, 3)].tolist()) <= set(chosen.tolist())
        assert (np.diff(chosen) > 0).all()
