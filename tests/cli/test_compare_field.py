"""`compare` of many models, from the command line: the answer first, one against many, CSV."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from tests.support.places import SAMPLES

NAMES = ("digits_mlp", "digits_resnet", "digits_resnet_adv")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saved audits of three sample models on 40 samples, and of one on the same samples scaled for another model."""
    from dataclasses import replace

    import onnxfim

    folder = tmp_path_factory.mktemp("audits")
    for name in NAMES:
        model = SAMPLES / f"{name}.onnx"
        samples = onnxfim.load_samples(SAMPLES / "digits.npz", model, limit=200)
        audit = onnxfim.audit(model, samples, settings=onnxfim.Settings(samples=40, replay=0, bounds=False))
        audit.save(folder / f"{name}.json")
        if name == "digits_mlp":
            replace(audit, settings=replace(audit.settings, input_scale=(1.0,))).save(folder / "same.json")
    return folder


def test_the_answer_comes_first_and_fits(saved, command, tmp_path):
    result = command("compare", *(str(saved / f"{n}.json") for n in NAMES), "-o", f"html={tmp_path / 'c.html'}")
    assert result.exit_code == 0, result.output
    first, *rest = result.stdout.splitlines()
    assert first.startswith("digits_resnet_adv is the most robust of 3: decided against every other (p ")
    assert all(len(line) <= 80 for line in rest if not line.startswith("compared "))
    assert [line.split()[1] for line in rest if line[:1].isdigit() and "/" in line] == [
        "digits_resnet_adv", "digits_resnet", "digits_mlp",
    ]  # fmt: skip


@pytest.mark.parametrize("named", ["digits_resnet.onnx", "digits_resnet", "report"])
def test_one_against_many(saved, command, tmp_path, named):
    paths = [str(saved / f"{n}.json") for n in NAMES]
    named = paths[1] if named == "report" else named
    result = command("compare", *paths, "--baseline", named, "-o", f"json={tmp_path / 'c.json'}")
    assert result.exit_code == 0, result.output
    assert "Against digits_resnet: 1 of 2 models more robust, 1 less, 0 not decided." in result.stdout
    record = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert record["baseline"] == 1
    assert [(p["first"], p["second"]) for p in record["pairs"]] == [(0, 1), (1, 2)]
    assert [p["decided"]["better"] for p in record["pairs"]] == [1, 2]


def test_an_unknown_baseline_ends_in_one_line(saved, command):
    result = command("compare", *(str(saved / f"{n}.json") for n in NAMES), "--baseline", "nobody", "-o", "json=-")
    assert result.exit_code == 2
    assert "baseline 'nobody': is none of the models compared, expected one of digits_mlp.onnx, " in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_csv_of_models_and_of_pairs(saved, command, tmp_path):
    paths = [str(saved / f"{n}.json") for n in NAMES]
    result = command("compare", *paths, "-o", f"csv={tmp_path / 'm.csv'}", "-o", f"pairs={tmp_path / 'p.csv'}")
    assert result.exit_code == 0, result.output
    with open(tmp_path / "m.csv", encoding="utf-8", newline="") as file:
        models = list(csv.DictReader(file))
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as file:
        pairs = list(csv.DictReader(file))
    assert [m["name"] for m in models] == ["digits_resnet_adv.onnx", "digits_resnet.onnx", "digits_mlp.onnx"]
    assert len(pairs) == 12
    assert {p["question"] for p in pairs} == {"distance", "boundary", "log_lambda", "mean_lambda"}


def test_models_of_other_scalings_compare_from_their_own_audits(command, tmp_path, monkeypatch):
    """One model twice, the second with its input scaled by a half inside: in raw units nothing differs."""
    import onnx

    monkeypatch.chdir(tmp_path)
    model = onnx.load(SAMPLES / "digits_mlp.onnx")
    into = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["undone" if name == into else name for name in node.input]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
    model.graph.node.insert(0, onnx.helper.make_node("Mul", [into, "half"], ["undone"]))
    onnx.save(model, "doubled.onnx")
    with np.load(SAMPLES / "digits.npz") as data:
        np.savez("doubled.npz", inputs=2 * data["inputs"][:60], labels=data["labels"][:60])
        np.savez("plain.npz", inputs=data["inputs"][:60], labels=data["labels"][:60])
    plain = (str(SAMPLES / "digits_mlp.onnx"), "--data", "plain.npz", "-o", "json=plain.json")
    doubled = ("doubled.onnx", "--data", "doubled.npz", "--std", "0.5", "--already-normalised", "-o", "json=doubled.json")
    for options in (plain, doubled):
        result = command("audit", *options, "--replay", "0", "--no-cache")
        assert result.exit_code == 0, result.output
    result = command("compare", "plain.json", "doubled.json", "-o", "json=c.json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert record["units"] == "nats per squared raw input unit"
    (pair,) = record["pairs"]
    assert pair["decided"]["better"] is None
    for test in pair["decided"]["measures"]:
        assert test["ratio"]["value"] == pytest.approx(1.0, rel=0.02), test  # rungs of flips are 2 % apart
