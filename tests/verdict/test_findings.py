"""Findings from values alone: when each comes, and that it says what to do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from onnxfim.record.audit import GradientInfo, OutputInfo
from onnxfim.record.data_info import ScalingCheck
from onnxfim.record.decision import Finding
from onnxfim.record.provider_option import ProviderOption
from onnxfim.record.row_check import RowCheck
from onnxfim.record.sample import Skipped
from onnxfim.record.steps import ClippedRange, StepBias, SurrogateCheck
from onnxfim.verdict import judge, parse_gate
from onnxfim.verdict.findings import CHECKS, check_of, checks, findings
from onnxfim.verdict.findings.about_cross_checks import difference_signal
from tests.support.audits import VARIANTS, make_attack, make_audit, make_step, mixed, with_bound, with_nulls


def found(audit, **changes):
    return {f.id: f for f in findings(replace(audit, **changes))}


def doubted(audit, doubt):
    return replace(audit.model, doubt=doubt)


AUDIT = make_audit(100)
AUDIT = replace(AUDIT, run=replace(AUDIT.run, provider_reason=None), calibration=replace(AUDIT.calibration, accuracy=0.97))


@pytest.mark.parametrize(
    ("accuracy", "num_outputs", "near"),
    [(0.1, 10, True), (0.13, 10, True), (0.2, 10, False), (0.02, 100, True), (0.16, 100, False), (0.55, 2, True), (0.62, 2, False)],
)
def test_chance_is_that_of_the_classes(accuracy, num_outputs, near):
    calibration = replace(AUDIT.calibration, accuracy=accuracy)
    model = replace(AUDIT.model, num_outputs=num_outputs)
    assert ("accuracy-near-chance" in found(AUDIT, calibration=calibration, model=model)) == near


@pytest.mark.parametrize(("temperature", "told"), [(0.4, True), (0.6, False), (1.0, False), (1.9, False), (2.1, True)])
def test_temperatures_far_from_one(temperature, told):
    assert ("temperature" in found(AUDIT, calibration=replace(AUDIT.calibration, temperature=temperature))) == told


def test_a_doubt_is_passed_on():
    assert "they sum to two" in found(AUDIT, model=doubted(AUDIT, "they sum to two"))["output-kind"].message


HEADS = (
    OutputInfo("main", "logits", ("N", 10), "head"), OutputInfo("probs", "probabilities", ("N", 10), "same", "main"),
    OutputInfo("colour", "sigmoid", ("N", 3), "head"), OutputInfo("label", None, ("N",), "labels"),
)  # fmt: skip


def test_heads_that_were_not_audited_are_told():
    model = replace(AUDIT.model, output="main", outputs=HEADS)
    told = found(AUDIT, model=model)["other-heads"]
    assert told.level == "warning"
    assert "output 'main' alone" in told.message
    assert "1 more that do not follow from it: 'colour' (sigmoid, N×3). Name one with --output NAME" in told.message
    named = replace(AUDIT.settings, output="main")
    assert "other-heads" not in found(AUDIT, model=model, settings=named)
    assert "other-heads" not in found(AUDIT, model=replace(model, outputs=(*HEADS[:2], HEADS[3])))
    assert "other-heads" not in found(AUDIT)


def option(taken, running=None, *, ours=False):
    return ProviderOption("CUDAExecutionProvider", "device_id", "1", running, taken=taken, ours=ours)


@pytest.mark.parametrize(
    ("options", "id", "words"),
    [
        ((option(False),), "provider-option", "device_id=1 of CUDAExecutionProvider, which did not take it"),
        ((option(False, "0"),), "provider-option", "device_id=1 of CUDAExecutionProvider, which runs with 0"),
        ((option(False, "0", ours=True),), "provider-option", "which runs with 0"),
        ((option(None),), "provider-option-untold", "Whether device_id=1 of CUDAExecutionProvider had an effect is not known"),
    ],
)
def test_an_option_is_never_silently_lost(options, id, words):
    findings = found(AUDIT, run=replace(AUDIT.run, provider_options=options))
    assert words in findings[id].message


@pytest.mark.parametrize("options", [(), (option(True, "1"),), (option(None, ours=True),)])
def test_options_that_were_taken_are_no_finding(options):
    findings = found(AUDIT, run=replace(AUDIT.run, provider_options=options))
    assert not {"provider-option", "provider-option-untold"} & set(findings)


def test_tf32_that_may_be_on_is_a_finding():
    finding = found(AUDIT, run=replace(AUDIT.run, tf32_doubt="libraries were loaded before"))["tf32"]
    assert finding.level == "warning"
    assert "NVIDIA_TF32_OVERRIDE=0" in finding.message
    assert "tf32" not in found(AUDIT)


def test_a_fallback_names_both_providers_and_the_reason():
    run = replace(AUDIT.run, providers_requested=("cuda",), provider_reason="no library")
    finding = found(AUDIT, run=replace(run, provider_missed=True))["provider-fallback"]
    assert finding.level == "warning"
    assert all(word in finding.message for word in ("cuda", "CPUExecutionProvider", "no library"))
    assert "pip install" not in finding.message
    mended = replace(run, provider_missed=True, provider_remedy="cuDNN is missing. To mend it: pip install 'x[cudnn]'")
    assert (
        "no library. cuDNN is missing. To mend it: pip install 'x[cudnn]'" in found(AUDIT, run=mended)["provider-fallback"].message
    )


def test_a_gpu_that_is_not_used_is_warned_of_with_the_command():
    run = replace(AUDIT.run, provider_reason="no library", provider_remedy="cuDNN is missing. To mend it: pip install 'x[cudnn]'")
    finding = found(AUDIT, run=run)["provider-auto"]
    assert finding.level == "warning"
    assert "although an NVIDIA GPU is here. CUDA was not obtained: no library. cuDNN is missing. To mend it: pip" in finding.message
    assert "provider-auto" not in found(AUDIT)


def test_two_builds_are_warned_of():
    said = (
        "2 builds of ONNX Runtime lie over one another: a 1 and b 2. To mend it: pip uninstall -y a b && pip install --no-deps b==2"
    )
    finding = found(AUDIT, run=replace(AUDIT.run, installation=said))["installed-twice"]
    assert (finding.level, finding.message) == ("warning", said)
    assert "installed-twice" not in found(AUDIT)


def test_a_mixed_placement_counts_compute_nodes_alone():
    """Shapes on the CPU and copies are no part of the share."""
    audit = mixed(AUDIT)
    (finding,) = (f for f in audit.findings if f.id == "provider-mixed")
    assert finding.message.startswith(
        "1 of 19 compute nodes (5%), those that a sample's values flow through, went elsewhere than to CUDA"
    )
    assert "1 to CPUExecutionProvider (NonMaxSuppression 1). 2 more nodes copy between devices." in finding.message
    auto = found(audit, run=replace(audit.run, providers_requested=("auto",)))
    assert auto["provider-mixed-auto"].level == "note"
    assert "provider-mixed" not in auto
    shapes = tuple(replace(p, compute={}) if p.provider.startswith("CPU") else p for p in audit.run.placement)
    assert "provider-mixed" not in found(audit, run=replace(audit.run, placement=shapes))


def test_a_provider_that_failed_makes_the_audit_unsound():
    got = found(AUDIT, run=replace(AUDIT.run, partial=True, stopped="CUDAExecutionProvider: failed on this model (x). Do y."))
    assert (
        got["provider-failed"].message
        == "The provider failed during the audit. CUDAExecutionProvider: failed on this model (x). Do y."
    )
    assert got["partial"].message.startswith("The audit ended early: ")


@pytest.mark.parametrize(("share", "level"), [(0.05, "warning"), (0.1, "warning"), (0.11, "error"), (0.3, "error"), (1.0, "error")])
def test_samples_without_a_value_are_not_called_robust(share, level):
    finding = found(with_nulls(AUDIT, share=share))["unresolved"]
    assert finding.level == level
    assert "This does not mean that they are robust" in finding.message


def test_steps():
    assert "no-plateau" not in found(AUDIT)
    rounded = found(AUDIT, step=make_step(dithered=True))
    assert {"no-plateau", "rounded-model"} <= set(rounded)
    assert "not-deterministic" in found(AUDIT, step=replace(AUDIT.step, repeat_noise=1e-3))


def test_a_step_that_only_serves_a_check_of_derivatives_is_a_warning():
    unstable = replace(AUDIT.step, plateau=False)
    for method, level in (("gradient", "warning"), ("sketch", "error"), ("exact", "error")):
        assert found(AUDIT, step=unstable, run=replace(AUDIT.run, method=method))["no-plateau"].level == level


SKETCHED = replace(AUDIT.run, method="sketch", scheme="dithered")
DITHERED = replace(make_step(dithered=True), plateau=True)


@pytest.mark.parametrize(
    ("bias", "told"),
    [
        (StepBias(1.05, 0.95, 1.3, True), None),
        (StepBias(1.2, 0.9, 2.5, True), "carry a factor of 1.2"),
        (StepBias(1.9, 1.6, 2.2, True), "carry a factor of 1.9"),
        (StepBias(1.2, 0.9, 2.5, False), None),
        (StepBias(1.4, 1.3, 1.5, False), "about 1.4 times as large"),
    ],
)
def test_what_a_step_is_short_of(bias, told):
    finding = found(AUDIT, step=replace(DITHERED, bias=bias), run=SKETCHED).get("step-bias")
    assert (finding is None) == (told is None)
    if finding is not None:
        assert finding.level == "error"
        assert told in finding.message


@pytest.mark.parametrize(
    ("ratio", "half", "wrong", "confirms"),
    [(1.0, 1.3, False, True), (0.87, 1.3, False, True), (1.2, 1.3, False, False), (1.2, 1.1, True, False), (1.5, 2.0, True, False)],
)
def test_a_surrogate_confirms_or_contradicts(ratio, half, wrong, confirms):
    check = SurrogateCheck(64, ratio * 2.0, 2.0, ratio, ratio / half, ratio * half)
    gradient = GradientInfo(False, "it rounds", False, None, None, 0, None, check)
    wide = replace(DITHERED, bias=StepBias(1.2, 0.9, 2.5, True))
    got = found(AUDIT, step=wide, run=SKETCHED, gradient=gradient)
    assert ("surrogate-disagrees" in got) == wrong
    assert got["step-bias"].level == ("warning" if confirms else "error")
    if wrong:
        assert got["surrogate-disagrees"].level == "error"
        assert f"{ratio * 2.0:.4g}" in got["surrogate-disagrees"].message
        assert " 2 by the derivative" in got["surrogate-disagrees"].message


@pytest.mark.parametrize(("share", "level"), [(0.05, "warning"), (0.2, "error")])
def test_directions_that_changed_nothing(share, level):
    samples = tuple(replace(s, unchanged=share) for s in AUDIT.samples)
    finding = found(AUDIT, samples=samples)["unchanged-directions"]
    assert finding.level == level
    assert f"{share:.1%} of the directions changed no output" in finding.message


def test_every_message_is_one_line_and_ends():
    many = found(
        with_nulls(AUDIT),
        model=doubted(AUDIT, "odd"),
        step=replace(make_step(dithered=True), repeat_noise=1.0),
        run=replace(AUDIT.run, partial=True),
    )
    assert len(many) >= 6
    for finding in many.values():
        assert "\n" not in finding.message
        assert finding.message.endswith(".")


def test_nothing_measured_is_said_beside_the_reasons():
    assert {"nothing-measured", "unresolved"} <= set(found(with_nulls(AUDIT)))
    empty = found(AUDIT, samples=())
    assert "every sample was skipped" in empty["nothing-measured"].message
    assert "unresolved" not in empty
    assert "nothing-measured" not in found(with_nulls(AUDIT, share=0.99))


@pytest.mark.parametrize(("above", "told"), [(0.9995, False), (1.0005, False), (1.002, True)])
@pytest.mark.parametrize("measure", ["logit_sensitivity", "lambda_max"])
def test_a_value_above_the_bound_beyond_float32_is_an_error(measure, above, told):
    audit = with_bound(make_audit(3))
    log10 = {"logit_sensitivity": audit.bound.log10_lipschitz, "lambda_max": audit.bound.log10_fisher}[measure]
    samples = [
        replace(s, **{measure: replace(getattr(s, measure), kind="exact", low=above * 10**log10)}) for s in audit.samples[1:]
    ]
    got = found(audit, samples=(audit.samples[0], *samples))
    assert ("bound-violated" in got) == told
    if told:
        assert got["bound-violated"].level == "error"
        assert "On 2 samples (first: 1)" in got["bound-violated"].message


def test_no_bound_is_violated_where_there_is_none():
    assert "bound-violated" not in found(with_bound(make_audit(3), available=False))


@pytest.mark.parametrize(
    ("surrogate", "ratio", "level"), [(False, 3.0, "error"), (False, 0.3, "error"), (True, 3.0, "warning"), (False, 1.9, None)]
)
def test_gradients_that_the_sketch_contradicts(surrogate, ratio, level):
    got = found(AUDIT, gradient=GradientInfo(True, None, surrogate, 1e-7, 1e-4, 4, ratio))
    finding = got.get("gradient-sketch-disagree")
    assert (None if finding is None else finding.level) == level
    assert ("surrogate" in got) is surrogate


@pytest.mark.parametrize(("method", "told"), [("auto", True), ("sketch", False)])
def test_no_gradient_is_told_where_it_was_tried(method, told):
    gradient = GradientInfo(False, "node 'x': no rule", False, None, None, 0, None)
    assert ("no-gradient" in found(AUDIT, gradient=gradient, settings=replace(AUDIT.settings, method=method))) == told


def test_derivatives_of_another_provider():
    gradient = GradientInfo(
        True, None, False, 1e-7, 1e-4, 4, 1.0, provider="CPUExecutionProvider", provider_reason="it is wrong there"
    )
    finding = found(AUDIT, gradient=gradient)["derivatives-elsewhere"]
    assert finding.level == "warning"
    assert f"taken on CPUExecutionProvider, outputs and predictions on {AUDIT.run.provider}: it is wrong there" in finding.message
    assert "derivatives-elsewhere" not in found(AUDIT, gradient=replace(gradient, provider=None, provider_reason=None))


@pytest.mark.parametrize(("share", "level"), [(0.01, None), (0.2, "warning"), (0.8, "error")])
def test_differences_near_the_noise(share, level):
    """The noise as a share of what a step changes; too small for the outputs' scale to be called a disagreement of rows."""
    audit = replace(AUDIT, gradient=None)
    signal = difference_signal(audit)
    rows = RowCheck(8, 1e6 * signal, 0.0, 0.0, 0.0, share * signal, False)
    finding = found(audit, rows=rows).get("differences-near-noise")
    assert (None if finding is None else finding.level) == level
    dithered = replace(audit, step=replace(audit.step, scheme="dithered"))
    assert "differences-near-noise" not in found(dithered, rows=rows)


