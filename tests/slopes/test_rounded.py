"""Probabilities that were rounded to digits: recognised, and audited with intervals that hold the truth, or refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.special import expit, softmax

from onnxfim import Settings, audit, from_callable
from onnxfim.graph.ends import Ending
from onnxfim.slopes.kinds import reader_of
from onnxfim.slopes.kinds.rounded import unit_of

RNG = np.random.default_rng(0)


class Net:
    """A net of one hidden layer with tanh, and the largest eigenvalue of its Fisher information in closed form."""

    def __init__(self, d, K, scale, seed, hidden=64):
        rng = np.random.default_rng(seed)
        self.A = rng.standard_normal((d, hidden)) / np.sqrt(d)
        self.B = rng.standard_normal((hidden, K)) * scale / np.sqrt(hidden)
        self.b = rng.standard_normal(K) * 0.3
        self.X = rng.standard_normal((40, d)).astype(np.float32)

    def probabilities(self, X):
        return softmax(np.tanh(X.astype(np.float64) @ self.A) @ self.B + self.b, axis=1)

    def lambda_max(self, x):
        p, h = self.probabilities(x[None])[0], np.tanh(x.astype(np.float64) @ self.A)
        J = self.B.T @ np.diag(1 - h**2) @ self.A.T
        return float(np.linalg.eigvalsh(J.T @ (np.diag(p) - np.outer(p, p)) @ J)[-1])

    def audited(self, digits, dtype=np.float64, **settings):
        def rounded(X):
            return np.round(self.probabilities(X), digits).astype(dtype)

        K = self.B.shape[1]
        return audit(from_callable(rounded, self.X.shape[1:], K), self.X, settings=Settings(budget=401, replay=0, **settings))


def recognised(z):
    return reader_of(Settings(), Ending(), z[:, :, None])


class TestRecognised:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("digits", [2, 3, 4, 5])
    def test_the_digits_are_found(self, digits, dtype):
        p = softmax(2 * RNG.standard_normal((20, 10)), axis=1)
        reader, known = recognised(np.round(p, digits).astype(dtype).astype(np.float64))
        assert known.unit == pytest.approx(10.0**-digits)
        assert reader.name == "probabilities"
        assert f"multiples of {10.0**-digits:g}, and sum to 1" in known.how

    def test_percents_and_coarser_steps_are_found(self):
        p = softmax(2 * RNG.standard_normal((20, 5)), axis=1)
        reader, known = recognised(np.round(100 * p, 1))
        assert (known.unit, reader.step, reader.total) == (pytest.approx(0.1), pytest.approx(1e-3), 100)
        assert recognised(np.round(20 * p) / 20)[1].unit == pytest.approx(0.05)

    def test_other_kinds_are_rounded_too(self):
        z = np.round(3 * RNG.standard_normal((20, 10)), 2)
        reader, known = recognised(z)
        assert (reader.name, known.unit) == ("logits", pytest.approx(0.01))
        p = np.round(RNG.random((20, 10)), 3)
        reader, known = reader_of(Settings(output_kind="sigmoid"), Ending(), p[:, :, None])
        assert (reader.step, known.unit) == (pytest.approx(1e-3), pytest.approx(1e-3))

    def test_others_are_left_as_they_are(self):
        p = softmax(2 * RNG.standard_normal((20, 10)), axis=1)
        assert recognised(p)[1].unit == 0
        assert recognised(p.astype(np.float32).astype(np.float64))[1].unit == 0
        assert recognised(3 * RNG.standard_normal((20, 10)).astype(np.float32))[1].unit == 0
        assert unit_of(np.round(p[:1, :3], 2)) is None  # too few to tell
        assert unit_of(np.zeros((8, 3))) is None

    def test_it_is_no_chance(self):
        """Of 2,000 draws of few probabilities that were not rounded none is taken for rounded."""
        rng = np.random.default_rng(5)
        assert not any(unit_of(softmax(rng.standard_normal((4, 3)), axis=1)) for _ in range(2000))


# Of a 95 % interval a sketch's own covers 90 % and more of 40 samples (three standard errors below); the rounding's part is added.
COVERED = 0.85


@pytest.mark.parametrize("digits", [2, 3, 4, 6])
@pytest.mark.parametrize(("d", "K", "scale"), [(64, 10, 2.0), (200, 10, 4.0), (784, 10, 3.0), (100, 3, 2.0), (300, 100, 4.0)])
def test_intervals_hold_the_truth_or_there_is_no_value(d, K, scale, digits):
    net = Net(d, K, scale, seed=K)
    found = net.audited(digits, flip=False)
    truth = {i: net.lambda_max(x) for i, x in enumerate(net.X)}
    measured = [s for s in found.samples if s.lambda_max.value is not None]
    held = [s.lambda_max.low <= truth[s.index] <= s.lambda_max.high for s in measured]
    if digits >= 4:
        assert len(measured) >= 38
    if len(measured) >= 10:
        assert np.mean(held) >= COVERED
    for s in found.samples:
        if s.lambda_max.value is None:
            assert re.search("multiples of|rounding|round within a step", s.lambda_max.reason)
    if len(measured) == 40:
        mean = found.aggregates["lambda_max"].mean
        assert mean.low <= np.mean(list(truth.values())) <= mean.high
    if digits <= 4:
        assert "rounded-model" in {f.id for f in found.findings}
        assert found.step.rounding == f"its outputs are multiples of {10.0**-digits:g}"
    assert "output-kind" not in {f.id for f in found.findings}


@pytest.mark.parametrize("digits", [1, 2, 3])
@pytest.mark.parametrize("kind", ["logits", "sigmoid"])
@pytest.mark.parametrize(("d", "K"), [(64, 10), (784, 10), (100, 3)])
def test_so_do_those_of_rounded_logits_and_of_independent_probabilities(d, K, kind, digits):
    net = Net(d, K, 2.5, seed=d + K)

    def rounded(X):
        z = np.tanh(X.astype(np.float64) @ net.A) @ net.B + net.b
        return np.round(z if kind == "logits" else expit(z), digits)

    def truth(x):
        if kind == "logits":
            return net.lambda_max(x)
        h = np.tanh(x.astype(np.float64) @ net.A)
        J, p = net.B.T @ np.diag(1 - h**2) @ net.A.T, expit(h @ net.B + net.b)
        return float(np.linalg.eigvalsh(J.T @ np.diag(p * (1 - p)) @ J)[-1])

    settings = Settings(budget=401, replay=0, flip=False, output_kind=kind)
    found = audit(from_callable(rounded, (d,), K), net.X, settings=settings)
    measured = [s for s in found.samples if s.lambda_max.value is not None]
    held = [s.lambda_max.low <= truth(net.X[s.index]) <= s.lambda_max.high for s in measured]
    if len(measured) >= 10:
        assert np.mean(held) >= COVERED
    if len(measured) < 36:
        assert digits == 1
        assert found.verdict == "inconclusive"


def test_saturated_outputs_have_no_value_rather_than_a_wrong_one():
    """Nearly all probabilities are 0 or 1 when they are rounded to two digits: nothing of the slope is left."""
    net = Net(64, 10, 40.0, seed=3)
    found = net.audited(2, flip=False, output_kind="probabilities")
    measured = [s for s in found.samples if s.lambda_max.value is not None]
    held = [s.lambda_max.low <= net.lambda_max(net.X[s.index]) <= s.lambda_max.high for s in measured]
    assert len(measured) < 40
    assert sum(not h for h in held) <= 2
    assert found.verdict == "inconclusive"


def test_float32_and_flips(monkeypatch):
    found = Net(64, 10, 2.0, seed=1).audited(3, dtype=np.float32)
    assert found.run.scheme == "central"
    assert sum(s.flip_radius is not None and s.flip_radius.value is not None for s in found.samples) >= 30


def test_the_bias_of_the_step_is_told_and_held():
    net = Net(64, 10, 2.0, seed=7)
    found = net.audited(2, flip=False)
    assert found.step.bias is not None
    assert found.step.bias.high > 1.05  # curvature within a third of a standard deviation
    truth = np.mean([net.lambda_max(x) for x in net.X])
    mean = found.aggregates["lambda_max"].mean
    assert mean.low <= truth <= mean.high
