"""An audit that measured nothing: every format and the exit code say the same."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from onnxfim.auditing.run import audit
from onnxfim.auditing.subject import from_callable
from onnxfim.cli.gating import exit_code
from onnxfim.record.settings import Settings
from onnxfim.report.formats import FORMATS
from onnxfim.verdict import judge, parse_gate
from tests.support.audits import make_audit, with_nulls


def unmeasurable():
    """An audit of a function that is finite at the samples and nowhere else: all are skipped."""
    X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    weights = np.random.default_rng(1).standard_normal((4, 3))
    y = (X @ weights).argmax(axis=1)  # nothing else is wrong with it
    known = {x.tobytes() for x in X}

    def model(rows):
        outputs = rows @ weights
        outputs[[r.tobytes() not in known for r in np.asarray(rows, np.float32)]] = np.nan
        return outputs

    settings = Settings(method="sketch", step=0.01, scheme="central", output_kind="logits", bounds=False)
    return audit(from_callable(model, (4,), 3), X, y, settings)


AUDITS = {
    "skipped": lambda: judge(unmeasurable()),
    "skipped, gate failed": lambda: judge(unmeasurable(), [parse_gate("temperature > 0"), parse_gate("findings.warning")]),
    "no values": lambda: judge(with_nulls(make_audit(5))),
    "no values, gate failed": lambda: judge(with_nulls(make_audit(5)), [parse_gate("temperature > 1e-9")]),
    "empty": lambda: judge(replace(make_audit(3), samples=(), aggregates={}, classes=(), thumbnails=())),
}


@pytest.fixture(params=sorted(AUDITS), scope="module")
def nothing(request):
    return AUDITS[request.param]()


def test_the_record_says_inconclusive_and_why(nothing):
    assert nothing.measured == 0
    assert nothing.verdict == "inconclusive"
    (finding,) = [f for f in nothing.findings if f.id == "nothing-measured"]
    assert finding.level == "error"
    assert "says nothing about the model" in finding.message


def test_json(nothing):
    record = json.loads(FORMATS["json"](nothing))
    assert record["verdict"] == "inconclusive"
    assert "nothing-measured" in {f["id"] for f in record["findings"]}


def test_html(nothing):
    text = FORMATS["html"](nothing)
    assert re.search(r'<h2 id="verdict-word">\s*Inconclusive', text)
    assert "Nothing was measured" in text
    assert "No check failed" not in text


def test_junit(nothing):
    cases = {c.get("name"): c for c in ElementTree.fromstring(FORMATS["junit"](nothing)).iter("testcase")}
    assert cases["verdict"].find("skipped").get("message").startswith("inconclusive: Nothing was measured")
    assert cases["nothing-measured"].find("error") is not None


def test_sarif(nothing):
    (run,) = json.loads(FORMATS["sarif"](nothing))["runs"]
    assert run["properties"]["verdict"] == "inconclusive"
    (result,) = [r for r in run["results"] if r["ruleId"] == "nothing-measured"]
    assert result["level"] == "error"


@pytest.mark.parametrize("name", ["markdown", "comment"])
def test_markdown(nothing, name):
    text = FORMATS[name](nothing)
    assert re.search(r"^## .*onnxfim: inconclusive", text, re.MULTILINE)
    assert "Nothing was measured" in text
    assert "No check failed" not in text


def test_csv(nothing):
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](nothing))))
    assert len(rows) == len(nothing.samples) + len(nothing.skipped)
    assert {r["verdict"] for r in rows} <= {"inconclusive"}


@pytest.mark.parametrize("allow", [False, True])
def test_the_exit_code(nothing, allow):
    assert exit_code(nothing, allow_inconclusive=allow, exit_zero=True) == 3
