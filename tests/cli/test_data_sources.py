"""`--data` of every kind, from the command line and never as a program from a file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import onnxfim
from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.packing import _candidate, _read_candidate
from onnxfim.cli import main
from onnxfim.data import from_arrays, load
from onnxfim.record.settings import Settings
from tests.support.places import SAMPLES

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LOADER = """
import numpy as np
def load_data():
    with np.load("digits.npz") as d:
        yield from zip(d["inputs"], d["labels"])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits_mlp.onnx", "digits.npz"):
        shutil.copy(SAMPLES / name, tmp_path)
    with np.load("digits.npz") as data:
        X, y = data["inputs"].reshape(-1, 64), data["labels"]
    head = ",".join(f"p{i}" for i in range(64))
    lines = [",".join(map(repr, map(float, x))) for x in X[:80]]
    (tmp_path / "digits.csv").write_text("\n".join([f"{head},label", *(f"{x},{k}" for x, k in zip(lines, y, strict=False))]))
    (tmp_path / "words.csv").write_text("\n".join([f"{head},digit", *(f"{x},{WORDS[k]}" for x, k in zip(lines, y, strict=False))]))
    (tmp_path / "loader.py").write_text(LOADER)
    return tmp_path


def audited(*words):
    done = CliRunner().invoke(main, ["audit", "digits_mlp.onnx", *words, "--samples", "12", "--no-cache", "-o", "json=a.json"])
    with open("a.json", encoding="utf-8") as file:
        return done, json.load(file)


@pytest.mark.slow
def test_one_value_from_every_container(folder):
    means = set()
    for source in ("digits.npz", "digits.csv", "loader.py", "loader.py:load_data"):
        done, record = audited("--data", source)
        assert done.exit_code == 0, done.output
        means.add(record["aggregates"]["lambda_max"]["mean"]["value"])
        assert record["data"]["source"] == source
    assert len(means) == 1


def test_a_guessed_order_is_told_and_a_given_one_counts(folder):
    _, guessed = audited("--data", "words.csv", "--label-column", "digit")
    assert guessed["data"]["classes_guessed"]
    findings = {f["id"]: f["message"] for f in guessed["findings"]}
    assert "--class-names" in findings["class-order"]
    assert "--class-names" in findings["accuracy-near-chance"]
    (folder / "names.txt").write_text("\n".join(WORDS))
    for names in (",".join(WORDS), "names.txt"):
        done, record = audited("--data", "words.csv", "--label-column", "digit", "--class-names", names)
        assert done.exit_code == 0, done.output
        assert record["data"]["class_names"] == list(WORDS)
        assert "classes_guessed" not in record["data"] or not record["data"]["classes_guessed"]
        assert record["calibration"]["accuracy"] > 0.9
        assert "class-order" not in {f["id"] for f in record["findings"]}


def test_no_output_overwrites_the_loader(folder):
    for words in (["audit", "digits_mlp.onnx"], ["compare", "digits_mlp.onnx", "digits_mlp.onnx"]):
        done = CliRunner().invoke(main, [*words, "--data", "loader.py:load_data", "-o", "json=loader.py"])
        assert done.exit_code == 2
        assert (folder / "loader.py").read_text() == LOADER


def test_an_error_in_a_loader_is_one_line(folder):
    (folder / "loader.py").write_text("def load_data():\n    return [][1]\n")
    done = CliRunner().invoke(main, ["audit", "digits_mlp.onnx", "--data", "loader.py"])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        "onnxfim: loader.py, line 2: IndexError: list index out of range, expected a function that gives the samples. Mend it."
    )


@pytest.mark.parametrize(
    "data", ["loader.py", "loader.py:load_data", "x/Loader.PY:f", "loader.py:a/b", "loader.py: ", "loader.py:"]
)
def test_no_file_and_no_variable_runs_a_program(folder, data, monkeypatch):
    (folder / "loader.py").write_text("open('ran', 'w').close()\ndef load_data(): return 1\n")
    (folder / "onnxfim.toml").write_text(f'data = "{data}"\n')
    done = CliRunner().invoke(main, ["audit", "digits_mlp.onnx"])
    assert done.exit_code == 2
    assert "names a Python file, which only the command line may run" in done.stderr
    (folder / "onnxfim.toml").unlink()
    monkeypatch.setenv("ONNXFIM_DATA", data)
    done = CliRunner().invoke(main, ["audit", "digits_mlp.onnx"])
    assert done.exit_code == 2
    assert "ONNXFIM_DATA" in done.stderr
    assert not (folder / "ran").exists()


def test_the_api_takes_no_program_for_data(folder, told):
    with pytest.raises(onnxfim.InputError, match=told("loader.py: has the suffix '.py'")):
        onnxfim.load_samples("loader.py", "digits_mlp.onnx")
    with pytest.raises(onnxfim.InputError, match=told("no such file")):
        onnxfim.load_samples("loader.py:load_data", "digits_mlp.onnx")


def test_feature_names_reach_the_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    W = rng.normal(size=(3, 2))
    (tmp_path / "d.csv").write_text(
        "age,height,label\n"
        + "".join(f"{a:.3f},{b:.3f},{k}\n" for (a, b), k in zip(rng.random((9, 2)), [0, 1, 2] * 3, strict=True))
    )
    samples = load("d.csv", shape=(2,), dtype="float64")
    model = onnxfim.from_callable(lambda X: X @ W.T, (2,), 3, dtype="float64")
    audit = onnxfim.audit(model, samples, settings=onnxfim.Settings(method="exact", replay=0))
    assert audit.data.feature_names == ("age", "height")
    assert onnxfim.Audit.from_json(audit.to_json()) == audit


def test_the_isolated_process_gets_the_names_too(tmp_path):
    samples = replace(from_arrays(np.ones((2, 2)), ["b", "a"]), feature_names=("u", "v"), by_class=True)
    record = json.loads(json.dumps(_candidate(Candidate("m.onnx", samples, Settings()), tmp_path)))
    read = _read_candidate(record, tmp_path).inputs
    assert (read.feature_names, read.class_names, read.classes_guessed, read.by_class) == (("u", "v"), ("a", "b"), True, True)
