"""Providers: what is asked for, what is obtained, and what is said where they differ."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_allclose

from onnxfim.errors import ModelError, ProviderError
from onnxfim.runtime import cuda, providers
from onnxfim.runtime.failures import OutOfMemory
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.nvidia import NvidiaGpu
from onnxfim.runtime.providers import available_providers, provider_names
from onnxfim.runtime.session import _session_options, open_session, run, slow_to_plan, slow_to_rearrange
from tests.support import models
from tests.support.models import Linear

LINEAR = Linear.draw(3, 4)
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def runs_cuda():
    return open_session(LINEAR.onnx().SerializeToString(), Hardware(("cuda",)))[1].obtained == CUDA


@pytest.fixture
def without_cuda(runs_cuda):
    if runs_cuda:
        pytest.skip("this machine runs CUDA: nothing falls back")


class TestNames:
    @pytest.mark.parametrize(
        ("given", "full"),
        [("cpu", CPU), ("CPU", CPU), ("cuda", CUDA), (CUDA, CUDA), ("cpuexecutionprovider", CPU),
         ("tensorrt", "TensorrtExecutionProvider"), ("openvino", "OpenVINOExecutionProvider"),
         ("dml", "DmlExecutionProvider"), ("directml", "DmlExecutionProvider")],
    )  # fmt: skip
    def test_short_and_full_names(self, given, full):
        assert provider_names([given]) == (full,)

    def test_auto_ends_in_the_cpu(self):
        names = provider_names(["auto"])
        assert names[-1] == CPU
        assert (CUDA in names) == (CUDA in available_providers())

    def test_order_is_kept_and_doubles_go(self):
        assert provider_names(["cpu", "cuda", "CPU"]) == (CPU, CUDA)

    @pytest.mark.parametrize("name", ["gpu", "nvidia", "", "cudaa"])
    def test_an_unknown_one_is_refused_with_the_known(self, name, told):
        with pytest.raises(ProviderError, match=told("provider", repr(name), "is unknown", "knows:", CPU)):
            provider_names([name])


class TestFallback:
    def test_a_named_provider_is_missed(self, without_cuda):
        _, report = open_session(LINEAR.onnx().SerializeToString(), Hardware(("cuda",)))
        assert report.obtained == CPU
        assert report.explicit
        assert report.reason
        assert "\n" not in report.reason

    @pytest.mark.parametrize("gpu", [NvidiaGpu("none"), NvidiaGpu("hidden", why="no device (error 100)")])
    def test_auto_says_nothing_where_there_is_no_gpu(self, without_cuda, monkeypatch, gpu):
        monkeypatch.setattr(cuda, "gpu_here", lambda: gpu)
        _, report = open_session(LINEAR.onnx().SerializeToString(), Hardware(("auto",)))
        assert (report.obtained, report.reason, report.explicit, report.remedy) == (CPU, None, False, None)

    def test_auto_says_why_and_what_mends_it_where_there_is_one(self, without_cuda, monkeypatch):
        if CUDA not in available_providers():
            pytest.skip("this build has no CUDA: nothing was missed")
        monkeypatch.setattr(cuda, "gpu_here", lambda: NvidiaGpu("found", (14, 0), "600.10"))
        cuda._remedy.cache_clear()
        _, report = open_session(LINEAR.onnx().SerializeToString(), Hardware(("auto",)))
        cuda._remedy.cache_clear()
        assert report.obtained == CPU
        assert not report.explicit
        assert report.reason
        assert "To mend it: pip install" in report.remedy

    def test_cuda_that_was_named_is_told_even_without_a_gpu(self, without_cuda, monkeypatch):
        monkeypatch.setattr(cuda, "gpu_here", lambda: NvidiaGpu("none"))
        cuda._remedy.cache_clear()
        _, report = open_session(LINEAR.onnx().SerializeToString(), Hardware(("cuda",)))
        assert report.reason
        assert report.remedy == "There is no NVIDIA GPU: audits run on the CPU."

    def test_the_cpu_needs_no_reason(self):
        _, report = open_session(LINEAR.onnx().SerializeToString(), Hardware(("cpu",)))
        assert (report.obtained, report.reason, report.explicit) == (CPU, None, False)

    def test_required_and_not_obtained(self, without_cuda, told):
        with pytest.raises(ProviderError, match=told(CUDA, "was required and not obtained")):
            open_session(LINEAR.onnx().SerializeToString(), Hardware(("cuda",), require=True))

    def test_a_provider_that_this_build_has_not(self, monkeypatch, told):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
        _, report = open_session(LINEAR.onnx().SerializeToString(), Hardware(("openvino",)))
        assert "does not contain OpenVINOExecutionProvider; it has CPUExecutionProvider" in report.reason
        assert report.explicit

    def test_a_second_choice_that_is_obtained_fulfils_a_requirement(self, without_cuda):
        session, report = open_session(LINEAR.onnx().SerializeToString(), Hardware(("cuda", "cpu"), require=True))
        assert report.obtained == CPU
        assert session.get_providers() == [CPU]


class TestErrors:
    @pytest.mark.parametrize(
        "text",
        ["[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
         "BFCArena::AllocateRawInternal Failed to allocate memory for requested",
         "CUDA failure 2: out of memory", "CUDNN_STATUS_ALLOC_FAILED"],
    )  # fmt: skip
    def test_failed_allocations_are_told_apart(self, text, monkeypatch):
        class Session:
            def run(self, *_):
                raise RuntimeError(text)

        with pytest.raises(OutOfMemory, match=r"ran out of memory.*--batch"):
            run(Session(), ["z"], {})

    def test_a_run_of_the_wrong_shape(self, told):
        session, _ = open_session(LINEAR.onnx().SerializeToString(), Hardware(("cpu",)))
        with pytest.raises(ModelError, match=told("ONNX Runtime failed on it")) as caught:
            run(session, ["z"], {"x": np.zeros((2, 9), np.float32)})
        assert not isinstance(caught.value, OutOfMemory)

    def test_a_custom_operator(self, saved, told):
        path = saved(models.custom())
        with pytest.raises(ModelError, match=told(str(path), "export it without custom operators")):
            open_session(path, Hardware(("cpu",)))

    def test_an_opset_from_the_future(self, saved, told):
        path = saved(models.linear(LINEAR.W, LINEAR.b, opset=999))
        with pytest.raises(ModelError, match=told(str(path), "unsupported opset")):
            open_session(path, Hardware(("cpu",)))


def test_one_thread_gives_the_same(saved):  # float32 sums in another order
    X = LINEAR.samples(5)
    for threads in (None, 1, 2):
        session, _ = open_session(saved(LINEAR.onnx()), Hardware(("cpu",)), threads=threads)
        assert_allclose(run(session, ["z"], {"x": X})[0], LINEAR.logits(X), atol=1e-5)


def test_what_the_runtime_says_stays_off_the_output(capfd):
    open_session(LINEAR.onnx().SerializeToString(), Hardware(("auto",)))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_version_is_the_runtimes():
    assert providers.runtime_version() == onnxruntime.__version__


def test_a_plain_session_runs_the_graph_as_it_is_written():
    import onnxruntime

    level = onnxruntime.GraphOptimizationLevel
    assert _session_options(None, None, plain=True).graph_optimization_level == level.ORT_DISABLE_ALL
    assert _session_options(None, None).graph_optimization_level != level.ORT_DISABLE_ALL


@pytest.mark.parametrize(("nodes", "outputs", "slow"), [(8000, 1000, False), (8001, 1, True), (2000, 1001, True)])
def test_graphs_that_take_long_to_rearrange(nodes, outputs, slow):
    graph = onnx.GraphProto()
    for _ in range(nodes):
        graph.node.add()
    for _ in range(outputs):
        graph.output.add()
    assert slow_to_rearrange(graph) is slow


@pytest.mark.parametrize("nodes", [2500, 2501])
def test_graphs_that_take_long_to_plan(nodes):
    graph = onnx.GraphProto()
    for _ in range(nodes):
        graph.node.add()
    assert slow_to_plan(graph) is (nodes > 2500)
    assert _session_options(None, None, planned=not slow_to_plan(graph)).enable_mem_reuse is (nodes <= 2500)


def test_a_single_number_may_be_fed_before_the_rows():
    nodes = [onnx.helper.make_node("Mul", ["s", "x"], ["y"])]
    kinds = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, d) for n, d in (("s", []), ("x", ["N"]), ("y", ["N"]))]
    graph = onnx.helper.make_graph(nodes, "scaled", kinds[:2], kinds[2:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    session, _ = open_session(model.SerializeToString(), Hardware(("cpu",)))
    feeds = {"s": np.array(2, np.float32), "x": np.arange(3, dtype=np.float32)}
    assert_allclose(run(session, ["y"], feeds)[0], [0, 2, 4])
