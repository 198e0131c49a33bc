"""The dossier: valid by its formats' own libraries, every line points to a value, and foreign text is inert in all of it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import pytest

from onnxfim.auditing.summary import all_aggregates
from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from onnxfim.record.identity import FileDigest
from onnxfim.report.dossier import (
    BOM,
    CONFORMITY,
    CONFORMITY_TEXT,
    NAMES,
    PAGE,
    RECORD,
    STATEMENT,
    SUMS,
    render_dossier,
    write_dossier,
)
from onnxfim.report.dossier.checking import NotOfItsFormat, checked_bom, checked_statement
from onnxfim.report.dossier.conformity import build_conformity_page
from onnxfim.report.dossier.in_toto import RESULTS, statement
from onnxfim.report.dossier.lines import tables
from onnxfim.report.dossier.ml_bom import ml_bom
from onnxfim.report.dossier.unshown import UNSHOWN
from onnxfim.report.numbers import number, percent
from onnxfim.verdict import judge, parse_gate
from onnxfim.verdict.survival import robustness
from tests.support.audits import HOSTILE, IDENTITY, VARIANTS, make_audit, with_bound, with_replay
from tests.support.hostile import ALL, FORBIDDEN
from tests.support.places import DEV
from tests.support.tracing import untraced

FILES = (
    FileDigest("model", "sample_models/digits_resnet.onnx", "a" * 64),
    FileDigest("weights", "sample_models/weights.bin", "b" * 64),
    FileDigest("samples", "sample_models/digits.npz", "c" * 64),
    FileDigest("labels", "labels.npy", "d" * 64),
)


def whole():
    """An audit with all that a dossier tells of."""
    audit = with_bound(with_replay(make_audit(60)))
    audit = replace(audit, identity=replace(IDENTITY, files=FILES))
    return judge(audit, [parse_gate(g) for g in ("clean_accuracy < 10%", "lambda_max.p95 > 1e-9")])


@pytest.fixture(scope="module")
def files():
    return render_dossier(whole())


def test_human_terms_stand_in_lines_and_metrics():
    audit = VARIANTS["flips"]()
    audit = replace(audit, robustness=robustness(audit))
    shares = [line for table in tables(audit) for line in table.lines if line.pointer.endswith("/reached")]
    standing = [c for c in audit.robustness.curves if c.standing]
    assert len(shares) == len(standing) > 1
    metrics = {m["type"]: m for m in ml_bom(audit)["components"][0]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    for line, curve in zip(shares, standing, strict=True):
        half = curve.reached[1]
        assert f"50 % at {number(half.epsilon)}" in line.text
        assert curve.kind in line.text
        found = next(m for what, m in metrics.items() if what.startswith(f"{curve.source}.fallen_50_percent ({curve.kind};"))
        assert float(found["value"]) == half.epsilon
        assert float(found["confidenceInterval"]["upperBound"]) == half.high
    attacked = audit.robustness.curve("attack")
    line = next(line for table in tables(audit) for line in table.lines if line.pointer.endswith("/ladder"))
    for p in attacked.ladder:
        assert f"at most {percent(p.left)}" in line.text
        found = next(
            m for what, m in metrics.items() if what.startswith(f"accuracy_under_attack (share; upper bound, within {p.epsilon:g};")
        )
        assert float(found["value"]) == p.left


def test_lines_do_not_say_more_than_was_measured():
    audit = make_audit(10)
    empty = replace(audit, samples=(), aggregates=all_aggregates((), seed=0), verdict="inconclusive", gates=(), comparison=None)
    empty = replace(empty, settings=replace(empty.settings, attack="l2"), attack=None, robustness=None)
    lines = {line.topic: line for table in tables(empty) for line in table.lines}
    assert lines["Verdict"].state == "in part"
    assert (lines["Method, statistical"].state, lines["Method, statistical"].text.endswith("no sample has a value")) == (
        "in part",
        True,
    )
    assert lines["15(4) Robustness against errors and faults"].text == "Nothing was measured"
    assert "--attack does" not in lines["15(5) Adversarial examples"].text


def test_criteria_are_told_in_few_digits():
    lines = [line for table in tables(whole()) for line in table.lines if line.topic == "Criterion"]
    assert len(lines) == 2
    assert not any(re.search(r"\d\.\d{6}", line.text) for line in lines)


# By the formats' own libraries.


@pytest.mark.slow
def test_every_dossier_is_valid(audit):
    DEV.load("cyclonedx")
    DEV.load("in_toto_attestation")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = render_dossier(audit)
    with untraced():
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(found[BOM]) is None
        read_by_in_toto(found[STATEMENT])
    assert Audit.from_json(found[RECORD]) == audit


def read_by_in_toto(text):
    from google.protobuf import json_format
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    read = Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement()))
    read.validate()
    return read.pb, json_format.ParseDict(json_format.MessageToDict(read.pb.predicate), test_result_pb2.TestResult())


def test_the_statement_as_in_toto_reads_it(files):
    DEV.load("in_toto_attestation")
    read, result = read_by_in_toto(files[STATEMENT])
    assert read.type == "https://in-toto.io/Statement/v1"
    assert read.predicate_type == "https://in-toto.io/attestation/test-result/v0.1"
    assert {s.name: dict(s.digest) for s in read.subject} == {
        **{f.path: {"sha256": f.sha256} for f in FILES},
        "sample_models/digits.npz, as selected": {"onnxfimSamples": make_audit(1).data.sha256},
    }
    assert {c.name: c.digest["sha256"] for c in result.configuration} == {
        name: hashlib.sha256(files[name].encode()).hexdigest() for name in NAMES if name not in (STATEMENT, SUMS)
    }
    assert result.result == "FAILED"
    assert "gate: lambda_max.p95 > 1e-9" in result.failed_tests
    assert "gate: clean_accuracy < 10%" in result.passed_tests


def test_what_does_not_fit_is_refused():
    DEV.load("cyclonedx")
    DEV.load("in_toto_attestation")
    bom = ml_bom(whole())
    bom["components"][0]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["value"] = 1.0
    with pytest.raises(NotOfItsFormat, match=r"the ML-BOM does not fit CycloneDX 1\.6"):
        checked_bom(json.dumps(bom))
    made = statement(whole(), {})
    for change in ({"subject": []}, {"predicateType": ""}, {"predicate": {"result": 1}}, {"more": 1}):
        with pytest.raises(NotOfItsFormat, match="the statement does not fit in-toto"):
            checked_statement(json.dumps({**made, **change}))


def test_without_the_libraries_it_is_written_and_says_so(uninstalled):
    uninstalled("cyclonedx", "in_toto_attestation")
    found = render_dossier(make_audit(3))
    assert "Not held against CycloneDX&#39;s schema here (pip install &#39;onnxfim[dossier]&#39; does)" in found[CONFORMITY]


def test_with_the_libraries_it_says_which(files):
    DEV.load("cyclonedx")
    assert "Held against CycloneDX&#39;s schema by cyclonedx-python-lib 11." in files[CONFORMITY]


# The ML-BOM.


def metrics(bom):
    return {
        (m["type"].split(" ")[0], m["slice"]): m
        for m in bom["components"][0]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    }


def test_the_bom_has_the_numbers_of_the_audit():
    audit = whole()
    found = metrics(ml_bom(audit))
    mean = audit.aggregates["lambda_max"].mean
    one = found["lambda_max.mean", "all 60 samples that have it"]
    assert (float(one["value"]), one["type"]) == (mean.value, f"lambda_max.mean (estimate; {audit.units})")
    assert one["confidenceInterval"] == {"lowerBound": repr(mean.low), "upperBound": repr(mean.high)}
    accuracy = found["clean_accuracy", "all 60 samples"]
    assert float(accuracy["value"]) == audit.calibration.accuracy
    robust = found["robust_accuracy", f"{audit.attack.samples} attacked samples"]
    assert "upper bound" in robust["type"]
    assert float(found["log10_fisher_bound", "any input"]["value"]) == audit.bound.log10_fisher


def test_the_bom_has_the_classes_with_intervals():
    audit = make_audit(300)
    found = metrics(ml_bom(audit))
    for row in audit.classes:
        part = next(p for _, p in found if p.startswith(f"class {row.index} "))
        accuracy = found["accuracy", part]
        low, high = (float(accuracy["confidenceInterval"][end]) for end in ("lowerBound", "upperBound"))
        assert low <= float(accuracy["value"]) <= high
        assert float(accuracy["value"]) == row.accuracy
        mean = found["lambda_max.mean", part]
        assert float(mean["value"]) == pytest.approx(row.lambda_max_mean, rel=1e-12)
        assert "lowerBound" in mean["confidenceInterval"]


def test_an_end_that_is_not_bounded_is_left_out():
    audit = make_audit(20)
    group = audit.aggregates["lambda_max"]
    open_mean = replace(group.mean, high=None, method="carried by few")
    found = metrics(ml_bom(replace(audit, aggregates={"lambda_max": replace(group, mean=open_mean)})))
    assert set(found["lambda_max.mean", "all 20 samples that have it"]["confidenceInterval"]) == {"lowerBound"}


def test_the_bom_knows_its_files_and_tools():
    bom = ml_bom(whole())
    by_ref = {c["bom-ref"]: c for c in bom["components"]}
    assert by_ref["model"]["type"] == "machine-learning-model"
    assert by_ref["model"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert by_ref["weights-0"]["hashes"][0]["content"] == "b" * 64
    assert by_ref["data"]["hashes"][0]["content"] == "c" * 64
    assert by_ref["model"]["modelCard"]["modelParameters"]["datasets"] == [{"ref": "data"}]
    assert {t["name"] for t in bom["metadata"]["tools"]["components"]} == {*whole().run.versions, "onnxfim"}
    assert bom["metadata"]["timestamp"] == IDENTITY.date
    assert bom["metadata"]["component"]["name"] == "Digits, release 1.4"
    limitations = by_ref["model"]["modelCard"]["considerations"]["technicalLimitations"]
    assert all(f"Not shown: {text}" in limitations for text in UNSHOWN)


def test_a_hash_of_no_file_is_not_stated_as_one():
    bom = ml_bom(make_audit(3))
    assert all("hashes" not in c for c in bom["components"])
    subjects = statement(make_audit(3), {})["subject"]
    assert [set(s["digest"]) for s in subjects] == [{"onnxfimModel"}, {"onnxfimSamples"}]


# The statement.


@pytest.mark.parametrize(
    ("gates", "result"),
    [
        ((), "WARNED"),
        (("clean_accuracy < 10%",), "PASSED"),
        (("lambda_max.mean > 1e-9",), "FAILED"),
        (("lambda_max.p95 > {}",), "FAILED"),
    ],
)
def test_its_result_is_green_only_where_a_gate_was_passed(gates, result):
    audit = make_audit(200)
    gates = [g.format(audit.aggregates["lambda_max"].p95.value) for g in gates]
    audit = judge(audit, [parse_gate(g) for g in gates])
    found = statement(audit, {})["predicate"]
    assert found["result"] == RESULTS[audit.verdict] == result
    assert len(found["passedTests"] + found["failedTests"]) > len(gates)
    assert not {*found["passedTests"]} & {*found["failedTests"], *found["warnedTests"]}


# The lines of the standards.


def resolved(record, pointer):
    """What a JSON Pointer (RFC 6901) leads to."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        record = record[int(part)] if isinstance(record, list) else record[part]
    return record


