"""Commands on files whose input is whole numbers: tokens with a mask, images of levels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.record.audit import Audit
from tests.support import models
from tests.support.whole_nets import Bag, Levels, Masked

NET, BAG, IMAGE = Masked.draw(), Bag.draw(), Levels.draw()
IDS, MASKS = NET.data(6)
CPU = ("--provider", "cpu", "--replay", "3", "--no-flip", "--allow-inconclusive")


@pytest.fixture
def tokens(here):
    """A file of tokens with a mask, data with each sample's own mask, and data without."""
    models.save(NET.onnx(), here / "tokens.onnx")
    np.savez(here / "masked.npz", inputs=IDS, mask=MASKS)
    np.savez(here / "ids.npz", inputs=IDS)
    return here


def values(path):
    return [s.lambda_max.value for s in Audit.load(path).samples]


def test_masks_from_the_data_and_from_an_option(tokens, command):
    done = command("audit", "tokens.onnx", "--data", "masked.npz", *CPU, "-o", "json=own.json", "-o", "html=own.html")
    assert done.exit_code == 0, done.output
    assert ", from 'e'; before it: Gather (node 'Gather_1') of the table 'E' (15 rows) by 'x'" in done.output
    assert "nats per squared unit of the embedding" in done.output
    assert "worst direction of sample" in done.output
    assert_allclose(values("own.json"), NET.lambda_max(IDS, MASKS), rtol=2e-5)  # float32 against float64
    assert "token" in (tokens / "own.html").read_text("utf-8")
    done = command("audit", "tokens.onnx", "--data", "ids.npz", "--feed", "mask=ones", *CPU, "-o", "json=ones.json")
    assert done.exit_code == 0, done.output
    assert_allclose(values("ones.json"), NET.lambda_max(IDS, np.ones_like(MASKS)), rtol=2e-5)


def test_a_mask_that_nothing_is_said_of(tokens, command):
    done = command("audit", "tokens.onnx", "--data", "ids.npz", *CPU)
    assert done.exit_code == 2
    assert "nothing says what to hold 'mask' int64 (N, 4) at" in done.output


def test_another_value_and_a_wrong_name(tokens, command):
    done = command("audit", "tokens.onnx", "--data", "masked.npz", "--at", "h", *CPU, "-o", "json=h.json")
    assert done.exit_code == 0, done.output
    assert Audit.load("h.json").units == "nats per squared unit of 'h'"
    done = command("audit", "tokens.onnx", "--data", "masked.npz", "--at", "mixxed", *CPU)
    assert (done.exit_code, "Did you mean 'mixed'?" in done.output) == (2, True)


def test_a_baseline_brings_its_value_with_it(tokens, command):
    command("audit", "tokens.onnx", "--data", "masked.npz", "--at", "h", *CPU, "-o", "json=h.json")
    done = command("audit", "tokens.onnx", "--data", "masked.npz", "--baseline", "h.json", *CPU, "-o", "json=again.json")
    assert done.exit_code == 0, done.output
    again = Audit.load("again.json")
    assert (again.model.at.tensor, again.comparison.verdict) == ("h", "pass")


def test_two_files_of_tokens_compare(tokens, command):
    other = Masked({**NET.weights, "C": (2 * NET.weights["C"]).astype(np.float32)})
    models.save(other.onnx(), tokens / "other.onnx")
    done = command("compare", "tokens.onnx", "other.onnx", "--data", "masked.npz", "--provider", "cpu", "-o", "json=both.json")
    assert done.exit_code == 0, done.output
    record = json.loads((tokens / "both.json").read_text("utf-8"))
    assert record["units"] == "nats per squared unit of the embedding"


@pytest.mark.parametrize("options", [(), ("--at", "s")])
def test_the_bound_of_an_image_of_levels(here, command, options):
    models.save(IMAGE.onnx(), here / "m.onnx")
    done = command("bounds", "m.onnx", *options, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)["bound"]
    own = np.log10(np.linalg.norm(IMAGE.A.astype(float), 2) * np.linalg.norm(IMAGE.B.astype(float), 2))
    assert found["log10_lipschitz"] >= own - (0 if options else np.log10(127.5)) - 1e-9
    assert found["log10_lipschitz"] == pytest.approx(own - (0 if options else np.log10(127.5)), abs=1e-3)


def test_several_inputs_are_not_perturbed_behind_whole_numbers(tokens, command):
    done = command("audit", "tokens.onnx", "--data", "masked.npz", "--input", "x", "--input", "mask", *CPU)
    assert done.exit_code == 2
    assert "'x' takes whole numbers, behind which one value is perturbed, expected one --input" in done.output