def test_noise_of_another_batch_is_not_called_chance():
    step = replace(AUDIT.step, repeat_noise=1e-3)
    rows = RowCheck(8, 10.0, 0.0, 1e-3, 0.0, 0.0, False)
    assert "not-deterministic" not in found(AUDIT, step=step, rows=rows)
    assert "not-deterministic" in found(AUDIT, step=step, rows=replace(rows, repeated=1e-3))


def test_a_clipped_range_near_the_samples():
    step = replace(AUDIT.step, clipped=ClippedRange(0.0, 1.0, 0.3))
    assert "clips its input to 0 … 1, and 30% of the values" in found(AUDIT, step=step)["clipped-input"].message
    assert "clipped-input" not in found(AUDIT, step=replace(step, clipped=ClippedRange(0.0, 1.0, 0.005)))


def test_attacks_that_failed():
    assert "On 2 of 100 samples no attack succeeded" in found(AUDIT, attack=make_attack(100))["attack-failed"].message


def test_findings_are_a_function_of_the_record_alone(audit):
    got = findings(audit)
    assert got == findings(replace(audit, findings=(Finding("partial", "error", "x"),), verdict="fail"))
    levels = [f.level for f in got]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    assert {f.id for f in got} <= set(CHECKS)
    for f in got:
        check = CHECKS[f.id]
        assert f.level == check.level or (f.level == "warning" and check.milder is not None)


