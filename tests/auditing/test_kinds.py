"""Audits of every output kind: bounds of the kind's own, and the same numbers however the outputs are read."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit

from onnxfim import Settings, audit, from_callable
from tests.support.models import Linear, save

MODEL = Linear.draw(4, 6)
X = MODEL.samples(8)


def values(found, measure):
    return np.array([getattr(s, measure).value for s in found.samples])


@pytest.fixture
def read_as(tmp_path):
    def run(model, kind, X=X, **settings):
        path = save(model.onnx(), tmp_path / "model.onnx")
        return audit(path, X, settings=Settings(output_kind=kind, batch=16, providers=("cpu",), replay=0, **settings))

    return run


class TestBounds:
    @pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
    def test_a_gaussian_is_held_to_its_own(self, read_as, sigma):  # rtol: float32 products of the weights' norm, rounded outwards
        found = read_as(MODEL, "gaussian", sigma=sigma)
        truth = 2 * np.log10(np.linalg.norm(MODEL.W, 2) / sigma)
        assert_allclose(values(found, "log10_fisher_bound"), truth, atol=1e-5)
        assert (np.log10(values(found, "lambda_max")) <= values(found, "log10_fisher_bound") + 1e-5).all()
        assert "bound-violated" not in [f.id for f in found.findings]
        assert np.log10(values(found, "lambda_max")).max() <= found.bound.log10_fisher + 1e-5

    def test_a_sigmoid_is_held_to_its_own(self, read_as):  # as above
        found = read_as(MODEL, "sigmoid")
        p = expit(MODEL.logits(X))
        truth = np.log10((p * (1 - p)).max(axis=1) * np.linalg.norm(MODEL.W, 2) ** 2)
        assert_allclose(values(found, "log10_fisher_bound"), truth, atol=1e-5)
        assert (np.log10(values(found, "lambda_max")) <= values(found, "log10_fisher_bound")).all()

    @pytest.mark.parametrize(
        ("kind", "formula"), [("logits", "max 2p(1−p)·L²"), ("sigmoid", "max p(1−p)·L²"), ("gaussian", "L²/σ²")]
    )
    def test_it_says_its_formula(self, read_as, kind, formula):
        assert {s.log10_fisher_bound.method for s in read_as(MODEL, kind).samples} == {formula}

    def test_a_bound_below_the_measured_is_still_reported(self, read_as, monkeypatch):
        monkeypatch.setattr("onnxfim.slopes.kinds.Gaussian.log10_largest_spread", -3.0)
        found = read_as(MODEL, "gaussian", sigma=0.01)
        assert "bound-violated" in [f.id for f in found.findings]


@pytest.mark.parametrize("K", [1, 4])
def test_sigmoids_are_the_same_distance_from_the_boundary_however_read(read_as, K):
    # rtol: central differences of logits on a plateau step; the file is differentiated
    model = Linear.draw(K, 6)
    X = model.samples(8)
    logits = read_as(model, "sigmoid", X)
    wrapped = from_callable(lambda x: expit(model.logits(x)), (6,), K, dtype="float64")
    probabilities = audit(wrapped, X, settings=Settings(output_kind="sigmoid", method="exact"))
    assert_allclose(values(probabilities, "boundary_distance"), values(logits, "boundary_distance"), rtol=1e-3)
