from dataclasses import replace

import pytest

from onnxfim.report import render_html
from onnxfim.report.gate_words import units_of, value_words
from onnxfim.report.page.gate_section import baseline_view, checks_headline, gate_lines
from onnxfim.verdict import judge, parse_gate
from tests.support.audits import VARIANTS, make_audit
from tests.support.pages import read


def text_of(audit):
    return next(e.text for e in read(render_html(audit)).elements if e.attributes.get("id") == "gates")


def test_every_gate_stands_on_the_page():
    audit = VARIANTS["gated"]()
    text = text_of(audit)
    for gate, line in zip(audit.gates, gate_lines(audit), strict=True):
        assert gate.text in text
        assert value_words(gate, units_of(audit, gate.name)).replace("λ_max", "λmax") in text
        assert line.word.lower() == gate.verdict


def test_the_baseline_says_worse_by_how_much_and_how_sure():
    audit = VARIANTS["gated"]()
    view = baseline_view(audit)
    text = text_of(audit)
    assert view.headline.replace("λ_max", "λmax") in text
    assert all(s.replace("λ_max", "λmax") in text for s in view.sentences)
    assert len(view.movements) == 10


def test_an_audit_without_gates_has_no_such_section():
    page = read(render_html(make_audit(30)))
    assert not any(e.attributes.get("id") == "gates" or e.attributes.get("href") == "#gates" for e in page.elements)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_headline_tells_the_direction(factor):
    audit = make_audit(30)
    sketches = [
        replace(s, lambda_max_calibrated=replace(k, value=factor * k.value))
        for s in audit.samples
        for k in [s.lambda_max_calibrated]
    ]
    view = baseline_view(judge(replace(audit, samples=tuple(sketches)), baseline=audit))
    word = {0.5: "fell by 50.0\u00a0%", 1.0: "is unchanged", 2.0: "rose by 100\u00a0%"}[factor]
    assert word in view.headline


def test_the_page_leads_with_what_decided():
    failed = judge(make_audit(100), [parse_gate("lambda_max.mean > 0"), parse_gate("lambda_max.mean > 1e9")])
    assert checks_headline(failed) == "1 gate failed: lambda_max.mean > 0."
    assert checks_headline(judge(make_audit(100), [parse_gate("lambda_max.mean > 1e9")])) is None
    several = judge(make_audit(100), [parse_gate("lambda_max.mean > 0"), parse_gate("lambda_max.median > 0")])
    assert checks_headline(several) == "2 gates failed: lambda_max.mean > 0; lambda_max.median > 0."
    open_ended = judge(make_audit(30), [parse_gate("lambda_max.p95 > 1e9")])
    assert checks_headline(open_ended) == "1 gate could not be decided: lambda_max.p95 > 1e9."
