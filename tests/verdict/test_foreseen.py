"""What is said of a gate before the audit: held against what the audit then decides."""

from __future__ import annotations

import pytest

from onnxfim.record.statistics import binomial_at_most, wilson
from onnxfim.verdict import decide, parse_gate
from onnxfim.verdict.foreseen import Planned, obstacle
from tests.support.audits import make_audit


def said(text, samples=100, **planned):
    return obstacle(parse_gate(text), Planned(samples, **{"labelled": samples, **planned}))


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 60, 71, 72, 100])
@pytest.mark.parametrize("statistic", ["median", "p95"])
@pytest.mark.parametrize("operator", [">", "<"])
def test_it_foresees_what_the_audit_decides(n, statistic, operator):
    """With thresholds beyond all values, on either side: what passes, what fails."""
    audit = make_audit(n)
    beyond = {
        "pass": 1e9 if operator == ">" else 1e-30,
        "fail": 1e-30 if operator == ">" else 1e9,
    }
    possible = {
        want
        for want, t in beyond.items()
        if decide(audit, [parse_gate(f"lambda_max.{statistic} {operator} {t}")])[0].verdict == want
    }
    found = said(f"lambda_max.{statistic} {operator} 1", n)
    if found is None:
        assert possible == {"pass", "fail"}
    elif found.never:
        assert possible == set()
    else:
        (missing,) = {"pass", "fail"} - possible
        assert f"cannot {missing} on {n} samples" in found.message


def test_the_number_that_it_names_is_the_least():
    found = said("lambda_max.p95 > 12.5", 60)
    assert not found.never
    assert "upper end from 72 on. Give --samples 72 or more, or gate lambda_max.median instead." in found.message
    # Of 71 samples all may lie under the 95th percentile with more than 2.5 %; of 72 with less: the definition, counted out.
    assert 1 - binomial_at_most(70, 71, 0.95) > 0.025 >= 1 - binomial_at_most(71, 72, 0.95)
    assert said("lambda_max.p95 > 12.5", 72) is None


def test_an_accuracy_that_no_score_could_show():
    found = said("clean_accuracy < 99 %", labelled=100)
    assert (
        "cannot pass on 100 labelled samples: were all of them right, the 95 % interval would still begin at 96.3 %"
        in found.message
    )
    needed = int(found.message.split("Give ")[1].split(" ")[0].replace(",", ""))
    assert wilson(needed, needed)[0] >= 0.99 > wilson(needed - 1, needed - 1)[0]
    assert said("clean_accuracy < 99 %", labelled=needed) is None
    assert said("clean_accuracy > 99 %", labelled=100) is None  # it may fail and pass: an upper end of 1 is no obstacle to failing


@pytest.mark.parametrize(
    ("text", "planned", "message"),
    [
        ("clean_accuracy < 90 %", {"labelled": 0}, "there are no labels"),
        ("temperature > 2", {"labelled": 0}, "there are no labels"),
        ("lambda_max_calibrated.median > 1", {"labelled": 0}, "there are no labels"),
        ("flip_radius.median < 1", {"flips": False}, "--no-flip"),
        ("lambda_max_raw_units.median > 1", {"raw_units": False}, "--mean and --std, or --input-range"),
        ("lambda_max.mean > 1", {"samples": 1}, "Give --samples 2 or more"),
    ],
)
def test_what_never_can_be_decided(text, planned, message):
    found = said(text, **planned)
    assert found.never
    assert message in found.message


def test_a_given_temperature_calibrates_without_labels():
    assert said("lambda_max_calibrated.median > 1", labelled=0, temperature=True) is None
    assert said("clean_accuracy < 90 %", labelled=0, temperature=True).never


@pytest.mark.parametrize("text", ["findings.error", "mean_confidence < 0.5", "lambda_max.geometric_mean > 1", "trace.max > 3"])
def test_nothing_is_said_where_nothing_is_known(text):
    assert said(text, 60) is None