def test_judging_twice_changes_nothing(audit):
    judged = judge(audit)
    assert judge(judged) == judged


def test_an_obstacle_and_a_finding_exclude_one_another(audit):
    for check, got in checks(judge(audit)):
        assert not (got and check.obstacle(audit)), check.id


def test_gates_on_findings_see_those_of_the_record():
    clean = replace(AUDIT, findings=(Finding("partial", "warning", "from elsewhere"),))
    assert judge(clean, [parse_gate("findings.warning")]).gates[0].value == len(found(AUDIT)) - sum(
        f.level != "warning" for f in found(AUDIT).values()
    )


def test_a_finding_of_a_later_version_speaks_for_itself():
    assert check_of(Finding("new-thing", "warning", "x")).title == "New thing"
    assert set(CHECKS) < {check.id for check, _ in checks(replace(AUDIT, findings=(Finding("new-thing", "note", "x"),)))}


def test_every_check_is_listed_once_and_says_what_it_looks_for():
    for name, check in CHECKS.items():
        assert check.id == name
        assert check.title[0].isupper()


@pytest.fixture(params=sorted(VARIANTS))
def audit(request):
    return VARIANTS[request.param]()


# Accuracy against chance and against confidence.


def labelled(audit, *, right, n, chance=None, confidence=None):
    """The audit with ``right`` of ``n`` labelled samples right."""
    calibration = replace(audit.calibration, accuracy=right / n, mean_confidence=right / n if confidence is None else confidence)
    return replace(audit, calibration=calibration, data=replace(audit.data, labelled=n, chance=chance))


