"""Large weights are not kept in float64, and their norms are proven by a factorisation: the bounds are those of small ones."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.errors import ModelError
from onnxfim.graph.load import load_model
from onnxfim.spectral import linear, norms, spectral_bound
from onnxfim.spectral.rules import layers
from tests.support.places import SAMPLES

#: Relative, of a proven norm: what is tried above Lanczos' guess, and the stated slack.
ABOVE = 1e-7


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(norms, "LARGE_SIDE", 2)
    monkeypatch.setattr(norms, "_BLOCK", 7)
    monkeypatch.setattr(linear, "LARGE", 1)
    monkeypatch.setattr(layers, "LARGE", 1)


@pytest.mark.parametrize("shape", [(30, 30), (20, 41), (41, 20), (2, 9), (3, 3)])
@pytest.mark.parametrize("kind", ["normal", "of rank one", "orthogonal", "of one number"])
def test_a_proven_norm_is_just_above_the_singular_value(shape, kind, small_is_large):
    rng = np.random.default_rng(0)
    W = rng.standard_normal(shape)
    if kind == "of rank one":
        W = np.outer(W[:, 0], W[0])
    elif kind == "orthogonal":  # all eigenvalues are one: no gap for Lanczos
        W = np.linalg.qr(rng.standard_normal((max(shape), max(shape))))[0][: shape[0], : shape[1]]
    elif kind == "of one number":
        W = np.full(shape, -3e-5)
    exact = float(np.linalg.svd(W, compute_uv=False)[0])
    assert exact <= norms.matrix_norm(W).value <= exact * (1 + ABOVE)


def test_numbers_that_are_none_are_told(small_is_large):
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ModelError, match="infinite or NaN"):
            norms.matrix_norm(np.full((3, 3), bad))
    assert norms.matrix_norm(np.zeros((3, 4))).value == 0


@pytest.mark.parametrize("name", ["digits_mlp", "digits_resnet", "digits_vit"])
def test_bounds_of_models_are_the_same(name, request):
    graph = load_model(SAMPLES / f"{name}.onnx").graph
    before = spectral_bound(graph)
    request.getfixturevalue("small_is_large")
    after = spectral_bound(graph)
    assert (before.available, before.reason, len(before.factors)) == (after.available, after.reason, len(after.factors))
    if before.available:
        assert 0 <= after.log10_lipschitz - before.log10_lipschitz < ABOVE * len(before.factors)
