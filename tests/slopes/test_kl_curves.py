"""Measured divergences: against long arithmetic, and the quadratic form where it is exact."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, softmax

from onnxfim.slopes.kinds import Gaussian, Probabilities, SigmoidLogits, SigmoidProbabilities, SoftmaxLogits
from onnxfim.slopes.kl_curves import DISTANCES, KLSearch, kl_curve, rows_along
from tests.support.models import Linear
from tests.support.tracing import untraced


@untraced()
def precise_kl(z, moved):
    with mpmath.workdps(400):

        def log_p(values):
            values = [mpmath.mpf(float(v)) for v in values]
            total = mpmath.log(mpmath.fsum(map(mpmath.exp, values)))
            return [v - total for v in values]

        a, b = log_p(z), log_p(moved)
        return float(mpmath.fsum(mpmath.exp(p) * (p - q) for p, q in zip(a, b, strict=True)))


def outputs(z):
    return np.asarray(z, float)[..., None]


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1e-4, 1e-3, 2e-3, 0.1, 3.0])
@pytest.mark.parametrize("margin", [0.0, 10.0, 40.0, 300.0])
def test_softmax_divergence_in_long_arithmetic(size, margin):
    # 1e-8 of the value; the change of the logits is their difference in float64, whose rounding is 1e-16 of the logits' size.
    rng = np.random.default_rng(0)
    z = rng.standard_normal(6)
    z[2] += margin
    change = size * rng.standard_normal((3, 6))
    got = SoftmaxLogits().divergence(outputs(z), outputs(z + change))
    rounding = 4 * np.finfo(float).eps * np.abs(z).max() / size
    assert_allclose(got, [precise_kl(z, row) for row in z + change], rtol=max(1e-8, 10 * rounding))
    assert (got > 0).all()


def test_softmax_divergence_ignores_a_constant():
    z, change = np.arange(4.0), np.array([[0.1, -0.2, 0.3, 0.0]])
    kl = SoftmaxLogits().divergence
    assert_allclose(kl(outputs(z), outputs(z + change + 5)), kl(outputs(z), outputs(z + change)), rtol=1e-13)


@pytest.mark.parametrize("K", [1, 3])
def test_independent_sigmoids_add_up(K):  # a sigmoid is a softmax against a logit of 0
    rng = np.random.default_rng(1)
    z, moved = 3 * rng.standard_normal(K), 3 * rng.standard_normal((2, K))
    expected = [sum(precise_kl([a, 0], [b, 0]) for a, b in zip(z, row, strict=True)) for row in moved]
    assert_allclose(SigmoidLogits().divergence(outputs(z), outputs(moved)), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize(
    ("logits", "probabilities", "link"),
    [(SigmoidLogits(), SigmoidProbabilities(), expit), (SoftmaxLogits(), Probabilities(), lambda z: softmax(z, axis=-2))],
)
def test_probabilities_diverge_as_their_logits_do(logits, probabilities, link, K, size):  # rounding of p over the change, squared
    rng = np.random.default_rng(2)
    z = rng.standard_normal((K, 1))
    moved = z + size * rng.standard_normal((5, K, 1))
    assert_allclose(probabilities.divergence(link(z), link(moved)), logits.divergence(z, moved), rtol=1e-15 / size**2 + 1e-9)


def test_gaussian_divergence_is_the_squared_distance():
    z, moved = np.zeros(3), np.array([[1.0, 2.0, 2.0]])
    assert_allclose(Gaussian(0.5).divergence(outputs(z), outputs(moved)), 9 / (2 * 0.25))


def test_rows_go_both_ways_and_aside():
    x = np.zeros((2, 2), np.float32)
    v, w = np.eye(4)[0], np.eye(4)[1]
    rows = rows_along(x, v, w, np.array([1.0, 2.0]))
    assert rows.dtype == x.dtype
    assert_allclose(rows.reshape(6, 4), [v, -v, w, 2 * v, -2 * v, 2 * w])


class TestCurve:
    model = Linear.draw(4, 6)
    x = model.samples(1)[0].astype(np.float64)

    def curve(self, epsilons, *, factor=1.0):
        values, vectors = np.linalg.eigh(self.model.fisher(self.x))
        rows = rows_along(self.x, vectors[:, -1], vectors[:, 0], np.array(epsilons))
        base, moved = self.model.logits(self.x[None])[0], self.model.logits(rows)
        return kl_curve(SoftmaxLogits(), outputs(base), outputs(moved), np.array(epsilons), factor * values[-1])

    def test_the_quadratic_form_is_exact_in_the_limit(self):
        for epsilon, order in [(1e-3, 1e-2), (1e-4, 1e-3), (1e-5, 1e-4)]:  # the next term is of third order
            (p,) = self.curve([epsilon]).points
            assert_allclose([p.along, p.against], p.quadratic, rtol=order)
            assert_allclose((p.along + p.against) / 2, p.quadratic, rtol=order**2 + 1e-7)
            assert p.random < p.along

    def test_holds_to_the_last_distance_without_a_gap(self):
        curve = self.curve([1e-4, 1e-3, 10.0, 1e-3])
        assert curve.holds_to == 1e-3
        assert self.curve([1e-4, 1e-3], factor=1.3).holds_to is None

    def test_flips_at_the_first_distance_that_changes_the_decision(self):
        epsilons = np.linspace(0.05, 20, 60)
        curve = self.curve(epsilons)
        v = np.linalg.eigh(self.model.fisher(self.x))[1][:, -1]
        decided = self.model.logits(self.x[None])[0].argmax()
        flips = [e for e in epsilons if any(self.model.logits((self.x + s * e * v)[None])[0].argmax() != decided for s in (1, -1))]
        assert curve.flips_at == pytest.approx(flips[0])
        assert self.curve([1e-6]).flips_at is None

    def test_a_gaussian_flips_nowhere(self):
        curve = kl_curve(Gaussian(), outputs([0.0]), outputs([[1.0], [1.0], [0.0]]), np.array([1.0]), 1.0)
        assert curve.flips_at is None
        assert curve.holds_to == 1.0


class TestSearch:
    model = Linear.draw(4, 6)
    X = model.samples(20).astype(np.float64)

    def search(self, x, *, factor=1.0, noise=0.0):
        """The curve that is found at x, the distances asked for, in boundary distances, and the boundary distance."""
        values, vectors = np.linalg.eigh(self.model.fisher(x))
        z = self.model.logits(x[None])[0]
        norms = np.linalg.norm(self.model.W - self.model.W[z.argmax()], axis=1)
        distance = min((z.max() - a) / n for a, n in zip(z, norms, strict=True) if n > 0)
        search, asked = KLSearch(SoftmaxLogits(), outputs(z), factor * values[-1], distance), []
        rng = np.random.default_rng(0)
        while len(epsilons := search.next()):
            asked += list(epsilons / distance)
            moved = self.model.logits(rows_along(x, vectors[:, -1], vectors[:, 0], epsilons))
            search.learn(outputs(moved * (1 + noise * rng.standard_normal(moved.shape))))
        return search.curve(), asked, distance

    def test_twelve_rows_and_the_distances_that_are_quoted(self):
        for x in self.X:
            curve, asked, _ = self.search(x)
            assert len(curve.points) == len(asked) <= DISTANCES == 4
            assert_allclose(asked[:2], [0.1, 1.0])
            assert 0.009 < min(asked)
            assert max(asked) < 3.2

    def test_it_is_near_where_the_form_ceases_to_hold(self):
        # Three steps of the grid, 10^(3/12): two on the safe side, and what the deviation's higher orders move the guess by.
        v = [np.linalg.eigh(self.model.fisher(x))[1][:, -1] for x in self.X]
        near = []
        for x, direction in zip(self.X, v, strict=True):
            curve, _, distance = self.search(x)
            fine = distance * np.geomspace(0.01, 3.2, 400)
            moved = self.model.logits(rows_along(x, direction, direction, fine))
            lam = self.model.lambda_max([x])[0]
            truth = kl_curve(SoftmaxLogits(), outputs(self.model.logits(x[None])[0]), outputs(moved), fine, lam)
            if truth.holds_to is None:
                continue
            assert curve.holds_to is None or curve.holds_to <= truth.holds_to * 1.02, "no farther than it holds"
            near.append(curve.holds_to is not None and curve.holds_to > 10 ** (-3 / 12) * truth.holds_to)
        assert np.mean(near) > 0.7

    def test_a_rounding_of_the_outputs_moves_no_distance(self):
        for x in self.X:
            assert self.search(x)[1] == self.search(x, noise=1e-12)[1]

    def test_a_form_that_holds_nowhere_is_looked_for_nearer(self):
        curve, asked, _ = self.search(self.X[0], factor=3.0)
        assert curve.holds_to is None
        assert min(asked) < 0.1

    def test_what_is_not_a_number_gives_no_curve(self):
        search = KLSearch(SoftmaxLogits(), outputs([1.0, 0.0]), 1.0, 1.0)
        search.learn(outputs(np.full((6, 2), np.nan)))
        assert search.curve() is None
        assert len(search.next()) == 0
