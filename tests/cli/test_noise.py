"""Noise on the command line: exit codes of its gates, what is said before, other processes, and plans."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from onnxfim.record.audit import Audit
from tests.support import models
from tests.support.failing_under_noise import at_rest, failing

QUICK = ("--provider", "cpu", "--no-flip", "--no-bounds", "--replay", "0", "--no-cache")


@pytest.fixture
def files(here, npz):
    """A model that fails under gaussian:0.2 with a chance of 3 % where the first number is 0, and samples far from it and near."""
    models.save(failing(0.03, 0.2), here / "failing.onnx")
    npz(at_rest(60, first=-9), [0] * 60, "far.npz")
    npz(at_rest(60, first=0), [0] * 60, "near.npz")
    return here


def read(path):
    return Audit.from_json(Path(path).read_text("utf-8"))


@pytest.mark.parametrize(
    ("data", "gate", "more", "code", "words"),
    [
        ("far", "noise.stable_share < 90%", (), 0, r"gate pass: noise.stable_share < 90%: 100 % \(95 % interval 93.\d % to 100 %\)"),
        ("far", "noise[gaussian:1/5].stable_share_here < 100%", (), 0, r"gate pass: noise\[gaussian:1/5\].stable_share_here < 100%"),
        ("near", "noise.stable_share < 90%", (), 1, r"gate fail: noise.stable_share < 90%: 0 % \(95 % interval 0 % to"),
        ("near", "noise.stable_share < 90%", ("--exit-zero",), 0, r"gate fail"),
        ("far", "noise.stable_share < 95%", (), 4, r"gate inconclusive: .* About \d+ more samples \(\d+ in all\) would settle it"),
        ("far", "noise.stable_share < 95%", ("--allow-inconclusive",), 0, r"gate inconclusive"),
        ("near", "noise.stable_share_here < 90%", ("--noise-budget", "100"), 4, r"samples are open after 100 rows. About [\d,]+ rows a sample"),
        ("far", "noise[uniform:1].stable_share < 95%", (), 2, r"cannot be decided: uniform:1 is not among the noises"),
        ("far", "noise.stable < 95%", (), 2, r"'noise.stable' is no measure. The nearest name is 'noise.stable_share'"),
    ],
)  # fmt: skip
def test_gates_and_exit_codes(files, command, data, gate, more, code, words):
    arguments = ("failing.onnx", "--data", f"{data}.npz", *QUICK, "--noise", "gaussian:0.2", "--fail-on", gate, *more)
    done = command("audit", *arguments)
    assert done.exit_code == code, done.output
    assert re.search(words, " ".join(done.output.replace("\u00a0", " ").split())), done.output


def test_what_so_few_samples_and_rows_cannot_show_is_said_before(files, command):
    run = ("audit", "failing.onnx", "--data", "far.npz", *QUICK, "--noise", "gaussian:0.2")
    told = command(*run, "--fail-on", "noise.stable_share < 99%").output
    assert "warning: gate 'noise.stable_share < 99%' cannot pass on 60 samples: were all of them stable" in told
    told = command(*run, "--noise-budget", "100").output
    assert "warning: noise: 100 rows a sample show none of 60 samples to keep its prediction with 99 %" in told
    done = command("audit", "failing.onnx", "--data", "far.npz", *QUICK, "--fail-on", "noise.stable_share < 99%")
    assert done.exit_code == 2
    assert "no noise is added. Give --noise" in done.output


@pytest.mark.parametrize("wrong", ["gauss:1", "gaussian:0", "uniform:1/0", "gaussian"])
def test_noise_that_is_none_ends_in_one_line(files, command, wrong):
    done = command("audit", "failing.onnx", "--data", "far.npz", *QUICK, "--noise", wrong)
    assert done.exit_code == 2
    (line,) = [text for text in done.output.splitlines() if "noise" in text]
    assert f"noise: {wrong!r}" in line


def test_a_configuration_file_names_noises(files, command):
    (files / "onnxfim.toml").write_text(
        '[audit]\nnoise = ["gaussian:0.2", "uniform:8/255"]\nnoise-stable = "95%"\nnoise-budget = 500\n', "utf-8"
    )
    done = command("audit", "failing.onnx", "--data", "far.npz", *QUICK, "-o", "json=a.json")
    assert done.exit_code == 0, done.output
    found = read(files / "a.json")
    assert [(s.noise, s.stable, s.budget) for s in found.noise] == [("gaussian:0.2", 0.95, 500), ("uniform:8/255", 0.95, 500)]


def test_shards_make_the_json_of_one_process(files, command):
    options = ("failing.onnx", "--data", "near.npz", "--samples", "9", *QUICK[:-1], "--batch", "64", "--noise", "gaussian:0.2")
    assert command("audit", *options, "--no-cache", "-o", "json=whole.json").exit_code == 0
    assert command("plan", *options, "--no-cache").exit_code == 0
    for i in (1, 2):
        done = command("audit", "--plan", "plan.json", "--shard", f"{i}/2", "--no-cache")
        assert done.exit_code == 0, done.output
    done = command("merge", "shard-1-of-2.json", "shard-2-of-2.json", "--plan", "plan.json", "-o", "json=merged.json")
    assert done.exit_code == 0, done.output
    whole, merged = (json.loads((files / f"{n}.json").read_text("utf-8")) for n in ("whole", "merged"))
    assert merged["noise"] == whole["noise"]
    assert [s["noise"] for s in merged["samples"]] == [s["noise"] for s in whole["samples"]]


def test_a_dry_run_knows_the_stage(files, command):
    done = command("audit", "failing.onnx", "--data", "far.npz", *QUICK, "--noise", "gaussian:0.2", "--dry-run")
    assert done.exit_code == 0, done.output
    (line,) = [text for text in done.output.splitlines() if "adding noise" in text]
    found = re.search(r"([\d,]+) ", line[line.index("adding noise") :])
    assert 50_000 < int(found[1].replace(",", "")) < 100_000  # 60 samples, about 1,100 rows each
