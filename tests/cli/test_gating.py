from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.cli.gating import exit_code
from onnxfim.record.audit import Audit
from onnxfim.report.gate_words import gate_words, units_of
from tests.support.audits import make_audit, with_nulls
from tests.support.places import SAMPLES as MODELS
from tests.support.small_audits import with_values

DATA = ["--data", str(MODELS / "digits.npz"), "--samples", "16", "--provider", "cpu"]
SMOOTHED = ("--certify", "smoothing:1/20", "--certify-budget", "200")
MLP, VGG = (str(MODELS / f"digits_{name}.onnx") for name in ("mlp", "vgg"))


def run(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.json"
    assert run("audit", MLP, *DATA, "-o", f"json={path}").exit_code == 0
    return path


@pytest.mark.parametrize(
    ("options", "code", "verdict"),
    [
        (("--fail-on", "lambda_max.median > 1e9"), 0, "pass"),
        (("--fail-on", "lambda_max.mean > 0"), 1, "fail"),
        (("--fail-on", "lambda_max.mean > 1e9", "--fail-on", "lambda_max.mean > 0"), 1, "fail"),
        (("--fail-on", "lambda_max.mean > 0", "--exit-zero"), 0, "fail"),
        ((), 0, "measured"),
        ((*SMOOTHED, "--fail-on", "smoothing.certified_accuracy@0.05 < 10%"), 0, "pass"),
        ((*SMOOTHED, "--fail-on", "smoothing[1/20].radius.median > 0.001"), 1, "fail"),
        ((*SMOOTHED, "--fail-on", "smoothing.certified_accuracy@0.05 < 90%"), 4, "inconclusive"),
        (("--fail-on", "lambda_max.p95 > 1e9"), 4, "inconclusive"),
        (("--fail-on", "lambda_max.p95 > 1e9", "--allow-inconclusive"), 0, "inconclusive"),
        (("--fail-on", "lambda_max.p95 > 1e9", "--fail-on-inconclusive"), 4, "inconclusive"),
        (("--fail-on", "lambda_max.p95 > 1e9", "--exit-zero"), 4, "inconclusive"),
        (("--fail-on", "lambda_max.p95 > 1e9", "--fail-on", "lambda_max.mean > 0"), 1, "fail"),
        (("--fail-on", "lambda_max.p95 > 1e9", "--fail-on", "lambda_max.mean > 0", "--allow-inconclusive"), 1, "fail"),
    ],
)
@pytest.mark.slow
def test_exit_codes(tmp_path, options, code, verdict):
    out = tmp_path / "a.json"
    result = run("audit", MLP, *DATA, "-o", f"json={out}", *options)
    assert result.exit_code == code, result.output
    audit = Audit.from_json(out.read_text())  # written whatever the code
    assert audit.verdict == verdict
    assert len(audit.gates) == options.count("--fail-on")
    for gate in audit.gates:
        assert f"gate {gate.verdict}: {gate_words(gate, units_of(audit, gate.name))}" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fail-on", "lamda_max.mean > 1"), "The nearest name is 'lambda_max.mean'"),
        (("--max-regression", "10%"), "--max-regression needs a --baseline"),
        (("--max-regression", "-1"), "'-1' is not a rise such as 10% or 0.1"),
        (("--baseline", "nowhere.json"), "nowhere.json: cannot be read"),
        (("--fail-on", "lambda_max.mean > 0", "--exit-zero", "--step", "-1"), "step: -1.0 is not a positive number"),
    ],
)
def test_what_could_not_run_exits_with_2(tmp_path, options, message):
    out = tmp_path / "a.json"
    result = run("audit", MLP, *DATA, "-o", f"json={out}", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not out.exists()


def test_an_output_that_cannot_be_written_outranks_a_failed_gate_and_spares_the_others(tmp_path, monkeypatch):
    from onnxfim.cli import outputs as command
    from onnxfim.errors import OutputError

    real = command.write

    def write(path, text):
        if path.endswith(".html"):
            raise OutputError(f"{path}: cannot be written (No space left on device). Write elsewhere.")
        real(path, text)

    monkeypatch.setattr(command, "write", write)
    out = tmp_path / "a.json"
    result = run("audit", MLP, *DATA, "-o", f"html={tmp_path}/a.html", "-o", f"json={out}", "--fail-on", "lambda_max.mean > 0")
    assert result.exit_code == 2
    assert "No space left on device" in result.output
    assert Audit.from_json(out.read_text()).verdict == "fail"


def test_a_model_against_its_own_baseline_passes_paired_at_no_rise_at_all(base, tmp_path):
    out, page = tmp_path / "a.json", tmp_path / "a.html"
    result = run("audit", MLP, *DATA, "--baseline", base, "--max-regression", "0%", "-o", f"json={out}", "-o", f"html={page}")
    assert result.exit_code == 0, result.output
    found = Audit.from_json(out.read_text()).comparison
    assert (found.paired, found.verdict, found.ratio.value, found.worse.value) == (True, "pass", 1.0, 0.0)
    assert "baseline pass (16 samples, paired): mean calibrated" in result.output
    assert "Against the baseline: pass" in page.read_text()


def test_a_worse_model_fails(base, tmp_path):
    audit = Audit.from_json(base.read_text())
    halved = with_values(audit, [0.5 * s.lambda_max_calibrated.value for s in audit.samples])
    better = tmp_path / "better.json"
    better.write_text(halved.to_json())
    page = tmp_path / "a.html"
    result = run("audit", MLP, *DATA, "--baseline", better, "-o", f"html={page}")
    assert result.exit_code == 1, result.output
    assert "Mean λ<sub>max</sub> rose by 100" in page.read_text()


def test_the_baseline_gives_seed_step_scheme_method_and_samples(base, tmp_path):
    audit = Audit.from_json(base.read_text())
    step = 3 * audit.run.step
    other = replace(
        audit,
        run=replace(audit.run, seed=11, method="sketch", step=step, scheme="central"),
        settings=replace(audit.settings, samples=16, budget=41),
    )
    path, out = tmp_path / "base.json", tmp_path / "a.json"
    path.write_text(other.to_json())
    result = run("audit", MLP, "--data", MODELS / "digits.npz", "--provider", "cpu", "--baseline", path, "-o", f"json={out}")
    assert result.exit_code in (0, 1, 4), result.output
    got = Audit.from_json(out.read_text())
    assert (got.run.seed, got.run.method, got.run.step, got.run.scheme) == (11, "sketch", step, "central")
    assert (got.settings.budget, len(got.samples)) == (41, 16)
    assert got.comparison.paired


def test_what_the_command_line_says_wins_over_the_baseline(base, tmp_path):
    out = tmp_path / "a.json"
    result = run("audit", MLP, *DATA, "--method", "sketch", "--seed", "5", "--baseline", base, "-o", f"json={out}")
    assert result.exit_code in (0, 1, 4), result.output
    found = Audit.from_json(out.read_text())
    assert (found.run.seed, found.run.method, found.comparison.paired) == (5, "sketch", False)
    assert {"run.seed", "run.method"} <= {d.name for d in found.comparison.differences}


def test_other_data_are_refused_before_anything_is_measured(base, tmp_path):
    with np.load(MODELS / "digits.npz") as data:
        np.savez(tmp_path / "other.npz", inputs=data["inputs"][::-1], labels=data["labels"][::-1])
    out = tmp_path / "a.json"
    result = run("audit", MLP, "--data", tmp_path / "other.npz", "--provider", "cpu", "--baseline", base, "-o", f"json={out}")
    assert result.exit_code == 2
    assert "make a new baseline" in result.output
    assert not out.exists()


def test_an_incomparable_pair_is_an_error_after_the_outputs_were_written(base, tmp_path):
    audit = Audit.from_json(base.read_text())
    path, out = tmp_path / "base.json", tmp_path / "a.json"
    path.write_text(replace(audit, model=replace(audit.model, num_outputs=1000)).to_json())
    result = run("audit", MLP, *DATA, "--baseline", path, "-o", f"json={out}", "--fail-on", "lambda_max.median > 1e9")
    assert result.exit_code == 2
    assert "1000 outputs, expected 10" in result.output
    got = Audit.from_json(out.read_text())
    assert (got.verdict, got.comparison, got.gates[0].verdict) == ("inconclusive", None, "pass")


@pytest.mark.slow
def test_models_are_compared_at_one_step(tmp_path):
    out = tmp_path / "c.json"
    result = run(
        "compare", MLP, VGG, *DATA, "-o", f"json={out}", "-o", f"html={tmp_path}/c.html", "-o", f"markdown={tmp_path}/c.md"
    )
    assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    assert len({(e["step"], e["scheme"], e["seed"]) for e in record["entries"]}) == 1
    assert all(p["paired"] for p in record["pairs"])
    assert "compared 2 audits on 16 samples" in result.output


def test_a_model_joins_saved_audits_at_their_step(base, tmp_path):
    out = tmp_path / "c.json"
    result = run("compare", base, MLP, *DATA, "-o", f"json={out}")
    assert result.exit_code == 0, result.output
    (pair,) = json.loads(out.read_text())["pairs"]
    assert (pair["ratio"]["value"], pair["paired"]) == (1.0, True)


@pytest.mark.parametrize(
    ("subjects", "message"),
    [((MLP,), "Give two models or saved audits at least"), ((MLP, VGG), "--data is needed to measure")],
)
def test_compare_needs_subjects_and_data(subjects, message):
    result = run("compare", *subjects)
    assert result.exit_code == 2
    assert message in result.output


def test_saved_audits_need_no_model(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / f"{name}.json").write_text(make_audit(50, seed=seed).to_json())
    result = run("compare", tmp_path / "a.json", tmp_path / "b.json", "-o", "markdown=-")
    assert result.exit_code == 0, result.output
    assert "## Ranking" in result.output


def test_help_names_the_exit_codes():
    text = " ".join(run("audit", "--help").output.split())
    for words in (
        "0 pass",
        "1 a gate",
        "2 could not run",
        "3 nothing could be audited",
        "4 inconclusive",
        "130 interrupted",
        "forgives 1 only",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("verdict", "partial", "measured", "allow", "zero", "code"),
    [
        ("measured", False, True, False, False, 0), ("pass", False, True, False, False, 0),
        ("fail", False, True, False, False, 1), ("fail", False, True, True, False, 1), ("fail", False, True, False, True, 0),
        ("inconclusive", False, True, False, False, 4), ("inconclusive", False, True, True, False, 0),
        ("inconclusive", False, True, False, True, 4),
        ("fail", False, False, True, True, 3), ("inconclusive", False, False, True, False, 3),
        ("fail", True, True, True, True, 130), ("inconclusive", True, False, True, False, 130),
    ],
)  # fmt: skip
def test_precedence_of_exit_codes(verdict, partial, measured, allow, zero, code):
    audit = make_audit(3) if measured else with_nulls(make_audit(3))
    audit = replace(audit, verdict=verdict, run=replace(audit.run, partial=partial))
    assert exit_code(audit, allow_inconclusive=allow, exit_zero=zero) == code


def test_the_option_that_became_the_default_is_taken_and_says_what_to_use(tmp_path):
    result = run("audit", MLP, "--data", "random", "--samples", "4", "--fail-on-inconclusive", "-o", f"json={tmp_path}/a.json")
    assert result.exit_code == 4
    assert "--fail-on-inconclusive has no effect, it is the default now: leave it out" in result.output
    assert "--fail-on-inconclusive" not in run("audit", "--help").output


def test_an_unsound_audit_fails_closed_and_says_how_to_forgive_it(tmp_path, monkeypatch):
    words = (
        "audit",
        MLP,
        "--data",
        "random",
        "--samples",
        "4",
        "--fail-on",
        "mean_confidence > 1",
        "-o",
        f"json={tmp_path}/a.json",
    )
    result = run(*words)
    assert (result.exit_code, Audit.load(tmp_path / "a.json").gates[0].verdict) == (4, "pass")
    assert "--allow-inconclusive" in result.output
    assert result.stdout.startswith("verdict: inconclusive (synthetic-data, few-samples). These numbers must not be relied on.\n")
    monkeypatch.setenv("ONNXFIM_ALLOW_INCONCLUSIVE", "true")
    assert run(*words).exit_code == 0
