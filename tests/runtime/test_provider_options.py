"""Options of providers: which a session is opened with, what becomes of them, and what is said where they are not taken."""

from __future__ import annotations

import os
import warnings

import onnxruntime
import pytest

from onnxfim.errors import ModelError, ProviderError
from onnxfim.runtime import provider_options, providers
from onnxfim.runtime.hardware import Hardware, InputProfile
from onnxfim.runtime.provider_options import DEFAULTS, TF32_VARIABLE, provider_chain
from onnxfim.runtime.session import open_session
from tests.support.models import Linear

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
MODEL = Linear.draw(3, 4).onnx().SerializeToString()
KNOWN = {"device_id", "use_tf32", "cudnn_conv_algo_search", "arena_extend_strategy", "trt_fp16_enable", "precision"}
ALWAYS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


class Runtime:
    """Stands for ONNX Runtime on a machine with an NVIDIA card, as far as opening a session goes.

    Attributes:
        opened: Chains that sessions were asked for with, the last one at the end.
        broken: Providers that cannot be made.
        tells: Options that sessions tell otherwise than they were set.
    """

    def __init__(self):
        self.opened, self.broken, self.tells = [], set(), {}
        runtime = self

        class Session:
            def __init__(self, source, options, providers=None, enable_fallback=1):
                assert enable_fallback == 0, "ONNX Runtime's own fallback loses the options"
                runtime.opened.append(providers)
                for name, given in providers:
                    assert all(isinstance(v, str) for v in given.values())
                    if name in runtime.broken:
                        raise RuntimeError(f"Please install the libraries of {name}")
                    unknown = sorted(set(given) - KNOWN - {k for k in given if k.startswith("trt_")})
                    if unknown and name != CPU:
                        raise RuntimeError(f'provider_options_utils.h Parse(...) Unknown provider option: "{unknown[0]}".')
                self._providers = providers

            def disable_fallback(self):
                pass

            def get_providers(self):
                return [n for n, _ in self._providers]

            def get_provider_options(self):
                return {n: {} if n == CPU else {**given, **runtime.tells} for n, given in self._providers}

        self.Session = Session


