"""Which devices `--devices` names, and what their processes ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxfim.errors import SettingsError
from onnxfim.fleet.devices import Device, devices_of
from onnxfim.record.settings import Settings


def named(text, providers=("cpu",), *, options=(), cores=(), gpu=False):
    return devices_of(text, Settings(providers=providers, provider_options=options), cores=cores, gpu=gpu)


@pytest.mark.parametrize(
    ("text", "providers", "expected"),
    [
        ("0,1", ("cuda",), [("cuda:0",), ("cuda:1",)]),
        ("0-3", ("cuda",), [("cuda:0",), ("cuda:1",), ("cuda:2",), ("cuda:3",)]),
        ("0, 2-3", ("tensorrt",), [("tensorrt:0",), ("tensorrt:2",), ("tensorrt:3",)]),
        ("3", ("cuda", "cpu"), [("cuda:3", "cpu")]),
        ("GPU.0,GPU.1", ("openvino",), [("openvino:GPU.0",), ("openvino:GPU.1",)]),
    ],
)  # fmt: skip
def test_each_device_is_its_providers_own(text, providers, expected):
    assert [d.providers for d in named(text, providers)] == expected


def test_auto_is_the_graphics_processors_where_there_are_some():
    assert [d.providers for d in named("0,1", ("auto",), gpu=True)] == [("cuda:0",), ("cuda:1",)]
    assert [d.providers for d in named("0,1", ("auto",), cores=(0, 1))] == [("auto",), ("auto",)]


def test_devices_of_the_cpu_are_shares_of_its_cores():
    assert named("0,1", cores=(0, 1, 2, 3, 4)) == (Device("0", ("cpu",), (0, 1)), Device("1", ("cpu",), (2, 3, 4)))
    assert named("0,1", cores=(5,)) == (Device("0", ("cpu",), (5,)), Device("1", ("cpu",), (5,)))
    assert named("0,1") == (Device("0", ("cpu",)), Device("1", ("cpu",)))


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_core_works_and_every_device_has_one(cores, devices):
    shares = [d.cores for d in named(f"0-{devices - 1}", cores=range(cores))]
    assert all(shares)
    assert {c for share in shares for c in share} == set(range(min(cores, devices) if devices >= cores else cores))
    if devices <= cores:
        assert sum(map(len, shares)) == cores
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["", ",", "0,", "0,,1", "3-1", "-1", "0-", "a b", "0;1", "\x1b[2J", "0-1-2"])
def test_what_is_no_device_is_refused(text):
    with pytest.raises(
        SettingsError, match=r"is no device; names with commas between them were expected\. Give such as 0,1 or 0-7\."
    ) as e:
        named(text, ("cuda",))
    assert str(e.value).isprintable()


@pytest.mark.parametrize("text", ["0,1,0", "0-2,1"])
def test_a_device_twice_is_refused(text):
    with pytest.raises(SettingsError, match="comes twice; each device once was expected"):
        named(text)


def test_names_are_no_devices_of_the_cpu():
    with pytest.raises(SettingsError, match=r"--devices 0,GPU: 'GPU' is no device of the CPU; numbers were expected"):
        named("0,GPU")


@pytest.mark.parametrize(
    ("providers", "options", "also"),
    [(("cuda:1",), (), "--provider cuda:1"), (("cuda",), ("device_id=1",), "--provider-option device_id=1"),
     (("cuda",), ("cuda:device_id=0",), "--provider-option cuda:device_id=0")],
)  # fmt: skip
def test_a_device_that_is_told_twice_is_refused(providers, options, also):
    with pytest.raises(SettingsError, match=f"--devices 0,1: {also} names a device too; one of the two was expected"):
        named("0,1", providers, options=options)
