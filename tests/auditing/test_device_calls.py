"""Audits as they run on a provider with a device of its own: packed directions, and calls of few different shapes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.auditing.run import audit
from onnxfim.gradients import differentiable
from onnxfim.record.settings import Settings
from onnxfim.runtime import forward as forward_module
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.shapes import FEWEST, filled, has_own_device, padded_size, sizes
from tests.support.places import SAMPLES

DIGITS = np.load(SAMPLES / "digits.npz")
X, Y = DIGITS["inputs"], DIGITS["labels"]


@dataclass
class Seen:
    """How many rows each call of each session had, by the session's first input."""

    calls: dict[int, list[int]] = field(default_factory=dict)

    @property
    def shapes(self):
        """Different numbers of rows of each session that was called more than once."""
        return [sorted(set(rows)) for rows in self.calls.values() if len(rows) > 1]


@pytest.fixture
def seen(monkeypatch):
    """Note the rows of every call of every session, whether run as it is or bound."""
    noted = Seen()

    class Noting(onnxruntime.InferenceSession):
        def note(self, name, shape):
            if name == self.get_inputs()[0].name and "v" not in {i.name for i in self.get_inputs()} - {"x"}:
                noted.calls.setdefault(id(self), []).append(int(shape[0]))

        def run(self, outputs, feeds, *rest):
            for name, value in feeds.items():
                self.note(name, value.shape)
            return super().run(outputs, feeds, *rest)

        def io_binding(self):
            binding = super().io_binding()
            bind = binding.bind_ortvalue_input
            binding.bind_ortvalue_input = lambda name, value: (self.note(name, value.shape()), bind(name, value))[1]
            return binding

    monkeypatch.setattr(onnxruntime, "InferenceSession", Noting)
    return noted


@pytest.fixture
def on_a_device(monkeypatch):
    """Let the CPU provider be called as one with a device of its own is."""
    for module in (forward_module, differentiable):
        monkeypatch.setattr(module, "has_own_device", lambda provider: True)


def audited(**settings):
    chosen = Settings(**{"samples": 60, "providers": ("cpu",), "bounds": False, **settings})
    return audit(SAMPLES / "digits_resnet.onnx", X, Y, chosen)


def values(found, name="lambda_max"):
    return np.array([getattr(s, name).value for s in found.samples], float)


class TestSizes:
    def test_few_numbers_of_rows_hold_all(self):
        for most in (1, 2, 8, 9, 60, 64, 100, 512, 1024):
            allowed = sizes(most)
            assert allowed[-1] == most
            assert len(allowed) <= 4
            for rows in range(1, most + 1):
                size = padded_size(rows, most)
                assert size in allowed
                assert rows <= size <= max(FEWEST, 8 * rows)
            assert padded_size(most + 3, most) == most + 3, "rows that are too many are not cut"

    def test_filling_repeats_the_last_row(self):
        rows = np.arange(6).reshape(3, 2)
        assert_array_equal(filled(rows, 5), [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]])
        assert_array_equal(filled(rows, 3, axis=1), [[0, 1, 1], [2, 3, 3], [4, 5, 5]])
        assert filled(rows, 2) is rows

    @pytest.mark.parametrize("name", ["CUDA", "Tensorrt", "NvTensorRTRTX", "ROCM", "MIGraphX", "Dml", "WebGpu", "CoreML", "QNN"])
    def test_whose_device_is_its_own(self, name):
        assert has_own_device(f"{name}ExecutionProvider")

    @pytest.mark.parametrize("name", ["CPU", "OpenVINO", "Dnnl", "XNNPACK"])
    def test_who_computes_on_the_processor(self, name):
        assert not has_own_device(f"{name}ExecutionProvider")


@pytest.mark.slow
class TestShapes:
    def test_a_sketch_with_a_batch_has_three_shapes(self, seen, on_a_device):  # 15 without
        audited(method="sketch", budget=60, batch=64)
        assert max(map(len, seen.shapes)) <= 3, seen.shapes
        assert sum(map(len, seen.calls.values())) > 60

    def test_one_that_finds_its_batch_has_four(self, seen, on_a_device):  # 22 without
        audited(method="sketch", budget=60)
        assert max(map(len, seen.shapes)) <= 4, seen.shapes

    def test_derivatives_and_attacks_too(self, seen, on_a_device):  # 13 without in the attack alone
        found = audited(attack="l2", attack_range=(0.0, 1.0), batch=64)
        assert found.run.method == "gradient"
        assert max(map(len, seen.shapes)) <= 3, seen.shapes

    def test_a_processor_is_not_given_more_rows(self, seen):
        audited(method="sketch", budget=60, batch=64)
        assert max(map(len, seen.shapes)) > 4

    @pytest.mark.parametrize("settings", [{"method": "sketch", "budget": 60}, {"replay": 2}], ids=["sketch", "gradient"])
    def test_values_are_the_same(self, settings, request):  # 1e-4: float32 products in another blocking, over small differences
        plain = audited(batch=64, **settings)
        request.getfixturevalue("on_a_device")
        padded = audited(batch=64, **settings)
        assert [s.index for s in padded.samples] == [s.index for s in plain.samples]
        assert padded.run.evaluations == plain.run.evaluations, "rows that fill up a call are not counted"
        assert_allclose(values(padded), values(plain), rtol=1e-4)
        assert_allclose(values(padded, "lambda_max_calibrated"), values(plain, "lambda_max_calibrated"), rtol=1e-4)
        assert_allclose(values(padded, "flip_radius"), values(plain, "flip_radius"), rtol=0.03)  # searched to 2 %


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"method": "sketch"}, {"method": "sketch", "scheme": "dithered"}, {"method": "auto"}],
    ids=["sketch", "dithered", "gradient"],
)
def test_an_audit_with_packed_directions_is_the_same_to_the_byte(settings, monkeypatch):
    def told(found):
        told = replace(found, run=replace(found.run, seconds=0.0, times={})).to_json()
        return json.dumps(json.loads(told), sort_keys=True)

    plain = audited(samples=12, budget=60, batch=32, **settings)
    made, kinds = OnnxForward.__init__, []
    pair = OnnxForward._pair

    def packing(self, *args, **options):
        made(self, *args, **options)
        self.packs = True

    monkeypatch.setattr(OnnxForward, "__init__", packing)
    monkeypatch.setattr(OnnxForward, "_pair", lambda self, *kind: (kinds.append(kind[-1]), pair(self, *kind))[1])
    packed = audited(samples=12, budget=60, batch=32, **settings)
    assert True in kinds
    assert told(packed) == told(plain)
