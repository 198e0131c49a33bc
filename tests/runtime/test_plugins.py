"""Plug-in providers: found by name or named by path, loaded only then, and what is said where they do not work.

The fakes follow ONNX Runtime's documented functions; the last test runs a plug-in that is installed.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose

from onnxfim.errors import ProviderError
from onnxfim.runtime import plugins
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.providers import provider_names
from onnxfim.runtime.session import open_session, run
from tests.support.models import Linear

CPU, CUDA, NOVEL = "CPUExecutionProvider", "CUDAExecutionProvider", "NovelExecutionProvider"
LINEAR = Linear.draw(3, 4)
MODEL = LINEAR.onnx().SerializeToString()


def device(provider, kind, path=None):
    metadata = {} if path is None else {"library_path": path, "version": "0.9"}
    return SimpleNamespace(ep_name=provider, ep_metadata=metadata, device=SimpleNamespace(type=f"OrtHardwareDeviceType.{kind}"))


class Runtime:
    """Stands for an ONNX Runtime that takes plug-ins.

    Attributes:
        loaded: Libraries, by the name they were registered as.
        brings: Devices that each library has: provider and kind.
        opened: Providers and devices of each session, by both ways of saying it.
    """

    def __init__(self):
        self.loaded, self.brings, self.opened, self.refuses = {}, {}, [], None

    def register(self, name, path):
        if self.refuses:
            raise RuntimeError(self.refuses)
        if name in self.loaded:
            raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : library is already registered under {name}")
        self.loaded[name] = path

    def devices(self):
        mine = [device(provider, kind, path) for path in self.loaded.values() for provider, kind in self.brings.get(path, ())]
        return [device(CPU, "CPU"), *mine]

    def available(self):
        return list(dict.fromkeys([CUDA, CPU, *(d.ep_name for d in self.devices())]))


@pytest.fixture
def runtime(monkeypatch):
    found = Runtime()

    class Options:
        def __init__(self):
            self.added = []

        def add_session_config_entry(self, key, value):
            pass

        def add_provider_for_devices(self, devices, options):
            self.added.append(([(d.ep_name, d.device.type.rpartition(".")[2]) for d in devices], options))

    class Session:
        def __init__(self, source, options, providers=None, enable_fallback=1):
            found.opened.append(providers or options.added)
            self._own = [n for n, _ in providers] if providers else [d[0][0] for d, _ in options.added]
            self._told = dict(providers) if providers else {d[0][0]: o for d, o in options.added}
            for name, given in self._told.items():
                if "breaks" in given:
                    raise MemoryError(f"/src/plugin.cc:1 Make() [ONNXRuntimeError] : 1 : FAIL : {name} found no backend")
                if "bad" in given:
                    raise ValueError(f"[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : {name} has no option 'bad'")

        def disable_fallback(self):
            pass

        def get_providers(self):
            return [*dict.fromkeys([*self._own, CPU])]

        def get_provider_options(self):
            return self._told

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", found.register, raising=False)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", found.devices, raising=False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", found.available)
    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    _forget()
    yield found
    _forget()


def _forget():
    plugins.register.cache_clear()
    plugins._installed.cache_clear()


@pytest.fixture
def library(tmp_path, runtime):
    path = tmp_path / "libnovel.so"
    path.write_bytes(b"code")
    runtime.brings[str(path)] = [(NOVEL, "CPU"), (NOVEL, "GPU")]
    return path


@pytest.fixture
def package(tmp_path, monkeypatch, library):
    """An installed package that follows the convention of those on the registry."""

    def install(distribution="onnxruntime-ep-novel", module="onnxruntime_ep_novel", body=None):
        site = tmp_path / "site"
        (site / module).mkdir(parents=True)
        body = body or f"def get_library_path():\n    return {str(library)!r}\ndef get_ep_names():\n    return [{NOVEL!r}]\n"
        (site / module / "__init__.py").write_text(body)
        info = site / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "RECORD").write_text(f"{module}/__init__.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, module, raising=False)
        _forget()
        return library

    return install


class TestPackages:
    @pytest.mark.parametrize("name", ["novel", "Novel", NOVEL, "novelexecutionprovider"])
    def test_is_found_by_the_providers_name(self, package, runtime, name):
        package()
        _, report = open_session(MODEL, Hardware((name,), require=True))
        assert report.obtained == NOVEL
        assert report.plugin == "onnxruntime-ep-novel 1.2, library version 0.9"
        assert runtime.opened == [[([(NOVEL, "CPU")], {})]]

    def test_is_not_loaded_before_somebody_asks(self, package, runtime):
        package()
        open_session(MODEL, Hardware(("cpu",)))
        assert runtime.loaded == {}
        assert "onnxruntime_ep_novel" not in sys.modules
        assert plugins.packages()[-1:] != ()
        assert "onnxruntime_ep_novel" not in sys.modules

    def test_names_are_known_without_loading(self, package, runtime):
        package()
        assert provider_names(["novel"]) == (NOVEL,)
        assert runtime.loaded == {}

    def test_one_without_ep_in_its_name_and_with_other_functions(self, package, library, runtime):
        package(
            "onnxruntime-novel", "onnxruntime_novel", f"EP_NAME = {NOVEL!r}\ndef library_path():\n    return {str(library)!r}\n"
        )
        assert open_session(MODEL, Hardware(("novel",)))[1].obtained == NOVEL

    def test_a_package_that_is_no_plugin_is_none(self, package, runtime, told):
        package(body="x = 1\n")
        with pytest.raises(ProviderError, match=told("'novel' is unknown", "plug-ins installed", "onnxruntime-ep-novel 1.2")):
            provider_names(["novel"])

    def test_is_loaded_once(self, package, runtime):
        package()
        for _ in range(2):
            assert open_session(MODEL, Hardware(("novel",)))[1].obtained == NOVEL
        assert len(runtime.loaded) == 1

    def test_one_that_the_caller_has_loaded_serves(self, package, runtime):
        runtime.register(NOVEL, str(package()))
        assert open_session(MODEL, Hardware(("novel",)))[1].obtained == NOVEL

    def test_without_a_device_it_falls_back_and_says_so(self, package, runtime):
        runtime.brings[str(package())] = []
        _, report = open_session(MODEL, Hardware(("novel",)))
        assert (report.obtained, report.explicit) == (CPU, True)
        assert report.reason == "the plug-in onnxruntime-ep-novel 1.2 finds no device of its own on this machine"

    def test_required_without_a_device(self, package, runtime, told):
        runtime.brings[str(package())] = []
        with pytest.raises(ProviderError, match=told(NOVEL, "was required and not obtained", "no device of its own")):
            open_session(MODEL, Hardware(("novel",), require=True))

    def test_one_that_onnx_runtime_does_not_take(self, package, runtime):
        package()
        runtime.refuses = "[ONNXRuntimeError] : 1 : FAIL : needs API 40\nthis is 31"
        assert open_session(MODEL, Hardware(("novel",)))[1].reason == "its plug-in cannot be loaded: needs API 40 this is 31"

    def test_an_onnx_runtime_that_takes_none(self, package, runtime, monkeypatch):
        package()
        monkeypatch.delattr(onnxruntime, "register_execution_provider_library")
        assert "takes no plug-ins; 1.24 or later does" in open_session(MODEL, Hardware(("novel",)))[1].reason


class TestLibraries:
    def test_is_asked_for_by_the_name_given_to_it(self, library, runtime):
        _, report = open_session(MODEL, Hardware(("mine",), require=True, libraries=(("mine", str(library)),)))
        assert (report.obtained, report.plugin) == (NOVEL, f"{library}, library version 0.9")
        assert runtime.loaded == {"mine": str(library)}

    def test_or_by_its_providers(self, library, runtime):
        assert provider_names(["novel"], (("mine", str(library)),)) == (NOVEL,)

    def test_a_path_that_is_no_file(self, tmp_path, runtime, told):
        path = tmp_path / "none.so"
        with pytest.raises(ProviderError, match=told(f"mine={path}", "no such file")):
            open_session(MODEL, Hardware(("cpu",), libraries=(("mine", str(path)),)))

    def test_a_file_that_is_no_plugin(self, library, runtime, told):
        runtime.refuses = "[ONNXRuntimeError] : 1 : FAIL : Failed to load library: invalid ELF header"
        with pytest.raises(ProviderError, match=told(f"mine={library}: Failed to load library", "for this ONNX Runtime")):
            open_session(MODEL, Hardware(("mine",), libraries=(("mine", str(library)),)))

    def test_one_without_a_device(self, library, runtime, told):
        runtime.brings.clear()
        with pytest.raises(ProviderError, match=told(f"mine={library}", "no device of its own")):
            open_session(MODEL, Hardware(("mine",), libraries=(("mine", str(library)),)))

    def test_an_unknown_name_tells_how_to_name_one(self, runtime, told):
        with pytest.raises(ProviderError, match=told("'mine' is unknown", CPU, "--provider-library NAME=PATH")):
            provider_names(["mine"])


class TestOptionsAndDevices:
    def test_options_go_to_the_device(self, package, runtime):
        package()
        _, report = open_session(MODEL, Hardware(("novel",), options=(("threads", "1"),)))
        assert runtime.opened == [[([(NOVEL, "CPU")], {"threads": "1"})]]
        assert [(o.key, o.running, o.taken) for o in report.options] == [("threads", "1", True)]

    @pytest.mark.parametrize("asked", ["novel:1", "novel:gpu", "novel:GPU"])
    def test_a_device_by_number_or_kind(self, package, runtime, asked):
        package()
        _, report = open_session(MODEL, Hardware((asked,)))
        assert runtime.opened == [[([(NOVEL, "GPU")], {})]]
        assert [(o.key, o.running, o.taken) for o in report.options] == [("device_id", "GPU", True)]

    def test_a_device_that_is_not_there(self, package, runtime, told):
        package()
        with pytest.raises(ProviderError, match=told(NOVEL, "has no device 'npu'", "0 (CPU), 1 (GPU)")):
            open_session(MODEL, Hardware(("novel:npu",)))

    def test_an_option_that_the_plugin_refuses(self, package, runtime, told):
        package()
        with pytest.raises(ProviderError, match=told(f"{NOVEL}: bad=1", "has no option 'bad'")):
            open_session(MODEL, Hardware(("novel",), options=(("bad", "1"),)))

    def test_one_that_cannot_be_made_is_not_the_models_fault(self, package, runtime):
        package()
        _, report = open_session(MODEL, Hardware(("novel",), options=(("breaks", "1"),)))
        assert (report.obtained, report.reason) == (CPU, f"its plug-in failed: {NOVEL} found no backend")
        assert [(o.key, o.taken) for o in report.options] == [("breaks", False)]

    def test_beside_a_provider_of_the_build_all_go_by_name(self, package, runtime):
        package()
        open_session(MODEL, Hardware(("novel", "cuda"), options=(("threads", "1"),)))
        assert [name for name, _ in runtime.opened[0]] == [NOVEL, CUDA, CPU]
        assert runtime.opened[0][0] == (NOVEL, {"threads": "1"})

    def test_rows_are_made_on_the_cpu(self, package, runtime):
        package()
        beside = Hardware(("novel",)).on(NOVEL)
        assert (beside.names, beside.device, beside.of_rows.names) == ((NOVEL,), ("cpu", 0), (CPU,))


def test_an_installed_plugin_runs():
    """A real one, where there is one; rtol: some keep weights in float16."""
    if not plugins.packages():
        pytest.skip("no plug-in provider is installed")
    ran = 0
    for package in plugins.packages():
        name = plugins._plain(package.split()[0])
        session, report = open_session(MODEL, Hardware((name,)))
        if report.explicit:
            assert report.reason
            continue
        X = LINEAR.samples(5)
        assert_allclose(run(session, ["z"], {"x": X.astype(np.float32)})[0], LINEAR.logits(X), rtol=2e-3, atol=2e-3)
        assert report.plugin.startswith(package)
        ran += 1
    if not ran:
        pytest.skip("no plug-in provider finds a device on this machine")