@pytest.mark.parametrize(
    ("right", "n", "chance", "near"),
    [
        (16, 100, 0.01, False), (3, 100, 0.01, True), (4, 100, 0.01, False),  # P(X >= 3) = 0.079, P(X >= 4) = 0.018
        (6, 10, 0.5, True), (60, 100, 0.5, False), (95, 100, 0.95, True), (99, 100, 0.95, False), (4, 4, 0.5, False),
    ],
)  # fmt: skip
def test_near_chance_is_an_exact_binomial_test(right, n, chance, near):
    assert ("accuracy-near-chance" in found(labelled(AUDIT, right=right, n=n, chance=chance))) == near


def test_few_samples_near_chance_are_said_to_be_few():
    message = found(labelled(AUDIT, right=6, n=10, chance=0.5))["accuracy-near-chance"].message
    assert "60.0% (6 of 10), which chance gives too (50.0% for these labels and 10 classes). 10 labelled samples are few" in message


@pytest.mark.parametrize(
    ("right", "n", "confidence", "level"),
    [
        (72, 200, 0.82, "error"),  # far below, and many samples say so
        (110, 200, 0.75, "warning"),  # over-confident as trained classifiers are
        (9, 16, 0.85, "warning"),  # far below, on samples too few to be sure
        (150, 200, 0.54, "warning"),  # under-confident
        (150, 200, 0.80, None),
    ],
)  # fmt: skip
def test_an_accuracy_far_below_the_confidence_is_unsound(right, n, confidence, level):
    audit = labelled(AUDIT, right=right, n=n, chance=0.1, confidence=confidence)
    gap = found(audit).get("confidence-gap")
    assert (gap and gap.level) == level
    assert judge(audit).verdict == ("inconclusive" if level == "error" else "measured")


