"""`plan`, `audit --plan --shard` and `merge`: three commands for one audit by many, and what each refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from onnxfim.cli.main import main
from onnxfim.record.shard import Shard
from tests.support.places import SAMPLES

MODEL, DATA = str(SAMPLES / "digits_mlp.onnx"), str(SAMPLES / "digits.npz")
ASKED = ("--samples", "24", "--batch", "64", "--method", "sketch", "--budget", "60")
ALONE = ("--isolate", "off", "--no-cache")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in a folder of its own; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def of(*words, code=0):
        done = CliRunner().invoke(main, list(words))
        assert done.exit_code == code, done.output
        return done.output

    return of


@pytest.fixture
def planned(run):
    run("plan", MODEL, "--data", DATA, *ASKED, *ALONE)
    return run


def numbers(path):
    record = json.loads(path.read_text())
    for name in ("seconds", "times"):
        del record["run"][name]
    for name in ("date", "command"):
        del record["identity"][name]
    return record


def test_three_commands_make_the_audit_of_one(planned, tmp_path, run):
    for i in (1, 2, 3):
        told = run("audit", "--plan", "plan.json", "--shard", f"{i}/3", *ALONE)
        assert (
            told
            == f"shard-{i}-of-3.json: 8 samples, {Shard.from_json((tmp_path / f'shard-{i}-of-3.json').read_text()).evaluations:,} forward passes.\n"
        )
    shards = sorted(p.name for p in tmp_path.glob("shard-*.json"))
    run("merge", *shards, "-o", "json=merged.json", "-o", "html=merged.html")
    run("audit", MODEL, "--data", DATA, *ASKED, *ALONE, "-o", "json=whole.json")
    assert numbers(tmp_path / "merged.json") == numbers(tmp_path / "whole.json")
    identity = json.loads((tmp_path / "merged.json").read_text())["identity"]
    assert {f["role"] for f in identity["files"]} == {"model", "samples"}
    assert identity["command"] == ["onnxfim", "merge", *shards, "-o", "json=merged.json", "-o", "html=merged.html"]


def test_a_shard_goes_to_a_folder_or_a_file_and_is_not_measured_twice(planned, tmp_path, run):
    (tmp_path / "out").mkdir()
    run("audit", "--plan", "plan.json", "--shard", "1/2", "-o", "out", *ALONE)
    run("audit", "--plan", "plan.json", "--shard", "2/2", "-o", "second.json", *ALONE)
    assert "shard-1-of-2.json: shard 1/2 is there already, whole and of this plan." in run(
        "audit", "--plan", "plan.json", "--shard", "1/2", "-o", "out", *ALONE
    )
    (tmp_path / "second.json").write_text("{")  # torn
    assert "12 samples" in run("audit", "--plan", "plan.json", "--shard", "2/2", "-o", "second.json", *ALONE)
    run("merge", "out", "second.json", "-q", "-o", "json=merged.json")


def test_the_schedulers_environment_tells_the_shard(planned, tmp_path, run, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "0")
    run("audit", "--plan", "plan.json", "--shard", "auto", *ALONE)
    assert (tmp_path / "shard-3-of-4.json").exists()


def test_missing_shards_are_listed_and_partial_marks(planned, tmp_path, run):
    run("audit", "--plan", "plan.json", "--shard", "2/3", *ALONE)
    told = run("merge", "shard-2-of-3.json", "-o", "junit=junit.xml", code=3)
    assert "merge: shards 1/3, 3/3 missing: 8 of 24 samples are there." in told
    assert "shards 1/3, 3/3 missing" in (tmp_path / "junit.xml").read_text()
    told = run("merge", "shard-2-of-3.json", "--partial", "-o", "json=part.json", code=4)
    assert "shards missing, partial: 8 of 24 samples" in told
    assert json.loads((tmp_path / "part.json").read_text())["run"]["partial"] is True


def test_dry_runs_write_nothing(planned, tmp_path, run):
    before = sorted(p.name for p in tmp_path.iterdir())
    assert "nothing was measured" in run("plan", MODEL, "--data", DATA, *ASKED, *ALONE, "--dry-run", "-o", "other.json")
    run("audit", "--plan", "plan.json", "--shard", "1/2", *ALONE)
    told = run("merge", "shard-1-of-2.json", "--dry-run", code=3)
    assert told == "12 of 24 samples are there, in 1 shards\nmissing: shard 2/2\nnothing was merged, and no report was written\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "shard-1-of-2.json"])


def test_gates_are_decided_on_the_union(planned, run):
    for i in (1, 2):
        run("audit", "--plan", "plan.json", "--shard", f"{i}/2", *ALONE)
    run("merge", "shard-1-of-2.json", "shard-2-of-2.json", "-q", "--fail-on", "clean_accuracy < 50%")
    run("merge", "shard-1-of-2.json", "shard-2-of-2.json", "-q", "--fail-on", "clean_accuracy > 50%", code=1)


def test_model_and_data_may_lie_elsewhere(planned, tmp_path, run):
    shutil.copy(MODEL, tmp_path / "other.onnx")
    shutil.copy(DATA, tmp_path / "other.npz")
    run("audit", "other.onnx", "--data", "other.npz", "--plan", "plan.json", "--shard", "1/2", *ALONE)
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["reading"] |= {"model": "other.onnx", "data": "other.npz"}
    (tmp_path / "inside").mkdir()
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    os.chdir(tmp_path / "inside")
    run("audit", "--plan", "../plan.json", "--shard", "2/2", *ALONE)  # beside the plan, where nothing is here
    run("merge", "../shard-1-of-2.json", "shard-2-of-2.json", "-q")


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("audit", "--shard", "1/2"), "--shard needs --plan"),
            (("audit", "--plan", "plan.json"), "--plan needs --shard i/n"),
            (("audit", "--plan", "plan.json", "--shard", "1/2", "--method", "sketch"), "--method: is the plan's"),
            (("audit", "--plan", "plan.json", "--shard", "1/2", "--fail-on", "findings.error"), "--fail-on: is the plan's"),
            (("audit", "--plan", "plan.json", "--shard", "1/2", "-o", "html=x.html"), "-o html=…: a shard is no report"),
            (("audit", "--plan", "plan.json", "--shard", "3/2"), "--shard 3/2"),
            (("audit", "--plan", "nowhere.json", "--shard", "1/2"), "nowhere.json: cannot be read"),
            (("audit", "--plan", DATA, "--shard", "1/2"), "digits.npz"),
            (("audit", str(SAMPLES / "digits_vgg.onnx"), "--plan", "plan.json", "--shard", "1/2"), "digits_vgg.onnx: its hash is"),
            (("merge", "plan.json"), "plan.json: no 'shard_version' field"),
            (("merge", "."), ".: holds no shard-*.json"),
            (("audit",), "Missing argument 'MODEL'"),
            (("audit", MODEL), "Missing option '--data'"),
            (("audit", MODEL, "--data", DATA, "-o", "report"), "'report' is not FORMAT=PATH"),
            (("plan", MODEL, "--data", DATA, "--precision", "0.1"), "precision: 0.1 is reached by looking"),
        ],
    )
    def test_what_cannot_be(self, planned, run, words, told):
        printed = run(*words, *(ALONE if words[0] != "merge" and "MODEL" not in told and "--data'" not in told else ()), code=2)
        assert told in printed
        assert "Traceback" not in printed
        assert "internal error" not in printed

    def test_a_merge_without_a_plan(self, planned, tmp_path, run):
        run("audit", "--plan", "plan.json", "--shard", "1/1", *ALONE)
        (tmp_path / "plan.json").rename(tmp_path / "moved.json")
        assert "merge: no plan.json in the working folder or beside the shards" in run("merge", "shard-1-of-1.json", code=2)
        run("merge", "shard-1-of-1.json", "--plan", "moved.json", "-q")

    def test_a_plan_runs_no_program_and_loads_no_library(self, planned, tmp_path, run):
        plan = json.loads((tmp_path / "plan.json").read_text())
        (tmp_path / "loader.py").write_text("open('ran', 'w')\n")
        plan["reading"]["data"] = "loader.py:samples"
        (tmp_path / "code.json").write_text(json.dumps(plan))
        told = run("audit", "--plan", "code.json", "--shard", "1/1", *ALONE, code=2)
        assert "code.json: names a program to read the data with, which no file may. Name it with --data loader.py:samples." in told
        plan["reading"]["data"] = DATA
        plan["draft"]["settings"]["custom_op_libraries"] = ["evil.so"]
        (tmp_path / "code.json").write_text(json.dumps(plan))
        told = run("audit", "--plan", "code.json", "--shard", "1/1", *ALONE, code=2)
        assert "code.json: names a library to load, which no file may. Name it with --custom-op-library evil.so." in told
        assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_shard_that_is_killed_goes_on_and_is_the_same(planned, tmp_path, run):
    words = [
        sys.executable,
        "-m",
        "onnxfim",
        "audit",
        "--plan",
        "plan.json",
        "--shard",
        "1/1",
        "--cache-dir",
        "cache",
        "--batch",
        "1",
    ]
    killed = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not (kept := [p for p in tmp_path.glob("cache/*/*.bin") if p.stat().st_size > 20_000]) and killed.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    assert kept, "it ended before it was killed"
    assert not (tmp_path / "shard-1-of-1.json").exists()
    run("audit", "--plan", "plan.json", "--shard", "1/1", "--cache-dir", "cache", "--batch", "1", "--isolate", "off")
    run("merge", "shard-1-of-1.json", "-q", "-o", "json=merged.json")
    run("audit", MODEL, "--data", DATA, *ASKED, *ALONE, "-q", "-o", "json=whole.json")
    assert numbers(tmp_path / "merged.json") == numbers(tmp_path / "whole.json")


def test_a_plan_on_stdout_is_called_one(run):
    told = CliRunner().invoke(main, ["plan", MODEL, "--data", DATA, *ASKED, *ALONE, "-o", "-"])
    assert told.exit_code == 0
    assert json.loads(told.stdout)["plan_version"] == "1"
    assert told.stderr.startswith("plan: 24 samples along random directions")
    assert "onnxfim audit --plan PLAN --shard i/n" in told.stderr
