"""Models of several inputs from the command line: --input, --feed, --shape and the data's own arrays."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper

from tests.support import models
from tests.support.two_inputs import TwoInputs

NET = TwoInputs.drawn()
DATA = NET.data()


@pytest.fixture
def two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    NET.write(tmp_path / "two.onnx")
    np.savez(tmp_path / "two.npz", labels=NET.parts(DATA)[0].argmax(axis=1), **DATA)


def measured(command, *options, model="two.onnx", data="two.npz"):
    done = command(
        "audit", model, "--data", data, "--provider", "cpu", "--no-cache", "--allow-inconclusive", "-o", "json=a.json", *options
    )
    assert done.exit_code == 0, done.output
    with open("a.json", encoding="utf-8") as file:
        return done, json.load(file)


def values(record):
    return [s["lambda_max"]["value"] for s in record["samples"]]


@pytest.mark.parametrize("isolate", ["on", "off"])
def test_the_data_hold_what_is_held(two, command, isolate):
    done, record = measured(command, "--input", "image", "--feed", "flag=true", "--isolate", isolate, "-v")
    assert_allclose(values(record), NET.lambda_max(DATA), rtol=2e-5)  # float32
    assert "input meta: held at each sample's own value" in done.output
    assert "input aside: not read" in done.output
    assert record["settings"]["input"] == "image"


def test_several_inputs_together(two, command):
    _, record = measured(command, "--input", "image", "--input", "meta", "--feed", "flag=true")
    assert_allclose(values(record), NET.lambda_max(DATA, ("image", "meta")), rtol=2e-5)  # float32
    assert record["settings"]["input"] == ["image", "meta"]
    assert record["model"]["inputs"][1]["at"] == "numbers 16 to 19 of one vector"


def test_it_must_be_said_which(two, command):
    done = command("audit", "two.onnx", "--data", "two.npz")
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("onnxfim: ")]
    assert "3 inputs can be perturbed" in line
    assert "--input image --feed meta=VALUE --feed state=VALUE" in line


def test_keys_of_the_configuration_file(two, command):
    with open("onnxfim.toml", "w", encoding="utf-8") as file:
        file.write('input = "meta"\nfeed = ["flag=true"]\n')
    _, record = measured(command)
    assert_allclose(values(record), NET.lambda_max(DATA, "meta"), rtol=2e-5)  # float32


def test_sizes_for_random_data(two, command):
    made = models.model(
        [("ReduceMean", ["x"], ["z"], {"axes": [2], "keepdims": 0})], {}, shape=(3, "L"), out=(3,),
        inputs=[helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", "L"])],
    )  # fmt: skip
    models.save(made, "open.onnx")
    done, record = measured(command, "--shape", "x:[N,3,8]", "--samples", "4", model="open.onnx", data="random")
    assert record["data"]["shape"] == [3, 8], done.output
    done = command("audit", "open.onnx", "--data", "random", "--shape", "x:[2,3,8]")
    assert "--shape x: fixes the batch at 2" in done.output


def test_two_models_are_compared_on_what_both_hold(two, command, tmp_path):
    TwoInputs.drawn(5).write(tmp_path / "other.onnx")
    done = command(
        "compare", "two.onnx", "other.onnx", "--data", "two.npz", "--provider", "cpu", "--input", "image", "--feed", "flag=true",
        "--attribute", "-o", "json=c.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    means = [e["mean"]["value"] for e in json.loads((tmp_path / "c.json").read_text("utf-8"))["entries"]]
    truth = [net.lambda_max(DATA).mean() for net in (NET, TwoInputs.drawn(5))]
    assert_allclose(sorted(means), sorted(truth), rtol=2e-5)  # float32


def test_bounds_name_the_ways_to_one(two, command):
    done = command("bounds", "two.onnx", "--input", "image")
    first = done.output.splitlines()[0]
    assert first.startswith("bound not available: ")
    assert first.endswith("Inputs that are not held may have any value: --feed meta=VALUE holds one."), "the batch is no open size"
    assert "upper bound" in command("bounds", "two.onnx", "--input", "image", "--feed", "flag=1").output


def test_bounds_of_several_inputs(two, command):
    done = command(
        "bounds", "two.onnx", "--input", "image", "--input", "meta", "--feed", "flag=1", "--feed", "kind=0", "--feed", "state=0"
    )
    assert "assumes: L2 norm of one sample's inputs perturbed together, as one vector, in the units" in done.output
    assert "upper bound" in done.output
    assert "onnxfim/" not in done.output