# What is missing.


@pytest.mark.parametrize(
    ("measured", "skipped", "asked", "level"),
    [(95, 5, None, "warning"), (80, 20, None, "error"), (64, 5, 64, "warning"), (50, 14, 64, "error"), (64, 40, 64, "error")],
)
def test_many_skipped_samples_make_an_audit_unsound(measured, skipped, asked, level):
    audit = make_audit(measured)
    gone = tuple(Skipped(1000 + i, "the output is not finite") for i in range(skipped))
    audit = replace(audit, skipped=gone, settings=replace(audit.settings, samples=asked))
    assert found(audit)["skipped-samples"].level == level


def test_what_is_missing_in_two_ways_is_added_up():
    audit = with_nulls(make_audit(94), share=0.06)
    audit = replace(audit, skipped=tuple(Skipped(1000 + i, "not finite") for i in range(6)))
    assert {found(audit)[name].level for name in ("unresolved", "skipped-samples")} == {"error"}


@pytest.mark.parametrize("name", ["partial", "synthetic-data"])
def test_unfinished_and_made_up_audits_are_inconclusive(name):
    audit = make_audit(100)
    if name == "partial":
        audit = replace(audit, run=replace(audit.run, partial=True))
    else:
        audit = replace(audit, data=replace(audit.data, synthetic=True))
    assert found(audit)[name].level == "error"
    assert judge(audit).verdict == "inconclusive"


# Inputs in other units.

