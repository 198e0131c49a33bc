"""Exact measures of blocks of samples, against the definition and against the same measures of one sample at a time."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, softmax

from onnxfim.record.sample import Estimate
from onnxfim.slopes.blocks import Block, measurable, results, top_pairs
from onnxfim.slopes.differences import Ends, Request, Sample
from onnxfim.slopes.flips import ValidRange
from onnxfim.slopes.grams import Contest, grams
from onnxfim.slopes.kinds import Gaussian, SigmoidLogits, SoftmaxLogits
from onnxfim.slopes.leads import lead_of_directions
from onnxfim.slopes.measurer import Measurer
from onnxfim.slopes.rescaling import Rescaling
from onnxfim.slopes.scored import Scored
from tests.support.models import precise_lambda

READERS = [(SoftmaxLogits(), 2), (SoftmaxLogits(), 10), (SigmoidLogits(), 4), (SigmoidLogits(), 1), (Gaussian(0.5), 3)]


def samples(n):
    return [Sample(k, k) for k in range(n)]


def drawn(n, K, d, *, seed=0, dtype=np.float32):
    """Jacobians whose outputs differ a thousandfold in size."""
    J = np.random.default_rng([seed, n, K, d]).standard_normal((n, K, d)) * np.logspace(0, -3, K)[:, None]
    return J.astype(dtype)


def outputs(n, K, *, sure=0.0, seed=0):
    z = np.random.default_rng([seed, n, K]).standard_normal((n, K, 1))
    z[:, 0] += sure
    return z


def whole(sample, J):
    """The slopes of one sample as the ends of steps along all coordinates."""
    return Ends(Request(sample, 0, J.shape[1]), J.astype(np.float64).T[:, :, None], np.zeros((1, len(J), 1)), 1.0)


def measurer_of(reader, d, **options):
    units = np.random.default_rng(4).uniform(0.1, 2, d)
    found = Measurer(
        reader=reader, scheme="central", exact=True, gradient=True, temperature=None if reader.no_temperature else 1.7,
        temperature_reason=None, temperature_error=0.1, step_error=1e-6, raw=Rescaling(np.array([0.3])),
        standardised=Rescaling(units),
    )  # fmt: skip
    return replace(found, **options)


def fisher(reader, z, J, temperature):
    """F (d, d) by its definition."""
    z = z[:, 0] / temperature
    if isinstance(reader, SoftmaxLogits):
        p = softmax(z)
        C = np.diag(p) - np.outer(p, p)
    else:
        C = np.diag(expit(z) * expit(-z)) if isinstance(reader, SigmoidLogits) else np.eye(len(z)) / reader.sigma**2
    return J.T @ C @ J / temperature**2


class TestDefinition:
    @pytest.mark.parametrize(("reader", "K"), READERS)
    def test_every_measure(self, reader, K):  # float64: a matrix of d × d and its eigenvalues
        d, n = 30, 5
        J, z, measurer = drawn(n, K, d, dtype=np.float64), outputs(n, K), measurer_of(reader, d)
        found, _ = results(measurer, Block(reader, np.zeros((n, d)), z, J), samples(n))
        for r, base, slopes in zip(found, z, J, strict=True):
            F = fisher(reader, base, slopes, 1.0)
            w, s = np.linalg.eigvalsh(F)[::-1], measurer.standardised.field
            assert_allclose(r.lambda_max.value, w[0], rtol=1e-12)
            assert_allclose(r.trace.value, np.trace(F), rtol=1e-12)
            assert_allclose(r.top_eigenvalues, w[: len(r.top_eigenvalues)], atol=1e-13 * w[0])
            assert_allclose(r.logit_sensitivity.value, np.linalg.norm(slopes, 2), rtol=1e-12)
            assert_allclose(r.lambda_max_raw_units.value, 0.09 * w[0], rtol=1e-12)
            assert_allclose(r.lambda_max_standardised.value, np.linalg.eigvalsh(F * np.outer(s, s))[-1], rtol=1e-12)
            if not reader.no_temperature:
                hot, *ends = (np.linalg.eigvalsh(fisher(reader, base, slopes, t))[-1] for t in (1.7, *measurer.temperature_ends))
                assert_allclose(r.lambda_max_calibrated.value, hot, rtol=1e-12)
                assert_allclose(r.lambda_max_calibrated.at_temperatures, np.array(ends) / hot, rtol=1e-5)  # six digits are kept
            if isinstance(reader, SoftmaxLogits):
                c = base[:, 0].argmax()
                far = [(base[c, 0] - base[j, 0]) / np.linalg.norm(slopes[c] - slopes[j]) for j in range(K) if j != c]
                assert_allclose(r.boundary_distance.value, min(far), rtol=1e-12)

    @pytest.mark.parametrize("sure", [30.0, 240.0, 480.0, 650.0])
    def test_values_of_saturated_outputs_keep_their_digits(self, sure):  # p is good to the rounding of logits of that size
        J, z = drawn(1, 4, 12, dtype=np.float64), outputs(1, 4, sure=sure)
        found, _ = results(measurer_of(SoftmaxLogits(), 12), Block(SoftmaxLogits(), np.zeros((1, 12)), z, J), samples(1))
        truth = precise_lambda(z[0, :, 0], J[0])
        assert 0 < truth < np.exp(10 - sure)
        assert_allclose(found[0].lambda_max.value, truth, rtol=4 * sure * 2.2e-16 + 1e-13)


@pytest.mark.parametrize("d", [40, 9000])  # one piece of the coordinates, and two
@pytest.mark.parametrize("sure", [0.0, 30.0, 450.0], ids=["unsure", "sure", "very sure"])  # all but one probability below 1e-190
@pytest.mark.parametrize(("reader", "K"), READERS)
def test_all_measures_are_those_of_one_sample_at_a_time(reader, K, sure, d):  # float64 sums in another order
    n = 3
    J, z, measurer = drawn(n, K, d, seed=3), outputs(n, K, sure=sure), measurer_of(reader, d)
    if d == 40:
        measurer = replace(measurer, features=np.arange(d) // 4)
    found, _ = results(measurer, Block(reader, np.zeros((n, d)), z, J), samples(n))
    for ours, sample, base, slopes in zip(found, samples(n), z, J, strict=True):
        truth = measurer(sample, base, [whole(sample, slopes)])
        compared = 0
        for f in fields(truth):
            value, other = getattr(truth, f.name), getattr(ours, f.name)
            if isinstance(value, Estimate):
                assert (value.kind, value.reason, value.method) == (other.kind, other.reason, other.method), f.name
                for end in ("value", "low", "high", "plain", "cross_fit", "at_temperatures", "evaluations"):
                    if getattr(value, end) is not None:
                        assert_allclose(getattr(other, end), getattr(value, end), rtol=1e-11, err_msg=f"{f.name}.{end}")
                        compared += 1
            elif f.name == "top_eigenvalues":
                assert_allclose(other, value, atol=1e-13 * value[0], rtol=1e-9)
            elif f.name == "leading_feature" and value is not None:
                assert other.index == value.index
                assert_allclose([other.share, other.share_standardised], [value.share, value.share_standardised], rtol=1e-9)
            else:
                assert value == (pytest.approx(other) if isinstance(other, float) else other), f.name
        assert compared >= 15
        assert (ours.leading_feature is not None) == (d == 40)


@pytest.mark.parametrize(("reader", "K"), [(SoftmaxLogits(), 10), (SigmoidLogits(), 4), (SigmoidLogits(), 1)])
def test_leads_are_those_of_all_coordinates(reader, K):  # float64 sums in another order
    d, n = 9000, 3
    J, z = drawn(n, K, d, seed=5), outputs(n, K)
    x = np.full((n, d), 0.5)
    for ours, sample, base, slopes in zip(Block(reader, x, z, J).leads(), samples(n), z, J, strict=True):
        truth = lead_of_directions(Scored(reader, base, whole(sample, slopes)))
        for c, v in zip(ours, truth, strict=True):
            g = c @ slopes.astype(np.float64)
            assert abs(g @ v) == pytest.approx(np.linalg.norm(g) * np.linalg.norm(v), rel=1e-12)


def test_coordinates_without_room_do_not_count_on_the_way():  # float64
    d, n, K = 9000, 4, 10
    rng = np.random.default_rng(6)
    J, z = drawn(n, K, d, seed=7), outputs(n, K)
    x = rng.choice([0.0, 0.5, 1.0], (n, d))
    x[0] = 0.5
    box = ValidRange(np.zeros(d), np.ones(d), "test")
    found = Block(SoftmaxLogits(), x, z, J, box).grams()
    assert_allclose(found.movable[0], found.squares[0])
    for k in range(1, n):
        E = J[k].astype(np.float64) - J[k, z[k, :, 0].argmax()]
        moved = np.where(E > 0, x[k] < 1, x[k] > 0) * E
        assert_allclose(found.movable[k], (moved**2).sum(axis=1), rtol=1e-12)
        assert (found.movable[k] <= found.squares[k]).all()


class TestGrams:
    @pytest.mark.parametrize("centre", [True, False])
    @pytest.mark.parametrize(("K", "d"), [(1, 5000), (3, 40_000), (10, 70), (80, 9000)])
    def test_they_are_the_products_of_the_slopes(self, K, d, centre):  # float64 sums in another order
        J, z, s = drawn(3, K, d), outputs(3, K)[:, :, 0], np.random.default_rng(1).uniform(0.1, 3, d)
        found = grams(J, Contest(z), centre=centre, units=(s, s**2))
        for k in range(3):
            wide = J[k].astype(np.float64)
            E = wide - wide[z[k].argmax()]
            made = E if centre else wide
            for ours, truth in (
                (found.whole[k], wide @ wide.T),
                (found.slopes[k], made @ made.T),
                (found.in_units[0][k], (made * s) @ (made * s).T),
                (found.in_units[1][k], (made * s**2) @ (made * s**2).T),
            ):
                assert_allclose(ours, truth, rtol=1e-12, atol=1e-13 * np.abs(truth).max())
            assert_allclose(found.squares[k], (E**2).sum(axis=1), rtol=1e-12)

    def test_nearly_equal_slopes_keep_their_difference(self):  # 1e-6 of the slopes: 1e-9 of it is left by 1e-15 of them
        rng = np.random.default_rng(2)
        common, apart = rng.standard_normal((2, 30_000))
        J = np.stack([common, common + 1e-6 * apart])
        truth = np.sum((J[1] - J[0]) ** 2)
        assert_allclose(grams(J[None], Contest(np.array([[1.0, 0.0]])), centre=True).squares[0, 1], truth, rtol=1e-8)
        G = J @ J.T
        assert abs((G[0, 0] + G[1, 1] - 2 * G[0, 1]) / truth - 1) > 1e-6, "which the Gram matrix of the slopes loses"


@pytest.mark.parametrize(("reader", "K"), READERS)
@pytest.mark.parametrize("d", [7, 64, 9000])
def test_samples_do_not_depend_on_their_company(reader, K, d):
    n = 9
    J, z, measurer = drawn(n, K, d), outputs(n, K), measurer_of(reader, d)
    x = np.random.default_rng(0).choice([0.0, 0.5, 1.0], (n, d))
    box = ValidRange(np.zeros(d), np.ones(d), "test")

    def of(rows):
        chosen = [samples(n)[k] for k in rows]
        found, leads = results(measurer, Block(reader, x[rows], z[rows], J[rows], box), chosen)
        return {s.position: (r, leads[k].tobytes()) for k, (s, r) in enumerate(zip(chosen, found, strict=True))}

    together = of(list(range(n)))
    assert of([4]) == {4: together[4]}
    assert of([8, 2, 5]) == {k: together[k] for k in (2, 5, 8)}


@pytest.mark.parametrize("size", [1e-250, 1e-130, 1e120])
def test_slopes_whose_squares_are_no_numbers_of_float64(size):  # 1e-9: 1e-300 has nine digits before the smallest normal number
    J, z = drawn(2, 3, 20, dtype=np.float64), outputs(2, 3)
    measurer = measurer_of(SoftmaxLogits(), 20)
    plain, _ = results(measurer, Block(SoftmaxLogits(), np.zeros((2, 20)), z, J), samples(2))
    sized, _ = results(measurer, Block(SoftmaxLogits(), np.zeros((2, 20)), z, J * size), samples(2))
    for a, b in zip(plain, sized, strict=True):
        assert b.logit_sensitivity.value == pytest.approx(a.logit_sensitivity.value * size, rel=1e-12)
        assert b.boundary_distance.value == pytest.approx(a.boundary_distance.value / size, rel=1e-12)
        if size > 1e-200:
            assert b.lambda_max.value == pytest.approx(a.lambda_max.value * size**2, rel=1e-9)


def test_what_is_measurable():
    J = drawn(5, 3, 8, dtype=np.float64)
    J[1, 2, 3], J[2, 0, 0], J[3], J[4, 1, 1] = np.nan, -np.inf, 0.0, 1e150
    assert_array_equal(measurable(J), [True, False, False, False, False])


def test_a_zero_matrix_has_no_top_vector():
    w, u = top_pairs(np.stack([np.zeros((3, 3)), np.diag([1.0, 3.0, 2.0])]))
    assert not u[0].any()
    assert_allclose(u[1], [0, 1, 0])
    assert_allclose(w[:, -1], [0, 3])
