"""`compare` of a trained and a deployed model, from the command line."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from tests.support import models
from tests.support.models import Linear
from tests.support.quantised_nets import Dense, quantised_file
from tests.support.small_nets_float import float_file

FEW = ("--samples", "12", "--provider", "cpu")


@pytest.fixture
def dense(tmp_path, monkeypatch):
    """A small net and its QDQ file, with one badly rounded layer, and data."""
    monkeypatch.chdir(tmp_path)
    net = Dense.draw(12, 16, 16, 4, seed=3)
    X = net.samples(60)
    onnx.save(float_file(net), tmp_path / "trained.onnx")
    good = quantised_file(net, X, "qdq")
    for tensor in good.graph.initializer:
        if tensor.name == "w1":
            q = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array((np.round(q / 30.0) * 30).clip(-128, 127).astype(np.int8), "w1"))
    onnx.save(good, tmp_path / "deployed.onnx")
    np.savez(tmp_path / "data.npz", inputs=X, labels=net.activations(X)[-1].argmax(axis=1))
    return tmp_path


def test_the_delta_and_the_planted_layer_are_told(dense, command):
    result = command(
        "compare", "trained.onnx", "deployed.onnx", "--data", "data.npz", "--provider", "cpu", "--attribute", "-o", "json=c.json",
        "-o", "html=c.html", "-o", "markdown=c.md",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((dense / "c.json").read_text("utf-8"))["deployment"]
    assert "Deployment changed accuracy by" in result.output
    assert "predictions agree on" in result.output
    assert found["accuracy"]["count"] == 60
    assert found["attribution"]["nodes"][0]["node"] == "m1"
    assert found["attribution"]["nodes"][0]["twin"] == "m1"
    # With every node restored the file is the trained one, but for float32 rounding.
    assert abs(found["attribution"]["restored"]["value"]) < 1e-6
    assert "1. m1 (MatMul)" in result.output
    assert "m1" in (dense / "c.md").read_text("utf-8")


def test_one_file_twice_is_identical(here, command):
    result = command("compare", "model.onnx", "model.onnx", "--data", "data.npz", *FEW, "-o", "json=c.json")
    assert result.exit_code == 0, result.output
    assert "Identical: model.onnx (2) is the same file on the same provider" in result.output
    found = json.loads((here / "c.json").read_text("utf-8"))["deployment"]
    assert found["identical"]
    assert found["divergence"]["change"]["value"] == 0
    assert found["sensitivity_raw"]["change"] == {
        "value": 1.0, "low": 1.0, "high": 1.0, "confidence": 0.95, "method": "all samples are equal",
    }  # fmt: skip


def test_the_second_runs_where_deployment_runs_it(here, command):
    result = command(
        "compare", "model.onnx", "model.onnx", "--data", "data.npz", *FEW, "--deployed-provider", "nowhere", "--require-provider"
    )
    assert result.exit_code == 2
    assert "nowhere" in result.output


def test_other_classes_are_refused_in_one_line(here, command):
    models.save(Linear.draw(3, 6).onnx(), here / "three.onnx")
    result = command("compare", "model.onnx", "three.onnx", "--data", "data.npz", *FEW)
    assert result.exit_code == 2
    assert "three.onnx: 3 outputs, expected 4 outputs as of model.onnx: the models decide between other classes" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_attribution_needs_two_files(here, command):
    result = command("compare", "model.onnx", "model.onnx", "model.onnx", "--data", "data.npz", *FEW, "--attribute")
    assert result.exit_code == 2
    assert "--attribute needs exactly two model files" in result.output


@pytest.mark.parametrize(("gate", "code"), [("agreement < 50%", 0), ("sensitivity_ratio > 0.5", 1), ("accuracy_change < 0", 0)])
def test_gates_give_the_exit_code(here, command, gate, code):
    result = command("compare", "model.onnx", "model.onnx", "--data", "data.npz", *FEW, "--fail-on-change", gate)
    assert result.exit_code == code, result.output
    assert f"gate {'fail' if code else 'pass'}: {gate.split()[0]}" in result.output


def test_a_gate_needs_two_models(here, command):
    result = command("compare", *["model.onnx"] * 3, "--data", "data.npz", *FEW, "--fail-on-change", "agreement < 1")
    assert result.exit_code == 2
    assert "--fail-on-change needs exactly two models" in result.output
