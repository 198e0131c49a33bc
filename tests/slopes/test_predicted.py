"""Predicted distances against closed forms: linear models, two classes, probabilities that are 1 to all digits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.slopes.kinds.sigmoid import SigmoidLogits, SigmoidProbabilities
from onnxfim.slopes.kinds.softmax import Probabilities, SoftmaxLogits
from onnxfim.slopes.predicted import by_sensitivity, first_order, sign_sensitivity, told
from tests.support.models import Linear, covariance


def outputs(*z):
    return np.array(z, np.float64)[:, None]


def test_first_order_is_the_distance_to_the_nearest_hyperplane_in_both_norms():
    """Of a half space ``gᵀδ ≥ m`` the nearest point is at ``m/‖g‖₂`` in L2, ``m/‖g‖₁`` in L∞; units s make that of ``g ⊙ s``."""
    rng = np.random.default_rng(0)
    slopes, gaps, unit = rng.standard_normal((3, 5)), np.array([0.5, 1.0, 2.0]), np.array([0.2, 1.0, 3.0, 0.5, 1.0])
    found = first_order(gaps, slopes, unit)
    assert found["l2"] == pytest.approx(min(m / np.linalg.norm(g * unit) for m, g in zip(gaps, slopes, strict=True)))
    assert found["linf"] == pytest.approx(min(m / np.abs(g * unit).sum() for m, g in zip(gaps, slopes, strict=True)))
    assert first_order(gaps, 0 * slopes, unit) == {"l2": None, "linf": None}
    assert first_order(gaps, 1e-30 * slopes, unit)["l2"] == pytest.approx(1e30 * found["l2"])


@pytest.mark.parametrize("gap", [1e-3, 0.5, 3.0, 40.0, 80.0])
def test_of_two_classes_it_is_the_distance_itself(gap):
    """``ln(p/(1−p)) √(p(1−p)/λ)`` with ``λ = p(1−p) ‖g‖²`` is ``m/‖g‖``, in 60 digits; λ is 1e-35 at a lead of 80 nats."""
    norm = 2.5
    with mpmath.workdps(60):
        p = 1 / (1 + mpmath.exp(-mpmath.mpf(gap)))
        lam = p * (1 - p) * norm**2
        truth = mpmath.log(p / (1 - p)) * mpmath.sqrt(p * (1 - p) / lam)
        lam, truth = float(lam), float(truth)
    assert truth == pytest.approx(gap / norm)
    assert by_sensitivity(SoftmaxLogits(), outputs(gap, 0.0), lam) == pytest.approx(truth, rel=1e-12)
    assert by_sensitivity(SigmoidLogits(), outputs(gap), lam) == pytest.approx(truth, rel=1e-12)  # a lone logit against 0
    assert by_sensitivity(SigmoidLogits(), outputs(-gap), lam) == pytest.approx(truth, rel=1e-12)


def test_probabilities_are_read_by_their_logarithms():
    z = np.array([2.0, 0.3, -1.0])
    p = np.exp(z) / np.exp(z).sum()
    assert by_sensitivity(Probabilities(), p[:, None], 0.7) == pytest.approx(by_sensitivity(SoftmaxLogits(), z[:, None], 0.7))
    s = 1 / (1 + np.exp(-1.3))
    assert by_sensitivity(SigmoidProbabilities(), outputs(s), 0.7) == pytest.approx(
        by_sensitivity(SigmoidLogits(), outputs(1.3), 0.7)
    )


@pytest.mark.parametrize("reader", [SoftmaxLogits(), SigmoidLogits()], ids=["softmax", "sigmoid"])
def test_it_is_never_beyond_the_first_order_distance_to_the_runner_up(reader):
    """``F ≥ w g gᵀ``; and it is that distance where the runner-up alone moves against the first."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        z, J = 3 * rng.standard_normal(5), rng.standard_normal((5, 7))
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        s = 1 / (1 + np.exp(-z))
        C = covariance(p) if isinstance(reader, SoftmaxLogits) else np.diag(s * (1 - s))
        first, second = np.argsort(-z)[:2]
        distance = (z[first] - z[second]) / np.linalg.norm(J[first] - J[second])
        assert by_sensitivity(reader, z[:, None], np.linalg.eigvalsh(J.T @ C @ J)[-1]) <= distance * (1 + 1e-9)
        # Slopes that move the two, each against its own weight, and no other: the bound is met.
        w = p if isinstance(reader, SoftmaxLogits) else s * (1 - s)
        K = np.zeros((5, 7))
        K[first, 0], K[second, 0] = 1 / w[first], -1 / w[second]
        if isinstance(reader, SigmoidLogits):
            distance = (z[first] - z[second]) / (K[first, 0] - K[second, 0])
            assert_allclose(by_sensitivity(reader, z[:, None], np.linalg.eigvalsh(K.T @ C @ K)[-1]), distance)


@pytest.mark.parametrize("value", [None, 0.0, -1.0, math.nan])
def test_without_a_sensitivity_there_is_none(value):
    assert by_sensitivity(SoftmaxLogits(), outputs(1.0, 0.0), value) is None


def test_the_sensitivity_along_signs_is_the_quadratic_form():
    model = Linear.draw(4, 6)
    x = model.samples(1)[0]
    s = np.sign(np.random.default_rng(2).standard_normal(6))
    found = sign_sensitivity(SoftmaxLogits(), model.logits(x[None]).T, model.W @ s)
    assert found == pytest.approx(s @ model.fisher(x) @ s)


def test_a_norm_without_any_estimate_is_left_out():
    found = told({"l2": 1.0, "linf": None}, {"l2": None})
    assert [(p.norm, p.first_order, p.fisher) for p in found] == [("l2", 1.0, None)]
    assert told({}, {}) == ()
