"""Every format says which report it is; what its author wrote is inert in each."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import pytest

from onnxfim.record.identity import Identity
from onnxfim.report.comparison_html import render_comparison_html
from onnxfim.report.comparison_markdown import render_comparison_markdown
from onnxfim.report.formats import FORMATS
from onnxfim.report.identity_words import (
    changed_settings,
    command_text,
    date_text,
    identity_facts,
    identity_line,
    identity_properties,
)
from onnxfim.report.without_audit import STANDS, WithoutAudit
from onnxfim.verdict.compare import compare
from tests.support.audits import HOSTILE, IDENTITY, make_audit
from tests.support.hostile import FORBIDDEN, TRICKS
from tests.support.pages import foreign_scripts, read

TOLD = replace(IDENTITY, command=("onnxfim", "audit", "m.onnx", "--fail-on", "a > 1"), host="bench-3")
COMMAND = "onnxfim audit m.onnx --fail-on 'a > 1'"


def audit_told(**changes):
    audit = make_audit(3)
    settings = replace(audit.settings, seed=7, providers=("cuda", "cpu"))
    return replace(audit, identity=replace(TOLD, **changes), settings=settings)


def html_text(text):
    return unescape(text).replace("&#8203;", "")


@pytest.mark.parametrize("name", ["html", "json", "csv", "junit", "sarif", "markdown"])
def test_a_whole_format_says_all(name):
    audit = audit_told()
    text = html_text(FORMATS[name](audit))
    for told in (TOLD.report_id, TOLD.title, TOLD.note, "vision team", "V-12", "bench-3"):
        assert told in text, told
    assert ("2026-06-01T09:30:00Z" in text) or ("2026-06-01 09:30:00 UTC" in text)
    assert COMMAND in text or '"a > 1"' in text
    assert all(version in text for version in audit.run.versions.values())


def test_a_comment_ends_with_it():
    *_, last = FORMATS["comment"](audit_told()).strip().splitlines()
    assert last.startswith("Digits, release 1.4 · `report 5d41c0aa91be · 2026-06-01 09:30:00 UTC · ")


def test_a_full_comment_has_its_last_line_too():
    audit = audit_told()
    findings = tuple(replace(audit.findings[0], message="long " * 400) for _ in range(200))
    *_, last = FORMATS["comment"](replace(audit, findings=findings)).strip().splitlines()
    assert "report 5d41c0aa91be" in last


def test_junit_dates_its_suite():
    suite = ElementTree.fromstring(FORMATS["junit"](audit_told())).find("testsuite")
    assert (suite.get("timestamp"), suite.get("hostname")) == ("2026-06-01T09:30:00Z", "bench-3")
    told = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert told["command"] == COMMAND
    assert (told["meta.owner"], told["setting.seed"], told["setting.providers"]) == ("vision team", "7", "cuda,cpu")


def test_csv_has_it_on_every_row():
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](audit_told()))))
    assert {r["report_id"] for r in rows} == {TOLD.report_id}
    assert (rows[0]["date"], rows[0]["meta"]) == ("2026-06-01T09:30:00Z", "owner=vision team; ticket=V-12")
    assert rows[0]["settings"] == "seed=7; providers=cuda,cpu"
    assert rows[-1]["command"] == COMMAND


def run_of(audit):
    return json.loads(FORMATS["sarif"](audit))["runs"][0]


def test_sarif_tells_who_ran_it():
    run = run_of(audit_told())
    (invocation,) = run["invocations"]
    assert invocation["arguments"] == list(TOLD.command[1:])
    assert (invocation["machine"], invocation["endTimeUtc"]) == ("bench-3", "2026-06-01T09:30:00Z")
    assert run["automationDetails"]["id"] == "onnxfim/digits_resnet"


def test_sarif_runs_of_one_ask_go_together():
    first, later = (run_of(audit_told(date=date))["automationDetails"] for date in ("2026-06-01T09:30:00Z", "2026-06-02T09:30:00Z"))
    other = run_of(audit_told(report_id="ab"))["automationDetails"]
    assert first["correlationGuid"] == later["correlationGuid"] != other["correlationGuid"]
    assert first["guid"] != later["guid"]


def test_comparisons_say_it_too():
    found = compare([make_audit(30), make_audit(30, seed=1)])
    assert found.identity.date == "2023-11-14T22:13:20Z"
    assert len(found.identity.report_id) == 64
    found = replace(found, identity=replace(TOLD, report_id=found.identity.report_id))
    for text in (
        html_text(render_comparison_html(found)),
        render_comparison_markdown(found).replace("<!-- -->", ""),
        found.to_json(),
    ):
        assert found.identity.report_id in text
        assert TOLD.title in text
        assert TOLD.note in text
        assert COMMAND in text or '"a > 1"' in text


def test_a_comparison_with_an_older_file_has_no_id():
    found = compare([make_audit(30), replace(make_audit(30, seed=1), identity=None)])
    assert found.identity.report_id == ""
    assert ("Report id", "not recorded") in identity_facts(found.identity)


def test_facts_of_the_author_are_told_whatever_their_names_are():
    whose = replace(TOLD, meta=(("Command", "make nightly"), ("Report id", "seventeen")))
    audit = replace(make_audit(3), identity=whose)
    for text in (FORMATS["markdown"](audit), STANDS["markdown"].render(WithoutAudit("no file.", "no.onnx", 2, whose))):
        assert "make nightly" in text
        assert "seventeen" in text


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_an_older_file_is_rendered(name):
    assert FORMATS[name](replace(make_audit(3), identity=None))


@pytest.mark.parametrize("text", [*HOSTILE, *TRICKS.values()])
def test_what_is_foreign_is_visible(text):
    identity = Identity("ab", text, (text,), text, text, ((text, text),), text)
    shown = [c for pair in (*identity_facts(identity), *identity_properties(identity)) for part in pair for c in part]
    shown += identity_line(identity, {"onnxfim": text})
    assert not FORBIDDEN & set(shown)


@pytest.mark.parametrize("text", [*HOSTILE, "=cmd|' /C calc'!A0"])
def test_html_and_csv_are_inert(text):
    audit = replace(make_audit(3), identity=Identity("ab", text, (text,), text, text, ((text, text),), text))
    html = FORMATS["html"](audit)
    assert html.count("<script") == html.count("<script>/* Sorts") == 1  # the page's own
    page = read(html)
    assert (page.problems, foreign_scripts(page.elements)) == ([], [])
    assert not [name for e in page.elements for name in e.attributes if name.startswith("on")]
    for row in csv.DictReader(io.StringIO(FORMATS["csv"](audit))):
        assert not any(row[c].startswith(("=", "+", "-", "@")) for c in ("date", "title", "note", "meta", "host", "command"))


def test_a_date_in_print():
    assert date_text(Identity("", "2026-06-01T09:30:00Z")) == "2026-06-01 09:30:00 UTC"
    assert date_text(Identity("", "some day")) == "some day"
    assert date_text(Identity("")) == ""


def test_a_command_is_quoted():
    assert command_text(Identity("", command=("onnxfim", "a b", "c'd"))) == "onnxfim 'a b' 'c'\"'\"'d'"


def test_settings_at_their_defaults_are_not_told():
    assert list(changed_settings(make_audit(3).settings)) == []
    assert list(changed_settings(audit_told().settings)) == [("seed", "7"), ("providers", "cuda,cpu")]
