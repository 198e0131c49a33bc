"""What ONNX Runtime says when it fails: each text has one meaning, and the message tells what to do."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as native

from onnxfim.errors import ModelError, ProviderError
from onnxfim.runtime import session as sessions
from onnxfim.runtime.failures import (
    FAILURES,
    OutOfMemory,
    ProviderFailed,
    RowsFailed,
    explained,
    failure,
    model_error,
    plain,
    run_error,
)
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.session import open_session, run
from tests.support import models
from tests.support.models import Linear
from tests.support.pretended import CPU, OPENVINO, pretend

LINEAR = Linear.draw(3, 4)
ONNX = LINEAR.onnx().SerializeToString()
AT = "; GPU=0 ; hostname=host ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc ; line=129 ; expr=x;"
NODE = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'conv' Status Message: "

MEMORY = [
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
    "bad allocation",
    f"{NODE}/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) "
    "Failed to allocate memory for requested buffer of size 4294967296",
    f"{NODE}Available memory of 134217728 is smaller than requested bytes of 536870912",
    f"CUDA failure 2: out of memory {AT}",
    f"CUDA failure 2: cudaErrorMemoryAllocation {AT}",
    f"{NODE}CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED {AT}",
    f"{NODE}CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED {AT}",
    f"{NODE}CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED {AT}",
    f"{NODE}CUDNN failure 4001: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED {AT}",
    "[ONNXRuntimeError] : 11 : EP_FAIL : CUDNN_FE failure 8: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (out of memory)",
    "[ONNXRuntimeError] : 11 : EP_FAIL : TensorRT EP: Error Code 2: OutOfMemory (no further information)",
    "HIP failure 2: out of memory",
    "MIOPEN failure 5: MIOPEN_STATUS_ALLOC_FAILED",
    "OpenVINO-EP [GPU] out of GPU resources: CL_OUT_OF_RESOURCES",
    "[GPU] clEnqueueMapBuffer, error code: -4 CL_MEM_OBJECT_ALLOCATION_FAILURE",
    "Exceeded max size of memory object allocation: requested 8589934592 bytes, but max alloc size supported by device is 4244635648",
    "ZE_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
    "DmlExecutionProvider/src/BucketizedBufferAllocator.cpp(74) 8007000E Not enough memory resources are available",
    "Unable to allocate 12.0 GiB for an array with shape (1024, 3, 1024, 1024) and data type float32",
]
BROKEN = [
    (f"{NODE}CUDA failure 700: an illegal memory access was encountered {AT}", "must not"),
    (f"CUDA failure 719: unspecified launch failure {AT}", "a kernel broke"),
    (f"CUDA failure 710: device-side assert triggered {AT}", "a kernel broke"),
    (f"CUDA failure 46: all CUDA-capable devices are busy or unavailable {AT}", "device was lost"),
    (f"CUDA failure 999: unknown error {AT} Xid 79, GPU has fallen off the bus", "device was lost"),
    ("[WebGPU] Device is lost", "device was lost"),
    ("887A0005 The GPU device instance has been suspended", "device was lost"),
    (f"{NODE}CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED {AT}", "CUDNN_STATUS_EXECUTION_FAILED"),
    (f"CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED {AT}", "CUBLAS_STATUS_EXECUTION_FAILED"),
    (f"CUDA failure 100: no CUDA-capable device is detected {AT}", "CUDA_VISIBLE_DEVICES"),
    (f"CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version {AT}", "Update NVIDIA's driver"),
    (f"CUDA failure 803: system has unsupported display driver / cuda driver combination {AT}", "Restart after a driver update"),
    (f"CUDA failure 209: no kernel image is available for execution on the device {AT}", "no code for this device"),
    (f"CUDA failure 101: invalid device ordinal {AT}", "no device of that number"),
]
#: As ONNX Runtime 1.27 and later say it at the first node that needs it.
NO_CUDNN = (
    "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Non-zero status code returned while running Conv node. Name:'conv' Status Message: "
    "cuDNN is not available. Install cuDNN, update the system library search path, or set enable_cudnn=0 to force native CUDA paths "
    "where available."
)


class Failing:
    """A session whose calls raise."""

    def __init__(self, error):
        self.error = error

    def get_providers(self):
        return ["CUDAExecutionProvider", CPU]

    def run(self, *_):
        raise self.error


@pytest.mark.parametrize("kind", [native.Fail, native.EPFail, native.RuntimeException, RuntimeError])
@pytest.mark.parametrize("text", MEMORY)
def test_failed_allocations_of_every_library_are_told_apart(text, kind, told):
    with pytest.raises(OutOfMemory, match=told("ran out of memory", "--batch")):
        run(Failing(kind(text)), ["z"], {})


@pytest.mark.parametrize(("text", "word"), BROKEN)
def test_what_breaks_a_provider_is_neither_memory_nor_rows(text, word, told):
    with pytest.raises(ProviderFailed, match=told("CUDAExecutionProvider: failed on this model")) as caught:
        run(Failing(native.Fail(text)), ["z"], {})
    assert word in str(caught.value)
    assert "--provider cpu" in str(caught.value) or "driver" in str(caught.value) or "nvidia-smi" in str(caught.value)
    assert isinstance(caught.value, ProviderError)
    assert not isinstance(caught.value, (RowsFailed, ModelError))


def test_ep_fail_is_the_providers_whatever_it_says(told):
    with pytest.raises(
        ProviderFailed, match=told("CUDAExecutionProvider: failed on this model (something", "Use another provider")
    ):
        run(Failing(native.EPFail("something that nobody has seen before")), ["z"], {})


def test_missing_cudnn_is_said_with_the_one_command(told):
    for error in (native.NotImplemented(NO_CUDNN), native.Fail(NO_CUDNN)):
        with pytest.raises(ProviderFailed, match=told("cuDNN is missing", "pip install 'onnxruntime-gpu[cuda,cudnn]'")) as caught:
            run(Failing(error), ["z"], {})
        assert "custom operators" not in str(caught.value)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("libcudnn.so.9: cannot open shared object file: No such file or directory", "cuDNN is missing"),
        ("libcublasLt.so.13: cannot open shared object file: No such file or directory", "a library of CUDA is missing"),
        ("libcudart.so.12: cannot open shared object file: No such file or directory", "onnxruntime-gpu[cuda,cudnn]"),
        ("libcuda.so.1: cannot open shared object file: No such file or directory", "driver is not installed"),
        ("libnvinfer.so.10: cannot open shared object file: No such file or directory", "TensorRT is missing"),
        ("CUDA failure 100: no CUDA-capable device is detected", "CUDA sees no device"),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "too old"),
    ],
)
def test_a_reason_for_not_loading_says_what_mends_it(reason, words):
    told = explained(reason)
    assert told.startswith(reason)
    assert words in told
    assert not told.endswith(".")


def test_an_unknown_reason_stays_as_it_is():
    assert explained("the stars stood badly") == "the stars stood badly"


@pytest.mark.parametrize(
    "text",
    ["Non-zero status code returned while running Gather node. Name:'g' Status Message: indices element out of data bounds, idx=50",
     "Got invalid dimensions for input: x for the following indices index: 1 Got: 9 Expected: 4",
     "Non-zero status code returned while running Relu node. Name:'out of memory, EP_FAIL, Xid 79' Status Message: bad row", ""],
)  # fmt: skip
def test_what_is_of_the_rows_stays_of_the_rows(text):
    """Names of nodes are the model's own, and mean nothing."""
    found = run_error(native.InvalidArgument(text))
    assert type(found) is RowsFailed


