"""Every format tells the one verdict of an audit, in its own signs; what was only measured is green in none of them."""

import csv
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from onnxfim.record.decision import Finding
from onnxfim.report.formats import FORMATS
from onnxfim.report.words import answers, headline
from onnxfim.verdict import judge, parse_gate
from tests.support.audits import make_audit
from tests.support.pages import read

PASSES, FAILS, OPEN = (parse_gate(f"lambda_max.{text}") for text in ("mean > 1e9", "mean > 0", "p95 > 1e9"))
SIGNS = {"measured": "ℹ️", "pass": "✅", "fail": "❌", "inconclusive": "⚠️"}


def random_data(audit):
    """The same audit on made-up inputs, which makes it unsound."""
    return replace(audit, data=replace(audit.data, synthetic=True))


AUDITS = {
    "measured": (lambda: judge(make_audit(100)), "measured"),
    "pass": (lambda: judge(make_audit(100), [PASSES]), "pass"),
    "fail": (lambda: judge(make_audit(100), [PASSES, FAILS]), "fail"),
    "undecided": (lambda: judge(make_audit(30), [PASSES, OPEN]), "inconclusive"),
    "own baseline": (lambda: judge(make_audit(100), baseline=make_audit(100)), "pass"),
    "unsound": (lambda: judge(random_data(make_audit(100))), "inconclusive"),
    "unsound, gate passes": (lambda: judge(random_data(make_audit(100)), [PASSES]), "inconclusive"),
    "unsound, gate fails": (lambda: judge(random_data(make_audit(100)), [FAILS]), "fail"),
    "not compared": (lambda: judge(make_audit(100), [PASSES], uncompared=True), "inconclusive"),
}


@pytest.fixture(params=sorted(AUDITS), scope="module")
def judged(request):
    made, verdict = AUDITS[request.param]
    return made(), verdict


def test_the_record(judged):
    audit, verdict = judged
    assert audit.verdict == verdict
    assert json.loads(FORMATS["json"](audit))["verdict"] == verdict


def test_html(judged):
    audit, verdict = judged
    text = FORMATS["html"](audit)
    elements = read(text).elements
    assert next(e for e in elements if e.attributes.get("id") == "verdict-word").text == verdict.capitalize()
    summary = next(e for e in elements if e.attributes.get("id") == "summary")
    assert summary.attributes["class"] == f"verdict {verdict}"
    section = text[text.index('id="summary"') : text.index("</section>", text.index('id="summary"'))]
    assert ("#14693a" in section) == (verdict == "pass")  # the green of a pass


@pytest.mark.parametrize("name", ["markdown", "comment"])
def test_markdown(judged, name):
    audit, verdict = judged
    text = FORMATS[name](audit)
    assert re.search(rf"^## {SIGNS[verdict]} onnxfim: {verdict} ", text, re.MULTILINE)
    assert ("✅" in text) == any(g.verdict == "pass" for g in (*audit.gates, *filter(None, [audit.comparison])))


def test_junit(judged):
    audit, verdict = judged
    suite = ElementTree.fromstring(FORMATS["junit"](audit))
    (case,) = [c for c in suite.iter("testcase") if c.get("name") == "verdict"]
    tag = {"pass": "system-out", "fail": "failure"}.get(verdict, "skipped")
    assert [child.tag for child in case] == [tag]
    if tag == "skipped":
        assert case[0].get("message").startswith(f"{verdict}: ")
    assert {"name": "verdict", "value": verdict} in [p.attrib for p in suite.iter("property")]


def test_sarif(judged):
    audit, verdict = judged
    (run,) = json.loads(FORMATS["sarif"](audit))["runs"]
    assert run["properties"]["verdict"] == verdict


def test_csv(judged):
    audit, verdict = judged
    assert {row["verdict"] for row in csv.DictReader(io.StringIO(FORMATS["csv"](audit)))} == {verdict}


def test_python(judged):
    audit, verdict = judged
    assert f": {verdict};" in repr(audit)


def test_what_is_only_measured_says_that_nothing_was_to_be_passed():
    audit = judge(make_audit(100))
    assert headline(audit).endswith("No gate was set, so this is neither a pass nor a fail.")
    assert "--fail-on" in answers(audit)[-1].text


def test_an_unsound_audit_leads_with_why_and_what_to_do():
    audit = judge(random_data(make_audit(100)), [OPEN])
    assert headline(audit).startswith("These numbers must not be relied on. The inputs are random numbers")
    assert "Pass --data" in headline(audit)
    assert answers(audit)[-1].text.startswith("Mend what the error under Findings names, and audit again.")
    assert "compare models" not in answers(audit)[-1].text
    assert answers(audit)[0].text.startswith("Not known while this audit is unsound.")
    assert answers(audit)[1].text.startswith("Not at all: ")


def test_further_errors_are_counted_and_a_fail_does_not_hide_them():
    two = tuple(Finding(f"f{i}", "error", f"Error {i}.") for i in range(2))
    failed = replace(judge(make_audit(100), [FAILS]), findings=two)
    expected = (
        "1 gate failed: lambda_max.mean > 0. Besides, these numbers must not be relied on. Error 0. (1 more error under Findings.)"
    )
    assert headline(failed) == expected
