from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm, t, ttest_1samp

from onnxfim.record.sample import Estimate
from onnxfim.record.statistics import Z95
from onnxfim.verdict.measure_tests import distance_measure, distance_trial, log_trial, student_p
from onnxfim.verdict.ratio import Column
from tests.support.audits import make_audit, with_flips
from tests.support.small_audits import heavy, noisy, seeded, with_values

CALIBRATED = "lambda_max_calibrated"


def plain(values, noise=0.0, shifted=None, influences=()):
    n = len(values)
    return Column(
        np.arange(n), np.asarray(values, float), np.full(n, noise), np.empty((n, 0)), shifted, np.asarray(influences, float)
    )  # fmt: skip


def on_trial(a, b, **given):
    audit = make_audit(len(a.values), exact=True)
    return log_trial((audit, audit), (a, b), "lambda_max", **given)


def test_without_shared_errors_it_is_students_test():
    d = np.random.default_rng(0).normal(0.3, 1, 30)
    error = d.std(ddof=1) / np.sqrt(30)
    assert_allclose(student_p(abs(d.mean()), error, 29, 0.0), ttest_1samp(d, 0).pvalue, rtol=1e-9)


def test_a_shared_error_alone_is_normal():
    assert_allclose(student_p(0.5, 0.0, 29, 0.2), 2 * norm.sf(2.5), rtol=1e-9)
    assert student_p(0.0, 0.1, 29, 0.0) == 1.0


def test_both_errors_together_give_the_level_of_the_interval_that_just_reaches():
    p = student_p(0.6, 0.2, 19, 0.15)
    half = np.hypot(t.isf(p / 2, 19) * 0.2, norm.isf(p / 2) * 0.15)
    assert_allclose(half, 0.6, rtol=1e-9)


def test_p_value_and_interval_say_the_same():
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.2, 0.4):
        a, b = heavy(50, rng), heavy(50, rng)
        found = on_trial(plain(a), plain(a * np.exp(rng.normal(shift, 1, 50))))
        assert (found.p < 0.05) == (not found.ratio.low <= 1 <= found.ratio.high)
        del b


def test_equal_values_are_equal():
    values = heavy(30, np.random.default_rng(2))
    found = on_trial(plain(values), plain(values))
    assert (found.p, found.better, found.ratio.value) == (1.0, None, 1.0)


def test_a_sample_that_is_zero_in_one_model_counts_as_the_largest_change_seen():
    then = np.array([1.0, 1.0, 1.0, 0.0, 2.0, 0.0])
    now = np.array([2.0, 3.0, 0.5, 1.0, 0.0, 0.0])
    expected = np.array([np.log(2), np.log(3), np.log(0.5), np.log(3), np.log(0.5), 0.0])
    found = on_trial(plain(then), plain(now))
    assert_allclose(np.log(found.ratio.value), expected.mean())
    assert np.isfinite(found.p)


def test_nothing_but_zeros_decides_nothing():
    found = on_trial(plain(np.zeros(5)), plain(np.zeros(5)))
    assert (found.p, found.better) == (1.0, None)


@pytest.mark.parametrize("ended", [0.05, 0.4])
def test_a_fitted_temperature_alone_makes_no_difference(ended):
    # One model fitted on two sets of labels: 400 draws, 2.5 % has a standard error of 0.8 %, so 4.9 % is three of them.
    rng = np.random.default_rng(int(100 * ended))
    audit = make_audit(40, exact=True)
    wrong = 0
    for _ in range(400):
        elasticity = rng.normal(-6, 4, 40)
        truth = heavy(40, rng)
        columns, audits = [], []
        for row in range(2):
            influences = np.zeros(60)
            influences[30 * row : 30 * row + 30] = ended / np.sqrt(30)  # other labels: errors of their own
            error = rng.normal(0, ended)
            fit = replace(audit.calibration, temperature=1.8 * np.exp(error), log_error=ended)
            audits.append(replace(audit, calibration=fit))
            values = truth * np.exp(elasticity * error + rng.normal(0, 0.01, 40))
            shifted = values[:, None] * np.exp(np.outer(elasticity, [-Z95 * ended, Z95 * ended]))
            columns.append(plain(values, shifted=shifted, influences=influences))
        wrong += log_trial(tuple(audits), tuple(columns), CALIBRATED).p < 0.025
    assert wrong / 400 <= 0.049


def test_sketches_along_other_directions_make_no_difference():
    # 300 draws of one model's noisy values: 2.5 % has a standard error of 0.9 %, so 5.2 % is three of them.
    rng = np.random.default_rng(4)
    audit = make_audit(40)
    other = seeded(audit, 5)
    truth = heavy(40, rng)
    wrong = 0
    for _ in range(300):
        a, b = (plain(noisy(truth, rng, 0.15)[0], noise=0.15) for _ in range(2))
        wrong += log_trial((audit, other), (a, b), "lambda_max").p < 0.025
    assert wrong / 300 <= 0.052


