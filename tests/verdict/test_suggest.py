"""Suggested gates: the baseline passes them, others of its kind mostly, and what cannot be decided is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from onnxfim.auditing.summary import all_aggregates
from onnxfim.record.decision import Finding
from onnxfim.record.sample import Estimate
from onnxfim.verdict import decide, parse_gate
from onnxfim.verdict.suggest import HALF_WIDTHS, WIDEST, _at_worst, _factor, suggest
from tests.support.audits import make_audit


def with_values(logs, **changes):
    """An audit whose boundary distances are known exactly: ``exp(logs)``; of λ_max, a tenth of their squares' inverses."""
    audit = replace(make_audit(len(logs)), findings=(), **changes)

    def exact(value):
        return Estimate(float(value), float(value), float(value), "exact")

    samples = tuple(
        replace(s, boundary_distance=exact(math.exp(v)), lambda_max=exact(0.1 * math.exp(-2 * v)), flip_radius=None)
        for s, v in zip(audit.samples, logs, strict=True)
    )
    return replace(audit, samples=samples, aggregates=all_aggregates(samples, seed=0))


def draw(seed, n=100, shift=0.0):
    return with_values(shift + 0.4 * np.random.default_rng(seed).standard_normal(n))


def test_the_baseline_passes_all_of_them():
    for seed in range(10):
        audit = draw(seed)
        found = suggest(audit)
        assert {g.name.partition(".")[0] for g in found.gates} >= {"findings", "clean_accuracy", "boundary_distance"}
        results = decide(audit, [parse_gate(t) for t in found.fail_on])
        assert [r.verdict for r in results] == ["pass"] * len(results)


def test_a_threshold_is_three_half_widths_away():
    audit = draw(0)
    gate = next(g for g in suggest(audit).gates if g.name == "boundary_distance.median")
    found = audit.aggregates["boundary_distance"].median
    expected = found.value * (found.low / found.value) ** HALF_WIDTHS
    assert expected * 0.99 <= gate.threshold <= expected  # three digits, rounded away from the baseline
    assert gate.text == f"boundary_distance.median < {gate.threshold:g}"


def test_others_of_the_same_population_pass_and_worse_ones_do_not():
    """Of log-normal distances: ln 2 = 0.69 is 17 standard errors of a median of 100 (0.4 · 1.25 / 10 = 0.05)."""
    missed = shrunk = 0
    for seed in range(60):
        gates = [parse_gate(g.text) for g in suggest(draw(seed)).gates if g.name == "boundary_distance.median"]
        missed += decide(draw(1000 + seed), gates)[0].verdict != "pass"
        shrunk += decide(draw(1000 + seed, shift=-math.log(2)), gates)[0].verdict != "pass"
    assert missed <= 4  # 1 % each: 5 or more of 60 come in 4 of 10,000 such tests
    assert shrunk >= 58


def test_what_so_few_samples_do_not_bound_is_refused_with_the_number():
    refused = {r.name: r.why for r in suggest(draw(0, n=60)).refused}
    (why,) = [w for name, w in refused.items() if name.startswith("lambda_max") and name.endswith(".p95")][:1]
    assert why == "60 samples do not bound it on that side: 72 do"


def test_a_margin_too_wide_for_any_use_is_refused():
    logs = 3.0 * np.random.default_rng(0).standard_normal(40)
    refused = {r.name: r.why for r in suggest(with_values(logs)).refused}
    assert "more than 3.2: about" in refused["boundary_distance.median"]
    assert all(g.factor is None or 1 / WIDEST[1] <= g.factor <= WIDEST[-1] * 1.01 for g in suggest(with_values(logs)).gates)


def test_an_unsound_baseline_gives_no_threshold():
    audit = replace(draw(0), findings=(Finding("accuracy-near-chance", "error", "x"),))
    found = suggest(audit)
    assert found.fail_on == ("findings.error",)
    assert "accuracy-near-chance" in found.refused[0].why


def test_without_labels_the_accuracy_is_refused():
    found = suggest(replace(make_audit(100, labels=False), findings=()))
    assert "clean_accuracy" in {r.name for r in found.refused}


@pytest.mark.parametrize(("right", "n"), [(95, 100), (490, 500), (100, 100), (60, 100)])
def test_the_accuracy_of_a_re_run_is_predicted(right, n):
    """Against draws of the predictive distribution: a probability from Jeffreys' posterior, then as many others."""
    rng = np.random.default_rng(0)
    again = rng.binomial(n, rng.beta(right + 0.5, n - right + 0.5, 200_000))
    k = _at_worst(right, n)
    assert (again < k).mean() <= 0.011  # 1 %, and three standard errors of 200,000 draws
    assert (again <= k).mean() >= 0.009 or k == right


@pytest.mark.parametrize(
    ("value", "told"),
    [(math.sqrt(10), "3.2"), (10.0, "10"), (61.2, "61"), (199.6, "200"), (5e4, "over 1,000"), (1e300, "over 1,000")],
)
def test_a_factor_is_told_as_people_write_it(value, told):
    assert _factor(value) == told
