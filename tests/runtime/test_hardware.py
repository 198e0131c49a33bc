"""Where a model is to run: devices, options and their providers, and where the graphs beside it go."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from onnxfim.auditing.subject import hardware_of
from onnxfim.errors import ProviderError
from onnxfim.record.settings import Settings
from onnxfim.runtime.forward import profile_of
from onnxfim.runtime.hardware import Hardware, InputProfile

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"


@pytest.fixture(autouse=True)
def nvidia_build(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])


class TestNames:
    def test_cuda_comes_after_tensorrt(self):
        assert Hardware(("tensorrt", "cpu")).names == (TENSORRT, CUDA, CPU)
        assert Hardware(("tensorrt", "cuda")).names == (TENSORRT, CUDA)

    def test_what_was_not_named_fulfils_no_requirement(self):
        assert Hardware(("tensorrt",)).named == (TENSORRT,)

    def test_not_in_a_build_without_cuda(self, monkeypatch):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
        assert Hardware(("tensorrt",)).names == (TENSORRT,)

    def test_auto_is_cuda_then_the_cpu(self):
        assert Hardware().names == (CUDA, CPU)


class TestOptions:
    @pytest.mark.parametrize(
        ("providers", "options", "asked"),
        [
            (("cuda",), (("device_id", "1"),), {CUDA: {"device_id": "1"}}),
            (("cuda:1",), (), {CUDA: {"device_id": "1"}}),
            (("cuda:1", "cpu"), (("device_id", "1"),), {CUDA: {"device_id": "1"}}),
            (("openvino:GPU",), (), {OPENVINO: {"device_type": "GPU"}}),
            (("auto",), (("device_id", "1"),), {CUDA: {"device_id": "1"}}),
            (("tensorrt",), (("trt_fp16_enable", "1"), ("cuda:use_tf32", "0")),
             {TENSORRT: {"trt_fp16_enable": "1"}, CUDA: {"use_tf32": "0"}}),
            (("tensorrt:2",), (), {TENSORRT: {"device_id": "2"}, CUDA: {"device_id": "2"}}),
            (("openvino", "cpu"), (("load_config", '{"CPU": {"A": "f32"}}'),), {OPENVINO: {"load_config": '{"CPU": {"A": "f32"}}'}}),
        ],
    )  # fmt: skip
    def test_whose_they_are(self, providers, options, asked):
        assert Hardware(providers, options=options).asked == asked

    def test_one_of_a_provider_that_is_not_asked_for(self, told):
        with pytest.raises(ProviderError, match=told("cuda:device_id=1", CUDA, "is not among", CPU, "--provider cuda")):
            _ = Hardware(("cpu",), options=(("cuda:device_id", "1"),)).asked

    def test_one_that_is_given_twice(self, told):
        with pytest.raises(ProviderError, match=told("device_id=0", "device_id is 1 already", "Give it once")):
            _ = Hardware(("cuda:1",), options=(("device_id", "0"),)).asked

    def test_from_settings(self):
        settings = Settings(
            providers=("cuda",), provider_options=("device_id=1", "a = b=c"), provider_libraries=("m=/x.so",), tf32=True
        )
        found = hardware_of(settings)
        assert found == Hardware(("cuda",), tf32=True, options=(("device_id", "1"), ("a", "b=c")), libraries=(("m", "/x.so"),))


class TestBesideTheModel:
    def test_under_tensorrt_all_is_on_cuda_on_the_same_device(self, tmp_path):
        profile = InputProfile("x", (3,), 1, 8)
        beside = Hardware(("tensorrt:1",), require=True, tf32=True, engines=tmp_path, profile=profile).on(TENSORRT)
        assert (beside.names, beside.device, beside.require) == ((CUDA,), ("cuda", 1), False)
        assert (beside.engines, beside.profile, beside.tf32) == (None, None, True)
        assert beside.of_rows == beside

    def test_cudas_own_options_go_with_it(self):
        beside = Hardware(("tensorrt",), options=(("trt_fp16_enable", "1"), ("cuda:device_id", "3"))).on(TENSORRT)
        assert beside.asked == {CUDA: {"device_id": "3"}}
        assert beside.device == ("cuda", 3)

    def test_a_fallback_leaves_the_others_options_behind(self):
        assert Hardware(("cuda:1", "cpu")).on(CPU).asked == {}

    def test_other_providers_have_their_rows_from_the_cpu(self):
        beside = Hardware(("openvino",), options=(("precision", "FP16"),)).on(OPENVINO)
        assert beside.asked == {OPENVINO: {"precision": "FP16"}}
        assert beside.device == ("cpu", 0)
        assert (beside.of_rows.names, beside.of_rows.asked) == ((CPU,), {})


class TestProfile:
    def test_as_tensorrt_spells_it(self):
        assert InputProfile("pixel_values", (3, 32, 32), 64, 1024).of(8) == "pixel_values:8x3x32x32"

    @pytest.mark.parametrize(
        ("shape", "batch", "usual", "most"),
        [
            ((3, 32, 32), 16, 16, 16),
            ((3, 32, 32), None, 64, 1024),
            ((3, 32, 32), 2, 2, 8),  # the first calls have eight rows, whatever the batch
            ((3, 2048, 2048), None, 1, 8),  # one row is 48 MiB
            ((3, 224, 224), None, 64, 111),  # 64 MiB of float32
        ],
    )
    def test_the_batches_of_an_audit(self, shape, batch, usual, most):
        assert profile_of("x", shape, np.dtype(np.float32), batch) == InputProfile("x", shape, usual, most)
