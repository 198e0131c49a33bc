from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

import onnxfim
from onnxfim.auditing.input_kinds import guessed
from onnxfim.auditing.pictures import picture_of, thumbnails
from onnxfim.auditing.traces import MOST_POINTS, curve, traces
from onnxfim.record.input_pictures import InputKind
from onnxfim.record.settings import SETTINGS
from tests.support import models
from tests.support.places import SAMPLES

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((28, 28), "image"),
        ((1, 28, 28), "image"),
        ((3, 32, 32), "image"),
        ((224, 224, 3), "image"),
        ((3, 64, 48), "image"),
        ((1, 40, 98), "spectrogram"),
        ((98, 40, 1), "spectrogram"),
        ((128, 400), "spectrogram"),
        ((12, 1000), "series"),
        ((1000, 2), "series"),
        ((1, 16000), "series"),
        ((10,), "tabular"),
        ((1, 12), "tabular"),
        ((2, 3), "other"),
        ((4, 8, 8), "other"),
        ((2000,), "other"),
        ((3, 4, 5, 6), "other"),
    ],
)
def test_shapes_tell_the_kind(shape, kind):
    assert guessed(RNG.standard_normal((5, *shape))) == kind


def test_values_tell_where_shapes_do_not():
    strip = RNG.random((5, 1, 32, 100))
    assert guessed(strip) == "image"  # a line of text, as pixels in 0 … 1
    assert guessed(np.round(255 * strip)) == "image"
    assert guessed(40 * strip) == "spectrogram"
    wave = np.sin(np.linspace(0, 60, 2000)) + 0.1 * RNG.standard_normal((5, 2000))
    assert guessed(wave) == "series"
    assert guessed(wave, named=True) == "tabular"


def test_a_spectrogram_has_time_to_the_right_and_low_frequencies_at_the_bottom():
    plane = np.zeros((40, 90))  # frequency by time
    plane[0, :10] = 1.0  # a low tone at the start
    for x in (plane, plane.T, plane[None], plane[:, :, None]):
        picture = picture_of(x, 0.0, 1.0, "spectrogram")
        assert picture.shape == (40, 90, 1)
        assert picture[-1, :10].min() == 255
        assert picture[:-1].max() == 0
    assert picture_of(np.zeros((80, 3000)), 0.0, 1.0, "spectrogram").shape == (40, 125, 1)


def test_only_images_and_spectrograms_have_pictures():
    for kind in ("series", "tabular", "text", "other"):
        assert picture_of(np.zeros((28, 28)), 0.0, 1.0, kind) is None
    assert thumbnails([], {}) == ()


def test_a_short_curve_is_whole_and_a_long_one_keeps_its_peaks():
    short = RNG.standard_normal(MOST_POINTS)
    assert curve(short).values == tuple(short)
    long = np.zeros(10_000)
    long[[123, 7777]] = 5.0, -3.0
    found = curve(long)
    assert len(found.at) <= MOST_POINTS
    assert {(123, 5.0), (7777, -3.0)} <= set(zip(found.at, found.values, strict=True))
    assert list(found.at) == sorted(found.at)


@pytest.mark.parametrize("channels_last", [False, True])
def test_traces_are_the_channels_with_most_of_the_direction(channels_last):
    x, v = RNG.standard_normal((5, 50)), np.zeros((5, 50))
    v[3, 7], v[1, 20] = 0.8, -0.6
    given = (x.T, v.T) if channels_last else (x, v)
    found = traces(*given)
    assert [t.channel for t in found[:2]] == [3, 1]
    assert [t.share for t in found[:2]] == pytest.approx([0.64, 0.36])  # squares of the entries
    assert found[0].length == 50
    assert found[0].input.values == pytest.approx(x[3])
    assert found[0].direction.values[7] == pytest.approx(0.8)


def test_no_direction_has_no_traces():
    assert traces(np.ones((2, 40)), np.zeros((2, 40))) == ()


@pytest.fixture(scope="module")
def one():
    return onnxfim.load_samples(SAMPLES / "digits.npz", SAMPLES / "digits_mlp.onnx", limit=1)


def test_the_mean_direction_of_one_sample_is_its_direction(one):
    named = replace(one, feature_names=tuple(f"f{i}" for i in range(64)))
    audit = onnxfim.audit(SAMPLES / "digits_mlp.onnx", named, settings=onnxfim.Settings(samples=1, bounds=False))
    assert audit.data.input_kind == "tabular"
    assert audit.data.feature_names == named.feature_names
    summary, (direction,) = audit.direction_summary, audit.directions
    assert summary.samples == 1
    assert sum(m**2 for m in summary.mean) == pytest.approx(1.0, rel=1e-5)  # a unit vector in float32
    for index, value in direction.largest:
        assert summary.mean[index] == pytest.approx(abs(value), rel=1e-6)
    assert direction.input is None


def test_a_sample_without_a_slope_is_not_in_the_mean_direction(tmp_path):
    W = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    net = models.save(models.model([("MatMul", ["x", "W"], ["z"], {})], {"W": W}, shape=(4,), out=(3,)), tmp_path / "net.onnx")
    x = np.array([[1, 2, 1, 1], [10_000, 20_000, 10_000, 10_000]], np.float32)  # the second's probabilities are 0 and 1 in float64
    one, both = (onnxfim.audit(net, x[:n], settings=onnxfim.Settings(bounds=False)) for n in (1, 2))
    assert [s.lambda_max.value for s in both.samples][1] == 0.0
    assert one.direction_summary.samples == both.direction_summary.samples == 1
    assert both.direction_summary.mean == pytest.approx(one.direction_summary.mean, rel=1e-6)  # float32


def test_the_kind_that_is_asked_for_is_shown(one):
    audit = onnxfim.audit(SAMPLES / "digits_mlp.onnx", one, settings=onnxfim.Settings(samples=1, bounds=False, input_kind="series"))
    (direction,) = audit.directions
    assert audit.data.input_kind == "series"
    assert audit.thumbnails == ()
    assert direction.traces
    assert direction.input is None
    assert audit.direction_summary is None
    image = onnxfim.audit(SAMPLES / "digits_mlp.onnx", one, settings=onnxfim.Settings(samples=1, bounds=False))
    assert image.data.input_kind == "image"
    assert image.directions[0].direction is not None


def test_every_kind_can_be_asked_for():
    (setting,) = [s for s in SETTINGS if s.name == "input_kind"]
    assert tuple(setting.choices) == ("auto", *get_args(InputKind))