def test_every_line_points_to_a_value(audit):
    record = json.loads(audit.to_json())
    for table in tables(audit):
        for line in table.lines:
            if line.pointer:
                value = resolved(record, line.pointer)
                assert (
                    value not in (None, [])
                    or line.state in ("not in this dossier", "stated", "in part")
                    or line.pointer in ("/findings", "/skipped")
                ), line
            elif not line.anchor:
                assert line.state in ("not in this dossier", "in part"), line


def test_every_link_leads_to_a_section(files):
    page = build_conformity_page(whole(), {name: files[name] for name in (RECORD, PAGE, BOM)})
    anchors = set(re.findall(r'id="([\w-]+)"', files[PAGE]))
    links = {line.link for table in page.tables for line in table.lines if line.link}
    assert len(links) > 8
    for link in links:
        name, _, anchor = link.partition("#")
        assert name == PAGE
        assert anchor in anchors, link


def test_a_section_that_is_not_there_is_no_target(files):
    page = build_conformity_page(whole(), {PAGE: "<main></main>", RECORD: "", BOM: files[BOM]})
    assert {line.link for table in page.tables for line in table.lines} == {"", PAGE}


def test_values_stand_with_kind_and_interval():
    texts = [line.text for table in tables(whole()) for line in table.lines if line.pointer.endswith("/value")]
    assert len(texts) >= 2
    assert all(re.search(r"\((exact|estimate|kinked|upper bound|lower bound); \d+% interval: ", text) for text in texts)