SCALED = ScalingCheck(
    tried=9, samples=200, change="The data look like A, the model wants B", options="--mean 1", accuracy=0.45,
    accuracy_changed=0.92, log_loss=3.4, log_loss_changed=0.3, gained=100, lost=4, p=1e-20, margin=3.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "error"),
        ({"accuracy": 0.83, "p": 0.02}, "error"),  # the likelihood alone: a tenth of the loss is left
        ({"accuracy": 0.83, "p": 0.02, "log_loss": 0.5}, None),
        ({"accuracy": 0.755, "accuracy_changed": 0.85, "log_loss": 0.8, "log_loss_changed": 0.64, "p": 0.0004}, None),
        ({"accuracy": 0.74, "accuracy_changed": 0.85, "log_loss": 0.8, "log_loss_changed": 0.64, "p": 0.0004}, None),
        ({"accuracy": 0.7, "accuracy_changed": 0.85, "log_loss": 0.8, "log_loss_changed": 0.64, "p": 0.0004}, "error"),
        ({"accuracy": 0.93, "log_loss": 4.0, "p": 1.0}, "error"),
        ({"accuracy": 0.99, "log_loss": 4.0, "p": 1.0}, None),  # a change that costs accuracy is none
        ({"samples": 24, "accuracy": 0.9, "log_loss": 0.4, "log_loss_changed": 0.1, "p": 1.0}, None),  # ten nats are few
        ({"change": None, "contradiction": "it takes 0 to 255"}, "error"),
        ({"change": None, "margin": 60.0}, "warning"),
        ({"change": None, "margin": 600.0}, "error"),
        ({"change": None, "margin": 14.0}, None),
    ],
)
def test_inputs_in_other_units(changes, level):
    data = replace(AUDIT.data, scaling=replace(SCALED, **changes))
    calibration = replace(AUDIT.calibration, accuracy=0.45, mean_confidence=0.45)
    finding = found(AUDIT, data=data, calibration=calibration).get("input-scaling")
    assert (finding and finding.level) == level


def test_the_cause_and_the_right_scaling_are_named():
    message = found(AUDIT, data=replace(AUDIT.data, scaling=SCALED))["input-scaling"].message
    assert message.startswith(
        "The data look like A, the model wants B: so changed, 92.0% of 200 samples are right instead of 45.0%"
    )
    assert message.endswith("Use --mean 1.")


def test_labels_that_fit_weigh_more_than_what_the_graph_says():
    data = replace(AUDIT.data, scaling=ScalingCheck(0, 0, contradiction="it takes 0 to 255"))
    assert found(AUDIT, data=data)["input-scaling"].level == "warning"
    unlabelled = replace(AUDIT.calibration, accuracy=None)
    assert found(AUDIT, data=data, calibration=unlabelled)["input-scaling"].level == "error"


@pytest.mark.parametrize(("n", "told"), [(1, True), (5, True), (6, False), (100, False)])
def test_samples_too_few_for_any_statistic(n, told):
    finding = found(make_audit(n)).get("few-samples")
    assert (finding is not None and finding.level == "error") == told


def test_a_temperature_that_rests_on_few_errors():
    calibration = replace(AUDIT.calibration, temperature=1.1, errors=2, log_error=0.3, method="MAP, ln T ~ N(0, 1)")
    message = found(AUDIT, calibration=calibration)["temperature-few-errors"].message
    assert "rests on 2 wrong predictions" in message
    assert "factor of 1.8" in message
    assert "temperature-few-errors" not in found(AUDIT, calibration=replace(calibration, errors=9, method="maximum likelihood"))


def with_guessed(audit, accuracies, count=10, guessed=True):
    rows = tuple(replace(audit.classes[0], index=i, name=n, count=count, accuracy=a) for i, (n, a) in enumerate(accuracies.items()))
    return replace(audit, classes=rows, data=replace(audit.data, class_names=tuple(accuracies), classes_guessed=guessed))


@pytest.mark.parametrize(
    ("accuracies", "count", "guessed", "there"),
    [
        ({"ant": 0.1, "bee": 0.9}, 10, True, True),
        ({"ant": 0.9, "bee": 0.8}, 10, True, False),
        ({"ant": 0.1, "bee": 0.9}, 10, False, False),
        ({"ant": 1.0, "bee": 1.0}, 2, True, True),
    ],
    ids=["a class elsewhere", "each in its place", "given", "too few to tell"],
)
def test_a_guessed_order_of_classes(accuracies, count, guessed, there):
    finding = found(with_guessed(AUDIT, accuracies, count, guessed)).get("class-order")
    assert (finding is not None) == there
    if there:
        assert finding.level == "warning"
        assert re.search(r"\(ant, bee\).*--class-names", finding.message)


def test_an_accuracy_near_chance_names_a_guessed_order():
    audit = with_guessed(replace(AUDIT, calibration=replace(AUDIT.calibration, accuracy=0.1)), {"ant": 0.1})
    assert "--class-names" in found(audit)["accuracy-near-chance"].message
    assert (
        "--class-names"
        not in found(replace(audit, data=replace(audit.data, classes_guessed=False)))["accuracy-near-chance"].message
    )
