"""What `inspect` shows, on paper and as JSON."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.record.schema import audit_schema
from tests.cli.conftest import MODEL
from tests.support import headed, models
from tests.support.step_models import forest
from tests.support.two_inputs import TwoInputs
from tests.support.whole_nets import Bag, Masked


def shown(command, path):
    done = command("inspect", path, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_the_interface(here, command):
    found = shown(command, "model.onnx")
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 6], "role": "perturbed"}]
    assert found["outputs"] == [{"name": "z", "dtype": "float32", "shape": ["N", 4]}]
    assert found["dynamic_axes"] == {"x": [0], "z": [0]}
    assert found["opsets"] == {"ai.onnx": 17}
    assert found["output_kind"]["kind"] == "logits"
    assert found["normalisation"] is None
    assert found["quantised"] is False
    content = (here / "model.onnx").read_bytes()
    assert (found["bytes"], found["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert "CPUExecutionProvider" in found["providers_in_this_build"]


@pytest.mark.parametrize(("end", "kind"), [("Softmax", "probabilities"), ("Sigmoid", "sigmoid"), ("LogSoftmax", "logits")])
def test_the_output_kind(here, command, end, kind):
    models.save(MODEL.onnx(end=end), here / "m.onnx")
    assert shown(command, "m.onnx")["output_kind"] == {"kind": kind, "node": f"{end}_2"}


def test_the_axes_of_the_output(here, command):
    assert shown(command, "model.onnx")["output_axes"] == {"classes": 1, "known_from": "the only axis beside the batch", "batch": 0}
    weights = {"A": np.ones((6, 4), np.float32)}
    models.save(models.model([("MatMul", ["x", "A"], ["z"], {})], weights, shape=(5, 6), out=(5, 4)), here / "m.onnx")
    found = shown(command, "m.onnx")
    assert (found["output_axes"]["classes"], found["output_axes"]["batch"], found["no_slope"]) == (2, 0, None)
    assert "MatMul" in found["output_axes"]["known_from"]
    models.save(models.model([("Round", ["x"], ["z"], {})], {}, shape=(4,), out=(4,)), here / "m.onnx")
    assert "Round" in shown(command, "m.onnx")["no_slope"]


def test_heads(here, command):
    nodes = [("MatMul", ["h", "W"], ["z"], {}), ("Softmax", ["z"], ["p"], {"axis": 1}), ("ArgMax", ["p"], ["label"], {"axis": 1})]
    outputs = [headed.info("label", "N", 1, kind=7), headed.info("p", "N", 4), headed.info("z", "N", 4)]
    models.save(headed.net(nodes, {"W": headed.weights(headed.H, 4)}, outputs), here / "m.onnx")
    found = shown(command, "m.onnx")
    told = {h["name"]: (h["role"], h["of"], h["kind"], h["shape"]) for h in found["heads"]}
    assert told == {
        "label": ("labels", None, None, ["N", 1]), "p": ("same", "z", "probabilities", ["N", 4]), "z": ("head", None, "logits", ["N", 4])
    }  # fmt: skip
    assert (found["audited_output"], found["output_kind"]["kind"]) == ("z", "logits")
    assert "probabilities; the same as z" in command("inspect", "m.onnx").output.replace("\n", " ")


@pytest.mark.parametrize(
    ("made", "kind"),
    [(headed.detector(), "detection"), (headed.embedder("torch"), "embedding"), (headed.zipped(), "probabilities")],
)
def test_kinds_that_are_not_scores_of_classes(here, command, made, kind):
    models.save(made, here / "m.onnx")
    assert shown(command, "m.onnx")["output_kind"]["kind"] == kind


def test_bounds_are_of_the_head_that_an_audit_takes(here, command):
    models.save(headed.captcha((3, 4)), here / "m.onnx")
    several = command("bounds", "m.onnx", "--output", "all")
    assert several.exit_code == 2
    told = " ".join(several.output.split())
    assert "--output all names 2 outputs, expected one" in told
    assert "Name one of 'letter0', 'letter1'; the bound of several together stands in the report of an audit" in told
    nodes = [("MatMul", ["h", "W0"], ["aux"], {}), ("MatMul", ["h", "W1"], ["main"], {})]
    made = headed.net(nodes, {"W0": headed.weights(headed.H, 3), "W1": headed.weights(headed.H, 3, seed=1)},
                      [headed.info("aux", "N", 3), headed.info("main", "N", 3)])  # fmt: skip
    models.save(made, here / "two.onnx")
    main, named, aux = (
        json.loads(command("bounds", "two.onnx", "--json", *asked).output)["bound"]["log10_lipschitz"]
        for asked in ((), ("--output", "main"), ("--output", "aux"))
    )
    assert main == named != aux
    models.save(headed.zipped(), here / "maps.onnx")
    assert json.loads(command("bounds", "maps.onnx", "--json").output)["bound"]["available"]


def test_normalisation(here, command):  # float32 constants
    models.save(models.normalised(np.ones((2, 12)), (0.5, 0.4, 0.3), (0.2, 0.2, 0.3)), here / "m.onnx")
    found = shown(command, "m.onnx")["normalisation"]
    assert_allclose(found["mean"], (0.5, 0.4, 0.3), rtol=1e-6)
    assert_allclose(found["std"], (0.2, 0.2, 0.3), rtol=1e-6)


@pytest.mark.parametrize("made", [models.integer(), models.custom(), models.conv()[0], models.two_headed(MODEL.W, MODEL.b)])
def test_what_cannot_be_audited_can_be_looked_at(here, command, made):
    models.save(made, here / "m.onnx")
    assert shown(command, "m.onnx")["nodes"] >= 1
    assert command("inspect", "m.onnx").exit_code == 0


def test_names_print_as_they_are(here, command):
    """Markup in a file's texts is text."""
    made = MODEL.onnx()
    made.producer_name = "[bold red]evil[/]"
    models.save(made, here / "m.onnx")
    done = command("inspect", "m.onnx")
    assert done.exit_code == 0
    assert "[bold red]evil[/]" in done.output


