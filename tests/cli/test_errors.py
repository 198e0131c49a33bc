"""Each mistake of a user: one line, exit code 2, and nothing written, whole or half."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from tests.cli.conftest import MODEL
from tests.support import models

X = MODEL.samples(8)


def save(name, made):
    return lambda folder: models.save(made, folder / name)


def npz(**arrays):
    return lambda folder: np.savez(folder / "bad.npz", **arrays)


def text(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def truncated(folder):
    content = MODEL.onnx().SerializeToString()
    (folder / "bad.onnx").write_bytes(content[: len(content) // 2])


def read_only(folder):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    (folder / "closed").mkdir(mode=0o500)


NOTHING = text("unused", b"")
GOOD = ("model.onnx", "--data", "data.npz")

#: (what is prepared, arguments, words of the message in their order)
CASES = {
    "model missing": (NOTHING, ("none.onnx", "--data", "data.npz"), r"none\.onnx: no such file.*Give the path"),
    "model not ONNX": (
        text("bad.onnx", b"#!/bin/sh\necho hello\n"),
        ("bad.onnx", "--data", "data.npz"),
        r"bad\.onnx: .*(is not ONNX|no ONNX graph)",
    ),
    "model empty": (text("bad.onnx", b""), ("bad.onnx", "--data", "data.npz"), r"bad\.onnx: the file is empty"),
    "model truncated": (truncated, ("bad.onnx", "--data", "data.npz"), r"bad\.onnx: .*truncated"),
    "model a folder": (lambda f: (f / "bad.onnx").mkdir(), ("bad.onnx", "--data", "data.npz"), r"bad\.onnx: is not a file"),
    "opset unsupported": (
        save("bad.onnx", models.linear(MODEL.W, MODEL.b, opset=999)),
        ("bad.onnx", "--data", "data.npz"),
        r"bad\.onnx: unsupported opset",
    ),
    "custom operator": (save("bad.onnx", models.custom(6)), ("bad.onnx", "--data", "data.npz"), r"bad\.onnx: .*custom operators"),
    "integer inputs": (
        save("bad.onnx", models.integer(6)),
        ("bad.onnx", "--data", "data.npz"),
        r"holds float32 values from .*, but the model takes int64.*Pass whole numbers",
    ),
    "no such inner value": (
        NOTHING,
        (*GOOD, "--at", "flatt"),
        r"model\.onnx: --at: no node writes a value called 'flatt'.*Did you mean",
    ),
    "no such input": (NOTHING, (*GOOD, "--input", "y"), r"no input is called 'y'"),
    "no such output": (NOTHING, (*GOOD, "--output", "zz"), r"no output is called 'zz'.*Did you mean 'z'"),
    "data missing": (NOTHING, ("model.onnx", "--data", "none.npz"), r"none\.npz: no such file"),
    "data of another kind": (text("bad.xls", b"1,2"), ("model.onnx", "--data", "bad.xls"), r"has the suffix '\.xls'"),
    "data no archive": (text("bad.npz", b"not a zip"), ("model.onnx", "--data", "bad.npz"), r"bad\.npz"),
    "wrong shape": (
        npz(inputs=np.zeros((4, 9))),
        ("model.onnx", "--data", "bad.npz"),
        r"samples have shape \(9,\), but the model takes \(6,\)",
    ),
    "wrong dtype": (npz(inputs=np.array([["a"] * 6])), ("model.onnx", "--data", "bad.npz"), r"holds text .* expected real numbers"),
    "all NaN": (
        npz(inputs=np.full((4, 6), np.nan)),
        ("model.onnx", "--data", "bad.npz"),
        r"none of the 4 selected samples can be used.*NaN",
    ),
    "object arrays": (npz(inputs=np.array([{}, None], dtype=object)), ("model.onnx", "--data", "bad.npz"), r"bad\.npz.*object"),
    "empty data": (npz(inputs=np.zeros((0, 6))), ("model.onnx", "--data", "bad.npz"), r"is empty"),
    "labels of another length": (
        npz(inputs=X, labels=np.zeros(7, int)),
        ("model.onnx", "--data", "bad.npz"),
        r"labels have shape \(7,\), expected one for each of the 8",
    ),
    "label out of range": (
        npz(inputs=X, labels=np.array([0, 1, 2, 3, 4, 0, 0, 0])),
        ("model.onnx", "--data", "bad.npz"),
        r"label 4 of sample 4, expected 0 to 3",
    ),
    "key missing": (npz(images=X), ("model.onnx", "--data", "bad.npz"), r"--inputs-key"),
    "unknown provider": (NOTHING, (*GOOD, "--provider", "gpuu"), r"provider 'gpuu' is unknown"),
    "option of a provider not asked for": (
        NOTHING,
        (*GOOD, "--provider", "cpu", "--provider-option", "cuda:device_id=1"),
        r"cuda:device_id=1: CUDAExecutionProvider is not among the providers asked for",
    ),
    "option without a value": (NOTHING, (*GOOD, "--provider-option", "device_id"), r"provider_options: .*is not KEY=VALUE"),
    "option of an unknown provider": (NOTHING, (*GOOD, "--provider-option", "gpuu:a=1"), r"provider 'gpuu' is unknown"),
    "provider library missing": (
        NOTHING,
        (*GOOD, "--provider-library", "mine=none.so", "--provider", "mine"),
        r"provider library mine=none\.so: there is no such file",
    ),
    "provider library no library": (
        text("bad.so", b"no library"),
        (*GOOD, "--provider-library", "mine=bad.so", "--provider", "mine"),
        r"provider library mine=bad\.so: ",
    ),
    "provider library with a name no system takes": (
        NOTHING,
        (*GOOD, "--provider-library", f"mine={'x' * 5000}.so", "--provider", "mine"),
        r"provider library mine=x+\.so: there is no such file",
    ),
    "operator library with a name no system takes": (
        NOTHING,
        (*GOOD, "--custom-op-library", "x" * 5000),
        r"x: no such file, expected a library of custom operators",
    ),
    "a number of over 1,000 bits": (
        NOTHING,
        (*GOOD, "--attack-samples", "1" + "0" * 400),
        r"attack_samples: a whole number of 1,329 bits is too",
    ),
    "a number of over 64 bits": (
        NOTHING,
        (*GOOD, "--batch", str(2**63)),
        r"batch: a whole number of 64 bits is too large\. Give at most 2\^63 - 1",
    ),
    "output folder missing": (NOTHING, (*GOOD, "-o", "json=no/where.json"), r"folder 'no' does not exist"),
    "output a folder": (lambda f: (f / "out").mkdir(), (*GOOD, "-o", "html=out"), r"out: is a folder"),
    "output not writable": (read_only, (*GOOD, "-o", "json=closed/a.json"), r"cannot be written \(no permission\)"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_exit_2_and_nothing_written(here, command, monkeypatch, case):
    monkeypatch.setattr("onnxfim.cli.concluding.SILENT", 600.0)
    monkeypatch.setattr("onnxfim.cli.waiting.SILENT", 600.0)  # on a busy machine a stage that takes a second is told
    prepare, arguments, words = CASES[case]
    prepare(here)
    before = sorted(p.relative_to(here) for p in here.rglob("*"))
    done = command("audit", *arguments)
    assert done.exit_code == 2, done.output
    lines = done.output.strip().splitlines()
    assert len(lines) == 1, done.output
    assert re.match(r"onnxfim: .*" + words, lines[0]), lines[0]
    assert "Traceback" not in done.output
    assert sorted(p.relative_to(here) for p in here.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--budget", "3"), "budget"),
        (("--precision", "120%"), "is not a share such as 5%"),
        (("--step", "small"), "is not auto or a number"),
        (("--batch", "0"), "is not auto or a positive whole number"),
        (("--mean", "0.5,x"), "is not a number, or numbers with commas"),
        (("-o", "pdf=x.pdf"), "is not FORMAT=PATH with a format of html, json"),
        (("-o", "report.html"), "is not FORMAT=PATH"),
        (("--method", "guess"), "guess"),
        (("--seed", "-1"), "seed"),
    ],
)
def test_options_that_cannot_be(here, command, option, words):
    done = command("audit", *GOOD, *option)
    assert done.exit_code == 2
    assert words in done.output
    assert not list(here.glob("report*"))


@pytest.mark.parametrize(
    ("option", "words"),
    [(("--step", "-1"), "step: -1.0 is not a positive number"), (("--step", "nan"), "step: nan"),
     (("--sigma", "0"), "sigma: 0.0"), (("--std", "0"), "std: found 0"),
     (("--input-range", "1,0"), "input range"), (("--samples", "5", "--seed", str(2**63)), "seed")],
)  # fmt: skip
def test_values_that_cannot_be(here, command, option, words):
    done = command("audit", *GOOD, *option)
    assert done.exit_code == 2
    assert words in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_object_arrays_are_never_unpickled(here, command):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(here / "sprung"),)

    np.savez(here / "bad.npz", inputs=np.array([Trap()], dtype=object))
    assert command("audit", "model.onnx", "--data", "bad.npz").exit_code == 2
    assert not (here / "sprung").exists()


@pytest.mark.parametrize(("count", "code"), [(16, 0), (8, 4)])  # one of 16 is a warning, one of 8 more than a tenth
def test_one_bad_sample_among_good_ones_is_skipped_and_listed(here, command, count, code):
    from onnxfim.record.audit import Audit

    bad = MODEL.samples(count)
    bad[2, 3] = np.inf
    np.savez(here / "bad.npz", inputs=bad)
    done = command("audit", "model.onnx", "--data", "bad.npz", "-o", "json=a.json", "--provider", "cpu")
    assert done.exit_code == code, done.output
    found = Audit.from_json((here / "a.json").read_text())
    assert [s.index for s in found.skipped] == [2]
    assert len(found.samples) == count - 1
    assert "1 sample was skipped" in done.output


def test_a_model_that_nothing_changes_exits_3(here, command):
    models.save(models.constant(4, 6), here / "flat.onnx")
    done = command("audit", "flat.onnx", "--data", "data.npz", "-o", "json=a.json", "--provider", "cpu")
    assert done.exit_code == 3, done.output
    assert "not measured" in done.output
    assert (here / "a.json").exists()


@pytest.mark.parametrize("arguments", [("inspect", "none.onnx"), ("inspect", "data.npz")])
def test_inspect_says_it_in_one_line_too(here, command, arguments):
    done = command(*arguments)
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1
    assert done.output.startswith("onnxfim: ")