@pytest.fixture
def nvidia(monkeypatch):
    runtime = Runtime()
    monkeypatch.setattr(onnxruntime, "InferenceSession", runtime.Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(provider_options, "_preload_cuda", lambda: None)
    monkeypatch.setattr(provider_options, "_cuda_is_loaded", lambda: False)
    monkeypatch.setenv(TF32_VARIABLE, "1")  # so that it is as before after the test
    monkeypatch.delenv(TF32_VARIABLE)
    provider_options._without_tf32.cache_clear()
    yield runtime
    provider_options._without_tf32.cache_clear()


def of(report, *, ours=False):
    return {(o.provider, o.key): (o.value, o.running, o.taken) for o in report.options if o.ours == ours}


class TestChain:
    def test_cuda_has_our_defaults(self, nvidia):
        _, report = open_session(MODEL, Hardware(("cuda",)))
        assert nvidia.opened == [[(CUDA, ALWAYS), (CPU, {})]]
        assert of(report, ours=True) == {(CUDA, key): (value, value, True) for key, value in ALWAYS.items()}
        assert of(report) == {}

    def test_auto_is_cuda_with_them_then_the_cpu(self, nvidia):
        open_session(MODEL)
        assert nvidia.opened == [[(CUDA, ALWAYS), (CPU, {})]]

    def test_a_users_option_wins_and_is_echoed(self, nvidia):
        given = (("cudnn_conv_algo_search", "DEFAULT"), ("device_id", "1"))
        _, report = open_session(MODEL, Hardware(("cuda",), options=given))
        assert nvidia.opened[0][0] == (CUDA, {**ALWAYS, **dict(given)})
        assert of(report) == {(CUDA, key): (value, value, True) for key, value in given}

    @pytest.mark.parametrize(("given", "precision"), [((), "ACCURACY"), ((("precision", "FP16"),), "FP16")])
    def test_openvino_computes_in_the_files_precision(self, nvidia, monkeypatch, given, precision):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])
        monkeypatch.setattr(provider_options.plugins, "bringing", lambda *_: None)
        open_session(MODEL, Hardware(("openvino",), options=given))
        assert nvidia.opened == [[(OPENVINO, {"precision": precision}), (CPU, {})]]

    def test_the_cpu_ends_a_chain(self, nvidia):
        _, report = open_session(MODEL, Hardware(("cpu", "cuda"), options=(("cuda:device_id", "1"),)))
        assert nvidia.opened == [[(CPU, {})]]
        assert of(report) == {(CUDA, "device_id"): ("1", None, False)}

    def test_tensorrt_is_followed_by_cuda_on_its_device(self, nvidia):
        open_session(MODEL, Hardware(("tensorrt:1",)))
        assert nvidia.opened == [[(TENSORRT, {"device_id": "1"}), (CUDA, {**ALWAYS, "device_id": "1"}), (CPU, {})]]

    def test_tensorrt_keeps_what_it_builds_and_expects_the_shapes_of_an_audit(self, nvidia, tmp_path):
        open_session(MODEL, Hardware(("tensorrt",), engines=tmp_path, profile=InputProfile("x", (3, 8, 8), 64, 1024)))
        kept = str(tmp_path / "tensorrt")
        assert nvidia.opened[0][0] == (
            TENSORRT,
            {"trt_engine_cache_enable": "1", "trt_engine_cache_path": kept, "trt_timing_cache_enable": "1", "trt_timing_cache_path": kept,
             "trt_profile_min_shapes": "x:1x3x8x8", "trt_profile_opt_shapes": "x:64x3x8x8", "trt_profile_max_shapes": "x:1024x3x8x8"},
        )  # fmt: skip

    def test_engines_with_tf32_lie_apart(self, nvidia, tmp_path):
        open_session(MODEL, Hardware(("tensorrt",), tf32=True, engines=tmp_path))
        assert nvidia.opened[0][0][1]["trt_engine_cache_path"] == str(tmp_path / "tensorrt-tf32")
        assert nvidia.opened[0][1][1]["use_tf32"] == "1"

    def test_engines_that_cannot_be_kept_are_not_asked_for(self, nvidia, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "tensorrt").write_text("")
        for k, folder in enumerate((tmp_path / "file", tmp_path / "file" / "deeper", tmp_path / "taken")):
            open_session(MODEL, Hardware(("tensorrt",), engines=folder))
            assert not [key for key in nvidia.opened[k][0][1] if "cache" in key], folder

    def test_a_provider_that_does_not_load_leaves_the_others_their_options(self, nvidia):
        nvidia.broken = {TENSORRT}
        _, report = open_session(MODEL, Hardware(("tensorrt:1",), options=(("trt_fp16_enable", "1"),)))
        assert nvidia.opened[-1] == [(CUDA, {**ALWAYS, "device_id": "1"}), (CPU, {})]
        assert (report.obtained, report.explicit) == (CUDA, True)
        assert "Please install the libraries of Tensorrt" in report.reason
        assert of(report)[TENSORRT, "trt_fp16_enable"] == ("1", None, False)
        assert of(report)[CUDA, "device_id"] == ("1", "1", True)

    def test_cuda_in_place_of_a_required_tensorrt_is_refused(self, nvidia, told):
        nvidia.broken = {TENSORRT}
        with pytest.raises(ProviderError, match=told(TENSORRT, "was required and not obtained")):
            open_session(MODEL, Hardware(("tensorrt",), require=True))

    def test_every_default_says_why(self):
        for defaults in DEFAULTS.values():
            assert all(d.why for d in defaults)
            assert len({d.key for d in defaults}) == len(defaults)


