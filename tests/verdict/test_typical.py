"""A usual sample beside the mean: what it decides of a regression, and how rarely it errs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from onnxfim.record.audit import Audit
from onnxfim.record.sample import Estimate
from onnxfim.report.gate_words import baseline_asked, baseline_words
from onnxfim.report.page.gate_section import baseline_headline
from onnxfim.verdict import compare_to_baseline, judge
from onnxfim.verdict.typical import LEVEL
from tests.support.audits import make_audit
from tests.support.small_audits import heavy, noisy, seeded, small, with_values


def at_distances(audit, distances):
    """The audit with these boundary distances and no search for flips."""
    found = with_values(audit, distances, measure="boundary_distance")
    return replace(found, samples=tuple(replace(s, flip_radius=None) for s in found.samples))


def of(found, name):
    return next(t for t in found.typical if t.name == name)


def test_shorter_distances_fail_where_the_mean_is_open():
    rng = np.random.default_rng(0)
    audit, lengths = small(), rng.uniform(0.5, 2, 64)
    wide = [with_values(seeded(audit, k), np.ones(64), 3.0) for k in (1, 2)]  # noise of a factor of e³: the mean tells nothing
    base, shorter, longer = at_distances(wide[0], lengths), *(at_distances(wide[1], f * lengths) for f in (0.6, 1.5))
    found = compare_to_baseline(shorter, base, 0.1)
    assert (found.verdict, found.decided_by) == ("fail", ("boundary_distance",))
    assert_allclose(of(found, "boundary_distance").ratio.value, 0.6, rtol=1e-9)
    assert_allclose(of(found, "boundary_distance").limit, 1 / math.sqrt(1.1), rtol=1e-12)
    words, headline = baseline_words(found), baseline_headline(found)
    assert words.startswith("boundary distance of a usual sample is 0.600 times what it was")
    assert "decidedly beyond the limit, p < 10⁻⁹: at least 0.953 is allowed; the mean" in words
    assert headline.startswith("Boundary distance of a usual sample is 0.600 times")
    assert "(mean, or of a usual sample) rose by more than 10\u00a0% against" in baseline_asked(found)
    assert found.advice is None
    open_ = compare_to_baseline(longer, base, 0.1)  # better distances pass nothing that the mean leaves open
    assert (open_.verdict, open_.decided_by) == ("inconclusive", ())


def test_a_distance_may_not_fall_at_all_where_no_rise_is_allowed():
    rng = np.random.default_rng(0)
    audit, lengths = small(), rng.uniform(0.5, 2, 64)
    found = compare_to_baseline(at_distances(audit, 0.6 * lengths), at_distances(audit, lengths), 0.0)
    assert of(found, "boundary_distance").limit == 1.0
    assert "against at least 1.0" in found.comparison
    assert "at least 1.00 is allowed" in baseline_words(found)


def test_the_mean_decides_as_before_and_is_named():
    audit = small()
    worse = with_values(audit, 2 * np.array([s.lambda_max_calibrated.value for s in audit.samples]))
    assert compare_to_baseline(audit, audit).decided_by == ("lambda_max_calibrated.mean",)
    failed = compare_to_baseline(worse, audit)
    assert (failed.verdict, failed.decided_by) == ("fail", ("lambda_max_calibrated.mean",))
    assert not baseline_words(failed).startswith("boundary")


def test_a_usual_sample_that_got_worse_fails_though_the_mean_fell():
    audit, rng = small(), np.random.default_rng(0)
    before = np.r_[100.0, np.ones(63)]
    now = np.r_[20.0, 2 * np.exp(rng.normal(0, 0.2, 63))]
    found = compare_to_baseline(with_values(audit, now), with_values(audit, before), 0.1)
    assert found.ratio.value < 1
    assert (found.verdict, found.decided_by) == ("fail", ("lambda_max_calibrated.geometric_mean",))


def test_p_is_that_of_a_one_sided_test_at_the_limit():
    audit, rng = make_audit(40, labels=False), np.random.default_rng(2)
    logs = rng.normal(0.2, 0.3, 40)
    none = Estimate(None, reason="not asked for")
    plain = replace(audit, samples=tuple(replace(s, flip_radius=None, boundary_distance=none) for s in audit.samples))
    a, b = (with_values(plain, v, measure="lambda_max") for v in (np.exp(logs), np.ones(40)))
    p = of(compare_to_baseline(a, b, 0.1), "lambda_max.geometric_mean").p
    # Student's one-sided test of another implementation, with the spread widened by √(1 + 3/n); 1e-6: p is found by halving.
    t = (logs.mean() - math.log(1.1)) / (logs.std(ddof=1) / math.sqrt(40) * math.sqrt(1 + 3 / 40))
    assert_allclose(p, stats.t.sf(t, 39), rtol=1e-6)
    lengths = np.exp(rng.normal(-0.1, 0.2, 40))
    found = compare_to_baseline(at_distances(audit, lengths), at_distances(audit, np.ones(40)), 0.1)
    expected = stats.wilcoxon(np.log(lengths) + math.log(1.1) / 2, alternative="less", method="exact").pvalue
    assert_allclose(of(found, "boundary_distance").p, expected, rtol=1e-9)


def test_raw_values_of_a_usual_sample_tell_confidence_and_decide_nothing_beside_distances():
    audit = make_audit(40, labels=False)
    assert [t.name for t in compare_to_baseline(audit, audit).typical if t.name.startswith("lambda_max")] == []
    assert [t.name.partition(".")[0] for t in compare_to_baseline(small(), small()).typical][1:] == ["lambda_max_calibrated"]


def test_a_ratio_without_size_is_left_out():
    audit = small()
    zero = with_values(audit, np.r_[0.0, np.ones(63)])
    names = [t.name for t in compare_to_baseline(zero, with_values(audit, np.ones(64))).typical]
    assert not any(n.startswith("lambda_max") for n in names)


def test_another_method_of_estimation_is_no_evidence_of_distances():
    audit, lengths = small(), np.linspace(1, 2, 64)
    base = at_distances(audit, lengths)
    now = at_distances(replace(audit, run=replace(audit.run, method="dense")), lengths / 2)
    assert base.run.method != now.run.method
    assert not any("distance" in t.name for t in compare_to_baseline(now, base).typical)


@pytest.mark.slow
def test_a_usual_sample_is_rarely_called_worse_at_the_limit():
    # 400 draws exactly at the limit, in both measures: 0.5 % are two; six has a probability of 1.7 % under Poisson(2).
    rng = np.random.default_rng(5)
    audit, limit, wrong = small(), 1.1, 0
    for _ in range(400):
        truth, lengths = heavy(64, rng), rng.uniform(0.5, 2, 64)
        spread = rng.normal(0, 0.4, 64)
        base = at_distances(with_values(seeded(audit, 1), noisy(truth, rng, 0.15)[0], 0.15), lengths)
        values = noisy(limit * truth * np.exp(spread), rng, 0.15)[0]
        now = at_distances(with_values(seeded(audit, 2), values, 0.15), lengths / math.sqrt(limit) * np.exp(rng.normal(0, 0.2, 64)))
        wrong += any(t.beyond for t in compare_to_baseline(now, base, limit - 1).typical)
    assert wrong <= 5
    assert LEVEL == 0.005


def test_a_judged_audit_with_it_survives_json():
    audit = small()
    judged = judge(audit, baseline=audit)
    assert judged.comparison.typical
    assert Audit.from_json(judged.to_json()) == judged
