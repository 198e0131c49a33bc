"""The command `export-vnnlib`: a folder that verifiers read, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxfim.verifiers.properties import box_around
from tests.cli.conftest import MODEL
from tests.support import models
from tests.support.places import SUPPORT, Thing

VNNLIB = Thing("the vnnlib package", "pip install '.[verify]'")
GIVEN = ("model.onnx", "--data", "data.npz", "--epsilon", "1/4,0.5", "--count", "3")


def read(folder):
    rows = list(csv.reader((folder / "instances.csv").read_text().splitlines()))
    return rows, json.loads((folder / "properties.json").read_text())


def test_a_folder_of_properties(command, here):
    done = command("export-vnnlib", *GIVEN, "-o", "out")
    assert done.exit_code == 0, done.output
    assert "6 properties of 3 samples, half-widths in model input units." in done.output
    rows, about = read(here / "out")
    assert len(rows) == 6
    assert {(r[0], r[2]) for r in rows} == {("network.onnx", "300")}
    assert [p["file"] for p in about["properties"]] == [r[1] for r in rows]
    X = np.load(here / "data.npz")["inputs"]
    for p in about["properties"]:
        text = (here / "out" / p["file"]).read_text()
        found = [[float(v) for v in re.findall(rf"\({r} X_\d+ (\S+)\)\)", text)] for r in (">=", "<=")]
        low, high = box_around(X[p["sample"]], p["epsilon"], low=float(X.min()), high=float(X.max()))
        np.testing.assert_array_equal(found, [low, high])
        assert p["prediction"] == MODEL.logits(X[[p["sample"]]])[0].argmax()
        assert text.count(f"Y_{p['prediction']}))") == 3
    ranks = sorted({p["rank_by_sensitivity"] for p in about["properties"]})
    assert (ranks[0], ranks[-1]) == (1, 30)


def test_the_network_takes_one_row_and_gives_what_the_file_gives(command, here):
    models.save(MODEL.onnx(end="Softmax"), here / "soft.onnx")
    done = command("export-vnnlib", "soft.onnx", *GIVEN[1:], "-o", "out")
    assert "network.onnx: cut before its last Softmax, which changes no order; one row a call" in done.output
    network = onnx.load(here / "out" / "network.onnx")
    onnx.checker.check_model(network, full_check=True)
    assert [d.dim_value for d in network.graph.input[0].type.tensor_type.shape.dim] == [1, 6]
    assert [d.dim_value for d in network.graph.output[0].type.tensor_type.shape.dim] == [1, 4]
    session = onnxruntime.InferenceSession(str(here / "out" / "network.onnx"), providers=["CPUExecutionProvider"])
    X = np.load(here / "data.npz")["inputs"][:5]
    got = np.concatenate([session.run(None, {"x": x[None]})[0] for x in X])
    np.testing.assert_allclose(got, MODEL.logits(X), rtol=1e-5, atol=1e-5)  # float32


def test_version_2_is_read_by_its_own_parser(command, here):
    vnnlib = VNNLIB.load("vnnlib")
    assert command("export-vnnlib", *GIVEN, "--vnnlib-version", "2", "-o", "out").exit_code == 0
    for path in (here / "out").glob("*.vnnlib"):
        assert vnnlib.parse_query_file(str(path)).networks[0].inputs[0].shape == [1, 6]


def test_a_saved_audit_ranks_the_samples(command, here):
    assert command("audit", "model.onnx", "--data", "data.npz", "-o", "json=audit.json", "--no-cache").exit_code == 0
    done = command("export-vnnlib", *GIVEN, "--from", "audit.json", "-o", "out")
    assert done.exit_code == 0, done.output
    _, about = read(here / "out")
    record = json.loads((here / "audit.json").read_text())
    ranked = sorted(record["samples"], key=lambda s: -(s["lambda_max_calibrated"] or s["lambda_max"])["value"])
    told = {p["sample"]: p["rank_by_sensitivity"] for p in about["properties"]}
    assert told[ranked[0]["index"]] == 1
    assert told[ranked[-1]["index"]] == 30
    np.savez("other.npz", inputs=np.load("data.npz")["inputs"] + 1)
    done = command("export-vnnlib", "model.onnx", "--data", "other.npz", "--epsilon", "1", "--from", "audit.json", "-o", "out")
    assert done.exit_code == 2
    assert "--from: is an audit of samples with sha256" in done.output
    models.save(models.Linear.draw(4, 6, seed=5).onnx(), here / "other.onnx")
    done = command("export-vnnlib", "other.onnx", *GIVEN[1:], "--from", "audit.json", "-o", "out")
    assert "--from: is an audit of model.onnx" in done.output


def test_boxes_are_in_raw_units(command, here):
    given = (
        "model.onnx",
        "--data",
        "data.npz",
        "--already-normalised",
        "--std",
        "0.5,1,2,1,1,1",
        "--epsilon",
        "0.25",
        "--count",
        "1",
    )
    done = command("export-vnnlib", *given, "--attack-range", "-9,9", "-o", "out")
    assert "half-widths in raw input units" in done.output
    (row,), about = read(here / "out")
    text = (here / "out" / row[1]).read_text()
    low, high = ([float(v) for v in re.findall(rf"\({r} X_\d+ (\S+)\)\)", text)] for r in (">=", "<="))
    np.testing.assert_allclose(np.subtract(high, low), 2 * 0.25 / np.array([0.5, 1, 2, 1, 1, 1]), rtol=1e-6)  # float32
    assert about["units"] == "raw input units"


def test_an_older_folder_is_replaced_and_another_is_left(command, here):
    assert command("export-vnnlib", *GIVEN, "-o", "out").exit_code == 0
    assert command("export-vnnlib", *GIVEN[:-1], "1", "-o", "out").exit_code == 0
    assert len(list((here / "out").glob("*.vnnlib"))) == 2
    (here / "mine").mkdir()
    (here / "mine" / "diary.txt").write_text("dear diary")
    done = command("export-vnnlib", *GIVEN, "-o", "mine")
    assert done.exit_code == 2
    assert "mine: holds 'diary.txt' and is no folder of this command" in done.output
    assert (here / "mine" / "diary.txt").exists()


@pytest.mark.parametrize("sizes", ["0", "-1", "8/0", "x", "1,,2", "nan", "inf"])
def test_sizes_that_are_none_are_refused(command, here, sizes):
    done = command("export-vnnlib", "model.onnx", "--data", "data.npz", "--epsilon", sizes, "-o", "out")
    assert done.exit_code == 2
    assert "is no size such as 8/255 or 0.03" in done.output


def test_outputs_without_classes_are_refused(command, here):
    done = command("export-vnnlib", *GIVEN, "--output-kind", "gaussian", "-o", "out")
    assert done.exit_code == 2
    assert "model.onnx: cannot be given to a verifier: outputs of kind gaussian predict no class." in done.output
    assert not (here / "out").exists()


def fake(mode="exact"):
    path = SUPPORT / "fake_verifier.py"
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))} {mode} {{onnx}} {{vnnlib}} {{timeout}} -"


def test_audit_asks_a_verifier(command, here):
    options = (
        "--verifier-samples",
        "1",
        "--verifier-precision",
        "50%",
        "--attack-range",
        "-20,20",
        "-o",
        "json=r.json",
        "--no-cache",
    )
    done = command("audit", "model.onnx", "--data", "data.npz", "--verifier", fake(), *options)
    assert done.exit_code == 0, done.output
    record = json.loads((here / "r.json").read_text())
    assert record["verifier"]["boxes"] > 0
    assert record["verifier"]["error"] == 0
    assert record["settings"]["verifier"] == fake()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--verifier", "no-such-tool {onnx} {vnnlib}"), "--verifier: 'no-such-tool' is not installed, or not on the PATH."),
        (("--verifier", "magic"), "'magic' is no known verifier"),
        (("--verifier", fake(), "--devices", "0,1"), "--devices: a verifier is asked by one process"),
        (("--verifier", fake(), "--verifier-model", "nowhere.onnx"), "nowhere.onnx: no such file"),
    ],
)
def test_a_verifier_that_cannot_be_asked_is_refused_in_one_line(command, here, options, message):
    done = command("audit", "model.onnx", "--data", "data.npz", *options, "-o", "json=-")
    assert done.exit_code == 2
    assert message in done.output


def test_a_plan_takes_no_verifier(command, here):
    done = command("plan", "model.onnx", "--data", "data.npz", "--verifier", fake())
    assert done.exit_code == 2
    assert "plan: --verifier asks one after another about a few samples" in done.output
    assert command("plan", "model.onnx", "--data", "data.npz").exit_code == 0
    plan = json.loads((here / "plan.json").read_text())
    plan["draft"]["settings"]["verifier"] = fake()
    (here / "plan.json").write_text(json.dumps(plan))
    done = command("audit", "--plan", "plan.json", "--shard", "1/1")
    assert done.exit_code == 2
    assert "names a program to run as a verifier, which no plan may" in done.output


def test_a_file_names_no_verifier(command, here, monkeypatch):
    (here / "onnxfim.toml").write_text(f'verifier = "{fake()}"\n')
    done = command("audit", "model.onnx", "--data", "data.npz")
    assert done.exit_code == 2
    assert "verifier" in done.output
    (here / "onnxfim.toml").unlink()
    monkeypatch.setenv("ONNXFIM_VERIFIER", fake("crash"))
    done = command("audit", "model.onnx", "--data", "data.npz", "-o", "json=r.json", "--no-cache")
    assert json.loads((here / "r.json").read_text())["verifier"] is None