def test_the_schema_is_printed(command):
    done = command("schema")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == audit_schema()


def test_where_a_file_of_whole_numbers_would_be_audited(here, command):
    assert shown(command, "model.onnx")["audited_from"] == "its input"
    models.save(Bag.draw().onnx(), here / "m.onnx")
    found = shown(command, "m.onnx")
    assert found["audited_from"] == {
        "value": "e", "before_it": "Gather (node 'Gather_0') of the table 'E' (20 rows) by 'x'",
        "units": "nats per squared unit of the embedding",
    }  # fmt: skip
    assert found["no_slope"] is None
    nodes = [("Greater", ["x", "n"], ["b"], {}), ("Where", ["b", "W", "V"], ["z"], {})]
    weights = {"n": np.array([3]), "W": np.ones((1, 4), np.float32), "V": np.zeros((1, 4), np.float32)}
    models.save(models.model(nodes, weights, shape=(4,), out=(4,), dtype="int64", out_dtype="float32"), here / "m.onnx")
    assert "no float value" in shown(command, "m.onnx")["audited_from"]


def test_of_several_inputs_the_tokens_are_found(here, command):
    models.save(Masked.draw().onnx(), here / "m.onnx")
    found = shown(command, "m.onnx")
    assert [(i["name"], i["role"]) for i in found["inputs"]] == [("x", "perturbed"), ("mask", "held")]
    assert found["audited_from"]["value"] == "e"


class TestAnswersFirst:
    """What a command is asked for stands on its first line."""

    def test_of_a_file_that_can_be_audited(self, here, command):
        first, second, *_ = command("inspect", "model.onnx").stdout.splitlines()
        assert first == "answer: can be audited: logits of output 'z' [N, 4], by input 'x' float32 [N, 6]"
        assert second == "next: onnxfim audit model.onnx --data DATA.npz"
        words = second.removeprefix("next: onnxfim ").replace("DATA.npz", "data.npz").split()
        assert command(*words, "--provider", "cpu").exit_code == 0, "the command does what it says"

    def test_of_a_name_that_a_shell_would_split(self, here, command):
        models.save(MODEL.onnx(), here / "my model.onnx")
        assert "next: onnxfim audit 'my model.onnx' --data DATA.npz" in command("inspect", "my model.onnx").stdout.splitlines()

    def test_of_a_step_function(self, here, command):
        models.save(forest(3, 6, 4), here / "m.onnx")
        first = command("inspect", "m.onnx").stdout.splitlines()[0]
        assert first.startswith("answer: an audit finds no slope: ")

    def test_of_several_inputs(self, tmp_path, command):
        TwoInputs.drawn(0).write(tmp_path / "two.onnx")
        lines = command("inspect", tmp_path / "two.onnx").stdout.splitlines()
        assert lines[0].startswith("answer: can be audited: ")
        assert " --feed " in lines[1] or " --input " in lines[1]

    def test_of_what_no_audit_reads(self, here, command):
        models.save(models.integer(), here / "m.onnx")
        first = command("inspect", "m.onnx").stdout.splitlines()[0]
        assert first.startswith("answer: ")
        assert command("audit", "m.onnx", "--data", "random").exit_code != 0 or "can be audited" in first

    def test_of_a_bound(self, here, command):
        lines = command("bounds", "model.onnx").stdout.splitlines()
        assert [line.partition(":")[0] for line in lines[:4]] == ["upper bound", "meaning", "safe", "class"]
        assert any(line.startswith("layer ") for line in lines)
        record = json.loads(command("bounds", "model.onnx", "--json").stdout)["bound"]
        assert f"(log10 {record['log10_lipschitz']:.3f} and {record['log10_fisher']:.3f})" in lines[0]
        quiet = command("bounds", "model.onnx", "-q").stdout.splitlines()
        assert quiet == lines[: len(quiet)]
        assert not any(line.startswith(("layer ", "assumes")) for line in quiet)

    def test_of_a_machine(self, command):
        first = command("doctor").stdout.splitlines()[0]
        assert re.match(r"answer: audits run on \w+ExecutionProvider: ONNX Runtime [\d.]+", first)
