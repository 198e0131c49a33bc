from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim import Settings, audit
from onnxfim.auditing.common_step import Candidate, at_common_step
from onnxfim.errors import InputError, SettingsError
from onnxfim.slopes.estimators import lambda_max_sketch
from onnxfim.verdict import compare_to_baseline
from tests.support.places import SAMPLES as MODELS


@pytest.fixture(scope="module")
def digits():
    with np.load(MODELS / "digits.npz") as data:
        return data["inputs"][:24], data["labels"][:24]


def settings(**changes):
    return Settings(method="sketch", providers=("cpu",), batch=256, budget=41, **changes)


@pytest.mark.slow
def test_the_coarsest_model_sets_step_and_scheme(digits):
    subjects = [Candidate(MODELS / f"{name}.onnx", digits[0], settings()) for name in ("digits_resnet", "digits_resnet_int8")]
    float32, int8 = at_common_step(subjects)
    assert (float32.step, float32.scheme) == (int8.step, int8.scheme)
    # int8 levels are 1/127 of the range and wider: no local slope, so steps of about a level are needed.
    assert float32.step > 5e-3
    assert float32.scheme != "forward"
    found = [audit(s.model, *digits, chosen) for s, chosen in zip(subjects, (float32, int8), strict=True)]
    assert compare_to_baseline(found[1], found[0]).paired


def test_one_model_keeps_its_own_choice(digits):
    assert at_common_step([Candidate(MODELS / "digits_mlp.onnx", digits[0], settings())]) == [settings()]


def test_saved_audits_are_followed(digits):
    saved = audit(MODELS / "digits_mlp.onnx", *digits, settings(seed=9, step=2e-3))
    (chosen,) = at_common_step([Candidate(MODELS / "digits_vgg.onnx", digits[0], settings())], [saved])
    assert (chosen.step, chosen.scheme, chosen.seed, chosen.method) == (2e-3, saved.run.scheme, 9, "sketch")


def test_a_saved_audit_of_no_known_scheme_is_refused(digits):
    saved = audit(MODELS / "digits_mlp.onnx", *digits, settings(step=2e-3))
    odd = replace(saved, run=replace(saved.run, scheme="other"))
    with pytest.raises(
        InputError, match=r"its audit took 'other' differences, expected forward, central or dithered\. Audit it again"
    ):
        at_common_step([Candidate(MODELS / "digits_vgg.onnx", digits[0], settings())], [odd])


@pytest.mark.parametrize("scheme", ["forward", "central", "dithered"])
@pytest.mark.parametrize("step", [None, 1e-3])
@pytest.mark.slow
def test_a_scheme_that_is_asked_for_is_used(digits, scheme, step):
    found = audit(MODELS / "digits_mlp.onnx", *digits, settings(scheme=scheme, step=step))
    assert found.run.scheme == scheme
    assert step is None or found.run.step == step
    assert all(s.lambda_max.value > 0 for s in found.samples)


def test_an_unknown_scheme_is_an_error():
    with pytest.raises(SettingsError, match="scheme: 'sideways' is not auto, forward, central or dithered"):
        Settings(scheme="sideways")


def test_pseudo_values_average_to_the_value():
    rng = np.random.default_rng(0)
    sketch = lambda_max_sketch(rng.normal(size=(100, 5)) * np.array([3.0, 1, 0.5, 0.1, 0.1]))
    assert len(sketch.replicates) == 20
    assert_allclose(np.mean(sketch.replicates), 1.0, atol=1e-4)  # rounded to four decimals
