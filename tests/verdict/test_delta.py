"""What deployment changed, from two audits whose differences are known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.errors import SettingsError
from onnxfim.record.decision import Aggregate
from onnxfim.record.deployment import Attribution, Carrier, MovedOutput, NotRestored
from onnxfim.report.comparison_html import render_comparison_html
from onnxfim.report.comparison_markdown import render_comparison_markdown
from onnxfim.report.delta_words import attribution_words, headline
from onnxfim.verdict.compare import compare
from onnxfim.verdict.delta_gates import decide_delta, parse_delta_gate
from tests.support.audits import HOSTILE, hostile, make_audit, with_flips
from tests.support.pages import foreign_scripts, read
from tests.support.small_audits import with_values


def pair(n=120, factor=1.5, spread=0.1):
    """A trained audit and a deployed one whose sensitivity is ``factor`` times as large on average."""
    audit = with_flips(make_audit(n))
    rng = np.random.default_rng(0)
    values = np.array([s.lambda_max.value for s in audit.samples])
    other = with_values(audit, factor * values * np.exp(rng.normal(0, spread, n)), measure="lambda_max")
    return audit, replace(other, model=replace(other.model, name="deployed", sha256="1" * 64))


def turned(audit, k):
    """The audit with other predictions on its first k samples."""
    samples = tuple(
        replace(s, prediction=(s.prediction + 1) % 10) if i < k else s for i, s in enumerate(audit.samples)
    )  # fmt: skip
    return replace(audit, samples=samples)


def test_the_ratio_is_the_planted_one():
    found = compare(pair()).deployment.sensitivity_raw
    assert found.change.low < 1.5 < found.change.high
    assert_allclose(found.change.value, 1.5, rtol=0.05)
    assert (found.reading, found.count) == ("rose", 120)
    assert found.rose.value > 0.95
    assert found.p < 1e-6


def test_outcomes_and_agreement_are_counted():
    first, second = pair()
    found = compare([first, turned(second, 6)]).deployment
    assert (found.agreement.change.value, found.agreement.count) == (1 - 6 / 120, 120)
    assert sum(f.count for f in found.flips) == 6
    o = found.outcomes
    right = [sum(s.prediction == s.label for s in a.samples) for a in (first, turned(second, 6))]
    assert (o.both_right + o.only_first, o.both_right + o.only_second) == tuple(right)
    assert_allclose(found.accuracy.change.value, (right[1] - right[0]) / 120)


def test_outputs_serve_where_they_are_at_hand():
    outputs = [MovedOutput(i, "", i % 3, i % 3, i % 3 if i else 2, 0.01 * (i == 7), 0.0 if i != 7 else 2e-4) for i in range(300)]
    found = compare(pair(), outputs=outputs, evaluations=600).deployment
    assert (found.accuracy.count, found.evaluations) == (300, 600)
    assert (found.outcomes.only_first, found.outcomes.only_second) == (1, 0)
    assert found.moved[0].index == 7
    assert_allclose(found.divergence.change.value, 0.01 / 300)
    assert found.flips[0].of == 100


def test_saved_audits_say_that_they_hold_no_outputs():
    found = compare(pair()).deployment
    assert "saved audits hold no outputs" in found.divergence.reason
    assert found.divergence.change.value is None


def test_one_model_twice_is_identical():
    audit = with_flips(make_audit(40))
    found = compare([audit, audit]).deployment
    assert found.identical
    assert {found.accuracy.reading, found.agreement.reading, found.sensitivity.reading, found.flip_radius.reading} == {"identical"}
    assert headline(found).startswith("Identical: ")


def test_another_provider_is_named_and_never_identical():
    audit = make_audit(40)
    other = replace(audit, run=replace(audit.run, provider="OpenVINOExecutionProvider"))
    result = compare([audit, other])
    assert [e.name for e in result.entries] == ["digits_resnet on CPU", "digits_resnet on OpenVINO"]
    assert not result.deployment.identical


def test_three_models_are_no_deployment():
    audit = make_audit(20)
    assert compare([audit] * 3).deployment is None


def test_radii_of_other_directions_are_not_compared():
    first, second = pair()
    method = "gradient" if first.run.method == "sketch" else "sketch"
    found = compare([first, replace(second, run=replace(second.run, method=method))]).deployment.flip_radius
    assert found.change.value is None
    assert "looked for along other directions" in found.reason


def test_without_labels_there_is_no_accuracy():
    audit = make_audit(30, labels=False)
    found = compare([audit, audit]).deployment
    assert found.accuracy.reason == "no labels were given"
    assert found.outcomes is None
    assert found.agreement.change.value == 1


def test_bounds_have_no_ratio():
    first, second = pair(30)
    bound = replace(second, samples=tuple(
        replace(s, lambda_max=replace(s.lambda_max, kind="lower bound")) for s in second.samples
    ))  # fmt: skip
    assert "bounds, not estimates" in compare([first, bound]).deployment.sensitivity_raw.reason


def carrier(node, alone):
    a = Aggregate(alone, alone / 2, 2 * alone, 0.95, "planted")
    return Carrier(node, "Conv", "twin", "weights", a, Aggregate(0.1, 0.0, 0.2), Aggregate(0.01, 0.0, 0.02), None, 0.3, 100)


def attributed(nodes=("conv_1", "conv_2")):
    found = tuple(carrier(n, 0.09 / (k + 1)) for k, n in enumerate(nodes))
    a = Aggregate(0.16, 0.1, 0.2)
    return Attribution(
        found, (NotRestored("x", "LSTM", "no twin"),), a, a, Aggregate(0.0, 0.0, 0.0), 16, 16, 0.1, 0.2, "dithered", 9
    )


def with_attribution(result, attribution):
    return replace(result, deployment=replace(result.deployment, attribution=attribution))


def test_every_format_tells_the_change():
    result = with_attribution(compare(pair()), attributed())
    d = json.loads(result.to_json())["deployment"]
    assert d["sensitivity_raw"]["reading"] == "rose"
    assert [n["node"] for n in d["attribution"]["nodes"]] == ["conv_1", "conv_2"]
    html = render_comparison_html(result)
    page = read(html)
    assert not page.problems
    text = next(e.text for e in page.elements if e.tag == "main")
    markdown = render_comparison_markdown(result).replace("\\", "")
    for told in ("What did deployment change?", "no change shown", "conv_1", "30.0"):
        assert told in text, told
        assert told in markdown, told
    assert text.index("What did deployment change?") < text.index("Which is the most robust?")


def test_a_node_is_told_with_its_part():
    assert attribution_words(attributed()).startswith("conv_1 (Conv) alone changes the scores by 30.0")


def test_hostile_names_stay_inert():
    first, second = hostile(make_audit(30)), hostile(make_audit(30))
    result = with_attribution(compare([first, second]), attributed(tuple(HOSTILE)[:3]))
    page = read(render_comparison_html(result))
    assert not page.problems
    assert foreign_scripts(page.elements) == []
    assert {"img", "b"}.isdisjoint(e.tag for e in page.elements)
    assert not any(text in render_comparison_markdown(result) for text in HOSTILE if "<" in text)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("sensitivity_ratio > 1.2", "fail"), ("sensitivity_ratio > 2", "pass"), ("sensitivity_ratio > 1.5", "inconclusive"),
        ("agreement < 90%", "pass"), ("accuracy_change < -50%", "pass"), ("flip_radius_ratio < 0.5", "pass"),
    ],
)  # fmt: skip
def test_gates_are_decided_on_the_interval(text, verdict):
    found = compare(pair()).deployment
    raw = replace(found, sensitivity=replace(found.sensitivity, change=Aggregate(None, None, None, 0.0)))
    (gate,) = decide_delta(raw, [parse_delta_gate(text)])
    assert gate.verdict == verdict
    assert (gate.advice is None) == (verdict != "inconclusive")


def test_a_gate_on_what_was_not_compared_is_undecided():
    audit = make_audit(30, labels=False)
    (gate,) = decide_delta(compare([audit, audit]).deployment, [parse_delta_gate("accuracy_change < -1%")])
    assert gate.verdict == "inconclusive"
    assert "no labels were given" in gate.comparison


def test_an_unknown_gate_names_the_nearest():
    with pytest.raises(SettingsError, match=r"'sensitivity' is no measure\. The nearest name is 'sensitivity_ratio'"):
        parse_delta_gate("sensitivity > 2")