def test_a_twin_that_shifts_every_sample_is_found():
    audit = make_audit(60)
    twin = with_values(audit, [1.3 * s.lambda_max_calibrated.value for s in audit.samples])
    columns = tuple(plain([s.lambda_max_calibrated.value for s in a.samples]) for a in (audit, twin))
    found = log_trial((audit, twin), columns, CALIBRATED)
    assert found.p < 1e-9
    assert found.better == 0


def kinked(audit, width):
    samples = []
    for s in audit.samples:
        e = s.lambda_max
        samples.append(replace(s, lambda_max=replace(e, kind="kinked", low=e.value / width, high=e.value * width)))
    return replace(audit, samples=tuple(samples))


def test_values_without_one_slope_decide_no_more_than_their_ends_allow():
    audit = make_audit(40, exact=True)
    a = plain([s.lambda_max.value for s in audit.samples])
    b = plain(1.5 * a.values * np.exp(np.random.default_rng(0).normal(0, 0.1, 40)))
    sure = log_trial((audit, audit), (a, b), "lambda_max")
    narrow = log_trial((kinked(audit, 1.1), audit), (a, b), "lambda_max")
    wide = log_trial((kinked(audit, 2.0), audit), (a, b), "lambda_max")
    assert sure.p < narrow.p < 1e-6
    assert wide.p == 1.0
    assert_allclose(narrow.ratio.low, sure.ratio.low / 1.1, rtol=1e-9)


def test_slack_of_units_widens_and_weakens():
    rng = np.random.default_rng(3)
    a = plain(heavy(40, rng))
    b = plain(1.2 * a.values * np.exp(rng.normal(0, 0.1, 40)))
    plainly, slack = on_trial(a, b), on_trial(a, b, slack=0.1)
    assert slack.p > plainly.p
    assert_allclose([slack.ratio.low, slack.ratio.high], [plainly.ratio.low * np.exp(-0.1), plainly.ratio.high * np.exp(0.1)])
    assert on_trial(a, b, slack=0.3).p == 1.0


def flipping(audit, radii):
    samples = [
        replace(s, flip_radius=Estimate(r, None, r, "upper bound", reason=None if r is not None else "no flip"))
        for s, r in zip(audit.samples, radii, strict=True)
    ]
    return replace(audit, samples=tuple(samples), run=replace(audit.run, method="gradient"))


def test_a_sample_that_flips_in_one_model_alone_speaks_for_the_other():
    audit = make_audit(12)
    one, other = flipping(audit, [1.0] * 12), flipping(audit, [None] * 9 + [1.0, 1.0, 1.0])
    found = distance_trial(one, other, "flip_radius")
    assert (found.better, found.unfound, found.count) == (1, 9, 12)
    assert found.p == pytest.approx(2 / 2**9)
    both = distance_trial(other, other, "flip_radius")
    assert (both.p, both.better) == (1.0, None)


def labelled(audit, right):
    """The audit of a model that is right on those of its samples."""
    samples = [replace(s, label=1, prediction=1 if r else 0) for s, r in zip(audit.samples, right, strict=True)]
    return replace(audit, samples=tuple(samples))


def test_a_wrong_prediction_that_lasts_is_no_robust_one():
    audit = make_audit(20)
    right = [True] * 10 + [False] * 10  # of the second, which is farther only where it is wrong
    one = labelled(flipping(audit, [1.0] * 20), [True] * 20)
    other = labelled(flipping(audit, [0.9] * 10 + [9.0] * 10), right)
    found = distance_trial(one, other, "flip_radius")
    assert (found.better, found.count) == (0, 10)
    assert found.note == "on the 10 samples that both predict rightly"
    assert found.p == pytest.approx(2 / 2**10)
    bare = [replace(a, samples=tuple(replace(s, label=None) for s in a.samples)) for a in (one, other)]
    assert (distance_trial(*bare, "flip_radius").count, distance_trial(*bare, "flip_radius").note) == (20, "")


def test_where_hardly_a_sample_is_right_in_both_all_count():
    audit = make_audit(20)
    one, other = (labelled(flipping(audit, [r] * 20), [True] * 6 + [False] * 14) for r in (1.0, 2.0))
    found = distance_trial(one, other, "flip_radius")
    assert (found.better, found.count) == (1, 20)
    assert found.note == "both predict 6 of 20 samples rightly, too few: all count"


def test_flip_radii_compare_along_the_models_own_directions_alone():
    audit = make_audit(20)
    own = flipping(audit, [1.0] * 20)
    assert distance_measure([own, own], "lambda_max") == "flip_radius"
    assert distance_measure([own, audit], "lambda_max") == "boundary_distance"
    assert distance_measure([with_flips(audit), with_flips(audit)], "lambda_max") == "boundary_distance"  # sketched directions
    none = replace(audit, samples=tuple(replace(s, boundary_distance=Estimate(None, reason="no")) for s in audit.samples))
    assert distance_measure([none, audit], "lambda_max") is None
    assert distance_measure([own, own], "lambda_max_standardised") is None, "it is that of the feature with the smallest unit"
