"""Boundary distances over the classes that can be nearest, against all classes of a dense Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.slopes.rivals import distances_to_rivals

K, D = 60, 30


class Slopes:
    """``Jᵀu`` of samples with the given Jacobians; counts passes as the meter does."""

    def __init__(self, J):
        self.J, self.passes = J, np.zeros(len(J), int)

    def vjp(self, X, U, of=None):
        rows = X[:, 0].astype(int)
        np.add.at(self.passes, rows, 1 + len(U))
        return None, np.einsum("nkd,snk->snd", self.J[rows], U)


def truth(z, J):
    c = z.argmax()
    with np.errstate(invalid="ignore"):
        distances = (z[c] - z) / np.linalg.norm(J[c] - J, axis=1)
    return np.nanmin(distances), np.nanargmin(distances)


def measured(z, J):
    model = Slopes(J)
    stretch = np.linalg.norm(J, 2, axis=(1, 2))
    return model, *distances_to_rivals(model, np.arange(len(z), dtype=float)[:, None], z, stretch, 1e-9)


@pytest.mark.parametrize("rank", [1, D])
def test_exact_is_the_nearest_of_all_and_a_bound_holds_it(rank):  # 1e-12: float64
    rng = np.random.default_rng(1)
    z = rng.standard_normal((80, K)) * rng.uniform(0.1, 3, (80, 1))
    z[::2, 0] = z[::2].max(axis=1) + 0.02
    J = rng.standard_normal((80, K, rank)) @ rng.standard_normal((80, rank, D))
    J[1::4, 20:40] *= 40  # steep classes far down in logit
    model, estimates, ways, passes = measured(z, J)
    assert_array_equal(passes, model.passes)
    assert {e.kind for e in estimates} == {"exact", "upper bound"}
    for e, way, zk, Jk in zip(estimates, ways, z, J, strict=True):
        d, nearest = truth(zk, Jk)
        assert e.low <= d <= e.high * (1 + 1e-12)
        if e.kind == "exact":
            assert_allclose(e.value, d, rtol=1e-12)
            assert (way[nearest], way[zk.argmax()], np.abs(way).sum()) == (1, -1, 2)
    assert any(e.kind == "upper bound" and e.value > truth(*zj)[0] * 1.01 for e, *zj in zip(estimates, z, J, strict=True))


def test_few_more_classes_are_asked_where_none_is_left_then():
    z = -np.r_[0.0, np.linspace(1.0, 1.4, 14), np.full(K - 15, 50.0)][None]
    J = np.zeros((1, K, D))
    J[0, np.arange(15), np.arange(15)] = 1.0
    J[0, 14, 14] = 2.0  # the fourteenth in logit is nearest
    model, (estimate,), (way,), passes = measured(z, J)
    assert (estimate.kind, int(way.argmax())) == ("exact", 14)
    assert passes.tolist() == model.passes.tolist() == [1 + 9 + 1 + 5]


def test_no_slope_is_no_distance():
    _, (estimate,), _, _ = measured(np.random.default_rng(2).standard_normal((1, K)), np.zeros((1, K, D)))
    assert estimate.value is None
    assert estimate.reason == "no slope towards another class"