def test_a_path_means_nothing_either():
    path = Path("/models/libcudnn.so/EP_FAIL/model.onnx")
    found = model_error(native.Fail(f"Load model from {path} failed: no graph was found in the protobuf."), path)
    assert "does not take this model" in str(found)
    assert "cuDNN" not in str(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Fatal error: my.domain:Odd(-1) is not a registered function/op", "export it without custom operators"),
        ("NOT_IMPLEMENTED : Could not find an implementation for Conv(11) node with name 'c'", "Export it in float32"),
        ("Unsupported model IR version: opset 99 is not supported", "unsupported opset"),
    ],
)
def test_what_is_of_the_model(text, words):
    found = model_error(native.Fail(text), Path("m.onnx"))
    assert type(found) is ModelError
    assert str(found).startswith("m.onnx: ")
    assert words in str(found)


def test_every_entry_of_the_table_says_what_to_do():
    for entry in FAILURES:
        assert entry.mends
        assert entry.kind != "provider" or entry.means or failure("EP_FAIL") is entry


class TestNoFallback:
    """ONNX Runtime's own wrapper would go on with other providers, print it, and keep the name that it had."""

    def test_a_run_that_fails_does_not_go_on_elsewhere(self, capfd):
        session, _ = open_session(ONNX, Hardware(("cpu",)))
        real = session._sess

        class Broken:
            def __getattr__(self, name):
                return getattr(real, name)

            def run(self, *_):
                raise native.EPFail("[ONNXRuntimeError] : 11 : EP_FAIL : CUDNN_FE failure 11: CUDNN_BACKEND_API_FAILED")

        session._sess = Broken()
        with pytest.raises(ProviderFailed, match="EP_FAIL : CUDNN_FE failure 11"):
            run(session, ["z"], {"x": LINEAR.samples(2)})
        assert type(session._sess) is Broken
        assert capfd.readouterr().out == ""

    def test_every_session_is_opened_without(self, monkeypatch):
        given = []
        real = onnxruntime.InferenceSession

        def opening(*args, **others):
            given.append(others["enable_fallback"])
            return real(*args, **others)

        monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
        session, _ = open_session(ONNX, Hardware(("cpu",)))
        assert given == [0]
        assert not session._enable_fallback

    @pytest.mark.parametrize("error", [RuntimeError("no such device_type"), native.EPFail("EP_FAIL : cannot compile")])
    def test_a_provider_that_cannot_be_made_is_left_out_and_said(self, monkeypatch, capfd, error, told):
        state = pretend(monkeypatch)
        pretended = onnxruntime.InferenceSession

        def opening(source, options, providers, **others):
            if providers[0][0] == OPENVINO:
                raise error
            return pretended(source, options, providers=providers, **others)

        monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
        _, report = open_session(ONNX, Hardware(("openvino",)))
        assert state.opened == [(CPU,)]
        assert (report.obtained, report.explicit) == (CPU, True)
        assert str(error) in report.reason
        with pytest.raises(ProviderError, match=told(OPENVINO, "was required and not obtained", str(error))):
            open_session(ONNX, Hardware(("openvino",), require=True))
        assert capfd.readouterr().out == ""

    def test_an_older_wrapper_that_fell_back_is_opened_anew(self, monkeypatch):
        """Before ``enable_fallback`` could be given it went on with the CPU, or with CUDA without its options, and printed it."""
        pretend(monkeypatch)
        pretended = onnxruntime.InferenceSession

        def opening(source, options, providers, **others):
            if providers[0][0] == OPENVINO:
                print("EP Error no device when using OpenVINO")
                providers = [(CPU, {})]
            return pretended(source, options, providers=providers, **others)

        monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
        _, report = open_session(ONNX, Hardware(("openvino",)))
        assert report.reason == "EP Error no device when using OpenVINO"
        assert report.obtained == CPU

    def test_a_model_that_no_provider_takes_is_the_models_fault(self, monkeypatch, saved, told):
        pretend(monkeypatch)
        path = saved(models.custom())
        with pytest.raises(ModelError, match=told(str(path), "export it without custom operators")):
            open_session(path, Hardware(("openvino",)))


