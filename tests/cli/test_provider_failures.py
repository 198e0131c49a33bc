"""What a user sees of a provider that is not there, is not what it seems, or breaks: one line, and an exit code."""

from __future__ import annotations

import json

import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as native

from onnxfim.record.audit import Audit
from tests.runtime.test_failures import NO_CUDNN
from tests.support.pretended import CPU, OPENVINO, needs_record, pretend

QUICK = ("--data", "data.npz", "--provider", "openvino", "--method", "sketch", "--budget", "24", "--batch", "4", "--no-cache",
         "--no-bounds", "-o", "json=a.json")  # fmt: skip
OUT_OF_MEMORY = "CUDA failure 2: out of memory ; GPU=0 ; hostname=host ; expr=cudaMalloc((void**)&p, size);"


def last(done):
    return done.output.strip().splitlines()[-1]


def cost(done):
    """The line of the card that says where it ran."""
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("cost: "))
    return line


@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="this ONNX Runtime has no CUDA")
def test_hidden_cuda(here, command, monkeypatch):
    """The real thing, wherever CUDA is in the build: no device is to be seen."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = command("audit", "model.onnx", "--data", "data.npz", "--provider", "cuda", "--require-provider", "-o", "json=a.json")
    assert done.exit_code == 2
    assert "provider CUDAExecutionProvider was required and not obtained: " in last(done)
    assert (
        "pip install 'onnxruntime-gpu[cuda,cudnn]'" in last(done) or "CUDA_VISIBLE_DEVICES" in last(done) or "driver" in last(done)
    )
    assert not (here / "a.json").exists()


class TestPlacement:
    @needs_record
    def test_where_all_nodes_ran(self, here, command, monkeypatch):
        pretend(monkeypatch)
        done = command("audit", "model.onnx", *QUICK, "--require-provider", "-v")
        assert done.exit_code == 0
        assert cost(done).endswith(f" on {OPENVINO}")
        assert f"{OPENVINO}: 2 nodes: " in done.output
        found = json.loads((here / "a.json").read_text())["run"]["placement"]
        assert [(p["provider"], p["nodes"], p["asked"], p["compute"]) for p in found] == [(OPENVINO, 2, True, None)]

    @needs_record
    def test_no_node_is_never_called_the_provider(self, here, command, monkeypatch):
        pretend(monkeypatch, leaves=None)
        done = command("audit", "model.onnx", *QUICK)
        assert done.exit_code == 0
        assert f"on {OPENVINO}" not in done.output
        assert cost(done).endswith(f" on {CPU}")
        assert f"warning: openvino was asked for and not obtained; the audit ran on {CPU}" in done.output
        assert Audit.load("a.json").run.provider_missed

    @needs_record
    def test_no_node_is_an_error_where_it_is_required(self, here, command, monkeypatch):
        pretend(monkeypatch, leaves=None)
        done = command("audit", "model.onnx", *QUICK, "--require-provider")
        assert done.exit_code == 2
        assert f"provider {OPENVINO} was required and not obtained: it loaded, but was given no node that computes" in last(done)
        assert not (here / "a.json").exists()

    @needs_record
    def test_a_part_elsewhere_is_said_with_its_share(self, here, command, monkeypatch):
        pretend(monkeypatch, leaves=frozenset({"Gemm"}))
        outputs = ("html=a.html", "markdown=a.md", "junit=a.xml", "sarif=a.sarif")
        done = command("audit", "model.onnx", *QUICK, *(word for out in outputs for word in ("-o", out)))
        assert done.exit_code == 0
        assert cost(done).endswith(f" on {OPENVINO} (1 of 2 compute nodes; 1 on {CPU})")
        assert (
            f"warning: 1 of 2 compute nodes (50%), those that a sample's values flow through, went elsewhere than to {OPENVINO}: 1 to {CPU} (Gemm 1)"
            in " ".join(done.output.split())
        )
        for name in ("a.html", "a.md", "a.xml", "a.sarif"):
            text = (here / name).read_text()
            assert "Gemm" in text, name
            assert CPU in text, name
        assert "Where its nodes ran" in (here / "a.html").read_text()

    @needs_record
    def test_a_part_elsewhere_is_an_error_where_it_is_required(self, here, command, monkeypatch):
        pretend(monkeypatch, leaves=frozenset({"Gemm"}))
        done = command("audit", "model.onnx", *QUICK, "--require-provider")
        assert done.exit_code == 2
        assert f"provider {OPENVINO} was required, but 1 of 2 compute nodes went to {CPU} (Gemm 1)" in last(done)
        assert command("audit", "model.onnx", *QUICK, "--provider", "cpu", "--require-provider").exit_code == 0

    def test_not_known_is_said_in_words(self, here, command, monkeypatch):
        pretend(monkeypatch, tells=False)
        done = command("audit", "model.onnx", *QUICK, "-v", "-o", "html=a.html")
        assert done.exit_code == 0
        assert "note: Where the nodes ran is not known" in done.output
        assert "not known: ONNX Runtime did not tell" in (here / "a.html").read_text()


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (native.EPFail("[ONNXRuntimeError] : 11 : EP_FAIL : CUDNN_FE failure 11"), "EP_FAIL : CUDNN_FE failure 11"),
            (native.NotImplemented(NO_CUDNN), "cuDNN is missing or cannot be loaded"),
            (native.NotImplemented(NO_CUDNN), "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
            (native.Fail("CUDA failure 100: no CUDA-capable device is detected"), "CUDA sees no device"),
            (native.Fail("CUDA failure 700: an illegal memory access was encountered"), "must not"),
            (native.Fail(OUT_OF_MEMORY), "ran out of memory"),
        ],
    )
    def test_at_the_first_call(self, here, command, monkeypatch, error, words):
        pretend(monkeypatch, fails_at=0, error=error)
        done = command("audit", "model.onnx", *QUICK)
        assert done.exit_code == 2
        assert words in last(done)
        assert "custom operators" not in done.output
        assert "Traceback" not in done.output
        assert not (here / "a.json").exists()

    @pytest.mark.parametrize("exit_zero", [(), ("--exit-zero", "--allow-inconclusive")])
    def test_in_the_middle(self, here, command, monkeypatch, exit_zero):
        """The outputs are written; the exit code is that of an error all the same."""
        with monkeypatch.context() as patched:
            whole = pretend(patched)
            assert command("audit", "model.onnx", *QUICK).exit_code == 0
        pretend(monkeypatch, fails_at=whole.calls - 2)
        done = command("audit", "model.onnx", *QUICK, "-o", "html=a.html", *exit_zero)
        assert done.exit_code == 2
        assert last(done).endswith("Use another provider (--provider cpu), or update ONNX Runtime and the driver.")
        assert f"{OPENVINO}: failed on this model (EP_FAIL : the device broke)" in last(done)
        assert "stopped by the provider, partial: " in done.output
        found = Audit.load("a.json")
        assert found.run.partial
        assert len(found.samples) == 30
        assert found.skipped == ()
        page = (here / "a.html").read_text()
        assert "The provider failed during this run" in page
        assert "the device broke" in page

    def test_a_comparison_is_written_and_is_no_success(self, here, command, monkeypatch):
        with monkeypatch.context() as patched:
            whole = pretend(patched)
            assert command("audit", "model.onnx", *QUICK, "-o", "json=whole.json").exit_code == 0
        pretend(monkeypatch, fails_at=whole.calls - 2)
        assert command("audit", "model.onnx", *QUICK).exit_code == 2
        done = command("compare", "whole.json", "a.json", "-o", "json=both.json")
        assert done.exit_code == 2
        assert "the device broke" in last(done)
        assert "model.onnx: its audit ended early, for its provider failed." in last(done)
        assert (here / "both.json").exists()

    def test_memory_halves_the_batch(self, here, command, monkeypatch):
        """One call fails; the audit goes on with half as many rows."""
        with monkeypatch.context() as patched:
            whole = pretend(patched)
            assert command("audit", "model.onnx", *QUICK).exit_code == 0
        values = [s.lambda_max for s in Audit.load("a.json").samples]
        state = pretend(monkeypatch)
        called = state.called

        def once():
            called()
            if state.calls == whole.calls // 2:
                raise native.Fail(OUT_OF_MEMORY)

        monkeypatch.setattr(state, "called", once)
        done = command("audit", "model.onnx", *QUICK)
        assert done.exit_code == 0
        found = Audit.load("a.json")
        assert found.run.times["batch"] == 2
        assert [s.lambda_max.value for s in found.samples] == pytest.approx([e.value for e in values], rel=1e-3)  # float32 sums
