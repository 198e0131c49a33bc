import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.errors import InputError, OutputError, SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.sample import Estimate
from onnxfim.record.steps import StepBias
from onnxfim.verdict import compare_to_baseline, judge, parse_gate
from tests.support.audits import make_audit
from tests.support.places import SUPPORT
from tests.support.small_audits import heavy, noisy, seeded, small, with_values


def test_an_audit_against_itself_passes_at_any_limit():
    audit = small()
    for scope in ("samples", "population"):
        found = compare_to_baseline(audit, audit, 0.0, scope=scope)
        assert (found.verdict, found.ratio.value, found.worse.value, found.better.value) == ("pass", 1.0, 0.0, 0.0)
    assert found.paired
    assert found.differences == found.movements == ()


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("rise", "wrong"), [(1.0, "fail"), (1.2, "pass")])
@pytest.mark.parametrize("scope", ["samples", "population"])
def test_wrong_verdicts_are_rare(paired, rise, wrong, scope):
    # Limit 10 %, 200 seeds: none may be wrong in more than 2.5 % (fail) or 5 % (pass); expected far below either.
    rng = np.random.default_rng([paired, int(10 * rise)])
    truth = heavy(64, rng)
    base, now = small(), small() if paired else seeded(small(), 1)
    counts = {"fail": 0, "inconclusive": 0, "pass": 0}
    for _ in range(200):
        shared = rng.standard_normal((64, 20))
        b, rb = noisy(truth, rng, 0.1, shared)
        a, ra = noisy(rise * truth, rng, 0.1, shared if paired else None)
        found = compare_to_baseline(with_values(now, a, 0.1, ra), with_values(base, b, 0.1, rb), 0.1, scope=scope)
        assert found.paired == paired
        counts[found.verdict] += 1
    assert counts[wrong] / 200 <= (0.025 if wrong == "fail" else 0.05)
    if paired:
        assert counts["inconclusive"] == 0


def test_the_calibrated_measure_leads_where_both_have_it():
    audit, unlabelled = small(), make_audit(64, labels=False)
    assert compare_to_baseline(audit, audit).measure == "lambda_max_calibrated"
    assert compare_to_baseline(unlabelled, unlabelled).measure == "lambda_max"
    assert compare_to_baseline(audit, audit, measure="lambda_max").measure == "lambda_max"


def test_only_shared_samples_are_compared():
    audit = small()
    values = np.r_[np.full(63, 1.0), 1e-6]
    whole = with_values(audit, values)
    lacking = replace(whole, samples=whole.samples[:63])
    assert compare_to_baseline(lacking, whole).count == 63
    heaviest = with_values(audit, np.r_[np.full(63, 1.0), 20.0])
    with pytest.raises(InputError, match=r"1 samples that hold 24% of the mean of the other were not measured in both"):
        compare_to_baseline(replace(heaviest, samples=heaviest.samples[:63]), heaviest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: replace(a, data=replace(a.data, sha256="f" * 64)), r"the audits saw different samples"),
        (lambda a: replace(a, data=replace(a.data, shape=(1, 9, 9))), r"samples of shape \(1, 9, 9\), expected \(1, 8, 8\)"),
        (lambda a: replace(a, model=replace(a.model, output_kind="sigmoid")), r"outputs are sigmoid, expected class probabilities"),
        (lambda a: replace(a, model=replace(a.model, num_outputs=1000)), r"1000 outputs, expected 10"),
        (lambda a: replace(a, units="bananas"), r"values are in bananas"),
        (lambda a: replace(a, run=replace(a.run, step=0.1), step=replace(a.step, step=0.1, plateau=False)), r"the same --step"),
        (lambda a: replace(a, step=replace(a.step, error=0.5)), r"own error is 50% of one audit's values and 1% of the other's"),
        (lambda a: replace(a, samples=()), r"no sample was measured in both"),
        (
            lambda a: with_values(a, np.zeros(64)),
            r"the mean of .* is 0 and has no ratio",
        ),
    ],
)
def test_an_incomparable_pair_is_an_error(change, message):
    audit = small()
    with pytest.raises(InputError, match=message):
        compare_to_baseline(audit, change(audit), measure="lambda_max_calibrated")


def test_logits_and_probabilities_of_one_model_compare():
    audit = small()
    other = replace(audit, model=replace(audit.model, output_kind="probabilities"))
    assert compare_to_baseline(audit, other).verdict == "pass"


