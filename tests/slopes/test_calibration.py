"""Accuracy, confidence and the temperature against independent twins."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from onnxfim.record.statistics import wilson
from onnxfim.slopes.calibration import FEW_ERRORS, calibrate
from onnxfim.slopes.kinds import Gaussian, Probabilities, SigmoidLogits, SoftmaxLogits


def drawn(n=4000, K=5, temperature=1.0, seed=0):
    """Logits, and labels drawn from ``softmax(z / T)``."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.standard_normal((n, K))
    p = softmax(z / temperature, axis=1)
    return z[:, :, None], (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):  # 10 %: 4,000 labels
    z, y = drawn(temperature=temperature)
    assert_allclose(calibrate(SoftmaxLogits(), z, y).temperature, temperature, rtol=0.1)


def test_it_is_the_minimum_of_the_likelihood():  # rtol: the search's own tolerance; a root of the derivative in 1/T is independent
    z, y = drawn(300)
    z = z[..., 0]

    def derivative(b):
        return float((z * (softmax(b * z, axis=1) - np.eye(z.shape[1])[y])).sum())

    found = calibrate(SoftmaxLogits(), z[..., None], y)
    assert_allclose(found.temperature, 1 / brentq(derivative, 1e-2, 1e2), rtol=1e-4)
    assert_allclose(found.nll_before, -log_softmax(z, axis=1)[np.arange(300), y].mean(), rtol=1e-12)
    assert found.nll_after <= found.nll_before


def test_logits_and_their_probabilities_agree():  # rtol: the search's tolerance
    z, y = drawn(500)
    ours, theirs = calibrate(SoftmaxLogits(), z, y), calibrate(Probabilities(), softmax(z, axis=1), y)
    assert_allclose(theirs.temperature, ours.temperature, rtol=1e-4)
    assert theirs.accuracy == ours.accuracy


def test_a_scaling_of_the_logits_is_a_scaling_of_the_temperature():  # rtol: the search's tolerance
    z, y = drawn(500)
    assert_allclose(calibrate(SoftmaxLogits(), 4 * z, y).temperature, 4 * calibrate(SoftmaxLogits(), z, y).temperature, rtol=1e-4)


def test_accuracy_and_confidence():  # float64
    z, y = drawn(400)
    found = calibrate(SoftmaxLogits(), z, y)
    assert found.accuracy == np.mean(z[..., 0].argmax(axis=1) == y)
    assert found.accuracy_low < found.accuracy < found.accuracy_high
    assert_allclose(found.mean_confidence, softmax(z[..., 0], axis=1).max(axis=1).mean(), rtol=1e-12)


@pytest.mark.parametrize("confident", [1.0, 100.0])  # the loss of the second is exactly 0 over a range of temperatures
@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (lambda z: z.argmax(axis=1), "every prediction is right"),
        (lambda z: z.argmin(axis=1), "the likelihood has no minimum"),
        (lambda z: np.zeros(len(z), int), r"all labels are of one class \(0\)"),
    ],
)
def test_a_likelihood_without_minimum_gives_no_temperature(labels, why, confident):
    z, _ = drawn(50)
    found = calibrate(SoftmaxLogits(), confident * z, labels(z[..., 0]))
    assert (found.temperature, found.log_error, found.influences) == (None, None, ())
    assert re.search(why, found.reason)
    assert found.errors == 50 - round(50 * found.accuracy)


def derivatives(z, y, log_t):
    """First and second derivative of each sample's loss by ln T, in closed form: y(z/T) − E[z/T], and its negative plus the variance."""
    s = z / np.exp(log_t)
    p = softmax(s, axis=1)
    mean = (p * s).sum(axis=1)
    g = s[np.arange(len(y)), y] - mean
    return g, -g + (p * (s - mean[:, None]) ** 2).sum(axis=1)


@pytest.mark.parametrize(("n", "prior"), [(300, 0), (12, 1)])
def test_the_error_is_the_larger_of_sandwich_and_information(n, prior):  # rtol: differences of step 1e-3, and four digits kept
    z, y = drawn(n)
    found = calibrate(SoftmaxLogits(), z, y)
    assert (found.errors < FEW_ERRORS) == bool(prior)
    g, h = derivatives(z[..., 0], y, np.log(found.temperature))
    assert_allclose(g.sum() + prior * np.log(found.temperature), 0.0, atol=1e-3)  # the search's tolerance
    H = h.sum() + prior
    few = 1 if prior else np.sqrt(1 + 2 / found.errors)
    assert_allclose(found.log_error, few * max(np.sqrt((g**2).sum()) / H, 1 / np.sqrt(H)), rtol=1e-3)
    assert_allclose(np.linalg.norm(found.influences), found.log_error, rtol=1e-3)
    assert_allclose(found.influences, -g * found.log_error / np.linalg.norm(g), rtol=2e-3, atol=1e-6 * found.log_error)
    assert found.method == ("MAP, ln T ~ N(0, 1)" if prior else "maximum likelihood")


def test_the_most_probable_temperature_lies_between_1_and_the_likeliest():
    z, y = drawn(12)
    assert 0 < calibrate(SoftmaxLogits(), z, y).errors < FEW_ERRORS
    twice = calibrate(SoftmaxLogits(), np.concatenate([z] * 8), np.concatenate([y] * 8))  # the same likelihood, and errors enough
    few = calibrate(SoftmaxLogits(), z, y)
    assert min(1.0, twice.temperature) < few.temperature < max(1.0, twice.temperature)


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 60, 300])
def test_the_error_covers(n):  # 95 % aimed at; 200 draws have a standard error of 1.5 %
    hits = []
    for seed in range(200):
        z, y = drawn(n, temperature=0.7, seed=seed)
        found = calibrate(SoftmaxLogits(), 3 * z, y)
        if found.temperature is not None:
            hits.append(abs(np.log(found.temperature / 2.1)) <= 1.96 * found.log_error)
    assert len(hits) > 150
    assert np.mean(hits) >= 0.92


def test_a_given_temperature_has_no_error():
    z, y = drawn(50)
    for labels in (y, None):
        found = calibrate(SoftmaxLogits(), z, labels, given=1.5)
        assert (found.temperature, found.log_error, found.method, found.influences) == (1.5, 0.0, "given", ())


def test_nothing_to_calibrate_by():
    z, y = drawn(20)
    assert calibrate(SoftmaxLogits(), z, None).reason == "no labels were given"
    assert "Gaussian" in calibrate(Gaussian(), z, y).reason
    assert "labels of several positions are not read" in calibrate(SoftmaxLogits(), np.concatenate([z, z], axis=2), y).reason


def test_one_sigmoid_is_calibrated():
    z = np.random.default_rng(0).standard_normal((200, 1, 1)) * 3
    y = (np.random.default_rng(1).random(200) < 1 / (1 + np.exp(-z[:, 0, 0]))).astype(int)
    assert_allclose(calibrate(SigmoidLogits(), z, y).temperature, 1.0, rtol=0.4)  # 200 labels


@pytest.mark.parametrize(("count", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)])
def test_wilson_interval(count, n, low, high):  # printed tables, four digits
    assert_allclose(wilson(count, n), (low, high), atol=1e-4)
