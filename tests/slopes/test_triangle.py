"""A Jacobian reduced to a triangle, against the same measures of the whole of it."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.auditing.run import audit
from onnxfim.record.sample import Estimate
from onnxfim.record.settings import Settings
from onnxfim.slopes import triangle as module
from onnxfim.slopes.differences import Ends, Request, Sample
from onnxfim.slopes.flips import ValidRange
from onnxfim.slopes.kinds import SigmoidLogits, SoftmaxLogits
from onnxfim.slopes.leads import lead_of_outputs
from onnxfim.slopes.measurer import Measurer
from onnxfim.slopes.rescaling import Rescaling
from onnxfim.slopes.triangle import ends_of, triangle
from tests.support.places import SAMPLES

SAMPLE = Sample(0, 0)


def drawn(K, d, *, seed=0, dtype=np.float32):
    return np.random.default_rng([seed, K, d]).standard_normal((K, d)).astype(dtype)


def whole(J):
    """The ends as they are without a reduction."""
    return Ends(Request(SAMPLE, 0, J.shape[1]), J.astype(np.float64).T[:, :, None], np.zeros((1, len(J), 1)), 1.0)


class TestTriangle:
    @pytest.mark.parametrize(("K", "d"), [(1, 5000), (3, 4096), (10, 4097), (10, 20_000), (80, 9000)])
    def test_its_gram_matrix_is_the_jacobian_s(self, K, d):  # float64 sums in another order
        J, s = drawn(K, d), np.random.default_rng(1).uniform(0.1, 3, d)
        wide = J.astype(np.float64)
        for field in (None, s):
            R = triangle(J, field)
            assert R.shape == (K, K)
            S = wide if field is None else wide * field
            assert_allclose(R.T @ R, S @ S.T, rtol=1e-12, atol=1e-12 * d)

    def test_nearly_equal_slopes_keep_their_difference(self):  # 1e-6 of the slopes: 1e-9 of it is left by 1e-15 of them
        rng = np.random.default_rng(2)
        common, apart = rng.standard_normal((2, 30_000))
        J = np.stack([common, common + 1e-6 * apart])
        R = triangle(J)
        assert_allclose(np.linalg.norm(R[:, 1] - R[:, 0]), np.linalg.norm(J[1] - J[0]), rtol=1e-8)
        G = J @ J.T
        assert abs((G[0, 0] + G[1, 1] - 2 * G[0, 1]) / np.sum((J[1] - J[0]) ** 2) - 1) > 1e-6, "which the Gram matrix loses"

    def test_few_coordinates_and_slopes_that_are_no_numbers_stay(self):
        assert ends_of(SAMPLE, drawn(3, 100), whole=False).jacobian is None
        assert ends_of(SAMPLE, drawn(3, 5000), whole=True).jacobian is None
        J = drawn(3, 5000)
        J[1, 7] = np.nan
        assert ends_of(SAMPLE, J, whole=False).jacobian is None
        assert ends_of(SAMPLE, drawn(3, 5000), whole=False).plus.shape == (3, 3, 1)


@pytest.mark.parametrize("sure", [0.0, 30.0], ids=["unsure", "sure"])  # 30: all but one probability below 1e-13
@pytest.mark.parametrize(("reader", "K"), [(SoftmaxLogits(), 10), (SigmoidLogits(), 4), (SigmoidLogits(), 1)])
def test_all_measures_are_those_of_the_whole(reader, K, sure):  # float64 sums in another order
    d = 6000
    J = drawn(K, d, seed=3) * np.logspace(0, -3, K, dtype=np.float32)[:, None]
    base = np.linspace(0, 2, K)[:, None]
    base[0] += sure
    rng = np.random.default_rng(4)
    measurer = Measurer(
        reader=reader, scheme="central", exact=True, gradient=True, temperature=1.7, temperature_reason=None, temperature_error=0.1,
        step_error=1e-6, raw=Rescaling(np.array([0.3])), standardised=Rescaling(rng.uniform(0.1, 2, d)),
    )  # fmt: skip
    reduced = ends_of(SAMPLE, J, whole=False)
    assert reduced.jacobian is J
    ours, truth = measurer(SAMPLE, base, [reduced]), measurer(SAMPLE, base, [whole(J)])
    assert ours.directions == truth.directions == d
    assert ours.evaluations == truth.evaluations
    compared = 0
    for f in fields(truth):
        value, other = getattr(truth, f.name), getattr(ours, f.name)
        if isinstance(value, Estimate):
            assert (value.kind, value.reason, value.method) == (other.kind, other.reason, other.method), f.name
            for end in ("value", "low", "high"):
                if getattr(value, end) is not None:
                    assert_allclose(getattr(other, end), getattr(value, end), rtol=1e-11, err_msg=f.name)
                    compared += 1
    assert compared >= 15
    size = truth.top_eigenvalues[0]
    assert_allclose(ours.top_eigenvalues, truth.top_eigenvalues[: len(ours.top_eigenvalues)], atol=1e-13 * size, rtol=1e-9)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("reader", "K"), [(SoftmaxLogits(), 10), (SigmoidLogits(), 4), (SigmoidLogits(), 1)])
def test_leads_are_those_of_the_whole(reader, K, inside):  # float64 sums in another order
    d = 9000
    J, base = drawn(K, d, seed=5), np.linspace(0, 0.1, K)[:, None]
    rng = np.random.default_rng(6)
    # At the ends of the range most coordinates cannot move one way: another class is then the nearest.
    x = rng.uniform(0.2, 0.8, d) if inside else rng.choice([0.0, 0.5, 1.0], d)
    if not inside:
        x[J[0] > 0] = 1.0
    for box in (None, ValidRange(np.zeros(d), np.ones(d), "test")):
        ours = lead_of_outputs(reader, base, ends_of(SAMPLE, J, whole=False), x, box, 1.0)
        truth = lead_of_outputs(reader, base, whole(J), x, box, 1.0)
        ours[0] *= np.sign(ours[0] @ truth[0])  # an eigenvector's sign is free
        assert_allclose(ours, truth, atol=1e-9)
        assert truth.any()


@pytest.mark.slow
def test_an_audit_is_the_same_by_either_way(monkeypatch):
    digits = np.load(SAMPLES / "digits.npz")
    settings = Settings(samples=12, providers=("cpu",), batch=64, method="gradient", bounds=False)

    def audited():
        return audit(SAMPLES / "digits_resnet.onnx", digits["inputs"], digits["labels"], settings)

    plain = audited()
    kept = []
    made = ends_of
    monkeypatch.setattr(module, "_LEAST", 1)
    monkeypatch.setattr(
        "onnxfim.slopes.exact.ends_of", lambda *a, **o: (ends := made(*a, **o), kept.append(ends.jacobian is not None))[0]
    )
    reduced = audited()
    assert kept
    assert all(kept)
    for a, b in zip(plain.samples, reduced.samples, strict=True):
        for name in (
            "lambda_max",
            "lambda_max_calibrated",
            "lambda_max_standardised",
            "trace",
            "logit_sensitivity",
            "boundary_distance",
        ):
            assert_allclose(getattr(b, name).value, getattr(a, name).value, rtol=1e-10, err_msg=name)
        assert_allclose(b.flip_radius.value, a.flip_radius.value, rtol=1e-6)  # along directions of float32 cotangents
    assert replace(reduced.run, seconds=0.0, times={}).evaluations == plain.run.evaluations
