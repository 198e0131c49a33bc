"""Two distributions over one another are found by the files they list, whatever they are called."""

from __future__ import annotations

import sys

import pytest

from onnxfim.errors import ProviderError
from onnxfim.runtime import installation
from onnxfim.runtime.installation import Installation, Package, import_runtime, installed, not_importable


@pytest.fixture
def site(tmp_path):
    """A folder of installed distributions, each with a list of its files as pip writes it."""

    def put(name, version, *files, into="site"):
        folder = tmp_path / into
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
        (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in (*files, f"{info.name}/METADATA")), "utf-8")
        return [str(folder)]

    return put


RUNTIME = ("onnxruntime/LICENSE", "onnxruntime/__init__.py", "onnxruntime/capi/_pybind_state.py")


def test_one_build_is_no_mixture(site):
    site("numpy", "2.0.0", "numpy/__init__.py")
    found = installed(site("onnxruntime", "1.31.1", *RUNTIME))
    assert found == Installation((Package("onnxruntime", "1.31.1"),), ())
    assert found.mixture is None


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (("onnxruntime", "onnxruntime-gpu"), "onnxruntime-gpu"),
        (("onnxruntime-gpu", "onnxruntime-openvino"), "onnxruntime-openvino"),
        (("onnxruntime", "onnxruntime-directml"), "onnxruntime-directml"),
        (("onnxruntime", "vendors-own-build"), "vendors-own-build"),  # whatever its name
    ],
)
def test_two_builds_are_told_with_the_command_that_keeps_the_chosen_one(site, names, kept):
    for i, name in enumerate(names):
        path = site(name, f"1.3{i}.0", *RUNTIME)
    mixture = installed(path).mixture
    assert mixture.text == f"2 builds of ONNX Runtime lie over one another: {names[0]} 1.30.0 and {names[1]} 1.31.0."
    version = f"1.3{names.index(kept)}.0"
    assert mixture.command == f"pip uninstall -y {names[0]} {names[1]} && pip install --no-deps {kept}=={version}"
    assert "\n" not in str(mixture)


def test_a_plugin_that_brings_no_onnxruntime_is_not_a_second_build(site):
    site("onnxruntime-gpu", "1.31.1", *RUNTIME)
    found = installed(site("onnxruntime-qnn", "2.7.0", "onnxruntime_qnn/__init__.py", "a/onnxruntime/__init__.py"))
    assert [p.name for p in found.runtimes] == ["onnxruntime-gpu"]


def test_a_build_in_a_later_folder_is_hidden_not_mixed(site):
    first = site("onnxruntime-openvino", "1.24.1", *RUNTIME)
    second = site("onnxruntime", "1.31.1", *RUNTIME, into="other")
    assert installed(first + second).runtimes == (Package("onnxruntime-openvino", "1.24.1"),)
    assert installed(second + first).runtimes == (Package("onnxruntime", "1.31.1"),)


def test_both_distributions_of_onnxfim_are_told(site):
    site("onnxfim", "0.1.0", "onnxfim/__init__.py")
    mixture = installed(site("onnxfim-core", "0.1.0", "onnxfim/__init__.py")).mixture
    assert mixture.text == "2 distributions of onnxfim lie over one another: onnxfim 0.1.0 and onnxfim-core 0.1.0."
    assert mixture.command == "pip uninstall -y onnxfim onnxfim-core && pip install --no-deps onnxfim==0.1.0"


def test_this_environment_has_one_build():
    assert len(installed().runtimes) == 1


@pytest.fixture
def runtimes(monkeypatch):
    def are(*packages):
        monkeypatch.setattr(installation, "installed", lambda: Installation(packages, ()))

    return are


def test_no_build_says_which_to_install(monkeypatch, runtimes, told):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    runtimes()
    with pytest.raises(
        ProviderError, match=told("ONNX Runtime is not installed", "Install one: pip install onnxruntime", "-openvino")
    ):
        import_runtime()


def test_a_build_that_cannot_be_imported_says_why(monkeypatch, runtimes, tmp_path, told):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libcudart.so.13: cannot open')\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    runtimes(Package("onnxruntime-gpu", "1.27.0"))
    with pytest.raises(ProviderError, match=told("onnxruntime-gpu 1.27.0 cannot be imported: libcudart.so.13", "!=1.27.0")):
        import_runtime()


def test_the_remains_of_a_build_are_no_build(monkeypatch, runtimes, tmp_path, told):
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [m for m in sys.modules if m.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    runtimes()
    with pytest.raises(ProviderError, match=told("ONNX Runtime is not installed")):
        import_runtime()


def test_another_build_is_installed_again():
    assert not_importable((Package("onnxruntime-openvino", "1.24.1"),), "no\nlibrary") == (
        "onnxruntime-openvino 1.24.1 cannot be imported: no library.",
        "pip install --force-reinstall --no-deps onnxruntime-openvino==1.24.1",
    )