def test_a_statistic_without_an_interval_has_no_level():
    audit = make_audit(20, labels=False)
    group = audit.aggregates["lambda_max"]
    bare = replace(group, mean=replace(group.mean, low=None, high=None, confidence=0.0))
    found = tables(replace(audit, aggregates={**audit.aggregates, "lambda_max": bare}))[0].lines
    (text,) = [line.text for line in found if line.pointer == "/aggregates/lambda_max/mean/value"]
    assert f"({group.kind}; no interval) " in text


def test_nothing_is_claimed_that_was_not_asked():
    by_topic = {line.topic: line for line in tables(make_audit(20, labels=False))[0].lines}
    assert by_topic["Criterion"].state == "not in this dossier"
    assert by_topic["Method, empirical"].state == by_topic["Method, formal"].state == "not in this dossier"
    article = {line.topic: line for line in tables(make_audit(20, labels=False))[1].lines}
    assert article["15(1), 15(3) Level of accuracy"].text == "Not measured: no labels were given"


def test_it_says_what_it_does_not_show(files):
    for text in UNSHOWN:
        assert text in files[CONFORMITY]
        assert text in files[CONFORMITY_TEXT]
    assert "This is no certificate, and claims no conformity" in files[CONFORMITY]
    for word in ("complies", "compliant", "certified", "conforms"):
        assert word not in files[CONFORMITY].lower()


