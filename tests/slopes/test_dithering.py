"""Files that round: the step, what it is short of, and the check against the surrogate, on nets whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.run import audit
from onnxfim.auditing.subject import from_callable
from onnxfim.record.settings import Settings
from onnxfim.record.steps import Rung
from onnxfim.slopes.dithering import Dithered, Means, step_bias
from tests.support.quantised_nets import FORMS, Dense, quantised_file

N = 32
NETS = {"linear": Dense.draw(60, 6), "relu": Dense.draw(60, 80, 6), "deep": Dense.draw(60, 80, 80, 80, 6, gain=1.8)}
#: Levels on either side of zero: of int8, and of a grid that is far too coarse for a slope.
LEVELS = (127, 31, 5)


def saved(tmp_path, net, X, form, levels=127):
    path = tmp_path / f"{form}.onnx"
    onnx.save(quantised_file(net, X, form, levels), path)
    return path


def errors(found):
    return {f.id for f in found.findings if f.level == "error"}


def points(law, shares=(0.3, 0.08, 0.02)):
    steps = [0.02, 0.04, 0.08]
    rungs = [Rung(r, r, None, law(r), None, 0.0, cross=law(r)) for r in steps]
    return [Dithered(g, g.step, s, 0.5, 0.0) for g, s in zip(rungs, shares, strict=True)]


class TestBias:
    @pytest.mark.parametrize("fall", [0.0, 2.0, 8.0])
    def test_an_exponential_fall_is_made_good(self, fall):  # the factor is shrunk by its own noise, which the range holds
        bias = step_bias(points(lambda r: 3.0 * np.exp(-fall * r)), directions=10_000)
        assert_allclose(bias.factor, np.exp(fall * 0.02), rtol=0.02)
        assert bias.low <= np.exp(fall * 0.02) <= bias.high
        assert not bias.applied

    @pytest.mark.parametrize("fall", [0.5, 1.0, 2.0])
    def test_the_range_holds_a_fall_with_the_root(self, fall):
        bias = step_bias(points(lambda r: 3.0 * np.exp(-fall * np.sqrt(r))), directions=10_000)
        assert bias.low <= np.exp(fall * np.sqrt(0.02)) <= bias.high
        assert bias.factor < np.exp(fall * np.sqrt(0.02))

    def test_few_directions_widen_it(self):
        narrow, wide = (step_bias(points(lambda r: np.exp(-3 * r)), directions=n) for n in (10_000, 20))
        assert wide.high / wide.factor > narrow.high / narrow.factor
        assert wide.factor / wide.low > narrow.factor / narrow.low
        assert abs(np.log(wide.factor)) < abs(np.log(narrow.factor)), "a fall within its noise is not made good"

    def test_one_step_says_nothing(self):
        first, *rest = points(lambda r: 1.0)
        assert step_bias([first], 100) is None
        assert step_bias([replace(first, share=None), *rest], 100) is None
        assert step_bias([replace(first, share=5e185), *(replace(p, share=5e185) for p in rest)], 100) is None


class TestFiles:
    @pytest.mark.parametrize("levels", LEVELS)
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", NETS)
    def test_near_the_float_net_or_inconclusive(self, tmp_path, name, form, levels):
        if form == "dynamic" and levels != LEVELS[0]:
            pytest.skip("dynamic quantisation has levels of its own")
        net = NETS[name]
        X = net.samples(N)
        found = audit(saved(tmp_path, net, X, form, levels), X, settings=Settings(replay=0, bounds=False))
        mean = found.aggregates["lambda_max"].mean.value
        assert found.step.scheme == "dithered"
        assert found.step.rounding.startswith("the graph quantises")
        if errors(found):
            assert found.verdict == "inconclusive"
            assert levels != LEVELS[0], "a fine grid hides no slope"
        else:
            assert_allclose(mean, net.lambda_max(X).mean(), rtol=0.25)

    def test_values_in_other_units_carry_the_factor_too(self, tmp_path):
        net = NETS["deep"]
        X = net.samples(N)
        found = audit(saved(tmp_path, net, X, "qdq"), X, settings=Settings(replay=0, bounds=False, input_scale=(2.0,)))
        assert found.step.bias.applied
        assert abs(np.log(found.step.bias.factor)) > 1e-3
        raw, standardised = (
            [getattr(s, name).value / s.lambda_max.value for s in found.samples if s.lambda_max.value]
            for name in ("lambda_max_raw_units", "lambda_max_standardised")
        )
        assert_allclose(raw, 4.0, rtol=1e-9)
        assert_allclose(standardised, np.mean(X.astype(np.float64).var(axis=0)), rtol=1e-6)

    @pytest.mark.parametrize("form", FORMS)
    def test_the_surrogate_is_the_float_net(self, tmp_path, form):  # 10 %: weights of int8 and, at single samples, other relus
        net = NETS["relu"]
        X = net.samples(N)
        found = audit(saved(tmp_path, net, X, form), X, settings=Settings(replay=0, bounds=False))
        check = found.gradient.check
        assert_allclose(check.surrogate, net.lambda_max(X).mean(), rtol=0.1)
        assert check.samples == N
        assert_allclose(check.ratio, found.aggregates["lambda_max"].mean.value / check.surrogate, rtol=1e-9)
        assert check.low < check.ratio < check.high

    def test_the_probe_costs_a_part_of_the_audit(self, tmp_path):
        net = NETS["relu"]
        X = net.samples(64)
        found = audit(saved(tmp_path, net, X, "qdq"), X, settings=Settings(replay=0, bounds=False))
        assert found.step.evaluations < 0.35 * found.run.evaluations
        few = audit(saved(tmp_path, net, X, "qdq"), X[:4], settings=Settings(replay=0, bounds=False, budget=24))
        assert few.step.evaluations <= 7 * 4 * 4 * 6 + 4, "at the fewest directions, on at most a step or two more than five"

    def test_a_given_step_is_kept_and_what_it_is_short_of_is_said(self, tmp_path):
        net = NETS["deep"]
        X = net.samples(N)
        found = audit(saved(tmp_path, net, X, "qdq"), X, settings=Settings(replay=0, bounds=False, step=1.0))
        truth = net.lambda_max(X).mean()
        assert found.run.step == 1.0
        assert found.aggregates["lambda_max"].mean.value < 0.75 * truth, "else there is nothing to say"
        assert not found.step.bias.applied
        assert "step-bias" in errors(found)


class TestMeasures:
    def test_rounding_is_no_sensitivity(self, tmp_path):  # 15 %: 22 directions a sample, the mean over 64 of them
        net = NETS["linear"]
        X = net.samples(64)
        found = audit(saved(tmp_path, net, X, "qdq", 63), X, settings=Settings(replay=0, bounds=False))
        assert_allclose(found.aggregates["logit_sensitivity"].mean.value, np.linalg.norm(net.weights[0], 2), rtol=0.15)

    def test_intervals_of_the_statistics_hold_the_range(self, tmp_path):
        net = NETS["relu"]
        X = net.samples(N)
        found = audit(saved(tmp_path, net, X, "qdq"), X, settings=Settings(replay=0, bounds=False))
        bias, mean = found.step.bias, found.aggregates["lambda_max"].mean
        assert bias.applied
        assert mean.low <= mean.value * bias.low / bias.factor
        assert mean.high >= mean.value * bias.high / bias.factor


class TestWords:
    @staticmethod
    def said(fn, X, K):
        found = audit(from_callable(fn, X.shape[1:], K, dtype="float64"), X, settings=Settings(scheme="dithered"))
        return next(f.message for f in found.findings if f.id == "rounded-model")

    def test_rounding_is_said_of_files_that_round(self):
        net = NETS["relu"]
        X = net.samples(12)
        level = 0.2 / np.sqrt(1.01)  # no number of a few digits
        said = self.said(lambda X: np.round(net.activations(X)[-1] / level) * level, X, 6)
        assert "rounds its values (its 72 outputs take" in said
        said = self.said(lambda X: np.round(net.activations(X)[-1] / 0.2) * 0.2, X, 6)
        assert "rounds its values (its outputs are multiples of 0.2)" in said
        plain = self.said(lambda X: net.activations(X)[-1], X, 6)
        assert "no rounding was seen" in plain
        assert "rounds its values" not in plain

    def test_calls_that_differ_are_said_to(self):
        net, rng = NETS["relu"], np.random.default_rng(0)
        X = net.samples(12)
        said = self.said(lambda X: net.activations(X)[-1] + 1e-3 * rng.standard_normal((len(X), 6)), X, 6)
        assert "Repeated calls differ" in said


def test_directions_of_a_probe_follow_the_budget():
    counts = [Means(m, n).probing for m, n in ((5, 4), (22, 64), (100, 64), (500, 1000))]
    assert counts == sorted(counts)
    assert counts[0] == 6
    assert counts[-1] == 32
