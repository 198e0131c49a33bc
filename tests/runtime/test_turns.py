"""Tests of the turns that the sessions of a large model take: how often they open, and that nothing else changes."""

import shutil

import numpy as np
import pytest

from onnxfim import Settings, audit, load_samples
from onnxfim.auditing.opening import open_subject
from onnxfim.graph import referring
from onnxfim.runtime import turns
from tests.support.places import SAMPLES


class Held:
    def __init__(self, opening=1.0):
        self.opening, self.rested = opening, 0

    def rest(self):
        self.rested += 1


def test_one_holder_is_up_at_a_time():
    a, b, both = Held(), Held(), turns.WeightTurns()
    for holder in (a, a, b, b, a):
        both.take(holder)
    assert (a.rested, b.rested, both.rests) == (1, 1, 2)
    both.none()
    assert (a.rested, b.rested) == (2, 1)


def test_turns_that_cost_too_much_end():
    a, b, both = Held(1e6), Held(1e6), turns.WeightTurns()  # seconds, of which a tenth never passes here
    for _ in range(50):
        both.take(a)
        both.take(b)
    assert both.rests == 6


@pytest.fixture
def model(tmp_path):
    return shutil.copy(SAMPLES / "digits_resnet.onnx", tmp_path / "model.onnx")


@pytest.fixture
def samples(model):
    return load_samples(SAMPLES / "digits.npz", model, limit=4)


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(referring, "LARGE_FILE", 1)
    monkeypatch.setattr(referring, "LARGE_WEIGHT", 256)


def test_a_small_model_takes_no_turns(model, samples):
    assert open_subject(model, samples.inputs, Settings(providers=("cpu",))).turns is None


def test_a_session_that_rested_gives_the_same_values(model, samples, small_is_large):
    forward = open_subject(model, samples.inputs, Settings(providers=("cpu",))).forward
    before, session = forward.outputs(samples.inputs), forward.session
    forward.turns.none()
    np.testing.assert_array_equal(forward.outputs(samples.inputs), before)
    assert forward.session is not session


def test_an_audit_in_turns_is_the_audit_without(model, samples, small_is_large, monkeypatch):
    settings = Settings(providers=("cpu",), batch=4, bounds=False)
    rests = []
    rest = turns.WeightTurns._rest
    monkeypatch.setattr(turns.WeightTurns, "_rest", lambda self, holder: (rests.append(type(holder).__name__), rest(self, holder)))
    taken = audit(model, samples, settings=settings)
    # before ties, the derivative, its check with the flips' own two, and replay
    assert 2 <= rests.count("OnnxForward") <= 5
    monkeypatch.setattr(turns.WeightTurns, "_rest", lambda self, holder: None)
    monkeypatch.setattr(turns.WeightTurns, "take", lambda self, holder: None)
    assert taken.samples == audit(model, samples, settings=settings).samples
    assert taken.run.method == "gradient"