# As a whole.


def test_the_sums_are_of_the_files(files, tmp_path):
    write_dossier(whole(), tmp_path / "d")
    assert {p.name for p in (tmp_path / "d").iterdir()} == set(NAMES)
    for line in (tmp_path / "d" / SUMS).read_text("utf-8").splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "d" / name).read_bytes()).hexdigest() == digest
        assert (tmp_path / "d" / name).read_text("utf-8") == files[name]


def test_the_same_audit_gives_the_same_bytes(files, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    assert render_dossier(whole()) == files


def test_another_audit_has_another_serial_number():
    audit = make_audit(3)
    other = replace(audit, identity=replace(audit.identity, date="2027-01-01T00:00:00Z"))
    assert ml_bom(audit)["serialNumber"] != ml_bom(other)["serialNumber"]


@pytest.mark.parametrize("text", [*HOSTILE, ALL, "[x](http://evil.example) | `a` | @user"])
def test_foreign_text_is_inert(text):
    md = DEV.load("markdown_it")
    audit = whole()
    audit = replace(
        audit,
        model=replace(audit.model, name=text, path=text, producer=text, input=text, output=text, sha256=text),
        data=replace(audit.data, source=text, sha256=text),
        identity=replace(audit.identity, title=text, note=text, meta=((text, text),), date=text, host=text, command=(text,),
                         files=(FileDigest("model", text, text), FileDigest("samples", text, "e" * 64))),
        run=replace(audit.run, versions={text: text}, platform=text),
        classes=tuple(replace(c, name=text) for c in audit.classes),
        gates=tuple(replace(g, text=text, comparison=text) for g in audit.gates),
    )  # fmt: skip
    found = render_dossier(audit)
    assert "<script" not in found[CONFORMITY]
    assert "<img" not in found[CONFORMITY]
    for name in (BOM, STATEMENT):
        assert found[name].isascii()
        told = [c for s in strings(json.loads(found[name])) for c in s]
        assert not FORBIDDEN & set(told)
    tokens = md.MarkdownIt("commonmark").enable("table").parse(found[CONFORMITY_TEXT])
    links = [c.attrs["href"] for t in tokens for c in t.children or () if c.type in ("link_open", "image")]
    assert {link.partition("#")[0] for link in links} <= set(NAMES)
    assert not FORBIDDEN & set(found[CONFORMITY_TEXT])
    assert not FORBIDDEN & set(found[SUMS])


def strings(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_files_of_others_stay(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds 'mine\.txt' and is no dossier"):
        write_dossier(make_audit(3), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