def test_sessions_are_made_in_one_place_without_a_fallback():
    source = Path(sessions.__file__).parents[1]
    (making,) = (text for p in source.rglob("*.py") if "InferenceSession(" in (text := p.read_text("utf-8")))
    assert "enable_fallback=0" in making


_CALL = "std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, SUCCTYPE, int)"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 {_CALL} [with ERRTYPE = cudaError; bool THRW = true] CUDA "
         "failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm ; file=/a/b.cc ; line=355 ; expr=cudaSetDevice(id);",
         "CUDA failure 100: no CUDA-capable device is detected"),
        ("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'' Status Message: /o/bfc_arena.cc:360 "
         "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Available memory of 0 is smaller than requested",
         "Non-zero status code returned while running Conv node. Name:'' Status Message: Available memory of 0 is smaller than requested"),
        ('provider_options_utils.h:187 Parse Failed to parse provider option "device_id": cuda_execution_provider_info.cc:71 operator() Invalid '
         "device ID: 7", 'Failed to parse provider option "device_id": Invalid device ID: 7'),
        ("Load model from /tmp/x.onnx failed:Protobuf parsing failed.", "Load model from /tmp/x.onnx failed:Protobuf parsing failed."),
    ],
)  # fmt: skip
def test_places_in_the_sources_of_the_runtime_are_left_out(text, told):
    assert plain(text) == told
