"""Which devices `--devices` names, and what their processes ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxfim.errors import SettingsError
from onnxfim.fleet.devices import Device, devices_of
from onnxfim.record.settings import Settings


def named(text, providers=("cpu",), *, options=(), **told):
    return devices_of(text, Settings(providers=providers, provider_options=options), **told)


@pytest.mark.parametrize(
    ("text", "providers", "variable", "cards"),
    [
        ("0,1", ("cuda",), "CUDA_VISIBLE_DEVICES", ["0", "1"]),
        ("0-3", ("CUDAExecutionProvider",), "CUDA_VISIBLE_DEVICES", ["0", "1", "2", "3"]),
        ("0, 2-3", ("tensorrt", "cuda"), "CUDA_VISIBLE_DEVICES", ["0", "2", "3"]),
        ("1", ("migraphx",), "HIP_VISIBLE_DEVICES", ["1"]),
    ],
)
def test_each_process_is_shown_one_card(text, providers, variable, cards):
    assert [d.shown for d in named(text, providers)] == [(variable, c) for c in cards]
    assert {d.providers for d in named(text, providers)} == {None}, "no setting tells the card"


def test_cards_are_counted_among_those_that_are_shown():
    environ = {"CUDA_VISIBLE_DEVICES": "4, GPU-8a1f,6"}
    assert [d.shown[1] for d in named("0-2", ("cuda",), environ=environ)] == ["4", "GPU-8a1f", "6"]
    assert [d.shown[1] for d in named("3", ("cuda",), environ={"CUDA_VISIBLE_DEVICES": ""})] == ["3"]
    with pytest.raises(SettingsError, match=r"--devices 2,3: CUDA_VISIBLE_DEVICES shows 3 of them, counted from 0, and 3 is none"):
        named("2,3", ("cuda",), environ=environ)


def test_devices_with_names_are_their_providers_own():
    assert [d.providers for d in named("GPU.0,GPU.1", ("openvino", "cpu"))] == [
        ("openvino:GPU.0", "cpu"),
        ("openvino:GPU.1", "cpu"),
    ]
    with pytest.raises(SettingsError, match=r"'GPU\.0' is no card; numbers were expected"):
        named("GPU.0", ("cuda",))


def test_auto_is_the_graphics_processors_where_there_are_some():
    assert [d.shown[1] for d in named("0,1", ("auto",), gpu=True)] == ["0", "1"]
    assert [(d.shown, d.cores) for d in named("0,1", ("auto",), cores=(0, 1))] == [(None, (0,)), (None, (1,))]


def test_devices_of_the_cpu_are_shares_of_its_cores():
    assert named("0,1", cores=(0, 1, 2, 3, 4)) == (Device("0", cores=(0, 1)), Device("1", cores=(2, 3, 4)))
    assert named("0,1", cores=(5,)) == (Device("0", cores=(5,)), Device("1", cores=(5,)))
    assert named("0,1") == (Device("0"), Device("1"))


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
     (("cuda",), ("cuda:device_id=0",), "--provider-option cuda:device_id=0"),
     (("openvino",), ("device_type=GPU",), "--provider-option device_type=GPU")],
)  # fmt: skip
def test_a_device_that_is_told_twice_is_refused(providers, options, also):
    with pytest.raises(SettingsError, match=f"--devices 0,1: {also} names a device too; one of the two was expected"):
        named("0,1", providers, options=options)