class TestWhatBecomesOfThem:
    def test_an_unknown_key_is_the_providers_own_message(self, nvidia, told):
        with pytest.raises(
            ProviderError, match=told(f"{CUDA}: devise_id=1", "not taken", "Unknown provider option", "documentation")
        ):
            open_session(MODEL, Hardware(("cuda",), options=(("devise_id", "1"),)))

    def test_one_that_the_session_runs_otherwise(self, nvidia):
        nvidia.tells = {"device_id": "0"}
        _, report = open_session(MODEL, Hardware(("cuda:1",)))
        assert of(report) == {(CUDA, "device_id"): ("1", "0", False)}

    @pytest.mark.parametrize(
        ("asked", "running"), [("True", "1"), ("0", "false"), ("2147483648", "2147483648.0"), ("default", "DEFAULT")]
    )
    def test_two_spellings_of_one_value(self, nvidia, asked, running):
        nvidia.tells = {"device_id": running}
        _, report = open_session(MODEL, Hardware(("cuda",), options=(("device_id", asked),)))
        assert of(report)[CUDA, "device_id"][2] is True

    def test_the_cpu_takes_none_as_the_real_one_shows(self):
        session, report = open_session(MODEL, Hardware(("cpu",), options=(("use_arena", "0"), ("foo", "1"))))
        assert session.get_provider_options() == {CPU: {}}
        assert of(report) == {(CPU, "use_arena"): ("0", None, False), (CPU, "foo"): ("1", None, False)}

    def test_without_options_nothing_is_told(self):
        assert open_session(MODEL, Hardware(("cpu",)))[1].options == ()

    @pytest.mark.parametrize(("value", "tf32"), [("1", False), ("0", True), ("true", False)])
    def test_tf32_is_said_by_its_setting(self, nvidia, value, tf32, told):
        with pytest.raises(ProviderError, match=told(f"use_tf32={value}", "the setting tf32 is", "--tf32")):
            open_session(MODEL, Hardware(("cuda",), tf32=tf32, options=(("use_tf32", value),)))

    def test_a_model_that_is_none_is_no_matter_of_options(self, told):
        with pytest.raises(ModelError, match=told("ONNX Runtime")):
            open_session(b"no model", Hardware(("cpu",), options=(("foo", "1"),)))

    def test_a_chain_warns_of_nothing(self, nvidia):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            open_session(MODEL, Hardware(("openvino", "cuda")))
        assert [n for n, _ in nvidia.opened[0]] == [CUDA, CPU]


class TestTF32UnderTensorRT:
    def test_it_is_off_before_the_libraries_load(self, nvidia):
        _, report = open_session(MODEL, Hardware(("tensorrt",)))
        assert os.environ[TF32_VARIABLE] == "0"
        assert report.tf32_doubt is None

    def test_it_may_be_on_where_they_are_loaded_already(self, nvidia, monkeypatch):
        monkeypatch.setattr(provider_options, "_cuda_is_loaded", lambda: True)
        for _ in range(2):  # the second session knows it too
            assert f"before {TF32_VARIABLE}=0" in open_session(MODEL, Hardware(("tensorrt",)))[1].tf32_doubt

    def test_not_where_the_caller_has_set_it(self, nvidia, monkeypatch):
        monkeypatch.setattr(provider_options, "_cuda_is_loaded", lambda: True)
        monkeypatch.setenv(TF32_VARIABLE, "0")
        assert open_session(MODEL, Hardware(("tensorrt",)))[1].tf32_doubt is None

    @pytest.mark.parametrize("hardware", [Hardware(("cuda",)), Hardware(("tensorrt",), tf32=True), Hardware(("cpu",))])
    def test_else_the_variable_is_left_alone(self, nvidia, hardware):
        assert open_session(MODEL, hardware)[1].tf32_doubt is None
        assert TF32_VARIABLE not in os.environ

    def test_no_library_of_cuda_is_loaded_by_this_package_itself(self):
        assert not provider_options._CUDA_LIBRARIES.search("/usr/lib/libm.so.6")
        assert provider_options._CUDA_LIBRARIES.search("7f00 r-xp /x/libcublasLt.so.13")


def test_chain_of_a_provider_that_is_nowhere(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    chain = provider_chain(Hardware(("rknpu",), options=(("a", "b"),)))
    assert [k.provider for k in chain.links] == [CPU]
    assert [(o.provider, o.key, o.taken) for o in chain.lost] == [("RknpuExecutionProvider", "a", False)]
    assert providers.available_providers() == (CPU,)
