"""Gates in words: as typed, at few digits, and never against their own verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxfim.record.decision import Aggregate, GateResult
from onnxfim.report.formats import FORMATS
from onnxfim.report.gate_words import baseline_words, gate_words, units_of, value_words
from onnxfim.verdict import judge, parse_gate
from tests.support.audits import make_audit


def result(text, value, low=None, high=None, verdict="fail", advice=None):
    gate = parse_gate(text)
    return GateResult(gate.text, gate.name, gate.operator, gate.threshold, value, low, high, verdict, "unrounded", advice)


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (result("clean_accuracy < 90 %", 0.98765432, 0.97, 0.995, "pass"), "98.8\u00a0% (95 % interval 97.0\u00a0% to 99.5\u00a0%)"),
        (result("clean_accuracy < 0.9", 1.0, 0.9, 1.0, "pass"), "100\u00a0% (95 % interval 90.0\u00a0% to 100\u00a0%)"),
        (result("lambda_max.p95 > 12.5", 36.93412345678, 1.8212345), "36.9 (95 %: at least 1.82)"),
        (result("lambda_max.p95 > 12.5", 36.93412345678, None, 40.0), "36.9 (95 %: at most 40.0)"),
        (result("lambda_max.mean > 12.5", 36.9), "36.9 (no interval)"),
        (result("findings.error", 2.0, 2.0, 2.0), "2"),
        (result("temperature > 2", None), "not measured"),
        (result("flip_radius.median < 0.1", None, 0.3, None, "pass"), "beyond all that was found (95 %: at least 0.300), of the smallest found, an upper bound of each"),
    ],
)  # fmt: skip
def test_values_are_printed_as_people_write_them(gate, words):
    assert value_words(gate) == words
    assert gate_words(gate) == f"{gate.text}: {words}"


def test_a_value_beside_its_threshold_has_the_digits_that_tell_them_apart():
    assert (
        value_words(result("lambda_max.mean > 12.5", 12.500004, 12.500002, 12.6))
        == "12.500004 (95 % interval 12.500002 to 12.600000)"
    )
    assert value_words(result("clean_accuracy < 90 %", 0.90004, 0.8, 0.95)).startswith("90.004\u00a0%")
    assert value_words(result("lambda_max.mean > 12.5", 12.5, 12.5, 12.5)) == "12.5"  # equal, and printed so


@given(st.floats(1e-6, 1e6), st.floats(-1e-9, 1e-9), st.sampled_from([">", "<", ">=", "<="]))
def test_no_line_contradicts_its_verdict(threshold, apart, operator):
    value = threshold * (1 + apart)
    text = value_words(result(f"lambda_max.mean {operator} {threshold!r}", value, value, value)).replace(",", "").replace("−", "-")
    mantissa, _, exponent = text.partition("×10")
    shown = float(mantissa) * 10.0 ** int(exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
    if value != threshold and exponent == "":
        assert (shown > threshold) == (value > threshold)


def test_advice_follows():
    gate = result("lambda_max.p95 > 12.5", 36.9, 1.82, None, "inconclusive", "About 65 more samples would settle it.")
    assert (
        gate_words(gate, "nats") == "lambda_max.p95 > 12.5: 36.9 (95 %: at least 1.82) nats. About 65 more samples would settle it."
    )


def test_units_are_those_of_the_measure():
    audit = make_audit(20)
    assert units_of(audit, "boundary_distance.median") == audit.aggregates["boundary_distance"].units
    assert units_of(audit, "clean_accuracy") == units_of(audit, "findings.error") == ""


@pytest.mark.parametrize("name", ["junit", "sarif", "markdown", "comment", "html"])
def test_no_format_prints_sixteen_digits_and_json_keeps_them(name):
    audit = judge(make_audit(100), [parse_gate("lambda_max.p95 > 1e9"), parse_gate("clean_accuracy < 90 %")])
    value = repr(audit.gates[0].value)
    assert len(value) > 12
    part = FORMATS[name](audit)
    if name == "junit":
        part = part[part.index("onnxfim.gates") :]  # numbers in full stand among the properties, for programs
    if name in ("sarif", "html"):
        part = part[: part.index('"properties"')] if name == "sarif" else part
    assert value not in part
    assert "90 %" in part or name == "sarif"  # passed gates are no results of SARIF
    assert value in FORMATS["json"](audit)


def test_a_baseline_is_told_with_its_ratio_and_limit():
    audit = make_audit(30)
    c = judge(audit, baseline=audit).comparison
    near = Aggregate(1.1000004, 1.1000002, 1.2)
    words = baseline_words(replace(c, ratio_here=near, advice="Move the limit."))
    assert (
        "ratio 1.1000004 (95 % interval 1.1000002 to 1.2000000, on these samples), at most 1.1 is allowed. Move the limit." in words
    )