def test_another_step_on_a_plateau_compares_but_is_not_paired():
    audit = small()
    other = replace(audit, run=replace(audit.run, step=3e-3), step=replace(audit.step, step=3e-3))
    found = compare_to_baseline(audit, other)
    assert not found.paired
    assert ("run.step", "0.003", "0.001") in [(d.name, d.baseline, d.current) for d in found.differences]


def test_differences_name_settings_data_and_model_input():
    audit = small()
    other = replace(
        seeded(audit, 7),
        model=replace(audit.model, input_dtype="float16", name="old"),
        settings=replace(audit.settings, budget=51, seed=7),
        data=replace(audit.data, source="elsewhere.npz"),
    )
    names = {d.name for d in compare_to_baseline(audit, other).differences}
    assert names == {"model file", "model.input_dtype", "settings.budget", "run.seed", "data.source"}


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf")])
def test_a_limit_is_zero_or_more(limit):
    with pytest.raises(SettingsError, match="is not a share of 0 or more"):
        compare_to_baseline(small(), small(), limit)


def test_movements_are_the_largest_changes():
    audit = small()
    values = np.arange(1.0, 65.0)
    now = values.copy()
    now[[5, 40]] += [3.0, 7.0]
    found = compare_to_baseline(with_values(audit, now), with_values(audit, values))
    assert [(m.index, m.current - m.baseline) for m in found.movements] == [(40, 7.0), (5, 3.0)]
    assert (found.worse.value, found.better.value) == (2 / 64, 0.0)


def test_inconclusive_says_what_would_settle_it():
    audit, rng = small(), np.random.default_rng(0)
    a, b = np.full(64, 1.05), np.ones(64)
    unpaired = compare_to_baseline(with_values(seeded(audit, 1), a, 0.5), with_values(audit, b, 0.5))
    assert unpaired.verdict == "inconclusive"
    assert "audit with the baseline's --seed and --step" in unpaired.advice
    spread = a * np.exp(rng.normal(0, 0.5, 64))
    general = compare_to_baseline(with_values(audit, spread), with_values(audit, b), 0.1, scope="population")
    assert general.verdict == "inconclusive"
    assert "more samples" in general.advice


def test_judging_sets_verdict_gates_and_comparison_and_survives_json():
    audit = small()
    worse = with_values(audit, 2 * np.array([s.lambda_max_calibrated.value for s in audit.samples]))
    judged = judge(worse, [parse_gate("clean_accuracy < 1%")], baseline=audit)
    assert (judged.verdict, judged.gates[0].verdict, judged.comparison.verdict) == ("fail", "pass", "fail")
    assert Audit.from_json(judged.to_json()) == judged


def test_old_json_without_gates_reads():
    record = json.loads((SUPPORT / "audit-1.0.json").read_text("utf-8"))
    whole = Audit.from_json(json.dumps(record))
    del record["gates"], record["comparison"], record["settings"]["scheme"]
    for s in record["samples"]:
        s["lambda_max"].pop("replicates", None)
        s["lambda_max_calibrated"].pop("replicates", None)
    assert Audit.from_json(json.dumps(record)) == whole


@pytest.mark.parametrize("name", ["gates", "comparison"])
def test_json_of_today_holds_its_gates(told, name):
    record = json.loads(small(5).to_json())
    del record[name]
    with pytest.raises(OutputError, match=told(f"audit JSON: {name} is missing", "expected")):
        Audit.from_json(json.dumps(record))


def test_unresolved_samples_are_no_small_values():
    audit = small()
    gone = Estimate(None, reason="rounding")
    lost = replace(audit, samples=tuple(replace(s, lambda_max=gone, lambda_max_calibrated=gone) for s in audit.samples))
    with pytest.raises(InputError, match="no sample was measured in both"):
        compare_to_baseline(lost, audit)


def test_what_a_common_step_is_short_of_is_left_out_of_the_ratio():  # 1e-12: the same values divided by their own factors
    def biased(audit, factor):
        samples = tuple(replace(s, lambda_max=replace(s.lambda_max, value=s.lambda_max.value * factor)) for s in audit.samples)
        step = replace(audit.step, scheme="dithered", bias=StepBias(factor, 1.0, factor**2, True))
        return replace(audit, samples=samples, step=step, run=replace(audit.run, scheme="dithered"))

    plain = make_audit(30)
    ratio = compare_to_baseline(biased(plain, 1.5), biased(plain, 1.1), measure="lambda_max").ratio
    assert_allclose(ratio.value, 1.0, rtol=1e-12)
