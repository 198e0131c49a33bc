"""A model card's metrics, as Hugging Face's own classes read them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from onnxfim.report.human import robustness_of
from onnxfim.report.model_card import model_index, render_model_card, render_section
from onnxfim.report.numbers import number
from tests.support.audits import make_attack, make_audit, with_flips
from tests.support.places import DEV

hub = DEV.load("huggingface_hub")
yaml = DEV.load("yaml")


def head(text):
    return text.split("---\n")[1]


def test_the_hubs_own_classes_read_it(audit):
    text = render_model_card(audit)
    assert yaml.safe_load(head(text)) == {"model-index": json.loads(json.dumps(model_index(audit)))}
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    card = hub.ModelCard(text)
    assert len(card.data.eval_results) == len(model_index(audit)[0]["results"][0]["metrics"])
    assert eval_results_to_model_index(*model_index_to_eval_results(model_index(audit))) == model_index(audit)
    for result in card.data.eval_results:
        assert math.isfinite(result.metric_value)
        assert result.metric_name


def test_it_tells_the_numbers_with_their_ends_and_kinds():
    audit = make_audit(40)
    metrics = {m["name"]: m for m in model_index(audit)[0]["results"][0]["metrics"]}
    mean = metrics["Mean λ_max, calibrated"]
    found = audit.aggregates["lambda_max_calibrated"].mean
    assert (mean["value"], mean["args"]["low"], mean["args"]["high"]) == (found.value, found.low, found.high)
    assert mean["args"]["kind"] in {s.lambda_max_calibrated.kind for s in audit.samples}
    assert metrics["Clean accuracy"]["value"] == audit.calibration.accuracy


def test_accuracy_under_attack_is_no_clean_one():
    audit = replace(make_audit(20), attack=make_attack(20))
    names = {m["name"]: m for m in model_index(audit)[0]["results"][0]["metrics"]}
    assert names["Accuracy under attack"]["value"] == audit.attack.robust_accuracy
    assert names["Accuracy under attack"]["args"]["epsilon"] == audit.attack.epsilon


def test_what_the_user_says_stands_there():
    found = model_index(
        make_audit(5), name="me/model", task="tabular-classification", dataset="cifar10", dataset_name="CIFAR-10", split="test"
    )
    assert found[0]["name"] == "me/model"
    result = found[0]["results"][0]
    assert (result["task"]["type"], result["dataset"]) == (
        "tabular-classification",
        {"type": "cifar10", "name": "CIFAR-10", "split": "test"},
    )


@pytest.mark.parametrize(
    ("shape", "task"), [((1, 8, 8), "image-classification"), ((4,), "tabular-classification"), ((100, 12), "other")]
)
def test_the_task_by_the_inputs(shape, task):
    audit = make_audit(5)
    assert model_index(replace(audit, data=replace(audit.data, shape=shape)))[0]["results"][0]["task"]["type"] == task


@pytest.mark.parametrize("value", [1e-35, 1e22, 0.1, 1.0, 123456.789, -2.5e-7])
def test_numbers_are_numbers_to_every_yaml(value):
    from onnxfim.report.model_card import _scalar

    assert yaml.safe_load(f"a: {_scalar(value)}") == {"a": value}


def test_the_change_that_flips_half_is_that_of_the_sentence_above():
    audit = with_flips(make_audit(40))
    half = robustness_of(audit).curve("flip_radius").reached[1]
    (metric,) = [m for m in model_index(audit)[0]["results"][0]["metrics"] if m["args"].get("statistic") == "50% flipped"]
    assert (metric["type"], metric["value"], metric["args"]["kind"]) == ("flip_radius", half.epsilon, "upper bound")
    text = render_section(audit)
    assert f"| Change that flips 50 % | {number(half.epsilon)} |" in text
    assert f"A change of ε = {number(half.epsilon)} " in text


def test_the_version_is_the_one_that_measured():
    audit = make_audit(5)
    older = replace(audit, run=replace(audit.run, versions={**audit.run.versions, "onnxfim": "0.0.7"}))
    assert "Audited with onnxfim 0.0.7:" in render_section(older)


def test_an_interval_of_another_level_says_so():
    audit = make_audit(6)
    group = audit.aggregates["lambda_max"]
    audit = replace(audit, aggregates={**audit.aggregates, "lambda_max": replace(group, mean=replace(group.mean, confidence=0.9))})
    row = next(line for line in render_section(audit).splitlines() if line.startswith("| Mean λ_max, raw |"))
    assert f"{number(group.mean.low)} to {number(group.mean.high)} (90\u00a0%) |" in row
    whole = replace(audit, aggregates={**audit.aggregates, "lambda_max": replace(group, mean=replace(group.mean, confidence=0.95))})
    row = next(line for line in render_section(whole).splitlines() if line.startswith("| Mean λ_max, raw |"))
    assert f"{number(group.mean.low)} to {number(group.mean.high)} |" in row
