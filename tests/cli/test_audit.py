"""The audit command: what it prints, what it writes, and what an interrupt leaves."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from numpy.testing import assert_allclose

import onnxfim
from onnxfim.auditing import jobs as command_module
from onnxfim.record.audit import Audit
from onnxfim.record.schema import audit_schema
from onnxfim.runtime.nvidia import gpu_here
from tests.cli.conftest import MODEL
from tests.support import models
from tests.support.models import Linear, Mlp
from tests.support.tracing import untraced

SCHEMA = Draft202012Validator(audit_schema())
CPU = ("--provider", "cpu")
GOOD = ("model.onnx", "--data", "data.npz", *CPU)


def read(path):
    text = Path(path).read_text("utf-8")
    with untraced():
        SCHEMA.validate(json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in the JSON")))
    return Audit.from_json(text)


class TestOutputs:
    def test_a_report_by_default(self, here, command):
        done = command("audit", *GOOD, "--no-cache")  # another test may have audited the same file before
        assert done.exit_code == 0, done.output
        page = (here / "report.html").read_text("utf-8")
        assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
        assert "model.onnx" in page
        told = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
        assert told["verdict"] == "measured. 30 samples, no gate set: neither pass nor fail."
        assert re.fullmatch(
            r"mean [\d.]+ \[[\d.]+, [\d.]+\] nats per squared model input unit, calibrated, exact; .*", told["lambda_max"]
        )
        assert told["files"] == "report.html"
        assert re.fullmatch(r"[\d,]+ forward passes, [\d.]+ s, gradient on CPUExecutionProvider", told["cost"])

    def test_several_and_each_whole(self, here, command):
        done = command("audit", *GOOD, "-o", "html=a.html", "-o", "json=a.json", "-o", "json=b.json")
        assert done.exit_code == 0, done.output
        assert (here / "a.json").read_bytes() == (here / "b.json").read_bytes()
        assert len(read("a.json").samples) == 30
        assert not list(here.glob(".a.*")), "no temporary file is left"
        assert not (here / "report.html").exists()

    def test_json_on_standard_output(self, here, command):
        done = command("audit", *GOOD, "-q", "-o", "json=-")
        record, _, rest = done.output.rpartition("}")
        SCHEMA.validate(json.loads(record + "}"))
        assert len(rest.strip().splitlines()) == 1

    @pytest.mark.parametrize(
        "options", [(), ("--method", "sketch"), ("--output-kind", "gaussian"), ("--samples", "1"), ("--precision", "20%")], ids=str
    )
    def test_all_fit_the_schema(self, here, command, options):
        done = command("audit", *GOOD, *options, "-o", "json=a.json")
        assert done.exit_code == (4 if "1" in options else 0), done.output  # one sample says nothing of the others
        read("a.json")

    def test_an_old_report_is_replaced_whole(self, here, command):
        (here / "a.json").write_text("old " * 100_000)
        command("audit", *GOOD, "-o", "json=a.json")
        read("a.json")

    def test_settings_reach_the_audit(self, here, command):
        command(
            "audit",
            *GOOD,
            "-o",
            "json=a.json",
            "--seed",
            "7",
            "--step",
            "1e-3",
            "--budget",
            "50",
            "--method",
            "sketch",
            "--batch",
            "5",
            "--samples",
            "9",
        )
        found = read("a.json")
        assert (found.run.seed, found.run.step, found.settings.budget, found.run.method) == (7, 1e-3, 50, "sketch")
        assert found.run.times["batch"] == 5
        assert len(found.samples) == 9
        assert found.data.count == 30, "accuracy and temperature come from all the data"

    def test_the_library_gives_the_same(self, here, command):
        command("audit", *GOOD, "-o", "json=a.json", "--batch", "8")
        with np.load("data.npz") as data:
            settings = onnxfim.Settings(providers=("cpu",), batch=8)
            ours = onnxfim.audit("model.onnx", data["inputs"], data["labels"], settings)
        assert read("a.json").samples == ours.samples

    def test_without_labels(self, here, command):
        np.save(here / "x.npy", MODEL.samples(10))
        done = command("audit", "model.onnx", "--data", "x.npy", *CPU, "-o", "json=a.json")
        assert "accuracy: not measured: it needs labels" in done.stdout
        found = read("a.json")
        assert found.calibration.temperature is None
        assert all(s.lambda_max_calibrated.value is None for s in found.samples)

    def test_labels_of_their_own(self, here, command):
        np.save(here / "x.npy", MODEL.samples(10))
        np.save(here / "y.npy", np.arange(10) % 4)
        done = command("audit", "model.onnx", "--data", "x.npy", "--labels", "y.npy", *CPU, "-o", "json=a.json")
        assert done.exit_code == 4, done.output  # labels that the model does not know: near chance, so unsound
        assert [s.label for s in read("a.json").samples] == [i % 4 for i in range(10)]

    def test_random_data_are_said_to_be_none(self, here, command):
        done = command("audit", "model.onnx", "--data", "random", *CPU, "-o", "json=a.json", "-o", "html=a.html")
        assert done.exit_code == 4, done.output
        found = read("a.json")
        assert found.data.synthetic
        assert found.verdict == "inconclusive"
        assert len(found.samples) == 32
        assert "synthetic-data" in {f.id for f in found.findings}
        assert "describes no real input" in done.output
        page = (here / "a.html").read_text("utf-8")
        assert "no real input" in page


class TestWords:
    def test_quiet_prints_the_verdict_and_the_files_alone(self, here, command):
        done = command("audit", *GOOD, "-q")
        assert done.output == "verdict: measured. 30 samples, no gate set: neither pass nor fail. Report: report.html\n"

    def test_verbose_says_how_the_model_was_read(self, here, command):
        loud = command("audit", *GOOD, "-v").output
        assert "model: model.onnx, logits (the graph's last nodes make no probabilities" in loud
        assert re.search(r"step: [\d.e-]+ per coordinate, forward differences, noise floor", loud)
        assert "step:" not in command("audit", *GOOD).output

    def test_verbose_tells_what_each_stage_took(self, here, command):
        loud, plain = command("audit", *GOOD, "-v").output, command("audit", *GOOD, "--no-cache").output
        line = r"^ +\d+\.\d\d s  {}: done in \d+\.\d\d s, \d+ passes \(.*batch \d+, CPUExecutionProvider\)$"
        for stage in ("clean pass", "choosing the step", "measuring by gradients", "bounding"):
            assert re.search(line.format(stage), loud, re.MULTILINE), stage
        assert "passes (" not in plain
        assert logging.getLogger("onnxfim").handlers == []

    def test_clean_accuracy(self, here, command):
        assert re.search(
            r"^accuracy: 80\.0 % \[[\d.]+ %, [\d.]+ %\] clean; temperature", command("audit", *GOOD).output, re.MULTILINE
        )

    @pytest.mark.parametrize(("name", "full"), [("cuda", "CUDAExecutionProvider"), ("openvino", "OpenVINOExecutionProvider")])
    def test_a_provider_that_is_not_obtained_is_said(self, here, command, name, full):
        done = command("audit", "model.onnx", "--data", "data.npz", "--provider", name, "-o", "json=a.json")
        found = read("a.json")
        if found.run.provider == full:
            pytest.skip(f"this machine runs {name}")
        assert done.exit_code == 0
        assert f"warning: {name} was asked for and not obtained; the audit ran on CPUExecutionProvider" in done.output
        assert found.run.provider_reason
        assert found.run.provider_reason in done.output
        finding = next(f for f in found.findings if f.id == "provider-fallback")
        assert found.run.provider_reason in finding.message
        required = command("audit", "model.onnx", "--data", "data.npz", "--provider", name, "--require-provider")
        assert required.exit_code == 2
        assert f"{full} was required and not obtained" in required.output
        assert not (here / "report.html").exists()

    def test_auto_falls_back_and_is_silent_without_a_gpu(self, here, command):
        done = command("audit", "model.onnx", "--data", "data.npz", "-o", "json=a.json")
        found = read("a.json")
        assert done.exit_code == 0
        ids = {f.id: f.level for f in found.findings}
        assert "provider-fallback" not in ids
        assert ids.get("provider-auto") == (None if found.run.provider_reason is None else "warning")
        if not gpu_here().here:
            assert found.run.provider_reason is None
            assert "CUDA" not in done.output


class TestUnits:
    STD, MEAN = (0.5, 0.25), (0.4, 0.3)

    def images(self, here):
        model = Linear.draw(3, 24)
        models.save(model.onnx(shape=(2, 3, 4)), here / "images.onnx")
        raw = np.random.default_rng(0).random((6, 2, 3, 4)).astype(np.float32)
        ready = ((raw - np.reshape(self.MEAN, (1, 2, 1, 1))) / np.reshape(self.STD, (1, 2, 1, 1))).astype(np.float32)
        np.savez(here / "raw.npz", inputs=raw)
        np.savez(here / "ready.npz", inputs=ready)
        return model, ready

    def options(self):
        return ("--mean", "0.4,0.3", "--std", "0.5,0.25")

    def test_normalisation_is_done_and_raw_units_follow(self, here, command):  # 0.2 %: float32; both ways give the same values
        model, ready = self.images(here)
        done = command("audit", "images.onnx", "--data", "raw.npz", *self.options(), *CPU, "-o", "json=a.json")
        assert done.exit_code == 0, done.output
        done = command(
            "audit", "images.onnx", "--data", "ready.npz", *self.options(), "--already-normalised", *CPU, "-o", "json=b.json"
        )
        assert done.exit_code == 0, done.output
        truth = model.lambda_max(ready.reshape(6, -1))
        scale = np.repeat(1 / np.array(self.STD), 12)
        for name in ("a.json", "b.json"):
            found = read(name)
            assert_allclose([s.lambda_max.value for s in found.samples], truth, rtol=2e-3)
            for s, x in zip(found.samples, ready.reshape(6, -1), strict=True):
                raw = np.linalg.eigvalsh(scale[:, None] * model.fisher(x) * scale)[-1]  # F_raw = S F S, S = 1/std
                assert s.lambda_max_raw_units.low <= raw <= s.lambda_max_raw_units.high
            assert found.aggregates["lambda_max_raw_units"].units == "nats per squared raw input unit"

    def test_one_scale_is_exact(self, here, command):  # 0.2 %: float32
        self.images(here)
        command("audit", "images.onnx", "--data", "ready.npz", "--std", "0.25", "--already-normalised", *CPU, "-o", "json=a.json")
        for s in read("a.json").samples:
            assert_allclose(s.lambda_max_raw_units.value, 16 * s.lambda_max.value, rtol=1e-12)
            assert s.lambda_max_raw_units.kind == "exact"

    def test_no_scale_no_raw_units(self, here, command):
        command("audit", *GOOD, "-o", "json=a.json")
        assert all(s.lambda_max_raw_units is None for s in read("a.json").samples)


class TestInterrupt:
    def test_what_was_done_is_written_and_marked(self, here, command, monkeypatch):
        plain, seen = command_module.audit, []

        def interrupted(*args, progress, **kwargs):
            def update(p):
                seen.append(p)
                if p.stage == "measuring" and sum(q.stage == "measuring" for q in seen) == 4:  # once, as a key is pressed
                    raise KeyboardInterrupt

            return plain(*args, progress=update, **kwargs)

        monkeypatch.setattr(command_module, "audit", interrupted)
        done = command("audit", *GOOD, "-o", "json=a.json", "-o", "html=a.html")
        assert done.exit_code == 130, done.output
        found = read("a.json")
        assert found.run.partial
        assert 0 < len(found.samples) < 30
        assert f" (interrupted, partial: {len(found.samples)} of 30 samples, few-samples). " in done.stdout.splitlines()[0]
        assert "interrupted" in (here / "a.html").read_text("utf-8")

    def test_nothing_done_is_nothing_written(self, here, command, monkeypatch):
        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(command_module, "audit", interrupted)
        done = command("audit", *GOOD, "-o", "json=a.json")
        assert done.exit_code == 130
        assert "interrupted before anything was measured" in done.output
        assert not (here / "a.json").exists()

    @pytest.mark.slow
    @pytest.mark.skipif(os.name != "posix", reason="SIGINT as a terminal sends it is POSIX")
    def test_a_real_signal(self, here):
        model = Mlp.draw(10, 3000, hidden=64)
        models.save(model.onnx(), here / "large.onnx")
        np.save(here / "x.npy", model.samples(400))
        arguments = ["large.onnx", "--data", "x.npy", *CPU, "--method", "sketch", "--budget", "2000", "-v", "-o", "json=a.json"]
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "import onnxfim.auditing.jobs as r\n"
            "plain = r.audit\n"
            "def told(*a, progress, **k):\n"
            "    def update(p):\n"
            "        if p.stage == 'measuring': print('measuring', file=sys.stderr, flush=True)\n"
            "        progress(p)\n"
            "    return plain(*a, progress=update, **k)\n"
            "r.audit = told\n"
            "from onnxfim.cli import main; main()"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(onnxfim.__file__).parents[1])}
        process = subprocess.Popen(
            [sys.executable, "-c", code, "audit", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            for line in process.stderr:
                if line.startswith("measuring"):
                    break
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert "interrupted, partial" in out
        found = read("a.json")
        assert found.run.partial
        assert 0 < len(found.samples) < 400


class TestHelp:
    @pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("audit", "--help"), ("inspect", "-h")])
    def test_it_answers(self, command, arguments):
        done = command(*arguments)
        assert done.exit_code == 0
        assert "Usage:" in done.output

    def test_every_setting_has_an_option(self, command):
        page = command("audit", "--help").output
        words = (
            "--method --budget --precision --step --seed --batch --provider --require-provider --output-kind --sigma --input "
            "--output --mean --std --input-range --layout --samples --labels --tf32 -q -v -o"
        )
        for option in words.split():
            assert option in page

    def test_version(self, command):
        assert onnxfim.__version__ in command("--version").output
