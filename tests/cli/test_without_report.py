"""An audit that does not run says so in the outputs that CI reads, and overwrites nothing else."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.cli.without_report import asked_for, write_reason
from onnxfim.report.formats import FORMATS
from tests.support.audits import make_audit
from tests.support.places import SAMPLES

NAMES = {"markdown": "a.md", "comment": "c.md", "junit": "j.xml", "sarif": "s.sarif"}
OUTPUTS = [word for kind, path in NAMES.items() for word in ("-o", f"{kind}={path}")]


def run(*words):
    return CliRunner().invoke(main, ["audit", *words])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["no.onnx", "--data", "random"], "no.onnx: no such file"),
        (["MODEL", "--data", "random", "--samples", "many"], "many"),
        (["MODEL", "--data", "random", "--no-such-option"], "no-such-option"),
        (["MODEL"], "Missing option"),
        (["MODEL", "--data", "random", "--fail-on", "lamda.p95 > 1"], "is no measure"),
        (["MODEL", "--data", "random", "--fail-on", "clean_accuracy < 90 %"], "there are no labels"),
        (["MODEL", "--data", "random", "--baseline", "base.json"], "base.json: cannot be read"),
        (["MODEL", "--data", "random", "--max-regression", "5%"], "needs a --baseline"),
        (["MODEL", "--data", "random", "--baseline-optional"], "needs a --baseline"),
    ],
)
def test_the_reason_is_written_whatever_it_is(tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    words = [str(SAMPLES / "digits_mlp.onnx") if w == "MODEL" else w for w in words]
    result = run(*words, *OUTPUTS, "-o", "json=a.json")
    assert result.exit_code == 2, result.output
    for path in NAMES.values():
        text = (tmp_path / path).read_text("utf-8")
        assert "did not run" in text or json.loads(text)["runs"][0]["invocations"][0]["executionSuccessful"] is False
    assert reason.split(":")[0] in (tmp_path / "s.sarif").read_text("utf-8")
    assert not (tmp_path / "a.json").exists()


def test_an_earlier_report_is_replaced_and_other_files_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, path in NAMES.items():
        (tmp_path / path).write_text(FORMATS[kind](make_audit(5)), "utf-8")
    assert run("no.onnx", "--data", "random", *OUTPUTS).exit_code == 2
    assert "did not run" in (tmp_path / "j.xml").read_text("utf-8")
    for path in NAMES.values():
        (tmp_path / path).write_text("mine", "utf-8")
    assert run("no.onnx", "--data", "random", *OUTPUTS).exit_code == 2
    assert {(tmp_path / path).read_text("utf-8") for path in NAMES.values()} == {"mine"}


def test_what_is_read_is_never_written_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    result = run("model.onnx", "--data", "random", "-o", "junit=model.onnx", "-o", "markdown=a.md")
    assert result.exit_code == 2
    assert (tmp_path / "model.onnx").read_bytes() == b"no model"
    assert not (tmp_path / "a.md").exists()  # the outputs themselves are at fault


def test_folders_and_folders_that_are_not_there_do_no_harm(tmp_path):
    (tmp_path / "folder").mkdir()
    write_reason(
        [("markdown", str(tmp_path / "folder")), ("junit", str(tmp_path / "no" / "j.xml")), ("html", "a.html")], "m", "why", 2
    )
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_outputs_are_found_among_words_however_they_are_spelled():
    words = [
        "audit",
        "m",
        "-o",
        "html=a",
        "--output-file=junit=b",
        "--output-file",
        "sarif=c",
        "-omarkdown=d",
        "-o",
        "bad",
        "--option",
        "-qvosarif=e",
        "-qo",
        "junit=f",
        "-oq",
        "--no-o",
        "-o",
    ]
    asked = (("html", "a"), ("junit", "b"), ("sarif", "c"), ("markdown", "d"), ("sarif", "e"), ("junit", "f"))
    assert asked_for(words) == asked


def test_no_baseline_yet_is_allowed_only_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = [
        str(SAMPLES / "digits_mlp.onnx"),
        "--data",
        str(SAMPLES / "digits.npz"),
        "--samples",
        "8",
        "--replay",
        "0",
        "--no-flip",
    ]
    assert run(*common, "--baseline", "none.json", "-o", "json=a.json").exit_code == 2
    first = run(*common, "--baseline", "none.json", "--baseline-optional", "-o", "json=a.json", "-o", "markdown=a.md")
    assert first.exit_code == 0, first.output
    assert "`no-baseline`" in (tmp_path / "a.md").read_text("utf-8")
    (tmp_path / "none.json").write_text("{}", "utf-8")  # there, and unreadable: no first run
    assert run(*common, "--baseline", "none.json", "--baseline-optional", "-o", "json=b.json").exit_code == 2


def test_a_gate_that_cannot_pass_is_told_before_the_audit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = [
        str(SAMPLES / "digits_mlp.onnx"),
        "--data",
        str(SAMPLES / "digits.npz"),
        "--samples",
        "8",
        "--replay",
        "0",
        "--no-flip",
    ]
    result = run(*common, "--fail-on", "lambda_max.p95 > 1e9", "-o", "json=a.json")
    assert result.exit_code == 4
    assert "cannot pass on 8 samples" in result.output
    assert result.output.index("cannot pass on 8 samples") < result.output.index("verdict: inconclusive")
    never = run(*common, "--fail-on", "flip_radius.median < 1", "--allow-inconclusive", "-o", "json=b.json")
    assert never.exit_code == 0
    assert "warning: gate 'flip_radius.median < 1' cannot be decided" in never.output
