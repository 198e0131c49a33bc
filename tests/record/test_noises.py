"""Noise as settings name it."""

from __future__ import annotations

import re

import pytest

from onnxfim.errors import SettingsError
from onnxfim.record.noises import noises, read_noise
from onnxfim.record.settings import Settings


@pytest.mark.parametrize(
    ("text", "kind", "size"),
    [
        ("gaussian:0.1", "gaussian", 0.1),
        ("gaussian:.5", "gaussian", 0.5),
        ("gaussian:2", "gaussian", 2.0),
        ("gaussian:1e-3", "gaussian", 1e-3),
        ("uniform:8/255", "uniform", 8 / 255),
        ("uniform:0.5/2.5", "uniform", 0.2),
    ],
)
def test_decimals_and_fractions(text, kind, size):
    found = read_noise(text)
    assert (found.kind, found.size, found.text) == (kind, size, text)
    assert Settings(noise=(text,)).noise == (text,)  # as it was asked for


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("gauss:0.1",), "noise: 'gauss:0.1' is not one of gaussian:SIZE, uniform:SIZE. Write it such as gaussian:0.1"),
        (("gaussian",), "noise: 'gaussian' is not one of gaussian:SIZE, uniform:SIZE"),
        (("Gaussian:1",), "noise: 'Gaussian:1' is not one of"),
        (("0.1",), "noise: '0.1' is not one of"),
        (("gaussian:",), "noise: 'gaussian:' has the size '', expected a positive number or a fraction"),
        (("gaussian:-0.1",), "has the size '-0.1', expected a positive number or a fraction"),
        (("gaussian: 0.1",), "has the size ' 0.1', expected a positive number or a fraction"),
        (("gaussian:nan",), "has the size 'nan', expected a positive number"),
        (("gaussian:inf",), "has the size 'inf', expected a positive number"),
        (("gaussian:0,1",), "has the size '0,1', expected a positive number"),
        (("gaussian:1/2/3",), "has the size '1/2/3', expected a positive number"),
        (("gaussian:١",), "has the size '١', expected a positive number"),
        (("gaussian:0",), "has the size 0, expected one above 0. Write it such as gaussian:0.1 (its standard deviation)"),
        (("uniform:1/0",), "has the size 1/0, expected one above 0"),
        (("gaussian:1e400",), "has the size inf, which is none to compute with. Give one from 1e-30 to 1e+30."),
        (("uniform:1e-31",), "has the size 1e-31, which is none to compute with"),
        (("gaussian:0.1", "gaussian:0.1"), "noise: 'gaussian:0.1' is there twice. Name each noise once."),
        (("gaussian:0.1", "uniform:1", "gaussian:1/10"), "'gaussian:1/10' is there twice (as 'gaussian:0.1' too). Name each noise"),
    ],
)
def test_what_cannot_be_noise_is_refused_in_one_line(texts, words):
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        Settings(noise=texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise_stable": 1.0}, "noise_stable: 1.0 is not between 0 and 100 %"),
        ({"noise_stable": 0.0}, "noise_stable: 0.0 is not between 0 and 100 %"),
        ({"noise_budget": 49}, "noise_budget: 49 is not a number of rows from 50 to a billion."),
        ({"noise_budget": 10**9 + 1}, "is not a number of rows from 50 to a billion."),
    ],
)
def test_what_cannot_be_decided_by(changes, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        Settings(noise=("gaussian:1",), **changes)


def test_the_same_size_in_two_ways_is_the_same_noise():
    a, b = noises(("gaussian:0.1", "gaussian:1/10"))
    assert a.same == b.same
    assert noises(("gaussian:0.1",))[0].same != noises(("uniform:0.1",))[0].same
