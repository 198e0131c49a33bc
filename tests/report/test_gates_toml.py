"""Suggested gates as a file: TOML that the command takes, whatever the names in it."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.report.gates_toml import render_gates
from onnxfim.verdict.suggest import suggest
from tests.support.audits import VARIANTS, make_audit
from tests.support.places import SAMPLES

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_audit_gives_a_file_with_its_gates(variant):
    audit = VARIANTS[variant]()
    assert toml.loads(render_gates(audit)) == {"fail-on": list(suggest(audit).fail_on)}


def test_foreign_names_stay_in_their_comments():
    audit = make_audit(100)
    name = 'a"]\nmodel = "other'
    text = render_gates(replace(audit, findings=(), model=replace(audit.model, name=name), data=replace(audit.data, source=name)))
    assert set(toml.loads(text)) == {"fail-on"}


def test_each_gate_says_where_it_comes_from_and_what_was_refused():
    audit = replace(make_audit(60), findings=())
    text, found = render_gates(audit), suggest(audit)
    assert found.gates
    assert found.refused
    for gate in found.gates:
        before = text[: text.index(f'"{gate.text}"')].rstrip().splitlines()[-1]
        assert before.lstrip().startswith("# ")
        assert gate.why in before
    for refused in found.refused:
        assert f"# {refused.name}: {refused.why}." in text


@pytest.mark.slow
def test_the_command_writes_what_it_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["audit", str(SAMPLES / "digits_mlp.onnx"), "--data", str(SAMPLES / "digits.npz"), "--samples", "80", "--replay", "0"]
    first = CliRunner().invoke(main, [*common, "-o", "json=base.json", "--suggest-gates", "gates.toml"])
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(main, [*common, "--config", "gates.toml", "-o", "json=a.json"])
    assert again.exit_code == 0, again.output
    assert again.output.count("gate pass: ") == len(toml.loads((tmp_path / "gates.toml").read_text("utf-8"))["fail-on"])
    converted = CliRunner().invoke(main, ["convert", "base.json", "-o", "gates=converted.toml"])
    assert converted.exit_code == 0
    assert (tmp_path / "converted.toml").read_text("utf-8") == (tmp_path / "gates.toml").read_text("utf-8")
