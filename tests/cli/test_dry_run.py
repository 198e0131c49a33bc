"""`--dry-run`: what an audit would take, told from a few calls, with nothing measured and nothing written."""

from __future__ import annotations

import json

import pytest

from onnxfim.auditing.dry_run import DryRun, dry_run
from onnxfim.auditing.isolation import Isolation, Outcome
from onnxfim.auditing.jobs import DryRunJob
from onnxfim.auditing.run import audit, samples_of
from onnxfim.cli.console import Console
from onnxfim.cli.dry_running import dry_run_command
from onnxfim.cli.isolating import Runs
from onnxfim.graph.load import load_model
from onnxfim.record.settings import Settings
from tests.support.places import SAMPLES

DIGITS = ("--data", SAMPLES / "digits.npz", "--provider", "cpu")
RESNET = SAMPLES / "digits_resnet.onnx"


def subject(name, **settings):
    import numpy as np

    chosen = Settings(providers=("cpu",), **settings)
    file = load_model(SAMPLES / name)
    with np.load(SAMPLES / "digits.npz") as data:
        return file, samples_of(file, data["inputs"], data["labels"], chosen), chosen


def test_it_says_what_would_be_done_and_writes_nothing(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("audit", RESNET, *DIGITS, "--samples", 100, "--dry-run")
    assert done.exit_code == 0, done.output
    first, *others = done.stdout.splitlines()
    assert first.startswith("about ")
    assert "passes on CPU, gradient, 100 samples" in first
    assert any(line.startswith("measuring by gradients") for line in others)
    assert "peak memory about" in done.stdout
    assert others[-1] == "nothing was measured, and no report was written"
    assert list(tmp_path.iterdir()) == []


def test_json_goes_to_stdout_where_that_is_asked_for(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("audit", RESNET, *DIGITS, "--samples", 20, "--dry-run", "-o", "json=-", "-o", "html=a.html")
    assert done.exit_code == 0, done.output
    (run,) = json.loads(done.stdout)["runs"]
    assert run["method"] == "gradient"
    assert run["seconds_low"] <= run["seconds"] <= run["seconds_high"]
    assert run["passes"] == sum(s["passes"] for s in run["stages"])
    assert list(tmp_path.iterdir()) == []


def test_a_timeout_that_comes_first_is_said(command):
    done = command(
        "audit", RESNET, *DIGITS, "--samples", 100, "--budget", 100_000, "--method", "sketch", "--timeout", 2, "--dry-run"
    )
    assert "--timeout ends the run after 2 s, before that" in done.stdout


def test_compare_tells_of_every_model(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("compare", RESNET, SAMPLES / "digits_mlp.onnx", *DIGITS, "--samples", 20, "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("digits_resnet.onnx: about")
    assert "digits_mlp.onnx: about" in done.stdout
    assert "all 2 models: about" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_compare_refuses_its_dry_run_refuses_too(command, tmp_path):
    saved = tmp_path / "saved.json"
    done = command("compare", RESNET, saved, *DIGITS, "--samples", 4, "--dry-run")
    assert done.exit_code == 2
    assert "saved.json" in done.stderr
    mlp = SAMPLES / "digits_mlp.onnx"
    done = command("compare", RESNET, mlp, mlp, *DIGITS, "--samples", 4, "--dry-run", "--attribute")
    assert done.exit_code == 2
    assert "--attribute needs exactly two model files" in done.stderr


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("digits_resnet.onnx", {}),
        pytest.param("digits_vit.onnx", {"attack": "l2", "attack_samples": 20}, marks=pytest.mark.slow),
        ("digits_mlp.onnx", {"method": "sketch", "budget": 400}),
        ("digits_mlp.onnx", {"method": "exact"}),
        ("digits_mlp.onnx", {"bracket": True}),
        ("digits_mlp.onnx", {"method": "sketch", "budget": 400, "bracket": True}),
        ("digits_mlp.onnx", {"method": "exact", "bracket": True, "certify": ("smoothing:0.1",)}),
        ("digits_resnet_int8.onnx", {"budget": 200}),
        ("digits_resnet_fp16.onnx", {"method": "sketch", "budget": 300, "flip": False, "bounds": False}),
    ],
)
def test_the_passes_are_those_of_the_audit(name, settings):
    """Within a fifth: searches end when they end, attacks leave out samples that are wrong already."""
    file, samples, chosen = subject(name, samples=60, replay=10, **settings)
    told = dry_run(file, samples, chosen)
    found = audit(file, samples, settings=chosen)
    assert told.method == found.run.method
    assert told.samples == len(found.samples)
    assert told.passes == pytest.approx(found.run.evaluations, rel=0.2)


def test_a_precision_to_be_reached_is_an_upper_end():
    told = dry_run(*subject("digits_mlp.onnx", samples=20, method="sketch", budget=64, max_budget=1000, precision=0.1))
    assert told.at_most
    assert told.seconds_low == 0.0


def test_a_model_without_a_slope_says_that_there_are_no_values(here):
    import numpy as np

    from onnxfim.auditing.subject import from_callable

    fn = from_callable(lambda X: np.floor(X[:, :3]), (4,), 3)
    X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32) * 5
    settings = Settings(samples=20)
    told = dry_run(fn, samples_of(fn, X, None, settings), settings)
    assert told.method == "no values"
    assert told.reason is not None


def test_it_comes_back_from_another_process_as_it_was():
    file, samples, chosen = subject("digits_mlp.onnx", samples=10)
    told = dry_run(file, samples, chosen)
    job = DryRunJob.__new__(DryRunJob)
    assert isinstance(told, DryRun)
    assert job.read(job.written(told)) == told


def test_sizes_round_to_the_next_unit_and_an_upper_end_stays_one_in_the_sum(monkeypatch, capsys):
    run = DryRun(
        "a.onnx", "sketch", None, "central", "CPUExecutionProvider", 20, (), 1000, 30.0, 0.0, 40.0, True, 1024, None, 999_999, 1_500_000
    )  # fmt: skip
    monkeypatch.setattr(Runs, "do", lambda *_, **__: Outcome(run, {}, ()))
    how = Runs(Console(), False, Isolation())
    assert dry_run_command([("a.onnx", None), ("b.onnx", None)], how, Console(), {"timeout": None}, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1,024 rows a call; all outputs 1,000 kB; in the cache about 1.50 MB on disk" in lines
    assert "all 2 models: at most 1 min, and a common step to be chosen for them before" in lines
