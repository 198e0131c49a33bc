"""Whether there is an NVIDIA GPU: by what the driver's library answers, which stands in for one here."""

from __future__ import annotations

import pytest

from onnxfim.runtime import nvidia
from onnxfim.runtime.nvidia import look_for_gpu


class Driver:
    """libcuda, as far as it is asked."""

    def __init__(self, code=0, version=13000, devices=1):
        self.code, self.version, self.devices = code, version, devices

    def cuInit(self, flags):
        assert flags == 0
        return self.code

    def cuDriverGetVersion(self, told):
        told._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, told):
        told._obj.value = self.devices
        return 0


@pytest.fixture(autouse=True)
def outside(monkeypatch, tmp_path):
    """Neither a container nor WSL, and nothing hidden; the machine's own state does not count."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvidia, "_IN_CONTAINER", (tmp_path / "container",))
    monkeypatch.setattr(nvidia, "_WSL", tmp_path / "wsl")


@pytest.fixture
def look(tmp_path):
    def ask(driver, kernel=None):
        def load(name):
            assert name in ("libcuda.so.1", "nvcuda.dll")
            if driver is None:
                raise OSError(f"{name}: cannot open shared object file")
            return driver

        if kernel is not None:
            (tmp_path / "version").write_text(kernel, "utf-8")
        return look_for_gpu(load, tmp_path / "version")

    return ask


KERNEL = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\nGCC version: 12.2.0\n"


def test_a_gpu_is_found_with_the_cuda_its_driver_runs(look):
    found = look(Driver(version=12040), KERNEL)
    assert (found.state, found.here, found.cuda, found.driver, found.why) == ("found", True, (12, 4), "580.65.06", None)


def test_no_driver_is_no_gpu(look):
    found = look(None)
    assert (found.state, found.here, found.cuda, found.command) == ("none", False, None, None)
    assert "no NVIDIA driver is installed" in found.why


def test_a_library_to_link_against_is_no_driver(look):
    assert look(Driver(code=34)).state == "none"


@pytest.mark.parametrize("driver", [Driver(code=100), Driver(devices=0)], ids=["error 100", "no device"])
def test_a_driver_without_a_device_is_no_gpu(look, driver):
    found = look(driver)
    assert (found.state, found.here, found.cuda, found.command) == ("hidden", False, (13, 0), None)
    assert "no device (error 100)" in found.why


@pytest.mark.parametrize("value", ["", "-1"])
def test_the_variable_that_hides_a_gpu_is_named(look, monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    found = look(Driver(code=100))
    assert f"CUDA_VISIBLE_DEVICES={value!r} hides it" in found.why
    assert found.command == "unset CUDA_VISIBLE_DEVICES"


def test_a_container_without_its_device(look, monkeypatch, tmp_path):
    (tmp_path / "container").touch()
    found = look(Driver(code=100))
    assert found.state == "hidden"
    assert "this container was given no device" in found.why
    assert "--gpus all" in found.command


def test_a_container_that_sees_the_hosts_kernel_module_alone(look):
    found = look(None, KERNEL)
    assert (found.state, found.here, found.driver) == ("hidden", False, "580.65.06")
    assert "this container was not given it" in found.why
    assert "--gpus all" in found.command


def test_wsl_whose_gpu_is_not_seen(look, tmp_path):
    (tmp_path / "wsl").mkdir()
    found = look(Driver(code=100))
    assert "the driver of Windows is seen and its GPU is not" in found.why
    assert "wsl --shutdown" in found.command


@pytest.mark.parametrize(("code", "words"), [(803, "restart the machine"), (802, "fabric manager"), (999, "error 999")])
def test_a_driver_that_fails_is_a_gpu_that_does_not_work(look, code, words):
    found = look(Driver(code=code))
    assert (found.state, found.here) == ("failing", True)
    assert words in found.why


def test_this_machine_answers_one_way_or_the_other():
    assert nvidia.gpu_here().state in ("none", "hidden", "failing", "found")
